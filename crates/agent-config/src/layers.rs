//! The layers of the configuration, lowest first, and the effective tree that they make.
//!
//! Packaged defaults, the configuration folder, the files, `CLEARML_AGENT__…` overrides, vaults, mapped
//! environment variables, the monitoring vault, command line. Each layer is a `config::Source`; the `config`
//! crate lays them over each other. Objects merge, everything else replaces. A further layer is one more
//! [`Layer`] at its place in [`Layers::combine`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use config::Source;
use serde_json::{Map, Value};

use crate::convert;
use crate::effective::Effective;
use crate::error::{ConfigError, Warning};
use crate::fetch::Fetch;
use crate::folder;
use crate::hocon::{self, Context};
use crate::keys::{self, Class, DefaultValue, Kind};
use crate::origin::Origin;
use crate::source::Layer;

/// Beginning of the names of override variables.
const OVERRIDE_PREFIX: &str = "CLEARML_AGENT__";
/// The list that two variables add an entry to.
const AZURE_CONTAINERS: &str = "sdk.azure.storage.containers";

/// Where configuration is looked for.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file of `--config-file`; it must exist.
    pub config_file: Option<PathBuf>,
    /// The environment variables.
    pub env: BTreeMap<String, String>,
    /// The home folder, where `clearml.conf` is looked for and which `~` means.
    pub home: Option<PathBuf>,
    /// Values of the command line: dotted key, value, name of the option.
    pub overrides: Vec<(String, Value, String)>,
    /// The host name, from which a worker gets its name; asked of the system when not given.
    pub host_name: Option<String>,
    /// Gets documents that files include by URL; without it such includes are skipped.
    pub fetch: Option<Fetch>,
}

impl Sources {
    /// The environment and home folder of this process, nothing from the command line.
    ///
    /// Variables that are not UTF-8 are left out.
    #[must_use]
    pub fn from_process() -> Self {
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self {
            env,
            home: std::env::home_dir().filter(|home| !home.as_os_str().is_empty()),
            ..Self::default()
        }
    }

    /// The content of the first of these variables that is not empty, with its name.
    pub(crate) fn variable<'n>(&self, names: &[&'n str]) -> Option<(&'n str, &str)> {
        names.iter().find_map(|name| {
            let content = self.env.get(*name)?.trim();
            (!content.is_empty()).then_some((*name, content))
        })
    }

    /// What a declared variable is set to; nothing where its text is unusable.
    pub(crate) fn variable_value(&self, name: &str) -> Option<Value> {
        let variable = keys::variable(name).expect("the settings read declared variables only");
        let (_, content) = self.variable(variable.names)?;
        convert::from_variable(variable.kind, variable.class, content)
    }

    /// The path that a declared variable names.
    pub(crate) fn variable_path(&self, name: &str) -> Option<PathBuf> {
        let (_, content) = self.variable(keys::variable(name)?.names)?;
        Some(self.path(content))
    }

    pub(crate) fn path(&self, text: &str) -> PathBuf {
        convert::path(text, self.home.as_deref(), &self.env)
    }

    pub(crate) fn context(&self) -> Context<'_> {
        Context {
            env: &self.env,
            fetch: self.fetch.as_ref(),
        }
    }
}

/// All layers but the vaults, which come later.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    /// What vaults are laid over.
    below: Vec<Layer>,
    /// Mapped variables, which are laid over vaults.
    variables: Vec<Layer>,
    azure: Option<Value>,
    options: Vec<Layer>,
    /// The file that is shown to the user as "the" configuration.
    pub(crate) location: Option<PathBuf>,
    /// The files that were read.
    pub(crate) files: Vec<PathBuf>,
    pub(crate) warnings: Vec<Warning>,
}

impl Layers {
    /// Reads all layers.
    pub(crate) fn read(sources: &Sources) -> Result<Self, ConfigError> {
        let mut warnings = Vec::new();
        check_variables(sources, &mut warnings)?;
        let environment = environment(sources)?;
        let mut below = vec![packaged()];
        below.push(Layer::of_key("env", Value::from(environment), &Origin::Default));
        let mut documents = folder::documents(sources, environment)?;
        let (files, location) = files(sources)?;
        for file in &files {
            documents.push(hocon::read_file(file, &sources.context())?);
        }
        for document in documents {
            warnings.extend(document.warnings.into_iter().map(Warning));
            below.push(Layer::from_places(document.root, &document.places));
        }
        below.extend(dynamic_overrides(sources, &mut warnings));
        Ok(Self {
            below,
            variables: mapped_variables(sources),
            azure: azure_container(sources),
            options: sources.overrides.iter().map(option_layer).collect(),
            location,
            files,
            warnings,
        })
    }

    /// Adds what the command line says.
    pub(crate) fn add_options(&mut self, overrides: &[(String, Value, String)]) {
        self.options.extend(overrides.iter().map(option_layer));
    }

    /// Lays them over each other, with the vaults, each kind at its place.
    pub(crate) fn combine(&self, vaults: &[Layer], monitoring: &[Layer]) -> Result<Effective, ConfigError> {
        // The builder of `config` would rebuild every object on the way and forget where it came from.
        let mut merged = config::Config::default();
        let order = [&self.below, vaults, &self.variables, monitoring, &self.options];
        for layer in order.into_iter().flatten() {
            layer.collect_to(&mut merged.cache)?;
        }
        let mut effective = Effective::from_config(merged);
        if let Some(container) = &self.azure {
            effective.append(
                AZURE_CONTAINERS,
                container,
                "AZURE_STORAGE_ACCOUNT, AZURE_STORAGE_KEY",
            );
        }
        Ok(effective)
    }
}

