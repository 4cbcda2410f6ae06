//! Between parsing and resolving: included files, environment, and the meaning of `+=`.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hocon_rs::parser::HoconParser;
use hocon_rs::parser::read::StrRead;
use hocon_rs::raw::concat::Concat;
use hocon_rs::raw::field::ObjectField;
use hocon_rs::raw::include::Inclusion;
use hocon_rs::raw::raw_array::RawArray;
use hocon_rs::raw::raw_object::RawObject;
use hocon_rs::raw::raw_string::RawString;
use hocon_rs::raw::raw_value::RawValue;
use hocon_rs::raw::substitution::Substitution;

use super::dialect::{self, SyntaxError};
use super::include::{Base, Missing, Target};
use super::{Context, MAX_DEPTH, MAX_INCLUDE_DEPTH, MAX_INCLUDED_FILES, Notes};
use crate::error::{ConfigError, Place};

/// Words in a key that make its value a secret as far as error messages are concerned.
const SECRET_WORDS: &[&str] = &[
    "secret",
    "pass",
    "token",
    "key",
    "credential",
    "contents",
    "environment",
];
/// Most characters of a line that an error message quotes.
const EXCERPT_CHARS: usize = 80;

/// Where a document comes from.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    /// What messages call it.
    pub(super) name: &'a Arc<Path>,
    /// What its includes are relative to.
    pub(super) base: &'a Base,
    /// The documents being read, outermost first.
    pub(super) chain: &'a [PathBuf],
    pub(super) context: &'a Context<'a>,
}

/// Parses a document and those that it includes; `prefix` is the path of the object it will stand in.
pub(super) fn load(
    text: &str,
    source: Source<'_>,
    prefix: &mut Vec<String>,
    notes: &mut Notes,
) -> Result<RawObject, ConfigError> {
    let name = source.name;
    let depth = MAX_DEPTH.saturating_sub(prefix.len());
    let scan = dialect::scan(text, depth).map_err(|error| syntax_error(&error, text, name))?;
    let mut positions = Positions::new(text, name);
    for (path, offset) in scan.keys {
        let place = positions.of(offset);
        notes
            .places
            .insert(prefix.iter().cloned().chain(path).collect(), place);
    }
    let mut positions = Positions::new(text, name);
    for (path, offset) in scan.substitutions {
        notes.substitutions.push((path, positions.of(offset)));
    }
    let parsed = HoconParser::new(StrRead::new(&scan.strict))
        .parse()
        .map_err(|error| ConfigError::Resolve {
            place: Place::whole(name),
            message: error.to_string(),
        })?;
    let mut walk = Walk {
        source,
        prefix,
        notes,
        assigned: HashSet::new(),
    };
    walk.object(parsed, &mut Vec::new())
}

/// Lines and columns of rising offsets.
struct Positions<'t> {
    text: &'t str,
    name: &'t Arc<Path>,
    at: usize,
    line: usize,
    column: usize,
}

impl<'t> Positions<'t> {
    fn new(text: &'t str, name: &'t Arc<Path>) -> Self {
        Self {
            text,
            name,
            at: 0,
            line: 1,
            column: 1,
        }
    }

    fn of(&mut self, offset: usize) -> Place {
        for byte in self.text.as_bytes().get(self.at..offset).unwrap_or_default() {
            match byte {
                b'\n' => {
                    self.line += 1;
                    self.column = 1;
                }
                // A later byte of a character that was counted by its first one.
                0x80..=0xbf => {}
                _ => self.column += 1,
            }
        }
        self.at = self.at.max(offset);
        Place {
            file: Arc::clone(self.name),
            line: Some(self.line),
            column: Some(self.column),
        }
    }
}

/// Positions an error, and quotes the line unless that could show a secret.
fn syntax_error(error: &SyntaxError, text: &str, name: &Arc<Path>) -> ConfigError {
    let before = &text[..error.offset];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line_text = text[line_start..].lines().next().unwrap_or_default();
    let hints = format!("{}.{line_text}", error.path.join(".")).to_ascii_lowercase();
    let excerpt = if SECRET_WORDS.iter().any(|word| hints.contains(word)) {
        text[error.offset..]
            .chars()
            .next()
            .map_or_else(|| "end of file".to_owned(), String::from)
    } else if line_text.trim().is_empty() {
        "end of line".to_owned()
    } else {
        line_text.trim().chars().take(EXCERPT_CHARS).collect()
    };
    ConfigError::Syntax {
        path: name.to_path_buf(),
        offset: before.chars().count(),
        line: 1 + before.matches('\n').count(),
        column: 1 + text[line_start..error.offset].chars().count(),
        message: error.message.clone(),
        excerpt,
    }
}

