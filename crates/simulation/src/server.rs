//! The server of a history: tasks, queue, events, and what it accepts. It knows nothing about runs and workers but
//! what they write into tasks, as the real one.

use std::collections::{BTreeMap, VecDeque};

use clearml_api_client::LogEvent;
use clearml_intake::owner::OwnerMark;
use clearml_intake::pop::{Place, TAKEN_MESSAGE, TaskSighting};
use clearml_task_model::{QueueId, Task, TaskId, TaskStatus};
use clearml_task_runner::record::End;
use clearml_task_runner::requeue::Requeues;
use serde_json::Value;

use crate::kernel::Ms;

/// The one queue.
pub(crate) const QUEUE: &str = "q";

/// One task, with what only the audit knows.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) status: TaskStatus,
    pub(crate) message: String,
    pub(crate) reason: String,
    pub(crate) owner: Option<OwnerMark>,
    pub(crate) requeues: Option<Requeues>,
    pub(crate) changed: u64,
    /// With the time from which it can be found.
    pub(crate) events: Vec<(Ms, LogEvent)>,
    /// How often a person has put it into the queue.
    pub(crate) life: u32,
    /// A person has meddled with the present life.
    pub(crate) disturbed: bool,
    /// Whether anybody has said that it has started.
    started: bool,
    /// When a person has put it into the queue.
    enqueued: Ms,
    /// When a wish to stop it was accepted that still has to be fulfilled.
    pub(crate) stop: Option<Ms>,
    /// When a person has reset it, and left it at that.
    pub(crate) draft: Option<Ms>,
    /// Whether it names the queue: not before it was put there, and not after a reset.
    names_queue: bool,
}

/// What a call to the server has led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Done,
    /// The status does not permit it.
    Declined,
    NoTask,
}

#[derive(Debug, Default)]
pub(crate) struct Server {
    pub(crate) queue: VecDeque<TaskId>,
    pub(crate) tasks: BTreeMap<TaskId, Entry>,
    changes: u64,
    /// The life of the task that each run was for.
    pub(crate) lives: BTreeMap<String, (TaskId, u32)>,
    /// The runs that have said that their task has started.
    told: BTreeMap<String, Ms>,
    /// Wishes to stop a task that came between a look at it and the call that followed.
    pub(crate) wiped: usize,
    /// Rules that were broken.
    pub(crate) broken: Vec<String>,
}

impl Server {
    pub(crate) fn create(&mut self, id: TaskId) {
        let entry = Entry {
            status: TaskStatus::Created,
            message: String::new(),
            reason: String::new(),
            owner: None,
            requeues: None,
            changed: 0,
            events: Vec::new(),
            life: 0,
            disturbed: false,
            started: false,
            enqueued: 0,
            stop: None,
            draft: None,
            names_queue: false,
        };
        self.tasks.insert(id, entry);
    }

    fn set(&mut self, id: &TaskId, status: TaskStatus, message: &str, reason: &str) {
        self.changes += 1;
        if let Some(task) = self.tasks.get_mut(id) {
            task.status = status;
            task.message = message.to_owned();
            task.reason = reason.to_owned();
            task.changed = self.changes;
        }
    }

    fn status(&self, id: &TaskId) -> Option<TaskStatus> {
        self.tasks.get(id).map(|task| task.status.clone())
    }

    // ---- What people do.

    pub(crate) fn person_enqueues(&mut self, id: &TaskId, now: Ms) {
        if let Some(task) = self.tasks.get_mut(id) {
            task.life += 1;
            task.disturbed = false;
            (task.stop, task.draft) = (None, None);
            task.enqueued = now;
            task.names_queue = true;
            self.set(id, TaskStatus::Queued, "", "enqueued");
            if !self.queue.contains(id) {
                self.queue.push_back(id.clone());
            }
        }
    }

    /// `listens`: the server has heard of a worker that has the task, and leaves the stop to that.
    pub(crate) fn person_stops(&mut self, id: &TaskId, listens: bool, now: Ms) {
        self.disturb(id);
        match self.status(id) {
            Some(TaskStatus::InProgress) if listens => {
                self.set(id, TaskStatus::InProgress, "stopping", "aborted");
            }
            Some(TaskStatus::Queued | TaskStatus::InProgress) => {
                self.queue.retain(|entry| entry != id);
                self.set(id, TaskStatus::Stopped, "", "aborted");
            }
            _ => return,
        }
        if let Some(task) = self.tasks.get_mut(id) {
            task.stop.get_or_insert(now);
        }
    }

    pub(crate) fn person_resets(&mut self, id: &TaskId, now: Ms) {
        self.disturb(id);
        self.queue.retain(|entry| entry != id);
        if let Some(task) = self.tasks.get_mut(id) {
            (task.owner, task.requeues, task.stop) = (None, None, None);
            (task.started, task.names_queue) = (false, false);
            task.draft = Some(now);
            task.events.clear();
            self.set(id, TaskStatus::Created, "", "");
        }
    }

