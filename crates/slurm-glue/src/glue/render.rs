//! The script of a task: its Linux user, its template filled in, what sbatch is told besides; previews and checks.

use clearml_container::words::Rules;
use clearml_sbatch_template::{Container, Script, Setup, Values};
use clearml_task_model::{QueueId, Task, TaskId};
use regex::Regex;
use serde_json::{Value, json};

use super::owner::Trouble;
use super::{Glue, GlueError};
use crate::core::images;
use crate::core::jobs::NAME_PREFIX;
use crate::core::pyxis;
use crate::slurm::Job;

impl Glue {
    /// What Pyxis has to be told besides the directives of a script.
    pub(super) fn container_arguments(&self, script: &Script) -> (Vec<String>, Option<String>) {
        let path = |path: &Option<std::path::PathBuf>| Some(path.as_ref()?.to_string_lossy().into_owned());
        let (agent, shared) = (path(&self.options.agent_binary), path(&self.options.shared_dir));
        pyxis::arguments(script, agent.as_deref(), shared.as_deref())
    }

    pub(super) fn job(
        &self,
        index: usize,
        task: &TaskId,
        script: &Script,
        comment: Option<String>,
        user: Option<(String, String)>,
    ) -> Job {
        let setup = &self.served[index].setup;
        let folder = setup.work_dir.as_ref().or(self.options.work_dir.as_ref());
        let work_dir = match (folder, &user) {
            (Some(folder), _) => folder.to_string_lossy().into_owned(),
            (None, Some((_, home))) => home.clone(),
            (None, None) => std::env::current_dir()
                .unwrap_or_else(|_| "/tmp".into())
                .to_string_lossy()
                .into_owned(),
        };
        // Beside a dependency of the template there is no place for another.
        let alone = self.options.singleton && script.option("dependency", 'd').is_none();
        let singleton = alone.then(|| "--dependency=singleton".to_owned());
        let singleton = Vec::from_iter(singleton);
        Job {
            script: script.text.clone(),
            name: format!("{NAME_PREFIX}{task}"),
            partition: script
                .option("partition", 'p')
                .map(str::to_owned)
                .or_else(|| self.site.as_ref()?.default_partition.clone()),
            output: script.option("output", 'o').map(str::to_owned),
            comment,
            work_dir: script.option("chdir", 'D').is_none().then_some(work_dir),
            extra: [
                self.container_arguments(script).0,
                singleton,
                setup.extra_args.clone(),
            ]
            .concat(),
            user,
        }
    }

    /// Fills in the template of a queue.
    pub(super) async fn render(
        &self,
        index: usize,
        task: &Task,
        user: Option<&str>,
    ) -> Result<Script, Trouble> {
        let served = &self.served[index];
        let id = task.id.as_ref().map(ToString::to_string).unwrap_or_default();
        let worker = format!("{}:{id}", self.worker);
        let text = &served.template.text;
        let container = |key: &str| {
            let value = task.container.as_ref().and_then(|container| container.get(key));
            value.and_then(Value::as_str).map(str::to_owned)
        };
        let (arguments, left_out) = self.arguments(&container("arguments").unwrap_or_default())?;
        let mut shown = serde_json::to_value(task).map_err(|error| Trouble::Template(error.to_string()))?;
        if let Some(place) = shown.pointer_mut("/container/arguments") {
            *place = arguments.clone().into();
        }
        let values = Values {
            task: shown,
            user: if text.contains("CLEARML_USER.") {
                self.owner(task).await
            } else {
                Value::Null
            },
            config: if text.contains("CLEARML_CONFIG.") {
                self.settings.masked_json()
            } else {
                Value::Null
            },
            project_name: if text.contains("PROJECT_NAME") || text.contains("project.name") {
                self.project(task).await
            } else {
                None
            },
            queue_name: served.queue.name.clone(),
            queue_id: served.queue.id.to_string(),
            worker_id: worker.clone(),
            slurm_user: user.unwrap_or(&self.own_user).to_owned(),
            glue_id: self.worker.to_string(),
            default_image: self.options.default_image.clone(),
            user_vaults: if text.contains("CLEARML_USER_VAULTS.") {
                self.merged_vaults(task).await?
            } else {
                Value::Null
            },
            ..Values::default()
        };
        let image = container("image").filter(|image| !image.is_empty());
        if let Some(image) = image
            .as_deref()
            .filter(|image| !images::is_allowed(&self.options.allowed_images, image))
        {
            return Err(Trouble::Task(format!(
                "image {image} is not among those that agent.slurm.allowed_images names"
            )));
        }
        let secrets = self.secrets(task, user).await?;
        let path =
            |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        let setup = Setup {
            task: id,
            queue: served.queue.name.clone(),
            worker,
            shared_dir: path(&self.options.shared_dir),
            agent: path(&self.options.agent_binary),
            configuration: secrets.configuration,
            token: secrets.token,
            require_queue: self.options.parking.is_some(),
            container: Container {
                image,
                arguments,
                setup_script: container("setup_shell_script"),
            },
        };
        let rendered = served.template.template.render(&values, &setup);
        let mut script = rendered.map_err(|error| Trouble::Template(error.to_string()))?;
        if !left_out.is_empty() {
            let text = format!(
                "container arguments that agent.docker_args_filters does not let through are left out: {}",
                left_out.join(" ")
            );
            script.warnings.push(text);
        }
        Ok(script)
    }

