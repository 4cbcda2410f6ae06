//! The server as the pop protocol sees it from here: a task that is ours does not begin, it is parked.
//!
//! A task whose job waits stands in the parking queue: people see it as queued, an abort takes effect at once,
//! and the agent in the job takes it from there. So where a daemon turns `queued` into `in_progress`, the glue
//! moves the task to the parking queue without touching the queue that the task itself names.

use std::sync::{Arc, Mutex, PoisonError};

use clearml_api_client::{ApiError, Client, EnqueueTo, StatusChange};
use clearml_intake::owner::OwnerMark;
use clearml_intake::pop::{Place, TaskSighting};
use clearml_intake::queues::{ServedQueue, resolve_queues};
use clearml_intake::server::{ApiQueueServer, PopAnswer, PutBack, QueueServer};
use clearml_task_model::{QueueId, TaskId, TaskStatus, WorkerId};

/// The reason that a parked task shows.
const REASON: &str = "slurm pending scheduler";

/// The server, with a parking queue.
#[derive(Clone)]
pub struct ParkingServer {
    inner: ApiQueueServer,
    client: Client,
    parking: Option<Parking>,
}

/// The parking queue, which somebody may delete.
#[derive(Clone)]
struct Parking {
    name: String,
    id: Arc<Mutex<QueueId>>,
}

impl std::fmt::Debug for ParkingServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParkingServer")
            .field("parking", &self.parking())
            .finish_non_exhaustive()
    }
}

impl ParkingServer {
    /// The server behind this client. Without a parking queue tasks stay queued in no queue.
    #[must_use]
    pub fn new(client: Client, parking: Option<ServedQueue>) -> Self {
        let parking = parking.map(|queue| Parking {
            name: queue.name,
            id: Arc::new(Mutex::new(queue.id)),
        });
        Self {
            inner: ApiQueueServer::new(client.clone()),
            client,
            parking,
        }
    }

    /// The parking queue.
    #[must_use]
    pub fn parking(&self) -> Option<QueueId> {
        let id = &self.parking.as_ref()?.id;
        Some(id.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Makes the parking queue again after somebody has deleted it. Tasks that stood in it are found by their jobs.
    pub async fn make_again(&self) {
        let Some(parking) = &self.parking else {
            return;
        };
        match resolve_queues(&self.client, std::slice::from_ref(&parking.name), true).await {
            Ok(queues) => {
                tracing::warn!("the queue {} was deleted; there is a new one", parking.name);
                if let Some(queue) = queues.into_iter().next() {
                    *parking.id.lock().unwrap_or_else(PoisonError::into_inner) = queue.id;
                }
            }
            Err(error) => tracing::warn!("making the queue {} again: {error}", parking.name),
        }
    }

    /// Puts a task into the parking queue, whatever its status is now.
    ///
    /// # Errors
    ///
    /// When the server refuses or can't answer.
    pub async fn park_again(&self, task: &TaskId, message: &str) -> Result<(), ApiError> {
        let change = StatusChange::reason(REASON).message(message).force();
        let mut is_new = false;
        loop {
            let Some(parking) = self.parking() else {
                return Ok(());
            };
            match self.client.tasks_enqueue(task, &parking, &change).await {
                Err(error) if is_no_queue(&error) && !std::mem::replace(&mut is_new, true) => {
                    self.make_again().await;
                }
                other => return other.map(drop),
            }
        }
    }

    /// Takes a task out of the parking queue, without touching the task.
    ///
    /// # Errors
    ///
    /// When the server can't answer.
    pub async fn unpark(&self, task: &TaskId) -> Result<(), ApiError> {
        let Some(parking) = self.parking() else {
            return Ok(());
        };
        match self.client.queues_remove_task(&parking, task).await {
            Err(error) if !declined(&error) => Err(error),
            _ => Ok(()),
        }
    }

    async fn park(&self, task: &TaskId, status: &TaskStatus) -> Result<bool, ApiError> {
        let change = StatusChange::reason(REASON);
        let mut is_new = false;
        loop {
            let Some(parking) = self.parking() else {
                return Ok(*status == TaskStatus::Queued);
            };
            let to = EnqueueTo {
                queue: Some(parking),
                // Only a queued task has a queue to keep; that is also what makes an abort win that came first.
                update_execution_queue: (*status == TaskStatus::Queued).then_some(false),
                ..EnqueueTo::default()
            };
            return match self.client.tasks_enqueue_to(task, &to, &change).await {
                Ok(_) => Ok(true),
                Err(error) if error.is_code(400, 706) => Ok(true),
                // Not a word about the task.
                Err(error) if is_no_queue(&error) && is_new => Err(error),
                Err(error) if is_no_queue(&error) => {
                    is_new = true;
                    self.make_again().await;
                    continue;
                }
                Err(error) if declined(&error) => Ok(false),
                Err(error) => Err(error),
            };
        }
    }
}

/// The queue that was named does not exist (any more).
#[must_use]
pub fn is_no_queue(error: &ApiError) -> bool {
    error.is_code(400, 701)
}

fn declined(error: &ApiError) -> bool {
    matches!(error.code(), Some((400, _)))
}

impl QueueServer for ParkingServer {
    type Error = ApiError;

    async fn look(&self, task: &TaskId) -> Result<Option<TaskSighting>, ApiError> {
        self.inner.look(task).await
    }

    async fn place(&self, queue: &QueueId, task: &TaskId) -> Result<Place, ApiError> {
        self.inner.place(queue, task).await
    }

    async fn competitors(&self, queue: &QueueId, me: &WorkerId) -> Result<bool, ApiError> {
        self.inner.competitors(queue, me).await
    }

    async fn pop(&self, queue: &QueueId, task: &TaskId) -> PopAnswer<ApiError> {
        self.inner.pop(queue, task).await
    }

    async fn mark(&self, task: &TaskId, mark: &OwnerMark) -> Result<bool, ApiError> {
        self.inner.mark(task, mark).await
    }

    async fn take_queued(&self, task: &TaskId, _run: &str) -> Result<bool, ApiError> {
        match self.inner.look(task).await? {
            Some(seen) if seen.status == TaskStatus::Queued || seen.status == TaskStatus::Created => {
                self.park(task, &seen.status).await
            }
            _ => Ok(false),
        }
    }

    /// A parked task is not started. Whether it is still wanted is seen when it is fetched for its job.
    async fn started(&self, _task: &TaskId, _message: &str) -> Result<bool, ApiError> {
        Ok(true)
    }

    async fn put_back(&self, queue: &QueueId, task: &TaskId, started: bool) -> Result<PutBack, ApiError> {
        self.unpark(task).await?;
        self.inner.put_back(queue, task, started).await
    }

    async fn stop(&self, task: &TaskId, reason: &str) -> Result<(), ApiError> {
        self.inner.stop(task, reason).await
    }
}
