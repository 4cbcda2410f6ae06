//! Services mode: the tasks that a daemon has in hand while it goes on looking for more.
//!
//! All of them are looked after by one runner, a process of its own ([`clearml_task_runner::run_many`]); the
//! daemon and that runner share nothing but a folder with a link to each run. A link that has gone means that
//! the runner has nothing left to do for the run. So a daemon that comes back finds what goes on, and a runner
//! that dies is replaced. A run with which it can't get on, or that seems to be what kills it, gets a runner
//! of its own, as outside of services mode.
//!
//! To the server each task is a worker of its own, which is registered and reported here. How many there may
//! be is counted here too, so it needs nothing of the server.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clearml_api_client::{Client, WorkersQuery};
use clearml_intake::Reporter;
use clearml_support::fs::{create_private_dir, safe_file_name};
use clearml_support::lock::FileLock;
use clearml_task_model::{TaskId, WorkerId};
use clearml_task_runner::{RunDir, RunRecord, lock_of_many, service_worker, spawn_runner_of_many};
use rustix::process::Signal;
use tokio::sync::{Notify, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::count::Counter;
use crate::journal::RunJournal;
use crate::observe::Observer;
use crate::serve::announce_end;
use crate::watch::{Watch, WatchEnd};

/// How often to look which runs have ended.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A runner that has lived this long has done something; its death starts a new count.
const LIVED: Duration = Duration::from_secs(10);
/// So many runners in a row that got nowhere: then each run gets one of its own.
const MOST_DEATHS: u32 = 5;
/// So often a run is handed to the common runner.
const MOST_ATTEMPTS: u32 = 3;
/// How long an absent server may hold up that a worker is taken off its list.
const UNREGISTER_LIMIT: Duration = Duration::from_secs(3);
/// So many workers are taken off at the same time.
const UNREGISTER_AT_ONCE: usize = 8;
/// How often the runner is told that the daemon has to end.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Services {
    inner: Arc<Inner>,
    limit: Option<usize>,
    counter: Option<Counter>,
    looking: JoinHandle<()>,
}

/// What the table of services works with.
#[derive(Debug)]
pub(crate) struct Tools {
    pub(crate) client: Client,
    pub(crate) observer: Observer,
    pub(crate) journal: RunJournal,
    pub(crate) program: PathBuf,
    /// `agent.requeue_on_infrastructure_failure`.
    pub(crate) requeue_limit: u64,
}

#[derive(Debug)]
struct Inner {
    tools: Tools,
    folder: PathBuf,
    hands: Mutex<HashMap<OsString, Hand>>,
    /// A run has ended.
    changed: Notify,
    stopping: Arc<AtomicBool>,
    goodbyes: Mutex<JoinSet<()>>,
    goodbyes_at_once: Arc<Semaphore>,
}

/// A run in hand.
#[derive(Debug)]
struct Hand {
    run: RunDir,
    task: TaskId,
    reporter: Reporter,
    attempts: u32,
    next: Instant,
    /// Its own runner, where it does not get on with the others.
    alone: Option<JoinHandle<()>>,
}

impl Services {
    /// Begins with none. The folder is named after worker and version, because a runner of an older agent can't
    /// be trusted with runs of this one.
    ///
    /// # Errors
    ///
    /// When the folder can't be made.
    pub(crate) fn start(
        tools: Tools,
        state_dir: &Path,
        worker: &WorkerId,
        limit: Option<usize>,
        counter: Option<Counter>,
    ) -> io::Result<Self> {
        let name = format!(
            "{}@{}",
            safe_file_name(worker.as_str()),
            env!("CARGO_PKG_VERSION")
        );
        let folder = state_dir.join("services").join(name);
        create_private_dir(&state_dir.join("services"))?;
        create_private_dir(&folder)?;
        let inner = Arc::new(Inner {
            tools,
            folder,
            hands: Mutex::default(),
            changed: Notify::new(),
            stopping: Arc::default(),
            goodbyes: Mutex::default(),
            goodbyes_at_once: Arc::new(Semaphore::new(UNREGISTER_AT_ONCE)),
        });
        let table = Arc::clone(&inner);
        let looking = tokio::spawn(async move {
            let mut host = Host::default();
            loop {
                table.look(&mut host);
                sleep(LOOK_EVERY).await;
            }
        });
        Ok(Self {
            inner,
            limit,
            counter,
            looking,
        })
    }

    /// How many run.
    pub(crate) fn count(&self) -> usize {
        self.inner.hands().len()
    }

    /// Whether one more may run. May be dropped at any moment.
    pub(crate) async fn has_room(&mut self) -> bool {
        let Some(limit) = self.limit else { return true };
        if self.count() >= limit {
            return false;
        }
        match &mut self.counter {
            Some(counter) => counter.count().await < limit,
            None => true,
        }
    }

    /// Returns when one has ended since the last call.
    pub(crate) async fn one_ended(&self) {
        self.inner.changed.notified().await;
    }

