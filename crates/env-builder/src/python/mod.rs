//! The interpreter and the virtual environment.

use clearml_support::command::CommandError;

use crate::error::FileError;

pub mod find;
pub mod probe;
pub(crate) mod seed;
pub(crate) mod venv;

/// No interpreter, or no environment.
#[derive(Debug, thiserror::Error)]
pub enum PythonError {
    /// Nothing that runs.
    #[error(
        "no Python interpreter was found (looked on PATH for {}); install Python 3 or set agent.python_binary",
        tried.join(", ")
    )]
    NotFound {
        /// The names that were tried.
        tried: Vec<String>,
    },
    /// The interpreter could not make its own kind of environment.
    #[error("creating a virtual environment failed: {last_line}")]
    Venv {
        /// What it said last.
        last_line: String,
    },
    /// A program could not be run.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
}
