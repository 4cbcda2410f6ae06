//! The journal of the pop protocol: run directories.
//!
//! An intent is a run in phase `popping` plus the file `pop.json`, which remembers what the task looked
//! like before. A run without that file was never followed by a pop: the file is written before
//! [`Journal::begin`] returns, and the pop is sent after that.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use clearml_intake::pop::{Before, Intent, Phase as PopPhase};
use clearml_intake::popper::Journal;
use clearml_support::fs::{JsonFileError, read_json, write_json_atomic};
use clearml_task_model::{QueueId, TaskId, WorkerId};
use clearml_task_runner::{Keeper, NewRun, Phase, RunDir, RunDirError, RunStore};
use serde::{Deserialize, Serialize};

const SCHEMA: u32 = 1;
const POP: &str = "pop.json";

/// The journal could not be written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// The run directory.
    #[error(transparent)]
    Run(#[from] RunDirError),
    /// The file of the intent.
    #[error(transparent)]
    File(#[from] JsonFileError),
}

#[derive(Debug, Serialize, Deserialize)]
struct PopFile {
    schema: u32,
    intent: Intent,
}

/// Run directories of one worker, as the memory of its pops.
#[derive(Debug, Clone)]
pub(crate) struct RunJournal {
    store: RunStore,
    runs: PathBuf,
    worker: WorkerId,
    /// The runs that this daemon looks after, by their folders.
    kept: Arc<Mutex<HashMap<PathBuf, Keeper>>>,
}

impl RunJournal {
    pub(crate) fn new(store: RunStore, runs: PathBuf, worker: WorkerId) -> Self {
        Self {
            store,
            runs,
            worker,
            kept: Arc::default(),
        }
    }

    fn kept<T>(&self, change: impl FnOnce(&mut HashMap<PathBuf, Keeper>) -> T) -> T {
        change(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes this daemon the one that looks after the run. `false` when another one does.
    pub(crate) fn keep(&self, run: &RunDir) -> Result<bool, RunDirError> {
        let keeper = run.keep()?;
        let is_ours = keeper.is_some();
        if let Some(keeper) = keeper {
            self.kept(|kept| kept.insert(run.path().to_owned(), keeper));
        }
        Ok(is_ours)
    }

    /// Leaves all runs to whoever wants to look after them. To be called when none is in hand.
    pub(crate) fn let_go(&self) {
        self.kept(HashMap::clear);
    }

    /// Leaves all runs but these to whoever wants to look after them.
    pub(crate) fn let_go_except(&self, in_hand: &HashSet<PathBuf>) {
        self.kept(|kept| kept.retain(|run, _| in_hand.contains(run)));
    }

    /// Leaves one run to whoever wants to look after it.
    pub(crate) fn let_go_of(&self, run: &RunDir) {
        self.kept(|kept| kept.remove(run.path()));
    }

    /// The run that an intent stands for.
    pub(crate) fn run(&self, intent: &Intent) -> Result<RunDir, RunDirError> {
        RunDir::open(&self.runs.join(&intent.run))
    }
}

/// The intent of a run that has not come further than the pop; `None` when no pop was sent for it.
///
/// # Errors
///
/// When the file is damaged.
pub(crate) fn intent_of(run: &RunDir) -> Result<Option<Intent>, JsonFileError> {
    match read_json::<PopFile>(&run.path().join(POP)) {
        Ok(file) => Ok(Some(file.intent)),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e),
    }
}

impl Journal for RunJournal {
    type Error = JournalError;

    fn begin(&self, task: &TaskId, queue: &QueueId, before: &Before) -> Result<Intent, JournalError> {
        let (run, keeper) = self.store.create(NewRun {
            task: task.clone(),
            queue: Some(queue.clone()),
            worker: self.worker.clone(),
        })?;
        let record = run.record()?;
        let intent = Intent {
            run: record.run_id,
            worker: self.worker.clone(),
            task: task.clone(),
            queue: queue.clone(),
            before: before.clone(),
        };
        let file = PopFile {
            schema: SCHEMA,
            intent,
        };
        if let Err(e) = write_json_atomic(&run.path().join(POP), &file, 0o600) {
            run.remove()?;
            return Err(e.into());
        }
        self.kept(|kept| kept.insert(run.path().to_owned(), keeper));
        Ok(file.intent)
    }

    fn advance(&self, intent: &Intent, phase: PopPhase) -> Result<(), JournalError> {
        let phase = match phase {
            PopPhase::Popping => Phase::Popping,
            PopPhase::Popped => Phase::Popped,
            PopPhase::Claimed => Phase::Claimed,
        };
        // A recovered run may be further already.
        self.run(intent)?
            .update(|record| record.phase = record.phase.max(phase))?;
        Ok(())
    }

    fn forget(&self, intent: &Intent) -> Result<(), JournalError> {
        match self.run(intent) {
            Ok(run) => Ok(run.remove()?),
            Err(RunDirError::File(e)) if e.is_not_found() => Ok(()),
            Err(RunDirError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(state: &std::path::Path) -> RunJournal {
        RunJournal::new(
            RunStore::open(state).unwrap(),
            state.join("runs"),
            WorkerId::new("w:0"),
        )
    }

    #[test]
    fn an_intent_is_found_again_as_it_was_written() {
        let state = tempfile::tempdir().unwrap();
        let journal = journal(state.path());
        let before = Before {
            owner_run: Some("earlier".into()),
            ..Before::default()
        };
        let intent = journal
            .begin(&TaskId::new("t"), &QueueId::new("q"), &before)
            .unwrap();
        journal.advance(&intent, PopPhase::Popped).unwrap();
        let runs = RunStore::open(state.path()).unwrap().list().unwrap();
        assert_eq!(runs.len(), 1);
        assert_eq!(intent_of(&runs[0]).unwrap().as_ref(), Some(&intent));
        assert_eq!(
            crate::decide::pop_phase(&runs[0].record().unwrap(), false, false),
            Some(PopPhase::Popped)
        );
        journal.forget(&intent).unwrap();
        journal.forget(&intent).unwrap();
        assert!(RunStore::open(state.path()).unwrap().list().unwrap().is_empty());
    }

    #[test]
    fn recovery_never_takes_a_run_back() {
        let state = tempfile::tempdir().unwrap();
        let journal = journal(state.path());
        let intent = journal
            .begin(&TaskId::new("t"), &QueueId::new("q"), &Before::default())
            .unwrap();
        journal.advance(&intent, PopPhase::Claimed).unwrap();
        journal.advance(&intent, PopPhase::Popped).unwrap();
        assert_eq!(
            journal.run(&intent).unwrap().record().unwrap().phase,
            Phase::Claimed
        );
    }
}
