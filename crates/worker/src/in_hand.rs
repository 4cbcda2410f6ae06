//! A run in hand, from its inputs to its end.

use std::time::Duration;

use clearml_agent_config::OnStop;
use clearml_intake::Activity;
use clearml_task_runner::{RunDir, is_heard};
use tokio::time::sleep;

use crate::serve::{Server, announce_end, say};
use crate::watch::{Watch, WatchEnd, WatchError, tell_to_stop};

/// How often a runner is told that the daemon has to end.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// On top of the grace period of the task: time for its last lines and its status.
const REPORT_PATIENCE: Duration = Duration::from_secs(30);

impl Server {
    /// Looks after a claimed run until its end, or until the daemon has to end.
    pub(crate) async fn run_in_hand(&mut self, run: RunDir) -> Result<(), WatchError> {
        let record = run.record()?;
        let task = record.identity.task.clone();
        if !run.has_inputs() {
            self.reload();
            if !self.give_inputs(&run, &record).await? {
                return Ok(());
            }
        } else {
            self.renew_owner(&run).await;
        }
        if let Some(log) = &self.log {
            log.begin_task();
        }
        say(&format!("Running task '{task}'"));
        self.observer.begun();
        if let Some(services) = &self.services {
            services.take(run, &record, self.service_reporter(&record));
            self.notifier
                .status(&format!("running {} services", services.count()));
            return Ok(());
        }
        self.reporter.set(Activity {
            task: Some(task.clone()).filter(|_| is_heard()),
            queue: record.identity.queue.clone(),
        });
        self.notifier.status(&format!("running task {task}"));
        let limit = self.settings.agent.requeue_on_infrastructure_failure;
        let mut watch = Watch::new(run.clone(), self.program.clone()).requeue_limit(limit);
        let end = match self.watch(&mut watch).await? {
            Some(end) => Some(end),
            None => self.end_run(&mut watch).await?,
        };
        announce_end(&task, &run, end);
        if matches!(end, Some(WatchEnd::Done(_) | WatchEnd::GivenUp)) && !run.is_gone() {
            self.observer.ended(&run.record()?);
        }
        self.notifier.status("waiting for tasks");
        self.reporter.set(Activity::default());
        Ok(())
    }

    /// Watches over a run; `None` when the daemon has to end meanwhile.
    async fn watch(&mut self, watch: &mut Watch) -> Result<Option<WatchEnd>, WatchError> {
        let (stop, mut reloads, client) = (self.stop.clone(), self.stop.clone(), self.client.clone());
        let mut watching = Box::pin(watch.until_done(&client, || stop.requested()));
        loop {
            tokio::select! {
                end = &mut watching => return end.map(Some),
                () = stop.wait() => return Ok(None),
                // What it says about the end of the daemon counts for this task already.
                () = reloads.wait_for_reload() => self.reload_on_demand(),
                () = self.queues.recount(&self.client, &self.observer, self.poll) => {}
            }
            self.stop = reloads.clone();
        }
    }

    /// The daemon has to end while a task runs.
    async fn end_run(&self, watch: &mut Watch) -> Result<Option<WatchEnd>, WatchError> {
        if self.settings.agent.on_stop == OnStop::Detach {
            return Ok(None);
        }
        say(&format!("Stopping task '{}'", watch.task()?));
        let run = watch.run().clone();
        // Again and again: the runner may have died just now, and its successor has to hear it as well.
        let telling = async {
            loop {
                tell_to_stop(&run);
                sleep(TELL_EVERY).await;
            }
        };
        tokio::select! {
            end = Box::pin(watch.until_done(&self.client, || true)) => end.map(Some),
            () = telling => Ok(Some(WatchEnd::Ending)),
            () = sleep(self.end_patience()) => Ok(Some(WatchEnd::Ending)),
            () = self.stop.wait_for_hurry() => Ok(Some(WatchEnd::Ending)),
        }
    }

    /// How long tasks may take to end with the daemon.
    pub(crate) fn end_patience(&self) -> Duration {
        let grace = Duration::try_from_secs_f64(self.settings.agent.abort_grace_sec);
        grace.unwrap_or_default() + REPORT_PATIENCE
    }
}
