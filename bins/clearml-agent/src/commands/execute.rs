//! `execute`: runs one task in the foreground.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::{ArgAction, Args};
use clearml_agent_config::Sources;
use clearml_api_client::Client;
use clearml_intake::machine::cuda::with_cuda_versions;
use clearml_intake::{Identity, Monitor, Register, Slot, take_slot, vaults};
use clearml_support::text::printable;
use clearml_task_runner::settings::client_options;
use clearml_task_runner::{MachineFigures, RunOptions};
use serde_json::Value;

use super::image;
use crate::containers::Containers;
use crate::task_options::{GpuUse, Prepared, TaskArguments};

#[derive(Args)]
pub(crate) struct ExecuteArguments {
    /// The task, by id or name.
    #[arg(long, value_name = "TASK")]
    id: String,
    /// Write the task's output to this file as well.
    #[arg(long, value_name = "PATH")]
    log_file: Option<PathBuf>,
    /// Report nothing: no console, no status. For a process started by an outer agent.
    #[arg(long, conflicts_with = "full_monitoring")]
    disable_monitoring: bool,
    /// Behave like a daemon for this one task: register, ship the whole console, watch for aborts.
    #[arg(long)]
    full_monitoring: bool,
    /// Fail unless the task is waiting in a queue.
    #[arg(long)]
    require_queue: bool,
    /// Fetch and install nothing: use the code and the environment that an earlier build has left.
    #[arg(long)]
    standalone_mode: bool,
    /// Run the task in a container: image and arguments, or the configured ones.
    #[arg(long, num_args = 0.., action = ArgAction::Set, value_name = "IMAGE")]
    docker: Option<Vec<String>>,
    /// Run what `build --docker` has left in this folder of the image. The entry points of such images say it.
    #[arg(long, value_name = "FOLDER", requires = "standalone_mode", hide = true)]
    from_image: Option<PathBuf>,
    /// Run a clone of the task.
    #[arg(long)]
    clone: bool,
    #[command(flatten)]
    task: TaskArguments,
}

pub(crate) async fn execute(options: &ExecuteArguments, mut sources: Sources) -> anyhow::Result<i32> {
    if options.standalone_mode {
        let option = "--standalone-mode".to_owned();
        sources
            .overrides
            .push(("agent.standalone_mode".to_owned(), Value::Bool(true), option));
    }
    if let Some(folder) = &options.from_image {
        image::adapt(&mut sources, folder);
    }
    let prepared = options.task.prepare(sources, GpuUse::default())?;
    let containers = Containers {
        docker: options.docker.as_deref(),
        podman: None,
        force_current_version: false,
    };
    containers.check()?;
    containers.reach_engine().await?;
    prepared.warn();
    let identity = identity(options, &prepared);
    // Its place is free again when the task has ended.
    let slot = if options.full_monitoring {
        Some(take_slot(&Register::of_machine(), &identity, &[]).await?)
    } else {
        None
    };
    let worker = slot
        .as_ref()
        .map_or_else(|| identity.of_process(), |slot: &Slot| slot.worker().clone());
    let client = Client::new(client_options(&prepared.settings)?)?;
    if options.from_image.is_some() && !options.clone {
        clearml_task_runner::reset_ended(&client, &options.id).await?;
    }
    let with_vaults = Box::pin(vaults::for_command(&client, &prepared.settings)).await?;
    for line in vaults::shown(&with_vaults.notices, with_vaults.settings.agent.debug) {
        // Nobody may be reading; the task is run all the same.
        let _unwritable = writeln!(io::stdout(), "{}", printable(line));
    }
    let settings = with_cuda_versions(with_vaults.settings).await?;
    let run = RunOptions {
        container: containers.options(),
        ..options.task.run_options(&prepared.visible)
    };
    // A container is always watched from outside.
    let silently = options.disable_monitoring && !containers.wanted();
    // Silently, an outer agent reports.
    let monitor = if silently {
        None
    } else {
        Monitor::of_worker(&settings, &run.variables, &prepared.sources.env)
    };
    let machine = monitor.map(|monitor| Arc::new(Machine(monitor)) as Arc<dyn MachineFigures>);
    let status = clearml_task_runner::execute(clearml_task_runner::ExecuteOptions {
        task: options.id.clone(),
        clone: options.clone,
        disable_monitoring: silently,
        full_monitoring: options.full_monitoring,
        require_queue: options.require_queue,
        log_file: options.log_file.clone(),
        worker,
        machine,
        run,
        settings,
    })
    .await?;
    Ok(status)
}

/// An outer agent that has no id for this process says so by an empty variable, which then counts more than
/// the file.
fn identity(options: &ExecuteArguments, prepared: &Prepared) -> Identity {
    let emptied = prepared
        .sources
        .env
        .get("CLEARML_WORKER_ID")
        .is_some_and(String::is_empty);
    let mut identity = prepared.identity();
    if options.full_monitoring && emptied {
        identity.explicit = None;
    }
    identity
}

/// Brings together who measures the machine and who reports about it.
#[derive(Debug)]
struct Machine(Monitor);

impl MachineFigures for Machine {
    fn stats(&self) -> Option<Value> {
        self.0.stats()
    }

    fn accepted(&self) {
        self.0.accepted();
    }
}
