//! The one table of configuration keys and environment variables.
//!
//! A key is declared here once, with its type, default, environment variables, description, whether its
//! value is a secret, and whether it takes effect yet. Typed settings are filled by these declarations,
//! values are checked against them, documentation is generated from them, masking relies on them, and the
//! warning about an unknown key suggests from them. Variables that stand for no key are declared beside
//! them, in [`variables`].

mod agent;
mod api;
mod containers;
mod git;
mod kind;
mod left_out;
mod python;
mod slurm;
mod variables;

pub use kind::Kind;

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

/// Whether a key or variable does anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It takes effect.
    Active,
    /// It is read and checked, and will take effect with the part of the agent that is named.
    Later(&'static str),
    /// It is accepted, so that files and scripts need no change, and does nothing, for this reason.
    Ignored(&'static str),
    /// It is not for the agent, but for whom is said here.
    PassedOn(&'static str),
}

/// What happens to a variable whose text does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It is reported and ignored.
    Lenient,
    /// It stops the start.
    Strict,
    /// Only `true` counts; what is false leaves the key as it is. Anything else stops the start.
    OnlyTrue,
    /// Any text that is not a word for "no" means yes.
    Presence,
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
    /// What happens when such a variable has an unusable text.
    pub class: Class,
    /// What it does, in one line.
    pub doc: &'static str,
    /// Whether the value must never be shown.
    pub secret: bool,
    /// Whether it does anything.
    pub standing: Standing,
    /// What takes the place of a value of the wrong type, after a warning; without it such a value is an
    /// error. The text is JSON.
    pub instead: Option<&'static str>,
}

impl Declaration {
    const fn new(key: &'static str, kind: Kind, default: DefaultValue, doc: &'static str) -> Self {
        Self {
            key,
            kind,
            default,
            variables: &[],
            class: Class::Lenient,
            doc,
            secret: false,
            standing: Standing::Active,
            instead: None,
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
            class: Class::Strict,
            ..self
        }
    }

    const fn only_true(self) -> Self {
        Self {
            class: Class::OnlyTrue,
            ..self
        }
    }

    const fn lenient(self, instead: &'static str) -> Self {
        Self {
            instead: Some(instead),
            ..self
        }
    }

    const fn later(self, with: &'static str) -> Self {
        Self {
            standing: Standing::Later(with),
            ..self
        }
    }

    const fn ignored(self, because: &'static str) -> Self {
        Self {
            standing: Standing::Ignored(because),
            ..self
        }
    }

    const fn no_bootstrap(self) -> Self {
        self.ignored("there is no bootstrap package")
    }

    const fn no_metering(self) -> Self {
        self.ignored("language models are not metered")
    }

    const fn sdk(self) -> Self {
        Self {
            standing: Standing::PassedOn("the SDK in tasks"),
            ..self
        }
    }
}

/// One environment variable that stands for no key.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// Its names; the first one that is not empty counts. A `*` at the end means any further text.
    pub names: &'static [&'static str],
    /// What values it takes.
    pub kind: Kind,
    /// What holds when it is not set, in words; empty where that is nothing.
    pub default: &'static str,
    /// What happens when it has an unusable text.
    pub class: Class,
    /// What it does, in one line.
    pub doc: &'static str,
    /// Whether the value must never be shown.
    pub secret: bool,
    /// Whether it does anything.
    pub standing: Standing,
}

impl Variable {
    const fn new(names: &'static [&'static str], kind: Kind, doc: &'static str) -> Self {
        Self {
            names,
            kind,
            default: "",
            class: Class::Lenient,
            doc,
            secret: false,
            standing: Standing::Active,
        }
    }

    const fn default(self, default: &'static str) -> Self {
        Self { default, ..self }
    }

    const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    const fn strict(self) -> Self {
        Self {
            class: Class::Strict,
            ..self
        }
    }

    const fn presence(self) -> Self {
        Self {
            class: Class::Presence,
            ..self
        }
    }

    const fn later(self, with: &'static str) -> Self {
        Self {
            standing: Standing::Later(with),
            ..self
        }
    }

    const fn ignored(self, because: &'static str) -> Self {
        Self {
            standing: Standing::Ignored(because),
            ..self
        }
    }

    const fn no_bootstrap(self) -> Self {
        self.ignored("there is no bootstrap package")
    }

    const fn no_metering(self) -> Self {
        self.ignored("language models are not metered")
    }

    const fn passed(self, to: &'static str) -> Self {
        Self {
            standing: Standing::PassedOn(to),
            ..self
        }
    }
}

/// A table of keys: key, kind, default and description of each, and what else is to be said of it.
macro_rules! keys {
    ($name:ident: $($key:literal, $kind:expr, $default:expr, $doc:literal
        $(, $(.$say:ident($($argument:expr)?))+)?;)*) => {
        pub(super) const $name: &[super::Declaration] = {
            use super::DefaultValue::*;
            use super::Kind::*;
            &[$(super::Declaration::new($key, $kind, $default, $doc)$($(.$say($($argument)?))+)?),*]
        };
    };
}
/// A table of variables: names, kind and description of each, and what else is to be said of it.
macro_rules! variables_table {
    ($name:ident: $($names:expr, $kind:expr, $doc:literal $(, $(.$say:ident($($argument:expr)?))+)?;)*) => {
        pub(super) const $name: &[super::Variable] = {
            use super::Kind::*;
            &[$(super::Variable::new(&$names, $kind, $doc)$($(.$say($($argument)?))+)?),*]
        };
    };
}
use {keys, variables_table};

