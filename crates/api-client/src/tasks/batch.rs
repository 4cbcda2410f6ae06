//! `tasks.*` about many tasks at once.

use bytes::Bytes;
use clearml_task_model::{ProjectId, TaskId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::safe;
use crate::call::Call;
use crate::client::Client;
use crate::error::ApiError;
use crate::reply::{BatchOutcome, Updated, null_as_default};

/// What deleting a task did.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct TaskDeleted {
    /// Whether it was deleted.
    pub deleted: Value,
    /// Children that have no parent any more.
    pub updated_children: u64,
    /// Models that no longer name the task.
    pub updated_models: u64,
    /// Models that went with it.
    pub deleted_models: u64,
    /// Files that are now nobody's, by kind.
    #[serde(deserialize_with = "null_as_default")]
    pub urls: Map<String, Value>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What [`Client::tasks_many`] does to each task. The fields of the call about one task can be given as
/// options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TasksAction {
    /// Asks for it to be stopped.
    Stop,
    /// Publishes it.
    Publish,
    /// Puts it into a queue: option `queue`.
    Enqueue,
    /// Takes it out of its queue.
    Dequeue,
    /// Makes a draft of it.
    Reset,
    /// Deletes it.
    Delete,
    /// Takes it out of sight.
    Archive,
    /// Brings it back.
    Unarchive,
}

impl TasksAction {
    const fn endpoint(self) -> &'static str {
        match self {
            Self::Stop => "tasks.stop_many",
            Self::Publish => "tasks.publish_many",
            Self::Enqueue => "tasks.enqueue_many",
            Self::Dequeue => "tasks.dequeue_many",
            Self::Reset => "tasks.reset_many",
            Self::Delete => "tasks.delete_many",
            Self::Archive => "tasks.archive_many",
            Self::Unarchive => "tasks.unarchive_many",
        }
    }
}

impl Client {
    /// Does the same to many tasks. API 2.13. Succeeds also when every task was refused; the outcome says which and
    /// why. Repeated until answered; a task that the lost first answer was about then appears as refused.
    ///
    /// # Errors
    /// 400/12 for an empty list. See [`ApiError`].
    pub async fn tasks_many(
        &self,
        action: TasksAction,
        ids: &[TaskId],
        options: Map<String, Value>,
    ) -> Result<BatchOutcome, ApiError> {
        let mut body = options;
        body.insert("ids".to_owned(), json!(ids));
        self.call(Call::safe(action.endpoint(), (2, 13)).body(Value::Object(body)))
            .await
    }

    /// Archives tasks, taking them out of queues and stopping them first; gives their number. API 2.12.
    /// Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when one of them does not exist. See [`ApiError`].
    pub async fn tasks_archive(&self, tasks: &[TaskId]) -> Result<u64, ApiError> {
        self.field(
            Call::safe("tasks.archive", (2, 12)).body(json!({ "tasks": tasks })),
            "archived",
        )
        .await
    }

    /// Moves tasks into a project, by id. API 2.12. Repeated until answered.
    ///
    /// # Errors
    /// 400/401 when there is no such project. See [`ApiError`].
    pub async fn tasks_move(&self, ids: &[TaskId], project: &ProjectId) -> Result<(), ApiError> {
        let body = json!({ "ids": ids, "project": project });
        self.done(Call::safe("tasks.move", (2, 12)).body(body)).await
    }

    /// Moves tasks into a project, by name; it is created when there is none. Gives its id. API 2.12.
    /// Repeated until answered.
    ///
    /// # Errors
    /// 400/12 for a name that is too short. See [`ApiError`].
    pub async fn tasks_move_to(&self, ids: &[TaskId], project_name: &str) -> Result<ProjectId, ApiError> {
        let body = json!({ "ids": ids, "project_name": project_name });
        self.field(Call::safe("tasks.move", (2, 12)).body(body), "project_id")
            .await
    }

    /// Adds and removes tags of tasks. API 2.12. Repeated until answered.
    ///
    /// # Errors
    /// 400/16 for tags that may not be given. See [`ApiError`].
    pub async fn tasks_update_tags(
        &self,
        ids: &[TaskId],
        add: &[&str],
        remove: &[&str],
    ) -> Result<u64, ApiError> {
        let body = json!({ "ids": ids, "add_tags": add, "remove_tags": remove });
        Ok(self
            .call::<Updated>(Call::safe("tasks.update_tags", (2, 12)).body(body))
            .await?
            .updated)
    }

    /// Makes [`tasks_update`](Self::tasks_update) of many tasks, each with fields of its own. Repeated until
    /// answered.
    ///
    /// # Errors
    /// 400/101 when one of them does not exist. See [`ApiError`].
    pub async fn tasks_update_batch(
        &self,
        updates: &[(TaskId, Map<String, Value>)],
    ) -> Result<u64, ApiError> {
        let mut lines = String::new();
        for (task, fields) in updates {
            let mut fields = fields.clone();
            fields.insert("task".to_owned(), task.as_str().into());
            lines.push_str(&Value::Object(fields).to_string());
            lines.push('\n');
        }
        let call = safe("tasks.update_batch").lines(Bytes::from(lines));
        Ok(self.call::<Updated>(call).await?.updated)
    }

    /// Shows tasks to all companies of the server, or no longer; gives their number. Repeated until
    /// answered.
    ///
    /// # Errors
    /// 400/101 when one of them does not exist or belongs to somebody else. See [`ApiError`].
    pub async fn tasks_set_public(&self, ids: &[TaskId], public: bool) -> Result<u64, ApiError> {
        let endpoint = if public {
            "tasks.make_public"
        } else {
            "tasks.make_private"
        };
        Ok(self
            .call::<Updated>(safe(endpoint).body(json!({ "ids": ids })))
            .await?
            .updated)
    }
}
