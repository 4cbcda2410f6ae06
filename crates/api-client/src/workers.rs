//! `workers.*`.

use clearml_task_model::{QueueId, TaskId, WorkerId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::call::{Call, Retry};
use crate::client::Client;
use crate::error::ApiError;
use crate::reply::{Named, null_as_default};

/// What a worker tells the server regularly.
#[derive(Debug, Clone, Serialize)]
pub struct StatusReport {
    /// Who reports.
    pub worker: WorkerId,
    /// When, in milliseconds.
    #[serde(rename = "timestamp")]
    pub timestamp_ms: i64,
    /// The running task; `None` tells the server that there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// The queue that the running task came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueId>,
    /// The queues that are served; an empty list leaves the server's list as it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<QueueId>,
    /// Tags of the worker; `None` clears them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Use of the machine (`cpu_usage`, `memory_free`, …).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_stats: Option<Value>,
    /// Whether the reporter serves queues, as opposed to running one given task.
    pub is_daemon: bool,
}

/// Which workers to list.
#[derive(Debug, Clone, Default, Serialize)]
pub struct WorkersQuery {
    /// Workers heard of within this many seconds; 0 = all. `None` = the server's default, one hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<u64>,
    /// Worker id by glob (`host:*`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_pattern: Option<String>,
    /// With any of these tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// With any of these system tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub system_tags: Vec<String>,
    /// Further filters.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A worker as the server knows it.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct WorkerEntry {
    /// Its id.
    pub id: WorkerId,
    /// The owner of the credentials it uses.
    pub user: Option<Named>,
    /// Its address as the server saw it.
    pub ip: Option<String>,
    /// The running task.
    pub task: Option<Named>,
    /// The running task's project.
    pub project: Option<Named>,
    /// The running task's queue.
    pub queue: Option<Named>,
    /// The queues it serves.
    #[serde(default, deserialize_with = "null_as_default")]
    pub queues: Vec<Named>,
    /// When it registered.
    pub register_time: Option<String>,
    /// When it was last heard of.
    pub last_activity_time: Option<String>,
    /// Tags.
    #[serde(default, deserialize_with = "null_as_default")]
    pub tags: Vec<String>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

#[derive(Deserialize)]
struct Workers {
    workers: Vec<WorkerEntry>,
}

impl Client {
    /// Registers a worker, or renews its registration. `timeout`: seconds of silence after which the
    /// server forgets it (its default is 600). Repeated until answered.
    ///
    /// # Errors
    /// 400/701 for an unknown queue. See [`ApiError`].
    pub async fn workers_register(
        &self,
        worker: &WorkerId,
        queues: &[QueueId],
        timeout: Option<u64>,
    ) -> Result<(), ApiError> {
        let mut body = json!({ "worker": worker, "queues": queues });
        if let Some(seconds) = timeout {
            body["timeout"] = seconds.into();
        }
        let call = Call::safe("workers.register", (2, 4)).body(body);
        self.done(call).await
    }

    /// Removes a worker from the server's list. Unknown workers are no error. Gives up after ten
    /// seconds: it is called on the way out, and the server forgets silent workers by itself.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn workers_unregister(&self, worker: &WorkerId) -> Result<(), ApiError> {
        let limit = std::time::Duration::from_secs(10);
        let body = json!({ "worker": worker });
        let call = Call::safe("workers.unregister", (2, 4))
            .body(body)
            .retry(Retry::Bounded(limit));
        self.done(call).await
    }

    /// Reports what a worker does. Sent once: the next report is more recent than a repeated one.
    ///
    /// # Errors
    /// 400/101 when the task does not exist. See [`ApiError`].
    pub async fn workers_status_report(&self, report: &StatusReport) -> Result<(), ApiError> {
        let call = Call::once("workers.status_report", (2, 4)).data(report);
        self.done(call).await
    }

    /// Lists workers. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn workers_get_all(&self, query: &WorkersQuery) -> Result<Vec<WorkerEntry>, ApiError> {
        let call = Call::safe("workers.get_all", (2, 4)).data(query);
        Ok(self.call::<Workers>(call).await?.workers)
    }
}
