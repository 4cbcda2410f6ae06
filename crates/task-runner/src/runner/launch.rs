//! From a complete `launch.json` to a shim that has claimed the run.

use std::time::Duration;

use clearml_api_client::StatusChange;
use clearml_support::fs::read_limited;
use clearml_support::time::now_ms;

use super::abort::announced;
use super::{Runner, RunnerError, system};
use crate::console::Level;
use crate::phase::Phase;
use crate::record::{Failure, Mark};
use crate::shim;
use crate::spawn::spawn_shim;

/// How often to look for the claim of a shim that was just started.
const CLAIM_POLL: Duration = Duration::from_millis(2);

impl Runner {
    /// Starts a shim, unless one has claimed the run already: then user code may be running, and nothing
    /// is started.
    pub(super) async fn launch(&self) -> Result<crate::record::RunRecord, RunnerError> {
        if self.run.claim()?.is_none() {
            let changed_by = format!("Changed by clearml-agent {}", self.identity.worker);
            let change = StatusChange::reason("worker starting task execution").message(changed_by);
            let mut abort = self.abort.subscribe();
            let goes_on = tokio::select! {
                result = Box::pin(self.started(change, None)) => result?,
                _ = announced(&mut abort) => false,
            };
            if !goes_on || self.abort.borrow().is_some() {
                return self.give_up().await;
            }
            self.console.line(Level::Info, "Starting Task Execution:");
            let begin = now_ms();
            if let Some(failure) = self.start_shim().await? {
                return self.stored(|run| fail(run, &failure)).await;
            }
            self.note(&[Mark {
                name: "launch".into(),
                ms: begin,
                duration_ms: Some(now_ms() - begin),
            }]);
        }
        self.stored(|run| run.set_phase(Phase::Running)).await
    }

    /// Ends a run whose user code has not started. An earlier runner may have started a shim that has not
    /// claimed the run yet, so it is claimed here: then nobody else can.
    async fn give_up(&self) -> Result<crate::record::RunRecord, RunnerError> {
        self.note_abort();
        let ours = shim::claim(&self.run).map_err(system("claiming the run"))?;
        let next = if ours { Phase::Exited } else { Phase::Running };
        self.stored(|run| run.set_phase(next)).await
    }

    /// Starts a shim and waits until it, or another one, has claimed the run.
    async fn start_shim(&self) -> Result<Option<Failure>, RunnerError> {
        let infrastructure = |text: String| {
            Some(Failure {
                stage: "infrastructure".to_owned(),
                text,
                exit_code: None,
            })
        };
        let mut child = match spawn_shim(&self.shim_program, &self.run) {
            Ok(child) => child,
            Err(e) => return Ok(infrastructure(format!("starting the process supervisor: {e}"))),
        };
        loop {
            // Asked first: a shim that has ended may have claimed the run just before.
            let ended = child
                .try_wait()
                .map_err(system("waiting for the process supervisor"))?;
            if self.run.claim()?.is_some() {
                if ended.is_none() {
                    *self
                        .shim
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(child);
                }
                return Ok(None);
            }
            if let Some(status) = ended {
                let log = read_limited(&self.run.path().join("shim.log"), 64 << 10).unwrap_or_default();
                let log = String::from_utf8_lossy(&log);
                let last = log.lines().next_back().unwrap_or("it said nothing");
                return Ok(infrastructure(format!(
                    "the process supervisor ended at once ({status}): {last}"
                )));
            }
            tokio::time::sleep(CLAIM_POLL).await;
        }
    }
}

pub(super) fn fail(
    run: &crate::run_dir::RunDir,
    failure: &Failure,
) -> Result<crate::record::RunRecord, crate::run_dir::RunDirError> {
    run.update(|record| {
        record.failure = Some(failure.clone());
        record.phase = Phase::Exited;
    })
}
