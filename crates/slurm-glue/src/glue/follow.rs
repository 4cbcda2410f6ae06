//! Following jobs: one listing, one look at all tasks, one decision each.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use clearml_task_model::TaskId;
use tokio::time::Instant;

use super::tasks::Tasks;
use super::waiting::Notices;
use super::{Glue, GlueError};
use crate::core::decide::{Action, JobSeen, Situation, TaskSeen, decide};
use crate::core::jobs::QueuedJob;
use crate::core::states::Stage;
use crate::journal::{Phase, Record};
use crate::slurm::SlurmError;

/// What one look leaves to be done together at its end.
#[derive(Default)]
pub(super) struct Look {
    /// Jobs of which it is not known how they ended, with their runs.
    pub(super) ask: Vec<(u64, String)>,
    notices: Notices,
}

/// One listing of Slurm.
struct Listing<'a> {
    by_id: HashMap<u64, &'a QueuedJob>,
    by_task: HashMap<&'a str, Vec<&'a QueuedJob>>,
}

impl<'a> Listing<'a> {
    fn new(jobs: &'a [QueuedJob]) -> Self {
        let mut by_task: HashMap<&str, Vec<&QueuedJob>> = HashMap::new();
        for job in jobs {
            by_task
                .entry(job.task().unwrap_or_default())
                .or_default()
                .push(job);
        }
        Self {
            by_id: jobs.iter().map(|job| (job.id, job)).collect(),
            by_task,
        }
    }

    fn named(&self, task: &TaskId) -> &[&'a QueuedJob] {
        self.by_task.get(task.as_str()).map_or(&[], Vec::as_slice)
    }

    /// The job of this number, if it is this task's: numbers are given out again.
    fn job(&self, id: u64, task: &TaskId) -> Option<&'a QueuedJob> {
        let job = self.by_id.get(&id).copied();
        job.filter(|job| job.task() == Some(task.as_str()))
    }
}

impl Glue {
    /// Looks at everything once, and acts.
    pub(super) async fn look(&mut self) -> Result<(), GlueError> {
        // Those that an earlier glue has left, and those whose answer got lost since.
        self.resume_pops().await?;
        let records = self.journal.all();
        if records.is_empty() && self.recovered && self.outage.is_none() {
            self.watches.clear();
            return Ok(());
        }
        let asked = Instant::now();
        let jobs = self.list_jobs().await;
        self.pace.polled(asked.elapsed(), jobs.is_ok());
        let jobs = match jobs {
            Ok(jobs) => jobs,
            Err(SlurmError::Outage(why)) => {
                self.outage(&why);
                return self.wait_for_slurm(&records).await;
            }
            Err(error) => {
                self.outage(&error.to_string());
                return self.wait_for_slurm(&records).await;
            }
        };
        self.outage_over();
        for job in jobs.iter().filter(|job| !job.state.is_known()) {
            if self.odd_states.insert(job.state.to_string()) {
                tracing::warn!(
                    "job {} has a state that is not known: {}; it is taken to run",
                    job.id,
                    job.state
                );
            }
        }
        let ids = |records: &[Arc<Record>]| records.iter().map(|record| record.task().clone()).collect();
        let mut tasks = self.tasks(ids(&records)).await;
        drop(records);
        if !self.recovered && tasks.complete && self.adopt(&jobs).await? {
            self.recovered = true;
            self.sweep_secrets();
            // What was taken up has to be seen before anything is decided about it.
            tasks = self.tasks(ids(&self.journal.all())).await;
        }
        self.act(&Listing::new(&jobs), &tasks).await
    }

    /// All our jobs. A glue that was started while Slurm did not answer first learns which cluster it is: a wrong name
    /// would make its own tasks look like those of others.
    async fn list_jobs(&mut self) -> Result<Vec<QueuedJob>, SlurmError> {
        if self.site.is_none() {
            self.site = Some(self.slurm.site().await?);
        }
        self.slurm.jobs(&self.hidden_users().await).await
    }

