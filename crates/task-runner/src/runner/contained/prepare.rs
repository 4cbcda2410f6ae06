//! From the task to a created container.

use std::ops::ControlFlow;
use std::path::Path;

use clearml_agent_config::Settings;
use clearml_container::choice::{self, Choice, Container, DefaultContainer, Facts, Rule};
use clearml_container::engine::{Engine, EngineError, EngineFacts, ImageFacts, ImageReference};
use clearml_container::flags::{self, PullPolicy, RunSpec};
use clearml_container::gpus::{Gpus, Vendor};
use clearml_container::name::container_name;
use clearml_container::ports::{Mapped, mapping_text};
use clearml_container::request::{self, Additions};
use clearml_container::template;
use clearml_container::words::Rules;
use clearml_task_model::Task;
use regex::Regex;
use serde_json::{Map, Value, json};

use super::super::Runner;
use super::super::decide::Prepared;
use super::super::setup::failure;
use super::{engine_failure, given};
use crate::console::{Level, Tag};
use crate::inside;
use crate::record::{ContainerOptions, ContainerRecord, Failure, SCHEMA};
use crate::settings::sources;

/// By which label a container of a run is known.
pub(super) const RUN_LABEL: &str = "clearml-agent-run";
/// In the task's `runtime`: which ports of this machine lead into the container.
const PORTS_KEY: &str = "_external_host_tcp_port_mapping";

