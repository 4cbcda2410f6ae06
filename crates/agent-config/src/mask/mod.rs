//! Showing the configuration without its secrets.
//!
//! The patterns of `agent.sanitize_config_printout` decide by key name. Beyond them, whatever they are
//! set to, a key that is declared secret is never shown, nor is a password inside any URL.

mod command;

use clearml_support::secret::MASK;
use regex::{Regex, RegexSet};
use serde_json::{Map, Value};

pub use command::CommandMask;

use crate::convert;
use crate::effective::Effective;
use crate::keys;

/// The mask for a part of a longer text.
const INNER_MASK: &str = "********";

/// The text without the passwords of the URLs in it.
///
/// ```
/// use clearml_agent_config::mask_urls;
/// assert_eq!(mask_urls("https://me:pa55@host/x"), "https://me:********@host/x");
/// ```
#[must_use]
pub fn mask_urls(text: &str) -> String {
    clearml_support::redact::mask_url(text).replace(&format!("{MASK}@"), &format!("{INNER_MASK}@"))
}

/// The whole configuration, masked; container commands by `commands`.
pub(crate) fn mask(effective: &Effective, commands: CommandMask) -> Value {
    let rules = Rules::new(effective, commands);
    match effective.root() {
        Value::Object(members) => Value::Object(rules.object(members, "")),
        other => other.clone(),
    }
}

struct Rules {
    shown: RegexSet,
    hidden: RegexSet,
    hidden_below: RegexSet,
    command_keys: Vec<Regex>,
    commands: CommandMask,
}

impl Rules {
    fn new(effective: &Effective, commands: CommandMask) -> Self {
        let list = |name: &str| {
            let value = effective.get(&format!("agent.sanitize_config_printout.{name}"));
            value.and_then(convert::list).unwrap_or_default()
        };
        Self {
            shown: patterns(&list("dont_hide_secrets")),
            hidden: patterns(&list("hide_secrets")),
            hidden_below: patterns(&list("hide_secrets_recursive")),
            command_keys: list("docker_commands")
                .iter()
                .filter_map(|pattern| Regex::new(&format!("^(?:{pattern})")).ok())
                .collect(),
            commands,
        }
    }

    fn object(&self, members: &Map<String, Value>, path: &str) -> Map<String, Value> {
        let masked = members.iter().map(|(key, value)| {
            let path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            (key.clone(), self.member(key, value, &path))
        });
        masked.collect()
    }

    fn member(&self, key: &str, value: &Value, path: &str) -> Value {
        let secret = keys::declaration(path).is_some_and(|declaration| declaration.secret);
        if secret && !value.is_array() && !value.is_object() {
            return Value::from(MASK);
        }
        if !self.shown.is_match(key) {
            if self.hidden.is_match(key) {
                return Value::from(MASK);
            }
            if self.hidden_below.is_match(key) {
                return match value {
                    Value::Object(members) => members
                        .keys()
                        .map(|name| (name.clone(), Value::from(MASK)))
                        .collect(),
                    _ => Value::from(MASK),
                };
            }
        }
        // The arguments of an image's own are as much a container command as the extra ones.
        let of_image = key == "arguments" && path.starts_with("agent.default_docker.");
        if of_image || self.command_keys.iter().any(|pattern| pattern.is_match(key)) {
            return self.command(value);
        }
        self.value(value, path)
    }

    fn value(&self, value: &Value, path: &str) -> Value {
        match value {
            Value::Object(members) => Value::Object(self.object(members, path)),
            Value::Array(items) => items.iter().map(|item| self.value(item, path)).collect(),
            // Passwords of URLs are hidden everywhere, not only below the keys of the list `urls`.
            Value::String(text) => Value::from(mask_urls(text)),
            other => other.clone(),
        }
    }

    /// Arguments of a container command: as a list, or as one text.
    fn command(&self, value: &Value) -> Value {
        match value {
            Value::Array(items) => {
                let words: Vec<String> = items
                    .iter()
                    .map(|item| convert::text(item).unwrap_or_default())
                    .collect();
                self.commands.words(&words).into()
            }
            Value::String(text) => self.commands.text(text).into(),
            other => self.value(other, ""),
        }
    }
}

/// Patterns searched for anywhere in a key. One that is no regular expression hides by its letters.
fn patterns(list: &[String]) -> RegexSet {
    let usable = list.iter().map(|text| match Regex::new(text) {
        Ok(_) => text.clone(),
        Err(_) => regex::escape(text),
    });
    RegexSet::new(usable).unwrap_or_else(|_| RegexSet::empty())
}
