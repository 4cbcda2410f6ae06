//! Being known to the server: registration, and status reports in the background.
//!
//! A report says which task runs; it goes out when that changes. Every half minute, and three seconds after
//! the start, one says how busy the machine was since the last of that kind. One that fails is not repeated
//! as such: the next one is more recent. Nobody waits for it, and nothing depends on it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clearml_api_client::{Client, StatusReport};
use clearml_support::time::now_ms;
use clearml_task_model::{QueueId, TaskId, WorkerId};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::metrics::Monitor;
use crate::schedule::Backoff;

/// From the start to the first report about the machine.
const FIRST: Duration = Duration::from_secs(3);

/// What a worker is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Activity {
    /// The task it runs.
    pub task: Option<TaskId>,
    /// The queue that task came from.
    pub queue: Option<QueueId>,
}

/// What does not change while a worker lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Its id.
    pub worker: WorkerId,
    /// The queues that it serves.
    pub queues: Vec<QueueId>,
    /// Tags under which the server shows it.
    pub tags: Vec<String>,
    /// It takes tasks from its queues; `false` for a worker that exists for one given task.
    pub is_daemon: bool,
}

/// Reports in the background, as long as it lives.
#[derive(Debug)]
pub struct Reporter {
    client: Client,
    worker: WorkerId,
    activity: watch::Sender<Activity>,
    figures: Latest,
    reports: JoinHandle<()>,
}

/// What was last reported about the machine.
type Latest = Arc<Mutex<Option<Value>>>;

/// Where a worker has the figures of its machine from.
enum Figures {
    Measured(Option<Box<Monitor>>, Latest),
    /// Another worker of this process measures.
    Repeated(Latest),
}

impl Figures {
    fn stats(&self) -> Option<Value> {
        match self {
            Self::Measured(monitor, _) => monitor.as_ref().and_then(|monitor| monitor.stats()),
            Self::Repeated(latest) => latest.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    fn accepted(&self, stats: Option<Value>) {
        if let Self::Measured(Some(monitor), latest) = self {
            monitor.accepted();
            *latest.lock().unwrap_or_else(PoisonError::into_inner) = stats;
        }
    }
}

impl Reporter {
    /// Registers the worker and begins to report, every so often about the machine as well. The registration
    /// happens in the background too: the first report would register an unknown worker anyway.
    #[must_use]
    pub fn start(client: Client, about: About, every: Duration, monitor: Option<Monitor>) -> Self {
        let figures = Latest::default();
        let measured = Figures::Measured(monitor.map(Box::new), Arc::clone(&figures));
        Self::begin(client, about, every, (figures, measured), Activity::default())
    }

    /// Begins to report about a worker that lives in the same process and does one thing. What is said about
    /// the machine is what this one has last said.
    #[must_use]
    pub fn child(&self, about: About, every: Duration, activity: Activity) -> Self {
        let figures = Arc::clone(&self.figures);
        let repeated = Figures::Repeated(Arc::clone(&figures));
        Self::begin(self.client.clone(), about, every, (figures, repeated), activity)
    }

    fn begin(
        client: Client,
        about: About,
        every: Duration,
        (figures, source): (Latest, Figures),
        activity: Activity,
    ) -> Self {
        let (activity, changes) = watch::channel(activity);
        let worker = about.worker.clone();
        let reports = tokio::spawn(report(client.clone(), about, every, source, changes));
        Self {
            client,
            worker,
            activity,
            figures,
            reports,
        }
    }

    /// Says what the worker is doing from now on. Reported at once.
    pub fn set(&self, activity: Activity) {
        self.activity.send_if_modified(|current| {
            let changed = *current != activity;
            *current = activity;
            changed
        });
    }

    /// Stops reporting and takes the worker off the server's list. Bounded; an error is only logged.
    pub async fn stop(self, limit: Duration) {
        self.reports.abort();
        match tokio::time::timeout(limit, self.client.workers_unregister(&self.worker)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("unregistering worker {}: {error}", self.worker),
            Err(_) => tracing::warn!("unregistering worker {}: no answer within {limit:?}", self.worker),
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.reports.abort();
    }
}

async fn report(
    client: Client,
    about: About,
    every: Duration,
    figures: Figures,
    mut changes: watch::Receiver<Activity>,
) {
    let mut due = Instant::now() + FIRST;
    let About {
        worker,
        queues,
        tags,
        is_daemon,
    } = about;
    if let Err(error) = client.workers_register(&worker, &queues, None).await {
        tracing::warn!("registering worker {worker}: {error}; going on without");
    }
    let mut backoff = Backoff::default();
    loop {
        let Activity { task, queue } = changes.borrow_and_update().clone();
        let is_due = Instant::now() >= due;
        let stats = is_due.then(|| figures.stats()).flatten();
        let report = StatusReport {
            worker: worker.clone(),
            // Whole seconds, as the Python agent sends them.
            timestamp_ms: now_ms() / 1000 * 1000,
            task,
            queue,
            queues: queues.clone(),
            tags: (!tags.is_empty()).then(|| tags.clone()),
            machine_stats: stats.clone(),
            is_daemon,
        };
        let next = match client.workers_status_report(&report).await {
            Ok(()) => {
                backoff.succeeded();
                if is_due {
                    figures.accepted(stats);
                    due = Instant::now() + every;
                }
                due
            }
            Err(error) => {
                if !backoff.is_failing() {
                    tracing::warn!("status report of worker {worker}: {error}");
                }
                Instant::now() + backoff.failed().min(every)
            }
        };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(next) => {}
        }
    }
}
