//! The life of a task: its statuses and which change is legal when.
//!
//! The table is that of the open ClearML server (API 2.34): `started`, `stopped`, `failed`,
//! `completed`, `close`, `publish`, `reset` and `enqueue` as that server checks them. `stop` and
//! `dequeue` depend on more than the status and are decided by the server.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where a task is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TaskStatus {
    /// A draft.
    Created,
    /// Waits in a queue.
    Queued,
    /// Runs.
    InProgress,
    /// Was aborted.
    Stopped,
    /// Ended well.
    Completed,
    /// Ended badly.
    Failed,
    /// Closed (legacy).
    Closed,
    /// Is being published.
    Publishing,
    /// Published; locked.
    Published,
    /// A status that this version does not know, kept as the server wrote it.
    Other(String),
}

impl TaskStatus {
    /// The statuses that this version knows.
    pub const KNOWN: [Self; 9] = [
        Self::Created,
        Self::Queued,
        Self::InProgress,
        Self::Stopped,
        Self::Completed,
        Self::Failed,
        Self::Closed,
        Self::Publishing,
        Self::Published,
    ];

    /// The status as the API writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Created => "created",
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Stopped => "stopped",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Closed => "closed",
            Self::Publishing => "publishing",
            Self::Published => "published",
            Self::Other(text) => text,
        }
    }

    /// Whether an agent has nothing more to decide: the run is over, however it ended.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Stopped
                | Self::Completed
                | Self::Failed
                | Self::Closed
                | Self::Publishing
                | Self::Published
        )
    }
}

impl From<&str> for TaskStatus {
    fn from(text: &str) -> Self {
        Self::KNOWN
            .into_iter()
            .find(|status| status.as_str() == text)
            .unwrap_or_else(|| Self::Other(text.to_owned()))
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for TaskStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for TaskStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from(String::deserialize(deserializer)?.as_str()))
    }
}

/// A requested change of status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// `tasks.started`
    Started,
    /// `tasks.stopped`
    Stopped,
    /// `tasks.failed`
    Failed,
    /// `tasks.completed`
    Completed,
    /// `tasks.close`
    Close,
    /// `tasks.publish`
    Publish,
    /// `tasks.reset`
    Reset,
    /// `tasks.enqueue`
    Enqueue,
}

impl Transition {
    /// The status after the change.
    #[must_use]
    pub fn target(self) -> TaskStatus {
        match self {
            Self::Started => TaskStatus::InProgress,
            Self::Stopped => TaskStatus::Stopped,
            Self::Failed => TaskStatus::Failed,
            Self::Completed => TaskStatus::Completed,
            Self::Close => TaskStatus::Closed,
            Self::Publish => TaskStatus::Published,
            Self::Reset => TaskStatus::Created,
            Self::Enqueue => TaskStatus::Queued,
        }
    }

    /// The statuses from which the change is legal without force.
    fn allowed_from(self) -> &'static [TaskStatus] {
        use TaskStatus::{Closed, Completed, Created, Failed, InProgress, Publishing, Queued, Stopped};
        match self {
            Self::Started => &[Created, Queued, InProgress, Stopped, Completed],
            Self::Stopped => &[Queued, InProgress, Stopped, Closed, Failed],
            Self::Failed => &[InProgress, Stopped, Closed, Failed],
            Self::Completed => &[InProgress, Stopped, Completed],
            Self::Close => &[Stopped, Closed],
            Self::Publish => &[Stopped, Closed, Failed, Completed, Publishing],
            Self::Reset => &[Created, Queued, InProgress, Stopped, Closed, Failed, Completed],
            Self::Enqueue => &[Created, Queued, Stopped, Failed],
        }
    }
}

/// A change of status that the server would refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a task that is {from} can't become {}", transition.target())]
pub struct IllegalTransition {
    /// The present status.
    pub from: TaskStatus,
    /// The change.
    pub transition: Transition,
}

/// The status after a change, or why there is none. With `force` every change is legal.
///
/// # Errors
///
/// When the change is not legal from this status.
pub fn apply(
    from: &TaskStatus,
    transition: Transition,
    force: bool,
) -> Result<TaskStatus, IllegalTransition> {
    if force || transition.allowed_from().contains(from) {
        Ok(transition.target())
    } else {
        Err(IllegalTransition {
            from: from.clone(),
            transition,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One row a status, one column a transition, in the order of the enums; `x` = refused.
    const TABLE: [(&str, &str); 9] = [
        ("created", "ok x x x x x ok ok"),
        ("queued", "ok ok x x x x ok ok"),
        ("in_progress", "ok ok ok ok x x ok x"),
        ("stopped", "ok ok ok ok ok ok ok ok"),
        ("completed", "ok x x ok x ok ok x"),
        ("failed", "x ok ok x x ok ok ok"),
        ("closed", "x ok ok x ok ok ok x"),
        ("publishing", "x x x x x ok x x"),
        ("published", "x x x x x x x x"),
    ];
    const TRANSITIONS: [Transition; 8] = [
        Transition::Started,
        Transition::Stopped,
        Transition::Failed,
        Transition::Completed,
        Transition::Close,
        Transition::Publish,
        Transition::Reset,
        Transition::Enqueue,
    ];

    #[test]
    fn legality_is_that_of_the_server() {
        for (from, row) in TABLE {
            for (transition, cell) in TRANSITIONS.into_iter().zip(row.split(' ')) {
                let from = TaskStatus::from(from);
                let result = apply(&from, transition, false);
                assert_eq!(result.is_ok(), cell == "ok", "{from} {transition:?}");
                assert_eq!(apply(&from, transition, true), Ok(transition.target()));
            }
        }
    }

    #[test]
    fn an_unknown_status_is_carried() {
        let status: TaskStatus = serde_json::from_str("\"archiving\"").unwrap();
        assert_eq!(serde_json::to_string(&status).unwrap(), "\"archiving\"");
        assert!(!status.is_final());
    }
}
