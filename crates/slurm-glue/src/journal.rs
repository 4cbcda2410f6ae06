//! What the glue remembers across its own end: one file for each task that it has taken, replaced as a whole.
//!
//! A record begins before the task is popped, says `Submitting` before sbatch is called, and goes when the job
//! and its task are over.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use clearml_intake::pop::{Before, Intent, Phase as PopPhase};
use clearml_intake::popper;
use clearml_support::fs::{JsonFileError, create_private_dir, read_json, safe_file_name, write_json_atomic};
use clearml_support::id::hex32;
use clearml_task_model::{QueueId, TaskId, WorkerId};
use serde::{Deserialize, Serialize};

const SCHEMA: u32 = 1;

/// So many records are written at the same time, at most.
const WRITERS: usize = 16;

/// The journal could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A record.
    #[error(transparent)]
    File(#[from] JsonFileError),
    /// A record that an earlier glue has left.
    #[error(
        "{0}; move the file away: its job is found again by its comment, and its task by the mark of the glue"
    )]
    Unreadable(String),
    /// The folder.
    #[error("journal {}: {source}; check that the folder can be written, or choose another with --state-dir", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A record that was there is not any more.
    #[error("the journal has no record of run {0}")]
    Missing(String),
}

/// How far a task has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It is about to be popped.
    Popping,
    /// It was popped.
    Popped,
    /// It is ours and parked; no job was asked for.
    Claimed,
    /// A job was asked for. The answer is not here: it may exist.
    Submitting,
    /// The job exists.
    Submitted(u64),
}

/// One task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the format.
    pub schema: u32,
    /// The pop.
    pub intent: Intent,
    /// How far it has come.
    pub phase: Phase,
    /// Tells this submission from others.
    #[serde(default)]
    pub nonce: String,
    /// Whether the job's comment carries the nonce; a template may set a comment of its own.
    #[serde(default)]
    pub marked: bool,
    /// When the submission began, Unix seconds.
    #[serde(default)]
    pub since: i64,
    /// The Linux user of the job, if it is not the glue's.
    #[serde(default)]
    pub user: Option<String>,
    /// The partition that the job was submitted to, if it is known.
    #[serde(default)]
    pub partition: Option<String>,
    /// Where the job's own output goes, as the template says it.
    #[serde(default)]
    pub output: Option<String>,
    /// The template, by the digest of its text.
    #[serde(default)]
    pub template: String,
    /// The job has been seen running.
    #[serde(default)]
    pub was_active: bool,
    /// We have cancelled the job.
    #[serde(default)]
    pub cancelled: bool,
    /// Somebody wanted the task to stop.
    #[serde(default)]
    pub stop_wanted: bool,
    /// How often Slurm has put the job back.
    #[serde(default)]
    pub restarts: u32,
    /// Attempts that were refused for an unknown reason.
    #[serde(default)]
    pub attempts: u32,
}

impl Record {
    /// The task.
    #[must_use]
    pub fn task(&self) -> &TaskId {
        &self.intent.task
    }

    /// The job, if it is known.
    #[must_use]
    pub fn job(&self) -> Option<u64> {
        match self.phase {
            Phase::Submitted(job) => Some(job),
            _ => None,
        }
    }
}

/// The records of one glue.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    worker: WorkerId,
    /// Shared with whoever works on one: copies of ten thousand would weigh.
    records: Mutex<HashMap<String, Arc<Record>>>,
    /// Held while a record is written. Others are written at the same time, and all can be read meanwhile.
    writing: [Mutex<()>; WRITERS],
}

