//! From a task that is ours to a job.

use clearml_intake::pop::Phase as PopPhase;
use clearml_sbatch_template::Script;
use clearml_support::id::hex32;
use clearml_support::time::now_ms;
use clearml_task_model::TaskStatus;
use tokio::time::{Duration, Instant};

use super::{Glue, GlueError};
use crate::core::jobs::Marker;
use crate::core::limits::pause_sec;
use crate::core::refusal::Submission;
use crate::core::verdict::Verdict;
use crate::journal::{Phase, Record};

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
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or(text)
}
