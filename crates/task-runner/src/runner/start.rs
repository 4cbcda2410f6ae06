//! Whether the program of a task may start, and telling the server that it does.

use std::time::Duration;

use clearml_api_client::{ApiError, Call, Client, TasksQuery, Updated};
use clearml_task_model::{Task, TaskId, TaskStatus, WorkerId};
use serde_json::json;

use super::abort::{Interpreter, Meaning, announce};
use super::{Runner, patiently};
use crate::record::{AbortReason, Identity};
use crate::requeue::is_anothers;

/// Between attempts to say that a task has started, each with a look of its own.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

impl Runner {
    /// Looks whether the task may go on. Whoever has taken it has told the server that it has started; only where
    /// that call was lost, and the task has no start, it is made here: each such call wipes out a wish to stop that
    /// comes between the look and the call, because the server knows no conditions. For the same reason it is never
    /// repeated without another look.
    pub(super) async fn goes_on(&self, known: Option<&Task>) -> bool {
        if self.settings.rank > 0 {
            return true;
        }
        let id = &self.identity.task;
        let query = TasksQuery::one(id, ["status", "status_message", "runtime", "started"]);
        let mut known = known.cloned();
        let mut interpreter = Interpreter::default();
        let mut pause = FIRST_PAUSE;
        let mut told = false;
        loop {
            let task = match known.take() {
                Some(task) => Some(task),
                None => match patiently("reading the status", async || {
                    self.client.tasks_get_all(&query).await
                })
                .await
                {
                    Ok(tasks) => tasks.into_iter().next(),
                    Err(e) => {
                        tracing::warn!("reading the status of task {id}: {e}");
                        return true;
                    }
                },
            };
            if self.was_reset(task.as_ref()).await {
                return false;
            }
            match may_start(&mut interpreter, task.as_ref(), &self.identity, &self.run_id) {
                MayStart::Untold if !told => {}
                MayStart::Untold | MayStart::Yes => return true,
                MayStart::LookAgain => {
                    tokio::time::sleep(self.settings.status_poll).await;
                    continue;
                }
                MayStart::No(reason) => {
                    announce(&self.abort, reason);
                    return false;
                }
            }
            match self.tell_start().await {
                Err(e) if e.is_transient() => {
                    tokio::time::sleep(e.retry_after().unwrap_or(pause).min(LONGEST_PAUSE)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                answer => {
                    told = true;
                    if let Err(e) = answer {
                        // It is in progress already, or the next look will say what has become of it.
                        tracing::warn!("marking task {id} as started: {e}");
                    }
                }
            }
        }
    }

    /// One attempt, which is brought to its end also when nobody waits for it any more: arriving after the call that
    /// ends the task, it would make it a running one again.
    async fn tell_start(&self) -> Result<(), ApiError> {
        let telling = self.telling.clone().lock_owned().await;
        let (client, identity) = (self.client.clone(), self.identity.clone());
        let call = tokio::spawn(async move {
            let _telling = telling;
            tell_start(&client, &identity.task, &identity.worker).await
        });
        // It does not panic; and when it did, the next look would tell.
        call.await.unwrap_or(Ok(()))
    }

    /// Returns when no call says any more that the task has started.
    pub(super) async fn start_told(&self) {
        drop(self.telling.lock().await);
    }

    /// Whether the task was reset between the last look at it and a call of ours, which has then turned the draft
    /// into a running task: before there is user code, nothing but a reset takes our mark away. The call is undone.
    async fn was_reset(&self, task: Option<&Task>) -> bool {
        if !task.is_some_and(|task| is_revived(task, &self.identity)) {
            return false;
        }
        let id = &self.identity.task;
        let undo = async || self.client.tasks_reset(id, true).await;
        if let Err(e) = patiently("leaving a task that was reset as a draft", undo).await {
            tracing::warn!("leaving task {id}, which was reset, as a draft: {e}");
        }
        announce(&self.abort, AbortReason::Reset);
        true
    }
}

/// What a look at a task means for the start of its program.
#[derive(Debug, PartialEq, Eq)]
pub enum MayStart {
    /// It may go on.
    Yes,
    /// So it may, but the call that says that it has started was lost.
    Untold,
    /// It looks like a reset, which is believed when it lasts. Nothing is to be started meanwhile: others may have
    /// the task by then, and their marks are gone with the reset.
    LookAgain,
    /// Whoever wants it to end has the last word.
    No(AbortReason),
}

/// Whether a run may go on with a task that looks like this, after the looks that the interpreter has seen.
#[must_use]
pub fn may_start(
    interpreter: &mut Interpreter,
    task: Option<&Task>,
    identity: &Identity,
    run_id: &str,
) -> MayStart {
    // Whoever has taken it since runs it. Two runs of one task at once must never be.
    if task.is_some_and(|task| is_anothers(task, identity, run_id)) {
        return MayStart::No(AbortReason::StatusChanged);
    }
    match task.and_then(|task| task.status.as_ref()) {
        // A run of our own that was completed by its program and is started again has another id.
        Some(TaskStatus::Completed | TaskStatus::Publishing) => MayStart::No(AbortReason::StatusChanged),
        status => match interpreter.observe(task) {
            Meaning::Abort(reason) => MayStart::No(reason),
            Meaning::GoOn
                if status == Some(&TaskStatus::InProgress) && task.is_some_and(|task| !has_start(task)) =>
            {
                MayStart::Untold
            }
            Meaning::GoOn => MayStart::Yes,
            Meaning::MaybeReset(_) => MayStart::LookAgain,
        },
    }
}

/// Says that a task in progress has started. One attempt.
pub(crate) async fn tell_start(client: &Client, task: &TaskId, worker: &WorkerId) -> Result<(), ApiError> {
    let body = json!({
        "task": task,
        "status_reason": "worker started execution",
        "status_message": format!("Changed by clearml-agent {worker}"),
    });
    let call = Call::new("tasks.started").version("2.5").body(body);
    client.call::<Updated>(call).await.map(drop)
}

/// Whether a task that was reset has been turned into a running one by a call of whoever had taken it.
#[must_use]
pub fn is_revived(task: &Task, identity: &Identity) -> bool {
    identity.queue.is_some() && task.status == Some(TaskStatus::InProgress) && task.owner_run().is_none()
}

fn has_start(task: &Task) -> bool {
    task.extra
        .get("started")
        .is_some_and(|started| !started.is_null())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn starting_never_overrules_whoever_wants_the_task_to_end() {
        let identity = Identity {
            task: "t".into(),
            queue: Some("q".into()),
            worker: "w".into(),
            project: None,
        };
        let look = |status: &str, message: &str, started: Value| {
            let task = Task {
                status: Some(TaskStatus::from(status)),
                status_message: Some(message.into()),
                extra: [("started".to_owned(), started)].into_iter().collect(),
                ..Task::default()
            };
            may_start(&mut Interpreter::default(), Some(&task), &identity, "me")
        };
        for (status, message, expected) in [
            ("in_progress", "pulled by agent", MayStart::Untold),
            ("in_progress", "stopping", MayStart::No(AbortReason::Stopped)),
            ("created", "", MayStart::LookAgain),
            ("queued", "", MayStart::No(AbortReason::StatusChanged)),
            ("stopped", "", MayStart::No(AbortReason::StatusChanged)),
            ("failed", "", MayStart::No(AbortReason::Exception)),
            ("completed", "", MayStart::No(AbortReason::StatusChanged)),
            ("published", "", MayStart::No(AbortReason::StatusChanged)),
        ] {
            assert_eq!(look(status, message, Value::Null), expected, "{status} {message}");
        }
        let told = look("in_progress", "pulled by agent", "2026-01-01T00:00:00".into());
        assert_eq!(told, MayStart::Yes, "a second call could only do harm");
        assert_eq!(
            may_start(&mut Interpreter::default(), None, &identity, "me"),
            MayStart::No(AbortReason::NotFound)
        );
    }
}
