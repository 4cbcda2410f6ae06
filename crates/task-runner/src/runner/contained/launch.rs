//! From a created container to one that runs.

use clearml_container::engine::{ContainerState, EngineError};
use clearml_support::time::now_ms;

use super::super::abort::announced;
use super::super::decide::{Becomes, Launching, claimed_to_end, launching, may_launch, no_shim};
use super::super::{Runner, RunnerError, system};
use super::engine_failure;
use super::prepare::launch_failure;
use crate::console::Level;
use crate::phase::Phase;
use crate::record::{Mark, RunRecord};
use crate::shim;

impl Runner {
    /// Starts the container, unless that has been done: then user code may be running, and nothing is started.
    pub(in crate::runner) async fn launch_container(&self) -> Result<RunRecord, RunnerError> {
        let mut abort = self.abort.subscribe();
        let begin = now_ms();
        let next = tokio::select! {
            next = Box::pin(self.start_container()) => next?,
            // Whether a start is under way or not: the claim decides.
            _ = announced(&mut abort) => Launching::Claim(None),
        };
        match next {
            Launching::Claim(failure) => {
                if failure.is_none() {
                    self.note_abort();
                }
                self.run.give_up_inside().map_err(system("giving the run up"))?;
                let ours = shim::claim(&self.run.inside(), None).map_err(system("claiming the run"))?;
                self.becomes(&claimed_to_end(ours, failure)).await
            }
            _ => {
                self.note(&[Mark {
                    name: "launch".into(),
                    ms: begin,
                    duration_ms: Some(now_ms() - begin),
                }]);
                self.becomes(&Becomes::Phase(Phase::Running)).await
            }
        }
    }

    async fn start_container(&self) -> Result<Launching, RunnerError> {
        if launching(self.run.is_claimed_inside()) == Launching::Supervise {
            return Ok(Launching::Supervise);
        }
        let Some(record) = self.run.container()? else {
            return Ok(no_shim("the name of the container has vanished".to_owned()));
        };
        let found = match self.look(&record.name).await {
            Ok(Some(found)) if self.is_ours(&found) => found,
            Ok(_) => {
                let text = format!("container {} has vanished before it was started", record.name);
                return Ok(no_shim(text));
            }
            Err(e) => return Ok(Launching::Claim(Some(engine_failure(&e)))),
        };
        if found.state != ContainerState::Created {
            return Ok(Launching::Supervise);
        }
        let goes_on = Box::pin(self.goes_on(None)).await;
        let wish = *self.abort.borrow();
        if may_launch(goes_on, wish) != Launching::Start {
            return Ok(Launching::Claim(None));
        }
        let text = format!("Starting container {} of image {}", record.name, record.image);
        self.console.line(Level::Info, &text);
        // A start that is asked for again after a lost answer does no harm to a container that runs; one that has
        // ended meanwhile would find its run claimed.
        let started = self.of_engine(async |engine| engine.start(&found.id).await).await;
        Ok(match started {
            Ok(()) => Launching::Supervise,
            Err(e @ EngineError::Refused { .. }) => Launching::Claim(Some(launch_failure(&e))),
            Err(e) => Launching::Claim(Some(engine_failure(&e))),
        })
    }
}
