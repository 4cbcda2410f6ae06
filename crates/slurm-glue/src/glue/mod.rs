//! The loop: look at jobs, look at tasks, decide, act; take new tasks where there is room.

mod ending;
mod follow;
mod owner;
mod pull;
mod recover;
mod render;
mod search;
mod submit;
mod tasks;
mod waiting;
mod watch;

pub use render::QueueCheck;

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use clearml_agent_config::Settings;
use clearml_api_client::{ApiError, Client};
use clearml_intake::order::QueueOrder;
use clearml_intake::popper::{Popper, Timing};
use clearml_intake::queues::{QueueError, ServedQueue, resolve_queues};
use clearml_support::lock::FileLock;
use clearml_task_model::{QueueId, UserId, WorkerId};
use tokio::sync::watch as signal;
use tokio::time::Instant;

use crate::core::limits::{Count, Limits};
use crate::core::pace::Pace;
use crate::journal::{Journal, JournalError, Shared};
use crate::options::{GlueOptions, QueueSetup};
use crate::parking::ParkingServer;
use crate::slurm::{Site, Slurm, SlurmError};
use crate::tell::Teller;
use crate::templates::{LoadError, Loaded};
use watch::Watch;

/// So many requests about different tasks go to the server at the same time.
const AT_ONCE: usize = 8;

/// Extra looks, for jobs that have ended, are so far apart at least.
const EXTRA: Duration = Duration::from_millis(500);

/// The glue could not be started, or goes on no more.
#[derive(Debug, thiserror::Error)]
pub enum GlueError {
    /// A template.
    #[error(transparent)]
    Template(#[from] LoadError),
    /// A queue.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The server.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Slurm.
    #[error(transparent)]
    Slurm(#[from] SlurmError),
    /// Another glue works with this journal.
    #[error(
        "another glue works in {0}; stop it, or give this one a name of its own with CLEARML_WORKER_NAME"
    )]
    Running(std::path::PathBuf),
    /// Another glue of this account has the same id, and would take up our jobs, and we its.
    #[error("another glue works as {0}; stop it, or give this one another name with CLEARML_WORKER_NAME")]
    SameId(WorkerId),
    /// The state folder.
    #[error("{}: {source}; choose another folder with --state-dir", path.display())]
    State {
        /// The folder.
        path: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Nothing to say about a task.
    #[error("{0}")]
    Task(String),
}

/// A queue that is served.
#[derive(Debug)]
struct Served {
    queue: ServedQueue,
    setup: QueueSetup,
    template: Loaded,
    /// The cluster takes no more of its jobs until then.
    paused: Option<Instant>,
    refusals: u32,
    /// When it was last said that the queue does not exist any more.
    missing_told: Cell<Option<Instant>>,
}

/// One glue.
#[derive(Debug)]
pub struct Glue {
    client: Client,
    settings: Settings,
    options: GlueOptions,
    worker: WorkerId,
    served: Vec<Served>,
    order: QueueOrder,
    server: ParkingServer,
    popper: Arc<Popper<ParkingServer, Shared>>,
    journal: Arc<Journal>,
    slurm: Slurm,
    /// What Slurm says about itself; nothing is decided before it has.
    site: Option<Site>,
    /// The Linux user that we are.
    own_user: String,
    tell: Teller,
    watches: HashMap<String, Watch>,
    /// Since when Slurm can't be reached.
    outage: Option<Instant>,
    outage_told: Option<Instant>,
    pace: Pace,
    /// sacct is of no use until then; `None`: it is.
    no_accounting: Option<Instant>,
    recovered: bool,
    /// States of jobs that we do not know, each said once.
    odd_states: HashSet<String>,
    /// Sessions of the owners of tasks.
    owners: tokio::sync::Mutex<HashMap<UserId, Client>>,
    _lock: FileLock,
}

/// How a run is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// Until told to stop.
    ForEver,
    /// One look at everything.
    Once,
    /// Until nothing is tracked, without taking anything.
    Drain,
}