/// A walk over one parsed document.
struct Walk<'a> {
    source: Source<'a>,
    prefix: &'a mut Vec<String>,
    notes: &'a mut Notes,
    assigned: HashSet<Vec<String>>,
}

impl Walk<'_> {
    fn object(&mut self, object: RawObject, path: &mut Vec<String>) -> Result<RawObject, ConfigError> {
        let mut fields = Vec::with_capacity(object.len());
        for field in object.into_inner() {
            match field {
                ObjectField::Inclusion { inclusion, .. } => {
                    if let Some(content) = self.included(&inclusion, path)? {
                        let filled = Inclusion {
                            val: Some(Box::new(content)),
                            ..inclusion
                        };
                        fields.push(ObjectField::inclusion(filled));
                    }
                }
                ObjectField::KeyValue { key, value, .. } => {
                    let length = path.len();
                    path.extend(key.as_path().into_iter().map(str::to_owned));
                    let value = self.value(value, path)?;
                    self.assignment(key, value, path, &mut fields)?;
                    self.assigned.insert(path.clone());
                    path.truncate(length);
                }
                ObjectField::NewlineComment(_) => {}
            }
        }
        Ok(RawObject::new(fields))
    }

    fn value(&mut self, value: RawValue, path: &mut Vec<String>) -> Result<RawValue, ConfigError> {
        Ok(match value {
            RawValue::Object(object) => RawValue::Object(self.object(object, path)?),
            RawValue::Array(array) => {
                let items = array.into_inner().into_iter().map(|item| self.value(item, path));
                RawValue::Array(RawArray::new(items.collect::<Result<_, _>>()?))
            }
            RawValue::Concat(concat) => {
                let (values, spaces) = concat.into_inner();
                let values: Result<_, _> = values.into_iter().map(|value| self.value(value, path)).collect();
                RawValue::Concat(self.hold(Concat::new(values?, spaces))?)
            }
            RawValue::AddAssign(added) => RawValue::add_assign(self.value(added.into(), path)?),
            scalar => scalar,
        })
    }

    /// Appends one assignment. Where standard HOCON's `+=` adds one element, ClearML's joins lists
    /// and joins texts with a blank.
    fn assignment(
        &self,
        key: RawString,
        value: RawValue,
        path: &[String],
        fields: &mut Vec<ObjectField>,
    ) -> Result<(), ConfigError> {
        let RawValue::AddAssign(added) = value else {
            fields.push(ObjectField::key_value(key, value));
            return Ok(());
        };
        let known = self.assigned.contains(path);
        match RawValue::from(added) {
            RawValue::Array(array) if array.is_empty() && !known => {
                fields.push(ObjectField::key_value(key, RawValue::Array(array)));
            }
            RawValue::Array(array) => {
                for item in array.into_inner() {
                    fields.push(ObjectField::key_value(key.clone(), RawValue::add_assign(item)));
                }
            }
            text @ RawValue::String(_) if known => {
                let parts = path.iter().map(|part| RawString::quoted(part.as_str())).collect();
                let before = Substitution::new(RawString::path_expression(parts), true);
                let values = vec![RawValue::Substitution(before), text];
                let joined = self.hold(Concat::new(values, vec![Some(" ".to_owned())]))?;
                fields.push(ObjectField::key_value(key, RawValue::Concat(joined)));
            }
            text @ RawValue::String(_) => fields.push(ObjectField::key_value(key, text)),
            element => fields.push(ObjectField::key_value(key, RawValue::add_assign(element))),
        }
        Ok(())
    }

    /// The content of an included document; nothing when an optional one is missing.
    fn included(&mut self, inclusion: &Inclusion, path: &[String]) -> Result<Option<RawObject>, ConfigError> {
        let read = Target::of(inclusion, self.source.base).and_then(|target| {
            let identity = target.identity();
            if self.source.chain.contains(&identity) {
                return Err(Missing::Refused(format!("{} includes itself", identity.display())));
            }
            self.notes.files += 1;
            if self.source.chain.len() > MAX_INCLUDE_DEPTH || self.notes.files > MAX_INCLUDED_FILES {
                return Err(Missing::Refused(format!(
                    "cannot include {}: more than {MAX_INCLUDE_DEPTH} files deep or {MAX_INCLUDED_FILES} files in all",
                    inclusion.path.as_str()
                )));
            }
            Ok((identity, target.read(self.source.context)?))
        });
        let (identity, included) = match read {
            Ok(read) => read,
            Err(Missing::Absent(what)) if !inclusion.required => {
                self.notes
                    .warnings
                    .push(format!("{}: {what}", self.source.name.display()));
                return Ok(None);
            }
            Err(Missing::Absent(what) | Missing::Refused(what)) => return Err(self.problem(what)),
            Err(Missing::Broken(error)) => return Err(error),
        };
        let length = self.prefix.len();
        self.prefix.extend_from_slice(path);
        let chain: Vec<PathBuf> = self.source.chain.iter().cloned().chain([identity]).collect();
        let source = Source {
            name: &Arc::from(included.name),
            base: &included.base,
            chain: &chain,
            context: self.source.context,
        };
        let content = load(&included.text, source, self.prefix, self.notes);
        self.prefix.truncate(length);
        content.map(Some)
    }

    fn hold<T>(&self, made: hocon_rs::Result<T>) -> Result<T, ConfigError> {
        made.map_err(|error| self.problem(error.to_string()))
    }

    fn problem(&self, message: String) -> ConfigError {
        ConfigError::Resolve {
            place: Place::whole(self.source.name),
            message,
        }
    }
}

