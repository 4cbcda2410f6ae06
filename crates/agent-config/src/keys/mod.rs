//! The one table of configuration keys and environment variables.
//!
//! A key is declared here once, with its type, default, environment variables, description, and
//! whether its value is a secret. Typed settings are filled by these declarations, values are checked
//! against them, documentation is generated from them, masking relies on them, and the warning about
//! an unknown key suggests from them. Variables that stand for no key are declared beside them.
//!
//! Keys of the reference that nothing here reads yet are listed in `known_keys.txt`, so that a file
//! which sets them is not reported as misspelt; their values travel on untouched.

mod agent;
mod api;
mod package_manager;
mod variables;

use std::fmt;

/// What values a key takes.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// Any text; numbers and booleans are taken as their text.
    Text,
    /// A path; `~`, `$NAME` and `${NAME}` are expanded.
    Path,
    /// `true` or `false`; also `yes`, `no`, `on`, `off`, `t`, `f`, `y`, `n`, 1, 0.
    Flag,
    /// A whole number of at least this much.
    Integer(i64),
    /// A port number.
    Port,
    /// A number of at least this much.
    Number(f64),
    /// A list of texts; a single text is a list of one.
    List,
    /// One of these words, in any case.
    Choice(&'static [&'static str]),
    /// `true`, `false`, or the path of a file with certificates.
    Verify,
    /// A list of objects, or an object.
    Structure,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("a text"),
            Self::Path => f.write_str("a path"),
            Self::Flag => f.write_str("true or false"),
            Self::Integer(least) => write!(f, "a whole number of at least {least}"),
            Self::Port => f.write_str("a port number from 1 to 65535"),
            Self::Number(least) if *least == f64::MIN => f.write_str("a number"),
            Self::Number(least) => write!(f, "a number of at least {least}"),
            Self::List => f.write_str("a list of texts"),
            Self::Choice(words) => write!(f, "one of {}", words.join(", ")),
            Self::Verify => f.write_str("true, false or the path of a certificate file"),
            Self::Structure => f.write_str("a list or an object"),
        }
    }
}

/// What holds when nobody sets a key. The texts are JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultValue {
    /// Nothing.
    Unset,
    /// This value, which is also part of the effective configuration that tasks get.
    Packaged(&'static str),
    /// This value, for the agent only.
    Internal(&'static str),
    /// Worked out at run time, as described.
    Computed(&'static str),
}

/// One configuration key.
#[derive(Debug, Clone, Copy)]
pub struct Declaration {
    /// The dotted key.
    pub key: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// What holds when nobody sets it.
    pub default: DefaultValue,
    /// Environment variables that set it; the first one that is not empty counts.
    pub variables: &'static [&'static str],
    /// What it does, in one line.
    pub doc: &'static str,
    /// Whether the value must never be shown.
    pub secret: bool,
    /// Whether a variable with an unusable value stops the start instead of being ignored.
    pub strict_variables: bool,
}

impl Declaration {
    const fn new(key: &'static str, kind: Kind, default: DefaultValue, doc: &'static str) -> Self {
        Self {
            key,
            kind,
            default,
            variables: &[],
            doc,
            secret: false,
            strict_variables: false,
        }
    }

    const fn variables(self, variables: &'static [&'static str]) -> Self {
        Self { variables, ..self }
    }

    const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    const fn strict(self) -> Self {
        Self {
            strict_variables: true,
            ..self
        }
    }
}

/// One environment variable that stands for no key.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// Its names; the first one that is not empty counts.
    pub names: &'static [&'static str],
    /// What values it takes.
    pub kind: Kind,
    /// What it does, in one line.
    pub doc: &'static str,
    /// Whether the value must never be shown.
    pub secret: bool,
    /// Whether an unusable value stops the start instead of being ignored.
    pub strict: bool,
}

/// All configuration keys that the agent reads, in the order of the documentation.
pub fn declarations() -> impl Iterator<Item = &'static Declaration> {
    [agent::KEYS, package_manager::KEYS, api::KEYS]
        .into_iter()
        .flatten()
}

/// All environment variables that stand for no key.
pub fn variables() -> impl Iterator<Item = &'static Variable> {
    variables::VARIABLES.iter()
}

/// The declaration of a key.
#[must_use]
pub fn declaration(key: &str) -> Option<&'static Declaration> {
    declarations().find(|declaration| declaration.key == key)
}

/// The declaration of a variable that stands for no key, by its first name.
pub(crate) fn variable(name: &str) -> Option<&'static Variable> {
    variables().find(|variable| variable.names[0] == name)
}

/// Keys that are accepted without being read: one per line, `.*` at the end for everything below.
const KNOWN: &str = include_str!("known_keys.txt");

/// Whether a key may stand in a file, as itself or as a section that holds declared keys.
pub(crate) fn is_known(key: &str) -> bool {
    let below = |section: &str| {
        key.strip_prefix(section)
            .is_some_and(|rest| rest.starts_with('.'))
    };
    let declared = declarations().any(|declaration| {
        declaration.key == key || (declaration.kind == Kind::Structure && below(declaration.key))
    });
    declared
        || known().any(|line| match line.strip_suffix(".*") {
            Some(section) => section == key || below(section),
            None => line == key,
        })
}

/// The known key that is spelt most like this one, if any is near enough to be meant.
pub(crate) fn nearest(key: &str) -> Option<&'static str> {
    declarations()
        .map(|declaration| declaration.key)
        .chain(known().map(|line| line.trim_end_matches(".*")))
        .map(|candidate| (strsim::damerau_levenshtein(candidate, key), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= 2 + candidate.len() / 8)
        .map(|(_, candidate)| candidate)
}

fn known() -> impl Iterator<Item = &'static str> {
    KNOWN
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn everything_is_declared_once_and_documented() {
        let mut keys = BTreeSet::new();
        let mut names = BTreeSet::new();
        for declaration in declarations() {
            assert!(keys.insert(declaration.key), "{} twice", declaration.key);
            assert!(
                !declaration.doc.is_empty() && !declaration.doc.contains('\n'),
                "{}",
                declaration.key
            );
            assert!(
                !known().any(|line| line == declaration.key),
                "{} is also in the list",
                declaration.key
            );
            for name in declaration.variables {
                assert!(names.insert(*name), "{name} twice");
            }
            if let DefaultValue::Packaged(text) | DefaultValue::Internal(text) = declaration.default {
                let value = serde_json::from_str(text).unwrap();
                assert!(
                    crate::convert::fits(declaration.kind, &value),
                    "{}: {text}",
                    declaration.key
                );
            }
        }
        for variable in variables() {
            for name in variable.names {
                assert!(names.insert(*name), "{name} twice");
            }
        }
    }

    #[test]
    fn misspelt_keys_get_the_right_suggestion_and_foreign_ones_none() {
        assert_eq!(nearest("agent.woker_name"), Some("agent.worker_name"));
        assert_eq!(
            nearest("agent.package_manager.extra_index_urls"),
            Some("agent.package_manager.extra_index_url")
        );
        assert_eq!(nearest("agent.something_entirely_different"), None);
        assert!(is_known("agent.slurm.user_map.someone"));
        assert!(is_known("agent.default_docker.image"));
        assert!(is_known("agent.git.extra_credentials"));
        assert!(!is_known("agent.slurm_x"));
    }
}
