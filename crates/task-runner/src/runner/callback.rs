//! The command that runs once when a task is aborted, before its program is stopped
//! (`CLEARML_AGENT_ABORT_CALLBACK_CMD`): the way for a program without the SDK to save its work.
//!
//! It is announced in the task's `runtime` as the SDK announces callbacks of its own, so that other tools show that
//! the task may take a while to end. It runs in the folder and with the environment of the program. A task that
//! was reset, deleted or put into a queue again is stopped without it: what it would save is wanted by nobody, and
//! the next run must not have to wait.

use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use clearml_api_client::{Client, TasksQuery};
use clearml_support::command::{CancelToken, Command, CommandError};
use clearml_support::fs::create_private_file;
use clearml_support::redact::Redactor;
use clearml_support::time::now_ms;
use clearml_task_model::{TaskId, TaskStatus};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::Runner;
use super::abort::{COMPLETED, FREQUENCY, TIMEOUT, wait_for_callback};
use super::leftovers::Leftovers;
use crate::console::Level;
use crate::record::{AbortCommand, AbortReason, OsText};

const COMMAND: &str = "AGENT_ABORT_CALLBACK_CMD";
const LIMIT: &str = "AGENT_ABORT_CALLBACK_TIMEOUT";
/// The variable is renamed for the program, so that an agent inside it does not run the command as well.
const REGISTERED: &str = "CLEARML_AGENT_ABORT_CALLBACK_CMD_REGISTERED";
/// How long the command may take where nobody has said so.
const USUAL_LIMIT: u64 = 180;
/// What is added to that, and told to others as the time between two looks at the task.
const SLACK: u64 = 10;
/// How long to talk to a server that does not answer.
const ASK_PATIENCE: Duration = Duration::from_secs(10);

/// Takes the command out of the environment of a program. The error is for people.
pub(crate) fn take(environment: &mut Vec<(OsText, OsText)>) -> Result<Option<AbortCommand>, String> {
    let find = |name: &str| {
        let names = ["CLEARML_", "TRAINS_"].map(|prefix| format!("{prefix}{name}"));
        let (_, value) = environment
            .iter()
            .find(|(key, value)| names.iter().any(|name| key.0 == **name) && !value.0.is_empty())?;
        Some(value.0.to_string_lossy().into_owned())
    };
    let (Some(text), limit) = (find(COMMAND), find(LIMIT)) else {
        return Ok(None);
    };
    environment.retain(|(key, _)| !key.0.to_string_lossy().ends_with(COMMAND));
    environment.push((OsText(REGISTERED.into()), OsText(text.clone().into())));
    match shlex::split(&text).filter(|argv| !argv.is_empty()) {
        Some(argv) => Ok(Some(AbortCommand {
            argv,
            limit_sec: limit
                .and_then(|limit| limit.trim().parse().ok())
                .unwrap_or(USUAL_LIMIT),
        })),
        None => Err(format!(
            "CLEARML_AGENT_ABORT_CALLBACK_CMD is not run: the quotes in {text:?} have no end"
        )),
    }
}

/// Who says something to people: a line and how important it is.
pub(crate) type Say = Arc<dyn Fn(Level, &str) + Send + Sync>;

/// What is needed to talk about the command.
pub(crate) struct Calling<'a> {
    pub(crate) client: &'a Client,
    pub(crate) task: &'a TaskId,
    pub(crate) redactor: &'a Redactor,
    /// The longest time that any callback gets.
    pub(crate) max: Duration,
    pub(crate) say: Say,
}