    pub(crate) fn person_deletes(&mut self, id: &TaskId) {
        self.queue.retain(|entry| entry != id);
        self.tasks.remove(id);
    }

    fn disturb(&mut self, id: &TaskId) {
        if let Some(task) = self.tasks.get_mut(id) {
            task.disturbed = true;
        }
    }

    // ---- What agents ask.

    pub(crate) fn task(&self, id: &TaskId) -> Option<Task> {
        let entry = self.tasks.get(id)?;
        let mut task = Task {
            status: Some(entry.status.clone()),
            status_message: Some(entry.message.clone()),
            ..Task::default()
        };
        if let Some(owner) = &entry.owner {
            task.runtime.extend(owner.entries());
        }
        if let Some(requeues) = &entry.requeues {
            task.runtime.extend(requeues.entries());
        }
        task.extra
            .insert("status_changed".to_owned(), Value::from(entry.changed));
        if entry.started {
            task.extra.insert("started".to_owned(), Value::from("once"));
        }
        Some(task)
    }

    pub(crate) fn sighting(&self, id: &TaskId) -> Option<TaskSighting> {
        let entry = self.tasks.get(id)?;
        Some(TaskSighting {
            status: entry.status.clone(),
            owner: entry.owner.clone(),
            execution_queue: entry.names_queue.then(|| QueueId::from(QUEUE)),
            stopping: entry.status == TaskStatus::InProgress && entry.message.contains("stopping"),
            taken_by: (entry.status == TaskStatus::Created)
                .then(|| entry.message.strip_prefix(TAKEN_MESSAGE))
                .flatten()
                .map(str::to_owned),
            changed: Some(entry.changed.to_string()),
        })
    }

    pub(crate) fn place(&self, id: &TaskId) -> Place {
        match self.queue.iter().position(|entry| entry == id) {
            Some(0) => Place::Head,
            Some(_) => Place::Behind,
            None => Place::Absent,
        }
    }

    pub(crate) fn log_of(&self, id: &TaskId, from: i64, now: Ms) -> Option<Vec<LogEvent>> {
        let entry = self.tasks.get(id)?;
        let found = entry
            .events
            .iter()
            .filter(|(visible, event)| *visible <= now && event.timestamp > from);
        Some(found.map(|(_, event)| event.clone()).collect())
    }

    // ---- What agents tell.

    pub(crate) fn life(&self, id: &TaskId) -> u32 {
        self.tasks.get(id).map_or(0, |task| task.life)
    }

    /// A pop that was sent in this life of the task. One that is late, whose sender has got the task by another
    /// attempt, and that finds the task in the queue for another life, would lose it; nobody can prevent that.
    pub(crate) fn pop(&mut self, id: &TaskId, life: u32) -> Option<TaskId> {
        let is_stale = self.life(id) != life && self.lives.values().any(|known| *known == (id.clone(), life));
        if self.queue.front() == Some(id) && !is_stale {
            self.queue.pop_front()
        } else {
            None
        }
    }

    pub(crate) fn mark(&mut self, id: &TaskId, mark: OwnerMark) -> bool {
        let Some(task) = self.tasks.get_mut(id) else {
            return false;
        };
        let editable = matches!(
            task.status,
            TaskStatus::Created | TaskStatus::Queued | TaskStatus::InProgress
        );
        if editable {
            self.lives.insert(mark.run.clone(), (id.clone(), task.life));
            task.owner = Some(mark);
        }
        editable
    }

    pub(crate) fn take_queued(&mut self, id: &TaskId, run: &str) -> bool {
        let taken = self.status(id) == Some(TaskStatus::Queued);
        if taken {
            // A person may have put it into the queue once more since the mark was written.
            let life = self.tasks.get(id).map_or(0, |task| task.life);
            self.lives.insert(run.to_owned(), (id.clone(), life));
            self.queue.retain(|entry| entry != id);
            self.set(id, TaskStatus::Created, &format!("{TAKEN_MESSAGE}{run}"), "");
        }
        taken
    }

    /// `tasks.started` of a run that has looked at the task at that time: one that could see an earlier such call of
    /// its own must not repeat it. As the real one, it replaces the status's
    /// texts, and takes a draft or a stopped task for one that is to run.
    pub(crate) fn started(&mut self, id: &TaskId, run: &str, (looked, now): (Ms, Ms)) -> Reply {
        use TaskStatus::{Completed, Created, InProgress, Queued, Stopped};
        match self.status(id) {
            None => Reply::NoTask,
            Some(Created | Queued | InProgress | Stopped | Completed) => {
                let again = *self.told.entry(run.to_owned()).or_insert(now) < looked;
                self.wipe_out(id, if again { Ms::MAX } else { looked }, run, "starts");
                self.set(id, InProgress, "told by agent", "");
                if let Some(task) = self.tasks.get_mut(id) {
                    task.started = true;
                }
                Reply::Done
            }
            Some(_) => Reply::Declined,
        }
    }

