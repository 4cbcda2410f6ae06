//! `build --docker`: the environment of a task as an image.
//!
//! A container is made of the base image as for a task, and the agent inside makes the environment instead of
//! running anything. Then the container becomes the image. Whatever is secret comes in through mounts, which never
//! become part of an image: the configuration, keys, caches, and also the variables of container arguments. The
//! container itself has no variables and no labels but one, since an image keeps those of its container. Inside,
//! everything that was written is searched for secrets before the container ends.
//!
//! Each build has a run directory of its own, below a folder where no daemon looks for tasks. A build that was
//! killed leaves it, and the next build removes it together with its container. The name of the image is given by
//! the engine at the very end, so that there are no half images.

mod outcome;
mod steps;

use std::sync::Arc;

use clearml_agent_config::Settings;
use clearml_api_client::Client;
use clearml_container::engine::{Engine, ImageReference};
use clearml_task_model::{Task, TaskId, WorkerId};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

pub use outcome::{BuiltImage, EntryPoint, ImageProgram};

use super::super::{Runner, RunnerOptions};
use crate::console::render::RenderOptions;
use crate::execute::follow::Follower;
use crate::execute::{ExecuteError, find, id_of};
use crate::record::{Failure, RunInputs, RunOptions};
use crate::run_dir::{NewRun, RunDir, RunStore};
use crate::settings::client_options;

/// Below the state folder: builds that are at work.
const FOLDER: &str = "images";

/// What to build.
#[derive(Debug, Clone)]
pub struct BuildImageOptions {
    /// Id, or name if it is the only task of that name.
    pub task: String,
    /// The name of the image; `task_id_<id>` otherwise.
    pub target: Option<String>,
    /// Base image and container arguments; those of the task or of the configuration where there are none.
    pub words: Vec<String>,
    /// The task's own setup script does not count; nor does its image, with `agent.disable_task_docker_override`.
    pub force: bool,
    /// What the image runs.
    pub entry_point: Option<EntryPoint>,
    /// The version of Python, whatever the task says.
    pub python_version: Option<String>,
    /// Progress is told on standard error, since standard output is data.
    pub aside: bool,
    /// Whose name the variables of the build bear.
    pub worker: WorkerId,
    /// Options that reach the build.
    pub run: RunOptions,
    /// The configuration.
    pub settings: Settings,
}

/// Builds an image; `None` when a signal has ended that.
///
/// # Errors
///
/// When there is no such task, the engine does not answer or says no, or the environment can't be made. Then there
/// is no image, and an earlier one of that name stays.
pub async fn build_image(options: BuildImageOptions) -> Result<Option<BuiltImage>, ExecuteError> {
    let wish = options.target.as_deref().map(image_name).transpose()?;
    let client = Client::new(client_options(&options.settings)?)?;
    client.login().await?;
    let task = find(&client, &options.task).await?;
    let id = id_of(&task, &client)?;
    let target = match wish {
        Some(target) => target,
        None => image_name(&format!("task_id_{}", id.as_str().to_ascii_lowercase()))?,
    };
    let engine = Engine::connect()
        .await
        .map_err(|e| refused("infrastructure", e.to_string()))?;
    let store = RunStore::open(&options.settings.agent.state_dir.join(FOLDER))?;
    sweep(&store, &engine).await?;
    let (run, _keeper) = store.create(NewRun {
        task: id.clone(),
        queue: None,
        worker: options.worker.clone(),
    })?;
    let built = Box::pin(build_in(&run, &options, &task, &id, &target)).await;
    // There are secrets in it.
    if let Err(e) = run.remove() {
        tracing::warn!("{e}");
    }
    built
}

