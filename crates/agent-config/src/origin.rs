//! Where a value came from.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Origin {
    /// The defaults that come with the agent.
    Default,
    /// A configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line of its last assignment, counted from 1.
        line: Option<usize>,
        /// The column of that assignment in characters, counted from 1.
        column: Option<usize>,
    },
    /// A configuration vault of the server, by its scope and description.
    Vault(String),
    /// An environment variable, by name.
    Variable(String),
    /// The command line, by the name of the option.
    CommandLine(String),
    /// Worked out from other values, by their description.
    Derived(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File {
                path,
                line: Some(line),
                ..
            } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None, .. } => write!(f, "{}", path.display()),
            Self::Vault(vault) => write!(f, "vault {vault}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::CommandLine(option) => write!(f, "command line {option}"),
            Self::Derived(from) => write!(f, "derived from {from}"),
        }
    }
}

impl Origin {
    /// With the column, where it is known.
    pub(crate) fn exact(&self) -> String {
        match self {
            Self::File {
                column: Some(column), ..
            } => format!("{self}:{column}"),
            _ => self.to_string(),
        }
    }

    /// The one line of text that a `config::Value` carries along.
    pub(crate) fn encode(&self) -> String {
        serde_json::to_string(self).expect("an origin is strings and numbers, which JSON can hold")
    }

    /// Reads what [`Origin::encode`] wrote. A value without it was set by nobody but us.
    pub(crate) fn decode(text: Option<&str>) -> Self {
        text.and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or(Self::Default)
    }
}
