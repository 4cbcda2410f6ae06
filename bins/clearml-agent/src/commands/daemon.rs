//! `daemon`: polls queues and runs their tasks.

use clap::Args;
use clearml_agent_config::{Settings, Sources};

use crate::arguments::TaskArguments;

#[derive(Args)]
pub(crate) struct DaemonArguments {
    /// Queues to poll, by name or id, the most important one first. Without it, the server's default queue.
    #[arg(long, num_args = 1.., value_name = "QUEUE")]
    queue: Vec<String>,
    /// Keep the output on the terminal and say what happens while idle.
    #[arg(long)]
    foreground: bool,
    /// Create queues that do not exist.
    #[arg(long)]
    create_queue: bool,
    /// Take one task of each queue in turn instead of starting with the first queue every time.
    #[arg(long)]
    order_fairness: bool,
    /// Seconds between polls, at least 5.
    #[arg(long, value_name = "SECONDS")]
    polling_interval: Option<u64>,
    #[command(flatten)]
    task: TaskArguments,
}

pub(crate) async fn daemon(options: DaemonArguments, mut sources: Sources) -> anyhow::Result<i32> {
    sources.overrides.extend(options.task.overrides());
    let settings = Settings::load(&sources)?;
    let status = clearml_worker::daemon(clearml_worker::DaemonOptions {
        queues: options.queue,
        foreground: options.foreground,
        create_queue: options.create_queue,
        order_fairness: options.order_fairness,
        polling_interval: options.polling_interval,
        run: options.task.run_options(),
        program: None,
        settings,
    })
    .await?;
    Ok(status)
}
