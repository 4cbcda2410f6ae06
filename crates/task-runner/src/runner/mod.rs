//! The runner: takes one run from "claimed" to "done".
//!
//! It is a loop over the phases in the run directory. Each step looks only at what is on disk and at the
//! server, does its part, and writes the next phase; so a runner that takes over from a dead one needs no
//! other knowledge. Beside that loop, and independent of it, the console is shipped, the status is
//! watched, and signals are heard: a slow or absent server delays none of the others.

pub(crate) mod abort;
mod board;
pub(crate) mod build_host;
pub(crate) mod callback;
pub(crate) mod contained;
pub(crate) mod decide;
pub(crate) mod describe;
pub(crate) mod environment;
mod launch;
pub(crate) mod leftovers;
pub mod many;
pub(crate) mod other_user;
pub(crate) mod outcome;
mod owner;
pub(crate) mod report;
pub(crate) mod setup;
mod space;
pub(crate) mod start;
mod supervise;
pub(crate) mod tell;

use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clearml_api_client::{ApiError, Client};
use clearml_support::lock::FileLock;
use clearml_support::process::{ProcessIdentity, detach_session};
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) use environment::RUN_ID;

use crate::console::AgentConsole;
use crate::console::segment::Limits;
use crate::phase::Phase;
use crate::record::{AbortReason, Failure, Identity, Mark, RunInputs, service_worker};
use crate::run_dir::{RunDir, RunDirError};
use crate::settings::{RunSettings, SettingsError};
use crate::shipper::{Closed, ShipError, ShipOptions, Shipper};
use crate::slurm::SlurmJob;
use crate::told::ToldToEnd;
use abort::{StatusWatch, announce, announced};
use decide::{Prepared, ShipPatience, Step, next_step};
use many::{Known, Shared};
use setup::with_causes;

/// How long a runner that was told to end tries to deliver the rest of the console and the status. What
/// it can't deliver in that time is delivered by the next runner.
const STOP_PATIENCE: Duration = Duration::from_secs(8);
/// How long a run that was aborted before its program started tries to write that down.
const ABORT_PATIENCE: Duration = Duration::from_secs(2);
/// Space for the agent's own lines.
const AGENT_CONSOLE: Limits = Limits {
    segment_bytes: 8 << 20,
    max_bytes: 64 << 20,
};

/// A run could not be taken further for a reason of our own.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The run directory.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// The configuration that belongs to the run.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The console on disk.
    #[error(transparent)]
    Ship(#[from] ShipError),
    /// The client can't be made.
    #[error(transparent)]
    Client(#[from] ApiError),
    /// The task was aborted before its program was started, and the disk does not take that down.
    #[error("the task was aborted before its start, which can't be written down")]
    Aborted,
    /// The operating system refused something.
    #[error("{doing}: {source}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

fn system(doing: &'static str) -> impl FnOnce(std::io::Error) -> RunnerError {
    move |source| RunnerError::System { doing, source }
}

/// How a runner ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunnerExit {
    /// The run is done; the exit code of the user's program, if it ran: 0–255, or minus a signal.
    Finished {
        /// See there.
        exit_code: Option<i32>,
    },
    /// Told to end: the user's program is stopped. `reported` = the server knows everything; otherwise
    /// the rest waits on disk for the next runner.
    Interrupted {
        /// See there.
        reported: bool,
    },
    /// Another runner has this run in hand.
    AlreadyRunning,
    /// It is not the runner's turn.
    NotReady(Phase),
}

impl RunnerExit {
    /// The exit code for the process.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Finished { .. } => 0,
            Self::Interrupted { .. } => 254,
            Self::AlreadyRunning => 75,
            Self::NotReady(_) => 76,
        }
    }
}

/// What differs between a runner of the daemon and one inside `execute`.
#[derive(Debug, Clone)]
pub struct RunnerOptions {
    /// Leave the session of the caller.
    pub detach: bool,
    /// The program that is started as `PROGRAM shim --run DIR`.
    pub shim_program: PathBuf,
    /// Somebody else reads the console of the task from disk, and has come to this position. What lies
    /// behind it is kept; and when the run is done the folder is left to that reader to be cleaned.
    pub reader: Option<Arc<AtomicU64>>,
    /// What this runner has in common with others of its process.
    pub shared: Option<Arc<Shared>>,
}

