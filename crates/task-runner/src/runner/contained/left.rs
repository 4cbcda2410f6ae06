//! Containers that have stayed behind: the engine was away for too long when they should have been removed.

use std::collections::HashSet;

use clearml_container::engine::{ContainerState, Engine, EngineError};

use super::prepare::RUN_LABEL;
use crate::run_dir::RunStore;

/// Removes the containers of runs in this store that are over. A container that still runs is left alone, and so is
/// one whose run is not known here: it belongs to somebody else. What fails is tried again by the next daemon.
pub async fn remove_left_containers(store: &RunStore) {
    let runs = match store.list() {
        Ok(runs) => runs,
        Err(e) => return tracing::warn!("{e}; containers that are left behind stay"),
    };
    let over: HashSet<String> = runs
        .iter()
        .filter(|run| !run.runner_alive())
        .filter_map(|run| run.record().ok())
        .filter(|record| record.phase.is_final())
        .map(|record| record.run_id)
        .collect();
    if over.is_empty() {
        return;
    }
    if let Err(e) = remove(&over).await {
        tracing::warn!("containers that are left behind stay: {e}");
    }
}

async fn remove(over: &HashSet<String>) -> Result<(), EngineError> {
    let engine = Engine::connect().await?;
    for name in engine.labelled(RUN_LABEL).await? {
        let Some(found) = engine.find(&name).await? else {
            continue;
        };
        let is_left = found.labels.get(RUN_LABEL).is_some_and(|run| over.contains(run))
            && found.state != ContainerState::Running;
        if is_left {
            tracing::warn!("removing container {name}, whose task has ended");
            engine.remove(&found.id).await?;
        }
    }
    Ok(())
}
