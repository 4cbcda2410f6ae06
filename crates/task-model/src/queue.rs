//! Queues.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::{QueueId, TaskId};

/// A queue. Entries are in service order: the first one is popped next.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    /// Its id; absent when the request did not ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<QueueId>,
    /// Its name, unique in the company.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Waiting tasks, the next one first.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "crate::task::null_as_default"
    )]
    pub entries: Vec<QueueEntry>,
    /// Labels of users; `force_workers:on` and `force_workers:off` override working hours.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "crate::task::null_as_default"
    )]
    pub tags: Vec<String>,
    /// Labels of the system, for example `default` and `k8s-glue`.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "crate::task::null_as_default"
    )]
    pub system_tags: Vec<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A task that waits in a queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueEntry {
    /// The task.
    pub task: TaskId,
    /// When it was put there (ISO 8601).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added: Option<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}
