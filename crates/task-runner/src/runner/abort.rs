//! Noticing that a task has to end: what the server says about it, and the agreement by which a program
//! gets time to save its work before it is stopped.

use std::sync::Arc;
use std::time::Duration;

use clearml_api_client::{ApiError, Client, TasksQuery};
use clearml_support::time::now_ms;
use clearml_task_model::{Task, TaskId, TaskStatus};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::Instant;

use super::board::Board;
use crate::console::{AgentConsole, Level};
use crate::record::{AbortReason, Identity};
use crate::requeue::is_anothers;
use crate::slurm::SlurmJob;

/// A reset is believed when it has been seen this often in a row: the status is `created` for a moment
/// also when somebody edits a task.
const RESETS: u8 = 5;
/// In a task's `runtime`: how long it wants to be waited for, the time between its own looks at its status, and
/// that it has done what it wanted to.
pub(crate) const TIMEOUT: &str = "_abort_callback_timeout";
pub(crate) const FREQUENCY: &str = "_abort_poll_freq";
pub(crate) const COMPLETED: &str = "_abort_callback_completed";
/// How long to ask whether a program wants to be waited for.
const ASK_PATIENCE: Duration = Duration::from_secs(10);

/// The fields that an observation needs.
pub(super) const OBSERVED: [&str; 3] = ["status", "status_message", "runtime"];

/// What an observation of the task means for the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Nothing is to be done.
    GoOn,
    /// It looks like a reset; seen this many times.
    MaybeReset(u8),
    /// The task has to end.
    Abort(AbortReason),
}

/// Interprets a row of observations. Pure.
#[derive(Debug, Default)]
pub struct Interpreter {
    resets: u8,
}

impl Interpreter {
    /// As [`Self::observe`], for a run that knows itself: a task that was reset and started again while nobody
    /// could look carries the mark of another run.
    pub fn observe_own(&mut self, task: Option<&Task>, identity: &Identity, run_id: &str) -> Meaning {
        match task {
            Some(task) if is_anothers(task, identity, run_id) => Meaning::Abort(AbortReason::StatusChanged),
            task => self.observe(task),
        }
    }

    /// The meaning of the task as it was just read; `None` = the server does not have it.
    pub fn observe(&mut self, task: Option<&Task>) -> Meaning {
        let Some(task) = task else {
            return Meaning::Abort(AbortReason::NotFound);
        };
        let status = task.status.as_ref();
        if status != Some(&TaskStatus::Created) {
            self.resets = 0;
        }
        match status {
            Some(TaskStatus::InProgress) if task.is_stopping() => Meaning::Abort(AbortReason::Stopped),
            Some(TaskStatus::Closed | TaskStatus::Stopped | TaskStatus::Published | TaskStatus::Queued) => {
                Meaning::Abort(AbortReason::StatusChanged)
            }
            Some(TaskStatus::Failed) => Meaning::Abort(AbortReason::Exception),
            Some(TaskStatus::Created) => {
                self.resets += 1;
                if self.resets < RESETS {
                    Meaning::MaybeReset(self.resets)
                } else {
                    Meaning::Abort(AbortReason::Reset)
                }
            }
            _ => Meaning::GoOn,
        }
    }
}

/// Looks at the task again and again, for as long as it is polled, and tells `abort` when it has to end.
pub(crate) struct StatusWatch {
    pub(crate) client: Client,
    pub(crate) identity: Identity,
    pub(crate) run_id: String,
    pub(crate) console: AgentConsole,
    pub(crate) poll: Duration,
    /// Where many tasks are looked at together.
    pub(crate) board: Option<Arc<Board>>,
    pub(crate) ping: Option<Duration>,
    /// The job of Slurm that this is a run of.
    pub(crate) slurm: Option<SlurmJob>,
}

impl StatusWatch {
    /// The task as it is after one period.
    async fn look(&self) -> Result<Option<Task>, ApiError> {
        if let Some(board) = &self.board {
            return Ok(board.look(&self.identity.task).await);
        }
        tokio::time::sleep(self.poll).await;
        let query = TasksQuery::one(&self.identity.task, OBSERVED);
        Ok(self.client.tasks_get_all(&query).await?.into_iter().next())
    }

