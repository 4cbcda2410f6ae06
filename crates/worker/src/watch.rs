//! Looking after one run: a runner for it at all times, until it is done.
//!
//! A runner that dies is replaced at once. What it was doing goes on from the run directory. Only a
//! runner that can't live at all, because it dies again and again without getting anywhere, is given up;
//! the task then fails with a reason that says so.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use clearml_api_client::{ApiError, Client};
use clearml_support::process::ProcessIdentity;
use clearml_task_model::TaskId;
use clearml_task_runner::decisions::{Facts, decide};
use clearml_task_runner::record::{Failure, Outcome};
use clearml_task_runner::{
    Phase, RunDir, RunDirError, RunRecord, kill_leftovers, observe, spawn_runner, tell,
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout};

use crate::decide::{AfterRunner, Deaths, MOST_DEATHS, done, given_up};

/// How often to ask for the end of a runner whose process can't be watched.
const POLL: Duration = Duration::from_millis(200);
/// A lock that a dead runner's children might still hold for an instant.
const SETTLE: Duration = Duration::from_millis(20);

/// How long the server may be away while a run is given up.
pub(crate) const REPORT_PATIENCE: Duration = Duration::from_secs(60);

/// How the watch over a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WatchEnd {
    /// Nothing is left to do; the exit code of the user's program, if it ran.
    Done(Option<i32>),
    /// The runner was told to end and has left the rest for later.
    LeftForLater,
    /// The runner was told to end, and nobody waits for that any longer.
    Ending,
    /// No runner could live; the task was reported as failed.
    GivenUp,
}

