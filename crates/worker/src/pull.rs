//! Finding the next task: one look at the heads of all queues, then the pop protocol.

use std::collections::HashSet;
use std::time::Duration;

use clearml_api_client::{ApiError, Client, QueuesQuery};
use clearml_intake::order::{Choice, QueueOrder};
use clearml_intake::pop::Intent;
use clearml_intake::popper::{Outcome, PopError, Popper};
use clearml_intake::schedule::Paused;
use clearml_intake::server::ApiQueueServer;
use clearml_task_model::{QueueId, TaskId};
use tokio::time::{Instant, sleep_until};

use crate::journal::{JournalError, RunJournal};
use crate::observe::Observer;

/// The fields of a queue that a pass needs.
const FIELDS: [&str; 4] = ["id", "name", "tags", "entries"];

pub(crate) type TaskPopper = Popper<ApiQueueServer, RunJournal>;
pub(crate) type TaskPopError = PopError<ApiError, JournalError>;

/// So many waiting tasks of a queue are counted at most, for people. While there is nothing to do, which is
/// when queues are looked at often, there are none.
const MOST_COUNTED: usize = 100;

/// While no task can be taken, the queues are looked at less often than while one is waited for.
const RECOUNT_FACTOR: u32 = 6;
const RECOUNT_AFTER: Duration = Duration::from_secs(60);

/// What a look at the queues has led to.
#[derive(Debug)]
pub(crate) enum Pulled {
    /// A task is ours, claimed and started.
    Task(Intent),
    /// Something has moved: look again at once.
    Again,
    /// Nothing to do.
    Nothing,
    /// It is open whether a task is ours.
    Open(Intent, clearml_intake::pop::Phase),
}

/// The queues of this daemon and where the search stands.
#[derive(Debug)]
pub(crate) struct Queues {
    ids: Vec<QueueId>,
    order: QueueOrder,
    paused: Vec<Paused>,
    /// Heads that could not be had. What stands there next is worth another look before the queues behind it are.
    missed: Vec<Option<TaskId>>,
    missing: HashSet<QueueId>,
    /// Of each queue, when it was last seen.
    tags: Vec<Vec<String>>,
    listing: Paused,
    begun: Instant,
    /// When the queues were last asked for.
    asked: Instant,
}

impl Queues {
    pub(crate) fn new(ids: Vec<QueueId>, fairness: bool) -> Self {
        Self {
            paused: vec![Paused::default(); ids.len()],
            missed: vec![None; ids.len()],
            tags: vec![Vec::new(); ids.len()],
            ids,
            order: QueueOrder::new(fairness),
            missing: HashSet::new(),
            listing: Paused::default(),
            begun: Instant::now(),
            asked: Instant::now(),
        }
    }

    pub(crate) fn ids(&self) -> &[QueueId] {
        &self.ids
    }

