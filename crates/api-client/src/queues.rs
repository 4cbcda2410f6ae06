//! `queues.*`.

use clearml_task_model::{Queue, QueueEntry, QueueId, TaskId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::call::Call;
use crate::client::Client;
use crate::error::ApiError;
use crate::reply::is_false;

/// Which queues to list, and what of them. Empty fields do not filter.
#[derive(Debug, Clone, Default, Serialize)]
pub struct QueuesQuery {
    /// These queues.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub id: Vec<QueueId>,
    /// Name by regular expression (searched, not anchored); see [`exact`](crate::exact).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// With any of these tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// With any of these system tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub system_tags: Vec<String>,
    /// Only these fields are returned; `id` is not added by itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only_fields: Vec<String>,
    /// Order; `-` before a field means descending.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub order_by: Vec<String>,
    /// Not more entries than this per queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_task_entries: Option<u32>,
    /// Also the queues that are normally hidden.
    #[serde(skip_serializing_if = "is_false")]
    pub search_hidden: bool,
    /// Page, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<u32>,
    /// Objects per page; the server never gives more than 500.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u32>,
    /// Further filters; see [`Selection`](crate::Selection).
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A task that was taken out of a queue.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Popped {
    /// The task and since when it waited; `None`: nothing was taken.
    pub entry: Option<QueueEntry>,
    /// Whose task it is, if that was asked for and something was taken.
    #[serde(default)]
    pub task_info: Option<TaskOwner>,
}

/// Whose a task is.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct TaskOwner {
    /// The user.
    pub user: Option<UserId>,
    /// The user's company.
    pub company: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

#[derive(Deserialize)]
struct Queues {
    queues: Vec<Queue>,
}

#[derive(Deserialize)]
struct OneQueue {
    queue: Queue,
}

#[derive(Deserialize)]
struct Created {
    id: QueueId,
}

/// A call about one task in one queue.
pub(crate) fn entry(endpoint: &'static str, queue: &QueueId, task: &TaskId) -> Call {
    Call::safe(endpoint, (2, 4)).body(json!({ "queue": queue, "task": task }))
}

impl Client {
    /// Queues that match. At most 500 per call. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn queues_get_all(&self, query: &QueuesQuery) -> Result<Vec<Queue>, ApiError> {
        let call = Call::safe("queues.get_all", (2, 4)).data(query);
        Ok(self.call::<Queues>(call).await?.queues)
    }

    /// One queue with its waiting tasks, the first `max_entries` of them. Repeated until answered.
    ///
    /// # Errors
    /// 400/701 when there is no such queue. See [`ApiError`].
    pub async fn queues_get_by_id(
        &self,
        queue: &QueueId,
        max_entries: Option<u32>,
    ) -> Result<Queue, ApiError> {
        let mut body = json!({ "queue": queue });
        if let Some(entries) = max_entries {
            body["max_task_entries"] = entries.into();
        }
        let call = Call::safe("queues.get_by_id", (2, 4)).body(body);
        Ok(self.call::<OneQueue>(call).await?.queue)
    }

    /// The default queue (id and name). Repeated until answered.
    ///
    /// # Errors
    /// 400/707 when there is none, 400/708 when there are several. See [`ApiError`].
    pub async fn queues_get_default(&self) -> Result<Queue, ApiError> {
        self.call(Call::safe("queues.get_default", (2, 4))).await
    }

    /// Creates a queue. Repeated only while it is certain that none was created; after an ambiguous failure
    /// look the name up.
    ///
    /// # Errors
    /// 400/801 when the name is taken, 400/800 when it is too short. See [`ApiError`].
    pub async fn queues_create(&self, name: &str, system_tags: &[&str]) -> Result<QueueId, ApiError> {
        let mut body = json!({ "name": name });
        if !system_tags.is_empty() {
            body["system_tags"] = system_tags.into();
        }
        Ok(self
            .call::<Created>(Call::creating("queues.create", (2, 4)).body(body))
            .await?
            .id)
    }

    /// Takes the first task out of a queue; with `only`, takes it only if it is that task. `None`:
    /// nothing was taken.
    ///
    /// **Sent once.** There is no acknowledgement: when the answer is lost the task is out of the
    /// queue and nobody knows. After an error whose
    /// [`was_not_applied`](ApiError::was_not_applied) is false, find out before popping again.
    ///
    /// # Errors
    /// 400/701 when there is no such queue. See [`ApiError`].
    pub async fn queues_get_next_task(
        &self,
        queue: &QueueId,
        only: Option<&TaskId>,
    ) -> Result<Option<QueueEntry>, ApiError> {
        Ok(self.pop(queue, only, false).await?.entry)
    }

    /// Like [`queues_get_next_task`](Self::queues_get_next_task), and also says whose task it is, for
    /// [`impersonate`](Self::impersonate). **Sent once.**
    ///
    /// # Errors
    /// 400/701 when there is no such queue. See [`ApiError`].
    pub async fn queues_get_next_task_and_owner(
        &self,
        queue: &QueueId,
        only: Option<&TaskId>,
    ) -> Result<Popped, ApiError> {
        self.pop(queue, only, true).await
    }

    async fn pop(&self, queue: &QueueId, only: Option<&TaskId>, info: bool) -> Result<Popped, ApiError> {
        let mut body = json!({ "queue": queue });
        if let Some(task) = only {
            body["task"] = task.as_str().into();
        }
        if info {
            body["get_task_info"] = true.into();
        }
        let call = Call::once("queues.get_next_task", (2, 4)).body(body);
        self.call::<Popped>(call)
            .await
            .map_err(|error| error.or_ambiguous(self.server()))
    }

    /// Appends a task to a queue without touching the task. Repeated until answered.
    ///
    /// # Errors
    /// 400/701 for an unknown queue, 400/706 when the task is already there. See [`ApiError`].
    pub async fn queues_add_task(&self, queue: &QueueId, task: &TaskId) -> Result<(), ApiError> {
        let call = entry("queues.add_task", queue, task);
        self.done(call.settled_by(400, 706)).await
    }

    /// Moves a waiting task to the front of its queue. Repeated until answered.
    ///
    /// # Errors
    /// 400/703 when the task is not in the queue. See [`ApiError`].
    pub async fn queues_move_task_to_front(&self, queue: &QueueId, task: &TaskId) -> Result<(), ApiError> {
        self.done(entry("queues.move_task_to_front", queue, task)).await
    }

    /// Takes a task out of a queue without touching the task. Repeated until answered.
    ///
    /// # Errors
    /// 400/703 when the task is not in the queue. See [`ApiError`].
    pub async fn queues_remove_task(&self, queue: &QueueId, task: &TaskId) -> Result<(), ApiError> {
        let call = entry("queues.remove_task", queue, task);
        self.done(call.settled_by(400, 703)).await
    }
}
