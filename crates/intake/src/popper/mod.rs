//! The pop protocol, shell: journal, calls and waiting around the decisions of [`crate::pop`].
//!
//! Whatever happens between two lines of this module, a crash included, [`Popper::recover`] with the intent
//! from the journal continues to the same end. An error that leaves the outcome open says so
//! ([`PopError::Unresolved`]); the intent then stays in the journal, and the caller recovers it later.

mod settle;

use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use clearml_support::time::now_ms;
use clearml_task_model::{QueueId, TaskId, TaskStatus, WorkerId};

use crate::owner::OwnerMark;
use crate::pop::{Before, Intent, Phase, Place, TaskSighting, Why, may_start};
use crate::server::{PopAnswer, PutBack, QueueServer};

/// `status_message` of a task that an agent has pulled, as the Python agent writes it.
pub const PULLED_MESSAGE: &str = "pulled by agent";

/// Where a consumer remembers its pops. Every function returns after its effect is on the disk.
pub trait Journal {
    /// The journal could not be written.
    type Error: std::error::Error + 'static;

    /// Remembers, in [`Phase::Popping`], that this worker is about to pop `task`. Gives the run its name.
    ///
    /// # Errors
    ///
    /// When nothing could be written; then there is no trace of the intent.
    fn begin(&self, task: &TaskId, queue: &QueueId, before: &Before) -> Result<Intent, Self::Error>;

    /// Remembers that the pop has come to `phase`.
    ///
    /// # Errors
    ///
    /// When it could not be written.
    fn advance(&self, intent: &Intent, phase: Phase) -> Result<(), Self::Error>;

    /// Forgets an intent that came to nothing.
    ///
    /// # Errors
    ///
    /// When it could not be removed.
    fn forget(&self, intent: &Intent) -> Result<(), Self::Error>;
}

/// The times of the protocol.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// How long an unclaimed task is watched before it is taken for lost. Longer than any competitor takes
    /// from its pop to its mark, and than any call of ours can be under way.
    pub grace: Duration,
    /// A claim that starts later than this after its pop looks first whether the task is still ours.
    pub claim_within: Duration,
    /// Pause between two looks at a task whose fate is open.
    pub look_every: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(20),
            claim_within: Duration::from_secs(5),
            look_every: Duration::from_secs(1),
        }
    }
}

/// Where the protocol gets its time from: a simulation has its own.
pub trait Clock {
    /// The time since some moment that stays the same.
    fn now(&self) -> Duration;

    /// Returns when this time has passed.
    fn sleep(&self, time: Duration) -> impl Future<Output = ()>;
}

/// The monotonic clock of this process.
#[derive(Debug, Clone, Copy)]
pub struct ProcessClock(Instant);

impl Default for ProcessClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for ProcessClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

/// How a pop ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The task is claimed and started; the journal says so. Run it.
    Ours(Intent),
    /// Another agent was faster, or the order of the queue has changed.
    Missed,
    /// The task is not for us.
    NotOurs(Intent, Why),
    /// The task was put back at the head of its queue.
    PutBack(Intent),
}

/// What came of a pop alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pop {
    /// The server gave us the task; it is to be claimed soon.
    Given(Given),
    /// There is nothing to claim any more.
    Over(Outcome),
}

/// A task that the server gave us, and that carries no mark of ours yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    intent: Intent,
    sent: Duration,
}

impl Given {
    /// The pop.
    #[must_use]
    pub fn intent(&self) -> &Intent {
        &self.intent
    }
}

/// A pop that could not be brought to its end.
#[derive(Debug, thiserror::Error)]
pub enum PopError<E: std::error::Error + 'static, J: std::error::Error + 'static> {
    /// Nothing was popped.
    #[error("popping task {task} from queue {queue}: {source}")]
    Refused {
        /// The queue.
        queue: QueueId,
        /// The task.
        task: TaskId,
        /// Why.
        source: E,
    },
    /// It is open whether the task is ours. The intent is in the journal: recover it later.
    #[error("task {} of queue {}, {phase:?}: {source}", intent.task, intent.queue)]
    Unresolved {
        /// The intent.
        intent: Box<Intent>,
        /// How far it has come.
        phase: Phase,
        /// The call that failed.
        source: E,
    },
    /// The journal could not be written. Nothing was popped, or the task was put back.
    #[error("journal of task {task}: {source}")]
    Journal {
        /// The task.
        task: TaskId,
        /// Why.
        source: J,
    },
}

