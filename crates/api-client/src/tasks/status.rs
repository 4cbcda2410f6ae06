//! `tasks.*` of the life cycle.

use clearml_task_model::TaskId;
use serde::Serialize;
use serde_json::json;

use super::{For, safe};
use crate::call::Call;
use crate::client::Client;
use crate::error::ApiError;
use crate::reply::{Updated, is_false};

/// Why a status changes. Both texts replace those of the status before, also when empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StatusChange {
    /// `status_reason`: for automation, such as `worker execution exit code 3`.
    #[serde(rename = "status_reason", skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// `status_message`: for people.
    #[serde(rename = "status_message", skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Also against the rules of the status machine.
    #[serde(skip_serializing_if = "is_false")]
    pub force: bool,
}

impl StatusChange {
    /// A change with a reason and nothing else.
    pub fn reason(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            ..Self::default()
        }
    }

    /// The same change with a message.
    #[must_use]
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// The same change, forced.
    #[must_use]
    pub fn force(mut self) -> Self {
        self.force = true;
        self
    }
}

impl Client {
    async fn transition(
        &self,
        endpoint: &'static str,
        task: &TaskId,
        change: &StatusChange,
    ) -> Result<Updated, ApiError> {
        self.call(safe(endpoint).data(&For { task, rest: change })).await
    }

    /// The task runs. Repeated until answered.
    ///
    /// # Errors
    /// 400/10 when there is no such task, 400/110 when its status forbids it. See [`ApiError`].
    pub async fn tasks_started(&self, task: &TaskId, change: &StatusChange) -> Result<Updated, ApiError> {
        self.transition("tasks.started", task, change).await
    }

    /// The task was aborted. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when there is no such task, 400/110 when its status forbids it. See [`ApiError`].
    pub async fn tasks_stopped(&self, task: &TaskId, change: &StatusChange) -> Result<Updated, ApiError> {
        self.transition("tasks.stopped", task, change).await
    }

    /// The task failed. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when there is no such task, 400/110 when its status forbids it. See [`ApiError`].
    pub async fn tasks_failed(&self, task: &TaskId, change: &StatusChange) -> Result<Updated, ApiError> {
        self.transition("tasks.failed", task, change).await
    }

    /// Asks for the task to be stopped: the server stops it at once when nobody runs it, and
    /// otherwise leaves a mark (`status_message` = `stopping`) for the agent that does. Repeated until
    /// answered.
    ///
    /// # Errors
    /// 400/101 when there is no such task, 400/110 when its status forbids it. See [`ApiError`].
    pub async fn tasks_stop(&self, task: &TaskId, change: &StatusChange) -> Result<Updated, ApiError> {
        self.transition("tasks.stop", task, change).await
    }

    /// Sign of life of a running task. Sent once: the next one comes soon.
    ///
    /// # Errors
    /// See [`ApiError`]. An unknown task is not an error.
    pub async fn tasks_ping(&self, task: &TaskId) -> Result<(), ApiError> {
        self.done(Call::once("tasks.ping", (2, 1)).body(json!({ "task": task })))
            .await
    }

    /// The task succeeded. API 2.2. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when there is no such task, 400/110 when its status forbids it. See [`ApiError`].
    pub async fn tasks_completed(&self, task: &TaskId, change: &StatusChange) -> Result<Updated, ApiError> {
        let call = Call::safe("tasks.completed", (2, 2)).data(&For { task, rest: change });
        self.call(call).await
    }

    /// The task is closed: neither success nor failure. Kept for old tasks. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when there is no such task, 400/110 when its status forbids it. See [`ApiError`].
    pub async fn tasks_close(&self, task: &TaskId, change: &StatusChange) -> Result<Updated, ApiError> {
        self.transition("tasks.close", task, change).await
    }

    /// Publishes a task: it can no longer change. With `models` also the last model it made. Repeated until
    /// answered.
    ///
    /// # Errors
    /// 400/101 when there is no such task, 400/110 when its status forbids it. See [`ApiError`].
    pub async fn tasks_publish(
        &self,
        task: &TaskId,
        change: &StatusChange,
        models: bool,
    ) -> Result<Updated, ApiError> {
        #[derive(Serialize)]
        struct With<'a> {
            publish_model: bool,
            #[serde(flatten)]
            change: &'a StatusChange,
        }
        let rest = With {
            publish_model: models,
            change,
        };
        self.call(safe("tasks.publish").data(&For { task, rest })).await
    }
}
