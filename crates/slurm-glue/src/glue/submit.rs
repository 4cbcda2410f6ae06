//! From a task that is ours to a job.

use std::sync::Arc;

use clearml_intake::pop::Phase as PopPhase;
use clearml_support::id::hex32;
use clearml_support::time::now_ms;
use clearml_task_model::TaskStatus;
use futures::StreamExt;
use tokio::time::{Duration, Instant};

use super::{AT_ONCE, Glue, GlueError, aside};
use crate::core::jobs::Marker;
use crate::core::limits::pause_sec;
use crate::core::refusal::Submission;
use crate::core::verdict::Verdict;
use crate::journal::{JournalError, Phase, Record};
use crate::slurm::Job;

/// So often a refusal for an unknown reason is tried again.
const ATTEMPTS: u32 = 3;

/// Between two of those attempts.
const RETRY: Duration = Duration::from_secs(60);

/// A job that sbatch may be called for.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) record: Arc<Record>,
    /// Its queue.
    pub(super) index: usize,
    job: Job,
    nonce: String,
}

/// What has become of a claimed task.
#[derive(Debug)]
pub(super) enum Preparation {
    /// Its job may be submitted.
    Ready(Box<Prepared>),
    /// There is to be no job.
    Over,
    /// It went back to this queue: the server is in trouble, and it would come here again at once.
    Back(usize),
}

/// What an attempt to submit means for what comes next.
#[derive(Debug)]
pub(super) enum Attempt {
    /// The job exists.
    Job(u64),
    /// The task has failed: its job can't be.
    Rejected,
    /// It was not tried, because of an earlier one of the same queue.
    NotTried,
    /// The cluster takes no more jobs of this queue for now.
    Full(String),
    /// Slurm can't be reached.
    Outage(String),
    /// Whether the job exists is not known.
    Unknown(String),
    /// To be tried again later.
    Later,
}

impl Glue {
    /// Makes a job of a claimed task.
    pub(super) async fn submit(&mut self, run: &str) -> Result<(), GlueError> {
        let Preparation::Ready(prepared) = self.prepare(run).await? else {
            return Ok(());
        };
        let (record, attempt) = self.attempt(&prepared).await?;
        if let Attempt::Job(id) = attempt {
            self.announce(&[(Arc::clone(&record), id)], "submitted").await;
        }
        self.after(vec![(record, prepared.index, attempt)]).await
    }

    /// Fetches a claimed task and makes everything ready for its job.
    pub(super) async fn prepare(&self, run: &str) -> Result<Preparation, GlueError> {
        let Some(record) = self.journal.get(run) else {
            return Ok(Preparation::Over);
        };
        let Some(index) = self.served_of(&record.intent.queue) else {
            self.give_back(&record).await?;
            return Ok(Preparation::Over);
        };
        let task = match self.client.tasks_get_by_id(record.task()).await {
            Ok(task) => task,
            Err(error) if matches!(error.code(), Some((400, _))) => {
                self.drop_record(&record).await?;
                return Ok(Preparation::Over);
            }
            Err(error) => {
                tracing::warn!("task {}: {error}; it goes back to its queue", record.task());
                self.give_back(&record).await?;
                return Ok(Preparation::Back(index));
            }
        };
        if task.status != Some(TaskStatus::Queued) {
            let status = task.status.as_ref().map(ToString::to_string).unwrap_or_default();
            tracing::info!("task {} is not submitted: its status is {status}", record.task());
            self.drop_record(&record).await?;
            return Ok(Preparation::Over);
        }
        let user = match self.user_of(&task).await {
            Ok(user) => user,
            Err(trouble) => return self.no_job(&record, index, trouble).await,
        };
        let name = user.as_ref().map(|(name, _)| name.as_str());
        let script = match self.render(index, &task, name).await {
            Ok(script) => script,
            Err(trouble) => return self.no_job(&record, index, trouble).await,
        };
        let about_container = self.container_arguments(&script).1;
        let warnings = script.warnings.iter().chain(&about_container);
        self.tell
            .say_all(warnings.map(|text| (record.task(), text.as_str())))
            .await;
        let marker = Marker {
            task: record.task().to_string(),
            glue: self.worker.to_string(),
            nonce: hex32(),
        };
        // A template may set a comment of its own.
        let comment = script.option("comment", '-').is_none().then(|| marker.comment());
        Ok(Preparation::Ready(Box::new(Prepared {
            job: self.job(index, record.task(), &script, comment, user),
            record,
            index,
            nonce: marker.nonce,
        })))
    }

