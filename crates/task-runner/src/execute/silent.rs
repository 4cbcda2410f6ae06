//! `execute --disable-monitoring`: an outer agent watches over this process and ships its output, so
//! everything is simply printed, and in the end this process becomes the user's program. With a command for aborts,
//! it stays beside the program.

use std::fmt::Display;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use clearml_api_client::Client;
use clearml_env_builder as env_builder;
use clearml_env_builder::{BuildRequest, PreparedEnvironment};
use clearml_support::command::CancelToken;
use clearml_support::fs::safe_file_name;
use clearml_support::redact::Redactor;
use clearml_task_model::{Task, TaskId};

use super::{ExecuteError, ExecuteOptions, attended};
use crate::console::Level;
use crate::record::{OsText, RunInputs};
use crate::runner::build_host::{BuildHost, write_back};
use crate::runner::callback::{self, Calling};
use crate::runner::describe::described;
use crate::runner::environment::{Parts, base, complete, show_command};
use crate::runner::other_user::{HOMES, OtherUser};
use crate::runner::setup::{strings, with_causes};
use crate::settings::RunSettings;
use crate::told::ToldToEnd;

/// Exit code of a process that was told to end while it was preparing.
pub(crate) const TOLD_TO_END: i32 = 254;

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
    say(&settings.redactor, &described(id, &task));

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
    let refused = |reason: String| ExecuteError::Prepare {
        stage: "environment",
        reason,
    };
    let user = OtherUser::wanted(&inputs, &safe_file_name(id.as_str())).map_err(refused)?;
    let folder = match &user {
        Some(user) => {
            user.make_home()
                .map_err(|e| refused(format!("making a home below {HOMES}: {e}")))?;
            environment
                .env
                .insert("UV_LINK_MODE".to_owned(), "copy".to_owned());
            user.environment_dir()
        }
        None => folder,
    };
    let host = |host: BuildHost| host.with_files(client, settings.files_server.as_deref());
    let Some((mut prepared, host)) = build(&task, environment, folder, &settings.redactor, say, host).await?
    else {
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
    say(&settings.redactor, "Starting Task Execution:");
    let own = settings.enable_task_env.then_some(&task);
    let mut environment = complete(variables(), &prepared.env, own);
    let mut command = callback::take(&mut environment).unwrap_or_else(|text| {
        say(&settings.redactor, &format!("Warning: {text}"));
        None
    });
    if let Some(user) = user {
        user.hand_over(options.settings.location())
            .map_err(|e| refused(format!("giving the environment to the user of the task: {e}")))?;
        user.lead(&mut prepared.argv, command.as_mut(), &mut environment);
    }
    let program = Program {
        prepared,
        environment,
        umask: inputs.umask,
    };
    match command {
        Some(command) => {
            let redactor = settings.redactor.clone();
            let calling = Calling {
                client,
                task: id,
                redactor: &settings.redactor,
                max: settings.abort_callback_max,
                say: Arc::new(move |_, line| say(&redactor, line)),
            };
            Box::pin(attended::run(&program, &calling, &command, settings.status_poll)).await
        }
        None => Err(program.replaces_this_process()),
    }
}

/// Builds, unless a signal ends that: then everything that was started for it is stopped first.
pub(crate) async fn build(
    task: &Task,
    settings: env_builder::EnvSettings,
    run_dir_env: PathBuf,
    redactor: &Redactor,
    say: Printed,
    complete: impl FnOnce(BuildHost) -> BuildHost,
) -> Result<Option<(PreparedEnvironment, BuildHost)>, ExecuteError> {
    let mut told = ToldToEnd::listen(true).map_err(|source| ExecuteError::System {
        doing: "listening for signals",
        source,
    })?;
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
        _ = told.heard() => { cancel.cancel(); work.await }
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

/// What the task comes to.
pub(crate) struct Program {
    pub(crate) prepared: PreparedEnvironment,
    pub(crate) environment: Vec<(OsText, OsText)>,
    pub(crate) umask: u32,
}

impl Program {
    pub(super) fn command(&self) -> Result<Command, ExecuteError> {
        let Some((program, arguments)) = self.prepared.argv.split_first() else {
            return Err(self.launch_error("the command is empty"));
        };
        close_fds::set_fds_cloexec_threadsafe(3, &[]);
        crate::umask::make_public(self.umask);
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (&name.0, &value.0)))
            .current_dir(&self.prepared.cwd);
        Ok(command)
    }

    pub(super) fn launch_error(&self, reason: impl Display) -> ExecuteError {
        let program = self.prepared.argv.first().map_or(Path::new(""), Path::new);
        ExecuteError::Prepare {
            stage: "launch",
            reason: format!("starting {}: {reason}", program.display()),
        }
    }

    /// What comes back is why that did not work.
    pub(crate) fn replaces_this_process(&self) -> ExecuteError {
        match self.command() {
            Ok(mut command) => self.launch_error(command.exec()),
            Err(e) => e,
        }
    }
}

/// How a line is printed.
pub(crate) type Printed = fn(&Redactor, &str);

pub(crate) fn say(redactor: &Redactor, text: &str) {
    print(&mut io::stdout().lock(), redactor, text);
}

/// The same where standard output is data.
pub(crate) fn say_aside(redactor: &Redactor, text: &str) {
    print(&mut io::stderr().lock(), redactor, text);
}

fn print(out: &mut dyn Write, redactor: &Redactor, text: &str) {
    // A reader that has gone away must not keep the task from running.
    let _gone = writeln!(out, "{}", redactor.redact(text.trim_end_matches('\n'))).and_then(|()| out.flush());
}
