//! What the server shows of tasks: of all tracked ones by few requests, each cut down to what decisions need.

use std::collections::{HashMap, HashSet};

use clearml_api_client::TasksQuery;
use clearml_intake::owner::OwnerMark;
use clearml_task_model::{Task, TaskId, TaskStatus, WorkerId};
use serde_json::Value;

use super::Glue;
use crate::core::decide::TaskSeen;
use crate::journal::Record;
use crate::parking::is_no_queue;
use crate::tell::JOB_KEY;

/// The most ids in one request.
const PAGE: usize = 250;

/// One task.
pub(super) struct Shown {
    pub(super) status: Option<TaskStatus>,
    /// The queue that the task itself names.
    pub(super) queue: Option<String>,
    stopping: bool,
    /// Why it has its status.
    reason: Option<String>,
    /// The job that is noted in it.
    job: Option<String>,
    /// The worker that has taken it.
    owner: Option<WorkerId>,
    /// The worker that was last seen with it.
    last_worker: Option<String>,
}

impl From<&Task> for Shown {
    fn from(task: &Task) -> Self {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        Self {
            status: task.status.clone(),
            queue: text(
                task.execution
                    .as_ref()
                    .and_then(|execution| execution.get("queue")),
            ),
            stopping: task.is_stopping(),
            reason: task.status_reason.clone(),
            job: text(task.runtime.get(JOB_KEY)),
            owner: OwnerMark::read(&task.runtime).map(|mark| mark.worker),
            last_worker: text(task.extra.get("last_worker")),
        }
    }
}

/// What the server shows.
#[derive(Default)]
pub(super) struct Tasks {
    pub(super) found: HashMap<TaskId, Shown>,
    pub(super) parked: HashSet<TaskId>,
    /// Nothing is missing because a request has failed.
    pub(super) complete: bool,
}

impl Glue {
    /// These tasks by few requests, and the parking queue by one.
    pub(super) async fn tasks(&self, ids: Vec<TaskId>) -> Tasks {
        let mut tasks = Tasks {
            complete: true,
            ..Tasks::default()
        };
        for page in ids.chunks(PAGE) {
            let fields = [
                "id",
                "status",
                "status_message",
                "status_reason",
                "execution.queue",
                "runtime",
                "last_worker",
            ];
            let query = TasksQuery {
                id: page.to_vec(),
                only_fields: fields.map(str::to_owned).to_vec(),
                search_hidden: true,
                page_size: Some(500),
                page: Some(0),
                ..TasksQuery::default()
            };
            match self.client.tasks_get_all(&query).await {
                Ok(found) => {
                    let named = found
                        .iter()
                        .filter_map(|task| Some((task.id.clone()?, Shown::from(task))));
                    tasks.found.extend(named);
                }
                Err(error) => {
                    tracing::warn!("looking at tasks: {error}");
                    tasks.complete = false;
                }
            }
        }
        if let Some(parking) = self.server.parking() {
            match self.client.queues_get_by_id(&parking, None).await {
                Ok(queue) => tasks
                    .parked
                    .extend(queue.entries.into_iter().map(|entry| entry.task)),
                // Its tasks are parked again, each by what its job does.
                Err(error) if is_no_queue(&error) => self.server.make_again().await,
                Err(error) => {
                    tracing::warn!("looking at the parking queue: {error}");
                    tasks.complete = false;
                }
            }
        }
        tasks
    }

    /// Whether the task says that this is its job.
    pub(super) fn is_noted(&self, task: &TaskId, id: u64, tasks: &Tasks) -> bool {
        let note = tasks.found.get(task).and_then(|task| task.job.as_deref());
        note == Some(&*self.note_of(id))
    }

    /// Whether a task that waits or runs still does so for its job. Somebody may have reset it and put it elsewhere,
    /// where it may have been started before we looked again.
    pub(super) fn belongs(&self, record: &Record, id: u64, task: &Shown) -> bool {
        let is_ours = match &task.job {
            Some(job) => *job == self.note_of(id),
            // The note may have failed, or a program may have replaced all of the task's runtime properties.
            None => {
                let agent = format!("{}:{}", self.worker, record.task());
                task.owner.as_ref() == Some(&self.worker) || task.last_worker.as_ref() == Some(&agent)
            }
        };
        is_ours && self.is_known_queue(record, task)
    }

    /// Whether the queue that the task names, if any, is one that our tasks may be in.
    fn is_known_queue(&self, record: &Record, task: &Shown) -> bool {
        let parking = self.server.parking();
        task.queue.as_deref().is_none_or(|queue| {
            queue == record.intent.queue.as_str() || parking.is_some_and(|parking| parking.as_str() == queue)
        })
    }

    /// The task of a record, as far as it concerns its job.
    pub(super) fn seen(&self, record: &Record, id: u64, tasks: &Tasks) -> TaskSeen {
        if !tasks.complete {
            return TaskSeen::Unknown;
        }
        let Some(task) = tasks.found.get(record.task()) else {
            return TaskSeen::Elsewhere;
        };
        match &task.status {
            Some(TaskStatus::Queued) if self.is_known_queue(record, task) => TaskSeen::Queued {
                parked: self.server.parking().is_none() || tasks.parked.contains(record.task()),
            },
            Some(TaskStatus::InProgress) if self.belongs(record, id, task) => TaskSeen::Running {
                stopping: task.stopping,
            },
            Some(TaskStatus::Created | TaskStatus::Queued | TaskStatus::InProgress) | None => {
                TaskSeen::Elsewhere
            }
            // A job that Slurm puts back is not over, whatever its agent has said when it was told to end.
            Some(TaskStatus::Stopped | TaskStatus::Failed) => {
                let told = format!("Slurm job {id} received SIGTERM");
                let was_told = task.reason.as_ref() == Some(&told);
                TaskSeen::Final {
                    by_user: record.stop_wanted || !(record.was_active || was_told),
                }
            }
            Some(_) => TaskSeen::Final { by_user: true },
        }
    }
}
