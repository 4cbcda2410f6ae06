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
use crate::token::Version;

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

impl Auth {
    /// An access key and its secret.
    pub fn keys(access_key: impl Into<String>, secret_key: impl Into<String>) -> Self {
        Self::Keys {
            access_key: Secret::new(access_key),
            secret_key: Secret::new(secret_key),
        }
    }

    /// A token (`CLEARML_AUTH_TOKEN`).
    pub fn token(token: impl Into<String>) -> Self {
        Self::Token(Secret::new(token))
    }
}

/// How to reach a server, and as whom.
#[derive(Clone)]
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
    /// Further headers of every request, for gateways that ask for them. Their values count as secrets.
    pub headers: Vec<(String, Secret)>,
    /// Takes the server for not newer than this (`CLEARML_AGENT_FORCE_MAX_API_VERSION`): no call asks for
    /// a higher version, and features that came later are not there. Ignored by an older server.
    pub max_api_version: Option<Version>,
    /// Compresses request bodies from this size on. The official server refuses such requests (415),
    /// which the client answers by sending plain bodies from then on. `None` = never.
    pub compress_requests: Option<usize>,
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
            headers: Vec::new(),
            max_api_version: None,
            compress_requests: None,
            retry: RetryPolicy::default(),
            max_request_bytes: 15 * 1024 * 1024,
            max_response_bytes: 64 * 1024 * 1024,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("api_server", &mask_url(&self.api_server))
            .field("auth", &self.auth)
            .field("verify", &self.verify)
            .field("default_method", &self.default_method)
            .field("max_api_version", &self.max_api_version)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
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
        let mut url = Url::parse(trimmed).map_err(|error| match error {
            // What stands in the place of a port may be the password of a user whose host was forgotten.
            url::ParseError::InvalidPort => ApiError::Options {
                reason:
                    "api.api_server is not a URL: what follows its last colon is no port; expected something \
                         like http://localhost:8008"
                        .to_owned(),
            },
            error => fail(&format!("is not a URL ({error})")),
        })?;
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
        let named = !url.username().is_empty() || url.password().is_some();
        let cannot_be_a_base = "an address with a host can have, and lose, a user";
        if named {
            // It would take the place of the credentials: there is one such header.
            tracing::warn!(
                server = shown,
                "the user in api.api_server is not used; put a gateway's credentials into a header"
            );
            url.set_username("").expect(cannot_be_a_base);
            url.set_password(None).expect(cannot_be_a_base);
        }
        Ok(Self {
            base: if named {
                url.as_str().trim_end_matches('/').to_owned()
            } else {
                trimmed.to_owned()
            },
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
        let options = ClientOptions::new("http://u:hunter2@h", Auth::token("hunter2"));
        assert!(!format!("{options:?}").contains("hunter2"));
        let server = Server::parse("http://u:hunter2@h").unwrap();
        assert!(!format!("{server:?} {}", server.shown()).contains("hunter2"));
        assert_eq!(server.url("debug.ping", None), "http://h/debug.ping");
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
