//! Everything that can be wrong with a configuration, worded for the person who has to repair it.
//!
//! No message shows a value that may be a secret: of a line whose key looks like one, only the
//! offending character is quoted.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::origin::Origin;

/// A line of a configuration file, or the whole file where the line is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<Path>,
    /// The line, counted from 1.
    pub line: Option<usize>,
    /// The column in characters, counted from 1.
    pub column: Option<usize>,
}

impl Place {
    /// The whole file.
    pub(crate) fn whole(file: &Arc<Path>) -> Self {
        Self {
            file: Arc::clone(file),
            line: None,
            column: None,
        }
    }
}

impl Place {
    /// The place in its file, for the beginning of a message.
    fn inside(&self) -> String {
        match (self.line, self.column) {
            (Some(line), Some(column)) => format!("line {line}, column {column}: "),
            (Some(line), None) => format!("line {line}: "),
            _ => String::new(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}, line {line}", self.file.display()),
            None => write!(f, "{}", self.file.display()),
        }
    }
}

/// What a syntax error is called in messages: the name that log readers know from the Python agent.
const SYNTAX_KIND: &str = "ParseSyntaxException";

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that the user named is not there, or is no file.
    #[error("Could not open configuration file: {}{what}", path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
        /// What is there instead, where there is something.
        what: &'static str,
    },
    /// A file could not be read.
    #[error("Failed loading {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is not text.
    #[error(
        "Failed loading {}: line {line}, column {column}: it is not UTF-8; save it in that encoding",
        path.display()
    )]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Line of the first bad byte, counted from 1.
        line: usize,
        /// Column of the first bad byte, in characters, counted from 1.
        column: usize,
    },
    /// A file is not HOCON.
    #[error(
        "Failed parsing {} ({SYNTAX_KIND}): (at char {offset}, line:{line}, col:{column}): {message}, at: {excerpt}",
        path.display()
    )]
    Syntax {
        /// The file.
        path: PathBuf,
        /// How many characters come before.
        offset: usize,
        /// Line, counted from 1.
        line: usize,
        /// Column in characters, counted from 1.
        column: usize,
        /// What is wrong and what to do.
        message: String,
        /// The offending text.
        excerpt: String,
    },
    /// A file is well-formed but has no meaning: an undefined substitution, a cycle, too much of something.
    #[error("Failed loading {}: {}{message}", place.file.display(), place.inside())]
    Resolve {
        /// Where.
        place: Place,
        /// What is wrong and what to do.
        message: String,
    },
    /// A key has a value of another type than declared.
    #[error("{key} must be {expected}, but {} sets it to {found}", origin.exact())]
    WrongType {
        /// The dotted key.
        key: String,
        /// What the declaration says.
        expected: String,
        /// The value, or only its type where the value may be a secret.
        found: String,
        /// Where the value came from.
        origin: Box<Origin>,
    },
    /// An environment variable has a value that cannot be understood.
    #[error("the environment variable {name} must be {expected}; correct or unset it")]
    Variable {
        /// Its name.
        name: String,
        /// What it should be.
        expected: String,
    },
    /// No server is configured.
    #[error(
        "no ClearML server is configured: set api.api_server in {location} or the environment variable \
         CLEARML_API_HOST, for example to http://localhost:8008; `clearml-agent init` makes a new configuration"
    )]
    NoServer {
        /// The file that was read, or the one that should exist.
        location: String,
    },
    /// No credentials are configured.
    #[error(
        "no ClearML credentials: {missing} missing; create an access key in the web page of the server and put \
         it into {location} as api.credentials.access_key and api.credentials.secret_key, or set \
         CLEARML_API_ACCESS_KEY and CLEARML_API_SECRET_KEY; `clearml-agent init` makes a new configuration"
    )]
    NoCredentials {
        /// Which part.
        missing: &'static str,
        /// The file that was read, or the one that should exist.
        location: String,
    },
    /// The layers could not be combined.
    #[error("cannot combine the configuration: {0}")]
    Combine(#[from] config::ConfigError),
}

impl ConfigError {
    /// What is wrong, without where and without any quoted text.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Syntax { message, .. } | Self::Resolve { message, .. } => message.clone(),
            other => other.to_string(),
        }
    }
}

/// Something that the user should know but that stops nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning(pub(crate) String);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
