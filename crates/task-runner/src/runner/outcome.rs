//! How a run ends for the server. One pure decision.

use clearml_task_model::{Task, TaskStatus};

use super::abort::callback_completed;
use crate::console::render::char_boundary;
use crate::record::{AbortReason, End, Failure, Identity, Outcome, Verdict};
use crate::requeue::{Again, again, is_anothers};

/// Reasons longer than this are cut; the console has the whole text.
const MAX_REASON: usize = 1000;

/// Everything that matters for the decision.
#[derive(Debug, Default)]
pub struct Facts<'a> {
    /// Why user code did not run, or can't be told about.
    pub failure: Option<&'a Failure>,
    /// How user code ended.
    pub verdict: Option<&'a Verdict>,
    /// Why it was stopped.
    pub abort: Option<AbortReason>,
    /// The task as it is now; `None` = the server does not have it.
    pub task: Option<&'a Task>,
    /// The number of this node when several run one task; only node 0 sets the status.
    pub rank: u32,
    /// The task carries the mark of another run.
    pub anothers: bool,
    /// The task may be tried again.
    pub again: Option<Again>,
}

impl<'a> Facts<'a> {
    /// The facts about a run that has come to its end. `requeue_limit` is
    /// `agent.requeue_on_infrastructure_failure`.
    #[must_use]
    pub fn of_run(
        (identity, run_id): (&Identity, &str),
        (failure, verdict): (Option<&'a Failure>, Option<&'a Verdict>),
        abort: Option<AbortReason>,
        task: Option<&'a Task>,
        (rank, requeue_limit): (u32, u32),
    ) -> Self {
        Self {
            failure,
            verdict,
            abort,
            task,
            rank,
            anothers: task.is_some_and(|task| is_anothers(task, identity, run_id)),
            again: task
                .zip(failure)
                .and_then(|(task, failure)| again(requeue_limit, identity, run_id, failure, task)),
        }
    }
}

/// Decides the final status, its reason, and the last line of the console.
#[must_use]
pub fn decide(facts: &Facts<'_>) -> Outcome {
    let by_failure = || facts.failure.and_then(|failure| failure.exit_code);
    let exit_code = facts.verdict.and_then(Verdict::code).or_else(by_failure);
    let left_alone = |reason: &str, line: Option<String>| Outcome {
        end: End::LeftAlone,
        status_reason: reason.to_owned(),
        line,
        exit_code,
    };
    let Some(task) = facts.task else {
        return left_alone("the task is not on the server any more", None);
    };
    if facts.anothers {
        return left_alone("another run has taken the task", None);
    }
    let Conclusion {
        end,
        reason,
        mut line,
    } = conclude(facts, task);
    if facts.rank > 0 {
        return left_alone(
            "another node sets the status",
            line.map(|line| format!("{line} - rank {}", facts.rank)),
        );
    }
    // Whoever has given the task another status has the last word.
    let status = task.status.clone().unwrap_or(TaskStatus::InProgress);
    if end == End::LeftAlone || matches!(status, TaskStatus::Created | TaskStatus::Queued) {
        return left_alone(&format!("the task is {status}"), None);
    }
    if status.is_final() {
        if facts.abort == Some(AbortReason::Stopped) && status == TaskStatus::Failed {
            line = Some("Process aborted by user - Task status was Failed".to_owned());
        }
        return left_alone(&format!("the task is {status}"), line);
    }
    Outcome {
        end,
        status_reason: cut(reason),
        line,
        exit_code,
    }
}

struct Conclusion {
    end: End,
    reason: String,
    line: Option<String>,
}

