//! In a container: from the files that came in to the user's program.
//!
//! The shim is the container's first process, and this its child. It needs neither server nor network: the task,
//! the configuration and everything else that matters are files. What the agent outside wants to know is written to
//! a file as well. In the end this process becomes the user's program.

mod bake;
mod callback;
mod leaks;
mod official;
mod place;
mod tools;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clearml_agent_config::{Settings, Sources};
use clearml_api_client::Client;
use clearml_support::fs::{create_private_dir, read_json, safe_file_name, write_json_atomic};
use clearml_support::redact::Redactor;
use clearml_task_model::{Task, TaskId, WorkerId};
use rustix::fs::Access;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::execute::ExecuteError;
use crate::execute::silent::{self, Program, TOLD_TO_END, say};
use crate::record::{Mark, OsText, RunInputs, RunOptions, SCHEMA};
use crate::runner::build_host::{BuildHost, Reported};
use crate::runner::environment::{Parts, RUN_ID, base, complete, show_command};
use crate::runner::setup::strings;
use crate::settings::{RunSettings, client_options};

pub(crate) use bake::{Bake, Baked};
pub(crate) use callback::TIMED_OUT;
pub(crate) use official::Official;
pub(crate) use tools::Tools;

/// Where things are in every container. Also the places for people: a configuration for their own programs.
pub(crate) const PROGRAM: &str = "/.clearml-agent/bin/clearml-agent";
pub(crate) const RUN: &str = "/.clearml-agent/run";
pub(crate) const OUTPUT: &str = "/.clearml-agent/run/console";
pub(crate) const GIVEN: &str = "/.clearml-agent/in";
/// Shared by containers of the same image, if it is there.
pub(crate) const CACHES: &str = "/.clearml-agent/caches";
pub(crate) const CONFIG: &str = "/tmp/clearml.conf";

/// Names of the files.
pub(crate) const TASK_FILE: &str = "task.json";
pub(crate) const CONFIG_FILE: &str = "config.json";
pub(crate) const INPUTS_FILE: &str = "inputs.json";
pub(crate) const REPORTS_FILE: &str = "reports.json";
/// What pip installs as official agent.
pub(crate) const OFFICIAL_FILE: &str = "official.txt";
/// In the run directory: the interpreter that has it.
const OFFICIAL_PYTHON: &str = "official_python";
/// Packages that the package manager of the image was asked for.
const ASKED_FOR: &str = "asked_for";
/// Says that the files of the configuration are where they shall be.
const FILES_PLACED: &str = "files_placed";
/// In the run directory: what keys that came in have replaced, so that it can be put back.
const SAVED: &str = "saved";

/// The exit code of a preparation that has failed; what went wrong is in the reports.
const FAILED: i32 = 1;

/// `inputs.json`: what is to be known beside task and configuration.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Given {
    pub(crate) run_id: String,
    pub(crate) task: TaskId,
    pub(crate) worker: WorkerId,
    pub(crate) options: RunOptions,
    /// Variables that nobody shall see who looks at the container from outside.
    pub(crate) environment: Vec<(OsText, OsText)>,
    pub(crate) umask: u32,
    /// What the agent sees to itself before the task's own scripts; `None` = somebody else does.
    pub(crate) tools: Option<Tools>,
    /// The official agent runs the task, and not this one.
    #[serde(default)]
    pub(crate) official: Option<Official>,
    /// An image is wanted, and nothing is run.
    #[serde(default)]
    pub(crate) bake: Option<Bake>,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// The environment is being made.
    #[default]
    Preparing,
    /// There will be no user code.
    Failed,
    /// From here on this is the user's program; or what was to be built is there.
    Started,
}

/// `reports.json`: what the agent outside is told.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Reports {
    pub(crate) schema: u32,
    pub(crate) state: State,
    /// Where it failed, why, and the exit code that a program of the user has given.
    pub(crate) stage: String,
    pub(crate) text: String,
    pub(crate) exit_code: Option<i32>,
    pub(crate) packages: Option<Vec<String>>,
    pub(crate) conda: Option<(Vec<String>, Option<Value>)>,
    pub(crate) commit: Option<String>,
    pub(crate) marks: Vec<Mark>,
    pub(crate) baked: Option<Baked>,
    /// There is a command to run when the task is aborted, and that is how long it may take.
    pub(crate) abort_limit_sec: Option<u64>,
}

impl Reports {
    fn of(reported: Reported) -> Self {
        Self {
            packages: reported.packages,
            conda: reported.conda,
            commit: reported.commit,
            marks: reported
                .stations
                .into_iter()
                .map(|(name, (ms, duration))| Mark {
                    name: name.to_owned(),
                    ms,
                    duration_ms: i64::try_from(duration.as_millis()).ok(),
                })
                .collect(),
            ..Self::default()
        }
    }

    /// What is to be written back to the task.
    pub(crate) fn reported(&self) -> Reported {
        Reported {
            packages: self.packages.clone(),
            conda: self.conda.clone(),
            commit: self.commit.clone(),
            ..Reported::default()
        }
    }
}