/// The loader of programs, without which ours can't run.
#[cfg(target_arch = "x86_64")]
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
#[cfg(not(target_arch = "x86_64"))]
const LOADER: &str = "/lib/ld-linux-aarch64.so.1";
/// This machine's architecture, as images name it.
const ARCHITECTURE: &str = if cfg!(target_arch = "x86_64") {
    "amd64"
} else {
    "arm64"
};

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

    async fn choose(
        &self,
        task: &Task,
        wanted: &ContainerOptions,
        settings: &Settings,
    ) -> Result<Choice, Failure> {
        let containers = &settings.agent.containers;
        let variable = ["CLEARML_DOCKER_IMAGE", "TRAINS_DOCKER_IMAGE"]
            .into_iter()
            .find_map(|name| given::variable(&self.inputs, name));
        let default = DefaultContainer::new(
            &wanted.words,
            variable.as_deref(),
            containers.image.as_deref(),
            &containers.arguments,
        );
        let named = named(task).map_err(|text| failure("environment", &text))?;
        // Rules are for servers that offer them.
        let has_rules = self
            .client
            .session()
            .is_some_and(|session| session.at_least(2, 13) && session.feature_set == "advanced");
        let project = match &task.project {
            Some(project) if has_rules => self.client.projects_get_by_id(project).await.ok(),
            _ => None,
        };
        let script = task.script.clone().unwrap_or_default();
        let lists = script.requirements.clone().unwrap_or_default();
        let (pip, conda) = (
            lists.pip.map(|list| list.text()),
            lists.conda.map(|list| list.text()),
        );
        let tags: Vec<String> = task
            .extra
            .get("tags")
            .and_then(|tags| serde_json::from_value(tags.clone()).ok())
            .unwrap_or_default();
        let facts = Facts {
            project: project.as_ref().and_then(|project| project.name.as_deref()),
            tags: &tags,
            pip: pip.as_deref(),
            conda: conda.as_deref(),
            project_id: task.project.as_ref().map(|project| project.as_str()),
            user: task.user.as_ref().map(|user| user.as_str()),
            repository: script.repository.as_deref(),
            branch: script.branch.as_deref(),
            binary: script.binary.as_deref(),
            image: named.image.as_deref(),
        };
        let (rules, errors) = if has_rules {
            Rule::read_all(&containers.match_rules)
        } else {
            Default::default()
        };
        for error in errors {
            self.console.line(Level::Warning, &error.to_string());
        }
        Ok(choice::choose(
            &named,
            &facts,
            &rules,
            &default,
            !containers.disable_task_docker_override,
            containers.update_back_task,
        ))
    }

    /// Tells the task which container it got.
    async fn write_back_container(&self, choice: &Choice) {
        let container = json!({
            "image": choice.image,
            "arguments": choice.arguments.join(" "),
            "setup_shell_script": choice.setup_script.clone().unwrap_or_default(),
        });
        let id = &self.identity.task;
        if let Err(e) = self
            .client
            .tasks_edit(id, true, json!({ "container": container }))
            .await
        {
            tracing::warn!("writing the container to task {id}: {e}");
        }
    }

    /// The options of the task and of this machine, as a request.
    async fn spec(&self, task: &Task, choice: &Choice, settings: &Settings) -> Result<RunSpec, Failure> {
        let containers = &settings.agent.containers;
        let mut filters = Vec::new();
        for filter in &containers.docker_args_filters {
            let text = |e| format!("agent.docker_args_filters has the pattern {filter:?}: {e}");
            filters.push(Regex::new(filter).map_err(|e| failure("environment", &text(e)))?);
        }
        let rules = Rules {
            filters,
            forbidden: containers.forbidden_docker_args.clone(),
            protected: containers.protected_docker_extra_args.clone(),
            extra_first: containers.docker_args_extra_precedes_task,
            host_environment_for_tasks: containers.docker_allow_host_environ,
        };
        let values = self.template_values(task, choice).await;
        let lookup = |name: &str| values.get(name).cloned().or_else(|| field(&values, name));
        let fill = |words: &[String]| {
            words
                .iter()
                .map(|word| template::fill(word, &lookup))
                .collect::<Vec<_>>()
        };
        let secrets = settings.secrets();
        // A task must not get what the agent keeps for itself by asking for a variable.
        let environment = |name: &str| {
            given::variable(&self.inputs, name)
                .filter(|value| secrets.iter().all(|secret| !value.contains(secret.expose())))
        };
        let combined = rules.combine(
            &fill(&choice.arguments),
            &containers.extra_docker_arguments,
            &environment,
        );
        if !combined.forbidden.is_empty() {
            let text = format!(
                "clearml-agent: ignoring docker argument(s) {}; they would override the agent startup script and \
                 prevent the task from running",
                combined.forbidden.join(" ")
            );
            tracing::warn!("task {}: {text}", self.identity.task);
            self.console.line(Level::Warning, &text);
        }
        let words = fill(&combined.words);
        let shown = settings.command_mask().words(&words).join(" ");
        self.console.line(
            Level::Info,
            &format!("Container: image {}, arguments: {shown}", choice.image),
        );
        let spec = flags::parse(&words, &environment).map_err(|e| failure("environment", &e.to_string()))?;
        for notice in &spec.notices {
            self.console.line(Level::Warning, notice);
        }
        Ok(spec)
    }

    /// Values for references in arguments. What nobody refers to is not asked for.
    async fn template_values(&self, task: &Task, choice: &Choice) -> Map<String, Value> {
        let mut values = Map::new();
        values.insert("WORKER_ID".into(), self.identity.worker.as_str().into());
        values.insert("TASK".into(), serde_json::to_value(task).unwrap_or_default());
        let wants = |name: &str| {
            choice
                .arguments
                .iter()
                .any(|word| word.contains(&format!("${{CLEARML_{name}")))
        };
        if let Some(queue) = &self.identity.queue {
            values.insert("QUEUE_ID".into(), queue.as_str().into());
            if wants("QUEUE_NAME")
                && let Ok(queue) = self.client.queues_get_by_id(queue, Some(1)).await
            {
                values.insert("QUEUE_NAME".into(), json!(queue.name));
            }
        }
        if let Some(project) = &task.project {
            values.insert("PROJECT_ID".into(), project.as_str().into());
            if wants("PROJECT_NAME")
                && let Ok(project) = self.client.projects_get_by_id(project).await
            {
                values.insert("PROJECT_NAME".into(), json!(project.name));
            }
        }
        values
    }

    /// The image, pulled where that is wanted or needed.
    async fn image(
        &self,
        image: &ImageReference,
        spec: &RunSpec,
        settings: &Settings,
    ) -> Result<ImageFacts, Failure> {
        let look = async || self.of_engine(async |engine| engine.image(image).await).await;
        let known = look().await.map_err(|e| engine_failure(&e))?;
        let forced = settings.agent.containers.docker_force_pull || spec.pull == PullPolicy::Always;
        if known.is_none() && spec.pull == PullPolicy::Never {
            let text = format!("image {image} is not on this machine, and --pull=never forbids to fetch it");
            return Err(failure("environment", &text));
        }
        if known.is_none() || forced {
            self.console.line(Level::Info, &format!("Pulling image {image}"));
            let platform = spec.platform.as_deref();
            let pulled = self.of_engine(async |engine| {
                engine
                    .pull(image, platform, |progress| {
                        const MEGABYTE: u64 = 1_000_000;
                        let text = format!(
                            "Pulling image {image}: {} of {} layers, {} of {} MB",
                            progress.layers_done,
                            progress.layers,
                            progress.bytes / MEGABYTE,
                            progress.total / MEGABYTE
                        );
                        self.console.line(Level::Info, &text);
                    })
                    .await
            });
            match pulled.await {
                Ok(()) => {}
                // The one that is there will do.
                Err(e) if known.is_some() => self.console.line(Level::Warning, &e.to_string()),
                Err(e @ EngineError::Refused { .. }) => return Err(failure("environment", &e.to_string())),
                Err(e) => return Err(engine_failure(&e)),
            }
        }
        let facts = look().await.map_err(|e| engine_failure(&e))?;
        let facts =
            facts.ok_or_else(|| failure("environment", &format!("image {image} has vanished again")))?;
        if !facts.architecture.is_empty() && facts.architecture != ARCHITECTURE {
            let text = format!(
                "image {image} is for {} and this machine is {ARCHITECTURE}; use an image for it",
                facts.architecture
            );
            return Err(failure("environment", &text));
        }
        Ok(facts)
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

    /// By which address others reach the ports of the container.
    fn host_ip(&self) -> String {
        let forced = given::variable(&self.inputs, "CLEARML_AGENT_FORCE_HOST_MACHINE_IP");
        let own = || {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
            // Nothing is sent: the system says which way it would take.
            socket.connect("8.8.8.8:80").ok()?;
            Some(socket.local_addr().ok()?.ip().to_string())
        };
        forced
            .filter(|ip| !ip.is_empty())
            .or_else(own)
            .unwrap_or_else(|| "127.0.0.1".to_owned())
    }

    async fn tell_ports(&self, ports: &Mapped) {
        for missing in &ports.missing {
            let text = format!(
                "Warning: no port of this machine is free for {} (asked for {})",
                missing.container, missing.host
            );
            self.console.line(Level::Warning, &text);
        }
        if ports.mapping.is_empty() {
            return;
        }
        let entry = (PORTS_KEY.to_owned(), Value::from(mapping_text(&ports.mapping)));
        let id = &self.identity.task;
        let told = self
            .client
            .tasks_edit_runtime(id, std::iter::once(entry).collect(), &[]);
        if let Err(e) = told.await {
            tracing::warn!("noting the ports of task {id}: {e}");
        }
    }

    /// The same each time for the same run.
    fn name(&self, task: &Task, spec: &RunSpec, settings: &Settings) -> String {
        let containers = &settings.agent.containers;
        let letters: String = self
            .run_id
            .chars()
            .filter_map(|c| char::from_u32(u32::from('a') + c.to_digit(16)?))
            .collect();
        let own = format!(
            "clearml-id-{}-{}",
            self.identity.task,
            &letters[..letters.len().min(8)]
        );
        let Some(format) = &containers.docker_container_name_format else {
            return spec.name.clone().unwrap_or(own);
        };
        let json = serde_json::to_value(task).unwrap_or_default();
        let name = container_name(format, &|key| match key {
            "task_id" => Some(self.identity.task.to_string()),
            "worker_id" => Some(self.identity.worker.to_string()),
            "rand_string" => Some(letters.clone()),
            key => {
                let path = containers.docker_container_name_format_fields.get(key)?;
                let value = path.split('.').try_fold(&json, |value, part| value.get(part))?;
                value
                    .as_str()
                    .map_or_else(|| Some(value.to_string()), |text| Some(text.to_owned()))
            }
        });
        name.unwrap_or_else(|| {
            let text = format!(
                "Warning: agent.docker_container_name_format {format:?} gives no name for a container"
            );
            self.console.line(Level::Warning, &text);
            own
        })
    }

    /// A container that had the name before must be that of this run.
    async fn checked(&self, name: &str, id: String, existed: bool) -> Result<String, Failure> {
        if !existed {
            return Ok(id);
        }
        match self.look(name).await {
            Ok(Some(found)) if self.is_ours(&found) => Ok(id),
            Ok(_) => Err(failure(
                "environment",
                &format!(
                    "there is another container of the name {name}; leave --name away, or choose another one"
                ),
            )),
            Err(e) => Err(engine_failure(&e)),
        }
    }

    /// Whether our program can run there, and the command that does the rest.
    async fn look_into(
        &self,
        engine: &Engine,
        id: &str,
        scripts: &super::scripts::Scripts,
    ) -> Result<ControlFlow<String, Vec<String>>, EngineError> {
        if !engine.has(id, LOADER).await? {
            return Ok(ControlFlow::Break(format!(
                "has no GNU C library ({LOADER} is missing), which the agent needs there; images of Alpine Linux and \
                 others with musl can't be used, take one that is based on Debian, Ubuntu, or a Red Hat system"
            )));
        }
        if !scripts.needed {
            return Ok(ControlFlow::Continue(scripts.direct()));
        }
        for shell in ["/bin/bash", "/usr/bin/bash", "/bin/sh"] {
            if engine.has(id, shell).await? {
                return Ok(ControlFlow::Continue(scripts.by(shell)));
            }
        }
        Ok(ControlFlow::Break("has no shell for the setup script".to_owned()))
    }
}

