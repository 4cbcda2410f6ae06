//! Showing the configuration without its secrets.
//!
//! The patterns of `agent.sanitize_config_printout` decide by key name. Beyond them, whatever they are
//! set to, a key that is declared secret is never shown, nor is a password inside any URL.

use clearml_support::redact::mask_url;
use clearml_support::secret::MASK;
use regex::{Regex, RegexSet};
use serde_json::{Map, Value};

use crate::convert;
use crate::effective::Effective;
use crate::keys;

/// Variables of container commands that are never shown.
const SECRET_VARIABLES: &[&str] = &[
    "CLEARML_AGENT_GIT_PASS",
    "TRAINS_AGENT_GIT_PASS",
    "CLEARML_API_SECRET_KEY",
    "TRAINS_API_SECRET_KEY",
    "AWS_SECRET_ACCESS_KEY",
    "AZURE_STORAGE_KEY",
    "CLEARML_AUTH_TOKEN",
];
/// Variables whose content is a container command itself.
const COMMAND_VARIABLES: &[&str] = &["CLEARML_DOCKER_IMAGE", "TRAINS_DOCKER_IMAGE"];

/// The whole configuration, masked.
pub(crate) fn mask(effective: &Effective) -> Value {
    let rules = Rules::new(effective);
    match effective.root() {
        Value::Object(members) => Value::Object(rules.object(members, "")),
        other => other.clone(),
    }
}

struct Rules {
    shown: RegexSet,
    hidden: RegexSet,
    hidden_below: RegexSet,
    commands: Vec<Regex>,
    command_variables: Option<Vec<String>>,
}

impl Rules {
    fn new(effective: &Effective) -> Self {
        let list = |name: &str| {
            let value = effective.get(&format!("agent.sanitize_config_printout.{name}"));
            value.and_then(convert::list).unwrap_or_default()
        };
        let hide = "agent.hide_docker_command_env_vars";
        let extra = effective
            .get(&format!("{hide}.extra_keys"))
            .and_then(convert::list)
            .unwrap_or_default();
        let enabled = effective
            .get(&format!("{hide}.enabled"))
            .and_then(convert::flag)
            .unwrap_or(true);
        Self {
            shown: patterns(&list("dont_hide_secrets")),
            hidden: patterns(&list("hide_secrets")),
            hidden_below: patterns(&list("hide_secrets_recursive")),
            commands: list("docker_commands")
                .iter()
                .filter_map(|pattern| Regex::new(&format!("^(?:{pattern})")).ok())
                .collect(),
            command_variables: (enabled || !extra.is_empty()).then(|| {
                SECRET_VARIABLES
                    .iter()
                    .map(|name| (*name).to_owned())
                    .chain(extra)
                    .collect()
            }),
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
        if secret && value.is_string() {
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
        if self.commands.iter().any(|pattern| pattern.is_match(key)) {
            return self.command(value);
        }
        self.value(value, path)
    }

    fn value(&self, value: &Value, path: &str) -> Value {
        match value {
            Value::Object(members) => Value::Object(self.object(members, path)),
            Value::Array(items) => items.iter().map(|item| self.value(item, path)).collect(),
            Value::String(text) => Value::from(mask_url(text)),
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
                self.words(&words).into()
            }
            Value::String(text) => {
                let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
                self.words(&words).join(" ").into()
            }
            other => self.value(other, ""),
        }
    }

    /// `-e NAME=value`, `--env NAME=value`, `--env=NAME=value` and `-eNAME=value`.
    fn words(&self, words: &[String]) -> Vec<String> {
        let mut assigns = false;
        let masked = words.iter().map(|word| {
            if std::mem::take(&mut assigns) {
                return self.assignment(word);
            }
            if word == "-e" || word == "--env" {
                assigns = true;
                return word.clone();
            }
            for flag in ["--env=", "-e"] {
                if let Some(rest) = word.strip_prefix(flag).filter(|rest| rest.contains('=')) {
                    return format!("{flag}{}", self.assignment(rest));
                }
            }
            mask_url(word)
        });
        masked.collect()
    }

    fn assignment(&self, word: &str) -> String {
        let (Some(names), Some((name, content))) = (&self.command_variables, word.split_once('=')) else {
            return mask_url(word);
        };
        if names.iter().any(|secret| secret == name) {
            format!("{name}={MASK}")
        } else if COMMAND_VARIABLES.contains(&name) {
            let words: Vec<String> = content.split(' ').map(str::to_owned).collect();
            format!("{name}={}", self.words(&words).join(" "))
        } else {
            mask_url(word)
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
