//! Jobs that wait: why, shown to people; parked again; cancelled.

use std::time::Duration;

use clearml_task_model::TaskId;
use futures::StreamExt;
use tokio::time::Instant;

use super::{AT_ONCE, Glue, GlueError};
use crate::core::jobs::{Marker, QueuedJob};
use crate::core::states::{Stage, explain, is_hopeless, reason_kind};
use crate::core::verdict::Verdict;
use crate::journal::Record;

/// Between two lines in a console about the same job.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// What a look has to show people about jobs that wait.
#[derive(Debug, Default)]
pub(super) struct Notices {
    messages: Vec<(TaskId, String)>,
    lines: Vec<(TaskId, String)>,
}

impl Glue {
    /// Shows people why jobs wait. A thousand may begin to wait at the same time.
    pub(super) async fn show(&self, notices: &Notices) {
        let messages = futures::stream::iter(&notices.messages)
            .for_each_concurrent(AT_ONCE, |(task, text)| self.tell.message(task, text));
        let lines = notices.lines.iter().map(|(task, text)| (task, text.as_str()));
        tokio::join!(messages, self.tell.say_all(lines));
    }

    /// Notes why a job waits, where that has changed; gives up a hopeless one where that is wanted.
    pub(super) async fn show_waiting(
        &mut self,
        record: &Record,
        job: &QueuedJob,
        notices: &mut Notices,
    ) -> Result<(), GlueError> {
        let kind = reason_kind(&job.reason).to_owned();
        let held = job.state.as_str() == "SPECIAL_EXIT" || job.reason.contains("requeued held");
        let again = match record.restarts {
            0 => String::new(),
            times => format!(", restart {times}"),
        };
        let message = if held {
            format!("Slurm job {}: held by Slurm, waiting for an operator", job.id)
        } else {
            format!("Slurm job {}: {} ({kind}){again}", job.id, job.state)
        };
        let hopeless = is_hopeless(&job.reason);
        let watch = self.watches.entry(record.intent.run.clone()).or_default();
        let since = if hopeless {
            watch.hopeless.get_or_insert_with(Instant::now).elapsed()
        } else {
            watch.hopeless = None;
            Duration::ZERO
        };
        if watch.shown.as_deref() != Some(&message) {
            watch.shown = Some(message.clone());
            if watch.said.is_none_or(|said| said.elapsed() > SAID_AGAIN) {
                watch.said = Some(Instant::now());
                let hint = explain(&job.reason);
                let text = if hint.is_empty() {
                    message.clone()
                } else {
                    format!("{message}: {hint}")
                };
                notices.lines.push((record.task().clone(), text));
            }
            notices.messages.push((record.task().clone(), message));
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

    /// Says once that the agent in a job takes very long to begin.
    pub(super) async fn show_idle(&mut self, record: &Record, text: String) {
        let watch = self.watches.entry(record.intent.run.clone()).or_default();
        if watch.shown.as_ref() == Some(&text) {
            return;
        }
        watch.shown = Some(text.clone());
        tracing::warn!("task {}: {text}", record.task());
        self.tell.message(record.task(), &text).await;
        self.tell.say(record.task(), &text).await;
    }

    /// The job waits again, or its task has lost its place.
    pub(super) async fn park_again(
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
        let what = format!("waits again, restart {restarts}");
        self.announce(&[(record, id)], &what).await;
        Ok(())
    }

    /// Cancels a job. `gently`: its processes are asked first. `close`: its task is none of our business any more.
    pub(super) async fn cancel(
        &mut self,
        record: &Record,
        id: u64,
        gently: bool,
        close: bool,
    ) -> Result<(), GlueError> {
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

    /// Cancels a job that no record speaks of.
    pub(super) async fn cancel_beside(&self, job: &QueuedJob) {
        let user = match self.slurm.user(&job.user).await {
            Some((_, home)) if job.user != self.own_user => Some((job.user.clone(), home)),
            _ => None,
        };
        if let Err(error) = self.slurm.cancel(job.id, false, user.as_ref()).await {
            tracing::warn!("job {}: {error}", job.id);
        }
    }

    /// More than one job for a task: the one that is followed stays.
    pub(super) async fn cancel_surplus(&self, record: &Record, id: u64, named: &[&QueuedJob]) {
        for job in named.iter().filter(|job| job.id != id) {
            let marker = Marker::read(&job.comment).filter(|marker| marker.glue == self.worker.as_str());
            if marker.is_some() && job.state.stage() == Stage::Waiting {
                tracing::warn!(
                    "task {} has a second job, {}; it is cancelled",
                    record.task(),
                    job.id
                );
                self.cancel_beside(job).await;
            }
        }
    }
}
