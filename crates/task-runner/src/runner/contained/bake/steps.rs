//! From a base image to the image, step by step.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use clearml_agent_config::Settings;
use clearml_container::choice::Choice;
use clearml_container::engine::{
    ContainerCreateBody, Engine, EngineError, EngineFacts, ImageFacts, ImageReference,
};
use clearml_container::flags::RunSpec;
use clearml_container::gpus::Vendor;
use clearml_container::request::{self, Additions};
use clearml_support::fs::read_json;
use clearml_support::time::now_ms;
use clearml_task_model::Task;

use super::super::super::Runner;
use super::super::super::setup::failure;
use super::super::image::look_into;
use super::super::judge::{Ending, judge};
use super::super::machine::{skips_gpus, vendor, wanted_gpus};
use super::super::scripts::GIT_FOLDER;
use super::super::supervise::ended;
use super::super::{engine_failure, given};
use super::BuildImageOptions;
use super::outcome::{Made, changes};
use crate::console::Level;
use crate::inside::{self, Bake, Baked, Given, INPUTS_FILE};
use crate::record::{ContainerOptions, Failure, OsText};
use crate::run_dir::{RunDir, io_error};

/// By which label a container of a build is known. The image keeps it.
const LABEL: &str = "clearml-agent-build";

impl Runner {
    /// Builds. What is left of the container is the caller's to remove.
    pub(super) async fn bake(
        &self,
        task: &Task,
        options: &BuildImageOptions,
        settings: &Settings,
        target: &ImageReference,
    ) -> Result<Made, Failure> {
        let begin = Instant::now();
        let begun_ms = u64::try_from(now_ms()).unwrap_or_default();
        let words = ContainerOptions {
            words: options.words.clone(),
            current_version: false,
        };
        let mut choice = self.choose(task, &words, settings).await?;
        if options.force {
            choice.setup_script = None;
        }
        let base = ImageReference::parse(&choice.image)
            .map_err(|e| failure("environment", &format!("the base image: {e}")))?;
        let text = format!(
            "Building image {target} for task {} from {base}",
            self.identity.task
        );
        self.console.line(Level::Info, &text);
        let spec = self.spec(task, &choice, settings).await?;
        let base_facts = self.image(&base, &spec, settings).await?;
        let engine = self.of_engine(async |engine| engine.facts().await).await;
        let engine = engine.map_err(|e| engine_failure(&e))?;
        let wanted = Bake {
            python_version: options.python_version.clone(),
            with_program: options.entry_point.is_some(),
            begun_ms,
            keys: vec![
                settings.agent.containers.mounts.ssh_ro_folder.clone(),
                GIT_FOLDER.to_owned(),
            ],
        };
        self.fill(task, &choice, settings, (spec, &base_facts), &engine, wanted)
            .await?;
        let baked = self.run_baking(&choice, settings).await?;
        let text = format!(
            "Committing docker container to: {target}, after {:.1} s",
            begin.elapsed().as_secs_f64()
        );
        self.console.line(Level::Info, &text);
        let lines = changes(
            options.entry_point,
            &self.identity.task,
            &baked,
            (&base, &base_facts),
        );
        let name = self.baking_name();
        let before = self.of_engine(async |engine| engine.image(target).await).await;
        let before = before.map_err(|e| engine_failure(&e))?;
        let committed = self.of_engine(async |engine| engine.commit(&name, target, &lines).await);
        committed
            .await
            .map_err(|e| failure("infrastructure", &e.to_string()))?;
        let image = self.of_engine(async |engine| engine.image(target).await).await;
        let image = image.map_err(|e| engine_failure(&e))?;
        let vanished = || failure("infrastructure", &format!("image {target} has vanished again"));
        let image = image.ok_or_else(vanished)?;
        if let Some(before) = before.filter(|before| before.id != image.id) {
            let text = format!("{target} was {} until now, which has lost this name", before.id);
            self.console.line(Level::Info, &text);
        }
        let program = std::fs::metadata(crate::spawn::this_program());
        Ok(Made {
            target: target.clone(),
            image,
            base,
            base_facts,
            entry_point: options.entry_point,
            took: begin.elapsed(),
            program_bytes: program.map_or(0, |meta| meta.len()),
            baked,
        })
    }

