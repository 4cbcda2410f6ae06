//! `build`: prepares the environment of a task without running it, in a folder or as an image.
//! `execute --standalone-mode` runs it.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{ArgAction, Args, ValueEnum};
use clearml_agent_config::Sources;
use clearml_api_client::Client;
use clearml_container::engine::Engine;
use clearml_intake::machine::cuda::with_cuda_versions;
use clearml_intake::vaults;
use clearml_support::text::printable;
use clearml_task_runner::settings::client_options;
use clearml_task_runner::{BuildImageOptions, BuildOnlyOptions, Built, BuiltImage};
use serde::Serialize;
use serde_json::Value;

use crate::failure::{say_aside, warn, warn_aside};
use crate::logging::redactor;
use crate::output::print_line;
use crate::task_options::{GpuUse, TaskArguments};

/// The exit code of a build that a signal has ended.
const TOLD_TO_END: i32 = 254;

#[derive(Args)]
pub(crate) struct BuildArguments {
    /// The task, by id or name.
    #[arg(long, value_name = "TASK")]
    id: String,
    /// Where to: a folder, or the name of an image with --docker. Without it, the folder of the version of Python below
    /// agent.venvs_dir, or the image task_id_TASK.
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
    /// The version of Python, instead of the one that the task names.
    #[arg(long, value_name = "VERSION", value_parser = version)]
    python_version: Option<String>,
    /// What the image runs when it is started; without it, whatever it is given.
    #[arg(long, value_enum)]
    entry_point: Option<EntryPoint>,
    /// Print what has been built as JSON; what is being done goes to standard error.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    task: TaskArguments,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum EntryPoint {
    ReuseTask,
    CloneTask,
}

pub(crate) async fn build(options: &BuildArguments, mut sources: Sources) -> anyhow::Result<i32> {
    if options.force_docker {
        let key = "agent.disable_task_docker_override".to_owned();
        sources
            .overrides
            .push((key, Value::Bool(true), "--force-docker".to_owned()));
    }
    let prepared = options.task.prepare(sources, GpuUse::default())?;
    for warning in prepared.settings.warnings() {
        let warning = warning.to_string();
        if options.json {
            warn_aside(&warning);
        } else {
            warn(&warning);
        }
    }
    options.refuse()?;
    if options.docker.is_some() {
        // Before the server is asked for anything.
        let engine = Engine::connect().await;
        engine.context("the image is made in a container (--docker)")?;
    }
    let client = Client::new(client_options(&prepared.settings)?)?;
    let with_vaults = Box::pin(vaults::for_command(&client, &prepared.settings)).await?;
    for line in vaults::shown(&with_vaults.notices, with_vaults.settings.agent.debug) {
        say_aside(line);
    }
    let settings = with_cuda_versions(with_vaults.settings).await?;
    let worker = prepared.identity().of_process();
    let run = options.task.run_options(&prepared.visible);
    match &options.docker {
        Some(words) => {
            let built = clearml_task_runner::build_image(BuildImageOptions {
                task: options.id.clone(),
                target: options.target.clone(),
                words: words.clone(),
                force: options.force_docker,
                entry_point: options.entry_point.map(EntryPoint::of_image),
                python_version: options.python_version.clone(),
                aside: options.json,
                worker,
                run,
                settings,
            });
            options.tell(Box::pin(built).await?, BuiltImage::summary)
        }
        None => {
            let built = clearml_task_runner::build_only(BuildOnlyOptions {
                task: options.id.clone(),
                target: options.target.as_ref().map(PathBuf::from),
                globally: options.install_globally,
                python_version: options.python_version.clone(),
                aside: options.json,
                worker,
                run,
                settings,
            });
            options.tell(Box::pin(built).await?, Built::summary)
        }
    }
}

impl EntryPoint {
    fn of_image(self) -> clearml_task_runner::EntryPoint {
        match self {
            Self::ReuseTask => clearml_task_runner::EntryPoint::ReuseTask,
            Self::CloneTask => clearml_task_runner::EntryPoint::CloneTask,
        }
    }
}

impl BuildArguments {
    /// Refuses what makes no sense together.
    fn refuse(&self) -> anyhow::Result<()> {
        for (given, option) in [
            (self.entry_point.is_some(), "--entry-point"),
            (self.force_docker, "--force-docker"),
        ] {
            if given && self.docker.is_none() {
                bail!("{option} needs --docker: it is about the image");
            }
        }
        if self.target.as_deref().is_some_and(str::is_empty) {
            let what = if self.docker.is_some() {
                "an image"
            } else {
                "a folder"
            };
            bail!("--target is empty; name {what}, or leave it away");
        }
        Ok(())
    }

    /// Prints what was built. Returns the exit code.
    fn tell<T: Serialize>(&self, built: Option<T>, summary: fn(&T) -> String) -> anyhow::Result<i32> {
        match built {
            None => return Ok(TOLD_TO_END),
            Some(built) if self.json => {
                print_line(format_args!("{:#}", serde_json::to_value(&built)?))?;
            }
            Some(built) => print_line(printable(&redactor().redact(&summary(&built))))?,
        }
        Ok(0)
    }
}

/// A version that the name of an interpreter may end with.
fn version(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split('.').collect();
    let is_number =
        |part: &&str| !part.is_empty() && part.len() < 5 && part.bytes().all(|byte| byte.is_ascii_digit());
    if parts.len() <= 3 && parts.iter().all(is_number) {
        Ok(text.to_owned())
    } else {
        Err("give a version such as 3.11".to_owned())
    }
}
