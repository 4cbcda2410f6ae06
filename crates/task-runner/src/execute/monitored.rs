//! Direct and full: this process is the runner, and shows the console while it is written.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clearml_api_client::Client;
use clearml_task_model::TaskId;
use tokio::sync::watch;

use super::follow::Follower;
use super::reports::Reports;
use super::{ExecuteError, ExecuteOptions, open_log};
use crate::console::render::RenderOptions;
use crate::run_dir::{Keeper, RunDir};
use crate::runner::{RunnerExit, RunnerOptions, run_with};
use crate::told::ToldToEnd;

/// How long whoever has told this process to end waits for the rest of the output to be shown.
const SHOW_PATIENCE: Duration = Duration::from_secs(2);

/// Takes a run from wherever it stands to its end.
pub(super) async fn watch(
    client: &Client,
    id: &TaskId,
    options: &ExecuteOptions,
    created: (RunDir, Keeper),
) -> Result<RunnerExit, ExecuteError> {
    let (run, _keeper) = created;
    let reports = Reports::new(client, options);
    let exit = tokio::select! {
        exit = Box::pin(run_and_show(&run, options)) => exit?,
        never = Box::pin(reports.while_running(id)) => match never {},
    };
    if exit == (RunnerExit::Interrupted { reported: false }) {
        tracing::warn!(
            "task {id} was stopped, but the server could not be told; the next daemon of this machine tells it, or \
             `clearml-agent execute --id {id}`"
        );
    } else {
        reports.end().await;
    }
    Ok(exit)
}

async fn run_and_show(run: &RunDir, options: &ExecuteOptions) -> Result<RunnerExit, ExecuteError> {
    let agent = &options.settings.agent;
    let log = open_log(options)?;
    let log = options.log_file.as_deref().zip(log);
    let position = Arc::<AtomicU64>::default();
    let render = RenderOptions {
        suppress_carriage_return: agent.suppress_carriage_return,
    };
    let secrets = options.settings.secrets();
    let follower = Follower::new(
        (&run.console_dir(), &run.task_console_dir()),
        render,
        secrets,
        log,
        Arc::clone(&position),
    );
    let (done, is_done) = watch::channel(false);
    let told = told_to_end(is_done.clone())?;
    let running = async {
        let runner = RunnerOptions {
            detach: false,
            reader: Some(Arc::clone(&position)),
            ..RunnerOptions::default()
        };
        let exit = Box::pin(run_with(run.path(), runner)).await;
        done.send_replace(true);
        exit
    };
    let showing = async {
        if let Err(e) = follower.run(is_done).await {
            tracing::warn!("showing the console: {e}");
        }
        // Nobody reads any more, so nothing needs to be kept for us.
        position.store(u64::MAX, Ordering::Relaxed);
    };
    let shown = async {
        tokio::select! { () = pin!(showing) => {} () = pin!(told) => {} }
    };
    let (exit, ()) = tokio::join!(running, shown);
    let exit = exit?;
    if exit != (RunnerExit::Interrupted { reported: false }) {
        run.clean()?;
    }
    Ok(exit)
}

/// Returns when the run is done and somebody has told this process to end: whoever reads what it shows may have
/// stopped reading.
fn told_to_end(mut done: watch::Receiver<bool>) -> Result<impl Future<Output = ()>, ExecuteError> {
    let mut told = ToldToEnd::listen(true).map_err(|source| ExecuteError::System {
        doing: "listening for signals",
        source,
    })?;
    Ok(async move {
        told.heard().await;
        // An error means that the run is over, too.
        let _over = done.wait_for(|done| *done).await;
        tokio::time::sleep(SHOW_PATIENCE).await;
    })
}

/// Direct: the program's own code. Full, and in a container: 0, unless the code is to be passed on.
pub(super) fn exit_code(exit: RunnerExit, options: &ExecuteOptions) -> i32 {
    let passed_on = || {
        let value = std::env::var("CLEARML_AGENT_PROPAGATE_EXITCODE").unwrap_or_default();
        matches!(
            value.trim().to_ascii_lowercase().as_str(),
            "1" | "true" | "yes" | "on" | "y" | "t"
        )
    };
    let as_daemon = options.full_monitoring || options.run.container.is_some();
    match exit {
        RunnerExit::Finished { .. } if as_daemon && !passed_on() => 0,
        RunnerExit::Finished {
            exit_code: Some(code),
        } if code < 0 => 256 + code,
        RunnerExit::Finished {
            exit_code: Some(code),
        } => code,
        // It did not come so far.
        RunnerExit::Finished { exit_code: None } => 1,
        other => other.code(),
    }
}
