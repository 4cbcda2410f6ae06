//! `doctor`: what would stop tasks here, and what to do about it.

use std::io::stdout;

use clap::Args;
use clearml_agent_config::Sources;
use clearml_commands::doctor::{self, DoctorOptions};

use crate::output::{colours, finish, print_line};

#[derive(Args)]
pub(crate) struct DoctorArguments {
    /// Queues that shall be there, by name or id; without it, the server's default queue.
    #[arg(long, value_name = "QUEUE", num_args = 1..)]
    queue: Vec<String>,
    /// Also try whether this git repository can be read with the configured login.
    #[arg(long, value_name = "URL")]
    repository: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn doctor(options: DoctorArguments, sources: Sources) -> anyhow::Result<i32> {
    let wanted = DoctorOptions {
        queues: options.queue,
        repository: options.repository,
    };
    let report = doctor::run(&wanted, &sources).await;
    if options.json {
        print_line(format_args!("{:#}", report.to_json()))?;
    } else {
        finish(report.write(&mut stdout(), colours(&stdout())))?;
    }
    Ok(report.exit_code())
}
