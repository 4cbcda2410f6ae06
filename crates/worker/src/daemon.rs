//! Starting and ending the daemon.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clearml_agent_config::{InitialConnect, Settings, Sources};
use clearml_api_client::{Client, WorkersQuery};
use clearml_intake::hours::StatusQueue;
use clearml_intake::machine::cuda::with_cuda_versions;
use clearml_intake::schedule::Backoff;
use clearml_intake::vaults::{shown, with_vaults};
use clearml_intake::{
    About, ApiQueueServer, Identity, Monitor, Popper, Presence, QueuePresence, Register, Reporter,
    ServedQueue, Timing, WorkingHours, resolve_queues, take_slot,
};
use clearml_support::fs::create_private_dir;
use clearml_support::lock::FileLock;
use clearml_support::redact::Redactor;
use clearml_support::time::now_ms;
use clearml_task_model::WorkerId;
use clearml_task_runner::settings::{client_options, host_name};
use clearml_task_runner::{RunOptions, RunStore, this_program};

use crate::active::{Activation, status_lines};
use crate::adopt::{Orphans, worker_lock};
use crate::background::{LogFile, Output, tell_starter};
use crate::journal::RunJournal;
use crate::metrics::Metrics;
use crate::notify::{self, Notifier};
use crate::observe::Observer;
use crate::owner;
use crate::pull::Queues;
use crate::refused::{DaemonError, system};
use crate::reload::adopt_after;
use crate::serve::{Server, say};
use crate::startup::{check_cuda, check_current_folder, check_folders, settings_of_slot, table};
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
    /// Creates queues that do not exist.
    pub create_queue: bool,
    /// One task a queue in turn, instead of priority.
    pub order_fairness: bool,
    /// Seconds between looks at the queues; at least 5.
    pub polling_interval: Option<f64>,
    /// What decides the worker's id.
    pub identity: Identity,
    /// The GPUs were asked for by name, not only found in a variable.
    pub gpus_wanted: bool,
    /// Runs many tasks at the same time.
    pub services: Option<ServicesMode>,
    /// Works for each task in the name of its owner.
    pub use_owner_token: bool,
    /// When it takes tasks.
    pub hours: WorkingHours,
    /// Tags of the worker, for the server and for tasks; those of the configuration when `None`.
    pub tags: Option<Vec<String>>,
    /// Where its output goes.
    pub output: Output,
    /// Prints the configuration at the start.
    pub introduce: Option<fn(&Settings)>,
    /// Where metrics can be read (Prometheus), if anywhere.
    pub metrics_address: Option<SocketAddr>,
    /// Learns the secrets of each configuration that comes into force, vaults included.
    pub redactor: Redactor,
    /// What all tasks get from the command line. Worker tags are added.
    pub run: RunOptions,
    /// The program whose `runner` and `shim` commands are started; this very program when `None`.
    pub program: Option<PathBuf>,
    /// Where the configuration came from.
    pub sources: Sources,
    /// The configuration.
    pub settings: Settings,
}

impl DaemonOptions {
    /// A daemon with this configuration, on the terminal.
    #[must_use]
    pub fn new(sources: Sources, settings: Settings) -> Self {
        let agent = &settings.agent;
        Self {
            queues: Vec::new(),
            create_queue: false,
            order_fairness: false,
            polling_interval: None,
            identity: Identity {
                name: agent.worker_name.clone(),
                explicit: agent.worker_id.clone(),
                ..Identity::default()
            },
            gpus_wanted: false,
            services: None,
            use_owner_token: false,
            hours: WorkingHours::Always,
            tags: None,
            output: Output::Terminal,
            introduce: None,
            metrics_address: None,
            redactor: Redactor::new(),
            run: RunOptions::default(),
            program: None,
            sources,
            settings,
        }
    }
}

/// How many tasks may run at the same time on a daemon that does not wait for their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServicesMode {
    /// At most so many; any number when `None`.
    pub limit: Option<usize>,
}

