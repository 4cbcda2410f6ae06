//! From the task to a complete `launch.json`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clearml_api_client::{ApiError, Call, Client, TasksQuery, Updated};
use clearml_env_builder as env_builder;
use clearml_env_builder::{BuildRequest, PreparedEnvironment};
use clearml_support::command::CancelToken;
use clearml_support::time::now_ms;
use clearml_task_model::{Task, TaskId, TaskStatus, WorkerId};
use serde_json::{Map, Value, json};

use super::abort::{Interpreter, Meaning, announce};
use super::build_host::{BuildHost, write_back};
use super::decide::Prepared;
use super::describe::described;
use super::environment::{Parts, base, complete, show_command};
use super::leftovers::Leftovers;
use super::other_user::{HOMES, OtherUser};
use super::{Runner, RunnerError, callback, patiently, space};
use crate::console::{Level, Tag};
use crate::owner::TOKEN_VARIABLE;
use crate::phase::Phase;
use crate::record::{AbortCommand, AbortReason, Failure, Identity, Launch, Mark, SCHEMA};
use crate::requeue::is_anothers;

/// Where a task's `runtime` names the host that runs it, as the Python agent writes it.
const HOST_KEY: &str = "_exec_agent_hostname";
/// Between attempts to say that a task has started, each with a look of its own.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

impl Runner {
    /// Prepares the run from the beginning. What an earlier runner has left is not trusted.
    pub(super) async fn prepare(&self, again: bool) -> Result<Prepared, RunnerError> {
        self.run.set_phase(Phase::Preparing)?;
        let identity = &self.identity;
        if let Some(queue) = &identity.queue {
            let text = format!(
                "task {} pulled from {queue} by worker {}",
                identity.task, identity.worker
            );
            self.console.line_once(Tag::Pulled, Level::Info, &text);
        }
        if let Some(previous) = &self.previous {
            // A builder's tools must not go on beside those of the next one. No user code exists yet.
            Leftovers::of_runner(previous.pid, &self.run_id).kill().await;
        }
        if again {
            self.console.line(
                Level::Warning,
                "The agent was interrupted; the environment is built anew",
            );
        }
        let cancel = CancelToken::default();
        let mut abort = self.abort.subscribe();
        let steps = self.prepare_steps(&cancel);
        let mut steps = Box::pin(steps);
        tokio::select! {
            prepared = &mut steps => return prepared,
            reason = super::abort::announced(&mut abort) => {
                tracing::info!("task {}: the preparation is stopped: {reason:?}", self.identity.task);
                cancel.cancel();
            }
        }
        // The builder may be in the middle of something that must be undone. Everything else, such as a
        // call to a server that is away, is simply given up.
        drop(steps);
        self.build_ended().await;
        Ok(Prepared::Aborted)
    }

    async fn prepare_steps(&self, cancel: &CancelToken) -> Result<Prepared, RunnerError> {
        let id = &self.identity.task;
        let task = match patiently("reading the task", async || self.client.tasks_get_by_id(id).await).await {
            Ok(task) => task,
            Err(e) if is_unknown_task(&e) => {
                announce(&self.abort, AbortReason::NotFound);
                return Ok(Prepared::Aborted);
            }
            Err(e) => {
                return Ok(Prepared::Failed(failure(
                    "infrastructure",
                    &format!("reading the task: {e}"),
                )));
            }
        };
        if !self.goes_on(Some(&task)).await {
            return Ok(Prepared::Aborted);
        }
        self.remember_host(&task).await;
        self.console.line(Level::Info, &described(id, &task));
        if let Some(wanted) = &self.inputs.options.container {
            return Ok(self.prepare_container(&task, wanted).await);
        }

        let started_ms = now_ms();
        let built = self.build(&task, cancel).await;
        let (prepared, user) = match built {
            Ok(built) => built,
            Err(failure) => {
                self.console.line_once(
                    Tag::SetupError,
                    Level::Error,
                    &format!("clearml_agent: ERROR: {}", failure.text),
                );
                return Ok(Prepared::Failed(failure));
            }
        };
        let seconds = Duration::from_millis(u64::try_from(now_ms() - started_ms).unwrap_or(0)).as_secs_f64();
        self.console
            .line(Level::Info, &format!("Running task id [{id}]:"));
        let command = show_command(&prepared.argv);
        self.console.line(
            Level::Info,
            &format!("[{}]$ {command}\n{}", prepared.cwd.display(), prepared.summary),
        );
        self.console.line(
            Level::Info,
            &format!("Environment setup completed successfully in {seconds:.2} s"),
        );
        if let Some(command) = self.write_launch(&task, prepared, user.as_ref())? {
            self.calling().register(&command).await;
        }
        Ok(Prepared::Ready)
    }

    /// Notes this host in the task, unless the daemon has done so with its mark.
    async fn remember_host(&self, task: &Task) {
        let host = Value::from(self.settings.host_name.as_str());
        if task.runtime.get(HOST_KEY) == Some(&host) {
            return;
        }
        let id = &self.identity.task;
        let add: Map<String, Value> = [(HOST_KEY.to_owned(), host)].into_iter().collect();
        if let Err(e) = self.client.tasks_edit_runtime(id, add, &[]).await {
            tracing::warn!("noting the host name in task {id}: {e}");
        }
    }

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

