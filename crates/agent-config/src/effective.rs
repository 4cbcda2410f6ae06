//! The merged tree: what holds, and where each value came from.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::convert;
use crate::error::{ConfigError, Warning};
use crate::keys::{self, DefaultValue, Kind, Standing};
use crate::layers::Sources;
use crate::origin::Origin;
use crate::source;

/// Longest value that an error message quotes.
const MAX_QUOTED: usize = 60;

/// The merged tree with the origins of its values.
#[derive(Clone)]
pub(crate) struct Effective {
    root: Value,
    origins: BTreeMap<Vec<String>, Origin>,
}

impl Effective {
    /// Takes over what the `config` crate merged.
    pub(crate) fn from_config(merged: config::Config) -> Self {
        let mut origins = BTreeMap::new();
        let root = source::to_json(merged.cache, &mut Vec::new(), &mut origins);
        Self { root, origins }
    }

    pub(crate) fn root(&self) -> &Value {
        &self.root
    }

    /// The value at a dotted key.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        key.split('.').try_fold(&self.root, |value, part| value.get(part))
    }

    /// The value at a dotted key, unless it is null or an empty text, which mean "unset".
    pub(crate) fn get_set(&self, key: &str) -> Option<&Value> {
        self.get(key)
            .filter(|value| !value.is_null() && value.as_str() != Some(""))
    }

    /// Where the value at a dotted key came from.
    pub(crate) fn origin(&self, key: &str) -> Option<&Origin> {
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        self.origins.get(&path)
    }

    /// Adds a value that was worked out from others.
    pub(crate) fn derive(&mut self, key: &str, value: Value, from: &str) {
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        let mut at = &mut self.root;
        for part in &path {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            let Value::Object(members) = at else { return };
            at = members.entry(part.clone()).or_insert(Value::Null);
        }
        *at = value;
        self.origins.insert(path, Origin::Derived(from.to_owned()));
    }

    /// Where the value at a path came from.
    pub(crate) fn origin_of(&self, path: &[String]) -> Option<&Origin> {
        self.origins.get(path)
    }

    /// Writes a value in another way, which leaves its origin what it was.
    pub(crate) fn rewrite(&mut self, key: &str, value: Value) {
        let origin = self.origin(key).cloned();
        self.derive(key, value, "");
        if let Some(origin) = origin {
            let path = key.split('.').map(str::to_owned).collect();
            self.origins.insert(path, origin);
        }
    }

    /// Adds an element to a list that was worked out from others, unless it is there already.
    pub(crate) fn append(&mut self, key: &str, element: &Value, from: &str) {
        let mut list = match self.get(key) {
            Some(Value::Array(list)) => list.clone(),
            _ => Vec::new(),
        };
        if !list.contains(element) {
            list.push(element.clone());
            self.derive(key, Value::Array(list), from);
        }
    }

    /// Checks every declared key against its declaration, and that sections are sections.
    ///
    /// What is only handed on to tasks is not ours to judge.
    pub(crate) fn check(&mut self) -> Result<Vec<Warning>, ConfigError> {
        let mut warnings = Vec::new();
        for section in ["agent", "api"] {
            if let Some(value) = self.get_set(section).filter(|value| !value.is_object()) {
                return Err(self.wrong_type(section, "an object", false, value));
            }
        }
        for declaration in keys::declarations() {
            let Some(value) = self.get_set(declaration.key) else {
                continue;
            };
            if convert::fits(declaration.kind, value) || matches!(declaration.standing, Standing::PassedOn(_))
            {
                continue;
            }
            let expected = declaration.kind.to_string();
            let error = self.wrong_type(declaration.key, &expected, declaration.secret, value);
            let Some(instead) = declaration.instead else {
                return Err(error);
            };
            warnings.push(Warning(format!("{error}; {instead} is used instead")));
            let instead = serde_json::from_str(instead).expect("the declarations are checked by the tests");
            self.derive(declaration.key, instead, "a value of the wrong type");
        }
        Ok(warnings)
    }

    fn wrong_type(&self, key: &str, expected: &str, secret: bool, value: &Value) -> ConfigError {
        let shape = match value {
            Value::Object(_) => "an object",
            Value::Array(_) => "a list",
            Value::String(_) => "a text",
            Value::Number(_) => "a number",
            Value::Bool(_) => "a boolean",
            Value::Null => "null",
        };
        let plain = value.is_number() || value.is_boolean() || value.is_string();
        let found = if plain && secret {
            format!("{shape}, {}", clearml_support::secret::MASK)
        } else if plain {
            let quoted = clearml_support::redact::mask_url(&value.to_string());
            format!("{shape}, {}", quoted.chars().take(MAX_QUOTED).collect::<String>())
        } else {
            shape.to_owned()
        };
        ConfigError::WrongType {
            key: key.to_owned(),
            expected: expected.to_owned(),
            found,
            origin: Box::new(self.origin(key).cloned().unwrap_or(Origin::Default)),
        }
    }

    /// A warning for each key of the `agent` section that nobody knows, and for a section that is almost called so.
    pub(crate) fn unknown_keys(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let mut told = None;
        for (path, origin) in &self.origins {
            let key = path.join(".");
            let is_section = self.get(&key).is_none_or(Value::is_object);
            let Some(section) = path.first().filter(|_| !is_section) else {
                continue;
            };
            if keys::is_almost_agent(section) && told != Some(section) {
                told = Some(section);
                warnings.push(Warning(format!(
                    "{origin}: {section} is not a known section; did you mean agent?"
                )));
            }
            if section != "agent" || keys::is_known(&key) {
                continue;
            }
            let hint = keys::nearest(&key).map_or_else(String::new, |near| format!("; did you mean {near}?"));
            warnings.push(Warning(format!("{origin}: {key} is not a known key{hint}")));
        }
        warnings
    }
}

