//! The layers of the configuration, lowest first, and the effective tree that they make.
//!
//! Packaged defaults, the configuration folder, the files, `CLEARML_AGENT__…` overrides, mapped
//! environment variables, command line. Each layer is a `config::Source`; the `config` crate lays them
//! over each other. Objects merge, everything else replaces. A further layer is one more
//! [`Layer`] at its place in [`collect`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::Source;
use serde_json::{Map, Value};

use crate::convert;
use crate::effective::Effective;
use crate::error::{ConfigError, Place, Warning};
use crate::hocon::{self, Document};
use crate::keys::{self, DefaultValue};
use crate::origin::Origin;
use crate::source::Layer;

/// Defaults of sections that the agent only passes on.
const PACKAGED: &str = include_str!("packaged.json");
/// Beginning of the names of override variables.
const OVERRIDE_PREFIX: &str = "CLEARML_AGENT__";
/// Limits of a configuration folder.
const MAX_FOLDER_FILES: usize = 256;
const MAX_FOLDER_DEPTH: usize = 8;

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

    /// The path that a declared variable names.
    pub(crate) fn variable_path(&self, name: &str) -> Option<PathBuf> {
        let (_, content) = self.variable(keys::variable(name)?.names)?;
        Some(self.path(content))
    }

    pub(crate) fn path(&self, text: &str) -> PathBuf {
        convert::path(text, self.home.as_deref(), &self.env)
    }
}

/// What the layers came to.
pub(crate) struct Collected {
    pub(crate) effective: Effective,
    pub(crate) location: Option<PathBuf>,
    pub(crate) warnings: Vec<Warning>,
}

/// Reads all layers and lays them over each other.
pub(crate) fn collect(sources: &Sources) -> Result<Collected, ConfigError> {
    let mut warnings = Vec::new();
    let mut layers = vec![packaged()];
    let mut documents = folder_documents(sources)?;
    let (files, location) = files(sources);
    for file in files {
        documents.push(hocon::read_file(&file, &sources.env)?);
    }
    for document in documents {
        warnings.extend(document.warnings.into_iter().map(Warning));
        layers.push(Layer::from_places(document.root, &document.places));
    }
    layers.extend(dynamic_overrides(sources, &mut warnings));
    layers.extend(mapped_variables(sources, &mut warnings)?);
    for (key, value, option) in &sources.overrides {
        layers.push(Layer::of_key(
            key,
            value.clone(),
            &Origin::CommandLine(option.clone()),
        ));
    }
    // The builder of `config` would rebuild every object on the way and forget where it came from.
    let mut merged = config::Config::default();
    for layer in &layers {
        layer.collect_to(&mut merged.cache)?;
    }
    let effective = Effective::from_config(merged);
    Ok(Collected {
        effective,
        location,
        warnings,
    })
}

fn packaged() -> Layer {
    let root: Map<String, Value> =
        serde_json::from_str(PACKAGED).expect("the packaged defaults are checked by the tests");
    let mut layer = Layer::from_places(root, &BTreeMap::new());
    for declaration in keys::declarations() {
        if let DefaultValue::Packaged(text) = declaration.default {
            let value = serde_json::from_str(text).expect("the declared defaults are checked by the tests");
            layer.merge(Layer::of_key(declaration.key, value, &Origin::Default));
        }
    }
    layer
}

