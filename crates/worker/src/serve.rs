//! The loop of the daemon: one task at a time, from the queues to its end.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clearml_agent_config::Settings;
use clearml_api_client::Client;
use clearml_intake::schedule::Backoff;
use clearml_intake::{Intent, Outcome, Phase as PopPhase, PopError, Reporter};
use clearml_support::redact::Redactor;
use clearml_task_model::{TaskId, WorkerId};
use clearml_task_runner::record::{End, Outcome as RunOutcome};
use clearml_task_runner::run_dir::KEEP_FINISHED;
use clearml_task_runner::{RunDir, RunDirError, RunOptions, RunStore};
use tokio::time::{Instant, sleep, timeout};
use tracing::Level;

use crate::active::Activation;
use crate::adopt::Orphans;
use crate::background::LogFile;
use crate::decide::is_untouched as can_be_given_back;
use crate::journal::RunJournal;
use crate::notify::Notifier;
use crate::observe::Observer;
use crate::pull::{Pulled, Queues, TaskPopper, report};
use crate::services::Services;
use crate::stop::Stop;
use crate::watch::{WatchEnd, WatchError};

/// The `tracing` target of what the daemon says to people. A program whose log has this target enabled gets
/// it there; otherwise it is plain text on standard output.
pub const ANNOUNCEMENTS: &str = "announcement";

/// How often finished runs are looked for where many run.
const PRUNE_EVERY: Duration = Duration::from_secs(10);
/// How long a pop that is under way may take when the daemon has to end.
const POP_PATIENCE: Duration = Duration::from_secs(10);
/// A machine that can't run a task is left alone for 3 s at first and for a minute at most.
const TROUBLE_FACTOR: u32 = 6;

/// Everything the loop works with.
pub(crate) struct Server {
    pub(crate) client: Client,
    pub(crate) settings: Settings,
    pub(crate) worker: WorkerId,
    pub(crate) store: RunStore,
    pub(crate) popper: TaskPopper,
    pub(crate) queues: Queues,
    pub(crate) reporter: Reporter,
    pub(crate) stop: Stop,
    pub(crate) program: PathBuf,
    pub(crate) options: RunOptions,
    /// Works for each task in the name of its owner.
    pub(crate) use_owner_token: bool,
    pub(crate) poll: Duration,
    /// The option that may have a part in [`Self::poll`].
    pub(crate) polling_interval: Option<f64>,
    pub(crate) verbose: bool,
    /// Faults of this machine in a row.
    pub(crate) trouble: Backoff,
    pub(crate) orphans: Orphans,
    pub(crate) active: Activation,
    /// When finished runs were last removed.
    pub(crate) pruned: Option<Instant>,
    /// In services mode: the tasks in hand.
    pub(crate) services: Option<Services>,
    /// Between status reports of services.
    pub(crate) report_every: Duration,
    /// Where the output goes, if not to a terminal.
    pub(crate) log: Option<LogFile>,
    pub(crate) observer: Observer,
    pub(crate) notifier: Notifier,
    /// Learns the secrets of a configuration that was read anew.
    pub(crate) redactor: Redactor,
}

impl Server {
    /// Serves until told to end. Errors of single steps are reported and the loop goes on.
    pub(crate) async fn serve(&mut self) {
        self.remove_left_containers();
        self.finish_earlier_runs().await;
        self.forget_ended_services().await;
        while !self.stop.requested() {
            self.let_go();
            self.adopt_orphans().await;
            if !self.has_room().await {
                continue;
            }
            let stop = self.stop.clone();
            let heads = tokio::select! {
                heads = self.heads() => heads,
                () = stop.wait() => break,
            };
            match self.pull(&heads).await {
                Some(Pulled::Task(intent)) => {
                    self.observer.took(&intent.queue);
                    self.run_claimed(intent).await;
                }
                Some(Pulled::Open(intent, phase)) => self.settle(intent, phase).await,
                Some(Pulled::Again) => {}
                Some(Pulled::Nothing) => self.idle(&heads).await,
                None => break,
            }
        }
        self.end_services().await;
    }

    /// The tasks at the heads of the queues that are served at this hour. May be dropped at any moment.
    async fn heads(&mut self) -> Vec<Option<TaskId>> {
        let mut heads = self.queues.heads(&self.client, &self.observer).await;
        let (ids, tags) = (self.queues.ids(), self.queues.tags());
        self.active
            .mask(&self.client, &self.worker, ids, tags, &mut heads)
            .await;
        self.observer.rests(self.active.resting());
        heads
    }

    /// A pop that has begun is brought to its end even if the daemon has to end: up to a point.
    async fn pull(&mut self, heads: &[Option<TaskId>]) -> Option<Pulled> {
        let stop = self.stop.clone();
        let patience = async {
            stop.wait().await;
            sleep(POP_PATIENCE).await;
        };
        tokio::select! {
            pulled = self.queues.pull(heads, &self.popper) => Some(pulled),
            () = patience => None,
        }
    }

