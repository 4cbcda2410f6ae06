//! The states of Slurm's jobs, and what each of them means for a task.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a state means for a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// The job waits, for the first time or again.
    Waiting,
    /// It runs, or is about to begin or end.
    Active,
    /// It has ended.
    Ended,
}

/// A job's state by Slurm's name for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobState(String);

const WAITING: [&str; 8] = [
    "PENDING",
    "CONFIGURING",
    "REQUEUED",
    "REQUEUE_HOLD",
    "REQUEUE_FED",
    "SPECIAL_EXIT",
    "RESV_DEL_HOLD",
    "POWER_UP_NODE",
];

const ENDED: [&str; 11] = [
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "DEADLINE",
    "NODE_FAIL",
    "BOOT_FAIL",
    "LAUNCH_FAILED",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
];

const ACTIVE: [&str; 8] = [
    "RUNNING",
    "SUSPENDED",
    "STOPPED",
    "SIGNALING",
    "RESIZING",
    "COMPLETING",
    "STAGE_OUT",
    "UPDATE_DB",
];

impl JobState {
    /// Reads what squeue or sacct print: the first word counts (`CANCELLED by 1001`).
    #[must_use]
    pub fn read(text: &str) -> Self {
        let word = text.split_whitespace().next().unwrap_or_default();
        Self(word.trim_end_matches('+').to_ascii_uppercase())
    }

    /// Slurm's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What it means. A state that is not known is taken for one of a job that runs: nothing is done to it.
    #[must_use]
    pub fn stage(&self) -> Stage {
        if WAITING.contains(&self.0.as_str()) {
            Stage::Waiting
        } else if ENDED.contains(&self.0.as_str()) {
            Stage::Ended
        } else {
            Stage::Active
        }
    }

    /// Whether this version knows it.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.stage() != Stage::Active || ACTIVE.contains(&self.0.as_str())
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reasons for waiting that nothing but a change of the job or the cluster ends.
const HOPELESS: [&str; 11] = [
    "PartitionNodeLimit",
    "PartitionTimeLimit",
    "PartitionConfig",
    "PartitionDown",
    "PartitionInactive",
    "BadConstraints",
    "DependencyNeverSatisfied",
    "InvalidAccount",
    "InvalidQOS",
    "AccountNotAllowed",
    "QOSNotAllowed",
];

/// The kind of a reason, without lists of nodes, so that a changing list is no new reason.
#[must_use]
pub fn reason_kind(reason: &str) -> &str {
    let end = reason.find([',', '(', ':']).unwrap_or(reason.len());
    reason[..end].trim()
}

/// Whether a job with this reason will hardly ever begin by itself.
#[must_use]
pub fn is_hopeless(reason: &str) -> bool {
    HOPELESS.contains(&reason_kind(reason)) || reason.contains("requeued held")
}

/// What a person may want to know about a reason; empty when its name says it all.
#[must_use]
pub fn explain(reason: &str) -> &'static str {
    match reason_kind(reason) {
        "Resources" => "waiting for free nodes, processors, memory or GPUs",
        "Priority" => "jobs with a higher priority come first",
        "Dependency" => "another job has to end first",
        "BeginTime" => "it may not begin yet; after a requeue Slurm waits two minutes",
        "JobHeldUser" => "held by its user; `scontrol release` lets it go",
        "JobHeldAdmin" => "held by an administrator",
        "ReqNodeNotAvail" => "a node that it needs is down, drained or reserved",
        "Licenses" => "waiting for a license",
        "Reservation" => "waiting for its reservation",
        "PartitionNodeLimit" | "PartitionTimeLimit" => {
            "it asks for more than its partition allows and will not begin"
        }
        "PartitionDown" | "PartitionInactive" => "its partition is switched off",
        "BadConstraints" => "no node has what it asks for",
        "DependencyNeverSatisfied" => "the job that it depends on did not end as needed",
        kind if kind.starts_with("QOS") || kind.starts_with("Assoc") => {
            "a limit of the account or quality of service is reached"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_told_by_their_first_word() {
        for (text, stage, known) in [
            ("PENDING", Stage::Waiting, true),
            ("CANCELLED by 1001", Stage::Ended, true),
            ("OUT_OF_MEMORY", Stage::Ended, true),
            ("COMPLETING", Stage::Active, true),
            ("SPECIAL_EXIT", Stage::Waiting, true),
            ("NEVER_SEEN", Stage::Active, false),
            ("", Stage::Active, false),
        ] {
            let state = JobState::read(text);
            assert_eq!((state.stage(), state.is_known()), (stage, known), "{text}");
        }
    }

    #[test]
    fn reasons_are_compared_without_their_nodes() {
        assert_eq!(
            reason_kind("ReqNodeNotAvail, UnavailableNodes:c[1-2]"),
            "ReqNodeNotAvail"
        );
        assert!(is_hopeless("PartitionTimeLimit") && is_hopeless("launch failed requeued held"));
        assert!(!is_hopeless("Resources"));
        assert!(explain("QOSMaxJobsPerUserLimit").contains("limit"));
    }
}
