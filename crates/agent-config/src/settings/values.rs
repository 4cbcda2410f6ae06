//! Values by key and by variable, for whoever reads a setting that has no field of its own.

use std::path::PathBuf;

use serde_json::Value;

use super::Settings;
use crate::convert;
use crate::effective::Reader;
use crate::keys;

/// Each of these takes a declared key, and gives what it is set to or else its default.
///
/// # Panics
///
/// When the key, or variable, is not declared: that is a mistake in the program.
impl Settings {
    fn reader(&self) -> Reader<'_> {
        Reader {
            effective: &self.rest.effective,
            sources: &self.rest.sources,
        }
    }

    /// Whether a switch is on.
    #[must_use]
    pub fn flag(&self, key: &str) -> bool {
        self.reader().flag(key)
    }

    /// A text, unless it is empty.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<String> {
        self.reader().text(key).filter(|text| !text.is_empty())
    }

    /// A path, with `~` and variables replaced.
    #[must_use]
    pub fn path(&self, key: &str) -> Option<PathBuf> {
        self.text(key).map(|text| self.rest.sources.path(&text))
    }

    /// A whole number.
    #[must_use]
    pub fn integer(&self, key: &str) -> Option<i64> {
        self.reader().integer(key)
    }

    /// A number; 0 where there is neither a value nor a default.
    #[must_use]
    pub fn number(&self, key: &str) -> f64 {
        self.reader().number(key)
    }

    /// A list of texts.
    #[must_use]
    pub fn list(&self, key: &str) -> Vec<String> {
        self.reader().list(key)
    }

    /// A switch that is an environment variable; `None` where it is not set.
    #[must_use]
    pub fn variable_flag(&self, name: &str) -> Option<bool> {
        convert::flag(&self.variable_value(name)?)
    }

    /// A text that is an environment variable.
    #[must_use]
    pub fn variable_text(&self, name: &str) -> Option<String> {
        convert::text(&self.variable_value(name)?)
    }

    /// A number that is an environment variable.
    #[must_use]
    pub fn variable_number(&self, name: &str) -> Option<f64> {
        convert::number(&self.variable_value(name)?)
    }

    /// A list that is an environment variable; empty where it is not set.
    #[must_use]
    pub fn variable_list(&self, name: &str) -> Vec<String> {
        self.variable_value(name)
            .as_ref()
            .and_then(convert::list)
            .unwrap_or_default()
    }

    fn variable_value(&self, name: &str) -> Option<Value> {
        assert!(keys::variable(name).is_some(), "{name} is not declared");
        self.rest.sources.variable_value(name)
    }

    /// The variables of the top-level section `environment`, unless `agent.apply_environment` is off.
    ///
    /// Values are written as the Python agent writes them: `True`, `False`, nothing for null.
    /// What no process can have as a variable is left out.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let usable = |(name, text): &(String, String)| is_usable(name, text);
        self.given_environment().into_iter().filter(usable).collect()
    }

    /// The names of the section `environment` that [`Settings::environment`] leaves out.
    pub(crate) fn unusable_environment(&self) -> Vec<String> {
        let given = self.given_environment().into_iter();
        given
            .filter(|(name, text)| !is_usable(name, text))
            .map(|(name, _)| name)
            .collect()
    }

    fn given_environment(&self) -> Vec<(String, String)> {
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

/// Whether the operating system takes it for a variable.
fn is_usable(name: &str, text: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !text.contains('\0')
}
