//! While user code runs: waiting for its end, or bringing it about.

use std::process::Child;
use std::time::Duration;

use clearml_support::process::{ProcessIdentity, boot_id};
use clearml_support::time::now_ms;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use tokio::net::unix::pipe::Receiver;

use super::abort::{announce, announced};
use super::decide::{Becomes, Gone, abort_to_note, leftovers_killed, shim_gone};
use super::leftovers::Leftovers;
use super::{Runner, RunnerError};
use crate::console::{Level, Tag};
use crate::record::{AbortReason, Failure, Mark, RunRecord};

/// What the shim needs at most, beyond the grace, to stop everything: see the times in the shim.
const SHIM_PATIENCE: Duration = Duration::from_secs(60);
/// How often to look where the kernel does not tell that a process has ended.
const ALIVE_POLL: Duration = Duration::from_millis(200);

impl Runner {
    /// Watches the shim until it is gone, and aborts the task when somebody wants that. A runner that
    /// takes over from a dead one starts here, and finds everything in the run directory.
    pub(super) async fn supervise(&self) -> Result<RunRecord, RunnerError> {
        let Some(claim) = self.run.claim()? else {
            let failure = Failure::infrastructure("the claim of the process supervisor has vanished");
            return self.becomes(&Becomes::Failed(failure)).await;
        };
        if let Some(intent) = self.run.abort()? {
            announce(&self.abort, intent.reason);
        }
        let mut gone = Box::pin(gone(claim.shim.clone()));
        let mut abort = self.abort.subscribe();
        tokio::select! {
            () = &mut gone => {}
            reason = announced(&mut abort) => self.abort_process(reason, &claim.shim, &mut gone).await,
        }
        self.reap();
        let verdict = self.run.verdict()?;
        if let Some(verdict) = &verdict {
            self.note(&[Mark {
                name: "run".into(),
                ms: verdict.started_ms,
                duration_ms: Some(verdict.finished_ms - verdict.started_ms),
            }]);
        }
        let becomes = match shim_gone(verdict.is_some(), &claim.shim.boot_id, boot_id().ok().as_deref()) {
            Gone::Known(becomes) => becomes,
            Gone::KillLeftovers => {
                let leftovers = Leftovers::of_shim(&claim, &self.run_id, self.adopts);
                leftovers_killed(leftovers.kill().await)
            }
        };
        self.becomes(&becomes).await
    }

    /// Brings the record to what a decision has made of it.
    pub(super) async fn becomes(&self, becomes: &Becomes) -> Result<RunRecord, RunnerError> {
        self.stored(|run| run.update(|record| becomes.apply(record)))
            .await
    }

    async fn abort_process(
        &self,
        reason: AbortReason,
        shim: &ProcessIdentity,
        gone: &mut (impl Future<Output = ()> + Unpin),
    ) {
        let decided_ms = self.note_abort();
        let mut stop = self.stop.subscribe();
        tokio::select! {
            gone = Box::pin(self.before_the_end(reason, decided_ms, &mut *gone)) => if gone { return },
            _ = stop.wait_for(|stop| *stop) => {}
        }
        if let Some((number, name)) = reason.label() {
            let what = if reason == AbortReason::Exception {
                "Task failed"
            } else {
                "User aborted"
            };
            let text = format!("{what}: stopping task ({number}) {name}");
            self.console.line_once(Tag::Abort, Level::Error, &text);
        }
        if let Err(e) = shim.signal(Signal::TERM) {
            tracing::warn!(
                "signalling the process supervisor of task {}: {e}",
                self.identity.task
            );
        }
        let patience = self.settings.abort_grace + SHIM_PATIENCE;
        if tokio::time::timeout(patience, &mut *gone).await.is_err() {
            tracing::error!(
                "the process supervisor of task {} does not end; killing it",
                self.identity.task
            );
            if let Err(e) = shim.signal(Signal::KILL) {
                tracing::error!("killing it: {e}");
            }
        }
    }

    /// Writes down that, when and why the task is aborted. Returns when that was decided first. A disk that
    /// refuses must not keep a task running that is filling it, so that is reported and no error.
    pub(super) fn note_abort(&self) -> i64 {
        let known = match self.run.abort() {
            Ok(known) => known,
            Err(e) => {
                tracing::warn!("{e}");
                None
            }
        };
        let now = now_ms();
        let intent = abort_to_note(known.as_ref(), *self.abort.borrow(), now);
        if let Some(Err(e)) = intent.as_ref().map(|intent| self.run.write_abort(intent)) {
            tracing::warn!("{e}");
        }
        known.or(intent).map_or(now, |intent| intent.decided_ms)
    }

    /// Sees to it that nothing of a run lives on about which nothing is written down any more.
    pub(super) async fn end_unrecorded(&self) {
        let shim = {
            let child = self.shim.lock();
            let child = child.unwrap_or_else(std::sync::PoisonError::into_inner);
            let pid = child.as_ref().map(Child::id);
            pid.and_then(|pid| ProcessIdentity::of(pid.cast_signed()).ok().flatten())
        };
        if let Some(shim) = shim {
            // It stops what is below it. An error means that it has ended.
            let _ended = shim.signal(Signal::TERM);
            let patience = self.settings.abort_grace + SHIM_PATIENCE;
            let _stuck = tokio::time::timeout(patience, gone(shim)).await;
        }
        // Nobody's session: only the name of the run in the environment tells.
        Leftovers::of_runner(0, &self.run_id).kill().await;
    }

    /// Collects the shim if it is our child.
    fn reap(&self) {
        let child = self
            .shim
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if let Some(mut child) = child
            && let Err(e) = child.wait()
        {
            tracing::debug!("waiting for the process supervisor: {e}");
        }
    }
}

/// Returns when this very process has ended.
async fn gone(process: ProcessIdentity) {
    if let Some(pid) = Pid::from_raw(process.pid)
        && let Ok(handle) = pidfd_open(pid, PidfdFlags::empty())
        // Readable when the process has ended, and never read from.
        && let Ok(handle) = Receiver::from_owned_fd_unchecked(handle)
        && process.is_alive()
        && let Err(e) = handle.readable().await
    {
        tracing::debug!("waiting for process {}: {e}", process.pid);
    }
    // The end of the process, or a kernel that can't tell.
    while process.is_alive() {
        tokio::time::sleep(ALIVE_POLL).await;
    }
}
