//! The owner mark: who has taken a task, written into the task itself where every agent can read it.
//!
//! The server forgets a queue entry the moment it is popped, and remembers nothing about who got it. So
//! the agent that pops a task writes its name into the task's `runtime` under [`OWNER_KEY`]. After a lost
//! answer or a crash, the mark tells whose the task is.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use clearml_task_model::OWNER_KEY;
use clearml_task_model::WorkerId;

/// The key under which the Python agent notes the host that runs a task; written with the mark.
pub const HOST_KEY: &str = "_exec_agent_hostname";

/// Who has taken a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerMark {
    /// The worker.
    pub worker: WorkerId,
    /// The run of that worker; unique for ever, so it tells one pop from another.
    pub run: String,
    /// The host of the worker.
    #[serde(default)]
    pub host: String,
    /// When the mark was written, Unix milliseconds of that host's clock. For people: nothing compares it.
    #[serde(default)]
    pub ts: i64,
}

impl OwnerMark {
    /// The mark in a task's `runtime`, if there is one that this version understands.
    #[must_use]
    pub fn read(runtime: &Map<String, Value>) -> Option<Self> {
        Self::deserialize(runtime.get(OWNER_KEY)?).ok()
    }

    /// The entries to add to a task's `runtime`.
    #[must_use]
    pub fn entries(&self) -> Map<String, Value> {
        let mut entries = Map::new();
        entries.insert(
            OWNER_KEY.to_owned(),
            json!({"worker": self.worker, "run": self.run, "host": self.host, "ts": self.ts}),
        );
        entries.insert(HOST_KEY.to_owned(), json!(self.host));
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_comes_back_as_it_was_written_and_nonsense_is_no_mark() {
        let mark = OwnerMark {
            worker: "h:0".into(),
            run: "r1".into(),
            host: "h".into(),
            ts: 7,
        };
        let mut runtime = mark.entries();
        assert_eq!(OwnerMark::read(&runtime), Some(mark));
        assert_eq!(runtime[HOST_KEY], json!("h"));
        runtime.insert(OWNER_KEY.into(), json!("somebody"));
        assert_eq!(OwnerMark::read(&runtime), None);
        assert_eq!(OwnerMark::read(&Map::new()), None);
    }
}