    /// The folders of the runs in hand.
    pub(crate) fn in_hand(&self) -> HashSet<PathBuf> {
        let hands = self.inner.hands();
        hands.values().map(|hand| hand.run.path().to_owned()).collect()
    }

    /// Has the run looked after from now on. Its inputs are written, and this daemon is its keeper.
    pub(crate) fn take(&self, run: RunDir, record: &RunRecord, reporter: Reporter) {
        let name = run.path().file_name().unwrap_or_default().to_owned();
        let mut hand = Hand {
            task: record.identity.task.clone(),
            run,
            reporter,
            attempts: 0,
            next: Instant::now(),
            alone: None,
        };
        // Otherwise the runner of an earlier daemon has it, or has just let go of it.
        if !hand.run.runner_alive() {
            self.inner.hand_over(&name, &mut hand);
        }
        self.inner.hands().insert(name, hand);
    }

    /// Takes workers off the server's list that an earlier daemon has left there and whose tasks have ended since.
    pub(crate) async fn forget_ended(&self, worker: &WorkerId) {
        let client = &self.inner.tools.client;
        let query = WorkersQuery {
            worker_pattern: Some(format!("{worker}:service:*")),
            ..WorkersQuery::default()
        };
        let listed = match client.workers_get_all(&query).await {
            Ok(listed) => listed,
            Err(e) => return tracing::debug!("asking for services of an earlier time: {e}"),
        };
        let known: HashSet<WorkerId> = {
            let hands = self.inner.hands();
            hands
                .values()
                .map(|hand| service_worker(worker, &hand.task))
                .collect()
        };
        for entry in listed.iter().filter(|entry| !known.contains(&entry.id)) {
            if let Err(e) = client.workers_unregister(&entry.id).await {
                tracing::debug!("{e}");
            }
        }
    }

    /// Leaves all runs to themselves and their runner.
    pub(crate) fn leave(self) {
        self.looking.abort();
        for (_, hand) in self.inner.hands().drain() {
            announce_end(&hand.task, &hand.run, None);
        }
    }

