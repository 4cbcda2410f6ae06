//! `queues.*`.

use clearml_task_model::{Queue, QueueEntry, QueueId, TaskId};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::call::{Call, Retry};
use crate::client::Client;
use crate::error::ApiError;
use crate::{VERSION, is_false, queue_call};

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

#[derive(Deserialize)]
struct Popped {
    entry: Option<QueueEntry>,
}

impl Client {
    /// Queues that match. At most 500 per call. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn queues_get_all(&self, query: &QueuesQuery) -> Result<Vec<Queue>, ApiError> {
        let call = Call::new("queues.get_all")
            .version(VERSION)
            .data(query)
            .retry(Retry::Idempotent);
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
        let call = Call::new("queues.get_by_id")
            .version(VERSION)
            .body(body)
            .retry(Retry::Idempotent);
        Ok(self.call::<OneQueue>(call).await?.queue)
    }

    /// The default queue (id and name). Repeated until answered.
    ///
    /// # Errors
    /// 400/707 when there is none, 400/708 when there are several. See [`ApiError`].
    pub async fn queues_get_default(&self) -> Result<Queue, ApiError> {
        self.call(
            Call::new("queues.get_default")
                .version(VERSION)
                .retry(Retry::Idempotent),
        )
        .await
    }

    /// Creates a queue. Sent once: after an ambiguous failure look the name up.
    ///
    /// # Errors
    /// 400/801 when the name is taken, 400/800 when it is too short. See [`ApiError`].
    pub async fn queues_create(&self, name: &str, system_tags: &[&str]) -> Result<QueueId, ApiError> {
        let mut body = json!({ "name": name });
        if !system_tags.is_empty() {
            body["system_tags"] = system_tags.into();
        }
        Ok(self
            .call::<Created>(Call::new("queues.create").version(VERSION).body(body))
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
        let mut body = json!({ "queue": queue });
        if let Some(task) = only {
            body["task"] = task.as_str().into();
        }
        let call = Call::new("queues.get_next_task").version(VERSION).body(body);
        let popped = self
            .call::<Popped>(call)
            .await
            .map_err(|error| error.or_ambiguous(self.server()))?;
        Ok(popped.entry)
    }

    /// Appends a task to a queue without touching the task. Repeated until answered.
    ///
    /// # Errors
    /// 400/701 for an unknown queue, 400/706 when the task is already there. See [`ApiError`].
    pub async fn queues_add_task(&self, queue: &QueueId, task: &TaskId) -> Result<(), ApiError> {
        queue_call(
            self,
            Call::new("queues.add_task").settled_by(400, 706),
            queue,
            task,
        )
        .await
    }

    /// Moves a waiting task to the front of its queue. Repeated until answered.
    ///
    /// # Errors
    /// 400/703 when the task is not in the queue. See [`ApiError`].
    pub async fn queues_move_task_to_front(&self, queue: &QueueId, task: &TaskId) -> Result<(), ApiError> {
        queue_call(self, Call::new("queues.move_task_to_front"), queue, task).await
    }

    /// Takes a task out of a queue without touching the task. Repeated until answered.
    ///
    /// # Errors
    /// 400/703 when the task is not in the queue. See [`ApiError`].
    pub async fn queues_remove_task(&self, queue: &QueueId, task: &TaskId) -> Result<(), ApiError> {
        queue_call(
            self,
            Call::new("queues.remove_task").settled_by(400, 703),
            queue,
            task,
        )
        .await
    }
}
