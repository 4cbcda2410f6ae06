//! `agent.default_docker.match_rules`.

use pep440_rs::{Version, VersionSpecifiers, release_specifiers_to_ranges};
use pep508_rs::{PackageName, Requirement as Pep508, VersionOrUrl};
use regex::Regex;
use serde_json::{Map, Value};
use std::str::FromStr;
use thiserror::Error;

use super::Container;

/// What rules look at.
#[derive(Debug, Clone, Default)]
pub struct Facts<'a> {
    /// The full name of the project.
    pub project: Option<&'a str>,
    /// The id of the project.
    pub project_id: Option<&'a str>,
    /// The id of the user.
    pub user: Option<&'a str>,
    /// The repository.
    pub repository: Option<&'a str>,
    /// The branch.
    pub branch: Option<&'a str>,
    /// The interpreter, such as `python3.11`.
    pub binary: Option<&'a str>,
    /// The image that the task names.
    pub image: Option<&'a str>,
    /// The tags.
    pub tags: &'a [String],
    /// The packages of pip, as lines.
    pub pip: Option<&'a str>,
    /// The packages of conda, as lines.
    pub conda: Option<&'a str>,
}

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

/// A package, wanted or there.
#[derive(Debug, Clone)]
struct Requirement {
    name: PackageName,
    versions: VersionSpecifiers,
}

/// One criterion with all its terms; every term has to match.
#[derive(Debug, Clone)]
enum Criterion {
    Text(Subject, Vec<Regex>),
    Tags(Vec<Regex>),
    Pip(Vec<Requirement>),
    Conda(Vec<Requirement>),
    /// A criterion that can't be read: the rule then never applies.
    Never,
}

#[derive(Debug, Clone, Copy)]
enum Subject {
    Project,
    ProjectId,
    User,
    Repository,
    Branch,
    Binary,
    Image,
}

/// A container for certain tasks.
#[derive(Debug, Clone)]
pub struct Rule {
    /// What it gives.
    pub container: Container,
    /// Whether it wins over what the task names.
    pub forced: bool,
    /// Whether the task is told; `None` for what is configured for all.
    pub write_back: Option<bool>,
    criteria: Vec<Criterion>,
}

impl Rule {
    /// Reads the list of the configuration. What is wrong is told; a rule with a criterion that can't be read
    /// never applies, and one without `match` is left out, as in the official agent.
    #[must_use]
    pub fn read_all(list: &[Value]) -> (Vec<Self>, Vec<RuleError>) {
        let mut errors = Vec::new();
        let rules = list
            .iter()
            .enumerate()
            .filter_map(|(number, value)| {
                Reader {
                    rule: number,
                    errors: &mut errors,
                }
                .rule(value)
            })
            .collect();
        (rules, errors)
    }

    /// Whether it applies.
    #[must_use]
    pub fn matches(&self, facts: &Facts<'_>) -> bool {
        self.criteria.iter().all(|criterion| criterion.matches(facts))
    }
}

impl Criterion {
    fn matches(&self, facts: &Facts<'_>) -> bool {
        match self {
            Self::Never => false,
            Self::Text(subject, terms) => {
                let text = subject.of(facts).unwrap_or_default();
                terms.iter().all(|term| term.is_match(text))
            }
            Self::Tags(terms) => terms
                .iter()
                .all(|term| facts.tags.iter().any(|tag| term.is_match(tag))),
            Self::Pip(wanted) => satisfied(wanted, facts.pip),
            Self::Conda(wanted) => satisfied(wanted, facts.conda),
        }
    }
}

impl Subject {
    fn of<'a>(self, facts: &Facts<'a>) -> Option<&'a str> {
        match self {
            Self::Project => facts.project,
            Self::ProjectId => facts.project_id,
            Self::User => facts.user,
            Self::Repository => facts.repository,
            Self::Branch => facts.branch,
            Self::Binary => facts.binary,
            Self::Image => facts.image,
        }
    }
}

/// Whether every wanted package is in the list, in a version that can be one of those that are wanted.
fn satisfied(wanted: &[Requirement], list: Option<&str>) -> bool {
    let there: Vec<Requirement> = list.unwrap_or_default().lines().filter_map(requirement).collect();
    wanted.iter().all(|wanted| {
        there.iter().any(|has| {
            let overlap = || {
                let ranges = |versions: &VersionSpecifiers| release_specifiers_to_ranges(versions.clone());
                !ranges(&wanted.versions)
                    .intersection(&ranges(&has.versions))
                    .is_empty()
            };
            has.name == wanted.name && overlap()
        })
    })
}

