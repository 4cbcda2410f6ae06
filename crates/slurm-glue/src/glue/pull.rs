//! Taking tasks: an assembly line.
//!
//! Five stations work at the same time, each on another task: it is popped from its queue, it is claimed, its script
//! is prepared, sbatch is called, and the task is told about its job. Every task passes them in the order of the queues,
//! and sbatch is called for one after the other, so jobs have the order of their tasks. The journal is written at the
//! same points as for a single task; a glue that dies finds each of them where it was.
//!
//! Stations only note what an attempt means for those after it. The conclusions are drawn when the line stands still.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use clearml_api_client::{ApiError, QueuesQuery};
use clearml_intake::order::{Choice, QueueOrder};
use clearml_intake::popper::{Outcome, Pop, PopError};
use clearml_task_model::TaskId;
use tokio::sync::{mpsc, watch as signal};
use tokio::time::Instant;

use super::submit::{Attempt, Preparation, Prepared};
use super::{AT_ONCE, Glue, GlueError, aside};
use crate::journal::{JournalError, Record};

/// The most tasks that are taken after one look at the queues.
const BURST: usize = 10;

/// So many tasks may wait between two stations. Each is popped already, and goes back if the cluster takes no more.
const BETWEEN: usize = 1;

/// What the stations have to know of each other.
struct Line<'a> {
    once: bool,
    stop: &'a signal::Receiver<bool>,
    /// Slurm can't be reached.
    halted: Cell<bool>,
    /// Queues whose jobs the cluster refuses, or whose tasks went back.
    closed: Vec<Cell<bool>>,
    attempts: RefCell<Vec<(Arc<Record>, usize, Attempt)>>,
}

/// A task on its way to the second station.
struct Popped {
    pop: Pop,
    /// The record of its job, if it has one already.
    tracked: Option<Arc<Record>>,
}

impl Line<'_> {
    fn takes(&self, index: usize) -> bool {
        !self.halted.get() && !self.closed[index].get()
    }

    fn note(&self, record: Arc<Record>, index: usize, attempt: Attempt) {
        match attempt {
            Attempt::Full(_) => self.closed[index].set(true),
            Attempt::Outage(_) | Attempt::Unknown(_) => self.halted.set(true),
            _ => {}
        }
        self.attempts.borrow_mut().push((record, index, attempt));
    }
}

impl Glue {
    /// Takes tasks while there are any, and there is room, and the next look at jobs is not due. `once`: at most one
    /// of each queue. Returns whether there may be more.
    pub(super) async fn pull(
        &mut self,
        once: bool,
        stop: &signal::Receiver<bool>,
        until: Instant,
    ) -> Result<bool, GlueError> {
        for served in &mut self.served {
            served.template.refresh();
        }
        let mut order = self.order.clone();
        let line = Line {
            once,
            stop,
            halted: Cell::new(false),
            closed: vec![Cell::new(false); self.served.len()],
            attempts: RefCell::default(),
        };
        let (popped, to_claim) = mpsc::channel(BETWEEN);
        let (claimed, to_prepare) = mpsc::channel(BETWEEN);
        let (prepared, to_submit) = mpsc::channel(BETWEEN);
        let (submitted, to_tell) = mpsc::channel(8 * AT_ONCE);
        let (more, ours, ready, called, ()) = tokio::join!(
            Box::pin(self.take_tasks(&mut order, &line, until, popped)),
            Box::pin(self.claim_tasks(to_claim, claimed)),
            Box::pin(self.prepare_jobs(&line, to_prepare, prepared)),
            Box::pin(self.call_sbatch(&line, to_submit, submitted)),
            Box::pin(self.tell_tasks(to_tell)),
        );
        let attempts = line.attempts.take();
        self.order = order;
        self.after(attempts).await?;
        called.and(ready).and(ours).and(more)
    }

    /// The first station.
    async fn take_tasks(
        &self,
        order: &mut QueueOrder,
        line: &Line<'_>,
        until: Instant,
        popped: mpsc::Sender<Popped>,
    ) -> Result<bool, GlueError> {
        let mut taken = vec![0usize; self.served.len()];
        loop {
            let mut heads = self.heads().await;
            let before: usize = taken.iter().sum();
            loop {
                if *line.stop.borrow() || line.halted.get() {
                    return Ok(false);
                }
                let ready: Vec<bool> = (0..self.served.len())
                    .map(|index| {
                        let may = line.takes(index) && !(line.once && taken[index] > 0);
                        may && !heads[index].is_empty() && self.has_room(index)
                    })
                    .collect();
                let index = match order.choose(&ready) {
                    Choice::Serve(index) => index,
                    Choice::NextPass if line.once => return Ok(false),
                    Choice::NextPass => continue,
                    Choice::Idle => break,
                };
                let Some(task) = heads[index].pop_front() else {
                    break;
                };
                match self.take(index, &task).await? {
                    Some(task) => {
                        order.pulled(index);
                        taken[index] += 1;
                        if popped.send(task).await.is_err() {
                            return Ok(false);
                        }
                    }
                    None => {
                        order.passed_over(index);
                        // What was seen behind it may be wrong as well.
                        heads[index].clear();
                    }
                }
            }
            if taken.iter().sum::<usize>() == before {
                return Ok(false);
            }
            if Instant::now() >= until {
                return Ok(true);
            }
        }
    }

