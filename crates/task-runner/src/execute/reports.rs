//! Status reports of a process that runs one given task: at once, after three seconds with the first figures
//! about the machine, then regularly, and once more at the end.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use clearml_api_client::{Client, StatusReport};
use clearml_support::time::now_ms;
use clearml_task_model::{TaskId, WorkerId};
use serde_json::Value;

use super::ExecuteOptions;
use crate::settings::is_heard;

/// From the start to the first figures.
const FIRST: Duration = Duration::from_secs(3);
/// A period of zero would make a busy loop.
const SHORTEST_PERIOD: Duration = Duration::from_secs(1);

/// Who knows how busy the machine is. Whoever starts the task brings one along, because this crate does not
/// measure machines.
pub trait MachineFigures: fmt::Debug + Send + Sync {
    /// `machine_stats` of a status report: averages since the last one that was accepted.
    fn stats(&self) -> Option<Value>;

    /// The last figures have reached the server.
    fn accepted(&self);
}

pub(super) struct Reports<'a> {
    client: &'a Client,
    options: &'a ExecuteOptions,
    worker: &'a WorkerId,
    /// Another node reports the task alone.
    is_silent: bool,
}

impl<'a> Reports<'a> {
    pub(super) fn new(client: &'a Client, options: &'a ExecuteOptions) -> Self {
        Self {
            client,
            options,
            worker: &options.worker,
            is_silent: !is_heard(),
        }
    }

    /// Reports as long as the task runs.
    pub(super) async fn while_running(&self, task: &TaskId) -> Infallible {
        let every = Duration::try_from_secs_f64(self.options.settings.agent.poll.status_report_sec);
        let every = every.unwrap_or(Duration::MAX).max(SHORTEST_PERIOD);
        self.send(Some(task), None).await;
        let machine = self.options.machine.as_deref();
        let mut pause = if machine.is_some() { FIRST } else { every };
        loop {
            tokio::time::sleep(pause).await;
            let arrived = self
                .send(Some(task), machine.and_then(MachineFigures::stats))
                .await;
            if let Some(machine) = machine.filter(|_| arrived) {
                machine.accepted();
            }
            pause = every;
        }
    }

    /// Says that nothing runs any more, and goes off the list of workers.
    pub(super) async fn end(&self) {
        self.send(None, None).await;
        if let Err(e) = self.client.workers_unregister(self.worker).await {
            tracing::debug!("{e}");
        }
    }

    /// Whether it arrived. One that does not is not repeated: the next one is more recent.
    async fn send(&self, task: Option<&TaskId>, machine_stats: Option<Value>) -> bool {
        let report = StatusReport {
            worker: self.worker.clone(),
            timestamp_ms: now_ms() / 1000 * 1000,
            task: task.filter(|_| !self.is_silent).cloned(),
            queue: None,
            queues: Vec::new(),
            tags: None,
            machine_stats,
            is_daemon: false,
        };
        let sent = self.client.workers_status_report(&report).await;
        if let Err(e) = &sent {
            tracing::debug!("{e}");
        }
        sent.is_ok()
    }
}
