//! Jobs that are over: how they ended, and what that means for their tasks.

use std::collections::HashMap;
use std::time::Duration;

use clearml_api_client::StatusChange;
use clearml_task_model::TaskStatus;
use serde_json::Value;
use tokio::time::Instant;

use super::tasks::Shown;
use super::{Glue, GlueError};
use crate::core::jobs::{EndedJob, NAME_PREFIX};
use crate::core::states::Stage;
use crate::core::verdict::{self, Verdict};
use crate::journal::Record;
use crate::slurm::SlurmError;
use crate::tell::{REQUEUES_KEY, tail};

/// The name of a job in accounting for its first seconds there.
const UNNAMED: &str = "allocation";

impl Glue {
    /// How jobs ended, by one command; without accounting, from the controller.
    pub(super) async fn ask_accounting(&mut self, asked: &[(u64, String)]) {
        if asked.is_empty() {
            return;
        }
        let mut known: HashMap<u64, EndedJob> = HashMap::new();
        let users = self.hidden_users().await;
        let useful =
            self.options.accounting && self.no_accounting.is_none_or(|until| Instant::now() >= until);
        if useful {
            let ids: Vec<u64> = asked.iter().map(|(id, _)| *id).collect();
            match self.slurm.ended(&ids, &users).await {
                Ok(found) => known = found,
                Err(SlurmError::NoAccounting { text, for_ever }) => {
                    let pause = if for_ever { 1_000_000 } else { 300 };
                    self.no_accounting = Some(Instant::now() + Duration::from_secs(pause));
                    tracing::warn!("accounting can't be asked: {text}; the controller is asked instead");
                }
                Err(error) => tracing::warn!("{error}"),
            }
        }
        for (id, run) in asked {
            // Numbers are given out again after a crash of the controller, to whoever comes next.
            let name = self
                .journal
                .get(run)
                .map(|record| format!("{NAME_PREFIX}{}", record.task()));
            let is_ours = |how: &EndedJob| Some(&how.name) == name.as_ref();
            let found = known.remove(id);
            // Who cancelled it is known to accounting only, and there before the name is.
            let cancelled_by = found
                .as_ref()
                .filter(|how| is_ours(how) || how.name == UNNAMED)
                .and_then(|how| how.cancelled_by.clone());
            let mut how = found.filter(is_ours);
            // Older accounting shows exit codes above 128 without that bit; the controller knows them in full.
            let is_unsure =
                |how: &EndedJob| !how.complete || (how.exit.signal == 0 && (1..128).contains(&how.exit.code));
            if how.as_ref().is_none_or(is_unsure)
                && let Ok((Some(shown), _)) = self.slurm.show(*id, &users).await
                && shown.complete
                && is_ours(&shown)
            {
                how = Some(EndedJob {
                    cancelled_by,
                    ..shown
                });
            }
            let Some(how) = how else { continue };
            let watch = self.watches.entry(run.clone()).or_default();
            let ended = how.state.stage() == Stage::Ended;
            if how.complete || (ended && std::mem::replace(&mut watch.incomplete, true)) {
                watch.learned(how);
            }
        }
    }

    /// The job is over, and its agent has not said how the task ended.
    pub(super) async fn finish(&self, record: &Record, id: u64) -> Result<(), GlueError> {
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
        if !self.belongs(record, id, &Shown::from(&task)) {
            tracing::info!("task {} was started elsewhere; it is left alone", record.task());
            return self.drop_record(record).await;
        }
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
        } else if record.cancelled && !started {
            let minutes = self.options.graces.begin / 60;
            Verdict::Failed(format!(
                "Slurm job {id} was cancelled: its agent had not begun the task after {minutes} minutes"
            ))
        } else {
            verdict::judge(id, how.as_ref(), started, self.options.on_preemption)
        };
        self.show_output(record, id).await;
        self.end_task(record, &verdict).await
    }

    /// Shows the end of a job's own output in the task's console, as far as it can be read here.
    async fn show_output(&self, record: &Record, id: u64) {
        let Ok((_, Some(path))) = self.slurm.show(id, &self.hidden_users().await).await else {
            return;
        };
        // The job's user may have put a link there, to a file that only we can read.
        let owner = match &record.user {
            Some(name) => match self.slurm.user(name).await {
                Some((uid, _)) => Some(uid),
                None => return,
            },
            None => None,
        };
        let lines = self.options.log_tail_lines;
        let shown = tokio::task::spawn_blocking(move || tail(&path, lines, owner)).await;
        if let Ok(Some(text)) = shown {
            self.tell.say(record.task(), &text).await;
        }
    }

    async fn user_name(&self, uid: Option<String>) -> Option<String> {
        let uid = uid?;
        let name = self.slurm.name_of(&uid).await;
        Some(name.unwrap_or(uid))
    }

    /// Gives a task its verdict, and forgets it.
    pub(super) async fn end_task(&self, record: &Record, verdict: &Verdict) -> Result<(), GlueError> {
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
    async fn requeue(&self, record: &Record, reason: &str) -> Result<(), GlueError> {
        let task = record.task();
        // The next job has a record of its own, so the task itself counts.
        let found = match self.client.tasks_get_by_id(task).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!("task {task}: {error}; trying again");
                return Ok(());
            }
        };
        let before = found
            .runtime
            .get(REQUEUES_KEY)
            .and_then(Value::as_u64)
            .unwrap_or(0);
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
            Ok(()) => self.journal.remove(&record.intent.run)?,
        }
        Ok(())
    }
}