impl Default for RunnerOptions {
    fn default() -> Self {
        Self {
            detach: true,
            shim_program: crate::spawn::this_program(),
            reader: None,
            shared: None,
        }
    }
}

/// `clearml-agent runner --run DIR`: takes a run from wherever it stands to its end.
///
/// # Errors
///
/// When the run directory or its configuration can't be used. Errors of the task or the server are not
/// errors of the runner.
pub async fn run(run_dir: PathBuf) -> Result<RunnerExit, RunnerError> {
    run_with(&run_dir, RunnerOptions::default()).await
}

/// As [`run`], with options.
///
/// # Errors
///
/// As [`run`].
pub async fn run_with(run_dir: &Path, options: RunnerOptions) -> Result<RunnerExit, RunnerError> {
    if options.detach {
        // Not possible for the leader of a process group, which a shell has started by hand.
        if let Err(e) = detach_session() {
            tracing::debug!("staying in the session of the caller: {e}");
        }
        // Orphans of a shim that was killed become ours, and can be found. Their ends are collected when we end.
        if let Err(e) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
            tracing::debug!("orphans go to others: {e}");
        }
    }
    // Before the record says who the runner is: from then on it may be told to end.
    let in_foreground = !options.detach && options.shared.is_none();
    let told = ToldToEnd::listen(in_foreground).map_err(system("listening for signals"))?;
    let run = RunDir::open(run_dir)?;
    let Some(lock) = run.lock()? else {
        return Ok(RunnerExit::AlreadyRunning);
    };
    let phase = run.record()?.phase;
    if !phase.belongs_to_runner() {
        return Ok(RunnerExit::NotReady(phase));
    }
    let runner = Runner::new(run, options, lock)?;
    Box::pin(runner.drive(told)).await
}

pub(crate) struct Runner {
    run: RunDir,
    run_id: String,
    identity: Identity,
    config: PathBuf,
    inputs: Arc<RunInputs>,
    settings: Arc<RunSettings>,
    client: Client,
    shared: Option<Arc<Shared>>,
    board: Option<Arc<board::Board>>,
    console: AgentConsole,
    /// Whether this process looks after this run alone, so that orphans that come to it are those of the run.
    adopts: bool,
    /// Held while a builder is at work.
    building: Arc<tokio::sync::Mutex<()>>,
    /// Held while the server is being told that the task has started.
    telling: Arc<tokio::sync::Mutex<()>>,
    /// Why the task has to end, once that is so.
    abort: watch::Sender<Option<AbortReason>>,
    /// Whether this runner was told to end.
    stop: watch::Sender<bool>,
    closed: watch::Sender<Closed>,
    /// Whether the console is completely shipped.
    shipped: watch::Sender<bool>,
    shim_program: PathBuf,
    shim: Mutex<Option<Child>>,
    reader: Option<Arc<AtomicU64>>,
    /// Who had the run in hand before.
    previous: Option<ProcessIdentity>,
    _lock: FileLock,
}

impl Runner {
    fn new(run: RunDir, options: RunnerOptions, lock: FileLock) -> Result<Self, RunnerError> {
        let known = match &options.shared {
            Some(shared) => shared.known(&run)?,
            None => Arc::new(Known::load(&run)?),
        };
        let (inputs, settings) = (Arc::clone(&known.inputs), Arc::clone(&known.settings));
        let me = ProcessIdentity::current().map_err(system("reading the process table"))?;
        let mut previous = None;
        let mut record = run.update(|record| previous = record.runner.replace(me.clone()))?;
        if inputs.options.service {
            record.identity.worker = service_worker(&record.identity.worker, &record.identity.task);
        }
        let console = AgentConsole::open(&run.console_dir(), AGENT_CONSOLE, settings.redactor.clone())
            .map_err(system("opening the console"))?;
        Ok(Self {
            client: known.client.clone(),
            board: options.shared.as_ref().map(|_| Arc::clone(&known.board)),
            shared: options.shared,
            run_id: record.run_id,
            identity: record.identity,
            config: run.config_path(),
            inputs,
            settings,
            console,
            adopts: options.detach,
            building: Arc::default(),
            telling: Arc::default(),
            abort: watch::Sender::new(None),
            stop: watch::Sender::new(false),
            closed: watch::Sender::default(),
            shipped: watch::Sender::new(false),
            shim_program: options.shim_program,
            shim: Mutex::new(None),
            reader: options.reader,
            // A second attempt in this process has left nothing behind that a dead runner could have.
            previous: previous.filter(|process| *process != me),
            run,
            _lock: lock,
        })
    }

