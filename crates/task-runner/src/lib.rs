//! Runs one ClearML task.

pub mod phase;
pub mod record;
pub mod run_dir;
mod spawn;
pub mod umask;

pub use phase::Phase;
pub use record::{RunInputs, RunOptions, RunRecord, Timeline};
pub use run_dir::{NewRun, RunDir, RunDirError, RunStore};
pub use spawn::spawn_runner;
