//! The pop protocol, pure part: what is known about one pop, and what follows from it.
//!
//! `queues.get_next_task` removes an entry and tells its caller, once. If the answer gets lost, or the
//! caller dies, nobody knows that the task has left the queue. So a consumer writes an [`Intent`] to its
//! journal before it pops, names the task it expects, and afterwards compares what it can see
//! ([`Sighting`]) with what it wanted ([`resolve`]).
//!
//! No I/O, no clock: time enters as "the grace time is over". The shell is [`crate::popper`].

use std::fmt;

use serde::{Deserialize, Serialize};

use clearml_task_model::{QueueId, TaskId, TaskStatus, WorkerId};

use crate::owner::OwnerMark;

/// How the status message begins of a task that was taken out of its queue and not started yet; the run follows.
pub const TAKEN_MESSAGE: &str = "pulled for run ";

/// How far one pop has come, as the journal remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    /// The pop was about to be sent. It may have been applied, or may still be.
    Popping,
    /// The server has confirmed that the entry was given to us.
    Popped,
    /// The task carries our mark and has been started.
    Claimed,
}

/// What a consumer wants to pop, recorded before it does so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The run this pop belongs to; unique for ever.
    pub run: String,
    /// Who pops.
    pub worker: WorkerId,
    /// The task at the head of the queue.
    pub task: TaskId,
    /// The queue.
    pub queue: QueueId,
    /// The task as it was before the pop.
    #[serde(default)]
    pub before: Before,
}

/// What a task looked like before the pop; the difference shows what others have done since.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// Its status; `None` when it did not exist.
    pub status: Option<TaskStatus>,
    /// The run in its owner mark: a leftover of an earlier life, since the task was in a queue.
    pub owner_run: Option<String>,
    /// The queue that the task itself names.
    pub execution_queue: Option<QueueId>,
    /// When its status was last changed or confirmed.
    #[serde(default)]
    pub changed: Option<String>,
}

/// Where a task stands in the queue of the intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It is the next to be popped.
    Head,
    /// It waits behind others.
    Behind,
    /// It is not in that queue.
    Absent,
}

/// What the server says about a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSighting {
    /// Its status.
    pub status: TaskStatus,
    /// Its owner mark.
    pub owner: Option<OwnerMark>,
    /// The queue that the task itself names (`execution.queue`).
    pub execution_queue: Option<QueueId>,
    /// Whether somebody has asked for the running task to be stopped.
    pub stopping: bool,
    /// The run that has taken it out of its queue, and has not said yet that it has started: it is a draft
    /// meanwhile, with a message about that ([`TAKEN_MESSAGE`]).
    pub taken_by: Option<String>,
    /// When the server last changed or confirmed the status (`status_changed`). It moves when somebody
    /// puts the task into a queue again, which a look every second could miss.
    pub changed: Option<String>,
}

impl TaskSighting {
    /// The owner mark, if somebody else has written it since the pop.
    pub(crate) fn mark_of_another(&self, intent: &Intent) -> Option<&OwnerMark> {
        self.owner
            .as_ref()
            .filter(|mark| mark.run != intent.run && Some(&mark.run) != intent.before.owner_run.as_ref())
    }

    pub(crate) fn is_marked_by(&self, intent: &Intent) -> bool {
        self.owner.as_ref().is_some_and(|mark| mark.run == intent.run)
    }

    /// Whether it was taken out of its queue for us, also by another that has left it to us: our mark is the last.
    pub(crate) fn is_on_its_way_to(&self, intent: &Intent) -> bool {
        let taken = self.taken_by.as_ref();
        taken == Some(&intent.run) || taken.is_some() && self.is_marked_by(intent)
    }

    /// Whether more than a mark was set: until then an owner can still give it back unnoticed.
    pub(crate) fn is_taken(&self, intent: &Intent) -> bool {
        self.status == TaskStatus::InProgress || !may_start(&intent.before, &self.status)
    }

    /// The part of it that an intent remembers.
    #[must_use]
    pub fn as_before(&self) -> Before {
        // It is a draft for an instant only, and not one that somebody has put into the queue.
        let status = self
            .taken_by
            .as_ref()
            .map_or(&self.status, |_| &TaskStatus::Queued);
        Before {
            status: Some(status.clone()),
            owner_run: self.owner.as_ref().map(|mark| mark.run.clone()),
            execution_queue: self.execution_queue.clone(),
            changed: self.changed.clone(),
        }
    }
}

/// What the server says about everything that matters to one intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The task; `None` when it does not exist (any more).
    pub task: Option<TaskSighting>,
    /// Its place in the queue.
    pub place: Place,
    /// Whether another worker listens to this queue, or might.
    pub competitors: bool,
}

/// What to do about an intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The task still waits at the head: pop it again under the same intent.
    Retry,
    /// The task is ours: claim and run it.
    Ours,
    /// The task is ours, marked and started: run it. Starting it again could overwrite a request to stop.
    AlreadyStarted,
    /// The task is not for us: forget the intent, touch nothing.
    NotOurs(Why),
    /// The entry is gone and nobody has claimed the task for too long: put it back where it was.
    PutBackAtHead,
    /// Too early to tell: look again in a moment.
    Wait,
}