/// Why the user's program was not started.
struct Failed {
    stage: &'static str,
    text: String,
    exit_code: Option<i32>,
}

impl Failed {
    fn new(stage: &'static str, text: impl Into<String>) -> Self {
        Self {
            stage,
            text: text.into(),
            exit_code: None,
        }
    }
}

impl From<ExecuteError> for Failed {
    fn from(error: ExecuteError) -> Self {
        match error {
            ExecuteError::Prepare { stage, reason } => Self::new(stage, reason),
            ExecuteError::Program { code, reason } => Self {
                exit_code: Some(code),
                ..Self::new("environment", reason)
            },
            error => Self::new("environment", error.to_string()),
        }
    }
}

/// `clearml-agent inside --run DIR --given DIR [--tools]`: prepares the environment and becomes the user's program.
/// With `tools` it only sees to it that the programs are there that the preparation needs. `--callback MILLISECONDS`
/// runs the command for aborts of the program that it has become. Returns the exit code.
pub async fn inside(run: &Path, given: &Path, tools: bool, callback: Option<u64>) -> i32 {
    if let Some(limit) = callback {
        return callback::run(run, given, Duration::from_millis(limit));
    }
    crate::umask::share();
    let loaded = Inside::load(run, given).inspect(Inside::place_files);
    let result = match loaded {
        Ok(inside) if tools => inside.provide().map(|()| 0),
        Ok(inside) => match &inside.given.bake {
            Some(wanted) => Box::pin(inside.bake(wanted)).await,
            None => Box::pin(inside.become_program()).await,
        },
        Err(failed) => Err(failed),
    };
    match result {
        Ok(code) => code,
        Err(failed) => {
            // The agent outside says what went wrong.
            let reports = Reports {
                schema: SCHEMA,
                state: State::Failed,
                stage: failed.stage.to_owned(),
                text: failed.text,
                exit_code: failed.exit_code,
                ..Reports::default()
            };
            if let Err(e) = write(run, &reports) {
                say(&Redactor::new(), &format!("clearml_agent: ERROR: {e}"));
            }
            failed.exit_code.unwrap_or(FAILED)
        }
    }
}

fn write(run: &Path, reports: &Reports) -> Result<(), clearml_support::fs::JsonFileError> {
    write_json_atomic(&run.join(REPORTS_FILE), reports, crate::umask::file_mode())
}

