//! What a client needs to know before its first call.

use std::fmt;
use std::time::Duration;

use clearml_support::redact::mask_url;
use clearml_support::secret::Secret;
use url::{Host, Url};

use crate::call::Method;
use crate::error::ApiError;
use crate::retry::RetryPolicy;
use crate::tls::TlsVerify;

/// Who we are for the server.
#[derive(Debug, Clone)]
pub enum Auth {
    /// An access key and its secret.
    Keys {
        /// `api.credentials.access_key`.
        access_key: Secret,
        /// `api.credentials.secret_key`.
        secret_key: Secret,
    },
    /// A token, exchanged for one of our own at the first login.
    Token(Secret),
}

/// How to reach a server, and as whom.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Base URL of the API server; a path in it is kept, slashes at its end are not.
    pub api_server: String,
    /// Credentials.
    pub auth: Auth,
    /// Certificate check for `https` servers.
    pub verify: TlsVerify,
    /// HTTP method of calls that name none.
    pub default_method: Method,
    /// A token with less life than this left (or than half of its life) is replaced before use.
    pub token_threshold: Duration,
    /// Life of tokens to ask for; `None` = the server's default.
    pub token_expiration: Option<Duration>,
    /// Name and version of the program, sent as `X-ClearML-Agent` and `User-Agent`.
    pub user_agent_name: String,
    /// Host name, sent as `X-ClearML-Worker`.
    pub worker_header: String,
    /// Waits between repetitions.
    pub retry: RetryPolicy,
    /// Largest request body in bytes; batches are cut at line ends below it.
    pub max_request_bytes: usize,
    /// Largest reply body in bytes, after decompression.
    pub max_response_bytes: usize,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for the beginning of an answer, and between two parts of it.
    pub request_timeout: Duration,
}

impl ClientOptions {
    /// Options for a server with everything else at its default.
    pub fn new(api_server: impl Into<String>, auth: Auth) -> Self {
        let program = concat!("clearml-api-client/", env!("CARGO_PKG_VERSION"));
        Self {
            api_server: api_server.into(),
            auth,
            verify: TlsVerify::System,
            default_method: Method::Post,
            token_threshold: Duration::from_secs(43_200),
            token_expiration: None,
            user_agent_name: program.to_owned(),
            worker_header: String::new(),
            retry: RetryPolicy::default(),
            max_request_bytes: 15 * 1024 * 1024,
            max_response_bytes: 64 * 1024 * 1024,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
        }
    }
}

/// The server's address, checked once.
#[derive(Clone)]
pub(crate) struct Server {
    base: String,
    shown: String,
    pub(crate) https: bool,
    pub(crate) loopback: bool,
}

impl Server {
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        let trimmed = text.trim().trim_matches('/');
        let shown = mask_url(trimmed);
        let fail = |why: &str| ApiError::Options {
            reason: format!("api.api_server {shown:?} {why}; expected something like http://localhost:8008"),
        };
        let url = Url::parse(trimmed).map_err(|error| fail(&format!("is not a URL ({error})")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(fail("is neither http nor https"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(fail("has a query or fragment"));
        }
        let loopback = match url.host() {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => return Err(fail("has no host")),
        };
        Ok(Self {
            base: trimmed.to_owned(),
            https: url.scheme() == "https",
            loopback,
            shown,
        })
    }

    /// The URL of a call.
    pub(crate) fn url(&self, endpoint: &str, version: Option<&str>) -> String {
        match version {
            Some(version) => format!("{}/v{version}/{endpoint}", self.base),
            None => format!("{}/{endpoint}", self.base),
        }
    }

    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_people_write() {
        for (text, url) in [
            ("http://h:8008", "http://h:8008/v2.14/tasks.ping"),
            (
                " https://api.example.com// ",
                "https://api.example.com/v2.14/tasks.ping",
            ),
            (
                "https://example.com/clearml/api/",
                "https://example.com/clearml/api/v2.14/tasks.ping",
            ),
            ("http://[::1]:8008", "http://[::1]:8008/v2.14/tasks.ping"),
        ] {
            assert_eq!(Server::parse(text).unwrap().url("tasks.ping", Some("2.14")), url);
        }
        for bad in ["", "h:8008", "ftp://h", "http://", "http://h?x=1"] {
            let message = Server::parse(bad).unwrap_err().to_string();
            assert!(message.contains("api.api_server"), "{bad}: {message}");
        }
    }

    #[test]
    fn neither_options_nor_address_show_a_secret() {
        let auth = Auth::Keys {
            access_key: Secret::new("AKEY"),
            secret_key: Secret::new("hunter2"),
        };
        let options = ClientOptions::new("http://h", auth);
        assert!(!format!("{options:?}").contains("hunter2"));
        let server = Server::parse("http://u:hunter2@h").unwrap();
        assert!(!format!("{server:?} {}", server.shown()).contains("hunter2"));
    }

    #[test]
    fn loopback_is_recognised() {
        for (text, expected) in [
            ("http://127.0.0.1:1", true),
            ("http://localhost", true),
            ("http://[::1]", true),
            ("http://192.168.0.1", false),
            ("http://localhost.example.com", false),
        ] {
            assert_eq!(Server::parse(text).unwrap().loopback, expected, "{text}");
        }
    }
}