fn launch_failure(error: &EngineError) -> Failure {
    Failure {
        exit_code: Some(125),
        ..failure("launch", &error.to_string())
    }
}

/// What the task names; older servers have it as one line.
fn named(task: &Task) -> Result<Container, String> {
    let text = |name: &str| {
        let container = task.container.as_ref()?;
        container
            .get(name)?
            .as_str()
            .map(str::to_owned)
            .filter(|text| !text.trim().is_empty())
    };
    let split = |line: &str| {
        shlex::split(line)
            .ok_or_else(|| format!("the container arguments of the task have a quote without end: {line}"))
    };
    let image = text("image").map(|image| image.trim().to_owned());
    let old = task
        .execution
        .as_ref()
        .and_then(|execution| execution.get("docker_cmd")?.as_str());
    if image.is_none()
        && let Some(line) = old.filter(|line| !line.trim().is_empty())
    {
        let mut words = split(line)?.into_iter();
        return Ok(Container {
            image: words.next(),
            arguments: words.collect(),
            setup_script: text("setup_shell_script"),
        });
    }
    Ok(Container {
        image,
        arguments: split(&text("arguments").unwrap_or_default())?,
        setup_script: text("setup_shell_script"),
    })
}

/// `TASK.a.b` in the values.
fn field(values: &Map<String, Value>, name: &str) -> Option<Value> {
    let mut parts = name.split('.');
    let first = values.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part)).cloned()
}