    async fn idle(&mut self, heads: &[Option<TaskId>]) {
        if self.verbose {
            self.say_idle(heads);
        }
        let mut stop = self.stop.clone();
        let woken = tokio::select! {
            () = sleep(self.poll) => false,
            () = self.stop.wait() => false,
            () = stop.wait_for_reload() => true,
        };
        if woken {
            self.stop = stop;
            self.reload_on_demand();
        }
    }

    fn say_idle(&self, heads: &[Option<TaskId>]) {
        let pause = self.poll.as_secs_f64();
        if !self.queues.are_readable() {
            return say(&format!(
                "The queues can't be read now, sleeping for {pause:.1} seconds"
            ));
        }
        let resting = self.active.resting();
        for ((queue, head), resting) in self.queues.ids().iter().zip(heads).zip(resting) {
            if *resting {
                say(&format!(
                    "Queue {queue} rests: working hours, one of its tags, or a property of the worker"
                ));
            } else if let Some(task) = head {
                say(&format!("Task {task} of queue {queue} can't be taken now"));
            } else if !self.queues.is_missing(queue) {
                say(&format!("No tasks in queue {queue}"));
            }
        }
        let found = match heads.iter().any(Option::is_some) {
            true => "No task can be taken",
            false => "No tasks in Queues",
        };
        say(&format!("{found}, sleeping for {pause:.1} seconds"));
    }

    /// Finds out what has become of a pop, however long the server is away.
    pub(crate) async fn settle(&mut self, intent: Intent, mut phase: PopPhase) {
        let mut intent = intent;
        let mut backoff = Backoff::default();
        loop {
            let stop = self.stop.clone();
            let result = tokio::select! {
                result = Box::pin(self.popper.recover(intent.clone(), phase)) => result,
                // The journal keeps it for the next daemon.
                () = stop.wait() => return,
            };
            match result {
                Ok(Outcome::Ours(intent)) => return self.run_claimed(intent).await,
                Ok(outcome) => return report(&outcome),
                Err(PopError::Unresolved {
                    intent: open,
                    phase: at,
                    source,
                }) => {
                    tracing::warn!("task {}: {source}; its pop is still open", open.task);
                    (intent, phase) = (*open, at);
                }
                Err(error) => {
                    tracing::error!("{error}");
                    return;
                }
            }
            let _elapsed_or_stopped = timeout(backoff.failed(), self.stop.wait()).await;
        }
    }

    /// A task is ours: runs it, or gives it back if the daemon is about to end.
    async fn run_claimed(&mut self, intent: Intent) {
        if self.stop.requested() {
            return self.give_back(intent).await;
        }
        let result = match self.journal().run(&intent) {
            Ok(run) => self.run_in_hand(run).await,
            Err(e) => Err(e.into()),
        };
        match result {
            Ok(()) => {
                self.trouble.succeeded();
            }
            Err(e) => self.could_not_run(intent, &e).await,
        }
        self.prune();
    }

    pub(crate) fn journal(&self) -> &RunJournal {
        self.popper.journal()
    }

    /// A run that can't be looked after goes back to its queue, if its program can't have started. The
    /// fault is one of this machine, a full disk for example: leave its queues alone for a while, so
    /// that another worker gets the task.
    async fn could_not_run(&mut self, intent: Intent, error: &WatchError) {
        tracing::error!("task {} can't be run here: {error}", intent.task);
        if is_untouched(self.journal().run(&intent)) {
            self.give_back(intent).await;
        } else {
            tracing::error!("its program may be running; it is looked after again in a while");
        }
        let pause = self.trouble.failed() * TROUBLE_FACTOR;
        tracing::warn!("not pulling tasks for {pause:?}");
        self.observer.pauses(pause, error.to_string());
        let _elapsed_or_stopped = timeout(pause, self.stop.wait()).await;
        self.observer.goes_on();
    }

    /// Puts a claimed task back, however long the server is away; only the end of the daemon limits that.
    async fn give_back(&self, intent: Intent) {
        let mut backoff = Backoff::default();
        let patience = async {
            self.stop.wait().await;
            sleep(POP_PATIENCE).await;
        };
        let giving = async {
            loop {
                match Box::pin(self.popper.give_back(intent.clone(), PopPhase::Claimed)).await {
                    Ok(outcome) => return report(&outcome),
                    Err(PopError::Unresolved { source, .. }) => {
                        tracing::warn!("task {} can't be put back yet: {source}", intent.task);
                    }
                    Err(e) => return tracing::error!("{e}"),
                }
                sleep(backoff.failed()).await;
            }
        };
        tokio::select! {
            () = giving => {}
            () = patience => tracing::warn!("the next daemon of this worker continues with task {}", intent.task),
        }
    }

