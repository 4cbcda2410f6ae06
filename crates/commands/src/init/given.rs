//! `init` without questions: everything comes from options and environment variables.

use std::io::Read;
use std::path::PathBuf;

use clearml_agent_config::{Origin, Settings, Sources};
use clearml_support::fs::read_limited;
use clearml_support::secret::Secret;
use serde_json::Value;

use super::hosts::{Servers, normalise};
use super::wizard::complete;
use super::{Answers, InitError, KeyPair, Outcome, Target, Verify};

/// A secret is one line.
const MAX_SECRET: u64 = 64 << 10;

/// The answers. What is missing is taken from the environment variables of the same settings.
#[derive(Debug, Default)]
pub struct Given {
    /// `api.api_server`.
    pub api_server: Option<String>,
    /// `api.web_server`.
    pub web_server: Option<String>,
    /// `api.files_server`.
    pub files_server: Option<String>,
    /// `api.credentials.access_key`.
    pub access_key: Option<String>,
    /// `api.credentials.secret_key`.
    pub secret_key: Option<Secret>,
    /// `agent.git_user`.
    pub git_user: Option<String>,
    /// `agent.git_pass`.
    pub git_pass: Option<Secret>,
    /// `agent.package_manager.extra_index_url`.
    pub extra_index_url: Vec<String>,
    /// `sdk.development.default_output_uri`.
    pub default_output_uri: Option<String>,
}

/// Where a secret that must not be an argument is read from.
#[derive(Debug)]
pub enum SecretSource {
    /// The first line of a file.
    File(PathBuf),
    /// The first line of standard input.
    Stdin,
}

impl SecretSource {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// When it can't be read or is empty.
    pub fn read(&self) -> std::io::Result<Secret> {
        let bytes = match self {
            Self::File(path) => read_limited(path, MAX_SECRET)?,
            // Not by its path, which may be another user's.
            Self::Stdin => {
                let mut bytes = Vec::new();
                std::io::stdin().take(MAX_SECRET).read_to_end(&mut bytes)?;
                bytes
            }
        };
        let text = String::from_utf8_lossy(&bytes);
        let line = text.lines().next().unwrap_or_default().trim();
        if line.is_empty() {
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                "its first line is empty",
            ));
        }
        Ok(Secret::new(line))
    }
}

impl std::fmt::Display for SecretSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Stdin => f.write_str("standard input"),
        }
    }
}

pub(crate) fn run(
    given: Given,
    environment: &Sources,
    target: &Target,
    verify: &mut Verify<'_>,
) -> Result<Outcome, InitError> {
    if let Some(outcome) = target.refusal() {
        return Ok(outcome);
    }
    let mut answers = answers(given, environment)?;
    match verify(&answers.servers.api, &answers.keys) {
        Ok(user) => answers.user = user,
        Err(reason) => return Ok(Outcome::NotVerified { reason }),
    }
    target.write(answers)
}

/// What was given, completed from the environment.
fn answers(given: Given, environment: &Sources) -> Result<Answers, InitError> {
    let mut sources = environment.clone();
    for (key, value) in [
        ("api.api_server", &given.api_server),
        ("api.web_server", &given.web_server),
        ("api.files_server", &given.files_server),
        ("api.credentials.access_key", &given.access_key),
        ("agent.git_user", &given.git_user),
        ("sdk.development.default_output_uri", &given.default_output_uri),
    ] {
        if let Some(value) = value {
            let value = Value::from(value.as_str());
            sources
                .overrides
                .push((key.to_owned(), value, "option".to_owned()));
        }
    }
    let settings = Settings::load(&sources)?;
    let text = |key: &str| -> Option<String> {
        let said = !matches!(settings.origin(key)?, Origin::Default | Origin::Derived(_));
        let value = settings.get(key)?.as_str()?.trim();
        (said && !value.is_empty()).then(|| value.to_owned())
    };
    let server = |keys: &[&str]| match keys.iter().find_map(|key| text(key)) {
        None => Ok(String::new()),
        Some(url) => normalise(&url).ok_or(InitError::Unusable {
            what: "the address of a server",
            why: "it should be like https://api.clear.ml",
        }),
    };
    let servers = complete(Servers {
        api: server(&["api.api_server", "api.host"])?,
        web: server(&["api.web_server"])?,
        files: server(&["api.files_server"])?,
    })?;
    let access = text("api.credentials.access_key").ok_or(InitError::Missing {
        what: "an access key",
        how: "--access-key or CLEARML_API_ACCESS_KEY",
    })?;
    let secret = given
        .secret_key
        .or_else(|| text("api.credentials.secret_key").map(Secret::new))
        .ok_or(InitError::Missing {
            what: "a secret key",
            how: "--secret-key-file, --secret-key-stdin or CLEARML_API_SECRET_KEY",
        })?;
    let keys = KeyPair::new(&access, secret.expose()).ok_or(InitError::Unusable {
        what: "the pair of keys",
        why: "each must be one line without control characters",
    })?;
    let git_pass = given.git_pass.or_else(|| text("agent.git_pass").map(Secret::new));
    let git = match (text("agent.git_user"), git_pass) {
        (None, None) => None,
        (user, pass) => Some((user.unwrap_or_default(), pass.unwrap_or_default())),
    };
    Ok(Answers {
        keys,
        servers,
        output_uri: text("sdk.development.default_output_uri"),
        git,
        index_urls: given.extra_index_url,
        user: None,
    })
}
