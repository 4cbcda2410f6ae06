//! The loop of a daemon whose tasks do not wait for each other's end; their table is in `services`.

use std::io;
use std::time::Duration;

use clearml_agent_config::OnStop;
use clearml_intake::{About, Activity, Reporter};
use clearml_task_runner::{RunRecord, is_heard, raise_open_files, service_worker};
use tokio::time::{Instant, sleep, timeout};

use crate::count::Counter;
use crate::daemon::ServicesMode;
use crate::serve::{Server, say};
use crate::services::{Services, Tools};

/// How long an absent server may hold up the start of services mode.
const FORGET_LIMIT: Duration = Duration::from_secs(5);
/// The key that says what becomes of tasks.
const ON_STOP: &str = "agent.on_stop";

impl Server {
    /// From now on a task is in hand while the next one is looked for.
    pub(crate) fn start_services(&mut self, mode: ServicesMode) -> io::Result<()> {
        // Each task in hand is one open file here, and several in the runner.
        self.options.open_files = raise_open_files();
        let tools = Tools {
            client: self.client.clone(),
            observer: self.observer.clone(),
            journal: self.popper.journal().clone(),
            program: self.program.clone(),
            requeue_limit: self.settings.agent.requeue_on_infrastructure_failure,
        };
        let state_dir = &self.settings.agent.state_dir;
        let counter = Counter::of(&self.settings, &self.worker);
        let services = Services::start(tools, state_dir, &self.worker, mode.limit, counter)?;
        self.services = Some(services);
        say("ClearML-Agent running in services mode");
        Ok(())
    }

    /// Takes workers off the server's list whose tasks have ended since an earlier daemon.
    pub(crate) async fn forget_ended_services(&self) {
        if let Some(services) = &self.services {
            let forgetting = timeout(FORGET_LIMIT, services.forget_ended(&self.worker));
            tokio::select! {
                _in_time = forgetting => {}
                () = self.stop.wait() => {}
            }
        }
    }

    /// Leaves runs that are not in hand to whoever wants to look after them.
    pub(crate) fn let_go(&self) {
        match &self.services {
            Some(services) => self.journal().let_go_except(&services.in_hand()),
            None => self.journal().let_go(),
        }
    }

    /// Whether one more task may run; if not, some time has passed.
    pub(crate) async fn has_room(&mut self) -> bool {
        let Some(services) = &mut self.services else {
            return true;
        };
        let (stop, mut reloads) = (self.stop.clone(), self.stop.clone());
        tokio::select! {
            has_room = services.has_room() => if has_room { return true },
            () = stop.wait() => return false,
        }
        let (mut slept, mut woken) = (false, false);
        tokio::select! {
            () = services.one_ended() => {}
            () = sleep(self.poll) => slept = true,
            () = stop.wait() => {}
            () = reloads.wait_for_reload() => woken = true,
        }
        if woken {
            self.stop = reloads;
            self.reload_on_demand();
        }
        if slept && self.queues.recount_at(self.poll) <= Instant::now() {
            tokio::select! {
                () = self.queues.recount(&self.client, &self.observer, self.poll) => {}
                () = stop.wait() => {}
            }
        }
        false
    }

    /// The daemon has to end while services run.
    pub(crate) async fn end_services(&mut self) {
        let Some(services) = self.services.take() else {
            return;
        };
        if self.leaves_services() {
            return services.leave();
        }
        if services.count() > 0 {
            say(&format!("Stopping {} services", services.count()));
        }
        services
            .stop(self.end_patience(), self.stop.wait_for_hurry())
            .await;
    }

    /// Services in containers outlive their daemon, as those of the official agent do, unless they are meant to end.
    fn leaves_services(&self) -> bool {
        let said = self.settings.origin(ON_STOP).is_some();
        self.settings.agent.on_stop == OnStop::Detach || (self.options.container.is_some() && !said)
    }

    /// Makes a service known to the server, as a worker of its own.
    pub(crate) fn service_reporter(&self, record: &RunRecord) -> Reporter {
        let about = About {
            worker: service_worker(&record.identity.worker, &record.identity.task),
            queues: Vec::new(),
            tags: self.options.worker_tags.clone(),
            is_daemon: false,
        };
        let activity = Activity {
            task: Some(record.identity.task.clone()).filter(|_| is_heard()),
            queue: record.identity.queue.clone(),
        };
        self.reporter.child(about, self.report_every, activity)
    }
}