impl Glue {
    /// Prepares everything: templates, queues, journal, the name of the cluster. Takes nothing yet.
    ///
    /// # Errors
    ///
    /// When anything of it can't be used.
    pub async fn new(
        client: Client,
        settings: Settings,
        options: GlueOptions,
        worker: WorkerId,
    ) -> Result<Self, GlueError> {
        let (lock, journal) = open_journal(&options, &worker)?;
        let served = served(&client, &options).await?;
        let parking = match &options.parking {
            // Looking makes nothing.
            Some(name) if !options.look_only => {
                let queues = resolve_queues(&client, std::slice::from_ref(name), true).await?;
                queues.into_iter().next()
            }
            _ => None,
        };
        let slurm = slurm(&options);
        let site = match slurm.site().await {
            Ok(site) => Some(site),
            Err(error @ SlurmError::Missing { .. }) if !options.look_only => return Err(error.into()),
            Err(error) => {
                tracing::warn!("{error}");
                None
            }
        };
        let uid = rustix::process::geteuid().as_raw().to_string();
        let own_user = slurm.name_of(&uid).await.unwrap_or(uid);
        let server = ParkingServer::new(client.clone(), parking);
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Ok(Self {
            tell: Teller::new(client.clone(), worker.clone()),
            popper: Arc::new(Popper::new(
                server.clone(),
                Shared(Arc::clone(&journal)),
                worker.clone(),
                host,
                Timing::default(),
            )),
            order: QueueOrder::new(options.order_fairness),
            client,
            settings,
            pace: Pace::new(options.poll),
            options,
            worker,
            served,
            server,
            journal,
            slurm,
            site,
            own_user,
            watches: HashMap::new(),
            outage: None,
            outage_told: None,
            no_accounting: None,
            recovered: false,
            odd_states: HashSet::new(),
            owners: tokio::sync::Mutex::default(),
            _lock: lock,
        })
    }

    /// The queues that are served.
    #[must_use]
    pub fn queues(&self) -> Vec<QueueId> {
        self.served.iter().map(|served| served.queue.id.clone()).collect()
    }

    /// Whether its map says that jobs run as other users. Vaults may say so for some tasks.
    #[must_use]
    pub fn impersonates(&self) -> bool {
        !self.options.user_map.is_empty()
    }

    /// The name of the cluster, once it has said so.
    #[must_use]
    pub fn cluster(&self) -> Option<&str> {
        self.site.as_ref().map(|site| site.cluster.as_str())
    }

    /// How a job is noted in its task.
    fn note_of(&self, job: u64) -> String {
        format!("{}/{job}", self.cluster().unwrap_or_default())
    }

    /// Serves the queues. A change of `stop` ends it; jobs go on.
    ///
    /// # Errors
    ///
    /// When the journal can't be written any more.
    pub async fn run(&mut self, how: Run, mut stop: signal::Receiver<bool>) -> Result<(), GlueError> {
        let mut next_look = Instant::now();
        loop {
            let begun = Instant::now();
            if begun >= next_look {
                self.look().await?;
                next_look = self.next_look(begun);
            }
            let may_pull = self.outage.is_none() && self.recovered && how != Run::Drain;
            let more = may_pull && self.pull(how == Run::Once, &stop, next_look).await?;
            match how {
                Run::Once => return self.look().await,
                Run::Drain if self.journal.is_empty() => return Ok(()),
                _ => {}
            }
            if *stop.borrow() {
                return Ok(());
            }
            if more {
                continue;
            }
            let wait = (begun + self.options.queue_poll).min(next_look.max(begun));
            let wait = wait.max(begun + Duration::from_millis(50));
            tokio::select! {
                () = tokio::time::sleep_until(wait) => {}
                _ = stop.changed() => return Ok(()),
            }
        }
    }

    /// When jobs are looked at again, after a look that began then: after the usual pause, or as soon as the time of
    /// an agent is up whose job has ended.
    fn next_look(&self, begun: Instant) -> Instant {
        let now = Instant::now();
        let graces = &self.options.graces;
        let due = self.watches.values().filter_map(|watch| watch.due(graces));
        // What was due in this look was done, or has to wait until the server is back.
        let due = due.filter(|due| *due > now).min();
        let usual = begun + self.pace.pause();
        due.map_or(usual, |due| due.max(now + EXTRA).min(usual))
    }

