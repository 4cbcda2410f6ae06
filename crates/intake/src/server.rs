//! What the pop protocol needs from a server, as a trait, and the real server behind it.
//!
//! The trait exists because the protocol is tested against a model of the server in which messages are
//! lost, late and reordered at will. Calls that are safe to repeat may be repeated inside; the pop never.

use std::fmt;
use std::future::Future;

use clearml_api_client::{ApiError, Call, Client, StatusChange, TasksQuery, Updated, WorkersQuery};
use clearml_task_model::{QueueId, Task, TaskId, TaskStatus, WorkerId, path};
use serde_json::{Value, json};

use crate::owner::OwnerMark;
use crate::pop::{Place, TAKEN_MESSAGE, TaskSighting};

/// The answer to one pop.
#[derive(Debug)]
pub enum PopAnswer<E> {
    /// The entry of this task was removed and given to us.
    Popped(TaskId),
    /// Nothing was removed: the queue is empty, or its head is another task.
    Nothing,
    /// The server certainly did not apply the call.
    Refused(E),
    /// The call may have been applied, or may still be.
    Ambiguous(E),
}

/// What became of the attempt to put a task back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutBack {
    /// It is in the queue again, or still.
    Done,
    /// Its status does not allow it: somebody has started, reset or deleted it meanwhile.
    NotWanted,
    /// The queue does not exist any more.
    QueueGone,
}

/// The calls of the pop protocol.
pub trait QueueServer {
    /// A call that failed.
    type Error: std::error::Error + 'static;

    /// The task as it is now; `None` when it does not exist.
    fn look(&self, task: &TaskId) -> impl Future<Output = Result<Option<TaskSighting>, Self::Error>>;

    /// Where the task stands in the queue. A queue that does not exist holds nothing.
    fn place(&self, queue: &QueueId, task: &TaskId) -> impl Future<Output = Result<Place, Self::Error>>;

    /// Whether a worker other than `me` listens to the queue.
    fn competitors(&self, queue: &QueueId, me: &WorkerId) -> impl Future<Output = Result<bool, Self::Error>>;

    /// Pops the queue if `task` is its head. Sent exactly once.
    fn pop(&self, queue: &QueueId, task: &TaskId) -> impl Future<Output = PopAnswer<Self::Error>>;

    /// Writes the owner mark. `false` when the task can't carry one any more (gone, or ended).
    fn mark(&self, task: &TaskId, mark: &OwnerMark) -> impl Future<Output = Result<bool, Self::Error>>;

    /// Turns `queued` into `created`, with a message that names the run, and removes the task from every queue, in
    /// one step on the server, so that an abort that came first is not overwritten. `false` when it was not queued.
    fn take_queued(&self, task: &TaskId, run: &str) -> impl Future<Output = Result<bool, Self::Error>>;

    /// Reports the task as started, without force. `false` when the server refuses.
    fn started(&self, task: &TaskId, message: &str) -> impl Future<Output = Result<bool, Self::Error>>;

    /// Puts a task to the head of the queue, unless it is in that queue already. `started`: also if it is
    /// in progress; the caller knows that nobody but itself has started it.
    fn put_back(
        &self,
        queue: &QueueId,
        task: &TaskId,
        started: bool,
    ) -> impl Future<Output = Result<PutBack, Self::Error>>;

    /// Marks a task stopped that can't go back to where it came from.
    fn stop(&self, task: &TaskId, reason: &str) -> impl Future<Output = Result<(), Self::Error>>;
}

/// The pop protocol's view of a ClearML server.
#[derive(Clone)]
pub struct ApiQueueServer {
    client: Client,
}

impl fmt::Debug for ApiQueueServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiQueueServer").finish_non_exhaustive()
    }
}

/// Workers that have been silent for longer than this listen to nothing any more; the server's own limit.
const WORKER_SILENCE_SEC: u64 = 600;

impl ApiQueueServer {
    /// The server behind this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// A write that is sent once. Repeated after an outage it could meet a task that has lived on
    /// meanwhile; after an error the caller looks first.
    async fn once(&self, endpoint: &'static str, body: Value) -> Result<Updated, ApiError> {
        self.client
            .call(Call::new(endpoint).version("2.14").body(body))
            .await
    }
}

/// Whether the server has understood and declined, as opposed to being unable to answer.
fn declined(error: &ApiError) -> bool {
    matches!(error.code(), Some((400, _)))
}

impl QueueServer for ApiQueueServer {
    type Error = ApiError;

