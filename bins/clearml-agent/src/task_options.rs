//! The options that `daemon`, `execute` and `build` have in common, and what follows from them.

use clap::{ArgAction, Args, ValueEnum};
use clearml_agent_config::{Settings, Sources};
use clearml_intake::{GpuOptions, Identity, Visible, visible};
use clearml_task_runner::RunOptions;
use serde_json::Value;

use crate::failure::{say_aside, warn};
use crate::logging::redactor;

#[derive(Args)]
pub(crate) struct TaskArguments {
    /// Optimise Python code (-O); twice also drops its documentation strings (-OO).
    #[arg(short = 'O', action = ArgAction::Count)]
    optimization: u8,
    /// Git user name; overrides agent.git_user.
    #[arg(long, value_name = "NAME")]
    git_user: Option<String>,
    /// Git password or token; overrides agent.git_pass. Visible to other users of this machine: prefer the
    /// configuration file or CLEARML_AGENT_GIT_PASS.
    #[arg(long, value_name = "PASSWORD")]
    git_pass: Option<String>,
    /// Log level of the ClearML SDK inside the task.
    #[arg(long, value_enum, ignore_case = true, default_value = "INFO")]
    log_level: LogLevel,
    /// GPUs that tasks see: numbers, ranges, MIG slices (0:1), identifiers, all, or none.
    #[arg(long, value_name = "GPUS")]
    pub(crate) gpus: Option<String>,
    /// Let tasks see no GPU.
    #[arg(long)]
    pub(crate) cpu_only: bool,
}

/// The names are the SDK's.
#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "UPPER")]
enum LogLevel {
    Debug,
    Info,
    Warn,
    Warning,
    Error,
    Critical,
}

/// The GPUs of a command, as far as something other than its own options decides them.
#[derive(Clone, Copy, Default)]
pub(crate) struct GpuUse {
    /// The command has no use for GPUs, whatever is asked for.
    pub(crate) none: bool,
    /// `--gpus` is a pool.
    pub(crate) dynamic: bool,
}

/// Configuration and GPUs of a command that runs tasks.
pub(crate) struct Prepared {
    pub(crate) sources: Sources,
    pub(crate) settings: Settings,
    pub(crate) visible: Visible,
    pub(crate) dynamic: bool,
}

impl TaskArguments {
    /// Loads the configuration and works out the GPUs.
    pub(crate) fn prepare(&self, mut sources: Sources, gpu_use: GpuUse) -> anyhow::Result<Prepared> {
        sources.overrides.extend(self.overrides());
        if self.cpu_only || gpu_use.none {
            let option = "--cpu-only".to_owned();
            sources
                .overrides
                .push(("agent.cpu_only".to_owned(), Value::Bool(true), option));
        }
        let settings = Settings::load(&sources)?;
        settings.register_secrets(redactor());
        let options = GpuOptions {
            gpus: self.gpus.as_deref().filter(|_| !gpu_use.none),
            cpu_only: settings.agent.cpu_only,
            dynamic: gpu_use.dynamic,
        };
        let visible = visible(options, |name| sources.env.get(name).cloned())?;
        Ok(Prepared {
            sources,
            settings,
            visible,
            dynamic: gpu_use.dynamic,
        })
    }

    /// Whether GPUs are asked for; `--cpu-only` says that their version of CUDA does not matter.
    pub(crate) fn wants_gpus(&self) -> bool {
        let named = self
            .gpus
            .as_deref()
            .is_some_and(|gpus| !matches!(gpus, "" | "none"));
        named && !self.cpu_only
    }

    /// What a task gets from the command line, whichever way it is started.
    pub(crate) fn run_options(&self, visible: &Visible) -> RunOptions {
        let level = self.log_level.to_possible_value();
        RunOptions {
            optimization: self.optimization,
            log_level: level.map(|level| level.get_name().to_owned()),
            variables: visible
                .variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
            ..RunOptions::default()
        }
    }

    /// The configuration keys that these options override.
    fn overrides(&self) -> Vec<(String, Value, String)> {
        let git = [
            ("agent.git_user", &self.git_user, "--git-user"),
            ("agent.git_pass", &self.git_pass, "--git-pass"),
        ];
        git.into_iter()
            .filter_map(|(key, value, flag)| {
                let value = value.as_ref()?;
                Some((key.to_owned(), Value::from(value.as_str()), flag.to_owned()))
            })
            .collect()
    }
}

impl Prepared {
    /// Says what was odd about it. Not where the output is data.
    pub(crate) fn warn(&self) {
        for warning in self.settings.warnings() {
            warn(&warning.to_string());
        }
        for notice in self.settings.login_notices() {
            say_aside(&notice);
        }
        if self.visible.ignored {
            warn("--gpus is ignored in a Kubernetes pod: the scheduler has chosen its GPUs");
        }
    }

    /// Who the worker is, apart from the slot.
    pub(crate) fn identity(&self) -> Identity {
        let agent = &self.settings.agent;
        Identity {
            name: agent.worker_name.clone(),
            explicit: agent.worker_id.clone(),
            visible: self.visible.shown.clone(),
            dynamic: self.dynamic,
        }
    }
}

/// Refuses what this version does not have yet, instead of doing something else.
pub(crate) fn not_yet(what: &str, instead: &str) -> anyhow::Error {
    anyhow::anyhow!("{what} is not supported by this version of the agent yet; {instead}")
}