/// Shorthand for the result of a pop.
pub type PopResult<S, J> = Result<Outcome, PopError<<S as QueueServer>::Error, <J as Journal>::Error>>;

/// Pops tasks for one worker.
#[derive(Debug)]
pub struct Popper<S, J, C = ProcessClock> {
    server: S,
    journal: J,
    clock: C,
    worker: WorkerId,
    host: String,
    timing: Timing,
    /// The run whose pop may still arrive a second time, and since when nothing was sent for it.
    doubt: Mutex<Option<(String, Duration)>>,
}

impl<S: QueueServer, J: Journal> Popper<S, J> {
    /// A popper for this worker. `host` goes into the owner mark.
    pub fn new(server: S, journal: J, worker: WorkerId, host: String, timing: Timing) -> Self {
        Self::with_clock(server, journal, (worker, host), timing, ProcessClock::default())
    }
}

impl<S: QueueServer, J: Journal, C: Clock> Popper<S, J, C> {
    /// As [`Popper::new`], with another clock.
    pub fn with_clock(
        server: S,
        journal: J,
        (worker, host): (WorkerId, String),
        timing: Timing,
        clock: C,
    ) -> Self {
        Self {
            server,
            journal,
            clock,
            worker,
            host,
            timing,
            doubt: Mutex::default(),
        }
    }

    /// Where this popper remembers its pops.
    pub fn journal(&self) -> &J {
        &self.journal
    }

    /// Pops `task`, seen at the head of `queue`, and claims it.
    ///
    /// # Errors
    ///
    /// See [`PopError`].
    pub async fn acquire(&self, queue: &QueueId, task: &TaskId) -> PopResult<S, J> {
        match self.pop(queue, task).await? {
            Pop::Given(given) => self.claim_given(given).await,
            Pop::Over(outcome) => Ok(outcome),
        }
    }

    /// The first half of [`Popper::acquire`], for who pops the next task while [`Popper::claim_given`] claims this
    /// one.
    ///
    /// # Errors
    ///
    /// See [`PopError`].
    pub async fn pop(&self, queue: &QueueId, task: &TaskId) -> Result<Pop, PopError<S::Error, J::Error>> {
        let before = self
            .before(queue, task)
            .await
            .map_err(|source| PopError::Refused {
                queue: queue.clone(),
                task: task.clone(),
                source,
            })?;
        let Some(before) = before else {
            return Ok(Pop::Over(Outcome::Missed));
        };
        let intent = self
            .journal
            .begin(task, queue, &before)
            .map_err(|source| PopError::Journal {
                task: task.clone(),
                source,
            })?;
        let sent = self.clock.now();
        match self.server.pop(queue, task).await {
            PopAnswer::Popped(popped) => {
                let intent = self.confirm(intent, popped).await?;
                Ok(Pop::Given(Given { intent, sent }))
            }
            PopAnswer::Nothing => {
                self.forget(&intent)?;
                Ok(Pop::Over(Outcome::Missed))
            }
            PopAnswer::Refused(source) => {
                self.forget(&intent)?;
                Err(PopError::Refused {
                    queue: intent.queue,
                    task: intent.task,
                    source,
                })
            }
            PopAnswer::Ambiguous(error) => {
                tracing::warn!(
                    "the answer to the pop of task {} got lost ({error}); finding out whose it is",
                    intent.task
                );
                self.doubt(&intent);
                self.settle(intent, Phase::Popping).await.map(Pop::Over)
            }
        }
    }

    /// What the task looks like before its pop; `None` when it is not to be popped.
    async fn before(&self, queue: &QueueId, task: &TaskId) -> Result<Option<Before>, S::Error> {
        let seen = self.server.look(task).await?;
        let before = seen.map(|seen| seen.as_before()).unwrap_or_default();
        // Either a draft that somebody has put into the queue as it is, or a task that was reset, and so taken out of
        // the queue, since it was seen there. Were the answer to the pop lost, nothing would tell them apart.
        let draft = before.status == Some(TaskStatus::Created);
        let waits = !draft || self.server.place(queue, task).await? == Place::Head;
        Ok(waits.then_some(before))
    }

