//! Following jobs: one listing, one look at all tasks, one decision each.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use clearml_api_client::{StatusChange, TasksQuery};
use clearml_task_model::{Task, TaskId, TaskStatus};
use serde_json::Value;
use tokio::time::Instant;

use super::{Glue, GlueError};
use crate::core::decide::{Action, JobSeen, Search, Settle, Situation, TaskSeen, decide, settle};
use crate::core::jobs::{EndedJob, Marker, QueuedJob, is_ours};
use crate::core::states::{explain, is_hopeless, reason_kind};
use crate::core::verdict::{self, Verdict};
use crate::journal::{Phase, Record};
use crate::slurm::SlurmError;
use crate::tell::{JOB_KEY, REQUEUES_KEY, tail};

/// The most ids in one request.
const PAGE: usize = 250;

/// Two looks for a lost submission must be so far apart, at least.
const APART_SEC: u64 = 30;

/// What the server shows of all tracked tasks.
#[derive(Default)]
pub(super) struct Tasks {
    found: HashMap<TaskId, Task>,
    parked: HashSet<TaskId>,
    complete: bool,
}

impl Glue {
    /// Looks at everything once, and acts.
    pub(super) async fn look(&mut self) -> Result<(), GlueError> {
        // Those that an earlier glue has left, and those whose answer got lost since.
        self.resume_pops().await?;
        let records = self.journal.all();
        if records.is_empty() && self.recovered && self.outage.is_none() {
            return Ok(());
        }
        let jobs = match self.slurm.jobs().await {
            Ok(jobs) => jobs,
            Err(error) => {
                self.outage(&error.to_string());
                return self.wait_for_slurm(&records).await;
            }
        };
        self.outage_over();
        self.listed = Some(Instant::now());
        let mut tasks = self.tasks(&records).await;
        if !self.recovered && tasks.complete {
            self.adopt(&jobs).await?;
            self.recovered = true;
            // What was taken up has to be seen before anything is decided about it.
            tasks = self.tasks(&self.journal.all()).await;
        }
        let mut by_id: HashMap<u64, &QueuedJob> = HashMap::new();
        let mut by_task: HashMap<&str, Vec<&QueuedJob>> = HashMap::new();
        for job in &jobs {
            by_id.insert(job.id, job);
            by_task
                .entry(job.task().unwrap_or_default())
                .or_default()
                .push(job);
        }
        let mut ask = Vec::new();
        for record in &self.journal.all() {
            let named = by_task.get(record.task().as_str()).map_or(&[][..], Vec::as_slice);
            match record.phase {
                Phase::Popping | Phase::Popped => {}
                Phase::Claimed => self.claimed(record).await?,
                Phase::Submitting => self.search(record, named, &mut ask).await?,
                Phase::Submitted(id) => {
                    let job = by_id
                        .get(&id)
                        .copied()
                        .filter(|job| job.task() == Some(record.task().as_str()));
                    self.follow(record, id, job, &tasks, &mut ask).await?;
                    self.cancel_surplus(record, id, named).await;
                }
            }
        }
        self.ask_accounting(&ask).await;
        Ok(())
    }