    /// Makes the container, with everything that it needs in mounted files.
    async fn fill(
        &self,
        task: &Task,
        choice: &Choice,
        settings: &Settings,
        (mut spec, base): (RunSpec, &ImageFacts),
        engine: &EngineFacts,
        wanted: Bake,
    ) -> Result<(), Failure> {
        let broken = |text: &dyn std::fmt::Display| failure("infrastructure", &text.to_string());
        let surroundings = self.surroundings().map_err(|e| broken(&e))?;
        if surroundings.contained {
            self.join_network(&mut spec).await;
        }
        let (scripts, mut binds) =
            given::write(self, task, choice, settings, &surroundings).map_err(|e| broken(&e))?;
        let inputs = self.run.given_dir().join(INPUTS_FILE);
        let mut given: Given = read_json(&inputs).map_err(|e| broken(&e))?;
        given.bake = Some(wanted);
        self.run.give_json(INPUTS_FILE, &given).map_err(|e| broken(&e))?;
        // Where it is mounted, an empty file would stay.
        binds.retain(|bind| bind.target != inside::CONFIG);
        let binds = self.for_engine(&surroundings, binds).map_err(|e| broken(&e))?;
        if let Some(host) = &mut spec.body.host_config {
            host.port_bindings = None;
            host.publish_all_ports = None;
        }
        let (platform, entry) = (spec.platform.clone(), request::entry_point(&spec, base));
        let additions = self.baking_additions(choice, settings, vendor(engine, surroundings.contained));
        let pip_cache = settings.agent.containers.mounts.pip_cache.clone();
        let has_pip_cache = binds.iter().any(|bind| bind.target == pip_cache);
        let (body, notices) = request::complete(spec, Additions { binds, ..additions });
        for notice in notices {
            self.console.line(Level::Warning, &notice);
        }
        let (body, mut variables) = without_traces(body, &self.run_id);
        // No cache of packages becomes part of the image, whoever its user is.
        variables.push(if has_pip_cache {
            format!("PIP_CACHE_DIR={pip_cache}")
        } else {
            "PIP_NO_CACHE_DIR=1".to_owned()
        });
        let id = self.create_baking(choice, platform.as_deref(), &body).await?;
        let looked = self
            .of_engine(async |engine| look_into(engine, &id, None, scripts.needed).await)
            .await;
        let seen = looked
            .map_err(|e| engine_failure(&e))?
            .map_err(|text| failure("environment", &format!("image {} {text}", choice.image)))?;
        let command = match &seen.shell {
            Some(shell) if scripts.needed => scripts.by(shell),
            _ => scripts.direct(),
        };
        given::write_launch(self, entry.into_iter().chain(command).collect(), settings, false)
            .map_err(|e| broken(&e))?;
        self.add_variables(variables).map_err(|e| broken(&e))
    }

    fn baking_additions(&self, choice: &Choice, settings: &Settings, vendor: Vendor) -> Additions {
        let variable = |name: &str| given::variable(&self.inputs, name);
        let skips = skips_gpus(&variable);
        let gpus = wanted_gpus(settings.agent.cpu_only, &variable);
        let mut env = vec![
            format!("CLEARML_DOCKER_IMAGE={}", choice.image),
            format!("CLEARML_CONFIG_FILE={}/{}", inside::GIVEN, inside::CONFIG_FILE),
        ];
        env.extend(given::ssh_variable(&self.inputs));
        Additions {
            image: choice.image.clone(),
            command: [inside::PROGRAM, "shim", "--run", inside::RUN]
                .map(str::to_owned)
                .to_vec(),
            env,
            gpus: (!skips).then_some((vendor, gpus)),
            ..Additions::default()
        }
    }

    fn baking_name(&self) -> String {
        format!("clearml-build-{}", self.run_id)
    }

    async fn create_baking(
        &self,
        choice: &Choice,
        platform: Option<&str>,
        body: &ContainerCreateBody,
    ) -> Result<String, Failure> {
        let name = self.baking_name();
        self.note_container(&name, &choice.image)?;
        let created = self
            .of_engine(async |engine| engine.create(&name, platform, body.clone()).await)
            .await;
        match created {
            Ok((id, _)) => Ok(id),
            Err(e @ EngineError::Refused { .. }) => Err(failure("launch", &e.to_string())),
            Err(e) => Err(engine_failure(&e)),
        }
    }

