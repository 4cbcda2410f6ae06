//! The commands: options in, one call into a crate, an exit code out. One file each, with its options.

mod config;
mod daemon;
mod execute;
mod list;
mod server;

use std::path::PathBuf;

pub(crate) use config::{ConfigArguments, config};
pub(crate) use daemon::{DaemonArguments, daemon};
pub(crate) use execute::{ExecuteArguments, execute};
pub(crate) use list::{ListArguments, list};
pub(crate) use server::{ServerArguments, server};

/// The private command that supervises one run.
pub(crate) async fn runner(run: PathBuf) -> anyhow::Result<i32> {
    let exit = clearml_task_runner::run(run).await?;
    Ok(exit.code())
}