    /// Calls sbatch, between two entries of the journal.
    pub(super) async fn attempt(&self, prepared: &Prepared) -> Result<(Arc<Record>, Attempt), GlueError> {
        let run = &prepared.record.intent.run;
        let job = &prepared.job;
        let served = &self.served[prepared.index];
        // From here on a job may exist.
        let (nonce, digest) = (prepared.nonce.clone(), served.template.digest.clone());
        let (marked, user) = (
            job.comment.is_some(),
            job.user.as_ref().map(|(name, _)| name.clone()),
        );
        let (partition, output) = (job.partition.clone(), job.output.clone());
        let record = self
            .record(run, move |record| {
                record.phase = Phase::Submitting;
                record.nonce = nonce;
                record.marked = marked;
                record.since = now_ms() / 1000;
                record.user = user;
                record.partition = partition;
                record.output = output;
                record.template = digest;
            })
            .await?;
        let task = record.task();
        let attempt = match self.slurm.submit(job).await {
            Submission::Accepted(id) => {
                let record = self
                    .record(run, move |record| record.phase = Phase::Submitted(id))
                    .await?;
                tracing::info!("task {task} of queue {} is job {id}", served.queue.name);
                return Ok((record, Attempt::Job(id)));
            }
            Submission::Full(text) => Attempt::Full(text),
            Submission::Outage(text) => Attempt::Outage(text),
            Submission::Unknown(text) => {
                tracing::warn!("task {task}: it is not known whether its job exists: {text}");
                self.tell
                    .message(task, "Slurm submission outcome unknown, checking")
                    .await;
                Attempt::Unknown(text)
            }
            Submission::Odd(text) if record.attempts + 1 < ATTEMPTS => {
                tracing::warn!("task {task}: {text}; trying again in {RETRY:?}");
                let record = self.journal.update(run, |record| {
                    record.phase = Phase::Claimed;
                    record.attempts += 1;
                })?;
                return Ok((record, Attempt::Later));
            }
            Submission::Refused(text) | Submission::Odd(text) => {
                self.tell.say(task, &text).await;
                let first = text.lines().next().unwrap_or(&text);
                self.reject(&record, format!("Slurm rejected the job: {first}"))
                    .await?;
                Attempt::Rejected
            }
        };
        Ok((record, attempt))
    }

    /// Writes to the journal while others go on.
    async fn record(
        &self,
        run: &str,
        change: impl FnOnce(&mut Record) + Send + 'static,
    ) -> Result<Arc<Record>, JournalError> {
        let (journal, run) = (Arc::clone(&self.journal), run.to_owned());
        aside(async move { journal.update(&run, change) }).await
    }

    /// Draws the conclusions from attempts, in the order in which they were made: what has no job and has not
    /// failed goes back to the front of its queue, where it stands in the same order again.
    pub(super) async fn after(
        &mut self,
        attempts: Vec<(Arc<Record>, usize, Attempt)>,
    ) -> Result<(), GlueError> {
        for (record, index, attempt) in &attempts {
            let served = &mut self.served[*index];
            match attempt {
                Attempt::Job(_) => served.refusals = 0,
                Attempt::Full(text) => {
                    served.refusals += 1;
                    let pause = pause_sec(served.refusals);
                    served.paused = Some(Instant::now() + Duration::from_secs(pause));
                    tracing::warn!(
                        "queue {}: the cluster takes no more jobs for {pause} s: {text}",
                        served.queue.name
                    );
                }
                Attempt::Outage(text) | Attempt::Unknown(text) => self.outage(text),
                Attempt::Later => {
                    let watch = self.watches.entry(record.intent.run.clone()).or_default();
                    watch.retry = Some(Instant::now() + RETRY);
                }
                Attempt::Rejected | Attempt::NotTried => {}
            }
        }
        for (record, _, attempt) in attempts.iter().rev() {
            if matches!(attempt, Attempt::NotTried | Attempt::Full(_) | Attempt::Outage(_)) {
                self.give_back(record).await?;
            }
        }
        Ok(())
    }

