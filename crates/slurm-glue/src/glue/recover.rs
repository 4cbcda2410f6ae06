//! After a start: pops that were interrupted, and jobs that the journal does not know.

use std::collections::HashSet;

use clearml_intake::pop::Phase as PopPhase;
use clearml_intake::popper::Outcome;
use clearml_intake::server::QueueServer;
use clearml_task_model::{QueueId, TaskId, TaskStatus};
use serde_json::Value;

use super::{Glue, GlueError};
use crate::core::jobs::{Marker, NAME_PREFIX, QueuedJob};
use crate::core::states::Stage;
use crate::journal::Phase;

impl Glue {
    /// Brings pops to their end that were interrupted. A claimed task is submitted by the next look.
    pub(super) async fn resume_pops(&mut self) -> Result<(), GlueError> {
        let mut open = Vec::new();
        self.journal.for_each(|record| {
            if matches!(record.phase, Phase::Popping | Phase::Popped) {
                open.push(record.clone());
            }
        });
        for record in open {
            let phase = match record.phase {
                Phase::Popping => PopPhase::Popping,
                Phase::Popped => PopPhase::Popped,
                _ => continue,
            };
            match self.popper.recover(record.intent.clone(), phase).await {
                Ok(Outcome::Ours(intent)) => tracing::info!("task {} is ours", intent.task),
                Ok(Outcome::NotOurs(intent, why)) => {
                    tracing::info!("task {} is not ours: {why}", intent.task)
                }
                Ok(Outcome::PutBack(intent)) => tracing::info!("task {} was put back", intent.task),
                Ok(Outcome::Missed) => {}
                Err(error) => tracing::warn!("{error}"),
            }
        }
        Ok(())
    }

    /// Takes up jobs of ours that no record speaks of, and puts tasks back that are parked without a job. To be
    /// called with a complete listing.
    pub(super) async fn adopt(&mut self, jobs: &[QueuedJob]) -> Result<(), GlueError> {
        let mut known: HashSet<TaskId> = self.journal.all().iter().map(|r| r.task().clone()).collect();
        for job in jobs {
            let Some(marker) =
                Marker::read(&job.comment).filter(|marker| marker.glue == self.worker.as_str())
            else {
                continue;
            };
            let task = TaskId::new(&*marker.task);
            if job.state.stage() == Stage::Ended || !known.insert(task.clone()) {
                continue;
            }
            self.adopt_one(job, &marker, &task).await?;
        }
        self.put_back_orphans(jobs).await
    }

    async fn adopt_one(&mut self, job: &QueuedJob, marker: &Marker, task: &TaskId) -> Result<(), GlueError> {
        let found = match self.client.tasks_get_by_id(task).await {
            Ok(task) => Some(task),
            Err(error) if matches!(error.code(), Some((400, _))) => None,
            Err(error) => {
                tracing::warn!("task {task}: {error}");
                return Ok(());
            }
        };
        let lives = |status: &TaskStatus| matches!(status, TaskStatus::Queued | TaskStatus::InProgress);
        match found {
            Some(found) if found.status.as_ref().is_some_and(lives) => {
                let queue = found
                    .execution
                    .as_ref()
                    .and_then(|execution| execution.get("queue"))
                    .and_then(Value::as_str);
                let queue = QueueId::new(queue.unwrap_or_default());
                let record = self
                    .journal
                    .adopt(task, &queue, job.id, &marker.nonce, job.submitted)?;
                tracing::info!("job {} of task {task} is taken up", job.id);
                self.announce(&record, job.id, "taken up").await;
            }
            _ if job.state.stage() == Stage::Waiting => {
                tracing::info!(
                    "job {} waits for task {task}, which is over; it is cancelled",
                    job.id
                );
                if let Err(error) = self.slurm.cancel(job.id, false, None).await {
                    tracing::warn!("job {}: {error}", job.id);
                }
            }
            _ => tracing::warn!(
                "job {} runs for task {task}, which is over; it is left alone",
                job.id
            ),
        }
        Ok(())
    }

    async fn put_back_orphans(&mut self, jobs: &[QueuedJob]) -> Result<(), GlueError> {
        let Some(parking) = self.parking.clone() else {
            return Ok(());
        };
        let entries = match self.client.queues_get_by_id(&parking, None).await {
            Ok(queue) => queue.entries,
            Err(error) => {
                tracing::warn!("looking at the parking queue: {error}");
                return Ok(());
            }
        };
        let tracked: HashSet<TaskId> = self.journal.all().iter().map(|r| r.task().clone()).collect();
        let live = jobs.iter().filter(|job| job.state.stage() != Stage::Ended);
        let names: HashSet<&str> = live.map(|job| job.name.as_str()).collect();
        for entry in entries {
            let name = format!("{NAME_PREFIX}{}", entry.task);
            if tracked.contains(&entry.task) || names.contains(name.as_str()) {
                continue;
            }
            let seen = match self.server.look(&entry.task).await {
                Ok(Some(seen)) => seen,
                _ => continue,
            };
            // Another glue may share the parking queue.
            if seen
                .owner
                .as_ref()
                .is_none_or(|owner| owner.worker != self.worker)
            {
                continue;
            }
            let Some(queue) = seen
                .execution_queue
                .filter(|queue| self.served_of(queue).is_some())
            else {
                continue;
            };
            match self.server.put_back(&queue, &entry.task, false).await {
                Ok(_) => tracing::info!(
                    "task {} was parked without a job; it is back in its queue",
                    entry.task
                ),
                Err(error) => tracing::warn!("task {}: {error}", entry.task),
            }
        }
        Ok(())
    }
}
