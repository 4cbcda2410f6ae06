//! `build`: prepares the environment of a task without running it.

use anyhow::bail;
use clap::{ArgAction, Args, ValueEnum};
use clearml_agent_config::Sources;

use crate::containers::Containers;
use crate::task_options::{GpuUse, TaskArguments, not_yet};

#[derive(Args)]
pub(crate) struct BuildArguments {
    /// The task, by id or name.
    #[arg(long, value_name = "TASK")]
    id: String,
    /// Where to: a folder, or the name of an image with --docker.
    #[arg(long, value_name = "FOLDER OR IMAGE")]
    target: Option<String>,
    /// Install packages into the interpreter itself.
    #[arg(long)]
    install_globally: bool,
    /// Build in a container and keep it as an image.
    #[arg(long, num_args = 0.., action = ArgAction::Set, value_name = "IMAGE")]
    docker: Option<Vec<String>>,
    /// Use the image of --docker even if the task names another.
    #[arg(long)]
    force_docker: bool,
    /// The version of Python.
    #[arg(long, value_name = "VERSION")]
    python_version: Option<String>,
    /// What the image runs when it is started.
    #[arg(long, value_enum)]
    entry_point: Option<EntryPoint>,
    #[command(flatten)]
    task: TaskArguments,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum EntryPoint {
    ReuseTask,
    CloneTask,
}

pub(crate) fn build(options: &BuildArguments, sources: Sources) -> anyhow::Result<i32> {
    let prepared = options.task.prepare(sources, GpuUse::default())?;
    prepared.warn();
    let containers = Containers {
        docker: options.docker.as_deref(),
        podman: None,
    };
    for (given, option) in [
        (options.entry_point.is_some(), "--entry-point"),
        (options.force_docker, "--force-docker"),
    ] {
        if given && !containers.wanted() {
            bail!("{option} needs --docker: it is about the image");
        }
    }
    containers.check()?;
    let mut what = format!("building the environment of task {}", options.id);
    if containers.wanted() {
        what.push_str(" as an image (--docker)");
    }
    if let Some(target) = &options.target {
        what.push_str(&format!(" at {target}"));
    }
    if options.install_globally {
        what.push_str(" into the interpreter (--install-globally)");
    }
    if let Some(version) = &options.python_version {
        what.push_str(&format!(" for Python {version}"));
    }
    Err(not_yet(
        &what,
        "`clearml-agent execute` builds it and runs the task",
    ))
}