fn conclude(facts: &Facts<'_>, task: &Task) -> Conclusion {
    let conclusion = |end, reason: &str, line: &str| Conclusion {
        end,
        reason: reason.to_owned(),
        line: Some(line.to_owned()),
    };
    let aborted_by_user = || {
        conclusion(
            End::Stopped,
            "task was stopped by tasks.stop",
            "Process aborted by user",
        )
    };
    let terminated = || conclusion(End::Stopped, "user abort", "Process terminated by user");
    // A program that has ended by itself just before we could stop it has ended by itself.
    let stopped_by_us = facts.verdict.is_none_or(|verdict| verdict.aborted);
    match facts.abort {
        Some(AbortReason::Stopped) => return aborted_by_user(),
        Some(AbortReason::AgentStopped) if stopped_by_us => return terminated(),
        Some(AbortReason::AgentStopped) | None => {}
        Some(_) => {
            return Conclusion {
                end: End::LeftAlone,
                reason: String::new(),
                line: None,
            };
        }
    }
    // The wish came while the task was running for everybody but us; what it has done since does not change that.
    if task.status == Some(TaskStatus::InProgress) && task.is_stopping() {
        return aborted_by_user();
    }
    if let Some(failure) = facts.failure {
        if let Some(Again { number, limit }) = facts.again {
            let reason = format!("{failure}; put back into its queue ({number} of {limit})");
            let line = format!("The task is put back into its queue ({number} of {limit})");
            return conclusion(End::Requeued, &reason, &line);
        }
        let code = failure.exit_code.unwrap_or(1);
        let line = format!("Process failed, exit code {code}");
        return conclusion(End::Failed, &failure.to_string(), &line);
    }
    let Some(verdict) = facts.verdict else {
        return conclusion(
            End::Failed,
            "infrastructure: the end of the process is unknown",
            "Process failed",
        );
    };
    if let Some(error) = &verdict.launch_error {
        return conclusion(
            End::Failed,
            &format!("launch: {error}"),
            "Process failed, exit code 1",
        );
    }
    match verdict.code() {
        Some(0) => conclusion(
            End::Completed,
            "worker execution done",
            "Process completed successfully",
        ),
        Some(-2 | 254) => terminated(),
        Some(-9 | 137) if callback_completed(&task.runtime) => aborted_by_user(),
        Some(code) => conclusion(
            End::Failed,
            &format!("worker execution exit code {code}"),
            &format!("Process failed, exit code {code}"),
        ),
        None => conclusion(
            End::Failed,
            &format!(
                "infrastructure: {} processes of the task can't be killed",
                verdict.survivors
            ),
            "Process failed",
        ),
    }
}