/// The part of the shared caches that belongs to this user. Without it the container has its own ones.
fn shared_caches() -> Option<PathBuf> {
    let own = Path::new(CACHES).join(rustix::process::geteuid().as_raw().to_string());
    create_private_dir(&own).ok()?;
    let usable = own.symlink_metadata().is_ok_and(|meta| meta.is_dir())
        && rustix::fs::access(&own, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    usable.then_some(own)
}

struct Inside {
    run: PathBuf,
    given: Given,
    task: Task,
    settings: Settings,
    run_settings: RunSettings,
    inputs: RunInputs,
}

impl Inside {
    /// Not used unless the task wants a file from the server.
    fn with_files(&self, host: BuildHost) -> BuildHost {
        let client = client_options(&self.settings)
            .ok()
            .and_then(|options| Client::new(options).ok());
        match &client {
            Some(client) => host.with_files(client, self.run_settings.files_server.as_deref()),
            None => host,
        }
    }

    fn load(run: &Path, folder: &Path) -> Result<Self, Failed> {
        let broken = |e: &dyn std::error::Error| Failed::new("infrastructure", e.to_string());
        let given: Given = read_json(&folder.join(INPUTS_FILE)).map_err(|e| broken(&e))?;
        let task: Task = read_json(&folder.join(TASK_FILE)).map_err(|e| broken(&e))?;
        let hidden = |name: &OsString| given.environment.iter().any(|(own, _)| own.0 == *name);
        let environment: Vec<(OsText, OsText)> = std::env::vars_os()
            .filter(|(name, _)| !hidden(name))
            .map(|(name, value)| (OsText(name), OsText(value)))
            .chain(given.environment.iter().cloned())
            .collect();
        let inputs = RunInputs {
            schema: SCHEMA,
            environment,
            umask: given.umask,
            options: given.options.clone(),
            // The token is among the variables.
            owner: None,
        };
        let env: std::collections::BTreeMap<String, String> = inputs
            .environment
            .iter()
            .filter_map(|(name, value)| Some((name.0.to_str()?.to_owned(), value.0.to_str()?.to_owned())))
            .collect();
        // Variables of the container count here: of the agent's own ones, nothing but what was meant for it came in.
        let sources = Sources {
            config_file: Some(folder.join(CONFIG_FILE)),
            home: env.get("HOME").filter(|home| !home.is_empty()).map(Into::into),
            env,
            ..Sources::default()
        };
        let settings = Settings::load(&sources).map_err(|e| broken(&e))?;
        let run_settings = RunSettings::new(&settings, &inputs).map_err(|e| broken(&e))?;
        Ok(Self {
            run: run.to_owned(),
            given,
            task,
            settings,
            run_settings,
            inputs,
        })
    }

    /// Writes the files of the configuration, before the first script and once. Those of an image that is made
    /// are not for others to find.
    fn place_files(&self) {
        let placed = self.run.join(FILES_PLACED);
        if self.given.bake.is_some() || placed.exists() {
            return;
        }
        for notice in self.settings.write_files() {
            say(&self.run_settings.redactor, &notice.text);
        }
        if let Err(e) = std::fs::write(&placed, "") {
            let text = format!("Warning: noting that the files of the configuration are written: {e}");
            say(&self.run_settings.redactor, &text);
        }
    }

    fn provide(&self) -> Result<(), Failed> {
        if self.settings.agent.standalone_mode {
            return Ok(());
        }
        let redactor = &self.run_settings.redactor;
        let failed = |text| Failed::new("environment", text);
        if let Some(tools) = &self.given.tools {
            let saved = self.given.bake.as_ref().map(|_| self.run.join(SAVED));
            let asked = self.run.join(ASKED_FOR);
            let mut told = |line: &str| say(redactor, line);
            tools
                .provide(&self.task, &asked, saved.as_deref(), &mut told)
                .map_err(failed)?;
        }
        if let Some(official) = &self.given.official {
            let list = Path::new(GIVEN).join(OFFICIAL_FILE);
            let note = self.run.join(OFFICIAL_PYTHON);
            official
                .install(&list, &note, &mut |line| say(redactor, line))
                .map_err(failed)?;
        }
        Ok(())
    }

    /// Lets the official agent do the rest.
    fn become_official(&self, official: &Official) -> Result<i32, Failed> {
        let standalone = self.settings.agent.standalone_mode;
        let prepared = official.program(&self.run.join(OFFICIAL_PYTHON), &self.given.task, standalone);
        let redactor = &self.run_settings.redactor;
        say(redactor, &format!("$ {}", show_command(&prepared.argv)));
        let reports = Reports {
            schema: SCHEMA,
            state: State::Started,
            ..Reports::default()
        };
        write(&self.run, &reports).map_err(|e| Failed::new("infrastructure", e.to_string()))?;
        let own = [(OsText::from(RUN_ID), OsText::from(&*self.given.run_id))];
        let set = prepared
            .env
            .iter()
            .filter_map(|(name, value)| Some((OsText(name.clone()), OsText(value.clone()?))));
        let environment = self.inputs.environment.iter().cloned();
        let program = Program {
            // The last one of a name counts.
            environment: environment.chain(own).chain(set).collect(),
            prepared,
            umask: self.given.umask,
        };
        Err(program.replaces_this_process().into())
    }

    async fn become_program(&self) -> Result<i32, Failed> {
        // Done already where there are scripts; then nothing is missing any more.
        self.provide()?;
        let unwritable = |e: clearml_support::fs::JsonFileError| Failed::new("infrastructure", e.to_string());
        let mut reports = Reports {
            schema: SCHEMA,
            ..Reports::default()
        };
        write(&self.run, &reports).map_err(unwritable)?;
        if let Some(official) = &self.given.official {
            return self.become_official(official);
        }
        let redactor = &self.run_settings.redactor;
        let variables = || {
            base(&Parts {
                base: &self.inputs.environment,
                options: &self.inputs.options,
                task: &self.given.task,
                worker: &self.given.worker,
                run_id: Some(&self.given.run_id),
                config: Some(Path::new(CONFIG)),
                configured: &self.run_settings.configured_environment,
            })
        };
        let mut environment = self.run_settings.environment.clone();
        environment.optimization = self.inputs.options.optimization;
        environment.env = strings(variables());
        if let Some(caches) = shared_caches() {
            environment.caches_dir = caches;
        }
        if let Some(python) = environment
            .env
            .get("LOCAL_PYTHON")
            .filter(|python| !python.is_empty())
        {
            environment.python_binary = Some(python.into());
        }
        let folder = place::for_environments(&self.settings.agent.venvs_dir, &mut |line| say(redactor, line))
            .join(safe_file_name(self.given.task.as_str()));
        let host = |host: BuildHost| self.with_files(host);
        let built = silent::build(&self.task, environment, folder, redactor, say, host).await?;
        let Some((prepared, host)) = built else {
            return Ok(TOLD_TO_END);
        };
        say(redactor, &format!("Running task id [{}]:", self.given.task));
        let command = show_command(&prepared.argv);
        say(redactor, &format!("[{}]$ {command}", prepared.cwd.display()));
        say(redactor, &prepared.summary);
        say(redactor, "Environment setup completed successfully");
        let own = self.run_settings.enable_task_env.then_some(&self.task);
        let mut environment = complete(variables(), &prepared.env, own);
        reports = Reports {
            schema: SCHEMA,
            state: State::Started,
            abort_limit_sec: self.note_callback(&prepared.cwd, &mut environment)?,
            ..Reports::of(host.reported())
        };
        write(&self.run, &reports).map_err(unwritable)?;
        say(redactor, "Starting Task Execution:");
        let program = Program {
            environment,
            prepared,
            umask: self.given.umask,
        };
        Err(program.replaces_this_process().into())
    }
}
