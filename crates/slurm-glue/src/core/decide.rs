//! What to do next about one job and its task, from what Slurm and the server show of them.

use super::jobs::{EndedJob, QueuedJob};
use super::states::Stage;

/// The job, as far as it can be seen.
#[derive(Debug, Clone, Copy)]
pub enum JobSeen<'a> {
    /// squeue lists it.
    Listed(&'a QueuedJob),
    /// squeue answers, and does not list it.
    Missing,
}

/// The task, as far as it concerns its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskSeen {
    /// It does not exist any more, was reset, or belongs to another queue or job now.
    Elsewhere,
    /// It has a final status. `by_user`: a person wanted that, not the end of the job.
    Final {
        /// A person wanted it.
        by_user: bool,
    },
    /// It waits for its job.
    Queued {
        /// It stands in the parking queue, or there is none.
        parked: bool,
    },
    /// The agent in the job has taken it.
    Running {
        /// Somebody wants it to stop.
        stopping: bool,
    },
    /// The server does not answer.
    Unknown,
}

/// For how many seconds something has been so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Since {
    /// The job has ended.
    pub ended: u64,
    /// squeue does not list the job.
    pub missing: u64,
    /// The task has a final status.
    pub finished: u64,
    /// Somebody wants the task to stop.
    pub stopping: u64,
    /// The task is elsewhere.
    pub elsewhere: u64,
    /// The task is queued but not parked.
    pub unparked: u64,
    /// The job runs, and the task is still queued.
    pub idle: u64,
    /// The job waits, and the task is running.
    pub gone_back: u64,
}

/// How long to wait for others before acting, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Graces {
    /// After the end of a job, for its agent's last report.
    pub end: u64,
    /// After a wish to stop, for the agent to follow it.
    pub abort: u64,
    /// For a job that squeue does not know any more.
    pub lost: u64,
    /// Between two looks.
    pub pass: u64,
    /// For an agent that does not begin its task.
    pub begin: u64,
}

/// What is known.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The job.
    pub job: JobSeen<'a>,
    /// How it ended, where accounting or the controller have said so.
    pub ended: Option<&'a EndedJob>,
    /// It has been seen running.
    pub was_active: bool,
    /// We have cancelled it.
    pub cancelled: bool,
    /// The task.
    pub task: TaskSeen,
    /// For how long.
    pub since: Since,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing now.
    Wait,
    /// Show why the job waits.
    ShowWaiting,
    /// Show that the agent in the job takes very long to begin.
    ShowIdle,
    /// Find out how the job ended.
    AskHow,
    /// Cancel the job; the task is somebody's else.
    Cancel,
    /// Cancel the job, and see to its task when it has ended.
    CancelRunning,
    /// Put the task into the parking queue (again): its job waits (again).
    Park,
    /// Give the task the status that follows from the end of its job.
    Finish,
    /// The job is over, and there is nothing to be said about its task.
    Close,
}

/// Decides.
#[must_use]
pub fn decide(situation: &Situation<'_>, graces: &Graces) -> Action {
    if situation.task == TaskSeen::Unknown {
        return Action::Wait;
    }
    match situation.job {
        JobSeen::Missing => over(situation, graces, situation.ended.is_some()),
        JobSeen::Listed(job) => match job.state.stage() {
            Stage::Waiting => waiting(situation, graces),
            Stage::Active => active(situation, graces),
            Stage::Ended => over(situation, graces, true),
        },
    }
}

fn waiting(situation: &Situation<'_>, graces: &Graces) -> Action {
    match situation.task {
        TaskSeen::Elsewhere => Action::Cancel,
        // Slurm has put the job back, and the agent has taken the end of its process for the end of the task.
        TaskSeen::Final { by_user: false } if !situation.cancelled => Action::Park,
        TaskSeen::Final { .. } => Action::Cancel,
        TaskSeen::Queued { parked: true } => Action::ShowWaiting,
        TaskSeen::Queued { parked: false } if situation.since.unparked > graces.pass => Action::Park,
        TaskSeen::Running { stopping: true } if situation.since.stopping > graces.abort => {
            Action::CancelRunning
        }
        TaskSeen::Running { stopping: false }
            if situation.was_active || situation.since.gone_back > 2 * graces.pass =>
        {
            Action::Park
        }
        TaskSeen::Queued { .. } | TaskSeen::Running { .. } | TaskSeen::Unknown => Action::Wait,
    }
}