/// Typed access to keys whose values [`Effective::check`] has passed.
pub(crate) struct Reader<'a> {
    pub(crate) effective: &'a Effective,
    pub(crate) sources: &'a Sources,
}

impl Reader<'_> {
    /// What a declared key is set to, or its default.
    pub(crate) fn value(&self, key: &str) -> Option<Value> {
        let declaration = keys::declaration(key).expect("the settings read declared keys only");
        self.effective
            .get_set(key)
            .cloned()
            .or_else(|| match declaration.default {
                DefaultValue::Internal(text) => serde_json::from_str(text).ok(),
                // A text, path or list that was emptied is meant to be empty; the rest cannot be.
                DefaultValue::Packaged(text)
                    if !matches!(
                        declaration.kind,
                        Kind::Text | Kind::Path | Kind::List | Kind::Words
                    ) =>
                {
                    serde_json::from_str(text).ok()
                }
                _ => None,
            })
    }

    pub(crate) fn text(&self, key: &str) -> Option<String> {
        convert::text(&self.value(key)?)
    }

    pub(crate) fn path(&self, key: &str) -> Option<PathBuf> {
        Some(self.sources.path(&self.text(key)?))
    }

    pub(crate) fn flag(&self, key: &str) -> bool {
        self.value(key).as_ref().and_then(convert::flag).unwrap_or(false)
    }

    pub(crate) fn integer(&self, key: &str) -> Option<i64> {
        convert::integer(&self.value(key)?)
    }

    /// A whole number that the declaration keeps above zero and gives a default.
    pub(crate) fn count(&self, key: &str) -> u64 {
        self.integer(key)
            .and_then(|number| u64::try_from(number).ok())
            .unwrap_or(0)
    }

    pub(crate) fn number(&self, key: &str) -> f64 {
        self.value(key).as_ref().and_then(convert::number).unwrap_or(0.0)
    }

    pub(crate) fn list(&self, key: &str) -> Vec<String> {
        let split = keys::declaration(key).is_some_and(|declaration| declaration.kind == Kind::Words);
        let read = if split { convert::words } else { convert::list };
        self.value(key).as_ref().and_then(read).unwrap_or_default()
    }

    pub(crate) fn choice(&self, key: &str) -> &'static str {
        let kind = keys::declaration(key).map(|declaration| declaration.kind);
        match (kind, self.value(key)) {
            (Some(Kind::Choice(words)), Some(value)) => convert::choice(words, &value).unwrap_or(words[0]),
            _ => "",
        }
    }

    /// Whether the value is the packaged one, whoever has written it.
    pub(crate) fn has_default(&self, key: &str) -> bool {
        let default = keys::declaration(key).map(|declaration| declaration.default);
        let Some(DefaultValue::Packaged(text)) = default else {
            return false;
        };
        serde_json::from_str(text).ok() == self.value(key)
    }

    /// The value as it is.
    pub(crate) fn raw(&self, key: &str) -> Option<Value> {
        self.value(key)
    }

    /// The value of a variable that stands for no key; `None` when it is unset or unusable.
    pub(crate) fn variable(&self, name: &str) -> Option<Value> {
        self.sources.variable_value(name)
    }
}
