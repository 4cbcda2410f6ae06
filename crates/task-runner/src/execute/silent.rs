//! `execute --disable-monitoring`: an outer agent watches over this process and ships its output, so
//! everything is simply printed, and in the end this process becomes the user's program.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clearml_api_client::{Client, StatusChange};
use clearml_env_builder as env_builder;
use clearml_env_builder::{BuildRequest, PreparedEnvironment};
use clearml_support::command::CancelToken;
use clearml_support::fs::safe_file_name;
use clearml_support::redact::Redactor;
use clearml_task_model::{Task, TaskId, WorkerId};
use rustix::fs::Mode;
use tokio::signal::unix::{SignalKind, signal};

use super::{ExecuteError, ExecuteOptions};
use crate::console::Level;
use crate::record::RunInputs;
use crate::runner::build_host::{BuildHost, write_back};
use crate::runner::environment::{Parts, base, complete, show_command};
use crate::runner::setup::{MayStart, may_start, strings, with_causes};
use crate::settings::RunSettings;

/// Exit code of a process that was told to end while it was preparing.
const TOLD_TO_END: i32 = 254;

/// Returns only when the user's program was not started.
pub(super) async fn run(
    client: &Client,
    task: Task,
    id: &TaskId,
    options: &ExecuteOptions,
) -> Result<i32, ExecuteError> {
    let inputs = RunInputs::from_process(options.run.clone());
    let settings = RunSettings::new(&options.settings, &inputs)?;
    let worker = options.worker.clone();
    let variables = || {
        base(&Parts {
            base: &inputs.environment,
            options: &inputs.options,
            task: id,
            worker: &worker,
            run_id: None,
            config: options.settings.location(),
            configured: &settings.configured_environment,
        })
    };
    say(&settings.redactor, &format!("Executing task id [{id}]:"));
    started(client, id, &worker, "worker started execution", settings.rank).await;

    let mut environment = settings.environment.clone();
    environment.optimization = options.run.optimization;
    environment.env = strings(variables());
    // The id is what the server says; the builder removes things below the folder.
    let folder = options
        .settings
        .agent
        .venvs_dir
        .join("execute")
        .join(safe_file_name(id.as_str()));
    let host = |host: BuildHost| host.with_files(client, settings.files_server.as_deref());
    let Some((prepared, host)) = build(&task, environment, folder, &settings.redactor, host).await? else {
        return Ok(TOLD_TO_END);
    };
    if settings.rank == 0 {
        write_back(client, &task, host.reported()).await;
    }
    say(&settings.redactor, &format!("Running task id [{id}]:"));
    say(
        &settings.redactor,
        &format!("[{}]$ {}", prepared.cwd.display(), show_command(&prepared.argv)),
    );
    say(&settings.redactor, &prepared.summary);
    say(&settings.redactor, "Environment setup completed successfully");
    started(
        client,
        id,
        &worker,
        "worker starting task execution",
        settings.rank,
    )
    .await;
    say(&settings.redactor, "Starting Task Execution:");
    let own = settings.enable_task_env.then_some(&task);
    let complete = complete(variables(), &prepared.env, own);
    Err(become_program(
        prepared,
        complete.into_iter().map(|(k, v)| (k.0, v.0)).collect(),
        inputs.umask,
    ))
}

/// Builds, unless a signal ends that: then everything that was started for it is stopped first.
async fn build(
    task: &Task,
    settings: env_builder::EnvSettings,
    run_dir_env: PathBuf,
    redactor: &Redactor,
    complete: impl FnOnce(BuildHost) -> BuildHost,
) -> Result<Option<(PreparedEnvironment, BuildHost)>, ExecuteError> {
    let listen = |kind| {
        signal(kind).map_err(|source| ExecuteError::System {
            doing: "listening for signals",
            source,
        })
    };
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let cancel = CancelToken::default();
    let (owned, secrets) = (task.clone(), redactor.clone());
    let host = complete(BuildHost::new(cancel.clone(), {
        let redactor = redactor.clone();
        move |level, text| match level {
            Level::Debug | Level::Info => say(&redactor, text),
            Level::Warning => say(&redactor, &format!("Warning: {text}")),
            Level::Error => say(&redactor, &format!("Error: {text}")),
        }
    }));
    let mut work = tokio::task::spawn_blocking(move || {
        let request = BuildRequest {
            task: &owned,
            settings: &settings,
            run_dir_env,
            redactor: &secrets,
        };
        let result = env_builder::build(&request, &host);
        (result, host)
    });
    let result = tokio::select! {
        result = &mut work => result,
        _ = terminate.recv() => { cancel.cancel(); work.await }
        _ = interrupt.recv() => { cancel.cancel(); work.await }
    };
    let (result, host) = result.map_err(|e| ExecuteError::Prepare {
        stage: "environment",
        reason: e.to_string(),
    })?;
    match result {
        Ok(prepared) => Ok(Some((prepared, host))),
        Err(_) if cancel.is_cancelled() => Ok(None),
        Err(e) if e.exit_code().is_some() => Err(ExecuteError::Program {
            code: e.exit_code().unwrap_or(1),
            reason: e.to_string(),
        }),
        Err(e) => Err(ExecuteError::Prepare {
            stage: e.stage().as_str(),
            reason: with_causes(&e),
        }),
    }
}

/// Tells the server what is being done, unless somebody wants the task to end. Nothing depends on it.
async fn started(client: &Client, id: &TaskId, worker: &WorkerId, reason: &str, rank: u32) {
    if rank > 0 {
        return;
    }
    let task = client.tasks_get_by_id(id).await.ok();
    if let MayStart::Yes { force } = may_start(task.as_ref()) {
        let mut change = StatusChange::reason(reason).message(format!("Changed by clearml-agent {worker}"));
        change.force = force;
        if let Err(e) = client.tasks_started(id, &change).await {
            tracing::warn!("marking task {id} as started: {e}");
        }
    }
}

/// Replaces this process. What comes back is why that did not work.
fn become_program(
    prepared: PreparedEnvironment,
    environment: BTreeMap<std::ffi::OsString, std::ffi::OsString>,
    umask: u32,
) -> ExecuteError {
    let launch_error = |reason: String| ExecuteError::Prepare {
        stage: "launch",
        reason,
    };
    let Some((program, arguments)) = prepared.argv.split_first() else {
        return launch_error("the command is empty".to_owned());
    };
    close_fds::set_fds_cloexec_threadsafe(3, &[]);
    rustix::process::umask(Mode::from_bits_truncate(umask));
    let error = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(environment)
        .current_dir(&prepared.cwd)
        .exec();
    launch_error(format!("starting {}: {error}", Path::new(program).display()))
}

fn say(redactor: &Redactor, text: &str) {
    let mut out = io::stdout().lock();
    // A reader that has gone away must not keep the task from running.
    let _gone = writeln!(out, "{}", redactor.redact(text.trim_end_matches('\n'))).and_then(|()| out.flush());
}
