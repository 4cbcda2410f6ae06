//! `execute`: runs one task in the foreground.

use std::path::PathBuf;

use clap::Args;
use clearml_agent_config::{Settings, Sources};

use crate::arguments::TaskArguments;

#[derive(Args)]
pub(crate) struct ExecuteArguments {
    /// The task, by id or name.
    #[arg(long, value_name = "TASK")]
    id: String,
    /// Run a clone of the task.
    #[arg(long)]
    clone: bool,
    /// Report nothing: no console, no status. For a process started by an outer agent.
    #[arg(long, conflicts_with = "full_monitoring")]
    disable_monitoring: bool,
    /// Behave like a daemon for this one task: register, ship the whole console, watch for aborts.
    #[arg(long)]
    full_monitoring: bool,
    /// Fail unless the task is waiting in a queue.
    #[arg(long)]
    require_queue: bool,
    /// Write the task's output to this file as well.
    #[arg(long, value_name = "PATH")]
    log_file: Option<PathBuf>,
    #[command(flatten)]
    task: TaskArguments,
}

pub(crate) async fn execute(options: ExecuteArguments, mut sources: Sources) -> anyhow::Result<i32> {
    sources.overrides.extend(options.task.overrides());
    let settings = Settings::load(&sources)?;
    let status = clearml_task_runner::execute(clearml_task_runner::ExecuteOptions {
        task: options.id,
        clone: options.clone,
        disable_monitoring: options.disable_monitoring,
        full_monitoring: options.full_monitoring,
        require_queue: options.require_queue,
        log_file: options.log_file,
        run: options.task.run_options(),
        settings,
    })
    .await?;
    Ok(status)
}
