//! `agent.default_docker.match_rules`.

mod reading;

use pep440_rs::{Version, VersionSpecifiers, release_specifiers_to_ranges};
use pep508_rs::{PackageName, Requirement as Pep508, VersionOrUrl};
use regex::Regex;
use serde_json::Value;
use std::str::FromStr;

pub use reading::RuleError;

use super::Container;
use reading::Reader;

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
