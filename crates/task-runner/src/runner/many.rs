//! One runner process for many runs, as a daemon in services mode needs it: a thousand tasks that mostly
//! sleep must not cost a thousand runtimes, clients and configurations.
//!
//! A folder says which runs it looks after: each is a symbolic link to a run directory. Whoever wants a run
//! to be looked after makes the link; the runner removes it when there is nothing left to do for the run, or
//! nothing that it can do. So the folder is all that a daemon and its runner share, and either may be
//! replaced while the other one lives. What happens to a single run is what happens in a runner of its own:
//! it has its own lock, its own phases and its own shim.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clearml_api_client::Client;
use clearml_support::lock::FileLock;
use clearml_support::process::detach_session;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{Id, JoinError, JoinSet, LocalSet};
use tokio::time::{Instant, interval};

use super::board::Board;
use super::{RunnerError, RunnerExit, RunnerOptions, run_with, system};
use crate::record::RunInputs;
use crate::run_dir::RunDir;
use crate::settings::RunSettings;
use crate::shipper;
use crate::told::ToldToEnd;

/// How often to look for new runs.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A runner without runs ends after this time.
const IDLE: Duration = Duration::from_secs(10);
/// Whoever asks whether the runner lives holds its lock for an instant.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
/// Configurations that are kept although no run uses them at the moment.
const KEPT_CONFIGURATIONS: usize = 4;

/// The file whose lock says that a runner looks after the runs of a folder.
#[must_use]
pub fn lock_of_many(folder: &Path) -> PathBuf {
    folder.join(".lock")
}

/// What the runs of one process have in common.
#[derive(Debug)]
pub struct Shared {
    known: Mutex<Vec<(Text, Arc<Known>)>>,
    /// Environments are built by processors and disks, of which there are few.
    turns: Arc<Semaphore>,
    /// So that the first container need not wait until the engine has made the last one.
    engine_turns: Arc<Semaphore>,
    /// The limit of open files that tasks get back.
    open_files: Option<u64>,
}

/// The files that a run's configuration comes from, as they stand.
type Text = (Vec<u8>, Vec<u8>);

/// A configuration and the session that belongs to it.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) inputs: Arc<RunInputs>,
    pub(super) settings: Arc<RunSettings>,
    pub(super) client: Client,
    pub(super) board: Arc<Board>,
}

impl Known {
    pub(super) fn load(run: &RunDir) -> Result<Self, RunnerError> {
        let inputs = run.inputs()?;
        let settings = RunSettings::load(&run.config_path(), &inputs)?;
        let client = Client::new(settings.client.clone())?;
        let board = Board::new(client.clone(), settings.status_poll);
        Ok(Self {
            board,
            inputs: Arc::new(inputs),
            settings: Arc::new(settings),
            client,
        })
    }
}

impl Shared {
    fn new(open_files: Option<u64>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            known: Mutex::default(),
            turns: Arc::new(Semaphore::new(processors.max(2))),
            engine_turns: Arc::new(Semaphore::new(processors.max(2))),
            open_files,
        }
    }

    /// The configuration of a run. Runs with the same one share it, and the session with the server.
    pub(super) fn known(&self, run: &RunDir) -> Result<Arc<Known>, RunnerError> {
        // The session of an owner is for one task alone.
        if run.owner()?.is_some() {
            return Ok(Arc::new(Known::load(run)?));
        }
        let text = run.configuration_text()?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, found)) = known.iter().find(|(other, _)| *other == text) {
            return Ok(Arc::clone(found));
        }
        let unused = known
            .iter()
            .filter(|(_, known)| Arc::strong_count(known) == 1)
            .count();
        if unused > KEPT_CONFIGURATIONS {
            known.retain(|(_, known)| Arc::strong_count(known) > 1);
        }
        let loaded = Arc::new(Known::load(run)?);
        known.push((text, Arc::clone(&loaded)));
        Ok(loaded)
    }

    /// Waits until an environment may be built. `None` never comes while the process lives.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.turns).acquire_owned().await.ok()
    }

    /// Waits until a container may be made, as [`Shared::turn`].
    pub(super) async fn engine_turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.engine_turns).acquire_owned().await.ok()
    }

    pub(super) fn open_files(&self) -> Option<u64> {
        self.open_files
    }
}

/// `clearml-agent runner --services FOLDER`: looks after all runs of a folder until it has been empty for a
/// while, or until it is told to end; then it stops them as a runner of one run does.
///
/// # Errors
///
/// When the folder can't be used. What goes wrong with a run is logged, and its link removed.
pub async fn run_many(folder: &Path, options: RunnerOptions) -> Result<RunnerExit, RunnerError> {
    LocalSet::new().run_until(look_after(folder, options)).await
}