/// What is known about a substitution before the document is resolved.
enum Answer<'e> {
    /// Only the environment defines it.
    Text(&'e str),
    /// Nobody defines it.
    Missing,
}

/// Answers the substitutions to which the document itself has no answer: by the environment, or, if
/// they are optional, by leaving out the assignment, so that an earlier one stays in force.
pub(super) fn with_environment(
    object: RawObject,
    notes: &Notes,
    env: &BTreeMap<String, String>,
) -> RawObject {
    if notes.substitutions.is_empty() {
        return object;
    }
    // Included documents shift paths, so any key of that name counts as a definition.
    let defined = notes.places.keys().flatten().map(String::as_str).collect();
    Environment { defined, env }.object(object)
}

struct Environment<'e> {
    defined: HashSet<&'e str>,
    env: &'e BTreeMap<String, String>,
}

impl<'e> Environment<'e> {
    fn answer(&self, substitution: &Substitution) -> Option<Answer<'e>> {
        let path = substitution.path.as_path();
        if path.last().is_some_and(|name| self.defined.contains(name)) {
            return None;
        }
        // The reference looks for a variable of the whole dotted name.
        match self.env.get(&path.join(".")) {
            Some(text) => Some(Answer::Text(text)),
            None if substitution.optional => Some(Answer::Missing),
            None => None,
        }
    }

    fn object(&self, object: RawObject) -> RawObject {
        let mut fields = Vec::with_capacity(object.len());
        for field in object.into_inner() {
            match field {
                ObjectField::Inclusion { mut inclusion, .. } => {
                    inclusion.val = inclusion.val.map(|content| Box::new(self.object(*content)));
                    fields.push(ObjectField::inclusion(inclusion));
                }
                ObjectField::KeyValue { key, value, .. } => {
                    if !self.is_missing(&value) {
                        fields.push(ObjectField::key_value(key, self.value(value)));
                    }
                }
                ObjectField::NewlineComment(_) => {}
            }
        }
        RawObject::new(fields)
    }

    fn is_missing(&self, value: &RawValue) -> bool {
        match value {
            RawValue::Substitution(substitution) => {
                matches!(self.answer(substitution), Some(Answer::Missing))
            }
            _ => false,
        }
    }

    fn value(&self, value: RawValue) -> RawValue {
        match value {
            RawValue::Substitution(substitution) => match self.answer(&substitution) {
                Some(Answer::Text(text)) => RawValue::quoted_string(text),
                Some(Answer::Missing) | None => RawValue::Substitution(substitution),
            },
            RawValue::Object(object) => RawValue::Object(self.object(object)),
            RawValue::Array(array) => {
                let item = |item| {
                    if self.is_missing(&item) {
                        RawValue::Null
                    } else {
                        self.value(item)
                    }
                };
                RawValue::Array(RawArray::new(array.into_inner().into_iter().map(item).collect()))
            }
            RawValue::Concat(concat) => {
                let (values, spaces) = concat.into_inner();
                let values = values.into_iter().map(|value| self.value(value)).collect();
                RawValue::Concat(
                    Concat::new(values, spaces).expect("a concatenation keeps its number of parts"),
                )
            }
            RawValue::AddAssign(added) => RawValue::add_assign(self.value(added.into())),
            scalar => scalar,
        }
    }
}
