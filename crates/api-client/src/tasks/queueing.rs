//! `tasks.*` that put tasks into queues and take them out.

use clearml_task_model::{QueueId, TaskId, TaskStatus};
use serde::Serialize;

use super::{For, StatusChange, safe};
use crate::client::Client;
use crate::error::ApiError;
use crate::reply::{Updated, is_false};

/// Where to put a task, in more detail than a queue's id.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct EnqueueTo {
    /// The queue by id. Neither id nor name: the default queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueId>,
    /// The queue by name; it is created when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_name: Option<String>,
    /// Asks whether a worker listens; `queue_watched` of the reply's `extra` says so.
    #[serde(skip_serializing_if = "is_false")]
    pub verify_watched_queue: bool,
    /// `Some(false)` moves a queued task without noting the new queue in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_execution_queue: Option<bool>,
}

impl Client {
    /// Puts a task at the end of a queue. Repeated until answered.
    ///
    /// # Errors
    /// 400/701 for an unknown queue, 400/706 when the task is already in it, 400/110 when its status
    /// forbids it. See [`ApiError`].
    pub async fn tasks_enqueue(
        &self,
        task: &TaskId,
        queue: &QueueId,
        change: &StatusChange,
    ) -> Result<Updated, ApiError> {
        #[derive(Serialize)]
        struct Into<'a> {
            queue: &'a QueueId,
            #[serde(flatten)]
            change: &'a StatusChange,
        }
        let call = safe("tasks.enqueue").data(&For {
            task,
            rest: Into { queue, change },
        });
        self.call(call.settled_by(400, 706)).await
    }

    /// Takes a task out of its queue. A queued or running task then has `new_status`, or else the
    /// status it had before it was queued; `updated` of the reply says whether it was one of the two.
    /// Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`]. An unknown task is not an error.
    pub async fn tasks_dequeue(
        &self,
        task: &TaskId,
        new_status: Option<&TaskStatus>,
        change: &StatusChange,
    ) -> Result<Updated, ApiError> {
        #[derive(Serialize)]
        struct As<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            new_status: Option<&'a TaskStatus>,
            #[serde(flatten)]
            change: &'a StatusChange,
        }
        self.call(safe("tasks.dequeue").data(&For {
            task,
            rest: As { new_status, change },
        }))
        .await
    }

    /// Puts a task at the end of a queue that is given by name, or of the default queue. Repeated until
    /// answered.
    ///
    /// # Errors
    /// 400/12 for an id together with a name, 400/707 and 400/708 without exactly one default queue, and
    /// those of [`tasks_enqueue`](Self::tasks_enqueue). See [`ApiError`].
    pub async fn tasks_enqueue_to(
        &self,
        task: &TaskId,
        to: &EnqueueTo,
        change: &StatusChange,
    ) -> Result<Updated, ApiError> {
        #[derive(Serialize)]
        struct Into<'a> {
            #[serde(flatten)]
            to: &'a EnqueueTo,
            #[serde(flatten)]
            change: &'a StatusChange,
        }
        let rest = Into { to, change };
        let call = safe("tasks.enqueue").data(&For { task, rest });
        self.call(call.settled_by(400, 706)).await
    }
}
