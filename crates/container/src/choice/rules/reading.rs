//! Rules as they stand in the configuration, and what may be wrong with them.

use regex::Regex;
use serde_json::{Map, Value};
use thiserror::Error;

use super::{Container, Criterion, Requirement, Rule, Subject, requirement};

/// A rule of the configuration that can't be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RuleError {
    /// A field has another type.
    #[error("agent.default_docker.match_rules[{rule}].{field} is {found}; {expected} is expected")]
    Type {
        /// Number of the rule, from 0.
        rule: usize,
        /// The field.
        field: String,
        /// What it is.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A pattern is not a regular expression.
    #[error("agent.default_docker.match_rules[{rule}].{field} has the pattern {pattern:?}: {reason}")]
    Pattern {
        /// Number of the rule, from 0.
        rule: usize,
        /// The field.
        field: String,
        /// As it is configured.
        pattern: String,
        /// Why it is none.
        reason: String,
    },
    /// Arguments that no shell would read.
    #[error("agent.default_docker.match_rules[{rule}].arguments {text:?} has a quote that is not closed")]
    Quotes {
        /// Number of the rule, from 0.
        rule: usize,
        /// As they are configured.
        text: String,
    },
    /// A field nobody knows.
    #[error("agent.default_docker.match_rules[{rule}].{field} is not known and is never fulfilled")]
    Unknown {
        /// Number of the rule, from 0.
        rule: usize,
        /// The field.
        field: String,
    },
}

pub(super) struct Reader<'e> {
    pub(super) rule: usize,
    pub(super) errors: &'e mut Vec<RuleError>,
}

impl Reader<'_> {
    pub(super) fn rule(&mut self, value: &Value) -> Option<Rule> {
        let Some(fields) = value.as_object() else {
            self.wrong_type("", value, "an object");
            return None;
        };
        let criteria = match fields.get("match") {
            Some(Value::Object(criteria)) if !criteria.is_empty() => self.criteria("match.", criteria),
            None | Some(Value::Null | Value::Object(_)) => return None,
            Some(other) => {
                self.wrong_type("match", other, "an object");
                return None;
            }
        };
        let container = Container {
            image: self.text(fields, "image"),
            arguments: self.arguments(fields),
            setup_script: self.script(fields),
        };
        Some(Rule {
            container,
            forced: self.flag(fields, "force_container_rules").unwrap_or(false),
            write_back: self.flag(fields, "update_back_task"),
            criteria,
        })
    }

    /// Keys may be nested (`script: {binary: …}`) or dotted (`script.binary`).
    fn criteria(&mut self, prefix: &str, fields: &Map<String, Value>) -> Vec<Criterion> {
        let mut criteria = Vec::new();
        for (key, value) in fields {
            let path = format!("{prefix}{key}");
            let subject = match path.trim_start_matches("match.") {
                "project" => Subject::Project,
                "project_id" => Subject::ProjectId,
                "user_id" => Subject::User,
                "container" => Subject::Image,
                "script.repository" => Subject::Repository,
                "script.branch" => Subject::Branch,
                "script.binary" => Subject::Binary,
                "tags" => {
                    criteria.push(self.terms(&path, value).map_or(Criterion::Never, Criterion::Tags));
                    continue;
                }
                "script.requirements.pip" => {
                    criteria.push(
                        self.packages(&path, value)
                            .map_or(Criterion::Never, Criterion::Pip),
                    );
                    continue;
                }
                "script.requirements.conda" => {
                    criteria.push(
                        self.packages(&path, value)
                            .map_or(Criterion::Never, Criterion::Conda),
                    );
                    continue;
                }
                "script" | "script.requirements" if value.is_object() => {
                    let nested = value.as_object().cloned().unwrap_or_default();
                    criteria.extend(self.criteria(&format!("{path}."), &nested));
                    continue;
                }
                _ => {
                    self.errors.push(RuleError::Unknown {
                        rule: self.rule,
                        field: path,
                    });
                    criteria.push(Criterion::Never);
                    continue;
                }
            };
            let terms = self.terms(&path, value);
            criteria.push(terms.map_or(Criterion::Never, |terms| Criterion::Text(subject, terms)));
        }
        criteria
    }

    fn words<'v>(&mut self, field: &str, value: &'v Value) -> Option<Vec<&'v str>> {
        let words = match value {
            Value::String(word) => Some(vec![word.as_str()]),
            Value::Array(words) => words.iter().map(Value::as_str).collect(),
            _ => None,
        };
        if words.is_none() {
            self.wrong_type(field, value, "a text or a list of texts");
        }
        words
    }

    fn terms(&mut self, field: &str, value: &Value) -> Option<Vec<Regex>> {
        let mut terms = Vec::new();
        for pattern in self.words(field, value)? {
            match Regex::new(pattern) {
                Ok(term) => terms.push(term),
                Err(e) => {
                    self.errors.push(RuleError::Pattern {
                        rule: self.rule,
                        field: field.to_owned(),
                        pattern: pattern.to_owned(),
                        reason: e.to_string(),
                    });
                    return None;
                }
            }
        }
        Some(terms)
    }

    /// A list of lines, or an object of names and versions.
    fn packages(&mut self, field: &str, value: &Value) -> Option<Vec<Requirement>> {
        let lines: Option<Vec<String>> = match value {
            Value::Object(packages) => packages
                .iter()
                .map(|(name, versions)| versions.as_str().map(|versions| format!("{name}{versions}")))
                .collect(),
            other => self.words(field, other).map(|words| {
                words
                    .iter()
                    .flat_map(|word| word.lines())
                    .map(str::to_owned)
                    .collect()
            }),
        };
        let read: Option<Vec<Requirement>> = lines
            .as_ref()
            .and_then(|lines| lines.iter().map(|line| requirement(line)).collect());
        if lines.is_none() || read.is_none() {
            self.wrong_type(field, value, "packages with versions");
        }
        read
    }

    fn text(&mut self, fields: &Map<String, Value>, field: &str) -> Option<String> {
        match fields.get(field)? {
            Value::String(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
            Value::String(_) | Value::Null => None,
            other => {
                self.wrong_type(field, other, "a text");
                None
            }
        }
    }

    fn arguments(&mut self, fields: &Map<String, Value>) -> Vec<String> {
        let Some(value) = fields.get("arguments").filter(|value| !value.is_null()) else {
            return Vec::new();
        };
        let Some(words) = self.words("arguments", value) else {
            return Vec::new();
        };
        if value.is_array() {
            return words.into_iter().map(str::to_owned).collect();
        }
        let text = words.concat();
        shlex::split(&text).unwrap_or_else(|| {
            self.errors.push(RuleError::Quotes {
                rule: self.rule,
                text,
            });
            Vec::new()
        })
    }

    fn script(&mut self, fields: &Map<String, Value>) -> Option<String> {
        let value = fields
            .get("setup_shell_script")
            .filter(|value| !value.is_null())?;
        let lines = self.words("setup_shell_script", value)?;
        Some(lines.join("\n")).filter(|script| !script.trim().is_empty())
    }

    fn flag(&mut self, fields: &Map<String, Value>, field: &str) -> Option<bool> {
        match fields.get(field)? {
            Value::Bool(flag) => Some(*flag),
            Value::Null => None,
            other => {
                self.wrong_type(field, other, "true or false");
                None
            }
        }
    }

    fn wrong_type(&mut self, field: &str, value: &Value, expected: &'static str) {
        let found = value.to_string().chars().take(80).collect();
        self.errors.push(RuleError::Type {
            rule: self.rule,
            field: field.to_owned(),
            found,
            expected,
        });
    }
}