/// Why a task is not for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It was deleted.
    Gone,
    /// It is in the queue, or in another one, and will be popped from there.
    InQueue,
    /// Another worker has claimed it.
    ClaimedBy(WorkerId),
    /// Its status says that it must not run: aborted, published, or started by somebody else.
    Status(TaskStatus),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the task was deleted"),
            Self::InQueue => f.write_str("the task is back in a queue"),
            Self::ClaimedBy(worker) => write!(f, "the worker {worker} has claimed it"),
            Self::Status(status) => write!(f, "its status is {status}"),
        }
    }
}

/// Whether a task that we hold may be started: it is queued, or it is still in the unusual state in which
/// somebody put it into the queue (`queues.add_task` accepts drafts and running tasks).
#[must_use]
pub fn may_start(before: &Before, status: &TaskStatus) -> bool {
    match status {
        TaskStatus::Queued => true,
        TaskStatus::Created | TaskStatus::InProgress => before.status.as_ref() == Some(status),
        _ => false,
    }
}

/// Decides what an intent has become. `waited_out` says that the server has given the same answers for
/// the whole grace time: any competitor that holds the task has marked it by then, and any pop of ours
/// that was still under way has arrived.
#[must_use]
pub fn resolve(intent: &Intent, phase: Phase, seen: &Sighting, waited_out: bool) -> Action {
    let Some(task) = &seen.task else {
        return Action::NotOurs(Why::Gone);
    };
    if let Some(other) = task.mark_of_another(intent) {
        if task.is_taken(intent) {
            return Action::NotOurs(Why::ClaimedBy(other.worker.clone()));
        }
        // Its owner takes it at this moment, or has given it back, and then our pop may be what took the
        // entry away, or may still do so.
        if seen.place == Place::Absent && task.execution_queue == intent.before.execution_queue {
            return if waited_out {
                Action::PutBackAtHead
            } else {
                Action::Wait
            };
        }
    }
    match (seen.place, phase) {
        (Place::Head, Phase::Popping) => Action::Retry,
        // Our own pop may still arrive when the task comes to the front; until then it can't be forgotten.
        (Place::Behind, Phase::Popping) if !waited_out => Action::Wait,
        (Place::Behind, Phase::Popping) => Action::NotOurs(Why::InQueue),
        // The same holds for an earlier attempt of a pop that was repeated.
        (Place::Head | Place::Behind, _) if !waited_out => Action::Wait,
        (Place::Head | Place::Behind, _) => Action::NotOurs(Why::InQueue),
        (Place::Absent, _) => resolve_absent(intent, phase, task, seen.competitors, waited_out),
    }
}

/// As [`resolve`], for an intent whose pop was sent not long ago: until it is `quiet`, that pop may still arrive.
/// Somebody may put a task that is not for us into the queue again meanwhile, and then it would vanish from there
/// with nobody knowing. So the intent is not forgotten before. A task that is gone never comes back.
#[must_use]
pub fn resolve_sent(intent: &Intent, phase: Phase, seen: &Sighting, waited_out: bool, quiet: bool) -> Action {
    match resolve(intent, phase, seen, waited_out) {
        Action::NotOurs(why) if phase < Phase::Claimed && !quiet && why != Why::Gone => Action::Wait,
        action => action,
    }
}

/// The task is in no place of the queue, and carries our mark or none that counts.
fn resolve_absent(
    intent: &Intent,
    phase: Phase,
    task: &TaskSighting,
    competitors: bool,
    waited_out: bool,
) -> Action {
    let marked = task.is_marked_by(intent);
    if phase < Phase::Claimed && task.is_on_its_way_to(intent) {
        return Action::Ours;
    }
    if phase == Phase::Claimed {
        return match &task.status {
            TaskStatus::InProgress if marked => Action::AlreadyStarted,
            // It was in progress with us, so we have given it back, and the entry is gone again.
            TaskStatus::Queued if waited_out || !competitors => Action::PutBackAtHead,
            TaskStatus::Queued => Action::Wait,
            status => Action::NotOurs(Why::Status(status.clone())),
        };
    }
    if marked {
        return match &task.status {
            TaskStatus::InProgress => Action::AlreadyStarted,
            // Somebody took the task for lost and put it back, and the entry is gone again: to another, perhaps.
            TaskStatus::Queued if competitors && task.changed != intent.before.changed => {
                if waited_out {
                    Action::PutBackAtHead
                } else {
                    Action::Wait
                }
            }
            status if may_start(&intent.before, status) => Action::Ours,
            status => Action::NotOurs(Why::Status(status.clone())),
        };
    }
    if task.execution_queue != intent.before.execution_queue
        && task.execution_queue.as_ref() != Some(&intent.queue)
    {
        return Action::NotOurs(Why::InQueue);
    }
    if !may_start(&intent.before, &task.status) {
        return Action::NotOurs(Why::Status(task.status.clone()));
    }
    match phase {
        // Nobody else could have taken it.
        _ if !competitors => Action::Ours,
        _ if !waited_out => Action::Wait,
        // Two agents may be in this very position. Running it could be the second time; the queue gives
        // an entry to one of them only.
        Phase::Popping if task.status == TaskStatus::InProgress => {
            Action::NotOurs(Why::Status(task.status.clone()))
        }
        Phase::Popping => Action::PutBackAtHead,
        // Somebody took the task for lost and put it back, and the entry is gone again: as above.
        Phase::Popped if task.changed != intent.before.changed && task.status == TaskStatus::Queued => {
            Action::PutBackAtHead
        }
        Phase::Popped | Phase::Claimed => Action::Ours,
    }
}
