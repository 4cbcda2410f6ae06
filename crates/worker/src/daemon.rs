//! Starting and ending the daemon.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clearml_agent_config::{ConfigError, InitialConnect, Settings};
use clearml_api_client::{ApiError, Client};
use clearml_intake::schedule::Backoff;
use clearml_intake::slot::register_folder;
use clearml_intake::{
    ApiQueueServer, Popper, QueueError, Reporter, ServedQueue, SlotError, Timing, resolve_queues, take_slot,
};
use clearml_support::fs::create_private_dir;
use clearml_support::lock::FileLock;
use clearml_task_model::WorkerId;
use clearml_task_runner::settings::{client_options, host_name};
use clearml_task_runner::{RunDirError, RunOptions, RunStore, this_program};

use crate::adopt::{Orphans, worker_lock};
use crate::journal::RunJournal;
use crate::pull::Queues;
use crate::serve::{Server, say};
use crate::stop::Stop;

/// Exit code of a daemon that was ended by a signal, as the Python agent has it.
const EXIT_SIGNAL: i32 = 254;
/// Between status reports, when the setting is no sensible number of seconds.
const REPORT_EVERY: Duration = Duration::from_secs(30);
/// How long an absent server may hold up the end.
const UNREGISTER_LIMIT: Duration = Duration::from_secs(3);

/// What the daemon is started with.
#[derive(Debug, Clone)]
pub struct DaemonOptions {
    /// Names or ids of queues in order of priority; the server's default queue when empty.
    pub queues: Vec<String>,
    /// Says on the terminal what it is doing while it waits.
    pub foreground: bool,
    /// Creates queues that do not exist.
    pub create_queue: bool,
    /// One task a queue in turn, instead of priority.
    pub order_fairness: bool,
    /// Seconds between looks at the queues; at least 5.
    pub polling_interval: Option<u64>,
    /// What all tasks get from the command line. Worker tags are added from the configuration.
    pub run: RunOptions,
    /// The program whose `runner` and `shim` commands are started; this very program when `None`.
    pub program: Option<PathBuf>,
    /// The configuration.
    pub settings: Settings,
}

