//! One request and its reply: sending, reading within bounds, and sorting every outcome into an
//! [`ApiError`]. Nothing is repeated here.

use std::error::Error as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{
    AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
};
use serde::Deserialize;
use tokio::time::timeout;

use crate::call::{Body, Call};
use crate::error::{ApiError, Interruption};
use crate::options::{ClientOptions, Server};
use crate::tls::client_config;

/// No reply takes longer than this, however steadily it trickles in.
const LONGEST_REPLY: Duration = Duration::from_secs(600);
/// Large bodies get this much more time per part of them.
const UPLOAD_PART: usize = 256 * 1024;
/// How much of a foreign text goes into a message.
const EXCERPT: usize = 160;

pub(crate) struct Transport {
    http: reqwest::Client,
    pub(crate) server: Server,
    default_method: reqwest::Method,
    request_timeout: Duration,
    max_response_bytes: usize,
}

/// What a request is signed with.
#[derive(Clone, Copy)]
pub(crate) enum Signature<'a> {
    None,
    Basic { user: &'a str, password: &'a str },
    Bearer(&'a str),
}

/// A good reply.
pub(crate) struct Reply {
    pub(crate) body: Bytes,
    /// `Some(id)` when the server has taken the call and will have the result later (202).
    pub(crate) pending: Option<String>,
}

#[derive(Deserialize)]
struct Envelope {
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    id: Option<String>,
    result_code: Option<u16>,
    result_subcode: Option<u32>,
    result_msg: Option<String>,
}

impl Transport {
    pub(crate) fn new(options: &ClientOptions) -> Result<Self, ApiError> {
        let server = Server::parse(&options.api_server)?;
        let tls = client_config(
            &options.verify,
            server.https || (!server.loopback && proxy_speaks_tls()),
        )?;
        let mut builder = reqwest::Client::builder()
            .default_headers(headers(options)?)
            .user_agent(options.user_agent_name.as_str())
            .connect_timeout(options.connect_timeout)
            // Shorter than the idle limit of servers and gateways, so that a call that must not be
            // repeated does not meet a connection that the other side has just given up.
            .pool_idle_timeout(Duration::from_secs(20))
            .pool_max_idle_per_host(4)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .tls_backend_preconfigured(tls);
        if server.loopback {
            // A proxy elsewhere cannot reach this machine's loopback.
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| ApiError::Options {
            reason: format!("the HTTP client cannot be built: {}", chain(error)),
        })?;
        Ok(Self {
            http,
            server,
            default_method: options.default_method.to_http(),
            request_timeout: options.request_timeout,
            max_response_bytes: options.max_response_bytes,
        })
    }

    /// Sends the call once. `limit` shortens the wait for an answer.
    pub(crate) async fn send(
        &self,
        call: &Call,
        signature: Signature<'_>,
        query: &[(&str, String)],
        limit: Option<Duration>,
    ) -> Result<Reply, ApiError> {
        let failed = |cause: Interruption, reason: String| ApiError::Ambiguous {
            endpoint: call.endpoint.to_string(),
            server: self.server.shown().to_owned(),
            cause,
            reason,
        };
        let patience = limit.map_or(self.request_timeout, |limit| limit.min(self.request_timeout));
        let upload = Duration::from_secs((call.body.len() / UPLOAD_PART) as u64);
        let response = match timeout(patience + upload, self.request(call, signature, query).send()).await {
            Err(_) => {
                let reason = format!("no answer within {:.1} s", (patience + upload).as_secs_f64());
                return Err(failed(Interruption::Timeout, reason));
            }
            Ok(Err(error)) => return Err(self.send_error(call, error)),
            Ok(Ok(response)) => response,
        };
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let location = response
            .headers()
            .get(LOCATION)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let body = self.read(call, response, patience).await?;
        if let (300..=399, Some(location)) = (status, location) {
            return Err(self.protocol(call, format!("it redirects to {location}")));
        }
        self.judge(call, status, retry_after, body)
    }

    fn request(
        &self,
        call: &Call,
        signature: Signature<'_>,
        query: &[(&str, String)],
    ) -> reqwest::RequestBuilder {
        let method = match (call.method, &call.body) {
            (Some(method), _) => method.to_http(),
            (None, Body::Lines(_)) => reqwest::Method::POST,
            (None, _) => self.default_method.clone(),
        };
        let mut request = self
            .http
            .request(method, self.server.url(&call.endpoint, call.version.as_deref()));
        if !query.is_empty() {
            request = request.query(query);
        }
        request = match signature {
            Signature::None => request,
            Signature::Basic { user, password } => request.basic_auth(user, Some(password)),
            Signature::Bearer(token) => match bearer(token) {
                Some(value) => request.header(AUTHORIZATION, value),
                None => request,
            },
        };
        if call.deferred {
            request = request
                .header("X-ClearML-Async", "1")
                .header("X-Trains-Async", "1");
        }
        match &call.body {
            Body::Empty => request,
            Body::Json(bytes) => request
                .header(CONTENT_TYPE, "application/json")
                .body(bytes.clone()),
            Body::Lines(bytes) => request
                .header(CONTENT_TYPE, "application/json-lines")
                .body(bytes.clone()),
        }
    }

