//! Configuration vaults: pieces of configuration that the server keeps for users and groups.
//!
//! Whoever talks to the server hands them in; here they are only read and laid at their place among the
//! layers: over files and overrides, below mapped variables and the command line. Monitoring vaults lie
//! over the variables as well. A vault that can't be used is reported and left out, it stops nothing.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::ConfigError;
use crate::hocon::{self, Base, MAX_DEPTH, MAX_FILE_BYTES};
use crate::layers::Sources;
use crate::notice::{Notice, NoticeLevel};
use crate::origin::Origin;
use crate::settings::Settings;
use crate::source::Layer;

/// Most vaults that are looked at.
const MAX_VAULTS: usize = 64;
/// How much of a description messages show.
const SHOWN_CHARS: usize = 50;
/// Keys that belong to this machine, whatever a vault says.
const PROTECTED: &[&str] = &[
    "cuda_version",
    "cudnn_version",
    "default_python",
    "worker_id",
    "worker_name",
    "debug",
];

/// One vault, as the server sends it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Vault {
    /// Its id.
    pub id: String,
    /// Whom it is for, such as `user` or `company`.
    pub scope: String,
    /// The user that it is for, where there is one.
    pub user: Option<String>,
    /// What its owner calls it.
    pub description: String,
    /// HOCON, JSON or YAML.
    pub data: String,
}

impl std::fmt::Debug for Vault {
    /// Leaves out the content, which is secrets more often than not.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault")
            .field("id", &self.id)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

impl Vault {
    fn shown(&self) -> String {
        let text = if self.description.trim().is_empty() {
            &self.id
        } else {
            &self.description
        };
        let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        printable.take(SHOWN_CHARS).collect()
    }

    /// What this vault alone says, for who must not merge it with other values. `settings` say which variables
    /// substitutions may name.
    ///
    /// # Errors
    ///
    /// When the vault can't be read: why not.
    pub fn contents(&self, settings: &Settings) -> Result<Value, String> {
        self.read(settings.sources()).map(Value::Object)
    }

    /// What it sets.
    fn read(&self, sources: &Sources) -> Result<Map<String, Value>, String> {
        if self.data.len() as u64 > MAX_FILE_BYTES {
            return Err(format!("it has more than {MAX_FILE_BYTES} bytes"));
        }
        let hocon = || {
            let name = format!("vault {}", self.shown());
            hocon::read_text_as(&self.data, Path::new(&name), &Base::Closed, &sources.context())
                .map(|document| document.root)
                .map_err(|error| place_and_reason(&error))
        };
        if looks_like_yaml(&self.data) {
            return yaml(&self.data).or_else(|_| hocon());
        }
        hocon().or_else(|problem| yaml(&self.data).map_err(|_| problem))
    }
}

/// The layers that vaults made.
#[derive(Debug, Clone, Default)]
pub(crate) struct VaultLayers {
    pub(crate) configuration: Vec<Layer>,
    pub(crate) monitoring: Vec<Layer>,
}

/// Settings with vaults in them, and what is to be said about that.
#[derive(Debug, Clone)]
pub struct WithVaults {
    /// The settings.
    pub settings: Settings,
    /// What was loaded, ignored and refused.
    pub notices: Vec<Notice>,
}

impl Settings {
    /// The same settings with vaults laid in, instead of those that were there before. The order is the
    /// server's, later ones win.
    ///
    /// Substitutions in a vault see the vault itself and the environment; a vault can include nothing.
    #[must_use]
    pub fn with_vaults(&self, configuration: &[Vault], monitoring: &[Vault]) -> WithVaults {
        self.without_vaults().and_vaults(configuration, monitoring)
    }

    /// The same settings with further vaults laid over those that are there: what the owner of a task has, over
    /// what the agent has. Otherwise as [`Settings::with_vaults`].
    #[must_use]
    pub fn and_vaults(&self, configuration: &[Vault], monitoring: &[Vault]) -> WithVaults {
        let mut settings = self.clone();
        let mut notices = Vec::new();
        if configuration.len() > MAX_VAULTS {
            let text = format!(
                "Only the first {MAX_VAULTS} of {} vaults are used",
                configuration.len()
            );
            notices.push(Notice::new(NoticeLevel::Warning, text));
        }
        for vault in configuration.iter().take(MAX_VAULTS) {
            match settings.with_vault(vault, &mut notices) {
                Ok(with) => settings = with,
                Err(reason) => {
                    let text = format!("Failed parsing vault {}: {reason}", vault.shown());
                    notices.push(Notice::new(NoticeLevel::Warning, text));
                }
            }
        }
        for vault in monitoring.iter().take(MAX_VAULTS) {
            // Whatever is wrong with these is of no interest to the user of this machine.
            if let Ok(root) = vault.read(self.sources()) {
                let mut layers = settings.vaults().clone();
                layers.monitoring.push(Layer::of_root(
                    root,
                    &Origin::Vault(format!("monitoring {}", vault.shown())),
                ));
                if let Ok(with) = settings.with_vault_layers(layers) {
                    settings = with;
                }
            }
        }
        WithVaults { settings, notices }
    }

