//! Telling the server how a run has ended: which call is next, after each look at the task. Pure; the shell is in
//! [`super::report`].
//!
//! Before each call the task is looked at: somebody may have given it another status, or another run may have
//! taken it, and then theirs is the last word. A task that is put back is counted first, in the task itself. What
//! the status looked like at that moment tells a successor whether the task has been put back since.

use std::time::Duration;

use clearml_task_model::{Task, TaskStatus};

use crate::record::{End, Identity, Outcome};
use crate::requeue::{Requeues, is_anothers, status_changed};

/// How long a call that moves a task in or out of its queue may be under way after its caller has given up or died.
const PUT_BACK_GRACE: Duration = Duration::from_secs(20);

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tell {
    /// Nothing (more); why.
    Nothing(String),
    /// Call `tasks.completed`, `tasks.failed` or `tasks.stopped`, with this reason.
    End(End, String),
    /// Write this count into the task.
    Count(Requeues),
    /// Look again after this time: an earlier call may still be under way.
    Wait(Duration),
    /// Put the task into its queue.
    PutBack(String),
    /// Move it to the head of its queue.
    ToFront,
}

/// The answer to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The server has done it.
    Done,
    /// The status was changed between the server's reading and writing: look again.
    Changed,
    /// The server will never do it.
    Refused,
    /// Nobody knows whether it was done. Look again.
    Unclear,
}

/// One run that wants to tell how it has ended.
#[derive(Debug)]
pub struct Teller<'a> {
    outcome: &'a Outcome,
    identity: &'a Identity,
    run_id: &'a str,
    finished: Option<String>,
    /// A call that puts it back may still be under way; or a pop whose answer was lost, which would take it out of
    /// the queue again.
    doubt: bool,
    refused: bool,
}

impl<'a> Teller<'a> {
    /// For this outcome of this run.
    #[must_use]
    pub fn new(outcome: &'a Outcome, identity: &'a Identity, run_id: &'a str) -> Self {
        Self {
            outcome,
            identity,
            run_id,
            finished: None,
            doubt: true,
            refused: false,
        }
    }

