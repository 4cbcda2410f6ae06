//! What daemons have left behind: one's own of before, and those of this machine that did not come back.

use std::time::Duration;

use clearml_task_runner::RunDir;
use tokio::time::timeout;

use crate::decide::{Kept, kept};
use crate::journal::intent_of;
use crate::serve::{Server, say};
use crate::watch::WatchError;

/// How often to look whether an own task that another daemon looks after has ended.
const KEPT_POLL: Duration = Duration::from_secs(1);

impl Server {
    /// Beside everything else: nobody waits for it.
    pub(crate) fn remove_left_containers(&self) {
        if self.options.container.is_some() {
            let store = self.store.clone();
            tokio::spawn(async move { clearml_task_runner::remove_left_containers(&store).await });
        }
    }

    /// Looks after the runs that an earlier daemon of this worker has left, oldest first.
    pub(crate) async fn finish_earlier_runs(&mut self) {
        let runs = match self.store.list() {
            Ok(runs) => runs,
            Err(e) => {
                tracing::error!("{e}; runs of an earlier daemon can't be continued");
                return;
            }
        };
        for run in runs {
            if self.stop.requested() {
                return;
            }
            let is_own = run
                .record()
                .is_ok_and(|record| record.identity.worker == self.worker);
            if is_own && let Err(e) = self.finish_own(run).await {
                tracing::error!("{e}");
            }
        }
        self.prune();
    }

    /// Continues a run of this worker id. One that another daemon has taken over occupies this worker
    /// until it ends, as if it had never been away.
    async fn finish_own(&mut self, run: RunDir) -> Result<(), WatchError> {
        let mut told = false;
        while !self.journal().keep(&run)? {
            let record = run.record()?;
            if record.phase.is_final() {
                return Ok(());
            }
            if !std::mem::replace(&mut told, true) {
                say(&format!(
                    "Task '{}' is looked after by another agent of this machine; waiting for its end",
                    record.identity.task
                ));
            }
            // Others need not wait for it where many run.
            if self.services.is_some() || timeout(KEPT_POLL, self.stop.wait()).await.is_ok() {
                return Ok(());
            }
        }
        self.finish_kept(run).await
    }

    /// Takes over what daemons have left that did not come back.
    pub(crate) async fn adopt_orphans(&mut self) {
        let runs = self
            .orphans
            .due(&self.store, &self.settings.agent.state_dir, &self.worker);
        let runs = runs.unwrap_or_else(|e| {
            tracing::warn!("{e}; can't look for runs that nobody looks after");
            Vec::new()
        });
        for run in runs {
            if self.stop.requested() {
                return;
            }
            let result = match self.journal().keep(&run) {
                Ok(true) => self.finish_kept(run).await,
                // Its own daemon, or a third one, was faster.
                Ok(false) => Ok(()),
                Err(e) => Err(e.into()),
            };
            if let Err(e) = result {
                tracing::error!("{e}");
            }
        }
    }

    /// Brings a run to its end that this daemon has become the keeper of.
    async fn finish_kept(&mut self, run: RunDir) -> Result<(), WatchError> {
        let record = run.record()?;
        let task = &record.identity.task;
        let intent = intent_of(&run);
        let kept = kept(
            &record,
            run.runner_alive(),
            run.has_inputs(),
            matches!(intent, Ok(Some(_)) | Err(_)),
        );
        if record.identity.worker != self.worker && kept != Kept::Clean {
            say(&format!(
                "Taking over task '{task}' of worker {}",
                record.identity.worker
            ));
        }
        match (kept, intent) {
            // Its runner may have died before it removed secrets and environment.
            (Kept::Clean, _) => run.clean()?,
            (Kept::Continue, _) => {
                say(&format!("Continuing task '{task}' ({:?})", record.phase));
                self.run_in_hand(run).await?;
            }
            (Kept::Settle(phase), Ok(Some(intent))) => self.settle(intent, phase).await,
            (Kept::Remove, _) => run.remove()?,
            (_, Err(e)) => {
                self.orphans.leave(&run);
                tracing::error!("{e}; it is left where it is");
            }
            (_, Ok(_)) => {
                self.orphans.leave(&run);
                tracing::error!(
                    "{} has lost its pop.json; it is left where it is, and task {task} as well",
                    run.path().display()
                );
            }
        }
        Ok(())
    }
}