async fn look_after(folder: &Path, options: RunnerOptions) -> Result<RunnerExit, RunnerError> {
    if options.detach
        && let Err(e) = detach_session()
    {
        tracing::debug!("staying in the session of the caller: {e}");
    }
    let mut told_to_end = ToldToEnd::listen(false).map_err(system("listening for signals"))?;
    let _lock = match FileLock::acquire(&lock_of_many(folder), LOCK_PATIENCE) {
        Ok(lock) => lock,
        Err(e) if e.kind() == io::ErrorKind::TimedOut => return Ok(RunnerExit::AlreadyRunning),
        Err(e) => return Err(system("locking the folder of the runs")(e)),
    };
    if let Err(e) = shipper::watch::watch_together() {
        tracing::debug!("each console is watched for itself: {e}");
    }
    let mut many = Many {
        folder: folder.to_owned(),
        options: RunnerOptions {
            detach: false,
            shared: Some(Arc::new(Shared::new(raise_open_files()))),
            ..options
        },
        runs: JoinSet::new(),
        names: HashMap::new(),
    };
    let mut look = interval(LOOK_EVERY);
    let mut told = false;
    let mut busy = Instant::now();
    loop {
        tokio::select! {
            _ = look.tick() => if !told { many.begin_new().map_err(system("listing the runs"))? },
            Some(ended) = many.runs.join_next_with_id() => many.ended(ended),
            _ = told_to_end.heard() => told = true,
        }
        if !many.runs.is_empty() {
            busy = Instant::now();
        } else if told {
            return Ok(RunnerExit::Interrupted { reported: true });
        } else if busy.elapsed() > IDLE {
            return Ok(RunnerExit::Finished { exit_code: None });
        }
    }
}

struct Many {
    folder: PathBuf,
    options: RunnerOptions,
    runs: JoinSet<Result<RunnerExit, RunnerError>>,
    names: HashMap<OsString, Id>,
}

impl Many {
    fn begin_new(&mut self) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if self.names.contains_key(&name) || !entry.file_type()?.is_symlink() {
                continue;
            }
            let run = fs::read_link(entry.path())?;
            let options = self.options.clone();
            let task = self
                .runs
                .spawn_local(async move { run_with(&run, options).await });
            self.names.insert(name, task.id());
        }
        Ok(())
    }

    fn ended(&mut self, ended: Result<(Id, Result<RunnerExit, RunnerError>), JoinError>) {
        let (id, stays) = match ended {
            // The next runner reports the rest.
            Ok((id, Ok(RunnerExit::Interrupted { reported: false }))) => (id, true),
            Ok((id, Ok(_))) => (id, false),
            Ok((id, Err(e))) => {
                tracing::error!("{e}");
                (id, false)
            }
            Err(e) => {
                tracing::error!("looking after a run has failed: {e}");
                (e.id(), false)
            }
        };
        let Some(name) = self
            .names
            .iter()
            .find(|(_, task)| **task == id)
            .map(|(name, _)| name.clone())
        else {
            return;
        };
        self.names.remove(&name);
        if !stays && let Err(e) = fs::remove_file(self.folder.join(&name)) {
            tracing::warn!("removing {}: {e}", self.folder.join(&name).display());
        }
    }
}

/// Many runs have many open files. Returns the limit as it was, which programs of users may rely on: some
/// can't count further than it usually is.
pub fn raise_open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return None;
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.current,
        Err(e) => {
            tracing::warn!("raising the limit of open files: {e}");
            None
        }
    }
}

/// Gives a program the limit back that [`raise_open_files`] has raised.
pub(crate) fn restore_open_files(before: u64) -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let restored = Rlimit {
        current: Some(before),
        maximum: limit.maximum,
    };
    Ok(setrlimit(Resource::Nofile, restored)?)
}

#[cfg(test)]
mod tests {
    use clearml_task_model::{TaskId, WorkerId};
    use serde_json::json;

    use super::*;
    use crate::record::RunOptions;
    use crate::run_dir::{NewRun, RunStore};

    #[test]
    fn runs_with_the_same_configuration_share_it() {
        let state = tempfile::tempdir().unwrap();
        let store = RunStore::open(state.path()).unwrap();
        let run = |port: u16| {
            let (run, _keeper) = store
                .create(NewRun {
                    task: TaskId::new("t"),
                    queue: None,
                    worker: WorkerId::new("w"),
                })
                .unwrap();
            let server = format!("http://127.0.0.1:{port}");
            let config =
                json!({"api": {"api_server": server, "credentials": {"access_key": "a", "secret_key": "b"}}});
            run.write_inputs(&config, &RunInputs::from_process(RunOptions::default()))
                .unwrap();
            run
        };
        let shared = Shared::new(None);
        let first = shared.known(&run(1)).unwrap();
        assert!(Arc::ptr_eq(&first, &shared.known(&run(1)).unwrap()));
        let other = shared.known(&run(2)).unwrap();
        assert!(!Arc::ptr_eq(&first, &other));
        assert_eq!(other.settings.client.api_server, "http://127.0.0.1:2");
    }
}