    pub(crate) fn prune(&mut self) {
        // It reads the records of all runs, of which a thousand may have begun in a row.
        let every = if self.services.is_some() {
            PRUNE_EVERY
        } else {
            Duration::ZERO
        };
        if self.pruned.is_some_and(|pruned| pruned.elapsed() < every) {
            return;
        }
        self.pruned = Some(Instant::now());
        if let Err(e) = self.store.prune(KEEP_FINISHED) {
            tracing::warn!("{e}");
        }
    }
}

/// Whether a claimed run can be given back: its program has not started, and nobody is about to start it.
/// What can't be found out counts as touched, because a task that runs twice is worse than one that waits.
fn is_untouched(run: Result<RunDir, RunDirError>) -> bool {
    let run = match run {
        Ok(run) => run,
        Err(RunDirError::File(e)) => return e.is_not_found(),
        Err(_) => return false,
    };
    // In this order: without a runner, nobody changes the record any more.
    let alive = run.runner_alive();
    run.record()
        .is_ok_and(|record| can_be_given_back(alive, record.phase))
}

/// Says something to whoever sits at the terminal or reads the log. A terminal that has gone away, or a
/// disk that is full, must not end the daemon.
pub(crate) fn say(text: &str) {
    if tracing::enabled!(target: ANNOUNCEMENTS, Level::INFO) {
        tracing::info!(target: ANNOUNCEMENTS, "{text}");
    } else {
        let _unwritable = writeln!(io::stdout(), "{text}");
    }
}

pub(crate) fn announce_end(task: &TaskId, run: &RunDir, end: Option<WatchEnd>) {
    match end {
        Some(WatchEnd::Done(code)) => {
            let outcome = run.record().ok().and_then(|record| record.outcome);
            say(&format!(
                "DONE: Running task '{task}'{}",
                shown_end(code, outcome.as_ref())
            ));
        }
        Some(WatchEnd::GivenUp) => say(&format!("DONE: Running task '{task}' (infrastructure failure)")),
        Some(WatchEnd::Ending) => {
            say(&format!(
                "Task '{task}' has been told to end; that goes on without the daemon"
            ));
        }
        Some(WatchEnd::LeftForLater) => {
            say(&format!(
                "Task '{task}' was stopped; the rest of its report follows when the agent runs again"
            ));
        }
        None => say(&format!(
            "Task '{task}' goes on without the daemon; start the agent again to adopt it"
        )),
    }
}

fn shown_end(code: Option<i32>, outcome: Option<&RunOutcome>) -> String {
    match (outcome.map(|outcome| (outcome.end, &outcome.status_reason)), code) {
        (Some((End::Stopped, _)), _) => " (user aborted)".to_owned(),
        (Some((End::Requeued, reason)), _) => format!(" (put back into its queue: {reason})"),
        (_, Some(code)) => format!(", exit status {code}"),
        (Some((_, reason)), None) if !reason.is_empty() => format!(" (not run to its end: {reason})"),
        (_, None) => " (not run)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clearml_support::lock::FileLock;
    use clearml_task_runner::{NewRun, Phase};

    use super::*;

    #[test]
    fn the_end_of_a_task_is_said_as_it_was() {
        let said = |end, reason: &str, code| {
            let outcome = RunOutcome {
                end,
                status_reason: reason.to_owned(),
                line: None,
                exit_code: code,
            };
            shown_end(code, Some(&outcome))
        };
        assert_eq!(
            said(End::Failed, "worker execution exit code 3", Some(3)),
            ", exit status 3"
        );
        assert_eq!(said(End::Stopped, "user abort", Some(-15)), " (user aborted)");
        let lost = "infrastructure: the machine restarted";
        assert_eq!(
            said(End::Requeued, lost, None),
            format!(" (put back into its queue: {lost})")
        );
        assert_eq!(
            said(End::Failed, lost, None),
            format!(" (not run to its end: {lost})")
        );
        assert_eq!(shown_end(None, None), " (not run)");
    }

    #[test]
    fn only_a_run_that_nobody_can_have_started_is_given_back() {
        let state = tempfile::tempdir().unwrap();
        let store = RunStore::open(state.path()).unwrap();
        let new = NewRun {
            task: TaskId::new("t"),
            queue: None,
            worker: WorkerId::new("w"),
        };
        let (run, _keeper) = store.create(new).unwrap();
        let open = || RunDir::open(run.path());
        run.set_phase(Phase::Preparing).unwrap();
        assert!(is_untouched(open()));
        let runner = FileLock::try_acquire(&run.path().join("runner.lock")).unwrap();
        assert!(!is_untouched(open()), "a runner is about to start it");
        drop(runner);
        run.set_phase(Phase::Launching).unwrap();
        assert!(!is_untouched(open()));
        std::fs::write(run.path().join("run.json"), "{").unwrap();
        assert!(!is_untouched(open()), "nothing is known");
        run.remove().unwrap();
        assert!(is_untouched(open()), "it was never written");
    }
}