    /// Tells tasks about their jobs. Nothing of it depends on the rest, so it goes side by side.
    pub(super) async fn announce(&self, jobs: &[(Arc<Record>, u64)], what: &str) {
        let texts: Vec<String> = jobs
            .iter()
            .map(|(record, id)| self.about(record, *id, what))
            .collect();
        let each = futures::stream::iter(jobs.iter().zip(&texts))
            .for_each_concurrent(AT_ONCE, |((record, id), text)| {
                self.announce_one(record, *id, text)
            });
        let lines = jobs.iter().zip(&texts);
        let lines = lines.map(|((record, _), text)| (record.task(), text.as_str()));
        tokio::join!(each, self.tell.say_all(lines));
    }

    fn about(&self, record: &Record, id: u64, what: &str) -> String {
        let mut text = format!("Slurm job {id} {what}");
        if let Some(partition) = record.partition.as_deref().filter(|_| what == "submitted") {
            text.push_str(&format!(" to {partition}"));
        }
        text.push_str(&format!(" on cluster {}", self.cluster().unwrap_or_default()));
        if let Some(output) = &record.output {
            text.push_str(&format!(
                "; its output: {}",
                output.replace("%j", &id.to_string())
            ));
        }
        text
    }

    async fn announce_one(&self, record: &Record, id: u64, text: &str) {
        let task = record.task();
        let job = self.note_of(id);
        let queue = self
            .served_of(&record.intent.queue)
            .map_or("", |index| &self.served[index].queue.name);
        let number = id.to_string();
        let mut properties = vec![
            ("slurm-job-id", number.as_str()),
            ("slurm-cluster", self.cluster().unwrap_or_default()),
            ("slurm-queue", queue),
        ];
        if let Some(partition) = &record.partition {
            properties.push(("slurm-partition", partition));
        }
        if let Some(user) = &record.user {
            properties.push(("slurm-user", user));
        }
        let properties = async {
            if self.options.report_properties {
                self.tell.properties(task, &properties).await;
            }
        };
        let (noted, (), ()) = tokio::join!(
            self.tell.note_job(task, &job, record.restarts),
            properties,
            self.tell.message(task, text),
        );
        if let Err(error) = noted {
            tracing::warn!("task {task}: {error}");
        }
    }

    /// The job cannot be: its task fails.
    pub(super) async fn reject(&self, record: &Record, reason: String) -> Result<(), GlueError> {
        tracing::warn!("task {}: {reason}", record.task());
        self.end_task(record, &Verdict::Failed(reason)).await
    }

    /// The task goes back to the front of the queue that it came from.
    pub(super) async fn give_back(&self, record: &Record) -> Result<(), GlueError> {
        let given = self
            .popper
            .give_back(record.intent.clone(), PopPhase::Claimed)
            .await;
        if let Err(error) = given {
            tracing::warn!("{error}; the task is put back later");
            self.journal
                .update(&record.intent.run, |record| record.phase = Phase::Claimed)?;
        }
        Ok(())
    }

    /// Nothing more to do about a task.
    pub(super) async fn drop_record(&self, record: &Record) -> Result<(), GlueError> {
        self.forget_secrets(record.task().as_str());
        if let Err(error) = self.server.unpark(record.task()).await {
            tracing::debug!("task {}: {error}", record.task());
        }
        Ok(self.journal.remove(&record.intent.run)?)
    }
}