fn active(situation: &Situation<'_>, graces: &Graces) -> Action {
    let since = &situation.since;
    let due = match situation.task {
        TaskSeen::Elsewhere if since.elsewhere >= graces.pass => return Action::Cancel,
        TaskSeen::Final { .. } => since.finished > graces.end,
        TaskSeen::Running { stopping: true } => since.stopping > graces.abort,
        TaskSeen::Queued { .. } if since.idle > graces.begin => true,
        TaskSeen::Queued { .. } if since.idle > graces.begin / 3 => return Action::ShowIdle,
        _ => false,
    };
    if due && !situation.cancelled {
        Action::CancelRunning
    } else {
        Action::Wait
    }
}

/// The job has ended (`known`), or nobody knows it.
fn over(situation: &Situation<'_>, graces: &Graces, known: bool) -> Action {
    if matches!(situation.task, TaskSeen::Elsewhere | TaskSeen::Final { .. }) {
        return Action::Close;
    }
    match (known, situation.ended) {
        (true, None) => Action::AskHow,
        (true, Some(_)) if situation.since.ended >= graces.end => Action::Finish,
        (false, _) if situation.since.missing >= graces.lost => Action::Finish,
        (false, _) => Action::AskHow,
        _ => Action::Wait,
    }
}

/// What is known about a submission whose answer got lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Search {
    /// The job that carries the mark of the submission.
    pub found: Option<u64>,
    /// Accounting knows a job of that name and time, though squeue does not.
    pub in_accounting: bool,
    /// Seconds between the first and the last complete listing without it; `None` before two of them.
    pub absent_for: Option<u64>,
}

/// What to do about such a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// The job exists.
    Adopt(u64),
    /// Look again.
    Wait,
    /// There is none: submit again.
    SubmitAgain,
}

