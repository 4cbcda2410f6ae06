//! The typed configuration.

mod agent;
mod api;
mod containers;
mod package_manager;
mod values;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clearml_support::redact::Redactor;
use clearml_support::secret::Secret;
use serde_json::Value;

pub use agent::{
    AgentSettings, CacheSettings, ConsoleSettings, EnvironmentOverrides, GitCredential, GitSettings,
    HgSettings, OnStop, PollSettings, VenvsCacheSettings,
};
pub use api::{ApiSettings, Credentials, HttpMethod, InitialConnect, RetryCounts, TlsVerify};
pub use containers::{ContainerSettings, InternalMounts};
pub use package_manager::{PackageManager, PackageManagerSettings, TorchSettings};

use crate::convert;
use crate::effective::{Effective, Reader};
use crate::error::{ConfigError, Warning};
use crate::keys;
use crate::layers::{Layers, Sources};
use crate::left_out;
use crate::mask::{self, CommandMask};
use crate::origin::Origin;
use crate::vaults::VaultLayers;

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

#[derive(Clone)]
struct Rest {
    layers: Arc<Layers>,
    sources: Arc<Sources>,
    vaults: VaultLayers,
    effective: Effective,
    warnings: Vec<Warning>,
    /// Whether the paths of the caches are written in full.
    full_paths: bool,
}

