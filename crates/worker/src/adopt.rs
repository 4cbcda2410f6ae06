//! Which runs a daemon takes over because nobody looks after them.
//!
//! Whoever looks after a run is its [keeper](clearml_task_runner::Keeper), and the kernel ends that with
//! the process. A run without keeper that is not done was left by a daemon, or an `execute`, that has died.
//! The daemon of the same worker id continues it as soon as it is back. Another daemon of this machine
//! waits `agent.adopt_after_sec` for that, because each worker has its own share of the machine; after
//! that the task matters more.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clearml_support::fs::safe_file_name;
use clearml_support::lock::FileLock;
use clearml_task_model::WorkerId;
use clearml_task_runner::settings::host_name;
use clearml_task_runner::{RunDir, RunDirError, RunRecord, RunStore};
use tokio::time::Instant;

use crate::decide::Waiting;

/// How often to look. A look reads the record of every run on the disk.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Remembers since when each run has had no keeper.
#[derive(Debug)]
pub(crate) struct Orphans {
    patience: Duration,
    waiting: Waiting<PathBuf>,
    begun: Instant,
    hopeless: HashSet<PathBuf>,
    looked: Option<Instant>,
}

impl Orphans {
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            patience,
            waiting: Waiting::default(),
            begun: Instant::now(),
            hopeless: HashSet::new(),
            looked: None,
        }
    }

    /// Waits so long from now on.
    pub(crate) fn be_patient(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Nothing can be done for this run, which is not to be said again and again.
    pub(crate) fn leave(&mut self, run: &RunDir) {
        self.hopeless.insert(run.path().to_owned());
    }

    /// The runs that have had no keeper for too long, oldest first. Looks at most every few seconds, and
    /// not while `me` has a run in hand.
    ///
    /// # Errors
    ///
    /// When the runs can't be listed.
    pub(crate) fn due(
        &mut self,
        store: &RunStore,
        state_dir: &Path,
        me: &WorkerId,
    ) -> Result<Vec<RunDir>, RunDirError> {
        let every = LOOK_EVERY.min(self.patience);
        if self.looked.is_some_and(|looked| looked.elapsed() < every) {
            return Ok(Vec::new());
        }
        let now = Instant::now();
        self.looked = Some(now);
        let mut runs = store.list()?;
        runs.retain(|run| {
            !self.hopeless.contains(run.path())
                && run.record().is_ok_and(|record| {
                    is_unfinished_here(&record) && may_adopt(&record.identity.worker, state_dir, me)
                })
                && is_unkept(run)
        });
        let orphans = runs.iter().map(|run| run.path().to_owned()).collect();
        let due = self.waiting.due(orphans, now - self.begun, self.patience);
        runs.retain(|run| due.iter().any(|path| path == run.path()));
        Ok(runs)
    }
}

/// A state folder may be shared with other hosts, whose processes can't be seen from here.
fn is_unfinished_here(record: &RunRecord) -> bool {
    !record.phase.is_final() && record.host == host_name()
}

/// An error means that nothing is known, and whoever adopts finds out safely.
fn is_unkept(run: &RunDir) -> bool {
    matches!(run.keep(), Ok(Some(_)))
}

/// While the daemon of that id runs, its runs are its own business.
fn may_adopt(worker: &WorkerId, state_dir: &Path, me: &WorkerId) -> bool {
    let path = worker_lock(state_dir, worker);
    // An `execute` has no such lock, and asking must not make one.
    worker == me || !path.exists() || !matches!(FileLock::try_acquire(&path), Ok(None))
}

/// The file whose lock says that the daemon of this worker id runs.
pub(crate) fn worker_lock(state_dir: &Path, worker: &WorkerId) -> PathBuf {
    let name = format!("{}.lock", safe_file_name(worker.as_str()));
    state_dir.join("workers").join(name)
}
