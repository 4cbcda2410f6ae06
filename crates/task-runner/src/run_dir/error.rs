//! Why a run directory could not be used.

use std::io;
use std::path::{Path, PathBuf};

use clearml_support::fs::JsonFileError;

use crate::phase::Phase;
use crate::record::SCHEMA;

/// A run directory could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// The file system refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The state folder can't be used.
    #[error("creating folder {}: {source}; set agent.state_dir to a folder that can be written", path.display())]
    StateFolder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file of the run does not exist, can't be read, or is damaged.
    #[error(transparent)]
    File(#[from] JsonFileError),
    /// A newer agent has written this run.
    #[error(
        "{} has format version {found}; this agent knows up to {SCHEMA}. \
         Start the agent version that created the run, or remove the folder",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A step was asked for that would lead back.
    #[error("run {run}: phase {from:?} can't be followed by {to:?}")]
    Phase {
        /// The run.
        run: String,
        /// Its phase.
        from: Phase,
        /// The phase that was asked for.
        to: Phase,
    },
}

pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RunDirError {
    let path = path.to_owned();
    move |source| RunDirError::Io { action, path, source }
}