impl Settings {
    /// Reads all layers.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], always naming the file and line, or the variable, that has to be corrected.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let layers = Arc::new(Layers::read(sources)?);
        Self::build(layers, Arc::new(sources.clone()), VaultLayers::default())
    }

    /// Reads all layers anew, from the same places; vaults stay what they are.
    ///
    /// # Errors
    ///
    /// Those of [`Settings::load`].
    pub fn reload(&self) -> Result<Self, ConfigError> {
        let layers = Arc::new(Layers::read(&self.rest.sources)?);
        let sources = Arc::clone(&self.rest.sources);
        let again = Self::build(layers, sources, self.rest.vaults.clone())?;
        Ok(if self.rest.full_paths {
            again.with_full_paths()
        } else {
            again
        })
    }

    /// The same settings with more from the command line: dotted key, value, name of the option. Vaults stay.
    ///
    /// # Errors
    ///
    /// When a value does not have the type of its key.
    pub fn with_overrides(&self, overrides: &[(String, Value, String)]) -> Result<Self, ConfigError> {
        let mut layers = Layers::clone(&self.rest.layers);
        layers.add_options(overrides);
        let mut sources = Sources::clone(&self.rest.sources);
        sources.overrides.extend_from_slice(overrides);
        Self::build(Arc::new(layers), Arc::new(sources), self.rest.vaults.clone())
    }

    pub(crate) fn with_vault_layers(&self, vaults: VaultLayers) -> Result<Self, ConfigError> {
        Self::build(
            Arc::clone(&self.rest.layers),
            Arc::clone(&self.rest.sources),
            vaults,
        )
    }

    fn build(layers: Arc<Layers>, sources: Arc<Sources>, vaults: VaultLayers) -> Result<Self, ConfigError> {
        let mut effective = layers.combine(&vaults.configuration, &vaults.monitoring)?;
        let mut warnings = layers.warnings.clone();
        warnings.extend(effective.check()?);
        warnings.extend(effective.unknown_keys());
        warnings.extend(left_out::warnings(&effective));
        let (agent, api) = {
            let reader = Reader {
                effective: &effective,
                sources: &sources,
            };
            (
                AgentSettings::read(&reader),
                ApiSettings::read(&reader, layers.location.as_deref()),
            )
        };
        derive(&mut effective, &agent, &api);
        warnings.extend(api.mixed_credentials(&effective));
        Ok(Self {
            agent: Arc::new(agent),
            api: Arc::new(api),
            rest: Arc::new(Rest {
                layers,
                sources,
                vaults,
                effective,
                warnings,
                full_paths: false,
            }),
        })
    }

    /// The same settings with paths written in full, which no typed field depends on.
    pub(crate) fn rewritten(&self, values: impl Iterator<Item = (&'static str, Value)>) -> Self {
        let mut rest = Rest::clone(&self.rest);
        rest.full_paths = true;
        for (key, value) in values {
            rest.effective.rewrite(key, value);
        }
        Self {
            rest: Arc::new(rest),
            ..self.clone()
        }
    }

    /// The same settings that also show, as `agent.default_python`, the version that is used where nothing else
    /// says one. It is for people to read: no typed field depends on it.
    #[must_use]
    pub fn showing_default_python(&self, version: &str) -> Self {
        if self.rest.effective.get_set("agent.default_python").is_some() {
            return self.clone();
        }
        let mut rest = Rest::clone(&self.rest);
        rest.effective.derive(
            "agent.default_python",
            Value::from(version),
            "the first python3 in PATH",
        );
        Self {
            rest: Arc::new(rest),
            ..self.clone()
        }
    }

    pub(crate) fn sources(&self) -> &Sources {
        &self.rest.sources
    }

    pub(crate) fn vaults(&self) -> &VaultLayers {
        &self.rest.vaults
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
        mask::mask(&self.rest.effective, self.command_mask())
    }

    /// How container commands are shown.
    #[must_use]
    pub fn command_mask(&self) -> CommandMask {
        let from_variable = self.variable_list("CLEARML_AGENT_DOCKER_ARGS_HIDE_ENV");
        let hide = "agent.hide_docker_command_env_vars";
        let enabled = self.flag(&format!("{hide}.enabled")) || !from_variable.is_empty();
        let mut extra = self.list(&format!("{hide}.extra_keys"));
        extra.extend(from_variable);
        CommandMask::new(enabled, extra, self.flag(&format!("{hide}.parse_embedded_urls")))
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

    pub(crate) fn origin_of(&self, path: &[String]) -> Option<&Origin> {
        self.rest.effective.origin_of(path)
    }

    /// The configuration file that the user edits, if there is one.
    #[must_use]
    pub fn location(&self) -> Option<&Path> {
        self.rest.layers.location.as_deref()
    }

    /// The files that were read, lowest layer first; without those of a configuration folder and includes.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.rest.layers.files
    }

    /// What is to be said about the files: that the usual ones were replaced, and, if
    /// `CLEARML_AGENT_CONFIG_VERBOSE` asks for it, which were read.
    #[must_use]
    pub fn announcements(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let sources = self.sources();
        let replaced =
            sources.config_file.is_some() || sources.variable_path("CLEARML_CONFIG_FILE").is_some();
        if let Some(file) = self.location().filter(|_| replaced) {
            lines.push(format!(
                "Using custom configuration file from env var: {}",
                file.display()
            ));
        }
        if self
            .variable_flag("CLEARML_AGENT_CONFIG_VERBOSE")
            .unwrap_or(false)
        {
            let read = |file: &PathBuf| format!("Loading config from file {}", file.display());
            lines.extend(self.files().iter().map(read));
        }
        lines
    }

    /// Which credentials come from variables, for who logs in with them. The access key is shown as the Python
    /// agent shows it, what is secret is not.
    #[must_use]
    pub fn login_notices(&self) -> Vec<String> {
        if self.api.auth_token.is_some() {
            return vec!["Using environment access token CLEARML_AUTH_TOKEN=********".to_owned()];
        }
        let of_variable = |key: &str, what: &str, secret: bool| {
            let Some(Origin::Variable(name)) = self.origin(key) else {
                return None;
            };
            let shown = if secret { None } else { self.text(key) };
            let shown = shown.as_deref().unwrap_or("********");
            Some(format!("Using environment {what} {name}={shown}"))
        };
        let access = of_variable("api.credentials.access_key", "access key", false);
        let secret = of_variable("api.credentials.secret_key", "secret key", true);
        access.into_iter().chain(secret).collect()
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
        let mut named = Vec::new();
        secret_texts(self.rest.effective.root(), "", &mut named);
        declared
            .chain(git)
            .chain(self.api.auth_token.clone())
            .chain(named.into_iter().map(Secret::new))
            .filter(|secret| !secret.is_empty())
            .collect()
    }

    /// Makes a redactor know all secret values of the configuration.
    pub fn register_secrets(&self, redactor: &Redactor) {
        self.secrets().iter().for_each(|secret| redactor.add(secret));
    }
}

impl fmt::Debug for Settings {
    /// Shows only the source of the settings: the rest may hold secrets in any of its texts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("location", &self.rest.layers.location)
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

/// Parts of names by which values are taken for secrets also where nothing declares them.
const SECRET_NAMES: &[&str] = &["secret", "pass", "token", "account_key", "api_key", "access_key"];
/// Shorter texts are no secrets worth the name, and would be found in harmless ones.
const SHORTEST_SECRET: usize = 6;

/// All texts whose key has a name that secrets have, such as those of the section `environment`.
fn secret_texts(value: &Value, path: &str, found: &mut Vec<String>) {
    let Value::Object(members) = value else {
        if let Value::Array(items) = value {
            items.iter().for_each(|item| secret_texts(item, path, found));
        }
        return;
    };
    for (name, member) in members {
        let path = format!("{path}{name}");
        let lower = name.to_ascii_lowercase();
        match member {
            Value::String(text)
                if text.len() >= SHORTEST_SECRET
                    && SECRET_NAMES.iter().any(|part| lower.contains(part))
                    && keys::declaration(&path).is_none() =>
            {
                found.push(text.clone());
            }
            _ => secret_texts(member, &format!("{path}."), found),
        }
    }
}
