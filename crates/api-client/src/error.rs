//! Everything that can go wrong between a call and its answer, in terms a caller can act on.
//!
//! Two questions decide what a caller does next, and every error answers both: may the same call
//! succeed later ([`ApiError::is_transient`]), and is it certain that the server did not apply it
//! ([`ApiError::was_not_applied`])? No variant carries a credential: texts that came from outside
//! have passed the redactor before they got here.

use std::fmt;
use std::time::Duration;

use crate::retry;
use crate::token::Version;

/// Why no usable answer came back although the request went out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interruption {
    /// The server did not answer in time.
    Timeout,
    /// The connection broke before an answer began.
    Disconnected,
    /// The answer stopped in the middle.
    Truncated,
    /// An answer came that says nothing about whether the call was applied: an internal error, or a
    /// gateway's own error page. The number is the HTTP status.
    Gateway(u16),
    /// The answer was complete, but not an API answer.
    Unreadable,
    /// The call was cut into several requests, and one after the first failed.
    PartlySent,
}

impl fmt::Display for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("timed out"),
            Self::Disconnected => f.write_str("connection lost"),
            Self::Truncated => f.write_str("answer cut off"),
            Self::Gateway(status) => write!(f, "HTTP {status}"),
            Self::Unreadable => f.write_str("unreadable answer"),
            Self::PartlySent => f.write_str("only a part was sent"),
        }
    }
}

/// A failed call.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// The client's options cannot work; nothing was sent.
    #[error("cannot set up the API client: {reason}")]
    Options {
        /// What is wrong, and with which value.
        reason: String,
    },
    /// No connection could be made, so the request never left.
    #[error(
        "{endpoint}: cannot connect to the API server {server}: {reason}; check api.api_server and that the server is running"
    )]
    Connect {
        /// The call, such as `tasks.get_all`.
        endpoint: String,
        /// The configured address of the server.
        server: String,
        /// The operating system's or the resolver's words.
        reason: String,
    },
    /// The TLS handshake failed, so the request never left.
    #[error("{endpoint}: no secure connection to the API server {server}: {reason}; {}", tls_advice(*plain))]
    Tls {
        /// The call.
        endpoint: String,
        /// The configured address of the server.
        server: String,
        /// What is wrong with the certificate or the handshake.
        reason: String,
        /// Whether the server answered without TLS.
        plain: bool,
    },
    /// The request went out and no usable answer came: **it may have been applied**.
    #[error(
        "{endpoint}: {cause} while talking to the API server {server}: {reason}; the call may have been applied"
    )]
    Ambiguous {
        /// The call.
        endpoint: String,
        /// The configured address of the server.
        server: String,
        /// What happened instead of an answer.
        cause: Interruption,
        /// Details for people.
        reason: String,
    },
    /// The server (or a gateway before it) answered with an error.
    #[error("{endpoint}: APIError: code {}: {message}{}", numbers(*code, *subcode), stranger(*http, *enveloped))]
    Status {
        /// The call.
        endpoint: String,
        /// HTTP status of the reply.
        http: u16,
        /// `meta.result_code`; the HTTP status when the reply was not an API reply.
        code: u16,
        /// `meta.result_subcode`; 0 when the reply was not an API reply.
        subcode: u32,
        /// `meta.result_msg`, or the beginning of the text.
        message: String,
        /// What the reply's `Retry-After` asks for.
        retry_after: Option<Duration>,
        /// Whether the reply was an API reply. When not, it speaks for a gateway.
        enveloped: bool,
    },
    /// The server refused the credentials; for calls other than the login, after one fresh login.
    #[error(
        "{endpoint}: APIError: code {}: {message}; the API server {server} refused the credentials; check {}",
        numbers(401, *subcode),
        if *enveloped { "api.credentials" } else { "whether api.api_server is the API server, then api.credentials" }
    )]
    Unauthorized {
        /// The call.
        endpoint: String,
        /// The configured address of the server.
        server: String,
        /// `meta.result_subcode`.
        subcode: u32,
        /// `meta.result_msg`; the beginning of the text when the reply was not an API reply.
        message: String,
        /// Whether the reply was an API reply. When not, it speaks for a gateway, or for another kind of server.
        enveloped: bool,
    },
    /// A complete answer that is not an API answer: another web server, a portal, a login page.
    #[error(
        "{endpoint}: {server} did not give an API answer: {reason}; api.api_server is probably misconfigured"
    )]
    Protocol {
        /// The call.
        endpoint: String,
        /// The configured address of the server.
        server: String,
        /// What came instead.
        reason: String,
    },
    /// The call succeeded, and its data has another shape than this client knows.
    #[error(
        "{endpoint}: the API server's answer cannot be understood: {reason}; the server may be newer than this client"
    )]
    Data {
        /// The call.
        endpoint: String,
        /// Where the data differs.
        reason: String,
    },
    /// The server does not have this call, or not yet, or not in its edition. Asking again is of no use.
    #[error("{endpoint}: the API server {server} (API {has}) does not offer this call: {reason}")]
    Unsupported {
        /// The call.
        endpoint: String,
        /// The configured address of the server.
        server: String,
        /// The API version that the call came with, if that is known.
        needs: Option<Version>,
        /// The newest API version of the server, or the one that the client is held to.
        has: Version,
        /// What is missing.
        reason: String,
    },
    /// The answer is larger than the client accepts.
    #[error("{endpoint}: the answer is larger than {limit} bytes; ask for fewer objects or fields")]
    TooLarge {
        /// The call.
        endpoint: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// A call could not be made because the client could not log in for it.
    #[error("{endpoint}: cannot log in: {source}")]
    Login {
        /// The call that needed the login.
        endpoint: String,
        /// Why the login failed.
        source: Box<ApiError>,
    },
}

