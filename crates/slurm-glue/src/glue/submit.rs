//! From a task that is ours to a job.

use clearml_intake::pop::Phase as PopPhase;
use clearml_sbatch_template::{Container, Script, Setup, Values};
use clearml_support::id::hex32;
use clearml_support::time::now_ms;
use clearml_task_model::{QueueId, Task, TaskId, TaskStatus};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use super::{Glue, GlueError};
use crate::core::jobs::{Marker, NAME_PREFIX};
use crate::core::limits::pause_sec;
use crate::core::pyxis;
use crate::core::refusal::Submission;
use crate::core::users::{self, Decision};
use crate::core::verdict::Verdict;
use crate::journal::{Phase, Record};
use crate::slurm::Job;

/// So often a refusal for an unknown reason is tried again.
const ATTEMPTS: u32 = 3;

/// Between two of those attempts.
const RETRY: Duration = Duration::from_secs(60);

impl Glue {
    /// Makes a job of a claimed task.
    pub(super) async fn submit(&mut self, run: &str) -> Result<(), GlueError> {
        let Some(record) = self.journal.get(run) else {
            return Ok(());
        };
        let Some(index) = self.served_of(&record.intent.queue) else {
            return self.give_back(&record).await;
        };
        let task = match self.client.tasks_get_by_id(record.task()).await {
            Ok(task) => task,
            Err(error) if matches!(error.code(), Some((400, _))) => return self.drop_record(&record).await,
            Err(error) => {
                tracing::warn!("task {}: {error}; it goes back to its queue", record.task());
                return self.give_back(&record).await;
            }
        };
        if task.status != Some(TaskStatus::Queued) {
            tracing::info!(
                "task {} is not submitted: its status is {:?}",
                record.task(),
                task.status
            );
            return self.drop_record(&record).await;
        }
        let user = match self.user_of(&task).await {
            Ok(user) => user,
            Err(reason) => return self.reject(&record, reason).await,
        };
        let script = match self
            .render(index, &task, user.as_ref().map(|(name, _)| name.as_str()))
            .await
        {
            Ok(script) => script,
            Err(reason) => {
                self.tell.say(record.task(), &reason).await;
                return self
                    .reject(&record, format!("Slurm template error: {reason}"))
                    .await;
            }
        };
        let about_container = self.container_arguments(&script).1;
        for warning in script.warnings.iter().chain(&about_container) {
            self.tell.say(record.task(), warning).await;
        }
        self.call_sbatch(&record, index, &script, user).await
    }

    async fn call_sbatch(
        &mut self,
        record: &Record,
        index: usize,
        script: &Script,
        user: Option<(String, String)>,
    ) -> Result<(), GlueError> {
        let nonce = hex32();
        let marker = Marker {
            task: record.task().to_string(),
            glue: self.worker.to_string(),
            nonce: nonce.clone(),
        };
        let marked = script.option("comment", '-').is_none();
        let digest = self.served[index].template.digest.clone();
        // From here on a job may exist.
        let record = self.journal.update(&record.intent.run, |record| {
            record.phase = Phase::Submitting;
            record.nonce.clone_from(&nonce);
            record.marked = marked;
            record.since = now_ms() / 1000;
            record.user = user.as_ref().map(|(name, _)| name.clone());
            record.template = digest;
        })?;
        let job = self.job(
            index,
            record.task(),
            script,
            marked.then(|| marker.comment()),
            user,
        );
        let outcome = self.slurm.submit(&job).await;
        self.submitted(&record, index, outcome).await
    }

