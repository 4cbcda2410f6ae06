//! Reading one HOCON document: dialect, includes, bounds, substitutions.
//!
//! The grammar of `clearml.conf` is not quite standard HOCON, so a document takes three steps:
//!
//! 1. [`dialect`] scans the text, reports every syntax error with its position, notes on which line
//!    each key stands, and rewrites the text in the strict form that every HOCON parser agrees on.
//! 2. The `hocon-rs` parser reads the strict form; [`raw`] then loads the included files and gives
//!    `+=` the meaning that it has in ClearML.
//! 3. [`bound`] refuses documents whose substitutions would multiply without limit, and `hocon-rs`
//!    merges duplicates, concatenates and substitutes.
//!
//! Each document is resolved by itself: substitutions see neither the defaults nor other files.

mod bound;
mod dialect;
mod include;
mod raw;
mod scalar;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

pub(crate) use self::include::Base;
use crate::error::{ConfigError, Place};
use crate::fetch::Fetch;

/// Largest accepted configuration file. Real ones have a few kilobytes.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 20;
/// Deepest accepted nesting of objects, lists and dotted keys together.
pub(crate) const MAX_DEPTH: usize = 32;
/// Longest accepted chain of files that include each other.
pub(crate) const MAX_INCLUDE_DEPTH: usize = 8;
/// Most files that one document may pull in.
pub(crate) const MAX_INCLUDED_FILES: usize = 64;

/// One resolved document.
#[derive(Debug, Default)]
pub(crate) struct Document {
    /// The values, keys in alphabetical order.
    pub(crate) root: Map<String, Value>,
    /// Where each key was last assigned.
    pub(crate) places: BTreeMap<Vec<String>, Place>,
    /// Things worth telling that are no errors.
    pub(crate) warnings: Vec<String>,
}

/// What was learnt while the files of one document were read.
#[derive(Debug, Default)]
struct Notes {
    places: BTreeMap<Vec<String>, Place>,
    substitutions: Vec<(Vec<String>, Place)>,
    warnings: Vec<String>,
    files: usize,
}

/// What a document may refer to outside of itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    /// Answers substitutions that the document itself does not define.
    pub(crate) env: &'a BTreeMap<String, String>,
    /// Gets what is included by URL.
    pub(crate) fetch: Option<&'a Fetch>,
}

/// Reads and resolves the document in a file.
pub(crate) fn read_file(path: &Path, context: &Context<'_>) -> Result<Document, ConfigError> {
    let text = read_text(path)?;
    read_text_as(&text, path, &Base::File(path.to_path_buf()), context)
}

/// Resolves a document that is already in memory; `name` is what messages call it.
pub(crate) fn read_text_as(
    text: &str,
    name: &Path,
    base: &Base,
    context: &Context<'_>,
) -> Result<Document, ConfigError> {
    let mut notes = Notes::default();
    let name: Arc<Path> = Arc::from(name);
    let identity = match base {
        Base::File(path) => std::fs::canonicalize(path).unwrap_or_else(|_| path.clone()),
        Base::Url(_) | Base::Closed => name.to_path_buf(),
    };
    let source = raw::Source {
        name: &name,
        base,
        chain: &[identity],
        context,
    };
    let raw = raw::load(text, source, &mut Vec::new(), &mut notes)?;
    let raw = raw::with_environment(raw, &notes, context.env);
    bound::check(&raw).map_err(|message| ConfigError::Resolve {
        place: Place::whole(&name),
        message,
    })?;
    let root: Map<String, Value> = hocon_rs::Config::from(raw)
        .resolve()
        .map_err(|error| resolve_error(&error, &name, &notes))?;
    Ok(Document {
        root,
        places: notes.places,
        warnings: notes.warnings,
    })
}

/// The text of a file, if it is a regular size and UTF-8.
fn read_text(path: &Path) -> Result<String, ConfigError> {
    let problem = |source| ConfigError::Read {
        path: path.to_path_buf(),
        source,
    };
    // Opening a pipe could wait for ever; an empty configuration is often given as /dev/null.
    if !std::fs::metadata(path).map_err(problem)?.is_file() && path != Path::new("/dev/null") {
        return Err(problem(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            "it is not a regular file",
        )));
    }
    text_of(
        clearml_support::fs::read_limited(path, MAX_FILE_BYTES).map_err(problem)?,
        path,
    )
}

fn text_of(bytes: Vec<u8>, path: &Path) -> Result<String, ConfigError> {
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = &error.as_bytes()[..valid];
        ConfigError::NotUtf8 {
            path: path.to_path_buf(),
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
            column: 1 + String::from_utf8_lossy(before)
                .chars()
                .rev()
                .take_while(|c| *c != '\n')
                .count(),
        }
    })
}

/// Turns an error of the resolver into one that names the line, as far as the line is known.
fn resolve_error(error: &hocon_rs::Error, name: &Arc<Path>, notes: &Notes) -> ConfigError {
    let dotted = |wanted: &str| {
        notes
            .places
            .iter()
            .find(|(path, _)| path.join(".") == wanted)
            .map(|(_, place)| place.clone())
    };
    let (place, message) = match error {
        hocon_rs::Error::SubstitutionNotFound(reference) => {
            let wanted = reference.trim_start_matches("${").trim_end_matches('}');
            let found = notes
                .substitutions
                .iter()
                .find(|(path, _)| path.join(".") == wanted);
            (
                found.map(|(_, place)| place.clone()),
                format!(
                    "${{{wanted}}} is defined neither in this file nor in the environment; \
                     write ${{?{wanted}}} if it may be missing"
                ),
            )
        }
        hocon_rs::Error::ConcatenateDifferentType {
            path,
            left_type,
            right_type,
        } => (
            dotted(path),
            format!("{path}: a {left_type} cannot be joined with a {right_type}"),
        ),
        hocon_rs::Error::SubstitutionCycle { current, .. } => (
            notes
                .substitutions
                .iter()
                .find(|(path, _)| current.contains(&path.join(".")))
                .map(|(_, place)| place.clone()),
            format!("the substitution {current} refers to itself"),
        ),
        other => (None, other.to_string()),
    };
    ConfigError::Resolve {
        place: place.unwrap_or_else(|| Place::whole(name)),
        message,
    }
}

/// The value of one HOCON expression, as in the text of the variable that overrides `key`.
///
/// # Errors
///
/// A message without any part of the text, which may be a secret.
pub(crate) fn read_value(key: &str, text: &str) -> Result<Value, String> {
    // As one part, so that messages name it and nothing in it is taken for notation.
    let document = format!("{}: {text}", Value::from(key));
    let context = Context {
        env: &BTreeMap::new(),
        fetch: None,
    };
    let mut parsed = read_text_as(&document, Path::new("value"), &Base::Closed, &context)
        .map_err(|error| error.reason())?;
    match (parsed.root.remove(key), parsed.root.is_empty()) {
        (Some(value), true) => Ok(value),
        _ => Err("it is more than one value".to_owned()),
    }
}
