//! What a daemon says about itself to the people of its machine: a small file that it keeps up to date while
//! it lives. Without it nobody could say, while the server is away, which queues are served here and why
//! nothing moves.
//!
//! It is a display and no lock: nothing is decided by it, and whoever reads it asks whether the process
//! that wrote it still lives. It stands in the agent's state folder, which only its user can read.

use std::io;
use std::path::{Path, PathBuf};

use clearml_support::fs::{JsonFileError, create_private_dir, read_json, safe_file_name, write_json_atomic};
use clearml_support::process::ProcessIdentity;
use clearml_task_model::{QueueId, WorkerId};
use serde::{Deserialize, Serialize};

/// The format of the file.
const SCHEMA: u32 = 1;
const FOLDER: &str = "workers";
const SUFFIX: &str = ".json";

/// One daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    /// File format.
    pub schema: u32,
    /// Its worker id.
    pub worker: WorkerId,
    /// Its process.
    pub process: ProcessIdentity,
    /// The version of the agent.
    pub version: String,
    /// When it began to serve, in milliseconds since the epoch.
    pub started_ms: i64,
    /// The server, without secrets.
    pub server: String,
    /// Its queues, the most important one first.
    pub queues: Vec<QueuePresence>,
    /// The GPUs that its tasks see, as `--gpus` names them.
    #[serde(default)]
    pub gpus: Option<String>,
    /// When it last looked at the queues with success. It does not look while it has no room for a task.
    #[serde(default)]
    pub looked_ms: Option<i64>,
    /// Since when the server has had trouble, if it has.
    #[serde(default)]
    pub server_away_since_ms: Option<i64>,
    /// Until when it takes no tasks after a fault of this machine, and which one.
    #[serde(default)]
    pub paused: Option<Pause>,
    /// After how many seconds it takes over the tasks of a daemon that did not come back.
    #[serde(default)]
    pub adopts_after_sec: Option<f64>,
}

/// A queue, as a daemon sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuePresence {
    /// Its id.
    pub id: QueueId,
    /// Its name.
    pub name: String,
    /// How many tasks waited in it at the last look.
    #[serde(default)]
    pub waiting: Option<u64>,
    /// There may be more: only so many are counted.
    #[serde(default)]
    pub or_more: bool,
    /// It is not served at this hour.
    #[serde(default)]
    pub resting: bool,
}

/// Why no task is taken for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// The end, in milliseconds since the epoch.
    pub until_ms: i64,
    /// The fault.
    pub reason: String,
}

impl Presence {
    /// A daemon that has just begun, as the calling process.
    ///
    /// # Errors
    ///
    /// When `/proc` can't be read.
    pub fn of_this_process(worker: WorkerId, version: &str, started_ms: i64) -> io::Result<Self> {
        Ok(Self {
            schema: SCHEMA,
            worker,
            process: ProcessIdentity::current()?,
            version: version.to_owned(),
            started_ms,
            server: String::new(),
            queues: Vec::new(),
            gpus: None,
            looked_ms: None,
            server_away_since_ms: None,
            paused: None,
            adopts_after_sec: None,
        })
    }

    /// Writes the file; returns where it is.
    ///
    /// # Errors
    ///
    /// When the file system refuses.
    pub fn write(&self, state_dir: &Path) -> Result<PathBuf, JsonFileError> {
        let folder = state_dir.join(FOLDER);
        let path = folder.join(format!("{}{SUFFIX}", safe_file_name(self.worker.as_str())));
        create_private_dir(&folder).map_err(|source| JsonFileError::Io {
            action: "creating folder",
            path: folder.clone(),
            source,
        })?;
        write_json_atomic(&path, self, 0o600)?;
        Ok(path)
    }

    /// The daemons that use this state folder and live. What can't be read, or was written by a newer
    /// agent, is left out.
    #[must_use]
    pub fn living(state_dir: &Path) -> Vec<Self> {
        let Ok(entries) = std::fs::read_dir(state_dir.join(FOLDER)) else {
            return Vec::new();
        };
        let mut found: Vec<Self> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.to_str().is_some_and(|path| path.ends_with(SUFFIX)))
            .filter_map(|path| read_json::<Self>(&path).ok())
            .filter(|presence| presence.schema <= SCHEMA && presence.process.is_alive())
            .collect();
        found.sort_by(|a, b| a.worker.cmp(&b.worker));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_living_are_listed() {
        let state = tempfile::tempdir().unwrap();
        assert!(Presence::living(state.path()).is_empty());
        let mut me = Presence::of_this_process("host:0".into(), "1", 5).unwrap();
        let path = me.write(state.path()).unwrap();
        assert_eq!(Presence::living(state.path()), [me.clone()]);

        me.worker = "../host:1".into();
        me.process.start_ticks += 1;
        let dead = me.write(state.path()).unwrap();
        assert_eq!(dead.parent(), path.parent());
        std::fs::write(path.with_file_name("other.json"), "{").unwrap();
        assert_eq!(Presence::living(state.path()).len(), 1);
    }

    #[test]
    fn what_a_newer_agent_has_written_is_left_out() {
        let state = tempfile::tempdir().unwrap();
        let mut me = Presence::of_this_process("w".into(), "9", 5).unwrap();
        me.schema = SCHEMA + 1;
        me.write(state.path()).unwrap();
        assert!(Presence::living(state.path()).is_empty());
    }
}