    async fn drive(&self, mut told: ToldToEnd) -> Result<RunnerExit, RunnerError> {
        let watch = StatusWatch {
            client: self.client.clone(),
            identity: self.identity.clone(),
            run_id: self.run_id.clone(),
            console: self.console.clone(),
            poll: self.settings.status_poll,
            board: self.board.clone(),
            ping: self.settings.ping,
            slurm: SlurmJob::of(&self.inputs, &self.identity.task),
        };
        let hear = async {
            loop {
                told.heard().await;
                tracing::info!("told to end; task {} is being stopped", self.identity.task);
                announce(&self.abort, AbortReason::AgentStopped);
                self.stop.send_replace(true);
            }
        };
        tokio::select! {
            result = Box::pin(self.to_the_end()) => result,
            never = Box::pin(watch.run(&self.abort)) => never,
            never = self.keep_owner_token() => match never {},
            () = Box::pin(self.ship()) => unreachable!("shipping waits for the end of the run"),
            () = hear => unreachable!("signals are heard until the end of the run"),
        }
    }

    /// The steps, and the report of a run that can't be written down any more. Signals are heard meanwhile.
    async fn to_the_end(&self) -> Result<RunnerExit, RunnerError> {
        match self.steps().await {
            Err(e) if self.run.is_gone() => {
                let failure = Failure::folder_removed(self.run.path());
                Ok(self.report_without_records(&e, Some(failure)).await)
            }
            Err(e @ RunnerError::Aborted) => {
                self.ship_what_is_left().await;
                let exit = self.report_without_records(&e, None).await;
                self.forget(exit);
                Ok(exit)
            }
            // Nobody would start another runner.
            Err(e) if self.reader.is_some() => {
                let failure = Failure::infrastructure(with_causes(&e));
                let exit = self.report_without_records(&e, Some(failure)).await;
                self.forget(exit);
                Ok(exit)
            }
            result => result,
        }
    }

    /// The loop over the phases.
    async fn steps(&self) -> Result<RunnerExit, RunnerError> {
        loop {
            let step = next_step(self.run.record()?.phase);
            match step {
                Step::Prepare { again } => {
                    let prepared = self.prepare(again).await?;
                    if prepared == Prepared::Aborted {
                        self.note_abort();
                    }
                    let becomes = prepared.becomes();
                    self.stored_unless_aborted(|run| run.update(|record| becomes.apply(record)))
                        .await?
                }
                Step::Launch if self.is_contained() => self.launch_container().await?,
                Step::Launch => self.launch().await?,
                Step::Supervise if self.is_contained() => self.supervise_container().await?,
                Step::Supervise => self.supervise().await?,
                Step::Conclude | Step::Report => {
                    let waits = async {
                        if step == Step::Conclude {
                            self.conclude().await
                        } else {
                            self.report().await
                        }
                    };
                    match self.until_told_to_end(waits).await {
                        Some(result) => result?,
                        None => return Ok(RunnerExit::Interrupted { reported: false }),
                    }
                }
                Step::Finish => self.finish().await?,
                Step::Done => {
                    let exit_code = self.run.record()?.outcome.and_then(|outcome| outcome.exit_code);
                    return Ok(match *self.stop.borrow() {
                        true => RunnerExit::Interrupted { reported: true },
                        false => RunnerExit::Finished { exit_code },
                    });
                }
                Step::NotReady(phase) => return Ok(RunnerExit::NotReady(phase)),
            };
        }
    }

    /// Ships the console until it is complete, then waits for the end of the run.
    async fn ship(&self) {
        if self.settings.is_silent {
            self.shipped.send_replace(true);
            return std::future::pending().await;
        }
        let mut patience = ShipPatience::default();
        loop {
            let begin = Instant::now();
            let Err(e) = self.ship_once().await else { break };
            // However long one tries, it does not come back.
            if !self.run.console_dir().is_dir() {
                tracing::error!("{e}; the console was removed");
                break;
            }
            let lack_of_space = matches!(&e, RunnerError::Ship(e) if e.is_lack_of_space());
            let Some(pause) = patience.failed(begin.elapsed(), lack_of_space) else {
                tracing::error!("{e}; the rest of the console is not sent");
                break;
            };
            tracing::warn!("{e}; trying again in {pause:?}");
            tokio::time::sleep(pause).await;
        }
        self.shipped.send_replace(true);
        std::future::pending().await
    }

