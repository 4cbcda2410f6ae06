//! The run directory: everything that is known about one run, on disk, so that whoever comes back
//! after a crash can go on.
//!
//! One folder per run, `<state>/runs/<run id>/`, mode 0700. Files are replaced as a whole and are on
//! the disk when a function returns. The folder appears complete or not at all.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clearml_support::fs::{self, JsonFileError};
use clearml_support::lock::FileLock;
use clearml_support::process::boot_id;
use clearml_support::time::now_ms;
use clearml_task_model::{QueueId, TaskId, WorkerId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::phase::Phase;
use crate::record::{
    AbortIntent, Identity, Launch, Mark, RunInputs, RunRecord, SCHEMA, ShimClaim, Timeline, Verdict,
    Versioned,
};
use crate::settings::host_name;

/// A run directory could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// The file system refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The state folder can't be used.
    #[error("creating folder {}: {source}; set agent.state_dir to a folder that can be written", path.display())]
    StateFolder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file of the run does not exist, can't be read, or is damaged.
    #[error(transparent)]
    File(#[from] JsonFileError),
    /// A newer agent has written this run.
    #[error(
        "{} has format version {found}; this agent knows up to {SCHEMA}. \
         Start the agent version that created the run, or remove the folder",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A step was asked for that would lead back.
    #[error("run {run}: phase {from:?} can't be followed by {to:?}")]
    Phase {
        /// The run.
        run: String,
        /// Its phase.
        from: Phase,
        /// The phase that was asked for.
        to: Phase,
    },
}

/// What a new run is about.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// The task.
    pub task: TaskId,
    /// The queue it is about to be pulled from.
    pub queue: Option<QueueId>,
    /// The worker id that the task will run under.
    pub worker: WorkerId,
}

/// Whoever holds this looks after a run: replaces its runner, and brings its pop to an end. The hold ends
/// with the process, so that another daemon can take the run over.
#[derive(Debug)]
pub struct Keeper {
    _lock: FileLock,
}

/// All runs of this machine's agent, finished and unfinished.
#[derive(Debug, Clone)]
pub struct RunStore {
    root: PathBuf,
}

impl RunStore {
    /// Opens, and creates if missing, the folder `runs` below the agent's state folder.
    ///
    /// # Errors
    ///
    /// When the folder can't be created.
    pub fn open(state_dir: &Path) -> Result<Self, RunDirError> {
        let root = state_dir.join("runs");
        fs::create_private_dir(&root).map_err(|source| RunDirError::StateFolder {
            path: root.clone(),
            source,
        })?;
        Ok(Self { root })
    }

