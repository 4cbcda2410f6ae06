//! Why a build failed, and in which stage of the task that counts.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clearml_support::command::CommandError;

use crate::code::git::GitError;
use crate::code::literal::LiteralError;
use crate::code::patch::PatchError;
use crate::launch::LaunchError;
use crate::packages::PackageError;
use crate::python::PythonError;

/// The stage that a status reason begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Getting the code.
    Clone,
    /// Making the environment.
    Environment,
    /// Finding out what to start.
    Launch,
}

impl Stage {
    /// `clone`, `environment` or `launch`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clone => "clone",
            Self::Environment => "environment",
            Self::Launch => "launch",
        }
    }
}

/// A build failed. The text is fit for a status reason; details have gone to the console.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Somebody cancelled the build.
    #[error("the build was cancelled")]
    Cancelled,
    /// It took too long.
    #[error(
        "preparing the task took longer than the {} s of agent.env_build_timeout_sec; the console says what it was \
         at",
        limit.as_secs_f64()
    )]
    TimedOut {
        /// How long it may take.
        limit: Duration,
    },
    /// The task says nothing about what to run.
    #[error("the task has no script section, so there is nothing to run")]
    NoScript,
    /// The code could not be fetched or checked out.
    #[error("failed cloning repository {repository}: {source}")]
    Repository {
        /// The repository, without password.
        repository: String,
        /// Why.
        source: GitError,
    },
    /// The uncommitted changes do not fit the code.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// The custom build script failed.
    #[error("Custom build script failed with return code {code}")]
    CustomScript {
        /// Its exit code, which the agent takes over; above 128 for a signal.
        code: i32,
    },
    /// The custom build script could not be run.
    #[error("running the custom build script: {0}")]
    CustomScriptStart(#[source] CommandError),
    /// The literal script could not be written.
    #[error(transparent)]
    Script(#[from] LiteralError),
    /// No interpreter, or no environment.
    #[error(transparent)]
    Python(#[from] PythonError),
    /// Packages could not be installed.
    #[error(transparent)]
    Packages(#[from] PackageError),
    /// There is nothing to start.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] FileError),
}

impl BuildError {
    /// The stage in which it happened.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self {
            Self::Repository { .. } | Self::Patch(_) => Stage::Clone,
            Self::Launch(_) | Self::NoScript => Stage::Launch,
            Self::Cancelled
            | Self::TimedOut { .. }
            | Self::Script(_)
            | Self::CustomScript { .. }
            | Self::CustomScriptStart(_)
            | Self::Python(_)
            | Self::Packages(_)
            | Self::Io(_) => Stage::Environment,
        }
    }

    /// The exit code that the agent takes over from a program of the user.
    #[must_use]
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::CustomScript { code } => Some(*code),
            _ => None,
        }
    }

    /// Whether the build was cancelled rather than impossible.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled)
    }
}

/// The file system refused something.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}: {source}{}", path.display(), advice(source))]
pub struct FileError {
    /// What was being done, as in `creating`.
    pub doing: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// Why it failed.
    pub source: io::Error,
}

/// What to do where the reason is not the file itself.
fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room, for example in agent.venvs_cache.path, agent.vcs_cache.path or \
             agent.pip_download_cache.path"
        }
        _ => "",
    }
}

/// Names the file and the action in an I/O error.
pub(crate) fn at<'p>(doing: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> FileError + use<'p> {
    move |source| FileError {
        doing,
        path: path.to_owned(),
        source,
    }
}