    async fn wait_for_slurm(&mut self, records: &[Record]) -> Result<(), GlueError> {
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

    /// All tracked tasks by few requests, and the parking queue by one.
    async fn tasks(&self, records: &[Record]) -> Tasks {
        let mut tasks = Tasks {
            complete: true,
            ..Tasks::default()
        };
        let ids: Vec<TaskId> = records.iter().map(|record| record.task().clone()).collect();
        for page in ids.chunks(PAGE) {
            let query = TasksQuery {
                id: page.to_vec(),
                only_fields: [
                    "id",
                    "status",
                    "status_message",
                    "status_reason",
                    "execution.queue",
                    "runtime",
                ]
                .map(str::to_owned)
                .to_vec(),
                search_hidden: true,
                page_size: Some(500),
                page: Some(0),
                ..TasksQuery::default()
            };
            match self.client.tasks_get_all(&query).await {
                Ok(found) => {
                    let named = found
                        .into_iter()
                        .filter_map(|task| Some((task.id.clone()?, task)));
                    tasks.found.extend(named);
                }
                Err(error) => {
                    tracing::warn!("looking at tasks: {error}");
                    tasks.complete = false;
                }
            }
        }
        if let Some(parking) = &self.parking {
            match self.client.queues_get_by_id(parking, None).await {
                Ok(queue) => tasks
                    .parked
                    .extend(queue.entries.into_iter().map(|entry| entry.task)),
                Err(error) => {
                    tracing::warn!("looking at the parking queue: {error}");
                    tasks.complete = false;
                }
            }
        }
        tasks
    }

    /// Whether the task says that this is its job.
    fn is_noted(&self, task: &TaskId, id: u64, tasks: &Tasks) -> bool {
        let note = tasks
            .found
            .get(task)
            .and_then(|task| task.runtime.get(JOB_KEY)?.as_str());
        note == Some(&*format!("{}/{id}", self.cluster))
    }

    fn seen(&self, record: &Record, id: u64, tasks: &Tasks) -> TaskSeen {
        if !tasks.complete {
            return TaskSeen::Unknown;
        }
        let Some(task) = tasks.found.get(record.task()) else {
            return TaskSeen::Elsewhere;
        };
        let ours = format!("{}/{id}", self.cluster);
        let note = task.runtime.get(JOB_KEY).and_then(Value::as_str);
        let another = note.is_some_and(|job| job != ours);
        let queue = task
            .execution
            .as_ref()
            .and_then(|execution| execution.get("queue"))
            .and_then(Value::as_str);
        match &task.status {
            Some(TaskStatus::Queued) => {
                let is_known = queue.is_none_or(|queue| {
                    queue == record.intent.queue.as_str()
                        || self
                            .parking
                            .as_ref()
                            .is_some_and(|parking| parking.as_str() == queue)
                });
                if is_known {
                    TaskSeen::Queued {
                        parked: self.parking.is_none() || tasks.parked.contains(record.task()),
                    }
                } else {
                    TaskSeen::Elsewhere
                }
            }
            Some(TaskStatus::InProgress) if !another => TaskSeen::Running {
                stopping: task.is_stopping(),
            },
            Some(TaskStatus::Created | TaskStatus::InProgress) | None => TaskSeen::Elsewhere,
            // A job that Slurm puts back is not over, whatever its agent has said when it was told to end.
            Some(TaskStatus::Stopped | TaskStatus::Failed) => {
                let told = format!("Slurm job {id} received SIGTERM");
                let was_told = task.status_reason.as_ref() == Some(&told);
                TaskSeen::Final {
                    by_user: record.stop_wanted || !(record.was_active || was_told),
                }
            }
            Some(_) => TaskSeen::Final { by_user: true },
        }
    }

    async fn follow(
        &mut self,
        record: &Record,
        id: u64,
        job: Option<&QueuedJob>,
        tasks: &Tasks,
        ask: &mut Vec<u64>,
    ) -> Result<(), GlueError> {
        let run = &record.intent.run;
        let task = self.seen(record, id, tasks);
        let seen = job.map_or(JobSeen::Missing, JobSeen::Listed);
        if matches!(task, TaskSeen::Queued { .. }) && !self.is_noted(record.task(), id, tasks) {
            // The agent in the job, and we ourselves, tell by this note whose the task is.
            let job = format!("{}/{id}", self.cluster);
            if let Err(error) = self.tell.note_job(record.task(), &job, record.restarts).await {
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
        let active = job.is_some_and(|job| job.state.stage() == crate::core::states::Stage::Active);
        let mut record = record.clone();
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
                Some(job) => self.show_waiting(&record, job).await,
                None => Ok(()),
            },
            Action::AskHow => {
                ask.push(id);
                Ok(())
            }
            Action::Cancel => self.cancel(&record, id, false, true).await,
            Action::CancelRunning => self.cancel(&record, id, !record.cancelled, false).await,
            Action::Park => self.park_again(&record, id, job).await,
            Action::Finish => self.finish(&record, id).await,
            Action::Close => self.drop_record(&record).await,
        }
    }

    /// Shows people why a job waits; gives up a hopeless one where that is wanted.
    async fn show_waiting(&mut self, record: &Record, job: &QueuedJob) -> Result<(), GlueError> {
        let kind = reason_kind(&job.reason).to_owned();
        let held = job.state.as_str() == "SPECIAL_EXIT" || job.reason.contains("requeued held");
        let message = if held {
            format!("Slurm job {}: held by Slurm, waiting for an operator", job.id)
        } else {
            format!("Slurm job {}: {} ({kind})", job.id, job.state)
        };
        let hopeless = is_hopeless(&job.reason);
        let watch = self.watches.entry(record.intent.run.clone()).or_default();
        let since = if hopeless {
            watch.hopeless.get_or_insert_with(Instant::now).elapsed()
        } else {
            watch.hopeless = None;
            Duration::ZERO
        };
        let changed = watch.shown.as_deref() != Some(&message);
        let may_say = watch
            .said
            .is_none_or(|said| said.elapsed() > Duration::from_secs(60));
        if changed {
            watch.shown = Some(message.clone());
            if may_say {
                watch.said = Some(Instant::now());
            }
            self.tell.message(record.task(), &message).await;
            if may_say {
                let hint = explain(&job.reason);
                let text = if hint.is_empty() {
                    message
                } else {
                    format!("{message}: {hint}")
                };
                self.tell.say(record.task(), &text).await;
            }
        }
        let deadline = self.options.pending_deadline;
        let listed = self.options.fail_on_pending.contains(&kind);
        if listed || (hopeless && deadline > 0 && since.as_secs() >= deadline) {
            self.cancel(record, job.id, false, false).await?;
            let reason = format!("Slurm job {} can't begin: {}", job.id, job.reason);
            return self.end_task(record, &Verdict::Failed(reason)).await;
        }
        Ok(())
    }

    /// Cancels a job. `gently`: its processes are asked first. `close`: its task is none of our business any more.
    async fn cancel(&mut self, record: &Record, id: u64, gently: bool, close: bool) -> Result<(), GlueError> {
        let user = match &record.user {
            Some(name) => self.slurm.user(name).await.map(|(_, home)| (name.clone(), home)),
            None => None,
        };
        if gently && let Err(error) = self.slurm.cancel(id, true, user.as_ref()).await {
            tracing::debug!("job {id}: {error}");
        }
        match self.slurm.cancel(id, false, user.as_ref()).await {
            Ok(()) => tracing::info!("job {id} of task {} was cancelled", record.task()),
            Err(error) => {
                tracing::warn!("cancelling job {id}: {error}");
                return Ok(());
            }
        }
        self.journal
            .update(&record.intent.run, |record| record.cancelled = true)?;
        if close {
            return self.drop_record(record).await;
        }
        Ok(())
    }

    /// More than one job for a task: the one that is followed stays.
    async fn cancel_surplus(&self, record: &Record, id: u64, named: &[&QueuedJob]) {
        for job in named.iter().filter(|job| job.id != id) {
            let marker = Marker::read(&job.comment).filter(|marker| marker.glue == self.worker.as_str());
            if marker.is_some() && job.state.stage() == crate::core::states::Stage::Waiting {
                tracing::warn!(
                    "task {} has a second job, {}; it is cancelled",
                    record.task(),
                    job.id
                );
                if let Err(error) = self.slurm.cancel(job.id, false, None).await {
                    tracing::warn!("job {}: {error}", job.id);
                }
            }
        }
    }

    /// The job waits again, or its task has lost its place.
    async fn park_again(
        &mut self,
        record: &Record,
        id: u64,
        job: Option<&QueuedJob>,
    ) -> Result<(), GlueError> {
        let restarts = record.restarts + u32::from(record.was_active);
        let reason = job.map_or("", |job| reason_kind(&job.reason));
        let message = if record.was_active {
            format!("Slurm requeued job {id} ({reason}), restart {restarts}")
        } else {
            format!("Slurm job {id} waits ({reason})")
        };
        if let Err(error) = self.server.park_again(record.task(), &message).await {
            tracing::warn!("parking task {}: {error}", record.task());
            return Ok(());
        }
        let record = self.journal.update(&record.intent.run, |record| {
            record.restarts = restarts;
            record.was_active = false;
        })?;
        tracing::info!("task {}: {message}", record.task());
        self.announce(&record, id, &format!("waits again, restart {restarts}"))
            .await;
        Ok(())
    }

    /// The job is over, and its agent has not said how the task ended.
    async fn finish(&mut self, record: &Record, id: u64) -> Result<(), GlueError> {
        let task = match self.client.tasks_get_by_id(record.task()).await {
            Ok(task) => task,
            Err(error) => {
                tracing::warn!("task {}: {error}", record.task());
                return Ok(());
            }
        };
        let started = match task.status {
            Some(TaskStatus::Queued) => false,
            Some(TaskStatus::InProgress) => true,
            _ => return self.drop_record(record).await,
        };
        let how = self
            .watches
            .get(&record.intent.run)
            .and_then(|watch| watch.how.clone());
        let how = match how {
            Some(mut how) => {
                how.cancelled_by = self.user_name(how.cancelled_by.take()).await;
                Some(how)
            }
            None => None,
        };
        let verdict = if record.stop_wanted {
            Verdict::Stopped(format!("user abort; Slurm job {id} was cancelled"))
        } else {
            verdict::judge(id, how.as_ref(), started, self.options.on_preemption)
        };
        if let Ok((_, Some(path))) = self.slurm.show(id).await {
            let lines = self.options.log_tail_lines;
            if let Ok(Some(text)) = tokio::task::spawn_blocking(move || tail(&path, lines)).await {
                self.tell.say(record.task(), &text).await;
            }
        }
        self.end_task(record, &verdict).await
    }

    async fn user_name(&self, uid: Option<String>) -> Option<String> {
        let uid = uid?;
        let name = self.slurm.name_of(&uid).await;
        Some(name.unwrap_or(uid))
    }

    /// Gives a task its verdict, and forgets it.
    pub(super) async fn end_task(&mut self, record: &Record, verdict: &Verdict) -> Result<(), GlueError> {
        let task = record.task();
        if let Verdict::Requeue(reason) = verdict {
            return self.requeue(record, reason).await;
        }
        let told = async {
            self.server.unpark(task).await?;
            self.tell.conclude(task, verdict).await
        };
        match told.await {
            Ok(()) => {}
            Err(error) if matches!(error.code(), Some((400, _))) => tracing::info!("task {task}: {error}"),
            Err(error) => {
                tracing::warn!("task {task}: {error}; trying again");
                return Ok(());
            }
        }
        if let Verdict::Failed(reason) | Verdict::Stopped(reason) = verdict {
            tracing::info!("task {task}: {reason}");
            self.tell.say(task, reason).await;
        }
        self.drop_record(record).await
    }

    /// Back to the front of the queue that the task came from.
    async fn requeue(&mut self, record: &Record, reason: &str) -> Result<(), GlueError> {
        let task = record.task();
        // The next job has a record of its own, so the task itself counts.
        let found = match self.client.tasks_get_by_id(task).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!("task {task}: {error}; trying again");
                return Ok(());
            }
        };
        let before = found.runtime.get(REQUEUES_KEY).and_then(Value::as_u64).unwrap_or(0);
        if before >= u64::from(self.options.max_requeue) {
            let verdict = Verdict::Stopped(format!("{reason}; it has been put back {before} times before"));
            return Box::pin(self.end_task(record, &verdict)).await;
        }
        let queue = &record.intent.queue;
        let change = StatusChange::reason(reason).force();
        let counted = std::iter::once((REQUEUES_KEY.to_owned(), Value::from(before + 1))).collect();
        let moved = async {
            self.server.unpark(task).await?;
            self.client.tasks_edit_runtime(task, counted, &[]).await?;
            self.client.tasks_enqueue(task, queue, &change).await?;
            self.client.queues_move_task_to_front(queue, task).await
        };
        match moved.await {
            Err(error) => tracing::warn!("task {task}: {error}; trying again"),
            Ok(()) => {
                self.journal.remove(&record.intent.run)?;
                self.watches.remove(&record.intent.run);
            }
        }
        Ok(())
    }

    /// A task without a job: its submission is due, unless it is to be put off.
    async fn claimed(&mut self, record: &Record) -> Result<(), GlueError> {
        let watch = self.watches.entry(record.intent.run.clone()).or_default();
        if watch.retry.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        Box::pin(self.submit(&record.intent.run)).await
    }

    /// A submission whose answer got lost.
    async fn search(
        &mut self,
        record: &Record,
        named: &[&QueuedJob],
        ask: &mut Vec<u64>,
    ) -> Result<(), GlueError> {
        let run = &record.intent.run;
        let marker = Marker {
            task: record.task().to_string(),
            glue: self.worker.to_string(),
            nonce: record.nonce.clone(),
        };
        let found = named
            .iter()
            .find(|job| is_ours(job, &marker, record.since, record.marked))
            .map(|job| job.id);
        let watch = self.watches.entry(run.clone()).or_default();
        let absent = *watch.absent.get_or_insert_with(Instant::now);
        let accounting = if found.is_none() && absent.elapsed().as_secs() >= APART_SEC {
            self.slurm
                .submitted_as(
                    &format!("{}{}", crate::core::jobs::NAME_PREFIX, record.task()),
                    record.since,
                )
                .await
        } else {
            None
        };
        let search = Search {
            found,
            in_accounting: accounting.is_some(),
            absent_for: Some(absent.elapsed().as_secs()),
        };
        match settle(search, APART_SEC) {
            Settle::Wait => {
                if let Some(id) = accounting {
                    // It was there and is over: its end is found out like that of any other job.
                    self.journal
                        .update(run, |record| record.phase = Phase::Submitted(id))?;
                    ask.push(id);
                }
                Ok(())
            }
            Settle::Adopt(id) => {
                let record = self
                    .journal
                    .update(run, |record| record.phase = Phase::Submitted(id))?;
                tracing::info!("the job of task {} exists: {id}", record.task());
                self.announce(&record, id, "found").await;
                Ok(())
            }
            Settle::SubmitAgain => {
                tracing::info!("task {} has no job; it is submitted again", record.task());
                self.watches.remove(run);
                self.journal.update(run, |record| record.phase = Phase::Claimed)?;
                Box::pin(self.submit(run)).await
            }
        }
    }

    /// How jobs ended, by one command; without accounting, from the controller.
    async fn ask_accounting(&mut self, ids: &[u64]) {
        if ids.is_empty() {
            return;
        }
        let mut known: HashMap<u64, EndedJob> = HashMap::new();
        let useful = self.no_accounting.is_none_or(|until| Instant::now() >= until);
        if useful {
            match self.slurm.ended(ids).await {
                Ok(found) => known = found,
                Err(SlurmError::NoAccounting { text, for_ever }) => {
                    let pause = if for_ever { 1_000_000 } else { 300 };
                    self.no_accounting = Some(Instant::now() + Duration::from_secs(pause));
                    tracing::warn!("accounting can't be asked: {text}; the controller is asked instead");
                }
                Err(error) => tracing::warn!("{error}"),
            }
        }
        let mut runs: HashMap<u64, String> = HashMap::new();
        self.journal.for_each(|record| {
            if let Some(id) = record.job() {
                runs.insert(id, record.intent.run.clone());
            }
        });
        for id in ids {
            let mut how = known.remove(id);
            // Older accounting shows exit codes above 128 without that bit; the controller knows them in full.
            let is_unsure =
                |how: &EndedJob| !how.complete || (how.exit.signal == 0 && (1..128).contains(&how.exit.code));
            if how.as_ref().is_none_or(is_unsure)
                && let Ok((Some(shown), _)) = self.slurm.show(*id).await
                && shown.complete
            {
                // Who cancelled it is known to accounting only.
                let cancelled_by = how.and_then(|how| how.cancelled_by);
                how = Some(EndedJob {
                    cancelled_by,
                    ..shown
                });
            }
            let Some(how) = how else { continue };
            let Some(run) = runs.remove(id) else { continue };
            let watch = self.watches.entry(run).or_default();
            let ended = how.state.stage() == crate::core::states::Stage::Ended;
            if how.complete || (ended && std::mem::replace(&mut watch.incomplete, true)) {
                watch.how = Some(how);
            }
        }
    }
}