    async fn submitted(
        &mut self,
        record: &Record,
        index: usize,
        outcome: Submission,
    ) -> Result<(), GlueError> {
        let run = &record.intent.run;
        let task = record.task();
        match outcome {
            Submission::Accepted(id) => {
                self.served[index].refusals = 0;
                let record = self
                    .journal
                    .update(run, |record| record.phase = Phase::Submitted(id))?;
                tracing::info!(
                    "task {task} of queue {} is job {id}",
                    self.served[index].queue.name
                );
                self.announce(&record, id, "submitted").await;
            }
            Submission::Refused(text) => {
                tracing::warn!("Slurm rejected the job of task {task}: {text}");
                self.tell.say(task, &text).await;
                return self
                    .reject(record, format!("Slurm rejected the job: {}", first_line(&text)))
                    .await;
            }
            Submission::Full(text) => {
                let served = &mut self.served[index];
                served.refusals += 1;
                let pause = pause_sec(served.refusals);
                served.paused = Some(Instant::now() + Duration::from_secs(pause));
                tracing::warn!(
                    "queue {}: the cluster takes no more jobs for {pause} s: {text}",
                    served.queue.name
                );
                return self.give_back(record).await;
            }
            Submission::Outage(text) => {
                self.outage(&text);
                return self.give_back(record).await;
            }
            Submission::Unknown(text) => {
                tracing::warn!("task {task}: it is not known whether its job exists: {text}");
                self.tell
                    .message(task, "Slurm submission outcome unknown, checking")
                    .await;
                self.outage(&text);
            }
            Submission::Odd(text) if record.attempts + 1 >= ATTEMPTS => {
                self.tell.say(task, &text).await;
                return self
                    .reject(record, format!("Slurm rejected the job: {}", first_line(&text)))
                    .await;
            }
            Submission::Odd(text) => {
                tracing::warn!("task {task}: {text}; trying again in {RETRY:?}");
                self.journal.update(run, |record| {
                    record.phase = Phase::Claimed;
                    record.attempts += 1;
                })?;
                self.watches.entry(run.clone()).or_default().retry = Some(Instant::now() + RETRY);
            }
        }
        Ok(())
    }

    /// Tells the task about its job.
    pub(super) async fn announce(&self, record: &Record, id: u64, what: &str) {
        let task = record.task();
        let job = format!("{}/{id}", self.cluster);
        let queue = self
            .served_of(&record.intent.queue)
            .map_or("", |index| &self.served[index].queue.name);
        let number = id.to_string();
        let mut properties = vec![
            ("slurm-job-id", number.as_str()),
            ("slurm-cluster", &self.cluster),
            ("slurm-queue", queue),
        ];
        if let Some(user) = &record.user {
            properties.push(("slurm-user", user));
        }
        let properties = async {
            if self.options.report_properties {
                self.tell.properties(task, &properties).await;
            }
        };
        let text = format!("Slurm job {id} {what} on cluster {}", self.cluster);
        // None of them depends on another, and the next task waits for all.
        let (noted, (), (), ()) = tokio::join!(
            self.tell.note_job(task, &job, record.restarts),
            properties,
            self.tell.message(task, &text),
            self.tell.say(task, &text),
        );
        if let Err(error) = noted {
            tracing::warn!("task {task}: {error}");
        }
    }

    /// The job cannot be: its task fails.
    pub(super) async fn reject(&mut self, record: &Record, reason: String) -> Result<(), GlueError> {
        tracing::warn!("task {}: {reason}", record.task());
        self.end_task(record, &Verdict::Failed(reason)).await
    }

    /// The task goes back to the front of the queue that it came from.
    pub(super) async fn give_back(&mut self, record: &Record) -> Result<(), GlueError> {
        match self
            .popper
            .give_back(record.intent.clone(), PopPhase::Claimed)
            .await
        {
            Ok(_) => {}
            Err(error) => {
                tracing::warn!("{error}; the task is put back later");
                self.journal
                    .update(&record.intent.run, |record| record.phase = Phase::Claimed)?;
            }
        }
        Ok(())
    }

    /// Nothing more to do about a task.
    pub(super) async fn drop_record(&mut self, record: &Record) -> Result<(), GlueError> {
        if let Err(error) = self.server.unpark(record.task()).await {
            tracing::debug!("task {}: {error}", record.task());
        }
        self.journal.remove(&record.intent.run)?;
        self.watches.remove(&record.intent.run);
        Ok(())
    }

