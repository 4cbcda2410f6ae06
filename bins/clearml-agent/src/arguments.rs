//! The command line. Option names and their meaning are those of the official agent.

use std::path::PathBuf;

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clearml_agent_config::Sources;
use clearml_task_runner::RunOptions;
use serde_json::Value;

use crate::commands::{ConfigArguments, DaemonArguments, ExecuteArguments, ListArguments, ServerArguments};

/// What `--version` prints.
pub(crate) const VERSION_LINE: &str = concat!("CLEARML-AGENT version ", env!("CARGO_PKG_VERSION"));

/// Runs machine-learning tasks from ClearML queues.
#[derive(Parser)]
#[command(
    name = "clearml-agent",
    about = "CLEARML-AGENT AI Orchestration DevOps: runs machine-learning tasks from ClearML queues",
    display_name = "CLEARML-AGENT",
    version = concat!("version ", env!("CARGO_PKG_VERSION")),
    disable_help_subcommand = true,
    disable_version_flag = true,
    infer_long_args = true,
    args_override_self = true
)]
pub(crate) struct Arguments {
    /// The configuration file to use instead of the default ones.
    #[arg(long, value_name = "PATH")]
    pub(crate) config_file: Option<PathBuf>,
    /// Print debug messages, and where errors come from.
    #[arg(long, short)]
    pub(crate) debug: bool,
    /// Print the version.
    #[arg(long, action = ArgAction::Version)]
    version: Option<bool>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Poll queues and run their tasks.
    #[command(infer_long_args = true, args_override_self = true)]
    Daemon(DaemonArguments),
    /// Run one task.
    #[command(infer_long_args = true, args_override_self = true)]
    Execute(ExecuteArguments),
    /// Serve the ClearML API from a folder on this machine, for trying, teaching and tests.
    #[command(infer_long_args = true, args_override_self = true)]
    Server(ServerArguments),
    /// Show the workers that the server knows.
    List(ListArguments),
    /// Show the effective configuration, secrets masked.
    Config(ConfigArguments),
    /// Supervise one run. Started by the agent itself.
    #[command(hide = true)]
    Runner {
        /// The run directory.
        #[arg(long)]
        run: PathBuf,
    },
    /// Hold the process of one run. Started by the agent itself.
    #[command(hide = true)]
    Shim {
        /// The run directory.
        #[arg(long)]
        run: PathBuf,
    },
}

/// Options shared by `daemon` and `execute`.
#[derive(Args)]
pub(crate) struct TaskArguments {
    /// Optimise Python code (-O); twice also drops its documentation strings (-OO).
    #[arg(short = 'O', action = ArgAction::Count)]
    pub(crate) optimization: u8,
    /// Git user name; overrides agent.git_user.
    #[arg(long, value_name = "NAME")]
    pub(crate) git_user: Option<String>,
    /// Git password or token; overrides agent.git_pass. Visible to other users of this machine: prefer the
    /// configuration file or CLEARML_AGENT_GIT_PASS.
    #[arg(long, value_name = "PASSWORD")]
    pub(crate) git_pass: Option<String>,
    /// Log level of the ClearML SDK inside the task.
    #[arg(long, value_enum, ignore_case = true, default_value = "INFO")]
    pub(crate) log_level: LogLevel,
}

impl TaskArguments {
    /// What a task gets from the command line, whichever way it is started.
    pub(crate) fn run_options(&self) -> RunOptions {
        RunOptions {
            optimization: self.optimization,
            log_level: Some(self.log_level.name()),
            ..RunOptions::default()
        }
    }

    /// The configuration keys that these options override.
    pub(crate) fn overrides(&self) -> Vec<(String, Value, String)> {
        let git = [
            ("agent.git_user", &self.git_user, "--git-user"),
            ("agent.git_pass", &self.git_pass, "--git-pass"),
        ];
        git.into_iter()
            .filter_map(|(key, value, flag)| {
                let value = value.as_ref()?;
                Some((
                    key.to_owned(),
                    Value::from(value.as_str()),
                    format!("command line {flag}"),
                ))
            })
            .collect()
    }
}

/// The names are the SDK's.
#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "UPPER")]
pub(crate) enum LogLevel {
    Debug,
    Info,
    Warn,
    Warning,
    Error,
    Critical,
}

impl LogLevel {
    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }
}

/// The sources of configuration that the global options decide.
pub(crate) fn sources(config_file: Option<PathBuf>, debug: bool) -> Sources {
    let mut sources = Sources::from_process();
    sources.config_file = config_file.or(sources.config_file);
    if debug {
        sources.overrides.push((
            "agent.debug".to_owned(),
            Value::Bool(true),
            "command line --debug".to_owned(),
        ));
    }
    sources
}

/// Prints the overview of commands to standard output.
pub(crate) fn print_help() -> std::io::Result<()> {
    Arguments::command().print_help()
}
