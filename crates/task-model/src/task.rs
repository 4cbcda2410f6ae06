//! Tasks.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::ids::{ProjectId, TaskId, UserId, WorkerId};
use crate::requirements::Requirements;
use crate::status::TaskStatus;

/// The container section of a task: `image`, `arguments`, `setup_shell_script` and free keys.
pub type Container = Map<String, Value>;

/// Reads `null` like a missing field: clients send the one for the other.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A task as the API returns it. With a projection most fields are absent, so all are optional.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its id; absent when the request did not ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<TaskId>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `training`, `controller`, `service`, …
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Where it is in its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<TaskStatus>,
    /// Why it has this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_reason: Option<String>,
    /// Contains `stopping` while somebody wants a running task to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_message: Option<String>,
    /// Its project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectId>,
    /// Its owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    /// What to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<Script>,
    /// The container to run in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// Queue, artifacts and legacy parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<Map<String, Value>>,
    /// Parameters by section and name.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub hyperparams: BTreeMap<String, BTreeMap<String, HyperParam>>,
    /// Configuration texts by name.
    #[serde(
        default,
        skip_serializing_if = "Map::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub configuration: Map<String, Value>,
    /// Scratch data of agents and SDK.
    #[serde(
        default,
        skip_serializing_if = "Map::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub runtime: Map<String, Value>,
    /// The worker that reported this task last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_worker: Option<WorkerId>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Where a task's `runtime` says which run of an agent has taken it from a queue.
pub const OWNER_KEY: &str = "_agent_owner";

impl Task {
    /// The run of an agent that has taken this task from a queue, if it carries such a mark.
    #[must_use]
    pub fn owner_run(&self) -> Option<&str> {
        self.runtime.get(OWNER_KEY)?.get("run")?.as_str()
    }

    /// Whether somebody has asked for this running task to be stopped (`tasks.stop`).
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.status == Some(TaskStatus::InProgress)
            && self
                .status_message
                .as_deref()
                .is_some_and(|message| message.contains("stopping"))
    }
}

/// One parameter of a task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HyperParam {
    /// Its section, for example `Args` or `properties`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its value; always text in the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What a task runs: code, revision, entry point, packages.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Script {
    /// The interpreter, for example `python3.10` or `/bin/bash`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<String>,
    /// Where the code is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Tag to check out when there is no commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Branch to check out when there is neither commit nor tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Commit to check out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_num: Option<String>,
    /// What to start: a path, `-m module …` or `-c text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry_point: Option<String>,
    /// Folder inside the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Uncommitted changes, or the whole program when there is no repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
    /// Packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requirements: Option<Requirements>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nulls_are_read_like_missing_fields() {
        let task: Task = serde_json::from_value(json!({
            "id": "t", "runtime": null, "hyperparams": null, "script": {"diff": null, "requirements": {"pip": ["a", "b"]}}
        }))
        .unwrap();
        let requirements = task.script.unwrap().requirements.unwrap();
        assert_eq!(requirements.pip.unwrap().text(), "a\nb");
        assert!(task.runtime.is_empty() && task.hyperparams.is_empty());
    }

    #[test]
    fn a_stop_request_counts_only_while_the_task_runs() {
        let task = |status: &str| Task {
            status: Some(TaskStatus::from(status)),
            status_message: Some("user: stopping".into()),
            ..Task::default()
        };
        assert!(task("in_progress").is_stopping());
        assert!(!task("stopped").is_stopping());
    }
}