    /// Variables for the agent inside and the scripts, which nobody sees who looks at container or image.
    fn add_variables(&self, variables: Vec<String>) -> Result<(), crate::run_dir::RunDirError> {
        let run = self.run.inside();
        let mut launch = run.launch()?;
        let pairs = variables.iter().filter_map(|variable| variable.split_once('='));
        launch
            .env
            .extend(pairs.map(|(name, value)| (OsText::from(name), OsText::from(value))));
        run.write_launch(&launch)?;
        let path = run.path().join("launch.json");
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).map_err(io_error("writing", &path))
    }

    /// Runs the container to its end.
    async fn run_baking(&self, choice: &Choice, settings: &Settings) -> Result<Baked, Failure> {
        let name = self.baking_name();
        let started = self.of_engine(async |engine| engine.start(&name).await).await;
        started.map_err(|e| match e {
            EngineError::Refused { .. } => failure("launch", &e.to_string()),
            e => engine_failure(&e),
        })?;
        self.console
            .line(Level::Info, &format!("Container {name} is being filled"));
        match settings.agent.env_build_timeout {
            None => ended(&name).await,
            // The agent inside minds it too, but not while scripts run.
            Some(limit) => tokio::time::timeout(limit, ended(&name)).await.map_err(|_| {
                let text = format!(
                    "the image was not ready after {} s (agent.env_build_timeout_sec)",
                    limit.as_secs()
                );
                failure("environment", &text)
            })?,
        }
        let verdict = self.run.verdict_inside().unwrap_or_else(|e| {
            tracing::warn!("{e}");
            None
        });
        let found = self.of_engine(async |engine| engine.find(&name).await).await;
        let state = found.map_err(|e| engine_failure(&e))?.map(|found| found.state);
        let mut last_words = String::new();
        if verdict.is_none() {
            let words = self.of_engine(async |engine| engine.last_words(&name, 20).await);
            last_words = words.await.unwrap_or_default();
        }
        let reports = self.reports();
        let judged = judge(&Ending {
            state: state.as_ref(),
            verdict: verdict.as_ref(),
            claimed: self.run.is_claimed_inside(),
            reports: reports.as_ref(),
            aborted: false,
            last_words: &last_words,
            image: &choice.image,
        });
        let code = verdict.as_ref().and_then(crate::record::Verdict::code);
        match (judged, reports.and_then(|reports| reports.baked)) {
            (Some(failure), _) => Err(failure),
            (None, Some(baked)) if code == Some(0) => Ok(baked),
            (None, _) => {
                let launch = verdict.and_then(|verdict| verdict.launch_error);
                let text = launch.unwrap_or_else(|| {
                    "the container has ended before the environment was complete; see what it has printed"
                        .to_owned()
                });
                Err(failure("environment", &text))
            }
        }
    }

    /// Removes the container. One that is left behind is removed by the next build.
    pub(super) async fn remove_baking(&self) {
        let name = self.baking_name();
        let removed = self.of_engine(async |engine| remove(engine, &self.run, &name).await);
        if let Err(e) = removed.await {
            tracing::warn!("container {name} stays until the next build: {e}");
        }
    }
}

/// Removes the container of a build, if it is that.
pub(super) async fn remove(engine: &Engine, run: &RunDir, name: &str) -> Result<(), EngineError> {
    let run_id = run.path().file_name().unwrap_or_default().to_string_lossy();
    match engine.find(name).await? {
        Some(found) if found.labels.get(LABEL).is_some_and(|id| *id == run_id) => {
            engine.remove(&found.id).await
        }
        _ => Ok(()),
    }
}

/// The request without variables and labels, which an image would keep; and the variables.
fn without_traces(mut body: ContainerCreateBody, run_id: &str) -> (ContainerCreateBody, Vec<String>) {
    let variables = body.env.take().unwrap_or_default();
    body.labels = Some([(LABEL.to_owned(), run_id.to_owned())].into());
    // An image that shall have no entry point gets that of its container, which therefore has none.
    let words = body.entrypoint.take().unwrap_or_default().into_iter();
    body.cmd = Some(words.chain(body.cmd.take().unwrap_or_default()).collect());
    body.entrypoint = Some(Vec::new());
    (body, variables)
}
