//! `queues.*` for those who manage queues: changing, ordering, emptying, measuring.

use std::time::Duration;

use clearml_task_model::{Queue, QueueId, TaskId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::call::Call;
use crate::client::Client;
use crate::error::ApiError;
use crate::queues::{QueuesQuery, entry};
use crate::reply::{MetadataItem, Updated, null_as_default};

/// What a queue is to have instead. `None` = as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct QueueFields {
    /// Name, unique in the company.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Name that the web pages show instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Tags; `force_workers:on` and `force_workers:off` override working hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// System tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_tags: Option<Vec<String>>,
    /// Further fields.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Which way a task moves in its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// Towards the front, by this many places.
    Forward(u32),
    /// Towards the back, by this many places.
    Backward(u32),
    /// To the very front.
    ToFront,
    /// To the very back.
    ToBack,
}

/// Lengths and waiting times of a queue over time.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct QueueMetrics {
    /// The queue, or `total` when none was named.
    pub queue: String,
    /// Times, in seconds since 1970.
    #[serde(deserialize_with = "null_as_default")]
    pub dates: Vec<f64>,
    /// Mean waiting time at each of them, in seconds.
    #[serde(deserialize_with = "null_as_default")]
    pub avg_waiting_times: Vec<Option<f64>>,
    /// Number of waiting tasks at each of them.
    #[serde(deserialize_with = "null_as_default")]
    pub queue_lengths: Vec<Option<f64>>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn about(endpoint: &'static str, since: (u32, u32), queue: &QueueId) -> Call {
    Call::safe(endpoint, since).body(json!({ "queue": queue }))
}

impl Client {
    /// Queues that match, with names of the waiting tasks and the workers that listen (in `extra`).
    /// Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn queues_get_all_ex(&self, query: &QueuesQuery) -> Result<Vec<Map<String, Value>>, ApiError> {
        self.field(Call::safe("queues.get_all_ex", (2, 4)).data(query), "queues")
            .await
    }

    /// Changes a queue. Repeated until answered.
    ///
    /// # Errors
    /// 400/701 when there is no such queue, 400/801 when the name is taken. See [`ApiError`].
    pub async fn queues_update(&self, queue: &QueueId, fields: &QueueFields) -> Result<Updated, ApiError> {
        #[derive(Serialize)]
        struct Of<'a> {
            queue: &'a QueueId,
            #[serde(flatten)]
            fields: &'a QueueFields,
        }
        self.call(Call::safe("queues.update", (2, 4)).data(&Of { queue, fields }))
            .await
    }

    /// Deletes a queue; with `force` also one with tasks, which then have the status they had before.
    /// Repeated until answered.
    ///
    /// # Errors
    /// 400/701 when there is no such queue, 400/702 when it is not empty. See [`ApiError`].
    pub async fn queues_delete(&self, queue: &QueueId, force: bool) -> Result<(), ApiError> {
        let body = json!({ "queue": queue, "force": force });
        let call = Call::safe("queues.delete", (2, 4)).body(body);
        self.done(call.settled_by(400, 701)).await
    }

    /// Takes all tasks out of a queue; gives them the status they had before. Repeated until answered.
    ///
    /// # Errors
    /// 400/701 when there is no such queue. See [`ApiError`].
    pub async fn queues_clear_queue(&self, queue: &QueueId) -> Result<Map<String, Value>, ApiError> {
        self.call(about("queues.clear_queue", (2, 4), queue)).await
    }

    /// Moves a waiting task in its queue; gives its new position, 0 = next. Sent once for moves by a number
    /// of places, which would add up, and otherwise repeated until answered.
    ///
    /// # Errors
    /// 400/701 when there is no such queue, 400/703 when the task is not in it. See [`ApiError`].
    pub async fn queues_move_task(
        &self,
        queue: &QueueId,
        task: &TaskId,
        place: Move,
    ) -> Result<u64, ApiError> {
        let by = |endpoint, count| {
            let body = json!({ "queue": queue, "task": task, "count": count });
            Call::creating(endpoint, (2, 4)).body(body)
        };
        let call = match place {
            Move::Forward(count) => by("queues.move_task_forward", count),
            Move::Backward(count) => by("queues.move_task_backward", count),
            Move::ToFront => entry("queues.move_task_to_front", queue, task),
            Move::ToBack => entry("queues.move_task_to_back", queue, task),
        };
        self.field(call, "position").await
    }

    /// The task that is next, which stays where it is. API 2.15. Repeated until answered.
    ///
    /// # Errors
    /// 400/701 when there is no such queue. See [`ApiError`].
    pub async fn queues_peek_task(&self, queue: &QueueId) -> Result<Option<TaskId>, ApiError> {
        self.field(about("queues.peek_task", (2, 15), queue), "task")
            .await
    }

    /// Number of waiting tasks. API 2.15; an older server is asked for the whole queue. Repeated until
    /// answered.
    ///
    /// # Errors
    /// 400/701 when there is no such queue. See [`ApiError`].
    pub async fn queues_get_num_entries(&self, queue: &QueueId) -> Result<u64, ApiError> {
        match self
            .field(about("queues.get_num_entries", (2, 15), queue), "num")
            .await
        {
            Err(error) if error.is_missing_endpoint() => {
                let whole: Queue = self.queues_get_by_id(queue, None).await?;
                Ok(whole.entries.len() as u64)
            }
            other => other,
        }
    }

    /// Adds or replaces metadata of a queue; with `replace` removes all other. API 2.13. Repeated until
    /// answered.
    ///
    /// # Errors
    /// 400/701 when there is no such queue. See [`ApiError`].
    pub async fn queues_add_or_update_metadata(
        &self,
        queue: &QueueId,
        items: &[MetadataItem],
        replace: bool,
    ) -> Result<u64, ApiError> {
        let body = json!({ "queue": queue, "metadata": items, "replace_metadata": replace });
        let call = Call::safe("queues.add_or_update_metadata", (2, 13)).body(body);
        Ok(self.call::<Updated>(call).await?.updated)
    }

    /// Removes metadata of a queue. API 2.13. Repeated until answered.
    ///
    /// # Errors
    /// 400/701 when there is no such queue. See [`ApiError`].
    pub async fn queues_delete_metadata(&self, queue: &QueueId, keys: &[&str]) -> Result<u64, ApiError> {
        let body = json!({ "queue": queue, "keys": keys });
        let call = Call::safe("queues.delete_metadata", (2, 13)).body(body);
        Ok(self.call::<Updated>(call).await?.updated)
    }

    /// Lengths and waiting times of queues (none given = of all together) from one time to another, in
    /// seconds since 1970, in steps. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn queues_get_queue_metrics(
        &self,
        queues: &[QueueId],
        from: f64,
        to: f64,
        step: Duration,
    ) -> Result<Vec<QueueMetrics>, ApiError> {
        let mut body = json!({ "from_date": from, "to_date": to, "interval": step.as_secs() });
        if !queues.is_empty() {
            body["queue_ids"] = json!(queues);
        }
        self.field(
            Call::safe("queues.get_queue_metrics", (2, 4)).body(body),
            "queues",
        )
        .await
    }
}