/// One line of a list; conda's single `=` is a prefix of a version.
fn requirement(line: &str) -> Option<Requirement> {
    let line = line.split('#').next().unwrap_or_default().trim();
    if let Ok(read) = Pep508::<url::Url>::from_str(line) {
        let versions = match read.version_or_url {
            Some(VersionOrUrl::VersionSpecifier(versions)) => versions,
            _ => VersionSpecifiers::empty(),
        };
        return Some(Requirement {
            name: read.name,
            versions,
        });
    }
    let (name, version) = line.split_once('=')?;
    let version = version.split('=').next().unwrap_or_default();
    Version::from_str(version).ok()?;
    Some(Requirement {
        name: PackageName::from_str(name.trim()).ok()?,
        versions: VersionSpecifiers::from_str(&format!("=={version}.*")).ok()?,
    })
}

struct Reader<'e> {
    rule: usize,
    errors: &'e mut Vec<RuleError>,
}

impl Reader<'_> {
    fn rule(&mut self, value: &Value) -> Option<Rule> {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(criteria: Value) -> Rule {
        let (mut rules, errors) = Rule::read_all(&[json!({"image": "x", "match": criteria})]);
        assert_eq!(errors, []);
        rules.remove(0)
    }

    #[test]
    fn each_criterion() {
        let tags = ["gpu".to_owned(), "nightly build".to_owned()];
        let facts = Facts {
            project: Some("Vision/Detection"),
            project_id: Some("p1"),
            user: Some("u1"),
            repository: Some("https://github.com/org/repo.git"),
            branch: Some("main"),
            binary: Some("python3.11"),
            image: None,
            tags: &tags,
            pip: Some("torch==2.1.0 # pinned\nnumpy>=1.20,<2\n-r other.txt\ngit+https://x/y"),
            conda: Some("python=3.10\nnumpy=1.26.4=py310\n"),
        };
        for (criteria, expected) in [
            (json!({"project": "^Vision"}), true),
            (json!({"project": ["Vision", "Seg"]}), false),
            (json!({"project_id": "p1", "user_id": "u1"}), true),
            (
                json!({"script.repository": "github.com/org/", "script.branch": "main$"}),
                true,
            ),
            (json!({"script": {"binary": "python3.11$"}}), true),
            (json!({"script": {"binary": "python3.1$"}}), false),
            (json!({"container": "^$"}), true),
            (json!({"container": "."}), false),
            (json!({"tags": ["gpu", "^nightly"]}), true),
            (json!({"tags": ["gpu", "cpu"]}), false),
            (
                json!({"script": {"requirements": {"pip": {"torch": ">=2,<3"}}}}),
                true,
            ),
            (
                json!({"script": {"requirements": {"pip": {"torch": ">=2.2"}}}}),
                false,
            ),
            (json!({"script.requirements.pip": ["Torch", "numpy~=1.26"]}), true),
            (json!({"script.requirements.pip": "numpy>=2"}), false),
            (json!({"script.requirements.pip": "scipy"}), false),
            (
                json!({"script.requirements.conda": {"numpy": "==1.26.*", "python": ">=3.10,<3.11"}}),
                true,
            ),
            (json!({"script.requirements.conda": "python>=3.11"}), false),
        ] {
            assert_eq!(one(criteria.clone()).matches(&facts), expected, "{criteria}");
        }
    }

    #[test]
    fn what_is_wrong_in_a_rule_is_told() {
        let (rules, errors) = Rule::read_all(&[
            json!({"image": "a", "match": {"project": "("}}),
            json!({"image": 3, "arguments": "'open", "match": {"tags": [1]}}),
            json!({"image": "no criteria"}),
            json!("text"),
            json!({"match": {"size": "big"}, "setup_shell_script": ["a", "b"], "update_back_task": "yes"}),
            json!({"match": {"script": {"requirements": {"pip": "???"}}}}),
        ]);
        assert_eq!(rules.len(), 4);
        assert!(rules.iter().all(|rule| !rule.matches(&Facts::default())));
        assert_eq!(rules[2].container.setup_script.as_deref(), Some("a\nb"));
        let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
        for part in [
            "match_rules[0].match.project has the pattern \"(\"",
            "match_rules[1].match.tags is [1]; a text or a list",
            "match_rules[1].image is 3; a text is expected",
            "match_rules[1].arguments \"'open\" has a quote",
            "match_rules[3]. is \"text\"; an object",
            "match_rules[4].match.size is not known",
            "match_rules[4].update_back_task is \"yes\"",
            "packages with versions",
        ] {
            assert!(text.iter().any(|line| line.contains(part)), "{part}: {text:#?}");
        }
    }
}