/// Which GPUs the daemon gives its tasks.
fn wanted_gpus(cpu_only: bool, variable: &dyn Fn(&str) -> Option<String>) -> Gpus {
    let value = variable("NVIDIA_VISIBLE_DEVICES").or_else(|| variable("CUDA_VISIBLE_DEVICES"));
    match value.as_deref().map(str::trim) {
        _ if cpu_only => Gpus::None,
        None | Some("all") => Gpus::All,
        Some("none" | "void") => Gpus::None,
        Some("") => Gpus::Unmentioned,
        Some(list) => Gpus::Some(list.split(',').map(|gpu| gpu.trim().replace('.', ":")).collect()),
    }
}

/// How this machine hands out GPUs.
fn vendor(engine: &EngineFacts) -> Vendor {
    let there = |path: &str| Path::new(path).exists();
    if there("/dev/nvidiactl") || there("/proc/driver/nvidia/version") {
        let described = ["/etc/cdi/nvidia.yaml", "/var/run/cdi/nvidia.yaml"]
            .into_iter()
            .any(there);
        return if !engine.nvidia_runtime && engine.cdi && described {
            Vendor::NvidiaCdi
        } else {
            Vendor::Nvidia
        };
    }
    if there("/dev/kfd") {
        let mut nodes: Vec<u32> = std::fs::read_dir("/dev/dri")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("renderD")?.parse().ok())
            .collect();
        nodes.sort_unstable();
        return Vendor::Amd(nodes);
    }
    Vendor::Absent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_of_a_task_in_both_forms() {
        let of = |json: Value| named(&serde_json::from_value(json).unwrap());
        let own = of(
            json!({"container": {"image": " img ", "arguments": "-e 'A=1 2' --init",
            "setup_shell_script": "echo\n"}}),
        );
        let own = own.unwrap();
        assert_eq!(own.image.as_deref(), Some("img"));
        assert_eq!(own.arguments, ["-e", "A=1 2", "--init"]);
        assert_eq!(own.setup_script.as_deref(), Some("echo\n"));
        let old = of(json!({"execution": {"docker_cmd": "img -v a:/b"}})).unwrap();
        assert_eq!((old.image.as_deref(), old.arguments.len()), (Some("img"), 2));
        assert_eq!(
            of(json!({"container": {"image": ""}})).unwrap(),
            Container::default()
        );
        assert!(of(json!({"container": {"arguments": "'"}})).is_err());
    }

    #[test]
    fn the_gpus_of_the_daemon_are_those_of_the_container() {
        let of = |value: Option<&str>| {
            wanted_gpus(false, &|name| {
                (name == "NVIDIA_VISIBLE_DEVICES").then(|| value.map(str::to_owned))?
            })
        };
        assert_eq!(of(None), Gpus::All);
        assert_eq!(of(Some("all")), Gpus::All);
        assert_eq!(of(Some("none")), Gpus::None);
        assert_eq!(of(Some("")), Gpus::Unmentioned);
        assert_eq!(
            of(Some("0, 1.2")),
            Gpus::Some(vec!["0".to_owned(), "1:2".to_owned()])
        );
        assert_eq!(wanted_gpus(true, &|_| Some("0".to_owned())), Gpus::None);
    }
}
