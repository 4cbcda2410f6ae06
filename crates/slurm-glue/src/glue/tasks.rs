//! What the server shows of tasks: of all tracked ones by few requests, each cut down to what decisions need.

use std::collections::{HashMap, HashSet};

use clearml_api_client::TasksQuery;
use clearml_task_model::{Task, TaskId, TaskStatus};
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
        note == Some(&*format!("{}/{id}", self.cluster))
    }

    /// The task of a record, as far as it concerns its job.
    pub(super) fn seen(&self, record: &Record, id: u64, tasks: &Tasks) -> TaskSeen {
        if !tasks.complete {
            return TaskSeen::Unknown;
        }
        let Some(task) = tasks.found.get(record.task()) else {
            return TaskSeen::Elsewhere;
        };
        let another = task.job.is_some() && !self.is_noted(record.task(), id, tasks);
        match &task.status {
            Some(TaskStatus::Queued) => {
                let is_known = task.queue.as_deref().is_none_or(|queue| {
                    queue == record.intent.queue.as_str()
                        || self
                            .server
                            .parking()
                            .is_some_and(|parking| parking.as_str() == queue)
                });
                if is_known {
                    TaskSeen::Queued {
                        parked: self.server.parking().is_none() || tasks.parked.contains(record.task()),
                    }
                } else {
                    TaskSeen::Elsewhere
                }
            }
            Some(TaskStatus::InProgress) if !another => TaskSeen::Running {
                stopping: task.stopping,
            },
            Some(TaskStatus::Created | TaskStatus::InProgress) | None => TaskSeen::Elsewhere,
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
