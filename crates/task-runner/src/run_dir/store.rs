//! The folder of all runs: making them, finding them, and removing what nobody needs any more.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clearml_support::fs;
use clearml_support::lock::FileLock;
use clearml_support::process::boot_id;
use clearml_support::time::now_ms;
use clearml_task_model::{QueueId, TaskId, WorkerId};

use super::{RUN, RunDir, RunDirError, io_error, remove};
use crate::phase::Phase;
use crate::record::{Identity, RunRecord, SCHEMA};
use crate::settings::host_name;

/// So many finished runs stay for people to look at.
pub const KEEP_FINISHED: usize = 20;

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

impl Keeper {
    pub(super) fn holding(lock: FileLock) -> Self {
        Self { _lock: lock }
    }
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
            path: self.root.join(format!("{MAKING}{run_id}")),
        };
        let run = RunDir {
            path: self.root.join(run_id),
        };
        match self.make(&temp, &run, &record) {
            Ok(keeper) => Ok((run, keeper)),
            Err(e) => {
                // A full disk most likely, which what was made so far does not make emptier.
                let _as_far_as_possible = (fs::remove_tree(&temp.path), fs::remove_tree(&run.path));
                Err(e)
            }
        }
    }

    fn make(&self, temp: &RunDir, run: &RunDir, record: &RunRecord) -> Result<Keeper, RunDirError> {
        let console = temp.console_dir();
        fs::create_private_dir(&console).map_err(io_error("creating folder", &console))?;
        // Held from before the run can be seen, so that nobody takes it for one whose keeper has died.
        let lock = temp.keeper_path();
        let lock = FileLock::try_acquire(&lock)
            .and_then(|held| held.ok_or_else(|| io::Error::from(io::ErrorKind::WouldBlock)))
            .map_err(io_error("locking", &lock))?;
        temp.write(RUN, record)?;
        std::fs::rename(&temp.path, &run.path).map_err(io_error("creating folder", &run.path))?;
        fs::sync_folder(&self.root).map_err(io_error("synchronising folder", &self.root))?;
        Ok(Keeper::holding(lock))
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

    /// Removes folders that somebody died over while making or removing them, and those whose record somebody else
    /// has removed: nobody can go on with them.
    fn sweep(&self) -> Result<(), RunDirError> {
        for entry in std::fs::read_dir(&self.root).map_err(io_error("listing", &self.root))? {
            let entry = entry.map_err(io_error("listing", &self.root))?;
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.as_encoded_bytes();
            let has_no_record = || !name.starts_with(b".") && RunDir { path: path.clone() }.is_gone();
            let is_unfinished = || name.starts_with(MAKING.as_bytes()) || has_no_record();
            if name.starts_with(b".old-") || (is_unfinished() && is_abandoned(&path)) {
                remove(&path, fs::remove_tree(&path)).unwrap_or_else(|e| tracing::warn!("{e}"));
            }
        }
        Ok(())
    }
}

/// How the names of runs begin that are being made.
const MAKING: &str = ".new-";
/// Making a run takes milliseconds. Whoever makes one holds its lock after the first of them.
const UNLOCKED: Duration = Duration::from_secs(60);
/// Where locks do not tell.
const IN_ANY_CASE: Duration = Duration::from_secs(3600);

fn is_abandoned(path: &Path) -> bool {
    let age = path
        .metadata()
        .and_then(|meta| meta.modified())
        .map(|time| time.elapsed());
    let Ok(Ok(age)) = age else { return false };
    let temp = RunDir {
        path: path.to_owned(),
    };
    age > IN_ANY_CASE || (age > UNLOCKED && matches!(temp.keep(), Ok(Some(_))))
}
