//! From the task to a complete `launch.json`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clearml_api_client::ApiError;
use clearml_env_builder as env_builder;
use clearml_env_builder::{BuildRequest, PreparedEnvironment};
use clearml_support::command::CancelToken;
use clearml_support::time::now_ms;
use clearml_task_model::Task;
use serde_json::{Map, Value};

use super::abort::announce;
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
use crate::record::{AbortCommand, AbortReason, Failure, Launch, Mark, SCHEMA};

/// Where a task's `runtime` names the host that runs it, as the Python agent writes it.
const HOST_KEY: &str = "_exec_agent_hostname";
impl Runner {
    /// Prepares the run from the beginning. What an earlier runner has left is not trusted.
    pub(super) async fn prepare(&self, again: bool) -> Result<Prepared, RunnerError> {
        self.stored_unless_aborted(|run| run.set_phase(Phase::Preparing))
            .await?;
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
            self.calling().register(command.limit_sec).await;
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
