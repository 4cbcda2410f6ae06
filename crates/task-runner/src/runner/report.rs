//! After the end: the rest of the console, the outcome, the final status.

use std::fmt::Display;
use std::time::Duration;

use clearml_api_client::{ApiError, Call, Client, StatusChange};
use clearml_support::time::now_ms;
use clearml_task_model::{Task, TaskId, TaskStatus};
use serde_json::{Value, json};

use super::decide::stopped_by;
use super::outcome::{Facts, decide};
use super::setup::is_unknown_task;
use super::tell::{Answer, Tell, Teller};
use super::{Runner, RunnerError, RunnerExit};
use crate::console::{Level, Tag};
use crate::phase::Phase;
use crate::record::{AbortReason, End, Failure, Identity, Mark, Outcome, RunRecord};
use crate::shipper::Closed;
use crate::slurm::SlurmJob;

/// How long to try to tell the end of a run of which nothing is on disk, so that no later runner can.
const UNRECORDED_PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// What is left of that once the runner was told to end: enough for a server that answers.
const LAST_WORDS: Duration = Duration::from_secs(1);

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
                let noted = self.run.abort()?.map(|intent| intent.reason);
                let (failure, wish) = (record.failure.as_ref(), *self.abort.borrow());
                let task = observe(&self.client, &self.identity.task).await;
                let facts = Facts::of_run(
                    (&self.identity, &self.run_id),
                    (failure, verdict.as_ref()),
                    stopped_by(noted, wish, verdict.as_ref(), failure),
                    task.as_ref(),
                    (self.settings.rank, self.settings.requeue_limit),
                );
                let mut outcome = decide(&facts);
                if outcome.end == End::Stopped
                    && facts.abort == Some(AbortReason::AgentStopped)
                    && let Some(job) = SlurmJob::of(&self.inputs, &self.identity.task)
                {
                    outcome.status_reason = job.terminated();
                }
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

    /// Tells the server how the task ended, until it accepts that or says that it knows better.
    pub(super) async fn report(&self) -> Result<RunRecord, RunnerError> {
        // Decided before this phase, perhaps long ago: shipping may have had to wait for the server.
        if let Some(outcome) = self.run.record()?.outcome {
            self.start_told().await;
            tell(&self.client, &self.identity, &self.run_id, &outcome).await;
        }
        self.stored(|run| run.set_phase(Phase::Reported)).await
    }

    /// Tells how the task ended although nothing can be read or written down any more: with `failure`, unless the
    /// program has left its verdict.
    pub(super) async fn report_without_records(
        &self,
        error: &RunnerError,
        failure: Option<Failure>,
    ) -> RunnerExit {
        let id = &self.identity.task;
        tracing::error!("{error}; the end of task {id} is reported without it");
        self.end_unrecorded().await;
        // Where only the files were removed, the supervisor has written it all the same.
        let verdict = self.run.verdict().ok().flatten();
        let failure = failure.filter(|_| verdict.is_none());
        let telling = async {
            let task = observe(&self.client, &self.identity.task).await;
            let wish = *self.abort.borrow();
            let facts = Facts::of_run(
                (&self.identity, &self.run_id),
                (failure.as_ref(), verdict.as_ref()),
                wish,
                task.as_ref(),
                (self.settings.rank, 0),
            );
            let outcome = decide(&facts);
            self.start_told().await;
            tell(&self.client, &self.identity, &self.run_id, &outcome).await;
            outcome.exit_code
        };
        tokio::select! {
            exit_code = Box::pin(telling) => match *self.stop.borrow() {
                true => RunnerExit::Interrupted { reported: true },
                false => RunnerExit::Finished { exit_code },
            },
            () = self.out_of_patience() => {
                let how = failure.as_ref().map_or(error as &dyn Display, |failure| failure);
                tracing::error!("the server does not answer, so it was not told how task {id} has ended: {how}");
                RunnerExit::Interrupted { reported: false }
            }
        }
    }

    /// Returns when a run that nobody can continue is not to be told about any longer.
    async fn out_of_patience(&self) {
        let mut stop = self.stop.subscribe();
        let told_to_end = async {
            if stop.wait_for(|stop| *stop).await.is_ok() {
                tokio::time::sleep(LAST_WORDS).await;
            }
        };
        let _either = tokio::time::timeout(UNRECORDED_PATIENCE, told_to_end).await;
    }

    /// Removes a run about which everything is told and nothing can be written down, so that nobody goes on with it.
    pub(super) fn forget(&self, exit: RunnerExit) {
        if exit != (RunnerExit::Interrupted { reported: false })
            && let Err(e) = self.run.remove()
        {
            tracing::warn!("{e}");
        }
    }

    /// Removes what only a living run needs.
    pub(super) async fn finish(&self) -> Result<RunRecord, RunnerError> {
        if self.is_contained() {
            self.remove_container().await;
        }
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

/// The task as the server has it now; `None` when it is gone.
pub async fn observe(client: &Client, id: &TaskId) -> Option<Task> {
    let mut pause = Duration::from_millis(500);
    loop {
        match client.tasks_get_by_id(id).await {
            Ok(task) => return Some(task),
            Err(e) if is_unknown_task(&e) => return None,
            Err(e) if is_worth_waiting(&e) => {
                tracing::debug!("reading task {id} after its end: {e}");
                tokio::time::sleep(e.retry_after().unwrap_or(pause).min(LONGEST_PAUSE * 6)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(e) => {
                // It is there, but we can't see it. The final call will say what is possible.
                tracing::warn!("reading task {id} after its end: {e}");
                return Some(Task {
                    status: Some(TaskStatus::InProgress),
                    ..Task::default()
                });
            }
        }
    }
}

const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// An outage, or credentials that somebody may be about to correct.
fn is_worth_waiting(error: &ApiError) -> bool {
    error.is_transient() || error.code().is_some_and(|(code, _)| code == 401)
}

/// Tells the server how a run has ended, however long it is away, until it accepts that or knows better.
pub async fn tell(client: &Client, identity: &Identity, run_id: &str, outcome: &Outcome) {
    let mut teller = Teller::new(outcome, identity, run_id);
    let mut pause = Duration::from_millis(200);
    while !teller.is_finished() {
        let task = observe(client, &identity.task).await;
        let call = teller.next(task.as_ref());
        let answer = match &call {
            Tell::Nothing(why) => {
                tracing::info!("task {}: {why}", identity.task);
                return;
            }
            Tell::Wait(time) => {
                tokio::time::sleep(*time).await;
                Answer::Done
            }
            call => match make(client, identity, call).await {
                Ok(()) => Answer::Done,
                Err(e) => answer_of(&e, identity, outcome),
            },
        };
        teller.answered(&call, answer);
        if matches!(answer, Answer::Changed | Answer::Unclear) {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

async fn make(client: &Client, identity: &Identity, call: &Tell) -> Result<(), ApiError> {
    let id = &identity.task;
    let message = format!("Changed by clearml-agent {}", identity.worker);
    match call {
        Tell::Nothing(_) | Tell::Wait(_) => Ok(()),
        Tell::End(end, reason) => {
            let change = StatusChange::reason(&**reason).message(message);
            match end {
                End::Completed => client.tasks_completed(id, &change).await.map(drop),
                End::Failed => client.tasks_failed(id, &change).await.map(drop),
                End::Stopped => client.tasks_stopped(id, &change).await.map(drop),
                End::LeftAlone | End::Requeued => Ok(()),
            }
        }
        Tell::Count(requeues) => client.tasks_edit_runtime(id, requeues.entries(), &[]).await,
        Tell::PutBack(reason) => {
            // Sent once: what becomes of it is seen at the task.
            let body = json!({
                "task": id, "queue": identity.queue, "force": true,
                "status_reason": reason, "status_message": message,
            });
            let call = Call::new("tasks.enqueue").version("2.14").body(body);
            match client.call::<Value>(call).await {
                // It is in the queue already.
                Err(e) if e.is_code(400, 706) => Ok(()),
                result => result.map(drop),
            }
        }
        Tell::ToFront => match &identity.queue {
            Some(queue) => client.queues_move_task_to_front(queue, id).await,
            None => Ok(()),
        },
    }
}

fn answer_of(error: &ApiError, identity: &Identity, outcome: &Outcome) -> Answer {
    if error.is_code(400, 121) {
        tracing::info!("{error}; looking at the task again");
        return Answer::Changed;
    }
    if is_worth_waiting(error) || !error.was_not_applied() {
        tracing::warn!(
            "reporting the end of task {}: {error}; looking at it again",
            identity.task
        );
        return Answer::Unclear;
    }
    let code = outcome
        .exit_code
        .map_or_else(|| "unknown".to_owned(), |code| code.to_string());
    tracing::warn!(
        "could not update task id '{}' status, task exit code {code}: {error}",
        identity.task
    );
    Answer::Refused
}