    /// Claims a task that was given to us.
    ///
    /// # Errors
    ///
    /// See [`PopError`].
    pub async fn claim_given(&self, given: Given) -> PopResult<S, J> {
        if self.clock.now() - given.sent < self.timing.claim_within {
            self.claim(given.intent).await
        } else {
            self.settle(given.intent, Phase::Popped).await
        }
    }

    /// Brings an intent from the journal to its end, after a crash or an [`PopError::Unresolved`]. For a
    /// claimed one, that is finding out whether it was being given back.
    ///
    /// # Errors
    ///
    /// See [`PopError`].
    pub async fn recover(&self, intent: Intent, phase: Phase) -> PopResult<S, J> {
        self.doubt(&intent);
        self.settle(intent, phase).await
    }

    /// Gives a task back that was popped, and perhaps claimed, but can't be run here.
    ///
    /// A crash in the middle leaves an intent in the journal whose task is in the queue; so an intent in
    /// [`Phase::Claimed`] that nobody has begun to run must go through [`Popper::recover`] as well.
    ///
    /// Takes the grace time if the answer to a pop of this task got lost before: that pop could still
    /// arrive, and would take the task out of the queue unnoticed.
    ///
    /// # Errors
    ///
    /// See [`PopError`].
    pub async fn give_back(&self, intent: Intent, phase: Phase) -> PopResult<S, J> {
        self.be_quiet(&intent).await;
        match self.return_task(&intent).await {
            Ok(None) => {
                self.forget(&intent)?;
                Ok(Outcome::PutBack(intent))
            }
            Ok(Some(why)) => self.not_ours(intent, why),
            Err(source) => Err(unresolved(intent, phase, source)),
        }
    }

    /// Returns when no earlier pop of this task can arrive any more: it would take out again what is put back.
    async fn be_quiet(&self, intent: &Intent) {
        if let Some(since) = self.doubted(intent) {
            let until = since + self.timing.grace;
            self.clock.sleep(until.saturating_sub(self.clock.now())).await;
        }
    }

    /// Puts the task where it came from. Says why, if it does not belong there any more.
    async fn return_task(&self, intent: &Intent) -> Result<Option<Why>, S::Error> {
        let Some(seen) = self.server.look(&intent.task).await? else {
            return Ok(Some(Why::Gone));
        };
        if let Some(other) = seen.mark_of_another(intent).filter(|_| seen.is_taken(intent)) {
            return Ok(Some(Why::ClaimedBy(other.worker.clone())));
        }
        let started = is_started_by(&seen, intent);
        if started && seen.stopping {
            self.server.stop(&intent.task, "user abort").await?;
            return Ok(Some(Why::Status(TaskStatus::Stopped)));
        }
        // Somebody has taken it out of its queue, or reset it: a draft that nobody wants to run.
        let may_return = seen.is_on_its_way_to(intent) || intent.before.status == Some(TaskStatus::Created);
        if seen.status == TaskStatus::Created && !may_return {
            return Ok(Some(Why::Status(TaskStatus::Created)));
        }
        match self.server.put_back(&intent.queue, &intent.task, started).await? {
            PutBack::Done => Ok(None),
            PutBack::NotWanted => self.why_not(intent).await.map(Some),
            PutBack::QueueGone => {
                let reason = "the queue of the task was deleted while an agent was pulling it";
                self.server.stop(&intent.task, reason).await?;
                Ok(Some(Why::Status(TaskStatus::Stopped)))
            }
        }
    }

    /// The server has confirmed that an entry was given to us. A server that does not know the `task`
    /// argument may have given us another task than the one at the head; it gets an intent of its own.
    async fn confirm(&self, intent: Intent, popped: TaskId) -> Result<Intent, PopError<S::Error, J::Error>> {
        let mut confirmed = intent.clone();
        let mut written = Ok(());
        if popped != intent.task {
            match self.journal.begin(&popped, &intent.queue, &Before::default()) {
                Ok(adopted) => confirmed = adopted,
                Err(source) => {
                    confirmed.task = popped;
                    written = Err(source);
                }
            }
            self.forget(&intent)?;
        }
        match written.and_then(|()| self.journal.advance(&confirmed, Phase::Popped)) {
            Ok(()) => Ok(confirmed),
            Err(source) => Err(self.rescue(confirmed, source).await),
        }
    }

