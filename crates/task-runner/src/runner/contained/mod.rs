//! Tasks in containers. The runner stays outside; what it would start itself, the container starts.
//!
//! The steps are those of every run. *Prepare* chooses and creates the container, *launch* starts one that has not
//! been started, *supervise* follows it to its end. The container has a name that is written down before it is
//! made, and the engine does not give a name twice, so that a runner that takes over finds what its predecessor has
//! done, and nothing is started a second time: inside, the claim of the run is as final as outside.
//!
//! The engine may be away for a while at any moment: what it was asked is asked again.

mod arguments;
pub(crate) mod bake;
mod callback;
mod choose;
mod given;
mod glibc;
mod image;
mod judge;
mod launch;
pub(crate) mod left;
mod machine;
mod mounts;
mod naming;
mod official;
mod prepare;
mod remembered;
mod reports;
mod restart;
mod scripts;
mod siblings;
mod supervise;

use std::time::Duration;

use clearml_container::engine::{Engine, EngineError, Found};
use tokio::time::Instant;

use super::Runner;
use crate::record::Failure;

/// How long a step waits for an engine that is away. One that follows a task waits for ever.
const PATIENCE: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_secs(1);

impl Runner {
    /// Whether the task runs in a container.
    pub(super) fn is_contained(&self) -> bool {
        self.inputs.options.container.is_some()
    }

    /// Asks the engine until it has answered, or was away for too long.
    async fn of_engine<T>(
        &self,
        mut ask: impl AsyncFnMut(&Engine) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let begin = Instant::now();
        let mut told = false;
        loop {
            let answer = match Engine::connect().await {
                Ok(engine) => ask(&engine).await,
                Err(e) => Err(e),
            };
            match answer {
                Err(e) if e.is_away() && begin.elapsed() < PATIENCE => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!("task {}: {e}; trying again", self.identity.task);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                answer => return answer,
            }
        }
    }

    /// The container as it is now.
    async fn look(&self, name: &str) -> Result<Option<Found>, EngineError> {
        self.of_engine(async |engine| engine.find(name).await).await
    }

    /// Removes the container. One that is left behind is found by its label when a daemon starts.
    pub(super) async fn remove_container(&self) {
        let name = match self.run.container() {
            Ok(Some(record)) => record.name,
            Ok(None) => return,
            Err(e) => return tracing::warn!("{e}"),
        };
        // Another container may have had the name all the time.
        let removed = self.of_engine(async |engine| match engine.find(&name).await? {
            Some(found) if self.is_ours(&found) => engine.remove(&found.id).await,
            _ => Ok(()),
        });
        if let Err(e) = removed.await {
            tracing::warn!("container {name} of task {} stays: {e}", self.identity.task);
        }
    }

    fn is_ours(&self, found: &Found) -> bool {
        found.labels.get(prepare::RUN_LABEL) == Some(&self.run_id)
    }
}

/// The engine is to blame; nothing of the task has run.
fn engine_failure(error: &EngineError) -> Failure {
    Failure {
        over: true,
        ..Failure::infrastructure(error.to_string())
    }
}
