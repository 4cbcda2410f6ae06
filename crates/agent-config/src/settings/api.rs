//! The `api` section: servers, credentials, transport.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clearml_support::secret::Secret;
use serde_json::Value;
use url::Url;

use crate::convert;
use crate::effective::{Effective, Reader};
use crate::error::{ConfigError, Warning};

/// How the server's certificate is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsVerify {
    /// Against the certificate authorities of the system.
    Verify,
    /// Not at all.
    Insecure,
    /// Against the certificate authorities in this file.
    CaBundle(PathBuf),
}

/// HTTP method of API calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpMethod {
    /// `GET`, with a body.
    Get,
    /// `POST`.
    Post,
    /// `PUT`.
    Put,
}

/// How often the first connection is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitialConnect {
    /// A few times, as the client decides.
    Default,
    /// As often as any later call.
    AsLater,
    /// This often.
    Times(u32),
}

/// What the agent logs in with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A pair of keys.
    Keys {
        /// Names the user.
        access_key: Secret,
        /// Proves it.
        secret_key: Secret,
    },
    /// A session token, which replaces the keys.
    Token(Secret),
}

/// How often one call is repeated, in all and by cause; `None` = as often as it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryCounts {
    /// `api.http.retries.total`.
    pub total: Option<u32>,
    /// `api.http.retries.connect`.
    pub connect: Option<u32>,
    /// `api.http.retries.read`.
    pub read: Option<u32>,
    /// `api.http.retries.status`.
    pub status: Option<u32>,
}

/// The packaged counts are for a client that gives up some day and is started anew. This agent does not give
/// up unless it is told to.
const PACKAGED_RETRIES: u32 = 240;

/// The `api` section.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// URL of the API server, without a slash at the end.
    pub api_server: Option<String>,
    /// URL of the web pages, given or derived.
    pub web_server: Option<String>,
    /// URL of the file server, given or derived.
    pub files_server: Option<String>,
    /// `api.credentials.access_key`.
    pub access_key: Option<Secret>,
    /// `api.credentials.secret_key`.
    pub secret_key: Option<Secret>,
    /// `CLEARML_AUTH_TOKEN`; the keys are ignored when it is set.
    pub auth_token: Option<Secret>,
    /// `api.verify_certificate`.
    pub verify: TlsVerify,
    /// `api.http.default_method`.
    pub default_method: HttpMethod,
    /// `api.http.max_req_size`, in bytes.
    pub max_request_bytes: u64,
    /// `api.http.retries`.
    pub retries: RetryCounts,
    /// `api.http.retries.backoff_factor`.
    pub retry_backoff_factor: Duration,
    /// `api.http.retries.backoff_max`.
    pub retry_backoff_max: Duration,
    /// `api.http.wait_on_maintenance_forever`.
    pub wait_on_maintenance_forever: bool,
    /// `api.auth.token_expiration_threshold_sec`.
    pub token_expiration_threshold_sec: u64,
    /// `api.auth.request_token_expiration_sec`.
    pub request_token_expiration_sec: Option<u64>,
    /// `CLEARML_AGENT_INITIAL_CONNECT_RETRY_OVERRIDE`.
    pub initial_connect: InitialConnect,
    /// `CLEARML_AGENT_FORCE_MAX_API_VERSION`.
    pub force_max_api_version: Option<String>,
    /// `CLEARML_API_VERBOSE`.
    pub verbose: bool,
    /// The file to mention when something is missing.
    location: String,
}

impl ApiSettings {
    pub(crate) fn read(reader: &Reader<'_>, location: Option<&Path>) -> Self {
        let server = |key: &str| Some(reader.text(key)?.trim().trim_matches('/').to_owned());
        let secret = |key: &str| reader.text(key).map(Secret::new);
        let variable_text = |name: &str| reader.variable(name).as_ref().and_then(convert::text);
        let api_server = server("api.api_server").or_else(|| server("api.host"));
        let derived = |port, part| api_server.as_deref().and_then(|api| sibling(api, port, part));
        Self {
            web_server: server("api.web_server").or_else(|| derived(8080, "app.")),
            files_server: server("api.files_server").or_else(|| derived(8081, "files.")),
            access_key: secret("api.credentials.access_key"),
            secret_key: secret("api.credentials.secret_key"),
            auth_token: variable_text("CLEARML_AUTH_TOKEN").map(Secret::new),
            verify: match reader.raw("api.verify_certificate") {
                Some(value) => match convert::flag(&value) {
                    Some(true) => TlsVerify::Verify,
                    Some(false) => TlsVerify::Insecure,
                    None => reader
                        .path("api.verify_certificate")
                        .map_or(TlsVerify::Verify, TlsVerify::CaBundle),
                },
                None => TlsVerify::Verify,
            },
            default_method: match reader.choice("api.http.default_method") {
                "get" => HttpMethod::Get,
                "put" => HttpMethod::Put,
                _ => HttpMethod::Post,
            },
            max_request_bytes: reader.count("api.http.max_req_size"),
            retries: RetryCounts::read(reader),
            retry_backoff_factor: Duration::from_secs_f64(reader.number("api.http.retries.backoff_factor")),
            retry_backoff_max: Duration::from_secs_f64(reader.number("api.http.retries.backoff_max")),
            wait_on_maintenance_forever: reader.flag("api.http.wait_on_maintenance_forever"),
            token_expiration_threshold_sec: reader.count("api.auth.token_expiration_threshold_sec"),
            request_token_expiration_sec: reader
                .integer("api.auth.request_token_expiration_sec")
                .and_then(|seconds| u64::try_from(seconds).ok()),
            initial_connect: initial_connect(variable_text("CLEARML_AGENT_INITIAL_CONNECT_RETRY_OVERRIDE")),
            force_max_api_version: variable_text("CLEARML_AGENT_FORCE_MAX_API_VERSION"),
            verbose: reader
                .variable("CLEARML_API_VERBOSE")
                .as_ref()
                .and_then(convert::flag)
                .unwrap_or(false),
            location: location.map_or_else(|| "~/clearml.conf".to_owned(), |path| path.display().to_string()),
            api_server,
        }
    }

