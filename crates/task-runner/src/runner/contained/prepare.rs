//! From the task to a created container.

use clearml_agent_config::Settings;
use clearml_container::choice::Choice;
use clearml_container::engine::{ContainerCreateBody, EngineError, EngineFacts, ImageFacts, ImageReference};
use clearml_container::flags::RunSpec;
use clearml_container::request::{self, Additions};
use clearml_task_model::Task;

use super::super::Runner;
use super::super::decide::Prepared;
use super::super::setup::failure;
use super::image::look_into;
use super::machine::{vendor, wanted_gpus};
use super::remembered::Remembered;
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
        let mut additions = self.additions(&choice, &settings, &engine);
        self.add_ports(&mut spec, &mut additions, &settings).await;
        let (scripts, mut binds) =
            given::write(self, task, &choice, &settings).map_err(|e| failure("infrastructure", &e))?;
        additions.binds.append(&mut binds);
        additions
            .binds
            .extend(remembered.as_ref().and_then(mounts::remembered));
        additions.env.extend(given::ssh_variable(&self.inputs));
        let name = self.name(task, &spec, &settings);
        let (platform, entry) = (spec.platform.clone(), request::entry_point(&spec, &facts));
        let (body, notices) = request::complete(spec, additions);
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
        given::write_launch(self, entry.into_iter().chain(command).collect(), &settings)
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

    async fn add_ports(&self, spec: &mut RunSpec, additions: &mut Additions, settings: &Settings) {
        let allowed = settings.agent.containers.docker_args_allowed_port_range.clone();
        if let Some(ports) = request::publish(spec, allowed) {
            let address = format!("CLEARML_AGENT_HOST_IP={}", self.host_ip());
            additions.env.push(address);
            self.tell_ports(&ports).await;
        }
    }

    /// Notes the name, and creates the container; that of an earlier call whose answer was lost is the same one.
    async fn create(
        &self,
        name: &str,
        image: &str,
        platform: Option<&str>,
        body: &ContainerCreateBody,
    ) -> Result<String, Failure> {
        let record = ContainerRecord {
            schema: SCHEMA,
            name: name.to_owned(),
            image: image.to_owned(),
        };
        self.run
            .write_container(&record)
            .map_err(|e| failure("infrastructure", &e.to_string()))?;
        let created = self.of_engine(async |engine| engine.create(name, platform, body.clone()).await);
        match created.await {
            Ok((id, existed)) => self.checked(name, id, existed).await,
            Err(e @ EngineError::Refused { .. }) => Err(launch_failure(&e)),
            Err(e) => Err(engine_failure(&e)),
        }
    }

    fn additions(&self, choice: &Choice, settings: &Settings, engine: &EngineFacts) -> Additions {
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
        let skips = variable("CLEARML_DOCKER_SKIP_GPUS_FLAG").is_some_and(|flag| !flag.is_empty());
        if skips {
            let value = variable("NVIDIA_VISIBLE_DEVICES").filter(|value| !value.is_empty());
            env.push(format!(
                "NVIDIA_VISIBLE_DEVICES={}",
                value.as_deref().unwrap_or("all")
            ));
        }
        Additions {
            image: choice.image.clone(),
            command: [inside::PROGRAM, "shim", "--run", inside::RUN]
                .map(str::to_owned)
                .to_vec(),
            env,
            labels,
            binds: Vec::new(),
            gpus: (!skips).then(|| (vendor(engine), gpus)),
        }
    }
}

fn launch_failure(error: &EngineError) -> Failure {
    Failure {
        exit_code: Some(125),
        ..failure("launch", &error.to_string())
    }
}
