//! The run directory: everything that is known about one run, on disk, so that whoever comes back
//! after a crash can go on.
//!
//! One folder per run, `<state>/runs/<run id>/`, mode 0700. Files are replaced as a whole and are on
//! the disk when a function returns. The folder appears complete or not at all.

mod contained;
mod error;
mod store;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clearml_support::fs;
use clearml_support::lock::FileLock;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::owner::{OwnerFile, OwnerSession};
use crate::phase::Phase;
use crate::record::{
    AbortIntent, Launch, Mark, RunInputs, RunRecord, SCHEMA, ShimClaim, Timeline, Verdict, Versioned,
};
use crate::runner::other_user::{HOMES, remove_home};
pub use error::RunDirError;
pub(crate) use error::io_error;
pub use store::{KEEP_FINISHED, Keeper, NewRun, RunStore};

const RUN: &str = "run.json";
const CONFIG: &str = "config.json";
const INPUTS: &str = "inputs.json";
const OWNER: &str = "owner.json";
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
        if inputs.options.container.is_some() {
            self.make_box()?;
        }
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
        Ok(RunInputs {
            owner: self.owner()?,
            ..self.read(INPUTS)?
        })
    }

    /// Lets the run work in the name of the task's owner, or stores a newer token for that. To be called before
    /// [`RunDir::write_inputs`].
    ///
    /// # Errors
    ///
    /// When the file system refuses.
    pub fn write_owner(&self, session: &OwnerSession) -> Result<(), RunDirError> {
        self.write(OWNER, &OwnerFile::from(session))
    }

    /// The session of the task's owner, if the run works in the owner's name.
    ///
    /// # Errors
    ///
    /// When the file is damaged or from a newer agent.
    pub fn owner(&self) -> Result<Option<OwnerSession>, RunDirError> {
        Ok(optional(self.read::<OwnerFile>(OWNER))?.map(OwnerSession::from))
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

    /// Whether somebody has removed it. Nothing can be written down any more then, however long one tries.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self.record(), Err(RunDirError::File(e)) if e.is_not_found())
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
        Ok(lock.map(Keeper::holding))
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
        for name in [CONFIG, INPUTS, OWNER, LAUNCH] {
            let path = self.path.join(name);
            remove(&path, std::fs::remove_file(&path))?;
        }
        let of_container = contained::FOLDERS.map(|name| self.path.join(name));
        for folder in [self.environment_dir(), self.console_dir()]
            .into_iter()
            .chain(of_container)
        {
            remove(&folder, fs::remove_tree(&folder))?;
        }
        // Of a program that ran as another user.
        if let Ok(record) = self.record() {
            let home = Path::new(HOMES).join(&record.run_id);
            remove(&home, remove_home(&record.run_id))?;
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
        Ok(fs::write_json_atomic(
            &self.path.join(name),
            value,
            crate::umask::file_mode(),
        )?)
    }
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

fn remove(path: &Path, result: io::Result<()>) -> Result<(), RunDirError> {
    match result {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("removing", path)(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