    /// The same settings without any vaults.
    #[must_use]
    pub fn without_vaults(&self) -> Settings {
        self.with_vault_layers(VaultLayers::default())
            .unwrap_or_else(|_| self.clone())
    }

    fn with_vault(&self, vault: &Vault, notices: &mut Vec<Notice>) -> Result<Settings, String> {
        let mut root = vault.read(self.sources())?;
        let mut said = Vec::new();
        if let Some(Value::Object(agent)) = root.get_mut("agent") {
            for name in PROTECTED {
                let key = format!("agent.{name}");
                if agent
                    .remove(*name)
                    .is_some_and(|value| self.get(&key) != Some(&value))
                {
                    let text = format!("Ignoring vault value for '{key}': it belongs to this machine");
                    said.push(Notice::new(NoticeLevel::Info, text));
                }
            }
        }
        let mut keys = Vec::new();
        leaves(&root, "", &mut keys);
        let origin = Origin::Vault(format!("{} {}", vault.scope, vault.shown()).trim().to_owned());
        let mut layers = self.vaults().clone();
        layers.configuration.push(Layer::of_root(root, &origin));
        let settings = self
            .with_vault_layers(layers)
            .map_err(|error| error.to_string())?;
        let scope: String = vault
            .scope
            .chars()
            .filter(|c| !c.is_control())
            .take(SHOWN_CHARS)
            .collect();
        let user = vault
            .user
            .as_ref()
            .map(|user| format!(" for user {user}"))
            .unwrap_or_default();
        let text = format!("Loaded {scope} vault{user}: {}", vault.shown());
        notices.push(Notice::new(NoticeLevel::Info, text));
        notices.push(Notice::new(
            NoticeLevel::Debug,
            format!("It sets {}", keys.join(", ")),
        ));
        notices.extend(said);
        Ok(settings)
    }
}

fn place_and_reason(error: &ConfigError) -> String {
    match error {
        ConfigError::Syntax { line, column, .. } => {
            format!("line {line}, column {column}: {}", error.reason())
        }
        other => other.reason(),
    }
}

fn leaves(members: &Map<String, Value>, prefix: &str, keys: &mut Vec<String>) {
    for (name, value) in members {
        match value {
            Value::Object(inner) => leaves(inner, &format!("{prefix}{name}."), keys),
            _ => keys.push(format!("{prefix}{name}")),
        }
    }
}

fn yaml(text: &str) -> Result<Map<String, Value>, String> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: 20_000,
            max_total_scalar_bytes: MAX_FILE_BYTES as usize,
            max_documents: 1,
        },
    };
    match serde_saphyr::from_str_with_options(text, options) {
        // As YAML, much of what is broken HOCON is a mapping with an odd key.
        Ok(Value::Object(members)) if !members.keys().any(|key| key.contains(['{', '}', '=', '"'])) => {
            Ok(members)
        }
        Ok(_) => Err("it is no object".to_owned()),
        Err(_) => Err("it is neither HOCON nor YAML".to_owned()),
    }
}

/// Whether objects are written by indentation. As HOCON such a text would have a meaning, but not the one
/// that was meant: keys without value, and what should be inside of them beside them.
fn looks_like_yaml(text: &str) -> bool {
    let mut lines = text
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
        .peekable();
    while let Some(line) = lines.next() {
        let indented = |line: &str| line.len() - line.trim_start_matches(' ').len();
        if let Some(next) = lines.peek()
            && line.trim_end().ends_with(':')
            && (indented(next) > indented(line) || next.trim_start().starts_with("- "))
            && !next.trim_start().starts_with(['{', '[', '"'])
        {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_is_told_from_hocon() {
        for (text, expected) in [
            ("agent:\n  worker_name: x", true),
            ("# c\nlist:\n- a\n- b", true),
            ("agent {\n  a: 1\n}", false),
            ("agent:\n  {a: 1}", false),
            ("a: 1\nb: 2", false),
            ("{\n  \"a\":\n    \"b\"\n}", false),
        ] {
            assert_eq!(looks_like_yaml(text), expected, "{text:?}");
        }
    }
}