    /// Pops the task at the head of a queue.
    async fn take(&self, index: usize, task: &TaskId) -> Result<Option<Popped>, GlueError> {
        let queue = self.served[index].queue.id.clone();
        let tracked = self.journal.of_task(task);
        let (popper, task) = (Arc::clone(&self.popper), task.clone());
        let pop = match aside(async move { popper.pop(&queue, &task).await }).await {
            Ok(Pop::Over(Outcome::Missed | Outcome::PutBack(_))) => return Ok(None),
            Ok(Pop::Over(Outcome::NotOurs(intent, why))) => {
                tracing::info!("task {} is not submitted: {why}", intent.task);
                return Ok(None);
            }
            Ok(pop) => pop,
            Err(error) => return self.popping_failed(error).await.map(|()| None),
        };
        Ok(Some(Popped { pop, tracked }))
    }

    async fn popping_failed(&self, error: PopError<ApiError, JournalError>) -> Result<(), GlueError> {
        match error {
            PopError::Journal { source, .. } => Err(source.into()),
            error => {
                tracing::warn!("{error}");
                tokio::time::sleep(Duration::from_millis(500)).await;
                Ok(())
            }
        }
    }

    /// The second station.
    async fn claim_tasks(
        &self,
        mut popped: mpsc::Receiver<Popped>,
        claimed: mpsc::Sender<String>,
    ) -> Result<(), GlueError> {
        while let Some(Popped { pop, tracked }) = popped.recv().await {
            let outcome = match pop {
                Pop::Given(given) => {
                    let popper = Arc::clone(&self.popper);
                    aside(async move { popper.claim_given(given).await }).await
                }
                Pop::Over(outcome) => Ok(outcome),
            };
            let intent = match outcome {
                Ok(Outcome::Ours(intent)) => intent,
                Ok(Outcome::NotOurs(intent, why)) => {
                    tracing::info!("task {} is not submitted: {why}", intent.task);
                    continue;
                }
                Ok(Outcome::PutBack(_) | Outcome::Missed) => continue,
                Err(error) => {
                    self.popping_failed(error).await?;
                    continue;
                }
            };
            if let Some(record) = tracked {
                // Somebody has put a task into the queue again whose job exists: it is parked again.
                tracing::info!(
                    "task {} was queued again; job {:?} goes on",
                    intent.task,
                    record.job()
                );
                self.journal.remove(&intent.run)?;
            } else if claimed.send(intent.run).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// The third station.
    async fn prepare_jobs(
        &self,
        line: &Line<'_>,
        mut claimed: mpsc::Receiver<String>,
        prepared: mpsc::Sender<Box<Prepared>>,
    ) -> Result<(), GlueError> {
        while let Some(run) = claimed.recv().await {
            let job = match self.prepare(&run).await? {
                Preparation::Ready(job) => job,
                Preparation::Over => continue,
                Preparation::Back(index) => {
                    line.closed[index].set(true);
                    continue;
                }
            };
            if prepared.send(job).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// The fourth station.
    async fn call_sbatch(
        &self,
        line: &Line<'_>,
        mut prepared: mpsc::Receiver<Box<Prepared>>,
        submitted: mpsc::Sender<(Arc<Record>, u64)>,
    ) -> Result<(), GlueError> {
        let mut next = Instant::now();
        while let Some(job) = prepared.recv().await {
            if !line.takes(job.index) {
                line.note(job.record, job.index, Attempt::NotTried);
                continue;
            }
            tokio::time::sleep_until(next).await;
            next = Instant::now() + self.options.spacing;
            let (record, attempt) = self.attempt(&job).await?;
            if let Attempt::Job(id) = attempt {
                // Its reader goes on until we end.
                let _told = submitted.send((Arc::clone(&record), id)).await;
            }
            line.note(record, job.index, attempt);
        }
        Ok(())
    }

    /// The last station. What has come together meanwhile is told together.
    async fn tell_tasks(&self, mut submitted: mpsc::Receiver<(Arc<Record>, u64)>) {
        let mut jobs = Vec::new();
        while submitted.recv_many(&mut jobs, AT_ONCE).await > 0 {
            self.announce(&jobs, "submitted").await;
            jobs.clear();
        }
    }

    /// The first tasks of each queue, by one request.
    async fn heads(&self) -> Vec<VecDeque<TaskId>> {
        let query = QueuesQuery {
            id: self.queues(),
            only_fields: ["id", "name", "entries"].map(str::to_owned).to_vec(),
            max_task_entries: Some(u32::try_from(BURST).unwrap_or(u32::MAX)),
            search_hidden: true,
            ..QueuesQuery::default()
        };
        let queues = match self.client.queues_get_all(&query).await {
            Ok(queues) => queues,
            Err(error) => {
                tracing::warn!("looking at the queues: {error}");
                return vec![VecDeque::new(); self.served.len()];
            }
        };
        let entries = |id| queues.iter().find(|queue| queue.id.as_ref() == Some(id));
        for served in &self.served {
            let told = served.missing_told.get();
            let is_due = told.is_none_or(|told| told.elapsed() > Duration::from_secs(60));
            if is_due && entries(&served.queue.id).is_none() {
                served.missing_told.set(Some(Instant::now()));
                tracing::warn!(
                    "queue {} does not exist any more; the others are served",
                    served.queue.name
                );
            }
        }
        self.served
            .iter()
            .map(|served| {
                let queue = entries(&served.queue.id).into_iter();
                let tasks = queue.flat_map(|queue| queue.entries.iter().map(|entry| entry.task.clone()));
                tasks.take(BURST).collect()
            })
            .collect()
    }
}
