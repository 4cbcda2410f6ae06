//! One task in a job of Slurm: the first node takes it out of its queue, the others wait for that; and a job that Slurm
//! has started anew goes on with the task that was its own before.

use std::time::Duration;

use clearml_api_client::{Client, StatusChange};
use clearml_task_model::{Task, TaskId, TaskStatus};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{ExecuteError, ExecuteOptions};
use crate::record::RunInputs;
use crate::settings::rank;
use crate::slurm::{RESTART, SlurmJob};

/// How long the first node may take to begin.
const LIMIT: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_millis(250);

/// Whether the batch script that started this process runs this very task, and this is not its first node.
pub(super) fn is_beside_the_first(options: &ExecuteOptions, id: &TaskId) -> bool {
    let inputs = RunInputs::from_process(options.run.clone());
    let mut variables = inputs.environment.iter();
    let is_of_this_job =
        variables.any(|(name, value)| name.0 == "CLEARML_SLURM_TASK" && value.0 == id.as_str());
    is_of_this_job && rank(&inputs) > 0
}

/// Waits until the first node has begun. `false`: the task is over already.
pub(super) async fn wait_for_the_first(client: &Client, id: &TaskId) -> Result<bool, ExecuteError> {
    let begun = Instant::now();
    loop {
        match client.tasks_get_by_id(id).await?.status {
            Some(TaskStatus::InProgress) => return Ok(true),
            Some(TaskStatus::Queued | TaskStatus::Created) => {}
            _ => return Ok(false),
        }
        if begun.elapsed() > LIMIT {
            return Err(ExecuteError::FirstNode(id.clone()));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Takes a task that is not queued because an earlier run of this very job had taken it. `false`: it is not that.
pub(super) async fn go_on(
    client: &Client,
    task: &Task,
    id: &TaskId,
    options: &ExecuteOptions,
) -> Result<bool, ExecuteError> {
    let inputs = RunInputs::from_process(options.run.clone());
    let Some(job) = SlurmJob::of(&inputs, id).filter(|job| job.restarts() > 0 && job.is_noted(task)) else {
        return Ok(false);
    };
    let is_ours = job.may_go_on(task);
    // One that is in progress still is only harmed by being told so again: a wish to stop it would be wiped out.
    if is_ours && task.status != Some(TaskStatus::InProgress) {
        let message = format!("Slurm has started the job again (restart {})", job.restarts());
        let change = StatusChange::reason("worker started execution")
            .message(message)
            .force();
        client
            .tasks_started(id, &change)
            .await
            .map_err(|source| ExecuteError::Start {
                task: id.clone(),
                source: Box::new(source),
            })?;
    }
    // What an earlier run may still do on a node that was given up ends when it reads this.
    let mut entries = Map::new();
    entries.insert(RESTART.to_owned(), Value::from(job.restarts()));
    if let Err(e) = client.tasks_edit_runtime(id, entries, &[]).await {
        tracing::warn!("noting restart {} of task {id}: {e}", job.restarts());
    }
    Ok(is_ours)
}
