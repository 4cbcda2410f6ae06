//! One line of a list: options of the installer, or a requirement. Pure; nothing is looked up.

use std::fmt::{self, Write as _};

use crate::packages::requirements::pep::is_name;

mod parse;

pub use parse::{name_of, parse};

/// Longer lines are left to the installer.
const MAX_LINE: usize = 1 << 16;

/// What a line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A package.
    Requirement(Requirement),
    /// `-r`: another list.
    Include(String),
    /// `--extra-index-url`.
    ExtraIndex(String),
    /// Another option that holds for the whole list.
    Option(GlobalOption),
    /// An option that does nothing any more.
    Obsolete(&'static str),
}

/// An option that holds for the whole list, by its long name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalOption {
    /// For example `--no-binary`.
    pub name: &'static str,
    /// Its value, if it has one.
    pub value: Option<String>,
}

impl fmt::Display for GlobalOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        match &self.value {
            None => Ok(()),
            Some(value) if value.contains([' ', '\t', '"', '\'', '\\']) => {
                write!(f, " {}", shlex::try_quote(value).map_err(|_| fmt::Error)?)
            }
            Some(value) => write!(f, " {value}"),
        }
    }
}

/// A package that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// Its name as it was written, where there is one.
    pub name: Option<String>,
    /// `[a,b]`, or empty.
    pub extras: String,
    /// Where it comes from.
    pub target: Target,
    /// The condition behind `;`.
    pub marker: Option<String>,
    /// `-e`.
    pub editable: bool,
    /// `--hash=…` and other options of this package alone.
    pub options: Vec<String>,
}

/// Where a package comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An index; conditions on the version without blanks, or empty.
    Index(String),
    /// An archive at an `http`, `https` or `ftp` address.
    Url(String),
    /// A `file:` address.
    File(String),
    /// A path, as written.
    Path(String),
    /// A repository: `git+https://…`.
    Vcs(String),
    /// Something that is not understood here; the installer may.
    Unknown(String),
}

/// Why a line is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A name that is none.
    #[error("{0:?} is no name of a package")]
    Name(String),
    /// Extras that are none.
    #[error("{0:?} is no list of extras")]
    Extras(String),
    /// Conditions that are none.
    #[error("{text:?} is no condition on a version: {why}")]
    Version {
        /// The conditions.
        text: String,
        /// Why not.
        why: String,
    },
    /// A marker that is none.
    #[error("{text:?} is no marker: {why}")]
    Marker {
        /// The marker.
        text: String,
        /// Why not.
        why: String,
    },
    /// An unknown option.
    #[error("there is no option {0}")]
    Option(String),
    /// An option without its value.
    #[error("the option {0} lacks its value")]
    Value(String),
    /// Quotes that are not closed.
    #[error("a quote is not closed")]
    Quote,
    /// Nothing where a package should be.
    #[error("it names no package")]
    Empty,
    /// A line without end.
    #[error("it is longer than {MAX_LINE} bytes")]
    TooLong,
}

fn plain(target: Target) -> Requirement {
    Requirement {
        name: None,
        extras: String::new(),
        target,
        marker: None,
        editable: false,
        options: Vec::new(),
    }
}

impl Requirement {
    /// The requirement without its condition, for an installer that gets it only if it holds.
    #[must_use]
    pub fn without_marker(&self) -> String {
        let without = Self {
            marker: None,
            ..self.clone()
        };
        without.to_string()
    }

    /// The requirement as every installer reads it: a path with blanks, say, becomes an address.
    #[must_use]
    pub fn for_installer(&self) -> Self {
        let mut out = self.clone();
        if let Target::Path(path) = &self.target
            && path.starts_with('/')
            && path.contains(|c: char| !c.is_ascii_alphanumeric() && !"/._-+~@".contains(c))
        {
            out.target = Target::File(file_address(path));
        }
        out
    }

    /// A package that is not understood here.
    #[must_use]
    pub fn unknown(line: &str) -> Self {
        plain(Target::Unknown(line.to_owned()))
    }

    /// The name of the package as far as the line says it: its name, `#egg=`, or that of a wheel.
    #[must_use]
    pub fn known_name(&self) -> Option<&str> {
        if let Some(name) = &self.name {
            return Some(name);
        }
        let (Target::Url(text) | Target::File(text) | Target::Vcs(text) | Target::Path(text)) = &self.target
        else {
            return None;
        };
        let (address, fragment) = text.split_once('#').unwrap_or((text, ""));
        let egg = fragment.split('&').find_map(|part| part.strip_prefix("egg="));
        let egg = egg.map(|egg| egg.split('[').next().unwrap_or_default());
        let file = address.rsplit('/').next().unwrap_or_default();
        let wheel = file.strip_suffix(".whl").and_then(|stem| stem.split('-').next());
        egg.or(wheel).filter(|name| is_name(name))
    }
}

impl fmt::Display for Requirement {
    /// The line in its plain form: no blanks but where they are needed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        if self.editable {
            text.push_str("-e ");
        }
        let name = self.name.as_deref().map(|name| format!("{name}{}", self.extras));
        let mut is_address = true;
        match (&self.target, name) {
            (Target::Index(specifiers), name) => {
                is_address = false;
                text.push_str(&name.unwrap_or_default());
                text.push_str(specifiers);
            }
            (Target::Unknown(line), _) => text.push_str(line),
            (
                Target::Url(target) | Target::File(target) | Target::Vcs(target) | Target::Path(target),
                Some(name),
            ) => write!(text, "{name} @ {target}")?,
            (Target::Path(path), None) => write!(text, "{path}{}", self.extras)?,
            (Target::File(address), None) => write!(text, "{address}{}", self.extras)?,
            (Target::Url(target) | Target::Vcs(target), None) => text.push_str(target),
        }
        if let Some(marker) = &self.marker {
            write!(text, "{}; {marker}", if is_address { " " } else { "" })?;
        }
        for option in &self.options {
            match option.split_once('=') {
                Some((name, value)) if value.contains([' ', '\t', '"', '\'', '\\']) => {
                    let value = shlex::try_quote(value).map_err(|_| fmt::Error)?;
                    write!(text, " {name}={value}")?;
                }
                _ => write!(text, " {option}")?,
            }
        }
        f.write_str(&text)
    }
}

/// What does not stay as it is in the path of an address.
const IN_PATH: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'+');

/// The `file:` address of a path.
#[must_use]
pub fn file_address(path: &str) -> String {
    format!("file://{}", percent_encoding::utf8_percent_encode(path, IN_PATH))
}

#[cfg(test)]
mod tests;