    /// A call changes the status of the task: a wish to stop it, to reset it, or to run it once more, is lost. Nobody can prevent
    /// that for one that was accepted after the look that the call rests on.
    fn wipe_out(&mut self, id: &TaskId, looked: Ms, run: &str, what: &str) {
        let Some(task) = self.tasks.get_mut(id) else {
            return;
        };
        let enqueued = (task.status == TaskStatus::Queued).then_some(task.enqueued);
        let Some(at) = task.stop.take().or(task.draft.take()).or(enqueued) else {
            return;
        };
        task.disturbed = true;
        if at < looked {
            self.broken.push(format!(
                "run {run} {what} task {id} and wipes out what somebody wanted at {at}"
            ));
        } else {
            self.wiped += 1;
        }
    }

    /// `tasks.reset`.
    pub(crate) fn reset(&mut self, id: &TaskId, now: Ms) -> Reply {
        if !self.tasks.contains_key(id) {
            return Reply::NoTask;
        }
        self.person_resets(id, now);
        Reply::Done
    }

    /// `tasks.enqueue` of a run that has looked at the task at that time: behind all others.
    pub(crate) fn enqueue(
        &mut self,
        id: &TaskId,
        force: bool,
        reason: &str,
        run: &str,
        (looked, now): (Ms, Ms),
    ) -> Reply {
        if let Some(task) = self.tasks.get_mut(id).filter(|_| !self.queue.contains(id)) {
            task.enqueued = now;
        }
        match self.status(id) {
            None => Reply::NoTask,
            Some(TaskStatus::Queued) if self.queue.contains(id) => Reply::Done,
            Some(TaskStatus::Queued) => self.append(id, reason),
            Some(TaskStatus::Created) => {
                self.wipe_out(id, looked, run, "puts back");
                self.append(id, reason)
            }
            Some(TaskStatus::InProgress) if force => {
                self.wipe_out(id, looked, run, "puts back");
                self.queue.retain(|entry| entry != id);
                self.append(id, reason)
            }
            Some(_) => Reply::Declined,
        }
    }

    fn append(&mut self, id: &TaskId, reason: &str) -> Reply {
        self.queue.push_back(id.clone());
        self.set(id, TaskStatus::Queued, "", reason);
        if let Some(task) = self.tasks.get_mut(id) {
            task.names_queue = true;
        }
        Reply::Done
    }

    pub(crate) fn put_in_front(&mut self, id: &TaskId) -> Reply {
        if !self.queue.contains(id) {
            return Reply::Declined;
        }
        self.queue.retain(|entry| entry != id);
        self.queue.push_front(id.clone());
        Reply::Done
    }

    /// A final status, as `run` wants it, which has looked at the task `age` ago.
    pub(crate) fn end(
        &mut self,
        id: &TaskId,
        run: &str,
        end: End,
        reason: &str,
        (age, now): (Ms, Ms),
    ) -> Reply {
        let Some(status) = self.status(id) else {
            return Reply::NoTask;
        };
        if status != TaskStatus::InProgress {
            return Reply::Declined;
        }
        self.must_own(id, run, age, "ends");
        if let Some(task) = self.tasks.get_mut(id)
            && end != End::Stopped
            && task.stop.is_some_and(|at| at + age >= now)
        {
            task.stop = None;
            self.wiped += 1;
        }
        let status = match end {
            End::Completed => TaskStatus::Completed,
            End::Stopped => TaskStatus::Stopped,
            End::Failed | End::LeftAlone | End::Requeued => TaskStatus::Failed,
        };
        self.set(id, status, "", reason);
        Reply::Done
    }

    /// A run may change the status only of the life that it was started for. What happens between its look and
    /// its call, it can't know: the server has no conditions.
    pub(crate) fn must_own(&mut self, id: &TaskId, run: &str, age: Ms, what: &str) {
        let (Some(task), Some((_, life))) = (self.tasks.get(id), self.lives.get(run)) else {
            return;
        };
        let owner = task.owner.as_ref().map(|mark| mark.run.as_str());
        if (task.life != *life || owner.is_some_and(|owner| owner != run)) && age > 7_000 {
            self.broken.push(format!(
                "run {run} of life {life} {what} task {id} in life {}, which run {owner:?} has",
                task.life
            ));
        }
    }

    pub(crate) fn count(&mut self, id: &TaskId, requeues: Requeues) -> Reply {
        match self.tasks.get_mut(id) {
            None => Reply::NoTask,
            Some(task) => {
                task.requeues = Some(requeues);
                Reply::Done
            }
        }
    }

    pub(crate) fn add_events(&mut self, id: &TaskId, events: Vec<LogEvent>, visible: Ms) -> Reply {
        match self.tasks.get_mut(id) {
            None => Reply::NoTask,
            Some(task) => {
                task.events
                    .extend(events.into_iter().map(|event| (visible, event)));
                Reply::Done
            }
        }
    }
}
