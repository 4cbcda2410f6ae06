//! The configuration folder: every file below it is a layer, at the key that its path says.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::error::{ConfigError, Place};
use crate::hocon::{self, Document};
use crate::layers::Sources;

/// Limits of a configuration folder.
const MAX_FOLDER_FILES: usize = 256;
const MAX_FOLDER_DEPTH: usize = 8;

/// The documents of the configuration folder, each below the key that its path says.
pub(crate) fn documents(sources: &Sources, environment: &str) -> Result<Vec<Document>, ConfigError> {
    let Some(folder) = sources.variable_path("CLEARML_CONFIG_PATH") else {
        return Ok(Vec::new());
    };
    let mut parts = vec!["default"];
    if environment != "default" {
        parts.push(environment);
    }
    let mut documents = Vec::new();
    for part in parts {
        let base = folder.join(part);
        let mut found = Vec::new();
        find_files(&base, &mut Vec::new(), &mut found)?;
        for (key, file) in found {
            documents.push(nested(hocon::read_file(&file, &sources.context())?, &key));
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
                place: Place::whole(&Arc::from(path)),
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
