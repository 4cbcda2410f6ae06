//! Headers that requests carry and replies bring, and compression, which is a matter of headers too.

use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

use crate::error::ApiError;
use crate::options::ClientOptions;

/// The headers of every request.
pub(crate) fn headers(options: &ClientOptions) -> Result<HeaderMap, ApiError> {
    let mut headers = HeaderMap::new();
    for (text, names) in [
        (&options.worker_header, ["x-clearml-worker", "x-trains-worker"]),
        (&options.user_agent_name, ["x-clearml-agent", "x-trains-agent"]),
    ] {
        if text.is_empty() {
            continue;
        }
        let value = HeaderValue::from_str(text).map_err(|_| ApiError::Options {
            reason: format!("{text:?} cannot be sent as a header"),
        })?;
        for name in names {
            headers.insert(HeaderName::from_static(name), value.clone());
        }
    }
    for (name, value) in &options.headers {
        let unusable = |what: &str| ApiError::Options {
            reason: format!("the header {name:?}: {what} cannot be sent"),
        };
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable("such a name"))?;
        if key == AUTHORIZATION {
            return Err(ApiError::Options {
                reason: "the header Authorization carries the credentials and cannot be given".to_owned(),
            });
        }
        let mut value = HeaderValue::from_str(value.expose()).map_err(|_| unusable("its value"))?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

/// A token that no header can carry is sent nowhere; the server's 401 then tells the rest.
pub(crate) fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

pub(crate) fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(
        at.duration_since(std::time::SystemTime::now())
            .unwrap_or_default(),
    )
}
