//! The commands: options in, one call into a crate, an exit code out. One file each, with its options.

mod bootstrap;
mod build;
mod completions;
mod config;
mod daemon;
mod doctor;
mod execute;
mod image;
mod init;
mod list;
mod reference;
mod server;
mod status;

use std::path::PathBuf;

use clearml_task_runner::RunnerOptions;

pub(crate) use bootstrap::{BootstrapArguments, install_bootstrap};
pub(crate) use build::{BuildArguments, build};
pub(crate) use completions::{CompletionsArguments, completions};
pub(crate) use config::{ConfigArguments, config};
pub(crate) use daemon::{DaemonArguments, daemon};
pub(crate) use doctor::{DoctorArguments, doctor};
pub(crate) use execute::{ExecuteArguments, execute};
pub(crate) use init::{InitArguments, init};
pub(crate) use list::{ListArguments, list};
pub(crate) use reference::{ReferenceArguments, reference};
pub(crate) use server::{ServerArguments, server};
pub(crate) use status::{StatusArguments, status};

/// The private command that supervises one run, or all those of a folder.
pub(crate) async fn runner(run: Option<PathBuf>, services: Option<PathBuf>) -> anyhow::Result<i32> {
    let exit = match (run, services) {
        (Some(run), _) => clearml_task_runner::run(run).await?,
        (None, Some(folder)) => clearml_task_runner::run_many(&folder, RunnerOptions::default()).await?,
        (None, None) => anyhow::bail!("nothing to supervise is named; give --run or --services"),
    };
    Ok(exit.code())
}