    async fn read(
        &self,
        call: &Call,
        mut response: reqwest::Response,
        patience: Duration,
    ) -> Result<Bytes, ApiError> {
        let started = Instant::now();
        let failed = |cause: Interruption, reason: String| ApiError::Ambiguous {
            endpoint: call.endpoint.to_string(),
            server: self.server.shown().to_owned(),
            cause,
            reason,
        };
        let mut body = Vec::new();
        loop {
            let part = match timeout(patience, response.chunk()).await {
                Err(_) => {
                    return Err(failed(
                        Interruption::Timeout,
                        "the answer stopped in the middle".to_owned(),
                    ));
                }
                Ok(Err(error)) => return Err(failed(Interruption::Truncated, chain(error))),
                Ok(Ok(None)) => return Ok(Bytes::from(body)),
                Ok(Ok(Some(part))) => part,
            };
            if body.len() + part.len() > self.max_response_bytes {
                let limit = self.max_response_bytes;
                return Err(ApiError::TooLarge {
                    endpoint: call.endpoint.to_string(),
                    limit,
                });
            }
            if started.elapsed() > LONGEST_REPLY {
                return Err(failed(
                    Interruption::Timeout,
                    "the answer does not come to an end".to_owned(),
                ));
            }
            body.extend_from_slice(&part);
        }
    }

    fn judge(
        &self,
        call: &Call,
        http: u16,
        retry_after: Option<Duration>,
        body: Bytes,
    ) -> Result<Reply, ApiError> {
        let meta = match serde_json::from_slice::<Envelope>(&body) {
            Ok(Envelope { meta: Some(meta) }) => meta,
            Ok(Envelope { meta: None }) if http < 300 => {
                return Err(self.protocol(call, "the JSON has no \"meta\"".to_owned()));
            }
            Err(error) if http < 300 && error.is_eof() && !body.is_empty() => {
                return Err(ApiError::Ambiguous {
                    endpoint: call.endpoint.to_string(),
                    server: self.server.shown().to_owned(),
                    cause: Interruption::Truncated,
                    reason: format!("the JSON ends after {} bytes", body.len()),
                });
            }
            Err(_) if http < 300 => {
                return Err(self.protocol(call, format!("HTTP {http} with {}", excerpt(&body))));
            }
            _ => return Err(self.status(call, http, http, 0, excerpt(&body), retry_after, false)),
        };
        let code = meta.result_code.unwrap_or(http);
        if code == 202 {
            return match meta.id {
                Some(id) => Ok(Reply {
                    body,
                    pending: Some(id),
                }),
                None => Err(self.protocol(call, "a deferred answer without id".to_owned())),
            };
        }
        if (200..300).contains(&code) && http < 300 {
            return Ok(Reply { body, pending: None });
        }
        let message = meta.result_msg.unwrap_or_else(|| "no message".to_owned());
        let subcode = meta.result_subcode.unwrap_or(0);
        Err(self.status(call, http.max(code), code, subcode, message, retry_after, true))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of the error, in their order"
    )]
    fn status(
        &self,
        call: &Call,
        http: u16,
        code: u16,
        subcode: u32,
        message: String,
        retry_after: Option<Duration>,
        enveloped: bool,
    ) -> ApiError {
        let endpoint = call.endpoint.to_string();
        if code == 401 {
            return ApiError::Unauthorized {
                endpoint,
                server: self.server.shown().to_owned(),
                subcode,
                message,
            };
        }
        ApiError::Status {
            endpoint,
            http,
            code,
            subcode,
            message,
            retry_after,
            enveloped,
        }
    }

    fn protocol(&self, call: &Call, reason: String) -> ApiError {
        ApiError::Protocol {
            endpoint: call.endpoint.to_string(),
            server: self.server.shown().to_owned(),
            reason,
        }
    }

    fn send_error(&self, call: &Call, error: reqwest::Error) -> ApiError {
        let endpoint = call.endpoint.to_string();
        let server = self.server.shown().to_owned();
        if error.is_builder() {
            return ApiError::Options {
                reason: format!("{endpoint}: the request cannot be built: {}", chain(error)),
            };
        }
        let timed_out = error.is_timeout();
        match (error.is_connect(), has_tls_cause(&error)) {
            (true, true) => ApiError::Tls {
                endpoint,
                server,
                reason: chain(error),
            },
            (true, false) => ApiError::Connect {
                endpoint,
                server,
                reason: chain(error),
            },
            (false, _) => {
                let cause = if timed_out {
                    Interruption::Timeout
                } else {
                    Interruption::Disconnected
                };
                ApiError::Ambiguous {
                    endpoint,
                    server,
                    cause,
                    reason: chain(error),
                }
            }
        }
    }
}

fn headers(options: &ClientOptions) -> Result<HeaderMap, ApiError> {
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
    Ok(headers)
}

/// A token that no header can carry is sent nowhere; the server's 401 then tells the rest.
fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn proxy_speaks_tls() -> bool {
    [
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ]
    .iter()
    .any(|name| std::env::var(name).is_ok_and(|value| value.starts_with("https://")))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
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

/// Whether the handshake failed, as opposed to the connection. An [`std::io::Error`] leaves the error it
/// wraps out of its `source`, so wrapped ones are opened by hand.
fn has_tls_cause(error: &(dyn std::error::Error + 'static)) -> bool {
    let wrapped = error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref);
    error.is::<rustls::Error>()
        || wrapped.is_some_and(|inner| has_tls_cause(inner))
        || error.source().is_some_and(has_tls_cause)
}

/// The causes from the outside in, without the layers that only repeat that a request failed.
fn chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut parts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(current) = cause {
        let text = current.to_string();
        if parts.last().is_some_and(|last| !last.ends_with(&text)) {
            parts.push(text);
        }
        cause = current.source();
    }
    let says_nothing = |part: &String| part == "error sending request" || part.starts_with("client error (");
    let first = parts.iter().position(|part| !says_nothing(part)).unwrap_or(0);
    parts[first..].join(": ")
}

/// The beginning of a foreign text on one line, without markup noise.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * EXCERPT)]);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() {
        return "an empty body".to_owned();
    }
    match line.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("\"{}…\"", &line[..end]),
        None => format!("\"{line}\""),
    }
}