    /// The tags of each queue, as of the last look.
    pub(crate) fn tags(&self) -> &[Vec<String>] {
        &self.tags
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Whether the queues could be read when they were asked for last.
    pub(crate) fn are_readable(&self) -> bool {
        !self.listing.is_failing()
    }

    /// Whether the queue did not exist at the last look.
    pub(crate) fn is_missing(&self, queue: &QueueId) -> bool {
        self.missing.contains(queue)
    }

    /// The task at the head of each queue, by one request for all. May be dropped at any moment.
    pub(crate) async fn heads(&mut self, client: &Client, observer: &Observer) -> Vec<Option<TaskId>> {
        self.asked = Instant::now();
        if !self.listing.is_due(self.now()) {
            return vec![None; self.ids.len()];
        }
        let query = QueuesQuery {
            id: self.ids.clone(),
            only_fields: FIELDS.map(str::to_owned).to_vec(),
            max_task_entries: Some(MOST_COUNTED as u32),
            search_hidden: true,
            ..QueuesQuery::default()
        };
        let queues = match client.queues_get_all(&query).await {
            Ok(queues) => queues,
            Err(e) => {
                if self.listing.failed(self.begun.elapsed()) {
                    tracing::warn!("looking at the queues: {e}; trying again from time to time");
                }
                return vec![None; self.ids.len()];
            }
        };
        if self.listing.succeeded() {
            tracing::info!("the queues can be read again");
        }
        let mut heads = Vec::with_capacity(self.ids.len());
        let mut waiting = Vec::with_capacity(self.ids.len());
        for (id, tags) in self.ids.iter().zip(&mut self.tags) {
            let found = queues.iter().find(|queue| queue.id.as_ref() == Some(id));
            match found {
                Some(_) if self.missing.remove(id) => tracing::info!("queue {id} is back"),
                None if self.missing.insert(id.clone()) => {
                    tracing::warn!("queue {id} does not exist any more; it is skipped until it is back");
                }
                _ => {}
            }
            *tags = found.map(|queue| queue.tags.clone()).unwrap_or_default();
            waiting.push(found.map_or(0, |queue| queue.entries.len()));
            heads.push(found.and_then(|queue| Some(queue.entries.first()?.task.clone())));
        }
        observer.looked(&waiting, MOST_COUNTED);
        heads
    }

    /// When to count once more what waits, for people who look, although no task could be taken.
    pub(crate) fn recount_at(&self, poll: Duration) -> Instant {
        self.asked + (poll * RECOUNT_FACTOR).min(RECOUNT_AFTER).max(poll)
    }

    /// Does that when it is time. May be dropped at any moment.
    pub(crate) async fn recount(&mut self, client: &Client, observer: &Observer, poll: Duration) {
        sleep_until(self.recount_at(poll)).await;
        let _for_nobody = self.heads(client, observer).await;
    }

    /// Pops the best of the heads. To be brought to its end once begun: what it interrupts is left to
    /// the journal.
    pub(crate) async fn pull(&mut self, heads: &[Option<TaskId>], popper: &TaskPopper) -> Pulled {
        let now = self.now();
        let ready: Vec<bool> = heads
            .iter()
            .zip(self.paused.iter().zip(&self.missed))
            .map(|(head, (paused, missed))| head.is_some() && head != missed && paused.is_due(now))
            .collect();
        let index = match self.order.choose(&ready) {
            Choice::Serve(index) => index,
            over => {
                self.missed.fill(None);
                return if over == Choice::NextPass {
                    Pulled::Again
                } else {
                    Pulled::Nothing
                };
            }
        };
        let Some(task) = &heads[index] else {
            return Pulled::Nothing;
        };
        let result = Box::pin(popper.acquire(&self.ids[index], task)).await;
        if result.is_ok() && self.paused[index].succeeded() {
            tracing::info!("queue {} can be served again", self.ids[index]);
        }
        match result {
            Ok(Outcome::Ours(intent)) => {
                self.order.pulled(index);
                self.missed.fill(None);
                Pulled::Task(intent)
            }
            Ok(outcome) => {
                report(&outcome);
                self.missed[index] = Some(task.clone());
                Pulled::Again
            }
            Err(error) => {
                self.order.passed_over(index);
                self.failed(index, error)
            }
        }
    }

    fn failed(&mut self, index: usize, error: TaskPopError) -> Pulled {
        let now = self.now();
        if self.paused[index].failed(now) {
            tracing::warn!("{error}");
        }
        match error {
            PopError::Unresolved { intent, phase, .. } => Pulled::Open(*intent, phase),
            PopError::Refused { .. } | PopError::Journal { .. } => Pulled::Again,
        }
    }
}

/// Says what became of a task that is not run.
pub(crate) fn report(outcome: &Outcome) {
    match outcome {
        Outcome::Ours(_) | Outcome::Missed => {}
        Outcome::NotOurs(intent, why) => tracing::info!("task {} is not run: {why}", intent.task),
        Outcome::PutBack(intent) => {
            tracing::info!(
                "task {} was put back at the head of queue {}",
                intent.task,
                intent.queue
            );
        }
    }
}