/// A run could not be looked after.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchError {
    #[error(transparent)]
    Run(#[from] RunDirError),
    #[error("starting a runner for {}: {source}", path.display())]
    Spawn { path: PathBuf, source: io::Error },
    #[error("logging in as the owner of the task: {0}")]
    Owner(#[source] Box<ApiError>),
    #[error("the daemon has to end before it could log in as the owner of the task")]
    Ending,
}

/// One run in hand.
#[derive(Debug)]
pub(crate) struct Watch {
    run: RunDir,
    program: PathBuf,
    deaths: Deaths,
    requeue_limit: u32,
}

impl Watch {
    pub(crate) fn new(run: RunDir, program: PathBuf) -> Self {
        Self {
            run,
            program,
            deaths: Deaths::default(),
            requeue_limit: 0,
        }
    }

    /// How often a task is put back whose run has died (`agent.requeue_on_infrastructure_failure`).
    pub(crate) fn requeue_limit(mut self, limit: u64) -> Self {
        self.requeue_limit = u32::try_from(limit).unwrap_or(u32::MAX);
        self
    }

    pub(crate) fn run(&self) -> &RunDir {
        &self.run
    }

    pub(crate) fn task(&self) -> Result<TaskId, RunDirError> {
        Ok(self.run.record()?.identity.task)
    }

    /// Keeps a runner on the run until the run is done. To be dropped only when the run shall go on
    /// without us. `stopping` says that runners have been told to end, so none is to be replaced.
    pub(crate) async fn until_done(
        &mut self,
        client: &Client,
        stopping: impl Fn() -> bool,
    ) -> Result<WatchEnd, WatchError> {
        loop {
            let before = self.run.record()?;
            if let Some(AfterRunner::Done(code)) = done(&before) {
                return Ok(self.done(code));
            }
            let started = Instant::now();
            let after = match self.one_runner().await {
                Ok(()) => self.run.record().map_err(WatchError::from),
                Err(e) => Err(e),
            };
            let after = match after {
                Err(e) if self.run.is_gone() => {
                    self.folder_removed(client, &before, &e).await;
                    return Ok(WatchEnd::GivenUp);
                }
                after => after?,
            };
            let lived = started.elapsed();
            let pause = match self.deaths.runner_ended(before.phase, &after, lived, stopping()) {
                AfterRunner::Done(code) => return Ok(self.done(code)),
                AfterRunner::LeaveForLater => return Ok(WatchEnd::LeftForLater),
                AfterRunner::GiveUp => {
                    self.give_up(client, &after).await?;
                    return Ok(WatchEnd::GivenUp);
                }
                AfterRunner::Another(pause) => pause,
            };
            tracing::warn!(
                "the runner of task {} ended early (phase {:?}); starting another one in {pause:?}, see {}",
                after.identity.task,
                after.phase,
                self.run.path().join("runner.log").display()
            );
            sleep(pause).await;
        }
    }

    fn done(&self, exit_code: Option<i32>) -> WatchEnd {
        if let Err(e) = self.run.clean() {
            tracing::warn!("{e}");
        }
        WatchEnd::Done(exit_code)
    }

    /// Waits for the end of the present runner, or starts one and waits for that.
    async fn one_runner(&self) -> Result<(), WatchError> {
        if self.run.runner_alive() {
            return self.wait_for_stranger().await;
        }
        let mut child = spawn_runner(&self.program, &self.run).map_err(|source| WatchError::Spawn {
            path: self.run.path().to_owned(),
            source,
        })?;
        wait_for_child(&mut child).await;
        sleep(SETTLE).await;
        Ok(())
    }

    /// Waits for a runner that an earlier daemon has started.
    async fn wait_for_stranger(&self) -> Result<(), WatchError> {
        while self.run.runner_alive() {
            match self.run.record()?.runner.filter(ProcessIdentity::is_alive) {
                Some(runner) => {
                    if let Some(end) = process_end(runner.pid) {
                        // The pid may have been given away before it was opened.
                        if runner.is_alive() {
                            drop(end.readable().await);
                        }
                    }
                    sleep(SETTLE).await;
                }
                None => sleep(POLL).await,
            }
        }
        Ok(())
    }

    /// Somebody has removed the folder of the run. Its runner says so to the server, unless it has died as well; the
    /// task does not go back to its queue, because its program may have run.
    async fn folder_removed(&self, client: &Client, before: &RunRecord, error: &WatchError) {
        let id = &before.identity.task;
        tracing::error!("task {id}: {error}");
        let telling = async {
            let failure = Failure::folder_removed(self.run.path());
            let task = observe(client, id).await;
            let identity = (&before.identity, before.run_id.as_str());
            let outcome = decide(&Facts::of_run(
                identity,
                (Some(&failure), None),
                None,
                task.as_ref(),
                (0, 0),
            ));
            tell(client, &before.identity, &before.run_id, &outcome).await;
        };
        if timeout(REPORT_PATIENCE, Box::pin(telling)).await.is_err() {
            tracing::error!("the end of task {id} could not be reported: the server does not answer");
        }
    }

    /// Nobody can look after this run: ends what may still run of it, and says so to the server.
    async fn give_up(&self, client: &Client, record: &RunRecord) -> Result<(), WatchError> {
        let reason = format!(
            "the process that looks after the task ended {MOST_DEATHS} times; see runner.log in {}",
            self.run.path().display()
        );
        let id = &record.identity.task;
        tracing::error!("task {id}: {reason}");
        let known = timeout(REPORT_PATIENCE, self.last_outcome(client, record, reason));
        let Ok(outcome) = known.await else {
            // Kept for the next daemon, which begins with it.
            tracing::warn!("task {id} could not be reported as failed: the server does not answer");
            return Ok(());
        };
        let outcome = outcome?;
        let told = tell(client, &record.identity, &record.run_id, &outcome);
        if timeout(REPORT_PATIENCE, Box::pin(told)).await.is_err() {
            tracing::warn!("the end of task {id} could not be reported yet: the server does not answer");
            return Ok(());
        }
        self.run.update(|record| {
            record.phase = if record.phase < Phase::Launching {
                Phase::Abandoned
            } else {
                Phase::Done
            };
        })?;
        Ok(())
    }

    /// How a run ends that no runner can bring to its end. Written down, because what has to be done for it may
    /// have to be done again by another daemon.
    async fn last_outcome(
        &self,
        client: &Client,
        record: &RunRecord,
        reason: String,
    ) -> Result<Outcome, WatchError> {
        if let Some(outcome) = &record.outcome {
            return Ok(outcome.clone());
        }
        let verdict = self.run.verdict()?;
        let shim_over = match self.run.claim()? {
            Some(claim) if verdict.is_none() => {
                end_shim(&claim.shim).await;
                match self.run.verdict()? {
                    // One that could end by itself has ended everything below it, and says so.
                    Some(verdict) if verdict.survivors == 0 => true,
                    _ => kill_leftovers(&self.run).await?,
                }
            }
            _ => false,
        };
        let failure = given_up(record, verdict.as_ref(), shim_over, reason);
        let task = observe(client, &record.identity.task).await;
        let facts = Facts::of_run(
            (&record.identity, &record.run_id),
            (failure.as_ref(), verdict.as_ref()),
            self.run.abort()?.map(|intent| intent.reason),
            task.as_ref(),
            (0, self.requeue_limit),
        );
        let outcome = decide(&facts);
        self.run.update(|record| record.outcome = Some(outcome.clone()))?;
        Ok(outcome)
    }
}

/// Tells the present runner, if there is one, to stop the task. Telling it twice does no harm.
pub(crate) fn tell_to_stop(run: &RunDir) {
    let runner = run.record().ok().and_then(|record| record.runner);
    if let Some(Err(e)) = runner.map(|runner| runner.signal(Signal::TERM)) {
        tracing::warn!("telling the runner of {} to stop: {e}", run.path().display());
    }
}

/// Asks the shim to end the task, and kills it if it can't.
async fn end_shim(shim: &ProcessIdentity) {
    // Errors mean that it is gone or not ours.
    let _gone = shim.signal(Signal::TERM);
    let deadline = Instant::now() + Duration::from_secs(20);
    while shim.is_alive() && Instant::now() < deadline {
        sleep(POLL).await;
    }
    if shim.is_alive() {
        let _gone = shim.signal(Signal::KILL);
    }
}

async fn wait_for_child(child: &mut Child) {
    loop {
        match child.try_wait() {
            // An error means that somebody else has reaped it.
            Ok(Some(_)) | Err(_) => return,
            Ok(None) => {}
        }
        match process_end(child.id().cast_signed()) {
            // Readable means ended; the next look reaps it. Errors lead to polling.
            Some(end) => {
                if end.readable().await.is_err() {
                    sleep(POLL).await;
                }
            }
            None => sleep(POLL).await,
        }
    }
}

/// Something that becomes readable when the process has ended; `None` where the kernel can't do that.
fn process_end(pid: i32) -> Option<AsyncFd<OwnedFd>> {
    let handle = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::NONBLOCK).ok()?;
    #[expect(
        deprecated,
        reason = "its successor needs `unsafe`; an `OwnedFd` keeps the promise that one asks for"
    )]
    AsyncFd::new(handle).ok()
}
