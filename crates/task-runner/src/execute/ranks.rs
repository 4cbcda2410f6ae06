//! One task on several nodes of a Slurm job: the first node takes it out of its queue, the others wait for that.

use std::time::Duration;

use clearml_api_client::Client;
use clearml_task_model::{TaskId, TaskStatus};
use tokio::time::Instant;

use super::{ExecuteError, ExecuteOptions};
use crate::record::RunInputs;
use crate::settings::rank;

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