    /// Never returns. A server that is away delays only this.
    pub(crate) async fn run(&self, abort: &watch::Sender<Option<AbortReason>>) -> ! {
        let mut interpreter = Interpreter::default();
        let mut pinged = Instant::now();
        loop {
            match self.look().await {
                Ok(Some(task)) if self.slurm.as_ref().is_some_and(|job| job.is_superseded(&task)) => {
                    announce(abort, AbortReason::StatusChanged);
                }
                Ok(task) => match interpreter.observe_own(task.as_ref(), &self.identity, &self.run_id) {
                    Meaning::GoOn => {}
                    Meaning::MaybeReset(times) => self.console.line(
                        Level::Warning,
                        &format!(
                            "Warning: Task {} was reset! if state is consistent we shall terminate ({times}/{}).",
                            self.identity.task,
                            RESETS - 1
                        ),
                    ),
                    Meaning::Abort(reason) => announce(abort, reason),
                },
                Err(e) => tracing::debug!("asking for the status of task {}: {e}", self.identity.task),
            }
            if self.ping.is_some_and(|interval| pinged.elapsed() >= interval) {
                pinged = Instant::now();
                if let Err(e) = self.client.tasks_ping(&self.identity.task).await {
                    tracing::debug!("{e}");
                }
            }
        }
    }
}

/// The first reason stands.
pub(crate) fn announce(abort: &watch::Sender<Option<AbortReason>>, reason: AbortReason) {
    abort.send_if_modified(|current| {
        let first = current.is_none();
        if first {
            *current = Some(reason);
        }
        first
    });
}

/// The next reason to abort, or the one that is there already.
pub(crate) async fn announced(abort: &mut watch::Receiver<Option<AbortReason>>) -> AbortReason {
    loop {
        if let Some(reason) = *abort.borrow_and_update() {
            return reason;
        }
        if abort.changed().await.is_err() {
            // Nobody is left who could announce anything.
            std::future::pending::<()>().await;
        }
    }
}

/// What a program has asked for, in the task's `runtime`: to be waited for before it is stopped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Callback {
    /// The longest time that the program wants, including one poll of its own.
    pub(crate) limit: Duration,
}

impl Callback {
    /// Reads the wish from a task's `runtime`. Pure.
    pub(crate) fn wanted(runtime: &Map<String, Value>, max: Duration) -> Option<Self> {
        let seconds = |key: &str| match runtime.get(key)? {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let timeout = seconds(TIMEOUT)?;
        let total = timeout + seconds(FREQUENCY).unwrap_or(0.0);
        let limit = Duration::try_from_secs_f64(total.max(0.0))
            .unwrap_or(max)
            .min(max);
        Some(Self { limit })
    }
}

/// Whether the program has said that its work is saved. Pure.
pub(crate) fn callback_completed(runtime: &Map<String, Value>) -> bool {
    match runtime.get(COMPLETED) {
        None | Some(Value::Null) => false,
        Some(Value::Bool(value)) => *value,
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::String(text)) => !matches!(text.as_str(), "" | "0" | "false" | "False"),
        Some(_) => true,
    }
}