fn cut(mut reason: String) -> String {
    if reason.len() > MAX_REASON {
        reason.truncate(char_boundary(&reason, MAX_REASON));
        reason.push('…');
    }
    reason
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn verdict(code: i32, aborted: bool) -> Verdict {
        Verdict {
            aborted,
            ..Verdict::of(Some(code))
        }
    }

    fn task(status: &str) -> Task {
        Task {
            status: Some(TaskStatus::from(status)),
            ..Task::default()
        }
    }

    fn outcome(code: i32, abort: Option<AbortReason>, status: &str) -> (End, String, String) {
        let (verdict, task) = (verdict(code, abort.is_some()), task(status));
        let facts = Facts {
            failure: None,
            verdict: Some(&verdict),
            abort,
            task: Some(&task),
            rank: 0,
            ..Facts::default()
        };
        let outcome = decide(&facts);
        assert_eq!(outcome.exit_code, Some(code));
        (
            outcome.end,
            outcome.status_reason,
            outcome.line.unwrap_or_default(),
        )
    }

    #[test]
    fn ends_follow_the_documented_table() {
        use AbortReason::{AgentStopped, Exception, NotFound, Reset, StatusChanged, Stopped};
        use End::{Completed, Failed, LeftAlone};
        let in_progress = "in_progress";
        for (code, abort, status, end, reason, line) in [
            (
                0,
                None,
                in_progress,
                Completed,
                "worker execution done",
                "Process completed successfully",
            ),
            (
                3,
                None,
                in_progress,
                Failed,
                "worker execution exit code 3",
                "Process failed, exit code 3",
            ),
            (
                -11,
                None,
                in_progress,
                Failed,
                "worker execution exit code -11",
                "Process failed, exit code -11",
            ),
            (
                -2,
                None,
                in_progress,
                End::Stopped,
                "user abort",
                "Process terminated by user",
            ),
            (
                254,
                None,
                in_progress,
                End::Stopped,
                "user abort",
                "Process terminated by user",
            ),
            (
                -15,
                Some(AgentStopped),
                in_progress,
                End::Stopped,
                "user abort",
                "Process terminated by user",
            ),
            (
                -9,
                Some(Stopped),
                in_progress,
                End::Stopped,
                "task was stopped by tasks.stop",
                "Process aborted by user",
            ),
            (
                -9,
                Some(Stopped),
                "failed",
                LeftAlone,
                "the task is failed",
                "Process aborted by user - Task status was Failed",
            ),
            (
                -9,
                Some(StatusChanged),
                "stopped",
                LeftAlone,
                "the task is stopped",
                "",
            ),
            (-9, Some(Exception), "failed", LeftAlone, "the task is failed", ""),
            (-9, Some(Reset), "created", LeftAlone, "the task is created", ""),
            (
                -9,
                Some(NotFound),
                in_progress,
                LeftAlone,
                "the task is in_progress",
                "",
            ),
            // Somebody has set the status right before the end.
            (
                0,
                None,
                "stopped",
                LeftAlone,
                "the task is stopped",
                "Process completed successfully",
            ),
            (
                1,
                None,
                "completed",
                LeftAlone,
                "the task is completed",
                "Process failed, exit code 1",
            ),
            (0, None, "queued", LeftAlone, "the task is queued", ""),
        ] {
            let expected = (end, reason.to_owned(), line.to_owned());
            assert_eq!(
                outcome(code, abort, status),
                expected,
                "{code} {abort:?} {status}"
            );
        }
    }

    #[test]
    fn a_program_that_ended_before_the_agent_could_stop_it_keeps_its_own_end() {
        let (verdict, task) = (verdict(0, false), task("in_progress"));
        let abort = Some(AbortReason::AgentStopped);
        let facts = Facts {
            failure: None,
            verdict: Some(&verdict),
            abort,
            task: Some(&task),
            rank: 0,
            ..Facts::default()
        };
        assert_eq!(decide(&facts).end, End::Completed);
    }

    #[test]
    fn a_wish_to_stop_that_nobody_has_seen_before_the_end_counts_all_the_same() {
        let mut task = task("in_progress");
        task.status_message = Some("stopping".into());
        for code in [0, 1] {
            let verdict = verdict(code, false);
            let facts = Facts {
                verdict: Some(&verdict),
                task: Some(&task),
                ..Facts::default()
            };
            assert_eq!(decide(&facts).end, End::Stopped, "exit code {code}");
        }
    }

    #[test]
    fn a_program_that_saved_its_work_was_aborted_and_did_not_fail() {
        let verdict = verdict(-9, false);
        let mut task = task("in_progress");
        task.runtime = json!({"_abort_callback_completed": 1})
            .as_object()
            .unwrap()
            .clone();
        let facts = Facts {
            failure: None,
            verdict: Some(&verdict),
            abort: None,
            task: Some(&task),
            rank: 0,
            ..Facts::default()
        };
        assert_eq!(decide(&facts).end, End::Stopped);
    }

    #[test]
    fn failures_name_their_stage() {
        let task = task("in_progress");
        let failure = Failure {
            stage: "clone".into(),
            text: "no such repository".into(),
            exit_code: None,
            over: false,
        };
        let facts = Facts {
            failure: Some(&failure),
            verdict: None,
            abort: None,
            task: Some(&task),
            rank: 0,
            ..Facts::default()
        };
        assert_eq!(decide(&facts).status_reason, "clone: no such repository");
        let launch = Verdict {
            exit_code: None,
            launch_error: Some("no such file".into()),
            ..verdict(0, false)
        };
        let facts = Facts {
            failure: None,
            verdict: Some(&launch),
            abort: None,
            task: Some(&task),
            rank: 0,
            ..Facts::default()
        };
        assert_eq!(decide(&facts).status_reason, "launch: no such file");
    }

    #[test]
    fn other_nodes_say_how_they_ended_and_leave_the_status() {
        let (verdict, task) = (verdict(2, false), task("in_progress"));
        let facts = Facts {
            failure: None,
            verdict: Some(&verdict),
            abort: None,
            task: Some(&task),
            rank: 3,
            ..Facts::default()
        };
        let outcome = decide(&facts);
        assert_eq!(
            (outcome.end, outcome.line.as_deref()),
            (End::LeftAlone, Some("Process failed, exit code 2 - rank 3"))
        );
    }

    #[test]
    fn a_deleted_task_has_no_end() {
        let verdict = verdict(0, false);
        let facts = Facts {
            failure: None,
            verdict: Some(&verdict),
            abort: None,
            task: None,
            rank: 0,
            ..Facts::default()
        };
        assert_eq!(decide(&facts).end, End::LeftAlone);
    }
}