/// Decides about a submission whose answer got lost. `apart`: how far the first and last look must be apart.
#[must_use]
pub fn settle(search: Search, apart: u64) -> Settle {
    match search {
        Search { found: Some(id), .. } => Settle::Adopt(id),
        Search {
            in_accounting: true, ..
        } => Settle::Wait,
        Search {
            absent_for: Some(seconds),
            ..
        } if seconds >= apart => Settle::SubmitAgain,
        _ => Settle::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::super::jobs::Exit;
    use super::super::states::JobState;
    use super::*;

    const GRACES: Graces = Graces {
        end: 60,
        abort: 120,
        lost: 300,
        pass: 15,
        begin: 1800,
    };

    fn job(state: &str) -> QueuedJob {
        QueuedJob {
            id: 7,
            user: "u".into(),
            state: JobState::read(state),
            submitted: 0,
            partition: "p".into(),
            reason: "None".into(),
            comment: String::new(),
            name: "clearml_task_t".into(),
        }
    }

    fn ended() -> EndedJob {
        EndedJob {
            id: 7,
            name: "clearml_task_t".into(),
            state: JobState::read("FAILED"),
            exit: Exit::default(),
            derived: Exit::default(),
            reason: String::new(),
            cancelled_by: None,
            time_limit: String::new(),
            nodes: String::new(),
            complete: true,
            submitted: 0,
        }
    }

    #[test]
    fn each_pair_of_job_and_task_has_one_answer() {
        const QUEUED: TaskSeen = TaskSeen::Queued { parked: true };
        const UNPARKED: TaskSeen = TaskSeen::Queued { parked: false };
        const RUNS: TaskSeen = TaskSeen::Running { stopping: false };
        const STOPPING: TaskSeen = TaskSeen::Running { stopping: true };
        const DONE: TaskSeen = TaskSeen::Final { by_user: false };
        const ABORTED: TaskSeen = TaskSeen::Final { by_user: true };
        // State, seen running before, task, seconds that everything has been so, answer.
        for (state, was_active, task, seconds, expected) in [
            ("PENDING", false, QUEUED, 0, Action::ShowWaiting),
            ("PENDING", false, UNPARKED, 0, Action::Wait),
            ("PENDING", false, UNPARKED, 16, Action::Park),
            ("PENDING", false, ABORTED, 0, Action::Cancel),
            ("PENDING", false, TaskSeen::Elsewhere, 0, Action::Cancel),
            ("PENDING", false, RUNS, 0, Action::Wait),
            ("PENDING", false, RUNS, 31, Action::Park),
            ("PENDING", true, RUNS, 0, Action::Park),
            ("PENDING", true, DONE, 0, Action::Park),
            ("PENDING", true, ABORTED, 0, Action::Cancel),
            ("RUNNING", true, QUEUED, 600, Action::Wait),
            ("RUNNING", true, QUEUED, 601, Action::ShowIdle),
            ("RUNNING", true, QUEUED, 1801, Action::CancelRunning),
            ("RUNNING", true, RUNS, 9999, Action::Wait),
            ("RUNNING", true, STOPPING, 60, Action::Wait),
            ("RUNNING", true, STOPPING, 121, Action::CancelRunning),
            ("RUNNING", true, DONE, 30, Action::Wait),
            ("RUNNING", true, DONE, 61, Action::CancelRunning),
            ("RUNNING", true, TaskSeen::Elsewhere, 0, Action::Wait),
            ("RUNNING", true, TaskSeen::Elsewhere, 15, Action::Cancel),
            ("COMPLETING", true, RUNS, 9999, Action::Wait),
            ("COMPLETED", true, DONE, 0, Action::Close),
            ("COMPLETED", true, ABORTED, 0, Action::Close),
            ("FAILED", true, RUNS, 0, Action::AskHow),
            ("FAILED", false, TaskSeen::Elsewhere, 0, Action::Close),
            ("FAILED", false, TaskSeen::Unknown, 9999, Action::Wait),
        ] {
            let job = job(state);
            let situation = Situation {
                job: JobSeen::Listed(&job),
                ended: None,
                was_active,
                cancelled: false,
                task,
                since: Since {
                    ended: seconds,
                    missing: seconds,
                    finished: seconds,
                    stopping: seconds,
                    elsewhere: seconds,
                    unparked: seconds,
                    idle: seconds,
                    gone_back: seconds,
                },
            };
            assert_eq!(
                decide(&situation, &GRACES),
                expected,
                "{state} {task:?} {seconds}"
            );
        }
    }

    #[test]
    fn a_job_that_nobody_knows_is_given_time() {
        let how = ended();
        for (seconds, how, expected) in [
            (0, None, Action::AskHow),
            (299, None, Action::AskHow),
            (300, None, Action::Finish),
            (59, Some(&how), Action::Wait),
            (60, Some(&how), Action::Finish),
        ] {
            let situation = Situation {
                job: JobSeen::Missing,
                ended: how,
                was_active: true,
                cancelled: false,
                task: TaskSeen::Running { stopping: false },
                since: Since {
                    ended: seconds,
                    missing: seconds,
                    ..Since::default()
                },
            };
            assert_eq!(decide(&situation, &GRACES), expected, "{seconds}");
        }
    }

    #[test]
    fn a_lost_answer_leads_to_one_job() {
        let search = |found, in_accounting, absent_for| Search {
            found,
            in_accounting,
            absent_for,
        };
        assert_eq!(settle(search(Some(7), true, Some(99)), 30), Settle::Adopt(7));
        assert_eq!(settle(search(None, true, Some(99)), 30), Settle::Wait);
        assert_eq!(settle(search(None, false, None), 30), Settle::Wait);
        assert_eq!(settle(search(None, false, Some(29)), 30), Settle::Wait);
        assert_eq!(settle(search(None, false, Some(30)), 30), Settle::SubmitAgain);
    }
}
