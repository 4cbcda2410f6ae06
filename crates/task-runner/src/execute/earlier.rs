//! What this machine has of the same task already: two runs of one task at once must never be, and a run whose process
//! has died goes on where it is.

use std::path::PathBuf;

use clearml_api_client::Client;
use clearml_task_model::{Task, TaskId, TaskStatus};

use super::{ExecuteError, ExecuteOptions, monitored};
use crate::glance::Runs;
use crate::record::{RunInputs, RunRecord};
use crate::run_dir::{Keeper, RunDir, RunDirError};
use crate::runner::RunnerExit;
use crate::settings::rank;
use crate::slurm::SlurmJob;

/// A run of the task on this machine that is not over.
#[derive(Debug, thiserror::Error)]
#[error(
    "task {task} is being run on this machine already{}; wait for its end or stop it, or run a copy with --clone \
     (its folder is {})",
    runner.map(|pid| format!(", by process {pid}")).unwrap_or_default(),
    folder.display()
)]
pub struct Busy {
    task: TaskId,
    runner: Option<i32>,
    folder: PathBuf,
}

/// Brings runs of the task to their end whose processes have died. Returns the exit code of a program that has ended
/// by itself only now, or unnoticed: then the task was run. `None`: it is to be run.
pub(super) async fn go_on(
    client: &Client,
    task: &Task,
    id: &TaskId,
    options: &ExecuteOptions,
) -> Result<Option<i32>, ExecuteError> {
    let inputs = RunInputs::from_process(options.run.clone());
    // A job that Slurm has started anew knows what an earlier one has left, and that one ends by itself.
    if SlurmJob::of(&inputs, id).is_some() {
        return Ok(None);
    }
    for (run, record) in left(options, id, rank(&inputs))? {
        let Some(keeper) = free(&run)? else {
            return Err(ExecuteError::Busy(Box::new(Busy {
                task: id.clone(),
                runner: record.runner.map(|runner| runner.pid),
                folder: run.path().to_owned(),
            })));
        };
        tracing::warn!(
            "task {id} was run before by worker {}, whose process has died; going on with {}",
            record.identity.worker,
            run.path().display()
        );
        // One that was stopped has only its end to tell; the task is wanted again.
        let counts = task.status == Some(TaskStatus::InProgress) && run.abort()?.is_none();
        let exit = monitored::watch(client, id, options, (run, keeper)).await?;
        match exit {
            RunnerExit::Finished { exit_code: Some(_) } if counts => {
                return Ok(Some(monitored::exit_code(exit, options)));
            }
            // It has not come to its end, or nobody wants to know about that any more.
            RunnerExit::Finished { .. } => {}
            other => return Ok(Some(other.code())),
        }
    }
    Ok(None)
}

/// Runs of the task that are not over, without those of other nodes of the same job.
fn left(options: &ExecuteOptions, id: &TaskId, node: u32) -> Result<Vec<(RunDir, RunRecord)>, ExecuteError> {
    let runs = Runs::of(&options.settings.agent.state_dir).map_err(|source| ExecuteError::System {
        doing: "listing the runs of this machine",
        source,
    })?;
    let unfinished = runs.unfinished().filter(|(run, record)| {
        let is_same_node = || run.inputs().is_ok_and(|inputs| rank(&inputs) == node);
        record.identity.task == *id && record.phase.belongs_to_runner() && is_same_node()
    });
    Ok(unfinished.cloned().collect())
}

/// The hold on a run that nobody looks after.
fn free(run: &RunDir) -> Result<Option<Keeper>, RunDirError> {
    Ok(run.keep()?.filter(|_| !run.runner_alive()))
}