    async fn look(&self, task: &TaskId) -> Result<Option<TaskSighting>, ApiError> {
        let query = TasksQuery::one(
            task,
            [
                "status",
                "status_message",
                "status_changed",
                "runtime",
                "execution.queue",
            ],
        );
        Ok(self
            .client
            .tasks_get_all(&query)
            .await?
            .pop()
            .map(|task| sighting(&task)))
    }

    async fn place(&self, queue: &QueueId, task: &TaskId) -> Result<Place, ApiError> {
        let entries = match self.client.queues_get_by_id(queue, None).await {
            Ok(queue) => queue.entries,
            Err(error) if error.is_code(400, 701) => return Ok(Place::Absent),
            Err(error) => return Err(error),
        };
        Ok(match entries.iter().position(|entry| entry.task == *task) {
            Some(0) => Place::Head,
            Some(_) => Place::Behind,
            None => Place::Absent,
        })
    }

    async fn competitors(&self, queue: &QueueId, me: &WorkerId) -> Result<bool, ApiError> {
        let query = WorkersQuery {
            last_seen: Some(WORKER_SILENCE_SEC),
            ..WorkersQuery::default()
        };
        match self.client.workers_get_all(&query).await {
            Ok(workers) => Ok(workers.iter().any(|worker| {
                worker.id != *me
                    && worker
                        .queues
                        .iter()
                        .any(|served| served.id.as_deref() == Some(queue.as_str()))
            })),
            Err(error) if error.is_transient() => Err(error),
            Err(_) => Ok(true),
        }
    }

    async fn pop(&self, queue: &QueueId, task: &TaskId) -> PopAnswer<ApiError> {
        match self.client.queues_get_next_task(queue, Some(task)).await {
            Ok(Some(entry)) => PopAnswer::Popped(entry.task),
            Ok(None) => PopAnswer::Nothing,
            Err(error) if error.was_not_applied() => PopAnswer::Refused(error),
            Err(error) => PopAnswer::Ambiguous(error),
        }
    }

    async fn mark(&self, task: &TaskId, mark: &OwnerMark) -> Result<bool, ApiError> {
        match self.client.tasks_edit_runtime(task, mark.entries(), &[]).await {
            Ok(()) => Ok(true),
            Err(error) if declined(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn take_queued(&self, task: &TaskId, run: &str) -> Result<bool, ApiError> {
        let body = json!({
            "task": task, "new_status": TaskStatus::Created, "remove_from_all_queues": true,
            "status_message": format!("{TAKEN_MESSAGE}{run}"),
        });
        Ok(self.once("tasks.dequeue", body).await?.updated > 0)
    }

    async fn started(&self, task: &TaskId, message: &str) -> Result<bool, ApiError> {
        match self
            .once("tasks.started", json!({"task": task, "status_message": message}))
            .await
        {
            Ok(_) => Ok(true),
            Err(error) if declined(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn put_back(&self, queue: &QueueId, task: &TaskId, started: bool) -> Result<PutBack, ApiError> {
        let body =
            json!({"task": task, "queue": queue, "status_reason": "returned by agent", "force": started});
        match self.once("tasks.enqueue", body).await {
            Ok(_) => {}
            Err(error) if error.is_code(400, 706) => {}
            Err(error) if error.is_code(400, 701) => return Ok(PutBack::QueueGone),
            Err(error) if declined(&error) => return Ok(PutBack::NotWanted),
            Err(error) => return Err(error),
        }
        match self.client.queues_move_task_to_front(queue, task).await {
            // 400/703: somebody has pulled it already.
            Err(error) if !declined(&error) => Err(error),
            _ => Ok(PutBack::Done),
        }
    }

    async fn stop(&self, task: &TaskId, reason: &str) -> Result<(), ApiError> {
        match self
            .client
            .tasks_stopped(task, &StatusChange::reason(reason))
            .await
        {
            Err(error) if !declined(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

fn sighting(task: &Task) -> TaskSighting {
    let execution = task.execution.clone().map(Value::Object).unwrap_or_default();
    TaskSighting {
        status: task.status.clone().unwrap_or_else(|| TaskStatus::from("")),
        owner: OwnerMark::read(&task.runtime),
        execution_queue: path::get(&execution, "queue")
            .and_then(Value::as_str)
            .map(QueueId::from),
        stopping: task.is_stopping(),
        taken_by: (task.status == Some(TaskStatus::Created))
            .then_some(task.status_message.as_deref())
            .flatten()
            .and_then(|message| message.strip_prefix(TAKEN_MESSAGE))
            .map(str::to_owned),
        changed: task.extra.get("status_changed").map(ToString::to_string),
    }
}
