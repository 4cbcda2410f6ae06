//! While a container runs: waiting for its end, or bringing it about.

use std::time::Duration;

use clearml_container::engine::{ContainerState, Engine};

use super::super::abort::{announce, announced};
use super::super::decide::Becomes;
use super::super::{Runner, RunnerError};
use super::judge::{Ending, judge};
use crate::console::{Level, Tag};
use crate::phase::Phase;
use crate::record::{AbortReason, Failure, Mark, RunRecord, Verdict};

/// The longest that one call waits.
const LOOK: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a container that was to run may look as if nobody had started it.
const CREATED: u32 = 100;
/// What the shim needs at most, beyond the grace, until the engine kills what is left.
pub(super) const SHIM_PATIENCE: Duration = Duration::from_secs(10);
/// How long a runner that was told to end tries to stop the container. The next one goes on.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

impl Runner {
    /// Follows the container to its end, and aborts the task when somebody wants that.
    pub(in crate::runner) async fn supervise_container(&self) -> Result<RunRecord, RunnerError> {
        let Some(record) = self.run.container()? else {
            let failure = Failure::infrastructure("the name of the container has vanished");
            return self.becomes(&Becomes::Failed(failure)).await;
        };
        if let Some(intent) = self.run.abort()? {
            announce(&self.abort, intent.reason);
        }
        let mut ended = Box::pin(ended(&record.name));
        let mut abort = self.abort.subscribe();
        tokio::select! {
            () = &mut ended => {}
            reason = announced(&mut abort) => {
                if !self.stop_container(reason, &record.name, &mut ended).await {
                    let source = std::io::Error::other("the container engine does not answer");
                    return Err(RunnerError::System { doing: "stopping the container", source });
                }
            }
            never = Box::pin(self.take_reports()) => match never {},
        }
        self.write_back_reports().await;
        let verdict = self.run.verdict_inside().unwrap_or_else(|e| {
            tracing::warn!("{e}");
            None
        });
        let (state, last_words) = self.last_state(&record.name, verdict.is_none()).await;
        let failure = judge(&Ending {
            state: state.as_ref(),
            verdict: verdict.as_ref(),
            claimed: self.run.is_claimed_inside(),
            reports: self.reports().as_ref(),
            aborted: self.run.abort()?.is_some(),
            last_words: &last_words,
            image: &record.image,
        });
        if let Some(verdict) = &verdict {
            self.take_over(verdict).await?;
        }
        let becomes = failure.map_or(Becomes::Phase(Phase::Exited), Becomes::Failed);
        self.becomes(&becomes).await
    }

    async fn take_over(&self, verdict: &Verdict) -> Result<(), RunnerError> {
        self.stored(|run| run.write_verdict(verdict)).await?;
        self.note(&[Mark {
            name: "run".into(),
            ms: verdict.started_ms,
            duration_ms: Some(verdict.finished_ms.saturating_sub(verdict.started_ms)),
        }]);
        Ok(())
    }

    /// The container after its end, and what it has printed past the shim.
    pub(super) async fn last_state(&self, name: &str, with_words: bool) -> (Option<ContainerState>, String) {
        let found = match self.look(name).await {
            Ok(Some(found)) if self.is_ours(&found) => found,
            Ok(_) => return (None, String::new()),
            Err(e) => {
                tracing::warn!("{e}");
                return (None, String::new());
            }
        };
        let mut words = String::new();
        if with_words {
            let asked = self
                .of_engine(async |engine| engine.last_words(&found.id, 20).await)
                .await;
            words = asked.unwrap_or_default();
        }
        (Some(found.state), words)
    }

    /// Stops the task: by the shim, which gives its program time; by force where that does not help. Returns whether
    /// the container has ended.
    async fn stop_container(
        &self,
        reason: AbortReason,
        name: &str,
        ended: &mut (impl Future<Output = ()> + Unpin),
    ) -> bool {
        let decided_ms = self.note_abort();
        let mut stop = self.stop.subscribe();
        tokio::select! {
            gone = Box::pin(self.before_the_end(reason, decided_ms, &mut *ended)) => if gone { return true },
            _ = stop.wait_for(|stop| *stop) => {}
        }
        if let Some((number, label)) = reason.label() {
            let what = if reason == AbortReason::Exception {
                "Task failed"
            } else {
                "User aborted"
            };
            let text = format!("{what}: stopping task ({number}) {label}");
            self.console.line_once(Tag::Abort, Level::Error, &text);
        }
        let patience = async {
            if stop.wait_for(|stop| *stop).await.is_ok() {
                tokio::time::sleep(self.settings.abort_grace + STOP_PATIENCE).await;
            }
        };
        tokio::select! {
            () = Box::pin(self.stop_until_ended(name, ended)) => true,
            () = patience => false,
        }
    }

    async fn stop_until_ended(&self, name: &str, ended: &mut (impl Future<Output = ()> + Unpin)) {
        let grace = self.settings.abort_grace + SHIM_PATIENCE;
        loop {
            let stopping = async {
                let engine = Engine::connect().await?;
                engine.stop(name, grace).await
            };
            let stopped = tokio::select! {
                () = &mut *ended => return,
                stopped = stopping => stopped,
            };
            match stopped {
                // It says that it is stopped; see whether it is.
                Ok(()) => {
                    if tokio::time::timeout(SHIM_PATIENCE, &mut *ended).await.is_ok() {
                        return;
                    }
                    tracing::error!("container {name} does not end; removing it");
                    self.remove_container().await;
                }
                Err(e) => tracing::warn!("{e}; trying again"),
            }
            tokio::time::sleep(LONGEST_PAUSE).await;
        }
    }
}

/// Returns when the container does not run any more. An engine that is away may come back with it.
pub(super) async fn ended(name: &str) {
    let mut pause = PAUSE;
    let mut unstarted = 0;
    let mut told = false;
    loop {
        match look_and_wait(name).await {
            Ok(Look::Ended) => return,
            Ok(Look::Created) => {
                unstarted += 1;
                if unstarted > CREATED {
                    return;
                }
                pause = PAUSE;
            }
            Ok(Look::Running) => (pause, told) = (PAUSE, false),
            Err(e) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!("{e}; trying again");
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        tokio::time::sleep(pause).await;
    }
}

enum Look {
    Ended,
    Created,
    Running,
}

async fn look_and_wait(name: &str) -> Result<Look, clearml_container::engine::EngineError> {
    let engine = Engine::connect().await?;
    Ok(match engine.find(name).await?.map(|found| found.state) {
        None | Some(ContainerState::Ended { .. }) => Look::Ended,
        Some(ContainerState::Created) => Look::Created,
        Some(ContainerState::Running) => {
            engine.wait(name, LOOK).await;
            // Most often it is the end.
            match engine.find(name).await?.map(|found| found.state) {
                None | Some(ContainerState::Ended { .. }) => Look::Ended,
                _ => Look::Running,
            }
        }
    })
}
