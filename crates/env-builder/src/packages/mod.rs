//! Packages: which lists apply, what is in them, installing them, and reading what is installed.

use std::path::PathBuf;

use clearml_support::command::CommandError;

use crate::error::FileError;
use crate::python::PythonError;

pub mod conda;
mod conda_requirements;
pub(crate) mod freeze;
pub(crate) mod install;
mod install_tool;
pub(crate) mod pip;
mod pip_config;
mod poetry;
pub mod requirements;
pub(crate) mod select;
pub(crate) mod uv;
mod uv_project;

pub(crate) use requirements::RequirementSet;
pub(crate) use requirements::source::{of_repository, of_task};

/// Packages could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The installer failed.
    #[error("Could not install {what}: {last_line}")]
    Install {
        /// The list.
        what: String,
        /// What the installer said.
        last_line: String,
    },
    /// There is nothing to install with.
    #[error(
        "packages are required, but the interpreter {} brings no pip and there is no uv on PATH; \
         install its venv package (for example `apt-get install python3-venv`) or uv",
        python.display()
    )]
    NoInstaller {
        /// The interpreter.
        python: PathBuf,
    },
    /// conda can't be used.
    #[error(transparent)]
    Conda(#[from] conda::CondaError),
    /// An environment for a tool of the agent, or the pip of the environment.
    #[error(transparent)]
    Python(#[from] PythonError),
    /// The installer could not be run.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
}