/// The files to read, lowest first, and the one that is shown to the user as "the" configuration.
fn files(sources: &Sources) -> (Vec<PathBuf>, Option<PathBuf>) {
    if let Some(file) = &sources.config_file {
        let file = sources.path(&file.to_string_lossy());
        return (vec![file.clone()], Some(file));
    }
    if let Some(file) = sources.variable_path("CLEARML_CONFIG_FILE") {
        // A variable may name a file that does not exist (yet).
        let present = if file.exists() {
            vec![file.clone()]
        } else {
            Vec::new()
        };
        return (present, Some(file));
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
    (old.into_iter().chain(current).collect(), location)
}

/// The documents of the configuration folder, each below the key that its path says.
fn folder_documents(sources: &Sources) -> Result<Vec<Document>, ConfigError> {
    let Some(folder) = sources.variable_path("CLEARML_CONFIG_PATH") else {
        return Ok(Vec::new());
    };
    let mut parts = vec!["default"];
    if let Some((name, content)) = sources.variable(&["TRAINS_ENV"]) {
        let kind = keys::variable(name).map(|variable| variable.kind);
        let Some(keys::Kind::Choice(words)) = kind else {
            return Ok(Vec::new());
        };
        let part = convert::choice(words, &Value::from(content)).ok_or_else(|| ConfigError::Variable {
            name: name.to_owned(),
            expected: keys::Kind::Choice(words).to_string(),
        })?;
        if part != "default" {
            parts.push(part);
        }
    }
    let mut documents = Vec::new();
    for part in parts {
        let base = folder.join(part);
        let mut found = Vec::new();
        find_files(&base, &mut Vec::new(), &mut found)?;
        for (key, file) in found {
            documents.push(nested(hocon::read_file(&file, &sources.env)?, &key));
        }
    }
    Ok(documents)
}

/// All `*.conf` below a folder, in the order of their names, each with its key.
fn find_files(
    folder: &Path,
    key: &mut Vec<String>,
    found: &mut Vec<(Vec<String>, PathBuf)>,
) -> Result<(), ConfigError> {
    let problem = |source| ConfigError::Read {
        path: folder.to_path_buf(),
        source,
    };
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(problem)?,
    };
    let mut entries = entries.collect::<Result<Vec<_>, _>>().map_err(problem)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let stem = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if key.len() >= MAX_FOLDER_DEPTH || found.len() >= MAX_FOLDER_FILES {
            return Err(ConfigError::Resolve {
                place: Place {
                    file: Arc::from(path),
                    line: None,
                },
                message: format!(
                    "a configuration folder may hold {MAX_FOLDER_FILES} files, {MAX_FOLDER_DEPTH} folders deep"
                ),
            });
        }
        key.push(stem);
        // Links to folders are not followed, they could go round in circles.
        if entry.file_type().map_err(problem)?.is_dir() {
            find_files(&path, key, found)?;
        } else if path.extension().is_some_and(|extension| extension == "conf") {
            found.push((key.clone(), path));
        }
        key.pop();
    }
    Ok(())
}

/// The same document below a key.
fn nested(document: Document, key: &[String]) -> Document {
    let root = key.iter().rev().fold(document.root, |inner, part| {
        Map::from_iter([(part.clone(), Value::Object(inner))])
    });
    let places = document
        .places
        .into_iter()
        .map(|(path, place)| ([key, &path].concat(), place))
        .collect();
    Document {
        root,
        places,
        warnings: document.warnings,
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
        let value = hocon::read_value(text).unwrap_or_else(|reason| {
            warnings.push(Warning(format!(
                "the value of the environment variable {name} is taken as plain text: {reason}"
            )));
            Value::from(text.as_str())
        });
        layers.push(Layer::of_key(&key, value, &Origin::Variable(name.clone())));
    }
    layers
}

/// The variables that the declared keys name.
fn mapped_variables(sources: &Sources, warnings: &mut Vec<Warning>) -> Result<Vec<Layer>, ConfigError> {
    let mut layers = Vec::new();
    for declaration in keys::declarations() {
        let Some((name, content)) = sources.variable(declaration.variables) else {
            continue;
        };
        let origin = Origin::Variable(name.to_owned());
        match convert::from_variable(declaration.kind, content) {
            Some(value) => layers.push(Layer::of_key(declaration.key, value, &origin)),
            None if declaration.strict_variables => {
                return Err(ConfigError::Variable {
                    name: name.to_owned(),
                    expected: declaration.kind.to_string(),
                });
            }
            None => warnings.push(Warning(format!(
                "the environment variable {name} is ignored, it must be {}",
                declaration.kind
            ))),
        }
    }
    Ok(layers)
}
