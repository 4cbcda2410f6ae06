//! `build`: prepares the environment of a task without running it. `execute --standalone-mode` runs it.

use std::path::PathBuf;

use anyhow::bail;
use clap::{ArgAction, Args, ValueEnum};
use clearml_agent_config::Sources;
use clearml_api_client::Client;
use clearml_intake::machine::cuda::with_cuda_versions;
use clearml_intake::vaults;
use clearml_support::text::printable;
use clearml_task_runner::BuildOnlyOptions;
use clearml_task_runner::settings::client_options;

use crate::failure::{say_aside, warn, warn_aside};
use crate::logging::redactor;
use crate::output::print_line;
use crate::task_options::{GpuUse, TaskArguments, not_yet};

/// The exit code of a build that a signal has ended.
const TOLD_TO_END: i32 = 254;

#[derive(Args)]
pub(crate) struct BuildArguments {
    /// The task, by id or name.
    #[arg(long, value_name = "TASK")]
    id: String,
    /// Where to: a folder, or the name of an image with --docker. Without it, the folder of the version of Python below
    /// agent.venvs_dir.
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
    /// What the image runs when it is started.
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

pub(crate) async fn build(options: &BuildArguments, sources: Sources) -> anyhow::Result<i32> {
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
    let client = Client::new(client_options(&prepared.settings)?)?;
    let with_vaults = Box::pin(vaults::for_command(&client, &prepared.settings)).await?;
    for line in vaults::shown(&with_vaults.notices, with_vaults.settings.agent.debug) {
        say_aside(line);
    }
    let built = clearml_task_runner::build_only(BuildOnlyOptions {
        task: options.id.clone(),
        target: options.target.as_ref().map(PathBuf::from),
        globally: options.install_globally,
        python_version: options.python_version.clone(),
        aside: options.json,
        worker: prepared.identity().of_process(),
        run: options.task.run_options(&prepared.visible),
        settings: with_cuda_versions(with_vaults.settings).await?,
    });
    match Box::pin(built).await? {
        None => Ok(TOLD_TO_END),
        Some(built) if options.json => {
            print_line(format_args!("{:#}", serde_json::to_value(&built)?))?;
            Ok(0)
        }
        Some(built) => {
            print_line(printable(&redactor().redact(&built.summary())))?;
            Ok(0)
        }
    }
}

impl BuildArguments {
    /// Refuses what is about images.
    fn refuse(&self) -> anyhow::Result<()> {
        let in_container = self.docker.is_some();
        for (given, option) in [
            (self.entry_point.is_some(), "--entry-point"),
            (self.force_docker, "--force-docker"),
        ] {
            if given && !in_container {
                bail!("{option} needs --docker: it is about the image");
            }
        }
        if in_container {
            let what = format!("building task {} as an image (--docker)", self.id);
            let instead = "`clearml-agent build` without --docker makes a folder, and `clearml-agent execute --docker` \
                           runs the task in a container";
            return Err(not_yet(&what, instead));
        }
        if self.target.as_deref().is_some_and(str::is_empty) {
            bail!("--target is empty; name a folder, or leave it away");
        }
        Ok(())
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