    /// Whether everything is said, so that nobody need look at the task.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished.is_some() || self.outcome.end == End::LeftAlone
    }

    /// The next thing to do, now that the task looks like this; `None` = it does not exist.
    pub fn next(&mut self, task: Option<&Task>) -> Tell {
        if let Some(why) = &self.finished {
            return Tell::Nothing(why.clone());
        }
        let Some(task) = task else {
            return Tell::Nothing("the task is not on the server any more".to_owned());
        };
        if is_anothers(task, self.identity, self.run_id) {
            return Tell::Nothing("another run has taken the task".to_owned());
        }
        match (&task.status, self.outcome.end) {
            (_, End::LeftAlone) => Tell::Nothing(self.outcome.status_reason.clone()),
            (Some(TaskStatus::Queued), End::Requeued) if self.has_counted(task) => Tell::ToFront,
            (Some(TaskStatus::InProgress | TaskStatus::Other(_)), End::Requeued) => self.requeue(task),
            (Some(TaskStatus::InProgress | TaskStatus::Other(_)), end) => {
                Tell::End(end, self.outcome.status_reason.clone())
            }
            (status, _) => Tell::Nothing(format!(
                "it is {} already and keeps that status",
                status.as_ref().map_or("without status", TaskStatus::as_str)
            )),
        }
    }

    /// What the server has said to that.
    pub fn answered(&mut self, call: &Tell, answer: Answer) {
        match (call, answer) {
            (Tell::Wait(_), _) => self.doubt = false,
            (Tell::PutBack(_), Answer::Unclear) => self.doubt = true,
            (Tell::Count(_) | Tell::PutBack(_), Answer::Refused) => self.refused = true,
            (Tell::End(..) | Tell::ToFront, Answer::Done | Answer::Refused) => {
                self.finished = Some("the server has been told".to_owned());
            }
            _ => {}
        }
    }

    fn has_counted(&self, task: &Task) -> bool {
        Requeues::read(&task.runtime).is_some_and(|requeues| requeues.run == self.run_id)
    }

    fn requeue(&self, task: &Task) -> Tell {
        if task.is_stopping() {
            return Tell::End(End::Stopped, "task was stopped by tasks.stop".to_owned());
        }
        let before = Requeues::read(&task.runtime).unwrap_or_default();
        let changed = status_changed(task);
        if before.run == self.run_id && before.changed != changed {
            return Tell::Nothing("it was put back, and somebody has started it since".to_owned());
        }
        if self.refused {
            return Tell::End(End::Failed, self.outcome.status_reason.clone());
        }
        if before.run != self.run_id {
            return Tell::Count(Requeues {
                count: before.count.saturating_add(1),
                run: self.run_id.to_owned(),
                changed,
            });
        }
        if self.doubt {
            return Tell::Wait(PUT_BACK_GRACE);
        }
        Tell::PutBack(self.outcome.status_reason.clone())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn identity() -> Identity {
        Identity {
            task: "t".into(),
            queue: Some("q".into()),
            worker: "w".into(),
            project: None,
        }
    }

    fn outcome(end: End) -> Outcome {
        Outcome {
            end,
            status_reason: "because".into(),
            line: None,
            exit_code: None,
        }
    }

    fn task(status: &str, owner: &str, changed: &str, requeues: Value) -> Task {
        serde_json::from_value(json!({
            "status": status, "status_changed": changed,
            "runtime": {"_agent_owner": {"run": owner}, "_agent_requeues": requeues},
        }))
        .unwrap()
    }

    #[test]
    fn a_status_is_not_given_to_a_task_that_another_run_has_taken() {
        let (identity, outcome) = (identity(), outcome(End::Completed));
        let mut teller = Teller::new(&outcome, &identity, "me");
        let own = task("in_progress", "me", "1", Value::Null);
        assert_eq!(
            teller.next(Some(&own)),
            Tell::End(End::Completed, "because".into())
        );
        let other = task("in_progress", "other", "2", Value::Null);
        assert!(matches!(teller.next(Some(&other)), Tell::Nothing(_)));
        assert!(matches!(
            teller.next(Some(&task("created", "me", "2", Value::Null))),
            Tell::Nothing(_)
        ));
    }

    #[test]
    fn a_task_is_counted_then_put_back_then_moved_to_the_front() {
        let (identity, outcome) = (identity(), outcome(End::Requeued));
        let mut teller = Teller::new(&outcome, &identity, "me");
        let mut say = |task: &Task, answer| {
            let tell = teller.next(Some(task));
            teller.answered(&tell, answer);
            tell
        };
        let fresh = task("in_progress", "me", "1", json!({"count": 1, "run": "earlier"}));
        let Tell::Count(requeues) = say(&fresh, Answer::Done) else {
            panic!("not counted");
        };
        assert_eq!(requeues.count, 2);
        let counted = task("in_progress", "me", "1", json!(requeues));
        assert!(
            matches!(say(&counted, Answer::Done), Tell::Wait(_)),
            "an earlier pop may still arrive"
        );
        assert!(matches!(say(&counted, Answer::Unclear), Tell::PutBack(_)));
        assert!(
            matches!(say(&counted, Answer::Done), Tell::Wait(_)),
            "it may still arrive"
        );
        assert!(matches!(say(&counted, Answer::Done), Tell::PutBack(_)));
        let queued = task("queued", "me", "2", json!(requeues));
        assert_eq!(say(&queued, Answer::Done), Tell::ToFront);
        assert!(matches!(say(&queued, Answer::Done), Tell::Nothing(_)));
    }

    #[test]
    fn a_successor_finds_out_whether_the_task_was_put_back() {
        let (identity, outcome) = (identity(), outcome(End::Requeued));
        let counted = json!({"count": 1, "run": "me", "changed": "\"1\""});
        let mut teller = Teller::new(&outcome, &identity, "me");
        let same = task("in_progress", "me", "1", counted.clone());
        assert!(
            matches!(teller.next(Some(&same)), Tell::Wait(_)),
            "of its predecessor"
        );
        let moved = task("in_progress", "me", "2", counted);
        assert!(
            matches!(teller.next(Some(&moved)), Tell::Nothing(_)),
            "an agent that leaves no mark has it"
        );
        let mut stopping = task("in_progress", "me", "1", Value::Null);
        stopping.status_message = Some("stopping".into());
        assert!(matches!(teller.next(Some(&stopping)), Tell::End(End::Stopped, _)));
    }
}