/// Runs the daemon until it is told to end. Returns the exit code for the process.
///
/// # Errors
///
/// Only at the start: when the configuration, the server, a queue, or the state folder can't be used.
pub async fn daemon(options: DaemonOptions) -> Result<i32, DaemonError> {
    check_current_folder()?;
    let notifier = Notifier::from_environment();
    notifier.status("finding the server and the queues");
    let stop = Stop::listen().map_err(system("listening for signals"))?;
    let client = Client::new(client_options(&options.settings)?)?;
    let queues = tokio::select! {
        queues = find_queues(&client, &options) => queues?,
        () = stop.wait() => return Ok(EXIT_SIGNAL),
    };

    let register = Register::of_machine();
    // Other agents and the server may keep it waiting.
    let place = async {
        let listed = listed(&client, &register).await;
        let slot = take_slot(&register, &options.identity, &listed).await?;
        Ok::<_, DaemonError>((slot, with_vaults(&client, &options.settings).await))
    };
    let (slot, vaults) = tokio::select! {
        place = place => place?,
        () = stop.wait() => return Ok(EXIT_SIGNAL),
    };
    let worker = slot.worker().clone();
    let settings = settings_of_slot(vaults.settings, &options.sources, slot.number())?;
    let settings = with_cuda_versions(settings).await?;
    if options.gpus_wanted {
        check_cuda(&settings)?;
    }
    let store = RunStore::open(&settings.agent.state_dir)?;
    let _lock = lock_worker(&settings.agent.state_dir, &worker)?;
    check_folders(&settings, options.sources.home.as_deref())?;
    let prepared = settings.prepare();
    let settings = prepared.settings;
    settings.register_secrets(&options.redactor);
    for line in shown(&[vaults.notices, prepared.notices].concat(), settings.agent.debug) {
        say(line);
    }
    let observer = observer(&client, &options, &settings, &worker, &queues)?;
    let _metrics = offer_metrics(options.metrics_address, &observer).await?;
    let introduction = || {
        if let Some(print) = options.introduce {
            print(&settings);
        }
        say(&table(&worker, &queues));
    };
    introduction();
    // Before it is said that the daemon serves: who asks then shall find it.
    let _publication = observer.publish();
    let log = to_background(&options, &settings, introduction)?;
    let mode = options.services;
    let mut server = server(
        options, client, worker, store, queues, settings, stop, log, observer, notifier,
    );
    if let Some(mode) = mode {
        server
            .start_services(mode)
            .map_err(system("preparing for services"))?;
    }
    let _keep_alive = server.notifier.keep_alive();
    server.notifier.ready("waiting for tasks");
    server.serve().await;
    server.notifier.stopping();
    server.reporter.stop(UNREGISTER_LIMIT).await;
    drop(slot);
    Ok(EXIT_SIGNAL)
}

/// Prints working hours, what overrides them, and the queues.
///
/// # Errors
///
/// When the server or a queue can't be used.
pub async fn status(options: &DaemonOptions) -> Result<(), DaemonError> {
    let client = Client::new(client_options(&options.settings)?)?;
    let queues = find_queues(&client, options).await?;
    let worker = worker_meant(&options.identity);
    let queues: Vec<StatusQueue> = queues
        .into_iter()
        .map(|queue| StatusQueue {
            name: queue.name,
            tags: queue.tags,
        })
        .collect();
    for line in status_lines(&client, &worker, &options.hours, &queues).await {
        say(&line);
    }
    Ok(())
}

/// Whose status is wanted: that of a daemon that runs here, if it is not clear by name. Properties belong to ids.
fn worker_meant(identity: &Identity) -> WorkerId {
    let running = || {
        let prefix = identity.prefix();
        let instances = Register::of_machine().instances().ok()?;
        let mut ids = instances.into_iter().map(|instance| instance.worker);
        ids.find(|id| id.as_str().starts_with(&prefix))
    };
    let known = identity.fixed().or_else(running);
    known.unwrap_or_else(|| identity.of_process())
}

/// The workers that the server knows, where the register alone does not tell who lives.
async fn listed(client: &Client, register: &Register) -> Vec<WorkerId> {
    if !register.is_shared() {
        return Vec::new();
    }
    match client.workers_get_all(&WorkersQuery::default()).await {
        Ok(workers) => workers.into_iter().map(|worker| worker.id).collect(),
        Err(e) => {
            tracing::warn!("asking for the workers: {e}");
            Vec::new()
        }
    }
}

/// Leaves the terminal, unless the output belongs there.
fn to_background(
    options: &DaemonOptions,
    settings: &Settings,
    introduce: impl Fn(),
) -> Result<Option<LogFile>, DaemonError> {
    if options.output == Output::Terminal {
        return Ok(None);
    }
    let detached = options.output == Output::Detached;
    let folder = &settings.agent.temp_dir;
    let log = LogFile::create(folder, detached, settings.agent.debug)
        .map_err(system(format!("creating the log file in {}", folder.display())))?;
    say(&format!(
        "Running CLEARML-AGENT daemon in background mode, writing stdout/stderr to {}",
        log.path().display()
    ));
    log.redirect()
        .map_err(system(format!("writing output to {}", log.path().display())))?;
    if detached {
        introduce();
        tell_starter().map_err(system("closing the standard input"))?;
    }
    say("Starting infinite task polling loop...");
    Ok(Some(log))
}