    /// The URL of the API server.
    ///
    /// # Errors
    ///
    /// [`ConfigError::NoServer`], which says how to name one.
    pub fn require_server(&self) -> Result<&str, ConfigError> {
        self.api_server.as_deref().ok_or_else(|| ConfigError::NoServer {
            location: self.location.clone(),
        })
    }

    /// What to log in with.
    ///
    /// # Errors
    ///
    /// [`ConfigError::NoCredentials`], which says where to put them.
    pub fn require_credentials(&self) -> Result<Credentials, ConfigError> {
        if let Some(token) = &self.auth_token {
            return Ok(Credentials::Token(token.clone()));
        }
        let missing = match (&self.access_key, &self.secret_key) {
            (Some(access_key), Some(secret_key)) => {
                return Ok(Credentials::Keys {
                    access_key: access_key.clone(),
                    secret_key: secret_key.clone(),
                });
            }
            (None, None) => "access key and secret key are",
            (None, _) => "the access key is",
            (_, None) => "the secret key is",
        };
        Err(ConfigError::NoCredentials {
            missing,
            location: self.location.clone(),
        })
    }

    /// A warning when the two keys come from different places, which is rarely meant.
    pub(crate) fn mixed_credentials(&self, effective: &Effective) -> Option<Warning> {
        let place = |key: &str| {
            effective.get_set(key)?;
            Some(match effective.origin(key)? {
                crate::Origin::Variable(_) => "the environment".to_owned(),
                crate::Origin::File { path, .. } => path.display().to_string(),
                other => other.to_string(),
            })
        };
        let access = place("api.credentials.access_key")?;
        let secret = place("api.credentials.secret_key")?;
        (access != secret && self.auth_token.is_none()).then(|| {
            Warning(format!("the access key comes from {access} but the secret key from {secret}; they may not belong together"))
        })
    }
}

impl RetryCounts {
    fn read(reader: &Reader<'_>) -> Self {
        let count = |key: &str| {
            let count = u32::try_from(reader.integer(key)?).unwrap_or(u32::MAX);
            (count != PACKAGED_RETRIES).then_some(count)
        };
        Self {
            total: count("api.http.retries.total"),
            connect: count("api.http.retries.connect"),
            read: count("api.http.retries.read"),
            status: count("api.http.retries.status"),
        }
    }
}

fn initial_connect(text: Option<String>) -> InitialConnect {
    let Some(text) = text else {
        return InitialConnect::Default;
    };
    let value = Value::from(text);
    match (convert::attempts(&value), convert::flag(&value)) {
        (Some(times), _) => InitialConnect::Times(times),
        (_, Some(false)) => InitialConnect::AsLater,
        _ => InitialConnect::Default,
    }
}

/// The URL of another server of the same installation, by the two customs that there are: `api.` in
/// front of the host name, or port 8008.
fn sibling(api_server: &str, port: u16, part: &str) -> Option<String> {
    let mut url = Url::parse(api_server).ok()?;
    let host = url.host_str()?.to_owned();
    let by_name = host.strip_prefix("api.").map(|domain| format!("{part}{domain}"));
    let by_port = url.port() == Some(8008);
    if let Some(name) = &by_name {
        url.set_host(Some(name)).ok()?;
    }
    if by_port {
        url.set_port(Some(port)).ok()?;
    }
    (by_port || by_name.is_some()).then(|| url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_servers_are_found_by_custom() {
        for (api, web, files) in [
            (
                "http://localhost:8008",
                Some("http://localhost:8080"),
                Some("http://localhost:8081"),
            ),
            (
                "http://[::1]:8008",
                Some("http://[::1]:8080"),
                Some("http://[::1]:8081"),
            ),
            (
                "https://api.clear.ml",
                Some("https://app.clear.ml"),
                Some("https://files.clear.ml"),
            ),
            ("https://example.org/api", None, None),
            ("not a url", None, None),
        ] {
            assert_eq!(sibling(api, 8080, "app.").as_deref(), web, "{api}");
            assert_eq!(sibling(api, 8081, "files.").as_deref(), files, "{api}");
        }
    }

    #[test]
    fn first_connection() {
        for (text, expected) in [
            (None, InitialConnect::Default),
            (Some("true"), InitialConnect::Default),
            (Some("0"), InitialConnect::AsLater),
            (Some("no"), InitialConnect::AsLater),
            (Some("7"), InitialConnect::Times(7)),
            (Some("whatever"), InitialConnect::Default),
        ] {
            assert_eq!(initial_connect(text.map(str::to_owned)), expected, "{text:?}");
        }
    }
}
