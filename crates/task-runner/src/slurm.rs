//! A task inside of a job of Slurm, which may put the job back and start it anew under the same number.
//!
//! Who submits the job notes it in the task's `runtime`, and how often it was put back. By that a run knows that a
//! task which is not queued is its own all the same, and a run on a node that was given up knows that it is not the
//! last any more. Pure.

use clearml_task_model::{Task, TaskId, TaskStatus};
use serde_json::Value;

use crate::record::RunInputs;

/// Where the job of a task is noted in its `runtime`: `cluster/number`.
const JOB: &str = "_slurm_job";
/// How often Slurm has put that job back.
pub(crate) const RESTART: &str = "_slurm_restart";

/// The job of Slurm that this process belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlurmJob {
    number: String,
    cluster: Option<String>,
    restarts: u64,
}

impl SlurmJob {
    /// The job whose batch script was made for this very task.
    pub(crate) fn of(inputs: &RunInputs, task: &TaskId) -> Option<Self> {
        let variable = |wanted: &str| {
            let mut all = inputs.environment.iter();
            let (_, value) = all.find(|(name, _)| name.0 == wanted)?;
            value.0.to_str().map(str::to_owned)
        };
        if variable("CLEARML_SLURM_TASK")? != task.as_str() {
            return None;
        }
        Some(Self {
            number: variable("SLURM_JOB_ID")?,
            cluster: variable("SLURM_CLUSTER_NAME").filter(|name| !name.is_empty()),
            restarts: variable("SLURM_RESTART_COUNT")
                .and_then(|count| count.trim().parse().ok())
                .unwrap_or(0),
        })
    }

    /// How often Slurm has put the job back before this run.
    pub(crate) fn restarts(&self) -> u64 {
        self.restarts
    }

    /// The reason that a task shows whose job was told to end.
    pub(crate) fn terminated(&self) -> String {
        format!("Slurm job {} received SIGTERM", self.number)
    }

    /// Whether this is the job that the task names.
    pub(crate) fn is_noted(&self, task: &Task) -> bool {
        let note = task.runtime.get(JOB).and_then(Value::as_str);
        let Some((cluster, number)) = note.and_then(|note| note.rsplit_once('/')) else {
            return false;
        };
        number == self.number && self.cluster.as_deref().is_none_or(|own| own == cluster)
    }

    /// Whether a task that is not queued belongs to this job, which was started before. What a person has stopped
    /// stays stopped.
    pub(crate) fn may_go_on(&self, task: &Task) -> bool {
        let is_as_left = match &task.status {
            Some(TaskStatus::InProgress) => !task.is_stopping(),
            Some(TaskStatus::Stopped) => task.status_reason.as_deref() == Some(&*self.terminated()),
            _ => false,
        };
        self.restarts > 0 && is_as_left && self.is_noted(task)
    }

    /// Whether Slurm has started the job anew since, on nodes that it can reach.
    pub(crate) fn is_superseded(&self, task: &Task) -> bool {
        let newest = task.runtime.get(RESTART).and_then(Value::as_u64);
        newest.is_some_and(|newest| newest > self.restarts) && self.is_noted(task)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(restarts: u64) -> SlurmJob {
        SlurmJob {
            number: "17".into(),
            cluster: Some("lab".into()),
            restarts,
        }
    }

    fn task(status: &str, reason: &str, runtime: Value) -> Task {
        Task {
            status: Some(TaskStatus::from(status)),
            status_reason: Some(reason.into()),
            runtime: runtime.as_object().unwrap().clone(),
            ..Task::default()
        }
    }

    #[test]
    fn a_job_that_was_started_again_goes_on_with_its_own_task_only() {
        let noted = json!({"_slurm_job": "lab/17", "_slurm_restart": 1});
        let told = job(0).terminated();
        for (status, reason, runtime, restarts, expected) in [
            ("in_progress", "", &noted, 1, true),
            ("in_progress", "", &noted, 0, false),
            ("stopped", told.as_str(), &noted, 1, true),
            ("stopped", "task was stopped by tasks.stop", &noted, 1, false),
            ("completed", "", &noted, 1, false),
            ("created", "", &noted, 1, false),
            ("in_progress", "", &json!({"_slurm_job": "lab/18"}), 1, false),
            ("in_progress", "", &json!({"_slurm_job": "other/17"}), 1, false),
            ("in_progress", "", &json!({}), 1, false),
        ] {
            let task = task(status, reason, runtime.clone());
            assert_eq!(
                job(restarts).may_go_on(&task),
                expected,
                "{status} {reason} {runtime} {restarts}"
            );
        }
        let mut stopping = task("in_progress", "", noted.clone());
        stopping.status_message = Some("stopping".into());
        assert!(!job(1).may_go_on(&stopping));

        let now = task("in_progress", "", noted);
        assert!(job(0).is_superseded(&now) && !job(1).is_superseded(&now));
        let foreign = task(
            "in_progress",
            "",
            json!({"_slurm_job": "lab/18", "_slurm_restart": 1}),
        );
        assert!(!job(0).is_superseded(&foreign));
    }
}