/// Keys that belong together.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// What they are about.
    pub title: &'static str,
    /// The keys.
    pub keys: &'static [Declaration],
}

/// Variables that belong together.
#[derive(Debug, Clone, Copy)]
pub struct VariableSection {
    /// What they are about.
    pub title: &'static str,
    /// The variables.
    pub variables: &'static [Variable],
}

const SECTIONS: &[Section] = &[
    section("Worker", agent::WORKER),
    section("Slurm glue", slurm::SLURM),
    section("Version control", git::KEYS),
    section("Python", python::KEYS),
    section("Package manager", python::PACKAGE_MANAGER),
    section("Containers", containers::KEYS),
    section("Printout of the configuration", agent::PRINTOUT),
    section("Server", api::KEYS),
    section("Handed on to tasks", api::SDK),
    section("Left out: bootstrap package", left_out::BOOTSTRAP),
    section("Left out: metering of language models", left_out::METERING),
];

const fn section(title: &'static str, keys: &'static [Declaration]) -> Section {
    Section { title, keys }
}

/// All configuration keys, grouped, in the order of the documentation.
#[must_use]
pub fn sections() -> &'static [Section] {
    SECTIONS
}

/// All configuration keys, in the order of the documentation.
pub fn declarations() -> impl Iterator<Item = &'static Declaration> {
    SECTIONS.iter().flat_map(|section| section.keys)
}

/// All environment variables that stand for no key, grouped, in the order of the documentation.
#[must_use]
pub fn variable_sections() -> &'static [VariableSection] {
    variables::SECTIONS
}

/// All environment variables that stand for no key.
pub fn variables() -> impl Iterator<Item = &'static Variable> {
    variables::SECTIONS.iter().flat_map(|section| section.variables)
}

/// The declaration of a key.
#[must_use]
pub fn declaration(key: &str) -> Option<&'static Declaration> {
    declarations().find(|declaration| declaration.key == key)
}

/// The declaration of a variable that stands for no key, by its first name.
#[must_use]
pub fn variable(name: &str) -> Option<&'static Variable> {
    variables().find(|variable| variable.names[0] == name)
}

/// Whether a key may stand in a file, as itself or inside of a declared object.
pub(crate) fn is_known(key: &str) -> bool {
    let below = |section: &str| {
        key.strip_prefix(section)
            .is_some_and(|rest| rest.starts_with('.'))
    };
    declarations().any(|declaration| {
        declaration.key == key || (declaration.kind == Kind::Map && below(declaration.key))
    })
}

/// The known key that is spelt most like this one, if any is near enough to be meant.
pub(crate) fn nearest(key: &str) -> Option<&'static str> {
    declarations()
        .map(|declaration| declaration.key)
        .map(|candidate| (strsim::damerau_levenshtein(candidate, key), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= 2 + candidate.len() / 8)
        .map(|(_, candidate)| candidate)
}

/// The variable that was meant by one that nobody knows: one that is spelt almost alike. `None` for known ones too.
///
/// Only names that nobody but an agent or a client of the API has a use for are looked at.
pub(crate) fn misspelt_variable(name: &str) -> Option<&'static str> {
    let ours = ["CLEARML_AGENT_", "CLEARML_API_"]
        .iter()
        .any(|prefix| name.starts_with(prefix));
    if !ours {
        return None;
    }
    let known = || {
        let of_keys = declarations().flat_map(|declaration| declaration.variables);
        of_keys
            .chain(variables().flat_map(|variable| variable.names))
            .copied()
    };
    let is_known = known().any(|known| match known.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => known == name,
    });
    let near = known()
        .map(|known| (strsim::damerau_levenshtein(known, name), known))
        .min()
        .filter(|(distance, _)| *distance <= 2);
    near.filter(|_| !is_known).map(|(_, known)| known)
}

/// Whether the name of a section is a misspelt `agent`.
pub(crate) fn is_almost_agent(section: &str) -> bool {
    strsim::damerau_levenshtein(section, "agent") == 1
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
            let key = declaration.key;
            assert!(keys.insert(key), "{key} twice");
            assert!(
                declaration.doc.ends_with('.') && !declaration.doc.contains('\n'),
                "{key}"
            );
            for name in declaration.variables {
                assert!(names.insert(*name), "{name} twice");
            }
            if let DefaultValue::Packaged(text) | DefaultValue::Internal(text) = declaration.default {
                let value = serde_json::from_str(text).unwrap();
                assert!(crate::convert::fits(declaration.kind, &value), "{key}: {text}");
            }
            if let Some(text) = declaration.instead {
                let value = serde_json::from_str(text).unwrap();
                assert!(crate::convert::fits(declaration.kind, &value), "{key}: {text}");
            }
        }
        for variable in variables() {
            let first = variable.names[0];
            assert!(
                variable.doc.ends_with('.') && !variable.doc.contains('\n'),
                "{first}"
            );
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