    /// Writes down the intent to run a task. When this returns, the run is on the disk in phase
    /// [`Phase::Popping`], and the caller is its keeper.
    ///
    /// # Errors
    ///
    /// When the file system refuses; then there is no trace of the run.
    pub fn create(&self, new: NewRun) -> Result<(RunDir, Keeper), RunDirError> {
        let run_id = clearml_support::id::hex32();
        let record = RunRecord {
            schema: SCHEMA,
            boot_id: boot_id().map_err(io_error("reading the boot id for", &self.root))?,
            host: host_name(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            identity: Identity {
                task: new.task,
                queue: new.queue,
                worker: new.worker,
                project: None,
            },
            phase: Phase::Popping,
            created_ms: now_ms(),
            runner: None,
            failure: None,
            outcome: None,
            run_id: run_id.clone(),
        };
        // Built under a hidden name and renamed, so that a reader never meets a run without record.
        let temp = RunDir {
            path: self.root.join(format!(".new-{run_id}")),
        };
        let console = temp.console_dir();
        fs::create_private_dir(&console).map_err(io_error("creating folder", &console))?;
        temp.write(RUN, &record)?;
        // Held from before the run can be seen, so that nobody takes it for one whose keeper has died.
        let lock = temp.keeper_path();
        let lock = FileLock::try_acquire(&lock)
            .and_then(|held| held.ok_or_else(|| io::Error::from(io::ErrorKind::WouldBlock)))
            .map_err(io_error("locking", &lock))?;
        let run = RunDir {
            path: self.root.join(run_id),
        };
        std::fs::rename(&temp.path, &run.path).map_err(io_error("creating folder", &run.path))?;
        fs::sync_folder(&self.root).map_err(io_error("synchronising folder", &self.root))?;
        Ok((run, Keeper { _lock: lock }))
    }

    /// All runs, oldest first. A folder whose record can't be read is reported and skipped.
    ///
    /// # Errors
    ///
    /// When the folder of runs can't be read.
    pub fn list(&self) -> Result<Vec<RunDir>, RunDirError> {
        let mut runs = Vec::new();
        for entry in std::fs::read_dir(&self.root).map_err(io_error("listing", &self.root))? {
            let entry = entry.map_err(io_error("listing", &self.root))?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let run = RunDir { path: entry.path() };
            match run.record() {
                Ok(record) => runs.push((record.created_ms, run)),
                Err(e) => tracing::warn!("skipping a run that can't be read: {e}"),
            }
        }
        runs.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.path.cmp(&b.1.path)));
        Ok(runs.into_iter().map(|(_, run)| run).collect())
    }

    /// Removes the oldest finished runs, so that at most `keep` of them stay.
    ///
    /// # Errors
    ///
    /// When the runs can't be listed. A folder that can't be removed is reported and stays.
    pub fn prune(&self, keep: usize) -> Result<(), RunDirError> {
        let mut finished = self.list()?;
        finished.retain(|run| run.record().is_ok_and(|record| record.phase.is_final()));
        let surplus = finished.len().saturating_sub(keep);
        for run in finished.drain(..surplus) {
            if let Err(e) = run.remove() {
                tracing::warn!("{e}");
            }
        }
        self.sweep()
    }

    /// Removes folders that somebody died over while making or removing them.
    fn sweep(&self) -> Result<(), RunDirError> {
        for entry in std::fs::read_dir(&self.root).map_err(io_error("listing", &self.root))? {
            let entry = entry.map_err(io_error("listing", &self.root))?;
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.as_encoded_bytes();
            if name.starts_with(b".old-") || (name.starts_with(b".new-") && is_abandoned(&path)) {
                remove(&path, fs::remove_tree(&path)).unwrap_or_else(|e| tracing::warn!("{e}"));
            }
        }
        Ok(())
    }
}

const RUN: &str = "run.json";
const CONFIG: &str = "config.json";
const INPUTS: &str = "inputs.json";
const LAUNCH: &str = "launch.json";
const CLAIM: &str = "shim.json";
const VERDICT: &str = "verdict.json";
const ABORT: &str = "abort.json";
const TIMELINE: &str = "timeline.json";