    fn served_of(&self, queue: &QueueId) -> Option<usize> {
        self.served.iter().position(|served| served.queue.id == *queue)
    }

    /// Whether another task of this queue may become a job. What is on its way to a job counts like one.
    fn has_room(&self, index: usize) -> bool {
        let mut all = Count::default();
        let mut own = Count::default();
        let queue = &self.served[index].queue.id;
        self.journal.for_each(|record| {
            let pending = usize::from(!record.was_active);
            all.jobs += 1;
            all.pending += pending;
            if record.intent.queue == *queue {
                own.jobs += 1;
                own.pending += pending;
            }
        });
        let limits: Limits = self.served[index].setup.limits;
        let paused = self.served[index]
            .paused
            .is_some_and(|until| Instant::now() < until);
        !paused && self.options.limits.has_room(all) && limits.has_room(own)
    }

    /// Notes that Slurm can't be reached: once, and then every five minutes.
    fn outage(&mut self, why: &str) {
        let why = why.lines().map(str::trim).collect::<Vec<_>>().join("; ");
        let now = Instant::now();
        self.outage.get_or_insert(now);
        let due = self
            .outage_told
            .is_none_or(|told| now.duration_since(told) > Duration::from_secs(300));
        if due {
            self.outage_told = Some(now);
            tracing::warn!(
                "Slurm can't be reached: {why}; nothing is taken from the queues until it is back"
            );
        }
    }

    fn outage_over(&mut self) {
        let Some(since) = self.outage.take() else { return };
        self.outage_told = None;
        tracing::info!("Slurm can be reached again");
        if since.elapsed() > Duration::from_secs(120) {
            // What was not seen meanwhile may still come back.
            for watch in self.watches.values_mut() {
                watch.forget_absence();
            }
        }
    }
}

/// Does something that waits for the disk where it delays nothing else, on a runtime with more than one thread.
async fn aside<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn open_journal(options: &GlueOptions, worker: &WorkerId) -> Result<(FileLock, Arc<Journal>), GlueError> {
    let state = |source| GlueError::State {
        path: options.state_dir.clone(),
        source,
    };
    clearml_support::fs::create_private_dir(&options.state_dir).map_err(state)?;
    let lock = FileLock::try_acquire(&options.state_dir.join("lock"))
        .map_err(state)?
        .ok_or_else(|| GlueError::Running(options.state_dir.clone()))?;
    let journal = Journal::open(&options.state_dir, worker)?;
    Ok((lock, Arc::new(journal)))
}

async fn served(client: &Client, options: &GlueOptions) -> Result<Vec<Served>, GlueError> {
    let templates = options
        .queues
        .iter()
        .map(|setup| {
            let loaded = Loaded::read(setup.template.clone(), options.template_options(setup))?;
            if !options.look_only {
                for warning in loaded.template.warnings() {
                    tracing::warn!("{}:{warning}", setup.template.display());
                }
            }
            Ok(loaded)
        })
        .collect::<Result<Vec<_>, LoadError>>()?;
    let mut served = Vec::new();
    for (setup, template) in options.queues.iter().zip(templates) {
        let creates = options.create_queue && !options.look_only;
        let queues = match resolve_queues(client, std::slice::from_ref(&setup.queue), creates).await {
            // It will be created; its jobs can be looked at all the same.
            Err(QueueError::NotFound { .. }) if options.create_queue => vec![ServedQueue {
                id: QueueId::new(""),
                name: setup.queue.clone(),
                tags: Vec::new(),
            }],
            found => found?,
        };
        served.extend(queues.into_iter().next().map(|queue| Served {
            queue,
            setup: setup.clone(),
            template,
            paused: None,
            refusals: 0,
            missing_told: Cell::default(),
        }));
    }
    Ok(served)
}

/// The commands of Slurm as these options want them.
#[must_use]
pub fn slurm(options: &GlueOptions) -> Slurm {
    Slurm {
        bin_dir: options.bin_dir.clone(),
        environment: Slurm::environment(|name| std::env::var(name).ok(), &options.pass_env),
        timeout: options.command_timeout,
    }
}
