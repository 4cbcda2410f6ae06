//! When a task goes back to its queue because its run has died, not its program.
//!
//! How often that has happened stands in the task itself (`runtime`), because the next attempt may be one of
//! another machine. Pure; the calls are made by `runner::report`.

use clearml_task_model::{Task, TaskStatus};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::record::{Failure, Identity};

/// The key of the count in a task's `runtime`.
pub const REQUEUE_KEY: &str = "_agent_requeues";

/// How often a task was put back, and by whom the last time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requeues {
    /// So many times.
    pub count: u32,
    /// The run that has counted last. It puts the task back after that.
    pub run: String,
    /// When the status of the task had last been changed at that time (`status_changed`). Still the same means
    /// that the task was not put back yet.
    #[serde(default)]
    pub changed: Option<String>,
}

impl Requeues {
    /// The count in a task's `runtime`; one that makes no sense is none.
    #[must_use]
    pub fn read(runtime: &Map<String, Value>) -> Option<Self> {
        Self::deserialize(runtime.get(REQUEUE_KEY)?).ok()
    }

    /// The entries to add to a task's `runtime`.
    #[must_use]
    pub fn entries(&self) -> Map<String, Value> {
        let value = json!({"count": self.count, "run": self.run, "changed": self.changed});
        std::iter::once((REQUEUE_KEY.to_owned(), value)).collect()
    }
}

/// When the server has last changed the status of a task.
pub(crate) fn status_changed(task: &Task) -> Option<String> {
    task.extra.get("status_changed").map(ToString::to_string)
}

/// Whether the task carries the mark of another run, which has taken it since. A run that comes from no queue
/// carries no mark of its own.
#[must_use]
pub fn is_anothers(task: &Task, identity: &Identity, run_id: &str) -> bool {
    identity.queue.is_some() && task.owner_run().is_some_and(|owner| owner != run_id)
}

/// One more attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    /// The first, the second, …
    pub number: u32,
    /// So many at most (`agent.requeue_on_infrastructure_failure`).
    pub limit: u32,
}

/// Whether the task of a run that has failed may be tried again: the run is to blame and nothing of it is alive,
/// the task came from a queue and is as the run has left it, nobody wants it to end, and the limit is not reached.
#[must_use]
pub fn again(limit: u32, identity: &Identity, run_id: &str, failure: &Failure, task: &Task) -> Option<Again> {
    let wanted = identity.queue.is_some()
        && failure.over
        && failure.stage == "infrastructure"
        && task.status == Some(TaskStatus::InProgress)
        && !task.is_stopping()
        && !is_anothers(task, identity, run_id);
    let before = Requeues::read(&task.runtime).unwrap_or_default();
    let number = if before.run == run_id {
        before.count
    } else {
        before.count.saturating_add(1)
    };
    (wanted && number <= limit).then_some(Again { number, limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_tried_again_only_when_its_run_is_to_blame_and_gone() {
        let identity = Identity {
            task: "t".into(),
            queue: Some("q".into()),
            worker: "w".into(),
            project: None,
        };
        let failure = Failure {
            over: true,
            ..Failure::infrastructure("killed")
        };
        let task = |runtime: Value, message: &str| Task {
            status: Some(TaskStatus::InProgress),
            status_message: Some(message.into()),
            runtime: runtime.as_object().unwrap().clone(),
            ..Task::default()
        };
        let ask = |limit, failure: &Failure, task: &Task| {
            again(limit, &identity, "me", failure, task).map(|a| a.number)
        };
        let fresh = task(json!({"_agent_owner": {"run": "me"}}), "");
        assert_eq!(ask(2, &failure, &fresh), Some(1));
        assert_eq!(ask(0, &failure, &fresh), None, "off by default");
        assert_eq!(
            ask(2, &Failure::infrastructure("killed"), &fresh),
            None,
            "it may live"
        );
        let code = Failure {
            stage: "clone".into(),
            ..failure.clone()
        };
        assert_eq!(ask(2, &code, &fresh), None, "the task is to blame");
        assert_eq!(ask(2, &failure, &task(json!({}), "stopping")), None);
        let counted = |count, run: &str| task(json!({REQUEUE_KEY: {"count": count, "run": run}}), "");
        assert_eq!(ask(2, &failure, &counted(1, "earlier")), Some(2));
        assert_eq!(ask(2, &failure, &counted(2, "earlier")), None);
        assert_eq!(ask(2, &failure, &counted(2, "me")), Some(2), "counted already");
        let taken = task(json!({"_agent_owner": {"run": "other"}}), "");
        assert_eq!(ask(2, &failure, &taken), None);
        let foreground = Identity {
            queue: None,
            ..identity.clone()
        };
        assert_eq!(again(2, &foreground, "me", &failure, &fresh), None);
    }
}