impl Calling<'_> {
    /// Announces the command in the task. That is for other tools, so a failure is no reason not to run the task.
    pub(crate) async fn register(&self, limit_sec: u64) {
        (self.say)(
            Level::Info,
            &format!("INFO: registering bash callback, timeout {limit_sec} seconds"),
        );
        let entries = json!({TIMEOUT: limit_sec, FREQUENCY: SLACK});
        let entries = entries.as_object().cloned().unwrap_or_default();
        // What an earlier run of the task has said about its own callback goes.
        if let Err(e) = self
            .client
            .tasks_edit_runtime(self.task, entries, &[COMPLETED])
            .await
        {
            tracing::warn!("announcing the abort callback of task {}: {e}", self.task);
        }
    }

    /// Runs the command to its end, and says in the task that it has ended. `already` is what has passed of its time.
    pub(crate) async fn call(
        &self,
        command: &AbortCommand,
        (folder, environment): (&Path, &[(OsText, OsText)]),
        already: Duration,
    ) {
        let program = program(command, folder, environment);
        self.call_by(command.limit_sec, already, async |limit| {
            let cancel = CancelToken::new();
            let _stop = Stop(cancel.clone());
            let program = program.timeout(limit).redactor(self.redactor).cancel(&cancel);
            let say = Arc::clone(&self.say);
            let work =
                tokio::task::spawn_blocking(move || program.run_streamed(&mut |line| say(Level::Info, line)));
            match work.await {
                Ok(Ok(status)) => Called::Ended(status),
                Ok(Err(CommandError::TimedOut { .. })) => Called::TimedOut,
                Ok(Err(e)) => Called::Not(e.to_string()),
                Err(e) => Called::Not(e.to_string()),
            }
        })
        .await;
    }

    /// The same with somebody else who runs the command, in the time that is left for it.
    pub(super) async fn call_by(
        &self,
        limit_sec: u64,
        already: Duration,
        run: impl AsyncFnOnce(Duration) -> Called,
    ) {
        let limit = Duration::from_secs(limit_sec.saturating_add(SLACK)).min(self.max);
        let begun = Instant::now();
        (self.say)(
            Level::Info,
            &format!(
                "### Task abort callback timeout set, waiting for max {} sec ###",
                limit.as_secs()
            ),
        );
        let called = run(limit.saturating_sub(already)).await;
        let elapsed = (already + begun.elapsed()).as_secs_f64();
        let (level, text) = match called {
            Called::Ended(status) if status.success() => {
                (Level::Info, format!("completed in {elapsed:.2} seconds"))
            }
            Called::Ended(status) => (
                Level::Warning,
                format!("failed ({status}) after {elapsed:.2} seconds"),
            ),
            Called::TimedOut => (
                Level::Warning,
                format!("timed out [timeout: {}, elapsed: {elapsed:.2}]", limit.as_secs()),
            ),
            Called::Not(why) => (Level::Warning, why),
        };
        (self.say)(level, &format!("### Task abort callback {text} ###"));
        let done: Map<String, Value> = [(COMPLETED.to_owned(), json!(1))].into_iter().collect();
        let call = self.client.tasks_edit_runtime(self.task, done, &[]);
        if let Ok(Err(e)) = tokio::time::timeout(ASK_PATIENCE, call).await {
            tracing::warn!("telling that the abort callback has ended: {e}");
        }
    }
}

/// What became of the command.
pub(super) enum Called {
    Ended(ExitStatus),
    TimedOut,
    /// It did not run, or nobody knows.
    Not(String),
}

/// Stops the command when nobody waits for it any more.
struct Stop(CancelToken);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Runner {
    /// Gives the program, or the command that saves its work, the time that was asked for. Returns whether the
    /// program has ended meanwhile.
    pub(super) async fn before_the_end(
        &self,
        reason: AbortReason,
        decided_ms: i64,
        gone: &mut (impl Future<Output = ()> + Unpin),
    ) -> bool {
        if !matches!(
            reason,
            AbortReason::Stopped | AbortReason::StatusChanged | AbortReason::Exception
        ) || !self.still_wanted().await
        {
            return false;
        }
        if let Ok(launch) = self.run.launch()
            && let Some(command) = &launch.abort_command
            && self.is_first_to_call()
        {
            // To its end also when the program ends before it: it may be storing what the program has left.
            let already = Duration::from_millis(u64::try_from(now_ms() - decided_ms).unwrap_or(0));
            let place = (launch.cwd.as_path(), launch.env.as_slice());
            self.calling().call(command, place, already).await;
            return false;
        }
        if let Some(limit_sec) = self.command_inside()
            && self.is_first_to_call()
        {
            let already = Duration::from_millis(u64::try_from(now_ms() - decided_ms).unwrap_or(0));
            let calling = self.calling();
            calling
                .call_by(limit_sec, already, async |limit| self.call_inside(limit).await)
                .await;
            return false;
        }
        let times = (self.settings.status_poll, self.settings.abort_callback_max);
        let task = &self.identity.task;
        let gone = tokio::select! {
            () = Box::pin(wait_for_callback(&self.client, task, &self.console, times, decided_ms)) => false,
            () = gone => true,
        };
        if self.run.callback_path().exists()
            && let Ok(Some(claim)) = self.run.claim()
        {
            // That of a runner that has died.
            Leftovers::of_callback(claim.shim.pid, &self.run_id).kill().await;
        }
        gone
    }