    /// The container arguments of a task that are let through, and those that are not.
    fn arguments(&self, text: &str) -> Result<(String, Vec<String>), Trouble> {
        let patterns = self.settings.list("agent.docker_args_filters");
        if patterns.is_empty() || text.is_empty() {
            return Ok((text.to_owned(), Vec::new()));
        }
        let mut filters = Vec::new();
        for pattern in &patterns {
            let wrong = |error| format!("agent.docker_args_filters has the pattern {pattern:?}: {error}");
            filters.push(Regex::new(pattern).map_err(|error| Trouble::Task(wrong(error)))?);
        }
        let rules = Rules {
            filters,
            forbidden: Vec::new(),
            protected: Vec::new(),
            extra_first: false,
            host_environment_for_tasks: false,
        };
        let words = shlex::split(text).ok_or_else(|| {
            Trouble::Task("a quote is not closed in the task's container arguments".to_owned())
        })?;
        let combined = rules.combine(&words, &[], &|_| None);
        let joined = shlex::try_join(combined.words.iter().map(String::as_str));
        let joined =
            joined.map_err(|error| Trouble::Task(format!("the task's container arguments: {error}")))?;
        Ok((joined, combined.filtered))
    }

    async fn owner(&self, task: &Task) -> Value {
        let Some(user) = &task.user else {
            return Value::Null;
        };
        match self.client.users_get_by_id(user).await {
            Ok(user) => serde_json::to_value(user).unwrap_or_default(),
            Err(error) => {
                tracing::debug!("user {user}: {error}");
                json!({"id": user})
            }
        }
    }

    async fn project(&self, task: &Task) -> Option<String> {
        let project = task.project.as_ref()?;
        match self.client.projects_get_by_id(project).await {
            Ok(project) => project.name,
            Err(error) => {
                tracing::debug!("project {project}: {error}");
                None
            }
        }
    }

    /// The script that would be submitted for a task of a queue; secrets masked.
    ///
    /// # Errors
    ///
    /// When there is no such task or queue, or the template can't be filled in.
    pub async fn preview(&self, task: &TaskId, queue: Option<&str>) -> Result<Script, GlueError> {
        let task = self.client.tasks_get_by_id(task).await?;
        let named = |name: &str| {
            self.served
                .iter()
                .position(|s| s.queue.name == name || s.queue.id.as_str() == name)
        };
        let own = task
            .execution
            .as_ref()
            .and_then(|execution| execution.get("queue"))
            .and_then(Value::as_str);
        let index = match queue {
            Some(name) => {
                named(name).ok_or_else(|| GlueError::Task(format!("queue {name:?} is not served")))?
            }
            None => own.and_then(|id| self.served_of(&QueueId::new(id))).unwrap_or(0),
        };
        let user = self
            .user_of(&task)
            .await
            .map_err(|trouble| GlueError::Task(trouble.to_string()))?;
        let script = self
            .render(index, &task, user.as_ref().map(|(name, _)| name.as_str()))
            .await;
        script.map_err(|trouble| GlueError::Task(trouble.to_string()))
    }

    /// Asks Slurm whether it would take the job of a small task from each queue. Nothing is submitted.
    pub async fn check(&self) -> Vec<QueueCheck> {
        let mut findings = Vec::new();
        for (index, served) in self.served.iter().enumerate() {
            let id = "0".repeat(32);
            let task: Task = serde_json::from_value(json!({
                "id": id, "name": "check", "status": "queued", "container": {"image": "docker://check"},
            }))
            .unwrap_or_default();
            let job = match self.render(index, &task, None).await {
                // A template may ask for more than an empty task has; that is no fault.
                Err(reason) => Ok(format!("needs values that a task must have: {reason}")),
                Ok(script) => {
                    let job = self.job(index, &TaskId::new(&*id), &script, None, None);
                    self.slurm.test(&job).await.map_err(|error| error.to_string())
                }
            };
            findings.push(QueueCheck {
                queue: served.queue.name.clone(),
                exists: !served.queue.id.as_str().is_empty(),
                job,
            });
        }
        findings
    }
}

/// What [`Glue::check`] says about a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueCheck {
    /// Its name.
    pub queue: String,
    /// The server knows it. Otherwise it will be created.
    pub exists: bool,
    /// What Slurm says about a job of it.
    pub job: Result<String, String>,
}