impl Journal {
    /// Opens a journal, and reads what an earlier glue has left.
    ///
    /// # Errors
    ///
    /// When the folder or a record can't be read.
    pub fn open(state: &Path, worker: &WorkerId) -> Result<Self, JournalError> {
        let folder = state.join("tasks");
        let failed = |source| JournalError::Folder {
            path: folder.clone(),
            source,
        };
        create_private_dir(&folder).map_err(failed)?;
        let mut records = HashMap::new();
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let record = read_json(&path);
                let record: Record = record.map_err(|error| JournalError::Unreadable(error.to_string()))?;
                records.insert(record.intent.run.clone(), Arc::new(record));
            }
        }
        Ok(Self {
            folder,
            worker: worker.clone(),
            records: Mutex::new(records),
            writing: Default::default(),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Record>>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_lock(&self, run: &str) -> std::sync::MutexGuard<'_, ()> {
        let place = run.bytes().map(usize::from).sum::<usize>() % WRITERS;
        self.writing[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, run: &str) -> PathBuf {
        self.folder.join(format!("{}.json", safe_file_name(run)))
    }

    /// All records, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Record>> {
        self.lock().values().cloned().collect()
    }

    /// Whether nothing is tracked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Looks at all records without copying them.
    pub fn for_each(&self, mut look: impl FnMut(&Record)) {
        self.lock().values().for_each(|record| look(record));
    }

    /// The record of a task.
    #[must_use]
    pub fn of_task(&self, task: &TaskId) -> Option<Arc<Record>> {
        self.lock().values().find(|record| record.task() == task).cloned()
    }

    /// One record.
    #[must_use]
    pub fn get(&self, run: &str) -> Option<Arc<Record>> {
        self.lock().get(run).cloned()
    }

    /// Changes a record, on the disk first.
    ///
    /// # Errors
    ///
    /// When there is none, or it can't be written.
    pub fn update(&self, run: &str, change: impl FnOnce(&mut Record)) -> Result<Arc<Record>, JournalError> {
        let _turn = self.write_lock(run);
        let old = self
            .get(run)
            .ok_or_else(|| JournalError::Missing(run.to_owned()))?;
        let mut record = Record::clone(&old);
        change(&mut record);
        write_json_atomic(&self.path(run), &record, 0o600)?;
        let record = Arc::new(record);
        self.lock().insert(run.to_owned(), Arc::clone(&record));
        Ok(record)
    }

    /// Takes up a job that no record speaks of.
    ///
    /// # Errors
    ///
    /// When it can't be written.
    pub fn adopt(
        &self,
        task: &TaskId,
        queue: &QueueId,
        job: u64,
        nonce: &str,
        since: i64,
    ) -> Result<Arc<Record>, JournalError> {
        let intent = self.intent(task, queue, &Before::default());
        let mut record = self.record(intent);
        record.phase = Phase::Submitted(job);
        nonce.clone_into(&mut record.nonce);
        record.marked = true;
        record.since = since;
        self.insert(record)
    }

    /// Forgets a record.
    ///
    /// # Errors
    ///
    /// When its file can't be removed.
    pub fn remove(&self, run: &str) -> Result<(), JournalError> {
        let _turn = self.write_lock(run);
        match std::fs::remove_file(self.path(run)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(JournalError::Folder {
                    path: self.folder.clone(),
                    source: e,
                });
            }
            _ => {}
        }
        self.lock().remove(run);
        Ok(())
    }

    fn intent(&self, task: &TaskId, queue: &QueueId, before: &Before) -> Intent {
        Intent {
            run: hex32(),
            worker: self.worker.clone(),
            task: task.clone(),
            queue: queue.clone(),
            before: before.clone(),
        }
    }

    fn record(&self, intent: Intent) -> Record {
        Record {
            schema: SCHEMA,
            intent,
            phase: Phase::Popping,
            nonce: String::new(),
            marked: false,
            since: 0,
            user: None,
            partition: None,
            output: None,
            template: String::new(),
            was_active: false,
            cancelled: false,
            stop_wanted: false,
            restarts: 0,
            attempts: 0,
        }
    }

    fn insert(&self, record: Record) -> Result<Arc<Record>, JournalError> {
        let run = record.intent.run.clone();
        let _turn = self.write_lock(&run);
        write_json_atomic(&self.path(&run), &record, 0o600)?;
        let record = Arc::new(record);
        self.lock().insert(run, Arc::clone(&record));
        Ok(record)
    }
}

/// The journal as the pop protocol sees it.
#[derive(Debug, Clone)]
pub(crate) struct Shared(pub(crate) Arc<Journal>);

impl popper::Journal for Shared {
    type Error = JournalError;

    fn begin(&self, task: &TaskId, queue: &QueueId, before: &Before) -> Result<Intent, JournalError> {
        let record = self.0.record(self.0.intent(task, queue, before));
        Ok(self.0.insert(record)?.intent.clone())
    }

    fn advance(&self, intent: &Intent, phase: PopPhase) -> Result<(), JournalError> {
        self.0.update(&intent.run, |record| {
            let next = match phase {
                PopPhase::Popping => Phase::Popping,
                PopPhase::Popped => Phase::Popped,
                PopPhase::Claimed => Phase::Claimed,
            };
            // What was submitted is further than any of these.
            if !matches!(record.phase, Phase::Submitting | Phase::Submitted(_)) {
                record.phase = next;
            }
        })?;
        Ok(())
    }

    fn forget(&self, intent: &Intent) -> Result<(), JournalError> {
        self.0.remove(&intent.run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clearml_intake::popper::Journal as _;

    #[test]
    fn a_record_is_found_again_as_it_was_left() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Arc::new(Journal::open(folder.path(), &WorkerId::new("h:slurm")).unwrap());
        let journal = Shared(open());
        let intent = journal
            .begin(&TaskId::new("t"), &QueueId::new("q"), &Before::default())
            .unwrap();
        journal.advance(&intent, PopPhase::Claimed).unwrap();
        journal
            .0
            .update(&intent.run, |record| record.phase = Phase::Submitted(7))
            .unwrap();
        journal.advance(&intent, PopPhase::Popped).unwrap();
        let again = open();
        assert_eq!(again.all().len(), 1);
        assert_eq!(
            again.get(&intent.run).unwrap().job(),
            Some(7),
            "it never goes back"
        );
        again.remove(&intent.run).unwrap();
        again.remove(&intent.run).unwrap();
        assert!(open().all().is_empty());
        assert!(again.update(&intent.run, |_| {}).is_err());
    }
}
