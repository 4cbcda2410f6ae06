//! Packages: which lists apply, what is in them, installing them, and reading what is installed.
//!
//! # Package managers
//!
//! * **pip** is what most tasks have. With `pip_backend: auto` uv installs in its place where that leads to
//!   the same packages: CPython 3.8 or later, no packages of the interpreter in sight, and nothing in pip's
//!   configuration, its arguments or the list that uv can't be told. What uv then can't install, pip tries,
//!   unless it is the network that fails. pip's own version (`pip_version`) matters only where pip installs;
//!   a pip within the range stays, another one is fetched once per machine. Of the preparations of the
//!   Python agent only those that the list needs are made: nothing is upgraded for an empty list.
//! * **uv** syncs repositories that are its projects, with whatever interpreter the project says, and starts
//!   the interpreter of `.venv` itself; `uv run` is used where it has arguments to obey. Everything else is
//!   installed as for pip. uv brings a version of Python that is missing. It is installed for the agent where
//!   it is not there, or not in the wanted version.
//! * **Poetry** installs repositories that are its projects, into `.venv` beside them, and the interpreter in
//!   it is started directly. Poetry itself is the one on `PATH`, or is installed for the agent; the
//!   interpreter of the machine is never changed. Its freeze lists what is installed, not what is only locked.
//! * **conda** makes the environment and installs what it has; what it refuses is left to pip. Its
//!   environments are started through bash, which activates them and then becomes the interpreter.
//!
//! Tools of the agent live below `tools` in the caches folder, one environment for each version.

use std::path::PathBuf;

use clearml_support::command::CommandError;

use crate::error::FileError;
use crate::python::PythonError;

pub mod conda;
mod conda_call;
pub mod conda_environment;
mod conda_requirements;
pub(crate) mod freeze;
pub(crate) mod install;
mod install_tool;
pub(crate) mod pip;
mod pip_config;
mod poetry;
pub(crate) mod reason;
pub mod requirements;
pub(crate) mod select;
pub(crate) mod uv;
pub(crate) mod uv_downloads;
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
    /// `pytorch_resolve_legacy` wants an index.
    #[error(
        "no index and no page of torch has {wanted} for {machine}; check agent.cuda_version and that the worker \
         reaches the addresses of agent.package_manager.extra_index_url_template and torch_page, or switch \
         agent.package_manager.pytorch_resolve_legacy off"
    )]
    NoTorch {
        /// What the list asks for.
        wanted: String,
        /// What the machine computes with.
        machine: String,
    },
    /// conda can't be used.
    #[error(transparent)]
    Conda(#[from] conda_environment::CondaError),
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