fn option_layer((key, value, option): &(String, Value, String)) -> Layer {
    Layer::of_key(key, value.clone(), &Origin::CommandLine(option.clone()))
}

fn packaged() -> Layer {
    let mut layer = Layer::from_places(Map::new(), &BTreeMap::new());
    for declaration in keys::declarations() {
        if let DefaultValue::Packaged(text) = declaration.default {
            let value = serde_json::from_str(text).expect("the declared defaults are checked by the tests");
            layer.merge(Layer::of_key(declaration.key, value, &Origin::Default));
        }
    }
    layer
}

/// The files to read, lowest first, and the one that is shown to the user as "the" configuration.
fn files(sources: &Sources) -> Result<(Vec<PathBuf>, Option<PathBuf>), ConfigError> {
    if let Some(file) = &sources.config_file {
        let path = sources.path(&file.to_string_lossy());
        // An empty configuration is often given as /dev/null.
        if !path.is_file() && path.as_os_str() != "/dev/null" {
            let what = if path.is_dir() { ": it is a folder" } else { "" };
            return Err(ConfigError::NoFile { path, what });
        }
        return Ok((vec![path.clone()], Some(path)));
    }
    if let Some(file) = sources.variable_path("CLEARML_CONFIG_FILE") {
        // A variable may name a file that does not exist (yet).
        let present = if file.exists() {
            vec![file.clone()]
        } else {
            Vec::new()
        };
        return Ok((present, Some(file)));
    }
    let in_home = |name: &str| {
        sources
            .home
            .as_ref()
            .map(|home| home.join(name))
            .filter(|path| path.exists())
    };
    let (old, current) = (in_home("trains.conf"), in_home("clearml.conf"));
    let location = current.clone().or_else(|| old.clone());
    Ok((old.into_iter().chain(current).collect(), location))
}

/// The part of the configuration folder that is read besides its default part.
fn environment(sources: &Sources) -> Result<&'static str, ConfigError> {
    let Some(variable) = keys::variable("TRAINS_ENV") else {
        return Ok("default");
    };
    match (variable.kind, sources.variable(variable.names)) {
        (Kind::Choice(words), Some((name, content))) => convert::choice(words, &Value::from(content))
            .ok_or_else(|| ConfigError::Variable {
                name: name.to_owned(),
                expected: variable.kind.to_string(),
            }),
        _ => Ok("default"),
    }
}

/// `CLEARML_AGENT__A__B=text` sets `a.b`.
fn dynamic_overrides(sources: &Sources, warnings: &mut Vec<Warning>) -> Vec<Layer> {
    let mut layers = Vec::new();
    for (name, text) in &sources.env {
        let Some(key) = name.strip_prefix(OVERRIDE_PREFIX).filter(|rest| !rest.is_empty()) else {
            continue;
        };
        let key = key.replace("__", ".").to_lowercase();
        let value = hocon::read_value(&key, text).unwrap_or_else(|reason| {
            warnings.push(Warning(format!(
                "the value of the environment variable {name} is taken as plain text: {reason}"
            )));
            Value::from(text.as_str())
        });
        layers.push(Layer::of_key(&key, value, &Origin::Variable(name.clone())));
    }
    layers
}

/// Looks at every variable: unusable texts are reported, or stop the start, as the tables say. Misspelt names are
/// reported.
fn check_variables(sources: &Sources, warnings: &mut Vec<Warning>) -> Result<(), ConfigError> {
    let keys = keys::declarations().map(|key| (key.variables, key.kind, key.class, key.secret));
    let others = keys::variables().map(|own| (own.names, own.kind, own.class, own.secret));
    for (names, kind, class, secret) in keys.chain(others) {
        let Some((name, content)) = sources.variable(names) else {
            continue;
        };
        if convert::from_variable(kind, class, content).is_some() {
            continue;
        }
        if matches!(class, Class::Strict | Class::OnlyTrue) {
            return Err(ConfigError::Variable {
                name: name.to_owned(),
                expected: kind.to_string(),
            });
        }
        let shown = if secret {
            clearml_support::secret::MASK.to_owned()
        } else {
            clearml_support::redact::mask_url(content)
                .chars()
                .take(60)
                .collect()
        };
        warnings.push(Warning(format!(
            "Environment configuration: invalid value {name}={shown}: it must be {kind}, and is ignored"
        )));
    }
    for name in sources.env.keys() {
        if let Some(meant) = keys::misspelt_variable(name) {
            warnings.push(Warning(format!(
                "the environment variable {name} is not known; did you mean {meant}?"
            )));
        }
    }
    Ok(())
}

/// The variables that the declared keys name.
fn mapped_variables(sources: &Sources) -> Vec<Layer> {
    let layer = |declaration: &keys::Declaration| {
        let (name, content) = sources.variable(declaration.variables)?;
        let value = convert::from_variable(declaration.kind, declaration.class, content)?;
        if declaration.class == Class::OnlyTrue && value == Value::Bool(false) {
            return None;
        }
        let origin = Origin::Variable(name.to_owned());
        Some(Layer::of_key(declaration.key, value, &origin))
    };
    keys::declarations().filter_map(layer).collect()
}

/// The entry that two variables make.
fn azure_container(sources: &Sources) -> Option<Value> {
    let members = [
        ("account_name", "AZURE_STORAGE_ACCOUNT"),
        ("account_key", "AZURE_STORAGE_KEY"),
    ];
    let entry: Map<String, Value> = members
        .into_iter()
        .filter_map(|(member, name)| Some((member.to_owned(), sources.variable_value(name)?)))
        .collect();
    (!entry.is_empty()).then_some(Value::Object(entry))
}