/// Gives the program the time it has asked for. `decided_ms` is when the abort was decided, perhaps by
/// an earlier runner, so that nobody gets the time twice.
pub(crate) async fn wait_for_callback(
    client: &Client,
    task: &TaskId,
    console: &AgentConsole,
    (poll, max): (Duration, Duration),
    decided_ms: i64,
) {
    let query = TasksQuery::one(task, ["runtime"]);
    let runtime = |tasks: Vec<Task>| {
        tasks
            .into_iter()
            .next()
            .map(|task| task.runtime)
            .unwrap_or_default()
    };
    // A server that has gone away meanwhile does not keep the task running.
    let asked = tokio::time::timeout(ASK_PATIENCE, client.tasks_get_all(&query)).await;
    let wanted = match asked {
        Ok(Ok(tasks)) => Callback::wanted(&runtime(tasks), max),
        Ok(Err(e)) => {
            tracing::warn!("asking whether task {task} wants to be waited for: {e}");
            None
        }
        Err(_) => None,
    };
    let Some(Callback { limit }) = wanted else { return };
    let start = Instant::now();
    let already = Duration::from_millis(u64::try_from(now_ms() - decided_ms).unwrap_or(0));
    let left = limit.saturating_sub(already);
    let seconds = limit.as_secs_f64();
    console.line(
        Level::Info,
        &format!("### Task abort callback timeout set, waiting for max {seconds} sec ###"),
    );
    let completed = tokio::time::timeout(left, async {
        loop {
            if let Ok(tasks) = client.tasks_get_all(&query).await
                && callback_completed(&runtime(tasks))
            {
                return;
            }
            tokio::time::sleep(poll).await;
        }
    });
    let text = match completed.await {
        Ok(()) => {
            format!(
                "### Task abort callback completed in {:.2} seconds ###",
                start.elapsed().as_secs_f64()
            )
        }
        Err(_) => format!(
            "### Task abort callback timed out [timeout: {seconds}, elapsed: {:.2}] ###",
            (already + start.elapsed()).as_secs_f64()
        ),
    };
    console.line(Level::Info, &text);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn task(status: &str, message: &str) -> Task {
        Task {
            status: Some(TaskStatus::from(status)),
            status_message: Some(message.into()),
            ..Task::default()
        }
    }

    #[test]
    fn observations_mean_what_the_specification_says() {
        for (status, message, meaning) in [
            ("in_progress", "", Meaning::GoOn),
            ("in_progress", "stopping", Meaning::Abort(AbortReason::Stopped)),
            ("completed", "stopping", Meaning::GoOn),
            ("publishing", "", Meaning::GoOn),
            ("from_the_future", "", Meaning::GoOn),
            ("stopped", "", Meaning::Abort(AbortReason::StatusChanged)),
            ("closed", "", Meaning::Abort(AbortReason::StatusChanged)),
            ("published", "", Meaning::Abort(AbortReason::StatusChanged)),
            ("queued", "", Meaning::Abort(AbortReason::StatusChanged)),
            ("failed", "", Meaning::Abort(AbortReason::Exception)),
        ] {
            assert_eq!(
                Interpreter::default().observe(Some(&task(status, message))),
                meaning,
                "{status} {message}"
            );
        }
        assert_eq!(
            Interpreter::default().observe(None),
            Meaning::Abort(AbortReason::NotFound)
        );
    }

    #[test]
    fn a_reset_is_believed_when_it_lasts() {
        let mut interpreter = Interpreter::default();
        let created = task("created", "");
        for times in 1..RESETS {
            assert_eq!(interpreter.observe(Some(&created)), Meaning::MaybeReset(times));
        }
        assert_eq!(
            interpreter.observe(Some(&created)),
            Meaning::Abort(AbortReason::Reset)
        );
        assert_eq!(interpreter.observe(Some(&task("in_progress", ""))), Meaning::GoOn);
        assert_eq!(interpreter.observe(Some(&created)), Meaning::MaybeReset(1));
    }

    #[test]
    fn a_program_may_ask_for_time_up_to_the_limit() {
        let max = Duration::from_secs(1800);
        let wanted =
            |runtime: Value| Callback::wanted(runtime.as_object().unwrap(), max).map(|c| c.limit.as_secs());
        assert_eq!(wanted(json!({})), None);
        assert_eq!(
            wanted(json!({"_abort_callback_timeout": 180, "_abort_poll_freq": 10})),
            Some(190)
        );
        assert_eq!(wanted(json!({"_abort_callback_timeout": "60"})), Some(60));
        assert_eq!(wanted(json!({"_abort_callback_timeout": 1e9})), Some(1800));
        assert_eq!(wanted(json!({"_abort_callback_timeout": "soon"})), None);
        assert!(callback_completed(
            json!({"_abort_callback_completed": 1}).as_object().unwrap()
        ));
        assert!(!callback_completed(
            json!({"_abort_callback_completed": ""}).as_object().unwrap()
        ));
    }

    #[tokio::test]
    async fn the_first_reason_stands() {
        let (sender, mut receiver) = watch::channel(None);
        announce(&sender, AbortReason::Stopped);
        announce(&sender, AbortReason::NotFound);
        assert_eq!(announced(&mut receiver).await, AbortReason::Stopped);
    }
}