/// Codes as the official agent shows them, so that whoever looks for them in its output finds them in ours.
fn numbers(code: u16, subcode: u32) -> String {
    match subcode {
        0 => code.to_string(),
        _ => format!("{code}/{subcode}"),
    }
}

fn tls_advice(plain: bool) -> &'static str {
    if plain {
        "it does not speak TLS there; check whether api.api_server has to begin with http://"
    } else {
        "check api.verify_certificate and the certificate bundle"
    }
}

/// What to say of a refusal that no API server has written. Faults of gateways (5xx) speak for themselves.
fn stranger(http: u16, enveloped: bool) -> &'static str {
    if enveloped || !matches!(http, 400..=499) || matches!(http, 408 | 425 | 429) {
        ""
    } else {
        "; this is not the answer of an API server, so api.api_server may be wrong, or a gateway is in the way"
    }
}

impl ApiError {
    /// Whether the same call may succeed later without anybody changing it: the server is away,
    /// overloaded or broken for the moment.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Tls { .. } | Self::Ambiguous { .. } | Self::Protocol { .. } => true,
            Self::Status { http, .. } => matches!(http, 408 | 425 | 429 | 500..=599),
            Self::Login { source, .. } => source.is_transient(),
            Self::Options { .. }
            | Self::Unauthorized { .. }
            | Self::Data { .. }
            | Self::TooLarge { .. }
            | Self::Unsupported { .. } => false,
        }
    }

    /// Whether it is certain that the server did not apply the call, so that sending it again cannot
    /// apply it twice. `false` means "unknown", and for [`ApiError::Data`] even "applied".
    #[must_use]
    pub fn was_not_applied(&self) -> bool {
        match self {
            Self::Options { .. }
            | Self::Connect { .. }
            | Self::Tls { .. }
            | Self::Unauthorized { .. }
            | Self::Unsupported { .. }
            | Self::Login { .. } => true,
            Self::Status { http, .. } => matches!(http, 400..=499 | 503 | 509) && *http != 408,
            Self::Ambiguous { .. } | Self::Protocol { .. } | Self::Data { .. } | Self::TooLarge { .. } => {
                false
            }
        }
    }

    /// `(result_code, result_subcode)` when the server answered with an error, such as `(400, 701)`.
    #[must_use]
    pub fn code(&self) -> Option<(u16, u32)> {
        match self {
            Self::Status { code, subcode, .. } => Some((*code, *subcode)),
            Self::Unauthorized { subcode, .. } => Some((401, *subcode)),
            // What the server answers, or would have answered.
            Self::Unsupported { .. } => Some((404, 0)),
            Self::Login { source, .. } => source.code(),
            _ => None,
        }
    }

    /// Whether the server answered with exactly this code, such as `is_code(400, 701)`.
    #[must_use]
    pub fn is_code(&self, code: u16, subcode: u32) -> bool {
        self.code() == Some((code, subcode))
    }

    /// Whether the server says that it has no such call: the feature is not there, and asking again
    /// is of no use. A gateway's 404 does not count.
    #[must_use]
    pub fn is_missing_endpoint(&self) -> bool {
        matches!(
            self,
            Self::Unsupported { .. }
                | Self::Status {
                    code: 404,
                    enveloped: true,
                    ..
                }
        )
    }

    /// The wait that the server asked for.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::Login { source, .. } => source.retry_after(),
            _ => None,
        }
    }

    /// Turns "we do not know" into [`ApiError::Ambiguous`], for calls whose repetition does harm.
    pub(crate) fn or_ambiguous(self, server: &str) -> Self {
        if self.was_not_applied() || matches!(self, Self::Ambiguous { .. } | Self::Data { .. }) {
            return self;
        }
        let reason = self.to_string();
        let (endpoint, cause) = match self {
            Self::Status { endpoint, http, .. } => (endpoint, Interruption::Gateway(http)),
            Self::Protocol { endpoint, .. } | Self::TooLarge { endpoint, .. } => {
                (endpoint, Interruption::Unreadable)
            }
            other => return other,
        };
        Self::Ambiguous {
            endpoint,
            server: server.to_owned(),
            cause,
            reason,
        }
    }

    /// Passes every text that came from outside through `clean`.
    pub(crate) fn map_text(mut self, clean: &dyn Fn(String) -> String) -> Self {
        match &mut self {
            Self::Options { reason }
            | Self::Connect { reason, .. }
            | Self::Tls { reason, .. }
            | Self::Ambiguous { reason, .. }
            | Self::Protocol { reason, .. }
            | Self::Unsupported { reason, .. }
            | Self::Data { reason, .. } => *reason = clean(std::mem::take(reason)),
            Self::Status { message, .. } | Self::Unauthorized { message, .. } => {
                *message = clean(std::mem::take(message));
            }
            Self::Login { endpoint, source } => {
                let source = Box::new((**source).clone().map_text(clean));
                return Self::Login {
                    endpoint: std::mem::take(endpoint),
                    source,
                };
            }
            Self::TooLarge { .. } => {}
        }
        self
    }

    /// Whether a call that may be repeated is repeated by the client itself.
    pub(crate) fn is_repeatable(&self) -> bool {
        retry::repeatable(self)
    }
}
