//! The typed configuration.

mod agent;
mod api;
mod package_manager;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clearml_support::redact::Redactor;
use clearml_support::secret::Secret;
use serde_json::Value;

pub use agent::{
    AgentSettings, CacheSettings, ConsoleSettings, EnvironmentOverrides, GitCredential, GitSettings, OnStop,
    PollSettings, VenvsCacheSettings,
};
pub use api::{ApiSettings, Credentials, HttpMethod, InitialConnect, TlsVerify};
pub use package_manager::{PackageManager, PackageManagerSettings};

use crate::convert;
use crate::effective::{Effective, Reader};
use crate::error::{ConfigError, Warning};
use crate::keys;
use crate::layers::{self, Collected, Sources};
use crate::mask;
use crate::origin::Origin;

/// The whole configuration: typed where the agent reads it, and as a tree for everything else.
///
/// Clones share their content.
#[derive(Clone)]
pub struct Settings {
    /// The `agent` section.
    pub agent: Arc<AgentSettings>,
    /// The `api` section and the credentials.
    pub api: Arc<ApiSettings>,
    rest: Arc<Rest>,
}

struct Rest {
    effective: Effective,
    location: Option<PathBuf>,
    warnings: Vec<Warning>,
}

impl Settings {
    /// Reads all layers.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], always naming the file and line, or the variable, that has to be corrected.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let Collected {
            mut effective,
            location,
            mut warnings,
        } = layers::collect(sources)?;
        effective.check()?;
        warnings.extend(effective.unknown_keys());
        let (agent, api) = {
            let reader = Reader {
                effective: &effective,
                sources,
            };
            (
                AgentSettings::read(&reader)?,
                ApiSettings::read(&reader, location.as_deref())?,
            )
        };
        derive(&mut effective, &agent, &api);
        warnings.extend(api.mixed_credentials(&effective));
        Ok(Self {
            agent: Arc::new(agent),
            api: Arc::new(api),
            rest: Arc::new(Rest {
                effective,
                location,
                warnings,
            }),
        })
    }

    /// The whole effective configuration, secrets included, for the process that runs a task: written
    /// as JSON it is a `clearml.conf` that every ClearML client reads.
    ///
    /// It must only go into files that nobody else can read.
    #[must_use]
    pub fn effective_json(&self) -> Value {
        self.rest.effective.root().clone()
    }

    /// The whole effective configuration without secrets, for people.
    #[must_use]
    pub fn masked_json(&self) -> Value {
        mask::mask(&self.rest.effective)
    }

    /// The value at a dotted key, for sections that have no typed form.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.rest.effective.get(key)
    }

    /// Where the value at a dotted key came from.
    #[must_use]
    pub fn origin(&self, key: &str) -> Option<Origin> {
        self.rest.effective.origin(key).cloned()
    }

    /// The configuration file that the user edits, if there is one.
    #[must_use]
    pub fn location(&self) -> Option<&Path> {
        self.rest.location.as_deref()
    }

    /// What was found odd but usable: unknown keys, ignored variables, missing includes.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.rest.warnings
    }

    /// All secret values of the configuration.
    #[must_use]
    pub fn secrets(&self) -> Vec<Secret> {
        let declared = keys::declarations()
            .filter(|declaration| declaration.secret)
            .filter_map(|declaration| convert::text(self.rest.effective.get_set(declaration.key)?))
            .map(Secret::new);
        let git = self
            .agent
            .git
            .extra_credentials
            .iter()
            .map(|credential| credential.pass.clone());
        declared
            .chain(git)
            .chain(self.api.auth_token.clone())
            .filter(|secret| !secret.is_empty())
            .collect()
    }

    /// Makes a redactor know all secret values of the configuration.
    pub fn register_secrets(&self, redactor: &Redactor) {
        self.secrets().iter().for_each(|secret| redactor.add(secret));
    }

    /// The variables of the top-level section `environment`, unless `agent.apply_environment` is off.
    ///
    /// Values are written as the Python agent writes them: `True`, `False`, nothing for null.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        if !self.agent.apply_environment {
            return Vec::new();
        }
        let text = |value: &Value| match value {
            Value::Null => String::new(),
            Value::Bool(true) => "True".to_owned(),
            Value::Bool(false) => "False".to_owned(),
            other => convert::text(other).unwrap_or_else(|| other.to_string()),
        };
        match self.get("environment") {
            Some(Value::Object(members)) => members
                .iter()
                .map(|(name, value)| (name.clone(), text(value)))
                .collect(),
            Some(Value::Array(pairs)) => {
                let pair = |pair: &Value| Some((pair.get(0)?.as_str()?.to_owned(), text(pair.get(1)?)));
                pairs.iter().filter_map(pair).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl fmt::Debug for Settings {
    /// Shows only the source of the settings: the rest may hold secrets in any of its texts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("location", &self.rest.location)
            .finish_non_exhaustive()
    }
}

/// Puts what was worked out into the tree, so that tasks see the same values as the agent.
fn derive(effective: &mut Effective, agent: &AgentSettings, api: &ApiSettings) {
    let servers = [
        ("api.host", &api.api_server),
        ("api.web_server", &api.web_server),
        ("api.files_server", &api.files_server),
    ];
    for (key, server) in servers {
        if let (Some(server), None) = (server, effective.get_set(key)) {
            effective.derive(key, Value::from(server.as_str()), "api.api_server");
        }
    }
    if let (Some(server), None) = (&api.api_server, effective.get_set("api.api_server")) {
        effective.derive("api.api_server", Value::from(server.as_str()), "api.host");
    }
    if effective.get_set("agent.worker_name").is_none() {
        effective.derive(
            "agent.worker_name",
            Value::from(agent.worker_name.as_str()),
            "the host name",
        );
    }
}