    async fn build(
        &self,
        task: &Task,
        cancel: &CancelToken,
    ) -> Result<(PreparedEnvironment, Option<OtherUser>), Failure> {
        let user =
            OtherUser::wanted(&self.inputs, &self.run_id).map_err(|text| failure("environment", &text))?;
        let console = self.console.clone();
        let full = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&full);
        let say = move |level, text: &str| {
            if space::says_full(text) {
                seen.store(true, Ordering::Relaxed);
            }
            console.line(level, text);
        };
        let host = BuildHost::new(cancel.clone(), say)
            .with_files(&self.client, self.settings.files_server.as_deref());
        let mut settings = self.settings.environment.clone();
        settings.optimization = self.inputs.options.optimization;
        settings.env = strings(base(&self.parts()));
        let run_dir_env = match &user {
            Some(user) => {
                user.make_home().map_err(|e| of_home(&e))?;
                // What is shared with a cache can't be given away.
                settings.env.insert("UV_LINK_MODE".to_owned(), "copy".to_owned());
                user.environment_dir()
            }
            None => self.run.environment_dir(),
        };
        let redactor = self.settings.redactor.clone();
        let owned = task.clone();
        let turn = match &self.shared {
            Some(shared) => shared.turn().await,
            None => None,
        };
        // Held until the builder is really through, also when nobody waits for its result any more.
        let busy = self.building.clone().lock_owned().await;
        let work = tokio::task::spawn_blocking(move || {
            let (_busy, _turn) = (busy, turn);
            let request = BuildRequest {
                task: &owned,
                settings: &settings,
                run_dir_env,
                redactor: &redactor,
            };
            let result = env_builder::build(&request, &host);
            (result, host)
        });
        let (result, host) = work
            .await
            .map_err(|e| failure("environment", &format!("the builder failed: {e}")))?;
        self.note_phases(&host);
        let prepared = result.map_err(|e| Failure {
            exit_code: e.exit_code(),
            ..if full.load(Ordering::Relaxed) || space::is_full(&e) {
                space::disk_full(&with_causes(&e))
            } else {
                failure(e.stage().as_str(), &with_causes(&e))
            }
        })?;
        if self.settings.rank == 0 {
            write_back(&self.client, task, host.reported()).await;
        }
        if let Some(user) = user.clone() {
            let config = self.config.clone();
            let giving = tokio::task::spawn_blocking(move || user.hand_over(Some(&config)));
            giving
                .await
                .unwrap_or_else(|e| Err(std::io::Error::other(e)))
                .map_err(|e| of_home(&e))?;
        }
        Ok((prepared, user))
    }

    /// Returns when no builder is at work.
    pub(super) async fn build_ended(&self) {
        drop(self.building.lock().await);
    }

    fn note_phases(&self, host: &BuildHost) {
        let stations = host.reported().stations;
        let marks: Vec<Mark> = stations
            .into_iter()
            .map(|(name, (ms, duration))| Mark {
                name: name.to_owned(),
                ms,
                duration_ms: i64::try_from(duration.as_millis()).ok(),
            })
            .collect();
        self.note(&marks);
    }

    fn write_launch(
        &self,
        task: &Task,
        prepared: PreparedEnvironment,
        user: Option<&OtherUser>,
    ) -> Result<Option<AbortCommand>, RunnerError> {
        let own = self.settings.enable_task_env.then_some(task);
        let mut variables = base(&self.parts());
        if let Some(token) = self.token_for_program()? {
            variables.insert(TOKEN_VARIABLE.into(), token.expose().into());
        }
        let mut env = complete(variables, &prepared.env, own);
        let mut abort_command = callback::take(&mut env).unwrap_or_else(|text| {
            self.console.line(Level::Warning, &text);
            None
        });
        let mut argv = prepared.argv;
        if let Some(user) = user {
            user.lead(&mut argv, abort_command.as_mut(), &mut env);
        }
        let launch = Launch {
            schema: SCHEMA,
            argv: argv.into_iter().map(Into::into).collect(),
            env,
            abort_command,
            cwd: prepared.cwd,
            umask: self.inputs.umask,
            grace_ms: millis(self.settings.abort_grace),
            leftover_grace_ms: millis(self.settings.abort_grace.min(LEFTOVER_GRACE)),
            segment_bytes: self.settings.segment_bytes,
            console_max_bytes: self.settings.console_max_bytes,
            open_files: self
                .inputs
                .options
                .open_files
                .or_else(|| self.shared.as_ref()?.open_files()),
            contained: false,
            restarts: false,
        };
        self.run.write_launch(&launch)?;
        Ok(launch.abort_command)
    }

    fn parts(&self) -> Parts<'_> {
        Parts {
            base: &self.inputs.environment,
            options: &self.inputs.options,
            task: &self.identity.task,
            worker: &self.identity.worker,
            run_id: Some(&self.run_id),
            config: Some(&self.config),
            configured: &self.settings.configured_environment,
        }
    }
}

/// Processes that outlive the main one of a task get less time than the task itself.
pub(super) const LEFTOVER_GRACE: Duration = Duration::from_secs(2);

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn failure(stage: &str, text: &str) -> Failure {
    Failure {
        stage: stage.to_owned(),
        text: text.to_owned(),
        exit_code: None,
        over: false,
    }
}

fn of_home(error: &std::io::Error) -> Failure {
    let text = format!("making a home for the user of the task below {HOMES}: {error}");
    if space::is_full(error) {
        space::disk_full(&text)
    } else {
        failure("environment", &text)
    }
}

pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Many messages end with that of their cause already.
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

pub(crate) fn is_unknown_task(error: &ApiError) -> bool {
    error.is_code(400, 101) || error.is_code(400, 10)
}

pub(crate) fn strings(
    variables: BTreeMap<std::ffi::OsString, std::ffi::OsString>,
) -> BTreeMap<String, String> {
    // Tools get what can be written as text; the user's program gets everything.
    variables
        .into_iter()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .collect()
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
