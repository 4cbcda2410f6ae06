//! From the task to a created container.

use std::ops::ControlFlow;

use clearml_agent_config::Settings;
use clearml_container::choice::Choice;
use clearml_container::engine::{EngineError, EngineFacts, ImageReference};
use clearml_container::request::{self, Additions};
use clearml_task_model::Task;

use super::super::Runner;
use super::super::decide::Prepared;
use super::super::setup::failure;
use super::machine::{vendor, wanted_gpus};
use super::{engine_failure, given};
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
        let facts = self.image(&image, &spec, &settings).await?;
        let engine = self.of_engine(async |engine| engine.facts().await).await;
        let engine = engine.map_err(|e| engine_failure(&e))?;
        let mut additions = self.additions(&choice, &settings, &engine);
        let ports = request::publish(
            &mut spec,
            settings.agent.containers.docker_args_allowed_port_range.clone(),
        );
        if let Some(ports) = ports {
            additions
                .env
                .push(format!("CLEARML_AGENT_HOST_IP={}", self.host_ip()));
            self.tell_ports(&ports).await;
        }
        let (scripts, mut binds) =
            given::write(self, task, &choice, &settings).map_err(|e| failure("infrastructure", &e))?;
        additions.binds.append(&mut binds);
        additions.env.extend(given::ssh_variable(&self.inputs));
        let name = self.name(task, &spec, &settings);
        let (platform, entry) = (spec.platform.clone(), request::entry_point(&spec, &facts));
        let (body, notices) = request::complete(spec, additions);
        for notice in notices {
            self.console.line(Level::Warning, &notice);
        }
        let record = ContainerRecord {
            schema: SCHEMA,
            name,
            image: choice.image.clone(),
        };
        self.run
            .write_container(&record)
            .map_err(|e| failure("infrastructure", &e.to_string()))?;
        let created = self
            .of_engine(async |engine| {
                engine
                    .create(&record.name, platform.as_deref(), body.clone())
                    .await
            })
            .await;
        let id = match created {
            Ok((id, existed)) => self.checked(&record.name, id, existed).await?,
            Err(e @ EngineError::Refused { .. }) => return Err(launch_failure(&e)),
            Err(e) => return Err(engine_failure(&e)),
        };
        let looked = self
            .of_engine(async |engine| self.look_into(engine, &id, &scripts).await)
            .await;
        let shell = looked.map_err(|e| engine_failure(&e))?;
        let command = match shell {
            ControlFlow::Continue(command) => command,
            ControlFlow::Break(text) => return Err(failure("environment", &format!("image {image} {text}"))),
        };
        given::write_launch(self, entry.into_iter().chain(command).collect(), &settings)
            .map_err(|e| failure("infrastructure", &e.to_string()))
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