    async fn act(&mut self, listing: &Listing<'_>, tasks: &Tasks) -> Result<(), GlueError> {
        let mut look = Look::default();
        let records = self.journal.all();
        for record in &records {
            let named = listing.named(record.task());
            match record.phase {
                Phase::Popping | Phase::Popped => {}
                Phase::Claimed => self.claimed(record).await?,
                Phase::Submitting => self.search(record, named, &mut look.ask).await?,
                Phase::Submitted(id) => {
                    let job = listing.job(id, record.task());
                    self.follow(record, id, job, tasks, &mut look).await?;
                    self.cancel_surplus(record, id, named).await;
                }
            }
        }
        self.show(&look.notices).await;
        let asked = std::mem::take(&mut look.ask);
        self.ask_accounting(&asked).await;
        for (id, run) in asked {
            // What is known now may be all that was missing.
            if let Some(record) = self.journal.get(&run) {
                let job = listing.job(id, record.task());
                self.follow(&record, id, job, tasks, &mut look).await?;
            }
        }
        let journal = &self.journal;
        self.watches.retain(|run, _| journal.get(run).is_some());
        Ok(())
    }

    async fn wait_for_slurm(&mut self, records: &[Arc<Record>]) -> Result<(), GlueError> {
        if self
            .outage
            .is_some_and(|since| since.elapsed() > Duration::from_secs(300))
        {
            for record in records.iter().filter(|record| !record.was_active) {
                let watch = self.watches.entry(record.intent.run.clone()).or_default();
                if !std::mem::replace(&mut watch.outage_shown, true) {
                    self.tell
                        .message(record.task(), "Slurm controller unreachable")
                        .await;
                }
            }
        }
        Ok(())
    }

    async fn follow(
        &mut self,
        record: &Arc<Record>,
        id: u64,
        job: Option<&QueuedJob>,
        tasks: &Tasks,
        look: &mut Look,
    ) -> Result<(), GlueError> {
        let run = &record.intent.run;
        let task = self.seen(record, id, tasks);
        let seen = job.map_or(JobSeen::Missing, JobSeen::Listed);
        if matches!(task, TaskSeen::Queued { .. }) && !self.is_noted(record.task(), id, tasks) {
            // The agent in the job, and we ourselves, tell by this note whose the task is.
            let note = self.note_of(id);
            if let Err(error) = self.tell.note_job(record.task(), &note, record.restarts).await {
                tracing::warn!("task {}: {error}", record.task());
            }
        }
        let stops = task == TaskSeen::Running { stopping: true };
        if matches!(task, TaskSeen::Running { .. } | TaskSeen::Final { .. })
            && tasks.parked.contains(record.task())
            && let Err(error) = self.server.unpark(record.task()).await
        {
            // The agent takes a task out of the queue that the task names, which is another one.
            tracing::debug!("task {}: {error}", record.task());
        }
        let active = job.is_some_and(|job| job.state.stage() == Stage::Active);
        let mut record = Arc::clone(record);
        if (active && !record.was_active) || (stops && !record.stop_wanted) {
            record = self.journal.update(run, |record| {
                record.was_active |= active;
                record.stop_wanted |= stops;
            })?;
        }
        let watch = self.watches.entry(run.clone()).or_default();
        let since = watch.tick(seen, task);
        let situation = Situation {
            job: seen,
            ended: watch.how.as_ref(),
            was_active: record.was_active,
            cancelled: record.cancelled,
            task,
            since,
        };
        let action = decide(&situation, &self.options.graces);
        tracing::trace!("task {}: {task:?}, {seen:?}: {action:?}", record.task());
        match action {
            Action::Wait => Ok(()),
            Action::ShowWaiting => match job {
                Some(job) => self.show_waiting(&record, job, &mut look.notices).await,
                None => Ok(()),
            },
            Action::AskHow => {
                look.ask.push((id, run.clone()));
                Ok(())
            }
            Action::Cancel => self.cancel(&record, id, false, true).await,
            Action::CancelRunning => self.cancel(&record, id, !record.cancelled, false).await,
            Action::Park => self.park_again(&record, id, job).await,
            Action::Finish => self.finish(&record, id).await,
            Action::ShowIdle => {
                let text = format!("Slurm job {id} runs, but its agent has not begun the task");
                self.show_idle(&record, text).await;
                Ok(())
            }
            Action::Close => {
                let status = tasks
                    .found
                    .get(record.task())
                    .and_then(|task| task.status.as_ref());
                let status = status.map_or_else(|| "gone".to_owned(), ToString::to_string);
                tracing::info!("job {id} of task {} is over; the task is {status}", record.task());
                self.drop_record(&record).await
            }
        }
    }
}
