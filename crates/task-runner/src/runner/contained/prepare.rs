//! From the task to a created container.

use clearml_agent_config::Settings;
use clearml_container::choice::Choice;
use clearml_container::engine::{ContainerCreateBody, EngineError, EngineFacts, ImageFacts, ImageReference};
use clearml_container::flags::RunSpec;
use clearml_container::request::{self, Additions, Restart};
use clearml_task_model::Task;

use super::super::Runner;
use super::super::decide::Prepared;
use super::super::setup::failure;
use super::image::look_into;
use super::machine::{skips_gpus, vendor, wanted_gpus};
use super::remembered::Remembered;
use super::restart::Wish;
use super::siblings::{Surroundings, own_network};
use super::supervise::SHIM_PATIENCE;
use super::{engine_failure, given, mounts};
use crate::console::{Level, Tag};
use crate::inside;
use crate::record::{ContainerOptions, ContainerRecord, Failure, SCHEMA};
use crate::settings::sources;

/// By which label a container of a run is known.
pub(super) const RUN_LABEL: &str = "clearml-agent-run";

impl Runner {
    /// Prepares the container from the beginning. What an earlier runner has made is removed.
    pub(in crate::runner) async fn prepare_container(
        &self,
        task: &Task,
        wanted: &ContainerOptions,
    ) -> Prepared {
        match Box::pin(self.make_container(task, wanted)).await {
            Ok(()) => Prepared::Ready,
            Err(failure) => {
                let text = format!("clearml_agent: ERROR: {}", failure.text);
                self.console.line_once(Tag::SetupError, Level::Error, &text);
                Prepared::Failed(failure)
            }
        }
    }

    async fn make_container(&self, task: &Task, wanted: &ContainerOptions) -> Result<(), Failure> {
        self.remove_container().await;
        let settings = Settings::load(&sources(&self.config, &self.inputs))
            .map_err(|e| failure("infrastructure", &e.to_string()))?;
        let surroundings = self.surroundings().map_err(|e| failure("infrastructure", &e))?;
        let choice = self.choose(task, wanted, &settings).await?;
        if choice.write_back && self.settings.rank == 0 {
            self.write_back_container(&choice).await;
        }
        let image = ImageReference::parse(&choice.image)
            .map_err(|e| failure("environment", &format!("the image of the task: {e}")))?;
        let mut spec = self.spec(task, &choice, &settings).await?;
        let (facts, engine) = tokio::join!(
            self.image(&image, &spec, &settings),
            self.of_engine(async |engine| engine.facts().await)
        );
        let (facts, engine) = (facts?, engine.map_err(|e| engine_failure(&e))?);
        let remembered = self.remembered(&facts, &settings);
        let restart = self.restart(task).map_err(|e| failure("infrastructure", &e))?;
        let mut additions = self.additions(&choice, &settings, &engine, &surroundings);
        additions.restart = restart;
        if surroundings.contained {
            self.join_network(&mut spec).await;
        }
        self.add_ports(&mut spec, &mut additions, &settings).await;
        let (scripts, mut binds) = given::write(self, task, &choice, &settings, &surroundings)
            .map_err(|e| failure("infrastructure", &e))?;
        binds.extend(remembered.as_ref().and_then(mounts::remembered));
        additions.binds = self
            .for_engine(&surroundings, binds)
            .map_err(|e| failure("infrastructure", &e))?;
        additions.env.extend(given::ssh_variable(&self.inputs));
        let name = self.name(task, &spec, &settings);
        let (platform, entry) = (spec.platform.clone(), request::entry_point(&spec, &facts));
        let (body, mut notices) = request::complete(spec, additions);
        notices.extend(request::unheeded(&engine, &body));
        for notice in notices {
            self.console.line(Level::Warning, &notice);
        }
        let id = self
            .create(&name, &choice.image, platform.as_deref(), &body)
            .await?;
        let known = remembered.as_ref().and_then(Remembered::seen);
        let looked = self
            .of_engine(async |engine| look_into(engine, &id, known.as_ref(), scripts.needed).await)
            .await;
        let seen = looked
            .map_err(|e| engine_failure(&e))?
            .map_err(|text| failure("environment", &format!("image {image} {text}")))?;
        if known.as_ref() != Some(&seen)
            && let Some(remembered) = &remembered
        {
            remembered.keep(&seen);
        }
        let command = match &seen.shell {
            Some(shell) if scripts.needed => scripts.by(shell),
            _ => scripts.direct(),
        };
        let argv = entry.into_iter().chain(command).collect();
        given::write_launch(self, argv, &settings, restart != Restart::Never)
            .map_err(|e| failure("infrastructure", &e.to_string()))
    }

    /// Where things about the image are remembered. Without it everything takes longer.
    fn remembered(&self, image: &ImageFacts, settings: &Settings) -> Option<Remembered> {
        match Remembered::open(&settings.agent.state_dir.join("caches"), &image.id) {
            Ok(remembered) => Some(remembered),
            Err(e) => {
                tracing::warn!("the folder for what is known about image {}: {e}", image.id);
                None
            }
        }
    }

    /// When the engine starts the container again.
    fn restart(&self, task: &Task) -> Result<Restart, String> {
        let wish = given::variable(&self.inputs, "CLEARML_AGENT_SERVICES_DOCKER_RESTART");
        let wish = wish.filter(|wish| self.inputs.options.service && !wish.trim().is_empty());
        let Some(wish) = wish else {
            return Ok(Restart::Never);
        };
        let task = serde_json::to_value(task).unwrap_or_default();
        Ok(Wish::parse(&wish)?.of(&task).unwrap_or_default())
    }