    /// Gives the console of a run that is about to be removed a moment to arrive.
    async fn ship_what_is_left(&self) {
        self.closed.send_replace(Closed {
            agent: true,
            task: true,
        });
        let mut shipped = self.shipped.subscribe();
        let _or_lost = tokio::time::timeout(ABORT_PATIENCE, shipped.wait_for(|shipped| *shipped)).await;
    }

    async fn ship_once(&self) -> Result<(), RunnerError> {
        let names = (self.identity.task.clone(), self.identity.worker.to_string());
        let (client, run) = (self.client.clone(), self.run.clone());
        let options = ShipOptions {
            reader: self.reader.clone(),
            ..self.settings.ship.clone()
        };
        let shipper = Shipper::new(client, run, names, options, self.closed.subscribe())?;
        Ok(Box::pin(shipper.run()).await?)
    }

    /// Runs a step to its end, or, once this runner was told to end, for [`STOP_PATIENCE`] at most.
    async fn until_told_to_end<T>(&self, step: impl Future<Output = T>) -> Option<T> {
        let mut stop = self.stop.subscribe();
        let patience = async {
            if stop.wait_for(|stop| *stop).await.is_ok() {
                tokio::time::sleep(STOP_PATIENCE).await;
            }
        };
        tokio::select! {
            result = Box::pin(step) => Some(result),
            () = patience => None,
        }
    }

    /// Changes the run directory, however long the disk needs to accept it.
    async fn stored<T>(&self, change: impl Fn(&RunDir) -> Result<T, RunDirError>) -> Result<T, RunnerError> {
        let mut pause = Duration::from_millis(500);
        loop {
            match change(&self.run) {
                Ok(value) => return Ok(value),
                Err(e @ (RunDirError::Phase { .. } | RunDirError::Newer { .. })) => return Err(e.into()),
                Err(e) if *self.stop.borrow() || self.run.is_gone() => return Err(e.into()),
                Err(e) => tracing::warn!("{e}; trying again in {pause:?}"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(10));
        }
    }

    /// As [`Self::stored`], for what comes before the program: an abort does not wait for the disk.
    async fn stored_unless_aborted<T>(
        &self,
        change: impl Fn(&RunDir) -> Result<T, RunDirError>,
    ) -> Result<T, RunnerError> {
        let mut abort = self.abort.subscribe();
        let given_up = async {
            announced(&mut abort).await;
            tokio::time::sleep(ABORT_PATIENCE).await;
        };
        let result = tokio::select! {
            result = self.stored(change) => result,
            () = given_up => Err(RunnerError::Aborted),
        };
        match result {
            // Waiting has ended because the runner was told to end, and the task with it.
            Err(_) if self.abort.borrow().is_some() && !self.run.is_gone() => Err(RunnerError::Aborted),
            result => result,
        }
    }

    /// Notes stations of the journey. They are for people, so a failure is no reason to stop.
    fn note(&self, marks: &[Mark]) {
        if let Err(e) = self.run.mark_all(marks) {
            tracing::warn!("{e}");
        }
    }
}

/// Makes a call until the server has answered it. The client repeats what failed on the way; here are
/// the cases in which a service may ask again although a program in a terminal would not: an internal
/// error of the server, and credentials that somebody may be about to correct.
async fn patiently<T>(
    doing: &str,
    mut call: impl AsyncFnMut() -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    let mut pause = Duration::from_millis(500);
    let mut told = false;
    loop {
        match call().await {
            Err(e) if e.is_transient() || e.code().is_some_and(|(code, _)| code == 401) => {
                // Once an outage: the log of a run must not grow with the time that the server is away.
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!("{doing}: {e}; trying again from time to time");
                }
                tokio::time::sleep(e.retry_after().unwrap_or(pause).min(Duration::from_secs(60))).await;
                pause = (pause * 2).min(Duration::from_secs(10));
            }
            result => return result,
        }
    }
}