    /// Ends all runs, until `hurry` comes or the time is over.
    pub(crate) async fn stop(self, patience: Duration, hurry: impl Future<Output = ()>) {
        self.inner.stopping.store(true, Ordering::SeqCst);
        let telling = async {
            while self.count() > 0 {
                self.inner.tell_to_stop();
                let _told_again = timeout(TELL_EVERY, self.one_ended()).await;
            }
        };
        tokio::select! {
            () = telling => {}
            () = sleep(patience) => {}
            () = hurry => {}
        }
        self.looking.abort();
        for (_, hand) in self.inner.hands().drain() {
            announce_end(&hand.task, &hand.run, Some(WatchEnd::Ending));
            self.inner.say_goodbye(hand.reporter);
        }
        let mut goodbyes = std::mem::take(&mut *locked(&self.inner.goodbyes));
        let all = async { while goodbyes.join_next().await.is_some() {} };
        if timeout(UNREGISTER_LIMIT * 2, all).await.is_err() {
            tracing::warn!(
                "some services are still on the server's list of workers; it forgets them in time"
            );
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn hands(&self) -> MutexGuard<'_, HashMap<OsString, Hand>> {
        locked(&self.hands)
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Gives the run to the common runner, or one of its own after several attempts.
    fn hand_over(&self, name: &OsString, hand: &mut Hand) {
        hand.attempts += 1;
        hand.next = Instant::now() + LOOK_EVERY * 2 * hand.attempts.pow(2);
        if hand.attempts > MOST_ATTEMPTS {
            return self.isolate(hand);
        }
        if let Err(e) = std::os::unix::fs::symlink(hand.run.path(), self.folder.join(name))
            && e.kind() != io::ErrorKind::AlreadyExists
        {
            tracing::warn!("handing task {} to the runner of services: {e}", hand.task);
        }
    }

    fn isolate(&self, hand: &mut Hand) {
        tracing::warn!("task {} gets a runner of its own", hand.task);
        let mut watch =
            Watch::new(hand.run.clone(), self.tools.program.clone()).requeue_limit(self.tools.requeue_limit);
        let (client, stopping) = (self.tools.client.clone(), Arc::clone(&self.stopping));
        hand.alone = Some(tokio::spawn(async move {
            let stopping = || stopping.load(Ordering::SeqCst);
            if let Err(e) = Box::pin(watch.until_done(&client, stopping)).await {
                tracing::error!("{e}");
            }
        }));
    }

    /// Looks once at everything.
    fn look(&self, host: &mut Host) {
        let linked: HashSet<OsString> = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries
                .filter_map(|entry| Some(entry.ok()?.file_name()))
                .collect(),
            Err(e) => {
                tracing::warn!("listing the runs in {}: {e}", self.folder.display());
                return;
            }
        };
        let mut ended = Vec::new();
        {
            let mut hands = self.hands();
            let waiting = hands.keys().any(|name| linked.contains(name));
            if host.keep_alive(&self.tools.program, &self.folder, waiting && !self.is_stopping()) {
                for (name, hand) in hands.iter_mut().filter(|(name, _)| linked.contains(*name)) {
                    let _gone = std::fs::remove_file(self.folder.join(name));
                    self.isolate(hand);
                }
            }
            for (name, hand) in hands.iter_mut() {
                if let Some(end) = self.end_of(name, hand, linked.contains(name)) {
                    ended.push((name.clone(), end));
                }
            }
            for (name, end) in ended.drain(..) {
                if let Some(hand) = hands.remove(&name) {
                    self.ended(&name, hand, end);
                }
            }
        }
        while locked(&self.goodbyes).try_join_next().is_some() {}
    }

    /// Whether nobody has anything to do for the run any more.
    fn end_of(&self, name: &OsString, hand: &mut Hand, linked: bool) -> Option<WatchEnd> {
        if hand.alone.as_ref().is_some_and(|alone| !alone.is_finished()) || (linked && !self.is_stopping()) {
            return None;
        }
        match hand.run.record() {
            Ok(record) if record.phase.is_final() && !linked => {
                let code = record.outcome.as_ref().and_then(|outcome| outcome.exit_code);
                // A run without outcome was given up by whoever looked after it.
                Some(if record.outcome.is_none() && hand.alone.is_some() {
                    WatchEnd::GivenUp
                } else {
                    WatchEnd::Done(code)
                })
            }
            _ if hand.run.runner_alive() => None,
            _ if self.is_stopping() => Some(WatchEnd::LeftForLater),
            _ if hand.alone.is_none() && Instant::now() >= hand.next => {
                self.hand_over(name, hand);
                None
            }
            // Nothing more can be done by this daemon; the next one tries again.
            _ if hand.alone.is_some() => Some(WatchEnd::LeftForLater),
            _ => None,
        }
    }

    fn ended(&self, name: &OsString, hand: Hand, end: WatchEnd) {
        let _gone = std::fs::remove_file(self.folder.join(name));
        if matches!(end, WatchEnd::Done(_) | WatchEnd::GivenUp) {
            match hand.run.record() {
                Ok(record) => self.tools.observer.ended(&record),
                Err(e) => tracing::warn!("{e}"),
            }
            if let Err(e) = hand.run.clean() {
                tracing::warn!("{e}");
            }
        }
        announce_end(&hand.task, &hand.run, Some(end));
        self.tools.journal.let_go_of(&hand.run);
        self.say_goodbye(hand.reporter);
        self.changed.notify_one();
    }

    /// Takes a worker off the server's list, in the background.
    fn say_goodbye(&self, reporter: Reporter) {
        let turns = Arc::clone(&self.goodbyes_at_once);
        locked(&self.goodbyes).spawn(async move {
            let _turn = turns.acquire_owned().await;
            reporter.stop(UNREGISTER_LIMIT).await;
        });
    }

    /// Tells all runners that they shall end. Telling it twice does no harm.
    fn tell_to_stop(&self) {
        let hands = self.hands();
        let records = hands.values().filter_map(|hand| hand.run.record().ok());
        let mut told = HashSet::new();
        for runner in records.filter_map(|record| record.runner) {
            if told.insert(runner.pid)
                && let Err(e) = runner.signal(Signal::TERM)
            {
                tracing::warn!("telling the runner {} to end: {e}", runner.pid);
            }
        }
    }
}

/// The runner that all services share.
#[derive(Debug, Default)]
struct Host {
    child: Option<(Child, Instant)>,
    deaths: u32,
    not_before: Option<Instant>,
}

impl Host {
    /// Sees to it that a runner lives where one is needed. Returns whether that has failed too often.
    fn keep_alive(&mut self, program: &Path, folder: &Path, needed: bool) -> bool {
        if let Some((child, started)) = &mut self.child {
            match child.try_wait() {
                Ok(None) => return false,
                Ok(Some(status)) if needed => {
                    self.deaths = if started.elapsed() < LIVED {
                        self.deaths + 1
                    } else {
                        0
                    };
                    let pause = LOOK_EVERY * self.deaths.pow(2);
                    self.not_before = Some(Instant::now() + pause);
                    tracing::warn!(
                        "the runner of services has ended ({status}); starting another one in {pause:?}, see {}",
                        folder.join(".runner.log").display()
                    );
                }
                // An error means that somebody else has reaped it.
                Ok(Some(_)) | Err(_) => {}
            }
            self.child = None;
        }
        if !needed || self.not_before.is_some_and(|time| Instant::now() < time) {
            return false;
        }
        if self.deaths >= MOST_DEATHS {
            self.deaths = 0;
            return true;
        }
        // One that an earlier daemon has started looks after the same folder.
        if matches!(FileLock::try_acquire(&lock_of_many(folder)), Ok(None)) {
            return false;
        }
        match spawn_runner_of_many(program, folder) {
            Ok(child) => self.child = Some((child, Instant::now())),
            Err(e) => {
                tracing::error!("starting the runner of services: {e}");
                self.deaths += 1;
                self.not_before = Some(Instant::now() + LOOK_EVERY * self.deaths.pow(2));
            }
        }
        false
    }
}