async fn build_in(
    run: &RunDir,
    options: &BuildImageOptions,
    task: &Task,
    id: &TaskId,
    target: &ImageReference,
) -> Result<Option<BuiltImage>, ExecuteError> {
    let settings = &options.settings;
    let inputs = RunInputs::from_process(options.run.clone());
    run.write_inputs(&settings.effective_json(), &inputs)?;
    run.make_box()?;
    let listen = |kind| {
        signal(kind).map_err(|source| ExecuteError::System {
            doing: "listening for signals",
            source,
        })
    };
    let mut signals = [
        listen(SignalKind::interrupt())?,
        listen(SignalKind::terminate())?,
        listen(SignalKind::hangup())?,
    ];
    let lock = run.lock()?;
    let lock = lock.ok_or_else(|| refused("infrastructure", "the new build has no lock".to_owned()))?;
    let runner = Runner::new(run.clone(), RunnerOptions::default(), lock)?;
    let follower = Follower::new(
        (&run.console_dir(), &run.task_console_dir()),
        RenderOptions {
            suppress_carriage_return: settings.agent.suppress_carriage_return,
        },
        settings.secrets(),
        None,
        Arc::default(),
    );
    let (done, is_done) = watch::channel(false);
    let showing = async {
        if let Err(e) = follower.aside(options.aside).run(is_done).await {
            tracing::warn!("showing what is being done: {e}");
        }
    };
    let working = async {
        let [interrupt, terminate, hangup] = &mut signals;
        let made = tokio::select! {
            made = Box::pin(runner.bake(task, options, settings, target)) => made.map(Some),
            _ = interrupt.recv() => Ok(None),
            _ = terminate.recv() => Ok(None),
            _ = hangup.recv() => Ok(None),
        };
        runner.remove_baking().await;
        done.send_replace(true);
        made
    };
    let (made, ()) = tokio::join!(working, showing);
    made.map(|made| made.map(|made| made.of(id.clone())))
        .map_err(of_failure)
}

/// Removes what builds have left that were killed.
async fn sweep(store: &RunStore, engine: &Engine) -> Result<(), ExecuteError> {
    for run in store.list()? {
        let Ok(Some(_keeper)) = run.keep() else { continue };
        let container = run.container().ok().flatten();
        if let Some(container) = container {
            tracing::warn!("removing container {} of a build that was killed", container.name);
            if let Err(e) = steps::remove(engine, &run, &container.name).await {
                // The next build tries it again.
                tracing::warn!("{e}");
                continue;
            }
        }
        if let Err(e) = run.remove() {
            tracing::warn!("{e}");
        }
    }
    Ok(store.prune(0)?)
}

/// The name that an image can be given.
fn image_name(text: &str) -> Result<ImageReference, ExecuteError> {
    let wrong = |why: String| {
        let text =
            format!("--target: {why}; with --docker it is the name of the image, such as team/model:1");
        refused("environment", text)
    };
    let name = ImageReference::parse(text).map_err(|e| wrong(e.to_string()))?;
    if name.digest.is_some() {
        return Err(wrong(format!(
            "{text:?} has a digest, which follows from the content"
        )));
    }
    Ok(name)
}

fn refused(stage: &'static str, reason: String) -> ExecuteError {
    ExecuteError::Prepare { stage, reason }
}

fn of_failure(failure: Failure) -> ExecuteError {
    let stages = ["clone", "launch", "process", "infrastructure"];
    let stage = stages.into_iter().find(|stage| *stage == failure.stage);
    let stage = stage.unwrap_or("environment");
    match failure.exit_code.filter(|code| *code > 0) {
        Some(code) => ExecuteError::Program {
            code,
            reason: format!("{stage}: {}", failure.text),
        },
        None => refused(stage, failure.text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_the_name_of_an_image() {
        for (text, shown) in [
            ("new-docker", "new-docker:latest"),
            (
                "registry.example.com:5000/team/model:1",
                "registry.example.com:5000/team/model:1",
            ),
        ] {
            assert_eq!(image_name(text).unwrap().to_string(), shown);
        }
        let digest = format!("a@sha256:{}", "0".repeat(64));
        for text in ["", "./here", "/abs/folder", "Upper", "a b", "a:b:c", &digest] {
            let error = image_name(text).unwrap_err().to_string();
            assert!(
                error.contains(&format!("{text:?}")) && error.contains("such as team/model:1"),
                "{error}"
            );
        }
    }
}
