//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use serde_json::Value;

const EXAMPLES: &str = "\
Examples:
  Look whether everything is as it should be; nothing is submitted:
    clearml-agent-slurm --queue gpu --template-files native.sh --check
  Serve two queues, each with its template, and create them if they are missing:
    clearml-agent-slurm --queue gpu cpu --template-files gpu.sh cpu.sh --create-queue
  What would be submitted for a task:
    clearml-agent-slurm --queue gpu --template-files native.sh --render 0123456789abcdef0123456789abcdef
  What is tracked, and the end of a glue; its jobs go on:
    clearml-agent-slurm --status
    clearml-agent-slurm --stop

Templates and the keys agent.slurm.* of clearml.conf are explained in docs/guides/slurm.md.

Exit codes: 0 in order; 1 a finding, or a wrong configuration; 2 a wrong command line; 3 another glue works;
4 the server does not let the glue in; 5 Slurm's commands are missing.";

/// Runs tasks of ClearML queues as jobs of a Slurm cluster.
#[derive(Parser)]
#[command(name = "clearml-agent-slurm", version, args_override_self = true, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Templates of batch scripts: one, or one for each queue.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub(crate) template_files: Vec<String>,
    /// Queues to serve, by name or id, the most important one first.
    #[arg(long, num_args = 1.., value_name = "QUEUE")]
    pub(crate) queue: Vec<String>,
    /// The template calls singularity or apptainer; the task's image is filled in.
    #[arg(long, conflicts_with = "srun_delegation")]
    pub(crate) singularity_mode: bool,
    /// The agent is started by srun at the end of the template.
    #[arg(long)]
    pub(crate) srun_delegation: bool,
    /// The configuration file to use instead of the default ones.
    #[arg(long, value_name = "PATH")]
    pub(crate) config_file: Option<PathBuf>,
    /// Print every command of Slurm, and more.
    #[arg(long, short)]
    pub(crate) debug: bool,
    /// How much to print.
    #[arg(long, value_enum, ignore_case = true, value_name = "LEVEL")]
    pub(crate) log_level: Option<LogLevel>,
    /// Stay in the foreground, which is the default.
    #[arg(long, conflicts_with = "detached")]
    foreground: bool,
    /// Work in the background; what is printed goes to glue.log in the folder of the journal.
    #[arg(long)]
    pub(crate) detached: bool,
    /// The process that --detached has started.
    #[arg(long, hide = true)]
    pub(crate) in_background: bool,
    /// Create queues that do not exist.
    #[arg(long)]
    pub(crate) create_queue: bool,
    /// Take one task of each queue in turn instead of starting with the first queue every time.
    #[arg(long)]
    pub(crate) order_fairness: bool,
    /// Run each task with a token of its owner, which takes a server and credentials that allow it.
    #[arg(long)]
    pub(crate) use_owner_token: bool,
    /// The queue in which tasks wait for their jobs, slurm_scheduler otherwise; none: no queue.
    #[arg(long, value_name = "NAME")]
    pub(crate) parking_queue: Option<String>,
    /// Most jobs, waiting and running, over all queues; 0: no limit.
    #[arg(long, value_name = "N")]
    pub(crate) max_jobs: Option<usize>,
    /// Most waiting jobs over all queues; 0: no limit.
    #[arg(long, value_name = "N")]
    pub(crate) max_pending: Option<usize>,
    /// Seconds between looks at the jobs, at least 5; 15 otherwise.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(5..))]
    poll_interval: Option<u64>,
    /// Seconds between looks at the queues; 5 otherwise.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    queue_poll_interval: Option<u64>,
    /// What becomes of a task whose job is cancelled by preemption.
    #[arg(long, value_enum)]
    pub(crate) on_preemption: Option<Preemption>,
    /// The folder of the journal; one named like the glue in ~/.clearml/slurm otherwise.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) state_dir: Option<PathBuf>,
    /// What separates a path from its default in templates, one to three characters; a colon otherwise.
    #[arg(long, value_name = "TEXT")]
    default_separator: Option<String>,
    /// Override a value of the configuration.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Look at templates, queues, user map and Slurm, print what is found, and submit nothing.
    #[arg(long)]
    pub(crate) check: bool,
    /// Print the script that would be submitted for this task, secrets masked.
    #[arg(long, value_name = "TASK")]
    pub(crate) render: Option<String>,
    /// One look at everything, and at most one task of each queue.
    #[arg(long)]
    pub(crate) once: bool,
    /// Show whether a glue works, and the tasks that are tracked. Queues need not be named.
    #[arg(long)]
    pub(crate) status: bool,
    /// End the glue that works with this folder of the journal. Its jobs go on. Queues need not be named.
    #[arg(long)]
    pub(crate) stop: bool,
    /// Take nothing, follow the jobs that there are, and end with the last of them.
    #[arg(long)]
    pub(crate) drain: bool,
}

/// What `--log-level` says.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum LogLevel {
    /// Everything that may explain something.
    Debug,
    /// What happens.
    Info,
    /// What may be wrong.
    Warning,
    /// What is wrong.
    Error,
    /// The same.
    Critical,
}

/// What `--on-preemption` says.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Preemption {
    /// It is stopped.
    Stop,
    /// It fails.
    Fail,
    /// It goes back to its queue.
    Requeue,
}

impl Arguments {
    /// The configuration keys that options override.
    pub(crate) fn overrides(&self) -> anyhow::Result<Vec<(String, Value, String)>> {
        let mut overrides = Vec::new();
        let mut add = |key: &str, value: Option<Value>, option: &str| {
            if let Some(value) = value {
                overrides.push((key.to_owned(), value, option.to_owned()));
            }
        };
        add(
            "agent.slurm.poll_interval",
            self.poll_interval.map(Value::from),
            "--poll-interval",
        );
        add(
            "agent.slurm.queue_poll_interval",
            self.queue_poll_interval.map(Value::from),
            "--queue-poll-interval",
        );
        let separator = self.default_separator.as_deref();
        add(
            "agent.slurm.default_separator",
            separator.map(Value::from),
            "--default-separator",
        );
        for text in &self.set {
            let (key, value) = text.split_once('=').ok_or_else(|| {
                anyhow::anyhow!("--set {text}: write KEY=VALUE, such as agent.slurm.end_grace=30")
            })?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
            overrides.push((key.to_owned(), value, "--set".to_owned()));
        }
        Ok(overrides)
    }

    /// The queue whose template is shown.
    pub(crate) fn queue_of_render(&self) -> Option<&str> {
        match &self.queue[..] {
            [one] => Some(one),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn clap_finds_no_fault_in_the_declarations() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn lists_and_overrides_are_understood() {
        let arguments = Arguments::try_parse_from([
            "x",
            "--queue",
            "a",
            "b",
            "--template-files",
            "t",
            "--set",
            "agent.slurm.end_grace=3",
            "--poll-interval",
            "7",
        ])
        .unwrap();
        assert_eq!(arguments.queue, ["a", "b"]);
        let overrides = arguments.overrides().unwrap();
        assert_eq!(overrides[0].1, Value::from(7));
        assert_eq!(overrides[1].0, "agent.slurm.end_grace");
        assert!(Arguments::try_parse_from(["x", "--poll-interval", "4"]).is_err());
    }
}
