//! After the end: the rest of the console, the outcome, the final status.

use std::time::Duration;

use clearml_api_client::{ApiError, StatusChange};
use clearml_support::time::now_ms;
use clearml_task_model::{Task, TaskStatus};

use super::outcome::{Facts, decide};
use super::setup::is_unknown_task;
use super::{Runner, RunnerError, patiently};
use crate::console::{Level, Tag};
use crate::phase::Phase;
use crate::record::{End, Mark, Outcome, RunRecord};
use crate::shipper::Closed;

impl Runner {
    /// Decides the outcome, writes the last line, and waits until the server has the whole console.
    pub(super) async fn conclude(&self) -> Result<RunRecord, RunnerError> {
        self.closed.send_modify(|closed| closed.task = true);
        let record = self.run.record()?;
        let verdict = self.run.verdict()?;
        if let Some(verdict) = verdict.as_ref().filter(|verdict| verdict.dropped_bytes > 0) {
            let text = format!(
                "### {} lines ({} bytes) of output are missing: the disk or the console limit \
                 (agent.console.max_bytes) was full ###",
                verdict.dropped_lines, verdict.dropped_bytes
            );
            self.console.line_once(Tag::Missing, Level::Warning, &text);
        }
        if let Some(failure) = &record.failure {
            let text = format!("clearml_agent: ERROR: {failure}");
            self.console.line_once(Tag::SetupError, Level::Error, &text);
        } else if let Some(error) = verdict.as_ref().and_then(|verdict| verdict.launch_error.as_ref()) {
            self.console.line_once(
                Tag::SetupError,
                Level::Error,
                &format!("clearml_agent: ERROR: {error}"),
            );
        }
        let outcome = match record.outcome {
            Some(outcome) => outcome,
            None => {
                // Not on disk if the disk was full, but then this runner has done it.
                let stopped = match &verdict {
                    Some(verdict) => verdict.aborted,
                    None => record.failure.is_none(),
                };
                let remembered = (*self.abort.borrow()).filter(|_| stopped);
                let abort = self.run.abort()?.map(|intent| intent.reason).or(remembered);
                let task = self.observe().await;
                let facts = Facts {
                    failure: record.failure.as_ref(),
                    verdict: verdict.as_ref(),
                    abort,
                    task: task.as_ref(),
                    rank: self.settings.rank,
                };
                let outcome = decide(&facts);
                self.stored(|run| run.update(|record| record.outcome = Some(outcome.clone())))
                    .await?;
                outcome
            }
        };
        if let Some(line) = &outcome.line {
            self.console.line_once(Tag::End, Level::Debug, line);
        }
        if let Err(e) = self.console.sync() {
            tracing::warn!("bringing the console to the disk: {e}");
        }
        self.closed.send_replace(Closed {
            agent: true,
            task: true,
        });
        let mut shipped = self.shipped.subscribe();
        while !*shipped.borrow_and_update() && shipped.changed().await.is_ok() {}
        self.stored(|run| run.set_phase(Phase::Shipped)).await
    }

    /// The task as the server has it now; `None` when it is gone.
    async fn observe(&self) -> Option<Task> {
        let id = &self.identity.task;
        match patiently("reading the task", async || self.client.tasks_get_by_id(id).await).await {
            Ok(task) => Some(task),
            Err(e) if is_unknown_task(&e) => None,
            Err(e) => {
                // It is there, but we can't see it. The final call will say what is possible.
                tracing::warn!("reading task {id} after its end: {e}");
                Some(Task {
                    status: Some(TaskStatus::InProgress),
                    ..Task::default()
                })
            }
        }
    }

    /// Tells the server how the task ended, until it accepts that or says that it knows better.
    pub(super) async fn report(&self) -> Result<RunRecord, RunnerError> {
        // Decided before this phase, perhaps long ago: shipping may have had to wait for the server.
        let outcome = self.run.record()?.outcome;
        if let Some(outcome) = outcome.filter(|outcome| outcome.end != End::LeftAlone) {
            let mut pause = Duration::from_millis(200);
            while let Err(e) = self.report_once(&outcome).await {
                // Somebody has changed the status between the server's reading and writing.
                tracing::info!("{e}; looking at the task again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
        }
        self.stored(|run| run.set_phase(Phase::Reported)).await
    }

    async fn report_once(&self, outcome: &Outcome) -> Result<(), ApiError> {
        let id = &self.identity.task;
        let status = self.observe().await.and_then(|task| task.status);
        let open = matches!(status, Some(TaskStatus::InProgress | TaskStatus::Other(_)));
        if !open {
            tracing::info!("task {id} is {status:?} already and keeps that status");
            return Ok(());
        }
        let message = format!("Changed by clearml-agent {}", self.identity.worker);
        let change = StatusChange::reason(&*outcome.status_reason).message(message);
        let call = async || match outcome.end {
            End::Completed => self.client.tasks_completed(id, &change).await.map(drop),
            End::Failed => self.client.tasks_failed(id, &change).await.map(drop),
            End::Stopped => self.client.tasks_stopped(id, &change).await.map(drop),
            End::LeftAlone => Ok(()),
        };
        match patiently("reporting the final status", call).await {
            Err(e) if e.is_code(400, 121) => Err(e),
            Err(e) => {
                let code = outcome
                    .exit_code
                    .map_or_else(|| "unknown".to_owned(), |code| code.to_string());
                tracing::warn!("could not update task id '{id}' status, task exit code {code}: {e}");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Removes what only a living run needs.
    pub(super) async fn finish(&self) -> Result<RunRecord, RunnerError> {
        self.note(&[Mark {
            name: "end".into(),
            ms: now_ms(),
            duration_ms: None,
        }]);
        let record = self.stored(|run| run.set_phase(Phase::Done)).await?;
        if self.reader.is_some() {
            return Ok(record);
        }
        let run = self.run.clone();
        match tokio::task::spawn_blocking(move || run.clean()).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::warn!("{e}"),
            Err(e) => tracing::warn!("cleaning {}: {e}", self.run.path().display()),
        }
        Ok(record)
    }
}
