//! Running a task again.

use clearml_api_client::Client;
use clearml_task_model::TaskStatus;

use super::{ExecuteError, find, id_of};

/// Makes a draft of a task that has ended, so that it can be run again; what it has produced is deleted. Any other
/// task stays as it is.
///
/// # Errors
///
/// When there is no such task, or it is published, or the server refuses.
pub async fn reset_ended(client: &Client, task: &str) -> Result<(), ExecuteError> {
    client.login().await?;
    let task = find(client, task).await?;
    let id = id_of(&task, client)?;
    match &task.status {
        Some(TaskStatus::Published | TaskStatus::Publishing) => Err(ExecuteError::Prepare {
            stage: "launch",
            reason: format!(
                "task {id} is published, and running it again would replace what it has produced; build the image \
                 with --entry-point clone_task"
            ),
        }),
        Some(status) if status.is_final() => {
            client.tasks_reset(&id, true).await?;
            Ok(())
        }
        _ => Ok(()),
    }
}