    /// The Linux user of a task's job with its home; `None`: our own.
    pub(super) async fn user_of(&self, task: &Task) -> Result<Option<(String, String)>, String> {
        let clearml = task.user.as_ref().map(|user| user.as_str());
        let map = users::effective(&self.options.user_map, None);
        let wanted = clearml
            .and_then(|user| map.get(user))
            .or_else(|| map.get("default"));
        let known = match wanted {
            Some(name) => self.slurm.user(name).await,
            None => None,
        };
        match users::decide(map, clearml, &self.options.user_rules, |_| {
            known.as_ref().map(|(uid, _)| *uid)
        }) {
            Decision::Glue => Ok(None),
            Decision::User(name) => Ok(Some((name, known.map(|(_, home)| home).unwrap_or_default()))),
            Decision::Rejected(reason) => Err(reason),
        }
    }

    /// What Pyxis has to be told besides the directives of a script.
    fn container_arguments(&self, script: &Script) -> (Vec<String>, Option<String>) {
        let path = |path: &Option<std::path::PathBuf>| Some(path.as_ref()?.to_string_lossy().into_owned());
        let (agent, shared) = (path(&self.options.agent_binary), path(&self.options.shared_dir));
        pyxis::arguments(script, agent.as_deref(), shared.as_deref())
    }

    fn job(
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
        Job {
            script: script.text.clone(),
            name: format!("{NAME_PREFIX}{task}"),
            comment,
            work_dir: script.option("chdir", 'D').is_none().then_some(work_dir),
            extra: [self.container_arguments(script).0, setup.extra_args.clone()].concat(),
            user,
        }
    }

    /// Fills in the template of a queue.
    pub(super) async fn render(
        &self,
        index: usize,
        task: &Task,
        user: Option<&str>,
    ) -> Result<Script, String> {
        let served = &self.served[index];
        let id = task.id.as_ref().map(ToString::to_string).unwrap_or_default();
        let worker = format!("{}:{id}", self.worker);
        let text = &served.template.text;
        let container = |key: &str| {
            let value = task.container.as_ref().and_then(|container| container.get(key));
            value.and_then(Value::as_str).map(str::to_owned)
        };
        let values = Values {
            task: serde_json::to_value(task).map_err(|error| error.to_string())?,
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
            slurm_user: user.map_or_else(own_name, str::to_owned),
            glue_id: self.worker.to_string(),
            default_image: self.options.default_image.clone(),
            ..Values::default()
        };
        let path =
            |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        let setup = Setup {
            task: id,
            queue: served.queue.name.clone(),
            worker,
            shared_dir: path(&self.options.shared_dir),
            agent: path(&self.options.agent_binary),
            configuration: self.options.configuration.clone(),
            require_queue: self.parking.is_some(),
            container: Container {
                image: container("image"),
                arguments: container("arguments").unwrap_or_default(),
                setup_script: container("setup_shell_script"),
            },
        };
        served
            .template
            .template
            .render(&values, &setup)
            .map_err(|error| error.to_string())
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
        let user = self.user_of(&task).await.map_err(GlueError::Task)?;
        let script = self
            .render(index, &task, user.as_ref().map(|(name, _)| name.as_str()))
            .await;
        script.map_err(GlueError::Task)
    }

    /// Asks Slurm whether it would take the job of a small task from each queue. Nothing is submitted.
    pub async fn check(&self) -> Vec<(String, Result<String, String>)> {
        let mut findings = Vec::new();
        for index in 0..self.served.len() {
            let id = "0".repeat(32);
            let task: Task = serde_json::from_value(json!({
                "id": id, "name": "check", "status": "queued", "container": {"image": "docker://check"},
            }))
            .unwrap_or_default();
            let name = format!("queue {}", self.served[index].queue.name);
            let result = match self.render(index, &task, None).await {
                // A template may ask for more than an empty task has; that is no fault.
                Err(reason) => Ok(format!("needs values that a task must have: {reason}")),
                Ok(script) => {
                    let job = self.job(index, &TaskId::new(&*id), &script, None, None);
                    self.slurm.test(&job).await.map_err(|error| error.to_string())
                }
            };
            findings.push((name, result));
        }
        findings
    }
}

fn own_name() -> String {
    std::env::var("USER").unwrap_or_else(|_| rustix::process::geteuid().as_raw().to_string())
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or(text)
}
