//! After a start: pops that were interrupted, and jobs that the journal does not know.

use std::collections::HashSet;
use std::sync::Arc;

use clearml_api_client::TasksQuery;
use clearml_intake::owner::OwnerMark;
use clearml_intake::pop::{Phase as PopPhase, Place};
use clearml_intake::popper::Outcome;
use clearml_intake::server::QueueServer;
use clearml_task_model::{QueueId, TaskId, TaskStatus};

use super::tasks::Shown;
use super::{AT_ONCE, Glue, GlueError};
use crate::core::jobs::{Marker, NAME_PREFIX, QueuedJob};
use crate::core::states::Stage;
use crate::journal::{Phase, Record};

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
    /// called with a complete listing. `false`: the server could not be asked about all of them.
    pub(super) async fn adopt(&mut self, jobs: &[QueuedJob]) -> Result<bool, GlueError> {
        let mut known: HashSet<TaskId> = self.journal.all().iter().map(|r| r.task().clone()).collect();
        let mut unknown = Vec::new();
        // Other accounts of this machine may have a glue of their own, which has the same name unless it is given one.
        let for_others = rustix::process::geteuid().is_root() || self.impersonates();
        let may_be_ours = |job: &&QueuedJob| for_others || job.user == self.own_user;
        let live = jobs.iter().filter(|job| job.state.stage() != Stage::Ended);
        for job in live.filter(may_be_ours) {
            let marker = Marker::read(&job.comment).filter(|marker| marker.glue == self.worker.as_str());
            let Some(marker) = marker else { continue };
            let task = TaskId::new(&*marker.task);
            if known.insert(task.clone()) {
                unknown.push((job, marker, task));
            }
        }
        let tasks = self
            .tasks(unknown.iter().map(|(_, _, task)| task.clone()).collect())
            .await;
        if !tasks.complete {
            return Ok(false);
        }
        let mut taken = Vec::new();
        for (job, marker, task) in unknown {
            let record = self
                .adopt_one(job, &marker, &task, tasks.found.get(&task))
                .await?;
            taken.extend(record.map(|record| (record, job.id)));
        }
        for some in taken.chunks(AT_ONCE) {
            self.announce(some, "taken up").await;
        }
        self.put_back_orphans(jobs).await?;
        Ok(true)
    }

    async fn adopt_one(
        &self,
        job: &QueuedJob,
        marker: &Marker,
        task: &TaskId,
        shown: Option<&Shown>,
    ) -> Result<Option<Arc<Record>>, GlueError> {
        let lives = |status: &TaskStatus| matches!(status, TaskStatus::Queued | TaskStatus::InProgress);
        match shown {
            Some(shown) if shown.status.as_ref().is_some_and(lives) => {
                let queue = QueueId::new(shown.queue.as_deref().unwrap_or_default());
                let record = self
                    .journal
                    .adopt(task, &queue, job.id, &marker.nonce, job.submitted)?;
                tracing::info!("job {} of task {task} is taken up", job.id);
                if job.user == self.own_user {
                    return Ok(Some(record));
                }
                let user = Some(job.user.clone());
                let record = self
                    .journal
                    .update(&record.intent.run, |record| record.user = user)?;
                return Ok(Some(record));
            }
            // That of another glue of our name, for another server.
            None if job.user != self.own_user => {}
            _ if job.state.stage() == Stage::Waiting => {
                tracing::info!(
                    "job {} waits for task {task}, which is over; it is cancelled",
                    job.id
                );
                self.cancel_beside(job).await;
            }
            _ => tracing::warn!(
                "job {} runs for task {task}, which is over; it is left alone",
                job.id
            ),
        }
        Ok(None)
    }

    /// Tasks of ours without a job go back to their queues: those that are parked, and those that an earlier glue has
    /// taken out of a queue and then forgotten.
    async fn put_back_orphans(&self, jobs: &[QueuedJob]) -> Result<(), GlueError> {
        let mut entries = Vec::new();
        if let Some(parking) = self.server.parking() {
            match self.client.queues_get_by_id(&parking, None).await {
                Ok(queue) => entries.extend(queue.entries.into_iter().map(|entry| entry.task)),
                Err(error) => {
                    tracing::warn!("looking at the parking queue: {error}");
                    return Ok(());
                }
            }
        }
        let parked: HashSet<TaskId> = entries.iter().cloned().collect();
        entries.extend(
            self.marked()
                .await
                .into_iter()
                .filter(|task| !parked.contains(task)),
        );
        let tracked: HashSet<TaskId> = self.journal.all().iter().map(|r| r.task().clone()).collect();
        let live = jobs.iter().filter(|job| job.state.stage() != Stage::Ended);
        let names: HashSet<&str> = live.map(|job| job.name.as_str()).collect();
        // Each goes to the front: the last one first, and they stand in order again.
        for task in entries.into_iter().rev() {
            let name = format!("{NAME_PREFIX}{task}");
            if tracked.contains(&task) || names.contains(name.as_str()) {
                continue;
            }
            let seen = match self.server.look(&task).await {
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
            let waits = async |queue: &QueueId| {
                let place = self.server.place(queue, &task).await;
                place.is_ok_and(|place| place != Place::Absent)
            };
            if !parked.contains(&task) && waits(&queue).await {
                continue;
            }
            match self.server.put_back(&queue, &task, false).await {
                Ok(_) => tracing::info!("task {task} was taken without a job; it is back in its queue"),
                Err(error) => tracing::warn!("task {task}: {error}"),
            }
        }
        Ok(())
    }

    /// Queued tasks that carry our mark.
    async fn marked(&self) -> Vec<TaskId> {
        let query = TasksQuery {
            status: vec![TaskStatus::Queued],
            only_fields: ["id", "runtime"].map(str::to_owned).to_vec(),
            order_by: vec!["-last_update".to_owned()],
            search_hidden: true,
            page_size: Some(500),
            page: Some(0),
            ..TasksQuery::default()
        };
        let found = match self.client.tasks_get_all(&query).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!("looking for tasks that were taken: {error}");
                return Vec::new();
            }
        };
        let ours = found.into_iter().filter(|task| {
            let mark = OwnerMark::read(&task.runtime);
            mark.is_some_and(|mark| mark.worker == self.worker)
        });
        ours.filter_map(|task| task.id).collect()
    }
}
