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

use clearml_api_client::{Client, StatusChange};
use clearml_support::process::{ProcessIdentity, descendants, session_members};
use clearml_task_model::TaskId;
use clearml_task_runner::{Phase, RunDir, RunDirError, RunRecord, spawn_runner};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep};

/// A runner that has lived this long has done something; its death starts a new count.
const LIVED: Duration = Duration::from_secs(10);
/// So many runners in a row that got nowhere: the next one would not either.
const MOST_DEATHS: u32 = 10;
/// How often to ask for the end of a runner whose process can't be watched.
const POLL: Duration = Duration::from_millis(200);
/// A lock that a dead runner's children might still hold for an instant.
const SETTLE: Duration = Duration::from_millis(20);

/// How the watch over a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WatchEnd {
    /// Nothing is left to do; the exit code of the user's program, if it ran.
    Done(Option<i32>),
    /// The runner was told to end and has left the rest for later.
    LeftForLater,
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
}

/// One run in hand.
#[derive(Debug)]
pub(crate) struct Watch {
    run: RunDir,
    program: PathBuf,
    deaths: u32,
}

impl Watch {
    pub(crate) fn new(run: RunDir, program: PathBuf) -> Self {
        Self {
            run,
            program,
            deaths: 0,
        }
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
            if before.phase.is_final() {
                return Ok(self.done(&before));
            }
            let started = Instant::now();
            self.one_runner().await?;
            let after = self.run.record()?;
            if after.phase.is_final() {
                return Ok(self.done(&after));
            }
            if stopping() {
                return Ok(WatchEnd::LeftForLater);
            }
            if after.phase == before.phase && started.elapsed() < LIVED {
                self.deaths += 1;
            } else {
                self.deaths = 0;
            }
            if self.deaths >= MOST_DEATHS {
                self.give_up(client, &after).await?;
                return Ok(WatchEnd::GivenUp);
            }
            let pause = Duration::from_millis(100) * self.deaths.pow(2);
            tracing::warn!(
                "the runner of task {} ended early (phase {:?}); starting another one in {pause:?}, see {}",
                after.identity.task,
                after.phase,
                self.run.path().join("runner.log").display()
            );
            sleep(pause).await;
        }
    }

    fn done(&self, record: &RunRecord) -> WatchEnd {
        if let Err(e) = self.run.clean() {
            tracing::warn!("{e}");
        }
        WatchEnd::Done(record.outcome.as_ref().and_then(|outcome| outcome.exit_code))
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

    /// Nobody can look after this run: ends what may still run of it, and says so to the server.
    async fn give_up(&self, client: &Client, record: &RunRecord) -> Result<(), WatchError> {
        let reason = format!(
            "infrastructure: the process that looks after the task ended {MOST_DEATHS} times; see runner.log in {}",
            self.run.path().display()
        );
        tracing::error!("task {}: {reason}", record.identity.task);
        if let Ok(Some(claim)) = self.run.claim() {
            end_shim(&claim.shim).await;
        }
        let change = StatusChange::reason(&reason);
        match client.tasks_failed(&record.identity.task, &change).await {
            Ok(_) => {}
            Err(e) if e.is_transient() => {
                // Kept for the next daemon, which begins with it.
                tracing::warn!(
                    "task {} could not be reported as failed: {e}",
                    record.identity.task
                );
                return Ok(());
            }
            Err(e) => tracing::warn!(
                "the server refuses the status of task {}: {e}",
                record.identity.task
            ),
        }
        self.run.set_phase(if record.phase < Phase::Launching {
            Phase::Abandoned
        } else {
            Phase::Done
        })?;
        Ok(())
    }
}

/// Tells the present runner, if there is one, to stop the task. Telling it twice does no harm.
pub(crate) fn tell_to_stop(run: &RunDir) {
    let runner = run.record().ok().and_then(|record| record.runner);
    if let Some(Err(e)) = runner.map(|runner| runner.signal(Signal::TERM)) {
        tracing::warn!("telling the runner of {} to stop: {e}", run.path().display());
    }
}

/// Asks the shim to end the task, and ends it by force if it can't.
async fn end_shim(shim: &ProcessIdentity) {
    // Errors mean that it is gone or not ours.
    let _gone = shim.signal(Signal::TERM);
    let deadline = Instant::now() + Duration::from_secs(20);
    while shim.is_alive() && Instant::now() < deadline {
        sleep(POLL).await;
    }
    if shim.is_alive() {
        let below = descendants(shim.pid);
        let _gone = shim.signal(Signal::KILL);
        for pid in below.into_iter().chain(session_members(shim.pid)) {
            if let Ok(Some(process)) = ProcessIdentity::of(pid) {
                let _gone = process.signal(Signal::KILL);
            }
        }
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
