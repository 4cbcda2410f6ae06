//! Runs one ClearML task.

pub mod console;
pub mod phase;
pub mod record;
pub mod run_dir;
pub mod runner;
pub mod settings;
pub mod shim;
mod shipper;
mod spawn;
pub mod umask;

pub use phase::Phase;
pub use record::{RunInputs, RunOptions, RunRecord, Timeline};
pub use run_dir::{NewRun, RunDir, RunDirError, RunStore};
pub use runner::{RunnerError, RunnerExit, RunnerOptions, run, run_with};
pub use shim::shim_main;
pub use shipper::ShipError;
pub use spawn::{spawn_runner, spawn_shim};