    /// The journal does not take what happened, so nothing may depend on our memory: back with the task.
    async fn rescue(&self, intent: Intent, source: J::Error) -> PopError<S::Error, J::Error> {
        self.be_quiet(&intent).await;
        match self.return_task(&intent).await {
            Ok(_) => {
                // What can't be written can perhaps be removed; if not, recovery finds the task in the queue.
                if let Err(error) = self.journal.forget(&intent) {
                    tracing::warn!("journal of task {}: {error}", intent.task);
                }
                PopError::Journal {
                    task: intent.task,
                    source,
                }
            }
            Err(error) => {
                tracing::error!("journal of task {}: {source}", intent.task);
                unresolved(intent, Phase::Popped, error)
            }
        }
    }

    /// Marks and starts a task that was given to us.
    async fn claim(&self, intent: Intent) -> PopResult<S, J> {
        match self.try_claim(&intent).await {
            Ok(None) => self.claimed(intent).await,
            Ok(Some(why)) => self.not_ours(intent, why),
            Err(source) => Err(unresolved(intent, Phase::Popped, source)),
        }
    }

    async fn claimed(&self, intent: Intent) -> PopResult<S, J> {
        match self.journal.advance(&intent, Phase::Claimed) {
            Ok(()) => Ok(Outcome::Ours(intent)),
            Err(source) => Err(self.rescue(intent, source).await),
        }
    }

    async fn try_claim(&self, intent: &Intent) -> Result<Option<Why>, S::Error> {
        let mark = OwnerMark {
            worker: self.worker.clone(),
            run: intent.run.clone(),
            host: self.host.clone(),
            ts: now_ms(),
        };
        if !self.server.mark(&intent.task, &mark).await? {
            return self.why_not(intent).await.map(Some);
        }
        if !self.server.take_queued(&intent.task, &intent.run).await? {
            match self.server.look(&intent.task).await? {
                // Somebody has put it into the queue again since: whoever pops that entry runs it.
                Some(seen) if seen.status == TaskStatus::Queued => return Ok(Some(Why::InQueue)),
                // A running task was put into the queue, and then asked to end. With our mark on it, nobody else does that.
                Some(seen) if seen.stopping => {
                    self.server
                        .stop(&intent.task, "task was stopped by tasks.stop")
                        .await?;
                    return Ok(Some(Why::Status(TaskStatus::Stopped)));
                }
                Some(seen) if may_start(&intent.before, &seen.status) => {}
                // Our answer got lost, or a predecessor of ours has died.
                Some(seen) if seen.is_on_its_way_to(intent) => {}
                // The same call of a predecessor that has died has arrived in between; or another agent was given
                // an entry of the task as well, and leaves it to us, because our mark is the last. Starting it
                // again could overwrite a request to stop.
                Some(seen) if is_started_by(&seen, intent) => return Ok(None),
                Some(seen) => return Ok(Some(Why::Status(seen.status))),
                None => return Ok(Some(Why::Gone)),
            }
        }
        if !self.server.started(&intent.task, PULLED_MESSAGE).await? {
            return self.why_not(intent).await.map(Some);
        }
        Ok(None)
    }

    /// Why the server refuses to let us have a task that it gave us.
    async fn why_not(&self, intent: &Intent) -> Result<Why, S::Error> {
        Ok(match self.server.look(&intent.task).await? {
            Some(seen) => Why::Status(seen.status),
            None => Why::Gone,
        })
    }

    fn not_ours(&self, intent: Intent, why: Why) -> PopResult<S, J> {
        self.forget(&intent)?;
        Ok(Outcome::NotOurs(intent, why))
    }

    fn forget(&self, intent: &Intent) -> Result<(), PopError<S::Error, J::Error>> {
        self.journal.forget(intent).map_err(|source| PopError::Journal {
            task: intent.task.clone(),
            source,
        })
    }
}

fn is_started_by(seen: &TaskSighting, intent: &Intent) -> bool {
    seen.status == TaskStatus::InProgress && seen.is_marked_by(intent)
}

fn unresolved<E, J>(intent: Intent, phase: Phase, source: E) -> PopError<E, J>
where
    E: std::error::Error,
    J: std::error::Error,
{
    PopError::Unresolved {
        intent: Box::new(intent),
        phase,
        source,
    }
}