#[expect(
    clippy::too_many_arguments,
    reason = "these are the parts that the start has made, used once"
)]
fn server(
    options: DaemonOptions,
    client: Client,
    worker: WorkerId,
    store: RunStore,
    queues: Vec<ServedQueue>,
    settings: Settings,
    stop: Stop,
    log: Option<LogFile>,
    observer: Observer,
    notifier: Notifier,
) -> Server {
    let agent = &settings.agent;
    let ids: Vec<_> = queues.into_iter().map(|queue| queue.id).collect();
    let journal = RunJournal::new(store.clone(), agent.state_dir.join("runs"), worker.clone());
    let popper = Popper::new(
        ApiQueueServer::new(client.clone()),
        journal,
        worker.clone(),
        host_name(),
        Timing::default(),
    );
    let tags = options.tags.unwrap_or_else(|| agent.worker_tags.clone());
    let every = Duration::try_from_secs_f64(agent.poll.status_report_sec).unwrap_or(REPORT_EVERY);
    let monitor = Monitor::of_worker(&settings, &options.run.variables, &options.sources.env);
    let about = About {
        worker: worker.clone(),
        queues: ids.clone(),
        // Tasks that are workers of their own carry them.
        tags: if options.services.is_some() {
            Vec::new()
        } else {
            tags.clone()
        },
        is_daemon: true,
    };
    Server {
        worker,
        store,
        popper,
        reporter: Reporter::start(client.clone(), about, every, monitor),
        active: Activation::new(options.hours, ids.len()),
        queues: Queues::new(ids, options.order_fairness),
        stop,
        program: options.program.unwrap_or_else(this_program),
        use_owner_token: options.use_owner_token,
        options: RunOptions {
            worker_tags: tags,
            service: options.services.is_some(),
            variables: hidden_from_tasks(options.run.variables, options.use_owner_token),
            ..options.run
        },
        poll: agent.poll.queue_interval(options.polling_interval),
        polling_interval: options.polling_interval,
        // Nobody wants to read in a service's log every few seconds that there is nothing to do.
        verbose: (options.output == Output::Terminal && !notifier.is_present()) || agent.debug,
        trouble: Backoff::default(),
        orphans: Orphans::new(adopt_after(&settings)),
        pruned: None,
        services: None,
        report_every: every,
        log,
        observer,
        notifier,
        redactor: options.redactor,
        settings,
        client,
    }
}

/// Tasks must not speak to the service manager in the daemon's place, nor to the server in the agent's name where
/// they have their owner's.
fn hidden_from_tasks(
    mut variables: Vec<(String, Option<String>)>,
    use_owner_token: bool,
) -> Vec<(String, Option<String>)> {
    variables.extend(notify::VARIABLES.map(|name| (name.to_owned(), None)));
    if use_owner_token {
        variables.extend(owner::own_credentials().map(|name| (name, None)));
    }
    variables
}

/// What is known about this daemon before it has done anything.
fn observer(
    client: &Client,
    options: &DaemonOptions,
    settings: &Settings,
    worker: &WorkerId,
    queues: &[ServedQueue],
) -> Result<Observer, DaemonError> {
    let queues = queues.iter().map(|queue| QueuePresence {
        id: queue.id.clone(),
        name: queue.name.clone(),
        waiting: None,
        or_more: false,
        resting: false,
    });
    let presence = Presence::of_this_process(worker.clone(), env!("CARGO_PKG_VERSION"), now_ms())
        .map_err(system("reading /proc"))?;
    let presence = Presence {
        server: client.server().to_owned(),
        queues: queues.collect(),
        gpus: options.identity.visible.clone(),
        adopts_after_sec: Some(settings.agent.adopt_after_sec),
        ..presence
    };
    Ok(Observer::new(
        client.clone(),
        settings.agent.state_dir.clone(),
        presence,
    ))
}

async fn offer_metrics(
    address: Option<SocketAddr>,
    observer: &Observer,
) -> Result<Option<Metrics>, DaemonError> {
    let Some(address) = address else {
        return Ok(None);
    };
    if !address.ip().is_loopback() {
        tracing::warn!(
            "metrics can be read by every machine that reaches {address}: names of queues and of this worker are among them"
        );
    }
    let metrics = Metrics::serve(address, observer.clone())
        .await
        .map_err(|source| DaemonError::Metrics { address, source })?;
    say(&format!("Metrics: http://{}/metrics", metrics.address()));
    Ok(Some(metrics))
}

/// Logs in and finds the queues. After a boot the server may come up later than we do, so unless the
/// number of attempts was set, its absence is waited out; a server that refuses us is an error at once.
async fn find_queues(client: &Client, options: &DaemonOptions) -> Result<Vec<ServedQueue>, DaemonError> {
    let patient = options.settings.api.initial_connect == InitialConnect::Default;
    let mut backoff = Backoff::default();
    loop {
        let attempt = async {
            let session = client.login().await?;
            if options.use_owner_token {
                owner::check(&session)?;
            }
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