    /// Gives the container the network of the agent's own one, unless options name another.
    pub(super) async fn join_network(&self, spec: &mut RunSpec) {
        let host = spec.body.host_config.get_or_insert_default();
        if host
            .network_mode
            .as_ref()
            .is_some_and(|network| !network.is_empty())
        {
            return;
        }
        match self.of_engine(async |engine| own_network(engine).await).await {
            Ok(Some(network)) => host.network_mode = Some(network),
            Ok(None) => tracing::warn!(
                "the container of this agent is not known to the engine; task {} gets the engine's usual network",
                self.identity.task
            ),
            Err(e) => tracing::warn!("{e}"),
        }
    }

    async fn add_ports(&self, spec: &mut RunSpec, additions: &mut Additions, settings: &Settings) {
        let allowed = settings.agent.containers.docker_args_allowed_port_range.clone();
        if let Some(ports) = request::publish(spec, allowed) {
            let towards = settings.text("api.public_ip_ping");
            let address = self.host_ip(towards.as_deref().unwrap_or("8.8.8.8"));
            additions.env.push(format!("CLEARML_AGENT_HOST_IP={address}"));
            self.tell_ports(&ports).await;
        }
    }

    /// Notes which container this run has, before there is one.
    pub(super) fn note_container(&self, name: &str, image: &str) -> Result<(), Failure> {
        let record = ContainerRecord {
            schema: SCHEMA,
            name: name.to_owned(),
            image: image.to_owned(),
        };
        self.run
            .write_container(&record)
            .map_err(|e| failure("infrastructure", &e.to_string()))
    }

    /// Notes the name, and creates the container; that of an earlier call whose answer was lost is the same one.
    async fn create(
        &self,
        name: &str,
        image: &str,
        platform: Option<&str>,
        body: &ContainerCreateBody,
    ) -> Result<String, Failure> {
        self.note_container(name, image)?;
        let _turn = match &self.shared {
            Some(shared) => shared.engine_turn().await,
            None => None,
        };
        let created = self.of_engine(async |engine| engine.create(name, platform, body.clone()).await);
        match created.await {
            Ok((id, existed)) => self.checked(name, id, existed).await,
            Err(e @ EngineError::Refused { .. }) => Err(launch_failure(&e)),
            Err(e) => Err(engine_failure(&e)),
        }
    }

    fn additions(
        &self,
        choice: &Choice,
        settings: &Settings,
        engine: &EngineFacts,
        surroundings: &Surroundings,
    ) -> Additions {
        let worker = self.identity.worker.to_string();
        let parent = worker.split(":service:").next().unwrap_or_default().to_owned();
        let variable = |name: &str| given::variable(&self.inputs, name);
        let extra = variable("CLEARML_AGENT_EXTRA_DOCKER_LABELS").and_then(|text| shlex::split(&text));
        let mut labels: Vec<(String, String)> = extra
            .unwrap_or_default()
            .iter()
            .map(|label| label.split_once('=').unwrap_or((label, "")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        labels.push(("clearml-worker-id".to_owned(), worker.clone()));
        labels.push(("clearml-parent-worker-id".to_owned(), parent));
        labels.push((RUN_LABEL.to_owned(), self.run_id.clone()));
        let mut env = vec![
            format!("CLEARML_WORKER_ID={worker}"),
            format!("CLEARML_DOCKER_IMAGE={}", choice.image),
            format!("CLEARML_TASK_ID={}", self.identity.task),
            format!("CLEARML_CONFIG_FILE={}", inside::CONFIG),
        ];
        if self.inputs.options.service {
            env.push("CLEARML_AGENT_SERVICE_TASK=1".to_owned());
        }
        if let Some(value) = variable("CLEARML_AGENT_SKIP_PIP_VENV_INSTALL") {
            env.push(format!("CLEARML_AGENT_SKIP_PIP_VENV_INSTALL={value}"));
        }
        let gpus = wanted_gpus(settings.agent.cpu_only, &variable);
        let skips = skips_gpus(&variable);
        let visible = variable("NVIDIA_VISIBLE_DEVICES").filter(|value| !value.is_empty());
        if skips || surroundings.contained && visible.is_some() {
            // Nothing else decides, or the engine's runtime does so by this.
            let visible = visible.as_deref().unwrap_or("all");
            env.push(format!("NVIDIA_VISIBLE_DEVICES={visible}"));
        }
        Additions {
            image: choice.image.clone(),
            command: [inside::PROGRAM, "shim", "--run", inside::RUN]
                .map(str::to_owned)
                .to_vec(),
            env,
            labels,
            binds: Vec::new(),
            restart: Restart::Never,
            stop_timeout: Some(self.settings.abort_grace + SHIM_PATIENCE),
            gpus: (!skips).then(|| (vendor(engine, surroundings.contained), gpus)),
        }
    }
}

/// The engine does not make or start the container; nothing of the task has run.
pub(super) fn launch_failure(error: &EngineError) -> Failure {
    let mut text = error.to_string();
    if text.contains("could not select device driver") {
        text.push_str(
            "; the engine knows no GPUs: install the NVIDIA Container Toolkit, and restart the engine",
        );
    }
    Failure {
        exit_code: Some(125),
        over: true,
        ..failure("launch", &text)
    }
}
