//! From a complete `launch.json` to a shim that has claimed the run.

use std::process::ExitStatus;
use std::time::Duration;

use clearml_support::fs::read_limited;
use clearml_support::time::now_ms;

use super::abort::announced;
use super::decide::{Launching, claimed_to_end, launching, may_launch, no_shim, shim_started};
use super::{Runner, RunnerError, system};
use crate::console::Level;
use crate::phase::Phase;
use crate::record::{Failure, Mark, RunRecord};
use crate::shim;
use crate::spawn::spawn_shim;

/// How often to look for the claim of a shim that was just started.
const CLAIM_POLL: Duration = Duration::from_millis(2);

impl Runner {
    /// Starts a shim, unless one has claimed the run already: then user code may be running, and nothing
    /// is started.
    pub(super) async fn launch(&self) -> Result<RunRecord, RunnerError> {
        let mut next = launching(self.run.claim()?.is_some());
        if next == Launching::Ask {
            let mut abort = self.abort.subscribe();
            let goes_on = tokio::select! {
                goes_on = Box::pin(self.goes_on(None)) => goes_on,
                _ = announced(&mut abort) => false,
            };
            let wish = *self.abort.borrow();
            next = may_launch(goes_on, wish);
        }
        if next == Launching::Start {
            self.console.line(Level::Info, "Starting Task Execution:");
            let begin = now_ms();
            next = self.start_shim().await?;
            self.note(&[Mark {
                name: "launch".into(),
                ms: begin,
                duration_ms: Some(now_ms() - begin),
            }]);
        }
        match next {
            Launching::Claim(failure) => self.give_up(failure).await,
            _ => self.stored(|run| run.set_phase(Phase::Running)).await,
        }
    }

    /// Ends a run whose user code has not started. An earlier runner may have started a shim that has not
    /// claimed the run yet, so it is claimed here: then nobody else can.
    async fn give_up(&self, failure: Option<Failure>) -> Result<RunRecord, RunnerError> {
        if failure.is_none() {
            self.note_abort();
        }
        let ours = shim::claim(&self.run, None).map_err(system("claiming the run"))?;
        let becomes = claimed_to_end(ours, failure);
        self.stored_unless_aborted(|run| run.update(|record| becomes.apply(record)))
            .await
    }

    /// Starts a shim and waits until it, or another one, has claimed the run.
    async fn start_shim(&self) -> Result<Launching, RunnerError> {
        let mut child = match spawn_shim(&self.shim_program, &self.run) {
            Ok(child) => child,
            Err(e) => return Ok(no_shim(format!("starting the process supervisor: {e}"))),
        };
        loop {
            // Asked first: a shim that has ended may have claimed the run just before.
            let ended = child
                .try_wait()
                .map_err(system("waiting for the process supervisor"))?;
            let how = ended.map(|status| self.last_words(status));
            match shim_started(how.as_deref(), self.run.claim()?.is_some()) {
                Launching::Wait => {}
                next => {
                    if ended.is_none() {
                        *self
                            .shim
                            .lock()
                            .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(child);
                    }
                    return Ok(next);
                }
            }
            tokio::time::sleep(CLAIM_POLL).await;
        }
    }

    /// How a shim has ended, and what it has said.
    fn last_words(&self, status: ExitStatus) -> String {
        let log = read_limited(&self.run.path().join("shim.log"), 64 << 10).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let last = log.lines().next_back().unwrap_or("it said nothing");
        format!("({status}): {last}")
    }
}
