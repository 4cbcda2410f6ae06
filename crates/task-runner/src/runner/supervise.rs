//! While user code runs: waiting for its end, or bringing it about.

use std::time::Duration;

use clearml_support::process::{ProcessIdentity, boot_id, session_members};
use clearml_support::time::now_ms;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use tokio::net::unix::pipe::Receiver;

use super::abort::{announce, announced, wait_for_callback};
use super::launch::fail;
use super::{RUN_ID, Runner, RunnerError};
use crate::console::{Level, Tag};
use crate::phase::Phase;
use crate::record::{AbortIntent, AbortReason, Failure, Mark, RunRecord, SCHEMA, ShimClaim};

/// What the shim needs at most, beyond the grace, to stop everything: see the times in the shim.
const SHIM_PATIENCE: Duration = Duration::from_secs(60);
/// How often to look where the kernel does not tell that a process has ended.
const ALIVE_POLL: Duration = Duration::from_millis(200);

impl Runner {
    /// Watches the shim until it is gone, and aborts the task when somebody wants that. A runner that
    /// takes over from a dead one starts here, and finds everything in the run directory.
    pub(super) async fn supervise(&self) -> Result<RunRecord, RunnerError> {
        let Some(claim) = self.run.claim()? else {
            return self
                .lost("the claim of the process supervisor has vanished")
                .await;
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
        match self.run.verdict()? {
            Some(verdict) => {
                let (ms, end) = (verdict.started_ms, verdict.finished_ms);
                self.note(&[Mark {
                    name: "run".into(),
                    ms,
                    duration_ms: Some(end - ms),
                }]);
                self.stored(|run| run.set_phase(Phase::Exited)).await
            }
            None => self.died(&claim).await,
        }
    }

    async fn abort_process(
        &self,
        reason: AbortReason,
        shim: &ProcessIdentity,
        gone: &mut (impl Future<Output = ()> + Unpin),
    ) {
        let decided_ms = self.note_abort();
        if reason == AbortReason::Stopped {
            let times = (self.settings.status_poll, self.settings.abort_callback_max);
            let task = &self.identity.task;
            let mut stop = self.stop.subscribe();
            tokio::select! {
                () = Box::pin(wait_for_callback(&self.client, task, &self.console, times, decided_ms)) => {}
                _ = stop.wait_for(|stop| *stop) => {}
                () = &mut *gone => return,
            }
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
        let intent = match (known, *self.abort.borrow()) {
            (Some(intent), _) => return intent.decided_ms,
            (None, Some(reason)) => AbortIntent {
                schema: SCHEMA,
                reason,
                decided_ms: now_ms(),
            },
            (None, None) => return now_ms(),
        };
        if let Err(e) = self.run.write_abort(&intent) {
            tracing::warn!("{e}");
        }
        intent.decided_ms
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

    /// The shim is gone and has said nothing: killed, or lost with the machine.
    async fn died(&self, claim: &ShimClaim) -> Result<RunRecord, RunnerError> {
        if boot_id().is_ok_and(|boot| boot != claim.shim.boot_id) {
            return self
                .lost("the machine was restarted while the task was running")
                .await;
        }
        kill_leftovers(claim.shim.pid, &self.run_id).await;
        self.lost("the process supervisor was killed, so how the task ended is unknown")
            .await
    }

    async fn lost(&self, text: &str) -> Result<RunRecord, RunnerError> {
        let failure = Failure {
            stage: "infrastructure".to_owned(),
            text: text.to_owned(),
            exit_code: None,
        };
        self.stored(|run| fail(run, &failure)).await
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

/// Kills what a dead shim has left: whoever carries the name of the run in its environment, and all members
/// of its session. Repeated until nobody is found, because processes may be starting others.
pub(super) async fn kill_leftovers(session: i32, run_id: &str) {
    for _ in 0..100 {
        let found = leftovers(session, run_id);
        if found.is_empty() {
            return;
        }
        for process in found {
            if let Err(e) = process.signal(Signal::KILL) {
                tracing::warn!("killing process {} of run {run_id}: {e}", process.pid);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tracing::error!("processes of run {run_id} can't be killed");
}

fn leftovers(session: i32, run_id: &str) -> Vec<ProcessIdentity> {
    let me = rustix::process::getpid().as_raw_nonzero().get();
    let mut pids = marked(run_id);
    // The number of a session is not given away while the session has members. So one of ours in it proves
    // that all of them are ours; without one, the number may belong to strangers by now.
    let members = session_members(session);
    if members.iter().any(|member| pids.contains(member)) {
        pids.extend(members);
    }
    pids.sort_unstable();
    pids.dedup();
    pids.into_iter()
        .filter(|pid| *pid != me)
        .filter_map(|pid| ProcessIdentity::of(pid).ok().flatten())
        .filter(ProcessIdentity::is_alive)
        .collect()
}

/// Processes whose environment names the run.
fn marked(run_id: &str) -> Vec<i32> {
    let wanted = format!("{RUN_ID}={run_id}");
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            // Not readable for processes of others, which are none of ours.
            std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
                environ
                    .split(|byte| *byte == 0)
                    .any(|entry| entry == wanted.as_bytes())
            })
        })
        .collect()
}
