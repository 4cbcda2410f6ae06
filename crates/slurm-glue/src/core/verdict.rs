//! What the end of a job means for a task whose agent has not said it.

use super::jobs::EndedJob;

/// What preemption that cancels a job does to its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnPreemption {
    /// It is stopped.
    #[default]
    Stop,
    /// It fails.
    Fail,
    /// It goes back to its queue.
    Requeue,
}

/// What becomes of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It has failed, for this reason.
    Failed(String),
    /// It was stopped, for this reason.
    Stopped(String),
    /// It goes back to the front of the queue it came from.
    Requeue(String),
    /// Nothing: another copy of the job runs.
    Ignore,
}

/// Judges a job that has ended, or has disappeared (`None`). `started`: the agent in it had begun the task.
#[must_use]
pub fn judge(id: u64, job: Option<&EndedJob>, started: bool, on_preemption: OnPreemption) -> Verdict {
    let Some(job) = job else {
        return Verdict::Failed(format!("Slurm job {id} disappeared"));
    };
    let exit = exit_text(job);
    let launch = matches!(job.reason.as_str(), "JobLaunchFailure") || job.exit.signal == 53;
    match job.state.as_str() {
        "COMPLETED" if started => Verdict::Failed(format!(
            "Slurm job {id} ended without reporting a result{}",
            hint(job)
        )),
        "COMPLETED" => Verdict::Failed(format!(
            "Slurm job {id} ended without starting the task{}",
            hint(job)
        )),
        "CANCELLED" => {
            let user = job
                .cancelled_by
                .as_deref()
                .map_or(String::new(), |user| format!(" by {user}"));
            Verdict::Stopped(format!("Slurm job {id} cancelled{user}"))
        }
        "TIMEOUT" => Verdict::Failed(format!("Slurm time limit ({}) reached", job.time_limit)),
        "DEADLINE" => Verdict::Failed("Slurm deadline reached".to_owned()),
        "OUT_OF_MEMORY" => {
            Verdict::Failed("Slurm out of memory: the job used more than it asked for".to_owned())
        }
        "NODE_FAIL" | "BOOT_FAIL" => Verdict::Failed(format!("Slurm node failure on {}", job.nodes)),
        "PREEMPTED" => {
            let reason = format!("Slurm job {id} was preempted");
            match on_preemption {
                OnPreemption::Stop => Verdict::Stopped(reason),
                OnPreemption::Fail => Verdict::Failed(reason),
                OnPreemption::Requeue => Verdict::Requeue(reason),
            }
        }
        "REVOKED" => Verdict::Ignore,
        _ if launch && !started => Verdict::Failed(format!(
            "Slurm job {id} could not be launched ({exit}); check that its working folder, the folder of its output and its \
             image exist on the node"
        )),
        _ if started => Verdict::Failed(format!("Slurm job {id} failed ({exit})")),
        _ => Verdict::Failed(format!("Slurm job {id} failed before the task started ({exit})")),
    }
}

fn exit_text(job: &EndedJob) -> String {
    let code = job.exit.code;
    if job.exit.signal == 0 {
        return format!("exit {code}");
    }
    format!("exit {code}, signal {}", job.exit.signal)
}

/// A step may have failed although the script went on.
fn hint(job: &EndedJob) -> String {
    match (job.derived.code, job.derived.signal) {
        (0, 0) => String::new(),
        (0, 125) => "; a step of it ran out of memory".to_owned(),
        (code, 0) => format!("; a step of it ended with exit code {code}"),
        (_, signal) => format!("; a step of it was ended by signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::jobs::Exit;
    use super::super::states::JobState;
    use super::*;

    fn job(state: &str, exit: &str, derived: &str, reason: &str) -> EndedJob {
        EndedJob {
            id: 7,
            name: "clearml_task_t".into(),
            state: JobState::read(state),
            exit: Exit::read(exit),
            derived: Exit::read(derived),
            reason: reason.to_owned(),
            cancelled_by: state.split_once(" by ").map(|(_, user)| user.to_owned()),
            time_limit: "00:01:00".to_owned(),
            nodes: "c1".to_owned(),
            complete: true,
            submitted: 0,
        }
    }

    #[test]
    fn every_end_has_its_status_and_reason() {
        for (state, exit, derived, reason, started, expected) in [
            (
                "COMPLETED",
                "0:0",
                "0:0",
                "None",
                false,
                "F Slurm job 7 ended without starting the task",
            ),
            (
                "COMPLETED",
                "0:0",
                "0:125",
                "None",
                true,
                "F Slurm job 7 ended without reporting a result; a step of it ran out of memory",
            ),
            (
                "FAILED",
                "5:0",
                "0:0",
                "NonZeroExitCode",
                false,
                "F Slurm job 7 failed before the task started (exit 5)",
            ),
            (
                "FAILED",
                "0:9",
                "0:0",
                "JobLaunchFailure",
                true,
                "F Slurm job 7 failed (exit 0, signal 9)",
            ),
            (
                "CANCELLED by alice",
                "0:15",
                "0:0",
                "None",
                true,
                "S Slurm job 7 cancelled by alice",
            ),
            (
                "CANCELLED",
                "0:0",
                "0:0",
                "None",
                false,
                "S Slurm job 7 cancelled",
            ),
            (
                "TIMEOUT",
                "0:0",
                "0:0",
                "TimeLimit",
                true,
                "F Slurm time limit (00:01:00) reached",
            ),
            ("DEADLINE", "1:0", "0:0", "", false, "F Slurm deadline reached"),
            (
                "OUT_OF_MEMORY",
                "0:125",
                "0:0",
                "",
                true,
                "F Slurm out of memory: the job used more than it asked for",
            ),
            (
                "NODE_FAIL",
                "0:0",
                "0:0",
                "NodeDown",
                true,
                "F Slurm node failure on c1",
            ),
            ("BOOT_FAIL", "0:0", "0:0", "", false, "F Slurm node failure on c1"),
        ] {
            let verdict = judge(
                7,
                Some(&job(state, exit, derived, reason)),
                started,
                OnPreemption::Stop,
            );
            let text = match verdict {
                Verdict::Failed(text) => format!("F {text}"),
                Verdict::Stopped(text) => format!("S {text}"),
                other => format!("{other:?}"),
            };
            assert_eq!(text, expected, "{state}");
        }
        let launch = judge(
            7,
            Some(&job("FAILED", "0:53", "0:0", "JobLaunchFailure")),
            false,
            OnPreemption::Stop,
        );
        assert!(matches!(launch, Verdict::Failed(text) if text.contains("working folder")));
        assert!(
            matches!(judge(7, None, true, OnPreemption::Stop), Verdict::Failed(text) if text.contains("disappeared"))
        );
        let preempted = job("PREEMPTED", "0:0", "0:0", "");
        assert!(matches!(
            judge(7, Some(&preempted), true, OnPreemption::Stop),
            Verdict::Stopped(_)
        ));
        assert!(matches!(
            judge(7, Some(&preempted), true, OnPreemption::Fail),
            Verdict::Failed(_)
        ));
        assert!(matches!(
            judge(7, Some(&preempted), true, OnPreemption::Requeue),
            Verdict::Requeue(_)
        ));
        assert_eq!(
            judge(
                7,
                Some(&job("REVOKED", "0:0", "0:0", "")),
                true,
                OnPreemption::Stop
            ),
            Verdict::Ignore
        );
    }
}