/// The daemon could not be started.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration lacks something.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The server refuses or does not answer.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A queue can't be found.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The worker id is taken, or nothing can be written where ids are kept.
    #[error(transparent)]
    Identity(#[from] SlotError),
    /// The state folder can't be used.
    #[error(transparent)]
    State(#[from] RunDirError),
    /// Another daemon of this worker id uses the same state folder.
    #[error(
        "another daemon with the worker id {0} is running on this machine. \
         Stop it, or give this one another id with CLEARML_WORKER_ID"
    )]
    SameWorker(WorkerId),
    /// The operating system refused something.
    #[error("{doing}: {source}")]
    System {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl DaemonError {
    /// Whether the server may answer differently in a moment.
    fn is_transient(&self) -> bool {
        match self {
            Self::Api(e) => e.is_transient(),
            Self::Queue(QueueError::Api { source, .. } | QueueError::Create { source, .. }) => {
                source.is_transient()
            }
            _ => false,
        }
    }
}

fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> DaemonError {
    let doing = doing.into();
    move |source| DaemonError::System { doing, source }
}

/// Runs the daemon until it is told to end. Returns the exit code for the process.
///
/// # Errors
///
/// Only at the start: when the configuration, the server, a queue, or the state folder can't be used.
pub async fn daemon(options: DaemonOptions) -> Result<i32, DaemonError> {
    let stop = Stop::listen().map_err(system("listening for signals"))?;
    for warning in options.settings.warnings() {
        tracing::warn!("{warning}");
    }
    let client = Client::new(client_options(&options.settings)?)?;
    let queues = tokio::select! {
        queues = find_queues(&client, &options) => queues?,
        () = stop.wait() => return Ok(EXIT_SIGNAL),
    };

    let agent = &options.settings.agent;
    let slot = take_slot(&register_folder(), &agent.worker_name, agent.worker_id.as_deref())?;
    let worker = slot.worker().clone();
    let _lock = lock_worker(&agent.state_dir, &worker)?;
    let store = RunStore::open(&agent.state_dir)?;
    announce(&worker, &queues);

    let ids: Vec<_> = queues.iter().map(|queue| queue.id.clone()).collect();
    let journal = RunJournal::new(store.clone(), agent.state_dir.join("runs"), worker.clone());
    let popper = Popper::new(
        ApiQueueServer::new(client.clone()),
        journal,
        worker.clone(),
        host_name(),
        Timing::default(),
    );
    let every = Duration::try_from_secs_f64(agent.poll.status_report_sec).unwrap_or(REPORT_EVERY);
    let reporter = Reporter::start(client.clone(), worker.clone(), ids.clone(), every);
    let mut server = Server {
        worker,
        store,
        popper,
        queues: Queues::new(ids, options.order_fairness),
        reporter,
        stop,
        program: options.program.unwrap_or_else(this_program),
        options: RunOptions {
            worker_tags: agent.worker_tags.clone(),
            ..options.run
        },
        poll: agent
            .poll
            .queue_interval(options.polling_interval.map(|seconds| seconds as f64)),
        verbose: options.foreground,
        trouble: Backoff::default(),
        orphans: Orphans::new(Duration::try_from_secs_f64(agent.adopt_after_sec).unwrap_or(Duration::MAX)),
        settings: options.settings.clone(),
        client,
    };
    server.serve().await;
    server.reporter.stop(UNREGISTER_LIMIT).await;
    drop(slot);
    Ok(EXIT_SIGNAL)
}

/// Logs in and finds the queues. After a boot the server may come up later than we do, so unless the
/// number of attempts was set, its absence is waited out; a server that refuses us is an error at once.
async fn find_queues(client: &Client, options: &DaemonOptions) -> Result<Vec<ServedQueue>, DaemonError> {
    let patient = options.settings.api.initial_connect == InitialConnect::Default;
    let mut backoff = Backoff::default();
    loop {
        let attempt = async {
            client.login().await?;
            Ok::<_, DaemonError>(resolve_queues(client, &options.queues, options.create_queue).await?)
        };
        let first = !backoff.is_failing();
        match Box::pin(attempt).await {
            Err(e) if patient && e.is_transient() => {
                let pause = backoff.failed();
                if first {
                    tracing::warn!(
                        "{e}; waiting for the server (CLEARML_AGENT_INITIAL_CONNECT_RETRY_OVERRIDE=<attempts> limits that)"
                    );
                }
                tokio::time::sleep(pause).await;
            }
            result => return result,
        }
    }
}

/// Runs of a worker id are adopted by whoever has its lock, so two daemons must never share one.
fn lock_worker(state: &Path, worker: &WorkerId) -> Result<FileLock, DaemonError> {
    let path = worker_lock(state, worker);
    let folder = path.parent().unwrap_or(state);
    create_private_dir(folder).map_err(system(format!("creating folder {}", folder.display())))?;
    FileLock::try_acquire(&path)
        .map_err(system(format!("locking {}", path.display())))?
        .ok_or_else(|| DaemonError::SameWorker(worker.clone()))
}

fn announce(worker: &WorkerId, queues: &[ServedQueue]) {
    say(&format!("Worker \"{worker}\" - Listening to queues:"));
    let mut rows = vec![["id", "name", "tags"].map(str::to_owned)];
    rows.extend(
        queues
            .iter()
            .map(|queue| [queue.id.to_string(), queue.name.clone(), queue.tags.join(",")]),
    );
    let widths: [usize; 3] = std::array::from_fn(|column| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    });
    let rule: String = widths
        .iter()
        .map(|width| format!("+{}", "-".repeat(width + 2)))
        .collect();
    for (index, row) in rows.iter().enumerate() {
        // Above the titles and below them.
        if index < 2 {
            say(&format!("{rule}+"));
        }
        let cells: String = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("| {cell:<width$} "))
            .collect();
        say(&format!("{cells}|"));
    }
    say(&format!("{rule}+\n"));
}