    /// Whether the task is still that of this run. A server that does not answer has not said otherwise.
    async fn still_wanted(&self) -> bool {
        let query = TasksQuery::one(&self.identity.task, ["status", "runtime"]);
        match tokio::time::timeout(ASK_PATIENCE, self.client.tasks_get_all(&query)).await {
            Ok(Ok(tasks)) => tasks.first().is_some_and(|task| {
                !matches!(task.status, Some(TaskStatus::Created | TaskStatus::Queued))
                    && !crate::requeue::is_anothers(task, &self.identity, &self.run_id)
            }),
            Ok(Err(_)) | Err(_) => true,
        }
    }

    /// The command runs once, whatever becomes of runners.
    fn is_first_to_call(&self) -> bool {
        match create_private_file(&self.run.callback_path()) {
            Ok(_) => true,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
            // Better twice than never: a disk that is full does not keep the work from being saved.
            Err(e) => {
                tracing::warn!("noting the abort callback: {e}");
                true
            }
        }
    }

    pub(super) fn calling(&self) -> Calling<'_> {
        let console = self.console.clone();
        Calling {
            client: &self.client,
            task: &self.identity.task,
            redactor: &self.settings.redactor,
            max: self.settings.abort_callback_max,
            say: Arc::new(move |level, line| console.line(level, line)),
        }
    }
}

pub(crate) fn program(command: &AbortCommand, folder: &Path, environment: &[(OsText, OsText)]) -> Command {
    let (program, arguments) = command
        .argv
        .split_first()
        .map_or(("", &[][..]), |(p, a)| (p.as_str(), a));
    let mut built = Command::new(program).args(arguments).cwd(folder).env_clear();
    for (name, value) in environment {
        built = built.env(&name.0, &value.0);
    }
    built
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(entries: &[(&str, &str)]) -> Vec<(OsText, OsText)> {
        entries
            .iter()
            .map(|(name, value)| (OsText((*name).into()), OsText((*value).into())))
            .collect()
    }

    #[test]
    fn the_command_is_taken_once_and_the_program_sees_that() {
        let mut got = environment(&[
            ("A", "1"),
            ("CLEARML_AGENT_ABORT_CALLBACK_CMD", "save --to 'my folder'"),
            ("TRAINS_AGENT_ABORT_CALLBACK_CMD", "save --to 'my folder'"),
            ("CLEARML_AGENT_ABORT_CALLBACK_TIMEOUT", " 20 "),
        ]);
        let command = take(&mut got).unwrap().unwrap();
        assert_eq!(command.argv, ["save", "--to", "my folder"]);
        assert_eq!(command.limit_sec, 20);
        let names: Vec<_> = got.iter().map(|(name, _)| name.0.to_str().unwrap()).collect();
        assert_eq!(names, ["A", "CLEARML_AGENT_ABORT_CALLBACK_TIMEOUT", REGISTERED]);
        assert_eq!(
            take(&mut got),
            Ok(None),
            "an agent inside of the program does not run it"
        );
    }

    #[test]
    fn without_a_usable_command_there_is_none() {
        assert_eq!(
            take(&mut environment(&[("CLEARML_AGENT_ABORT_CALLBACK_CMD", "")])),
            Ok(None)
        );
        let mut odd = environment(&[
            ("TRAINS_AGENT_ABORT_CALLBACK_CMD", "true"),
            ("CLEARML_AGENT_ABORT_CALLBACK_TIMEOUT", "soon"),
        ]);
        assert_eq!(take(&mut odd).unwrap().unwrap().limit_sec, USUAL_LIMIT);
        assert!(
            take(&mut environment(&[(
                "CLEARML_AGENT_ABORT_CALLBACK_CMD",
                "echo 'a"
            )]))
            .is_err()
        );
    }
}