/// One run directory.
#[derive(Debug, Clone)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// The run at `path`.
    ///
    /// # Errors
    ///
    /// When there is no readable run.
    pub fn open(path: &Path) -> Result<Self, RunDirError> {
        let path = std::path::absolute(path).map_err(io_error("finding", path))?;
        let run = Self { path };
        run.record()?;
        Ok(run)
    }

    /// A run whose record is not looked at, for the shim, which needs only the other files.
    pub(crate) fn unchecked(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: std::path::absolute(path)?,
        })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the console segments are.
    #[must_use]
    pub fn console_dir(&self) -> PathBuf {
        self.path.join("console")
    }

    /// Where environment and code of this run are built. It belongs to no other run.
    #[must_use]
    pub fn environment_dir(&self) -> PathBuf {
        self.path.join("env")
    }

    /// The configuration file that the run uses and that the user's process is given.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    pub(crate) fn cursor_path(&self) -> PathBuf {
        self.path.join("cursor.json")
    }

    /// Exists when the abort callback was started.
    pub(crate) fn callback_path(&self) -> PathBuf {
        self.path.join("callback")
    }

    pub(crate) fn claim_path(&self) -> PathBuf {
        self.path.join(CLAIM)
    }

    /// Identity and phase.
    ///
    /// # Errors
    ///
    /// When the file is missing, damaged or from a newer agent.
    pub fn record(&self) -> Result<RunRecord, RunDirError> {
        self.read(RUN)
    }

    /// Changes the record. Only whoever has the run in hand does this: the daemon up to
    /// [`Phase::Claimed`], the runner from there on.
    ///
    /// # Errors
    ///
    /// When the change would lead to an earlier phase, or the file system refuses.
    pub fn update(&self, change: impl FnOnce(&mut RunRecord)) -> Result<RunRecord, RunDirError> {
        let mut record = self.record()?;
        let from = record.phase;
        change(&mut record);
        if !from.may_become(record.phase) {
            return Err(RunDirError::Phase {
                run: record.run_id,
                from,
                to: record.phase,
            });
        }
        self.write(RUN, &record)?;
        Ok(record)
    }

    /// Records that the run has come to this phase.
    ///
    /// # Errors
    ///
    /// As [`RunDir::update`].
    pub fn set_phase(&self, phase: Phase) -> Result<RunRecord, RunDirError> {
        self.update(|record| record.phase = phase)
    }

    /// Stores the effective configuration and the surroundings that the run shall use. To be called
    /// before the first [`crate::spawn_runner`].
    ///
    /// # Errors
    ///
    /// When the file system refuses.
    pub fn write_inputs(&self, config: &Value, inputs: &RunInputs) -> Result<(), RunDirError> {
        self.write(CONFIG, config)?;
        self.write(INPUTS, inputs)
    }

    /// Whether [`RunDir::write_inputs`] has been called.
    #[must_use]
    pub fn has_inputs(&self) -> bool {
        self.path.join(INPUTS).exists()
    }

    /// What [`RunDir::write_inputs`] has written, as text: runs with the same are configured alike.
    pub(crate) fn configuration_text(&self) -> Result<(Vec<u8>, Vec<u8>), RunDirError> {
        let read = |name| {
            let path = self.path.join(name);
            std::fs::read(&path).map_err(io_error("reading", &path))
        };
        Ok((read(CONFIG)?, read(INPUTS)?))
    }

    /// The surroundings stored by [`RunDir::write_inputs`].
    ///
    /// # Errors
    ///
    /// When the file is missing, damaged or from a newer agent.
    pub fn inputs(&self) -> Result<RunInputs, RunDirError> {
        self.read(INPUTS)
    }

    /// Stores what the shim shall run.
    ///
    /// # Errors
    ///
    /// When the file system refuses.
    pub fn write_launch(&self, launch: &Launch) -> Result<(), RunDirError> {
        self.write(LAUNCH, launch)
    }

    pub(crate) fn launch(&self) -> Result<Launch, RunDirError> {
        self.read(LAUNCH)
    }

    /// The claim of the shim, if one has started.
    ///
    /// # Errors
    ///
    /// When the file is damaged or from a newer agent.
    pub fn claim(&self) -> Result<Option<ShimClaim>, RunDirError> {
        optional(self.read(CLAIM))
    }

    /// How the user's code ended, if it has.
    ///
    /// # Errors
    ///
    /// When the file is damaged or from a newer agent.
    pub fn verdict(&self) -> Result<Option<Verdict>, RunDirError> {
        optional(self.read(VERDICT))
    }

    pub(crate) fn write_verdict(&self, verdict: &Verdict) -> Result<(), RunDirError> {
        self.write(VERDICT, verdict)
    }

    /// The decision to abort, if one was made.
    ///
    /// # Errors
    ///
    /// When the file is damaged or from a newer agent.
    pub fn abort(&self) -> Result<Option<AbortIntent>, RunDirError> {
        optional(self.read(ABORT))
    }

    pub(crate) fn write_abort(&self, intent: &AbortIntent) -> Result<(), RunDirError> {
        self.write(ABORT, intent)
    }

    /// The stations passed so far.
    ///
    /// # Errors
    ///
    /// When the file is damaged or from a newer agent.
    pub fn timeline(&self) -> Result<Timeline, RunDirError> {
        Ok(optional(self.read(TIMELINE))?.unwrap_or(Timeline {
            schema: SCHEMA,
            marks: Vec::new(),
        }))
    }

    /// Notes that a station was reached at `ms`, and how long it took. A station that is noted again,
    /// by a replaced runner, is overwritten.
    ///
    /// # Errors
    ///
    /// When the file system refuses.
    pub fn mark(&self, name: &str, ms: i64, duration_ms: Option<i64>) -> Result<(), RunDirError> {
        self.mark_all(&[Mark {
            name: name.to_owned(),
            ms,
            duration_ms,
        }])
    }

    pub(crate) fn mark_all(&self, marks: &[Mark]) -> Result<(), RunDirError> {
        if marks.is_empty() {
            return Ok(());
        }
        let mut timeline = self.timeline()?;
        timeline
            .marks
            .retain(|old| marks.iter().all(|new| new.name != old.name));
        timeline.marks.extend_from_slice(marks);
        timeline.marks.sort_by_key(|mark| mark.ms);
        self.write(TIMELINE, &timeline)
    }

    /// Whether a runner has this run in hand. Asking is harmless to a runner that is just starting:
    /// that one waits a moment for the lock.
    #[must_use]
    pub fn runner_alive(&self) -> bool {
        // An error means that nothing is known; a second runner would find out safely.
        matches!(FileLock::try_acquire(&self.lock_path()), Ok(None))
    }

    /// Becomes the keeper of the run. `None` when somebody else is.
    ///
    /// # Errors
    ///
    /// When the file system refuses, or has no locks.
    pub fn keep(&self) -> Result<Option<Keeper>, RunDirError> {
        let path = self.keeper_path();
        let lock = FileLock::try_acquire(&path).map_err(io_error("locking", &path))?;
        Ok(lock.map(|lock| Keeper { _lock: lock }))
    }

    fn keeper_path(&self) -> PathBuf {
        self.path.join("keeper.lock")
    }

    /// Takes the run in hand. `None` when another runner has it.
    pub(crate) fn lock(&self) -> Result<Option<FileLock>, RunDirError> {
        match FileLock::acquire(&self.lock_path(), LOCK_PATIENCE) {
            Ok(lock) => Ok(Some(lock)),
            Err(e) if e.kind() == io::ErrorKind::TimedOut => Ok(None),
            Err(source) => Err(io_error("locking", &self.lock_path())(source)),
        }
    }

    fn lock_path(&self) -> PathBuf {
        self.path.join("runner.lock")
    }

    /// Removes what only a living run needs: secrets, console, environment. Record, verdict and
    /// timeline stay for people until [`RunStore::prune`].
    ///
    /// # Errors
    ///
    /// When something can't be removed.
    pub fn clean(&self) -> Result<(), RunDirError> {
        // The secrets first: a folder may resist.
        for name in [CONFIG, INPUTS, LAUNCH] {
            let path = self.path.join(name);
            remove(&path, std::fs::remove_file(&path))?;
        }
        for folder in [self.environment_dir(), self.console_dir()] {
            remove(&folder, fs::remove_tree(&folder))?;
        }
        Ok(())
    }

    /// Removes the whole run.
    ///
    /// # Errors
    ///
    /// When something can't be removed.
    pub fn remove(&self) -> Result<(), RunDirError> {
        // The hidden name keeps a crash in the middle from leaving a run that looks damaged.
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let hidden = self.path.with_file_name(format!(".old-{name}"));
        remove(&self.path, std::fs::rename(&self.path, &hidden))?;
        remove(&hidden, fs::remove_tree(&hidden))
    }

    fn read<T: DeserializeOwned + Versioned>(&self, name: &str) -> Result<T, RunDirError> {
        let path = self.path.join(name);
        let value: T = fs::read_json(&path)?;
        match value.schema() {
            found if found > SCHEMA => Err(RunDirError::Newer { path, found }),
            _ => Ok(value),
        }
    }

    fn write<T: Serialize + ?Sized>(&self, name: &str, value: &T) -> Result<(), RunDirError> {
        Ok(fs::write_json_atomic(&self.path.join(name), value, 0o600)?)
    }
}

/// Making a run takes milliseconds.
const MAKING: Duration = Duration::from_secs(3600);

fn is_abandoned(path: &Path) -> bool {
    let age = path
        .metadata()
        .and_then(|meta| meta.modified())
        .map(|time| time.elapsed());
    matches!(age, Ok(Ok(age)) if age > MAKING)
}

/// A daemon that asks whether the runner lives holds the lock for an instant.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

fn optional<T>(result: Result<T, RunDirError>) -> Result<Option<T>, RunDirError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(RunDirError::File(e)) if e.is_not_found() => Ok(None),
        Err(e) => Err(e),
    }
}

pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RunDirError {
    let path = path.to_owned();
    move |source| RunDirError::Io { action, path, source }
}

fn remove(path: &Path, result: io::Result<()>) -> Result<(), RunDirError> {
    match result {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("removing", path)(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "run_dir_tests.rs"]
mod tests;
