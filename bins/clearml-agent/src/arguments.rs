//! The command line. Option names and their meaning are those of the official agent.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{ArgAction, CommandFactory, Parser, Subcommand};
use clearml_agent_config::Sources;
use serde_json::Value;

use crate::commands::{
    BootstrapArguments, BuildArguments, CompletionsArguments, ConfigArguments, DaemonArguments,
    DoctorArguments, ExecuteArguments, InitArguments, ListArguments, ReferenceArguments, ServerArguments,
    StatusArguments,
};
use crate::logging::LogFormat;

/// What `--version` prints.
pub(crate) const VERSION_LINE: &str = concat!("CLEARML-AGENT version ", env!("CARGO_PKG_VERSION"));

/// Reads a value of an option, and says in words what it should have been.
pub(crate) fn expected<T: FromStr>(what: &'static str) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| text.parse().map_err(|_| format!("expected {what}"))
}

/// Runs machine-learning tasks from ClearML queues.
#[derive(Parser)]
#[command(
    name = "clearml-agent",
    about = "Runs machine-learning tasks from ClearML queues",
    before_help = "CLEARML-AGENT AI Orchestration DevOps",
    display_name = "CLEARML-AGENT",
    version = concat!("version ", env!("CARGO_PKG_VERSION")),
    disable_help_subcommand = true,
    disable_version_flag = true,
    args_override_self = true
)]
pub(crate) struct Arguments {
    /// The configuration file to use instead of the default ones.
    #[arg(long, value_name = "PATH")]
    pub(crate) config_file: Option<PathBuf>,
    /// Print debug messages, and where errors come from.
    #[arg(long, short)]
    pub(crate) debug: bool,
    /// The form of the log: lines for people, or a JSON object per line. CLEARML_AGENT_LOG_FORMAT otherwise.
    #[arg(long, value_enum, value_name = "FORM", ignore_case = true)]
    pub(crate) log_format: Option<LogFormat>,
    /// Print the version.
    #[arg(long, action = ArgAction::Version)]
    version: Option<bool>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run one task.
    #[command(args_override_self = true)]
    Execute(Box<ExecuteArguments>),
    /// Prepare the environment of a task without running it.
    #[command(args_override_self = true)]
    Build(Box<BuildArguments>),
    /// Poll queues and run their tasks.
    #[command(args_override_self = true)]
    Daemon(Box<DaemonArguments>),
    /// Serve the ClearML API from a folder on this machine, for trying, teaching and tests.
    #[command(args_override_self = true)]
    Server(ServerArguments),
    /// Show the workers that the server knows.
    List(ListArguments),
    /// Show the effective configuration, secrets masked.
    Config(ConfigArguments),
    /// Set up this machine: from credentials to a configuration file that works.
    #[command(args_override_self = true)]
    Init(Box<InitArguments>),
    /// Examine this machine and the way to the server, and say what to do about it.
    #[command(args_override_self = true)]
    Doctor(DoctorArguments),
    /// Show what the agents of this machine do, also while the server is away.
    #[command(args_override_self = true)]
    Status(StatusArguments),
    /// Print what a shell needs to complete this command line.
    Completions(CompletionsArguments),
    /// Write the reference pages and manual pages.
    #[command(hide = true)]
    Reference(ReferenceArguments),
    /// Does nothing: this agent needs no package inside of containers. For scripts of the official agent.
    #[command(args_override_self = true)]
    InstallBootstrap(BootstrapArguments),
    /// Supervise runs. Started by the agent itself.
    #[command(hide = true)]
    Runner {
        /// The run directory.
        #[arg(long, required_unless_present = "services")]
        run: Option<PathBuf>,
        /// A folder with links to the run directories of many runs, instead.
        #[arg(long, conflicts_with = "run")]
        services: Option<PathBuf>,
    },
    /// Hold the process of one run. Started by the agent itself.
    #[command(hide = true)]
    Shim {
        /// The run directory.
        #[arg(long)]
        run: PathBuf,
    },
    /// Prepare and become the program of a task, in its container. Started by the agent itself.
    #[command(hide = true)]
    Inside {
        /// The run directory of the shim.
        #[arg(long)]
        run: PathBuf,
        /// The folder with what came in.
        #[arg(long)]
        given: PathBuf,
        /// Only see to it that the programs are there that are needed.
        #[arg(long)]
        tools: bool,
        /// Only run the command for aborts, for so many milliseconds at most.
        #[arg(long)]
        callback: Option<u64>,
    },
}

/// The whole command line as clap knows it.
pub(crate) fn command() -> clap::Command {
    Arguments::command()
}

/// The sources of configuration that the global options decide.
pub(crate) fn sources(config_file: Option<&Path>, debug: bool) -> anyhow::Result<Sources> {
    let mut sources = Sources::from_process();
    sources.fetch = Some(crate::included::fetch());
    if let Some(given) = config_file {
        let path = expand(given, &sources);
        let path = std::path::absolute(&path).unwrap_or(path);
        if !path.is_file() {
            anyhow::bail!(
                "Could not open configuration file: {}; check --config-file",
                path.display()
            );
        }
        sources.config_file = Some(path);
    }
    if debug {
        sources
            .overrides
            .push(("agent.debug".to_owned(), Value::Bool(true), "--debug".to_owned()));
    }
    Ok(sources)
}

/// `~` and `$VARIABLE`, which no shell has seen where the option came from a file. What is unknown stays.
fn expand(path: &Path, sources: &Sources) -> PathBuf {
    let Some(text) = path.to_str() else {
        return path.to_owned();
    };
    let at_home = match (text.strip_prefix('~'), &sources.home) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
            format!("{}{rest}", home.display())
        }
        _ => text.to_owned(),
    };
    let mut out = String::new();
    let mut rest = at_home.as_str();
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let plain = |text: &str| {
            text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(text.len())
        };
        let (name, used) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((name, _)) => (name, name.len() + 2),
            None => (&after[..plain(after)], plain(after)),
        };
        match sources.env.get(name).filter(|_| !name.is_empty()) {
            Some(value) => out.push_str(value),
            None => out.push_str(&rest[at..at + 1 + used]),
        }
        rest = &after[used..];
    }
    out.push_str(rest);
    out.into()
}

/// Prints the overview of commands to standard output.
pub(crate) fn print_help() -> std::io::Result<()> {
    command().print_help()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_the_configuration_may_have_a_home_and_variables() {
        let sources = Sources {
            home: Some("/home/me".into()),
            env: [
                ("A".to_owned(), "x".to_owned()),
                ("AB".to_owned(), "y".to_owned()),
            ]
            .into(),
            ..Sources::default()
        };
        for (text, expected) in [
            ("~/a.conf", "/home/me/a.conf"),
            ("~", "/home/me"),
            ("~other/a", "~other/a"),
            ("/$A/${AB}c/$AB.conf", "/x/yc/y.conf"),
            ("/$NONE/${NONE}/$/a$", "/$NONE/${NONE}/$/a$"),
            ("a.conf", "a.conf"),
        ] {
            assert_eq!(expand(Path::new(text), &sources), PathBuf::from(expected));
        }
    }

    #[test]
    fn clap_finds_no_fault_in_the_declarations() {
        command().debug_assert();
    }
}
