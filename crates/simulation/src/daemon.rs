//! A daemon: the calls and waits of `clearml-worker` around its decisions.

use std::time::Duration;

use clearml_intake::{Intent, Outcome, Phase as PopPhase, PopError};
use clearml_task_model::WorkerId;
use clearml_task_runner::Phase;
use clearml_task_runner::decisions::{Facts, Teller, decide};
use clearml_worker::decisions::{AfterRunner, Deaths, Kept, Waiting, done, given_up, is_untouched, kept};

use crate::kernel::{Either, Env, Ms, either};
use crate::pop::{ModelPopper, popper};
use crate::runner::{self, kill_leftovers};
use crate::tell::tell_once;
use crate::world::{Run, Shared};

const POLL: Ms = 5_000;
/// How long a pop or a return may take when the daemon has to end.
const PATIENCE: Ms = 10_000;
const REPORT_PATIENCE: Ms = 40_000;

struct Daemon {
    world: Shared,
    env: Env,
    host: usize,
    worker: WorkerId,
    popper: ModelPopper,
    waiting: Waiting<String>,
}

/// Starts the daemon of a worker.
pub(crate) fn start(world: &Shared, index: usize) {
    let (worker, host) = world.workers[index].clone();
    let world = world.clone();
    let kernel = world.kernel.clone();
    kernel.spawn(&format!("daemon {worker}"), Some(host), |env| async move {
        let popper = popper(&world, &env, host, &worker);
        let daemon = Daemon {
            world,
            env,
            host,
            worker,
            popper,
            waiting: Waiting::default(),
        };
        daemon.serve().await;
    });
}

impl Daemon {
    async fn serve(mut self) {
        self.env.step().await;
        for run in self.runs(|run, worker| run.record.identity.worker == *worker) {
            // One that another daemon has taken over occupies this worker until it ends.
            while !self.keep(&run) && !self.is_final(&run) {
                if self.env.is_told() {
                    return;
                }
                self.env.sleep(1_000).await;
            }
            self.finish_kept(&run).await;
        }
        while !self.env.is_told() {
            self.let_go();
            self.adopt().await;
            self.pass().await;
        }
    }

    async fn pass(&mut self) {
        let head = self
            .world
            .ask(&self.env, self.host, |server| server.queue.front().cloned())
            .await;
        let Ok(Some(head)) = head else {
            let told = self.env.until(|| self.env.is_told());
            either(self.env.sleep(POLL), told).await;
            return;
        };
        let patience = async {
            self.env.until(|| self.env.is_told()).await;
            self.env.sleep(PATIENCE).await;
        };
        let queue = crate::server::QUEUE.into();
        let acquired = either(self.popper.acquire(&queue, &head), patience).await;
        match acquired {
            Either::First(Ok(Outcome::Ours(intent))) => self.run_claimed(intent).await,
            Either::First(Err(PopError::Unresolved { intent, phase, .. })) => {
                self.settle(*intent, phase).await
            }
            Either::First(Ok(_)) => self.env.sleep(50).await,
            Either::First(Err(_)) => self.env.sleep(1_000).await,
            Either::Second(()) => {}
        }
    }

    fn runs(&self, wanted: impl Fn(&Run, &WorkerId) -> bool) -> Vec<String> {
        let hosts = self.world.hosts.borrow();
        let runs = &hosts[self.host].runs;
        runs.iter()
            .filter(|(_, run)| wanted(run, &self.worker))
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn is_final(&self, run: &str) -> bool {
        self.world
            .run(self.host, run, |run| run.record.phase.is_final())
            .unwrap_or(true)
    }

    /// Becomes the keeper, unless somebody is.
    fn keep(&self, run: &str) -> bool {
        let (kernel, me) = (&self.world.kernel, self.env.pid);
        self.world
            .run(self.host, run, |run| {
                let free = run
                    .keeper
                    .is_none_or(|keeper| keeper == me || !kernel.is_alive(keeper));
                if free {
                    run.keeper = Some(me);
                }
                free
            })
            .unwrap_or(false)
    }

    fn let_go(&self) {
        if let Some(host) = self.world.hosts.borrow_mut().get_mut(self.host) {
            for run in host.runs.values_mut() {
                run.keeper = run.keeper.filter(|keeper| *keeper != self.env.pid);
            }
        }
    }

    async fn adopt(&mut self) {
        let kernel = &self.world.kernel;
        let is_up = |worker: &WorkerId| {
            *worker != self.worker && !kernel.processes(None, &format!("daemon {worker}")).is_empty()
        };
        let orphans = self.runs(|run, _| {
            !run.record.phase.is_final()
                && run.keeper.is_none_or(|keeper| !kernel.is_alive(keeper))
                && !is_up(&run.record.identity.worker)
        });
        let now = Duration::from_millis(kernel.now());
        let patience = Duration::from_millis(self.world.setup.adopt_after);
        for run in self.waiting.due(orphans, now, patience) {
            if !self.env.is_told() && self.keep(&run) {
                self.finish_kept(&run).await;
            }
        }
    }

    async fn finish_kept(&self, name: &str) {
        self.env.step().await;
        let kernel = &self.world.kernel;
        let found = self.world.run(self.host, name, |run| {
            let alive = run.lock.is_some_and(|runner| kernel.is_alive(runner));
            (
                kept(&run.record, alive, run.inputs, run.intent.is_some()),
                run.intent.clone(),
            )
        });
        kernel.log(|| format!("finds {name}: {found:?}"));
        match found {
            Some((Kept::Continue, _)) => self.in_hand(name).await,
            Some((Kept::Settle(phase), Some(intent))) => self.settle(intent, phase).await,
            Some((Kept::Remove, _)) => {
                self.world.hosts.borrow_mut()[self.host].runs.remove(name);
            }
            Some((Kept::Leave, _)) => self.world.broken(format!("nothing is known about run {name}")),
            _ => {}
        }
    }

    async fn settle(&self, mut intent: Intent, mut phase: PopPhase) {
        let mut pause = 500;
        loop {
            let told = self.env.until(|| self.env.is_told());
            match either(self.popper.recover(intent.clone(), phase), told).await {
                Either::First(Ok(Outcome::Ours(intent))) => return self.run_claimed(intent).await,
                Either::First(Err(PopError::Unresolved {
                    intent: open,
                    phase: at,
                    ..
                })) => (intent, phase) = (*open, at),
                _ => return,
            }
            self.env.sleep(pause).await;
            pause = (pause * 2).min(10_000);
        }
    }

    async fn run_claimed(&self, intent: Intent) {
        if self.env.is_told() {
            return self.give_back(intent).await;
        }
        self.env.step().await;
        let refused = !self.world.peace.get() && self.env.kernel.percent(4);
        let known = self.world.run(self.host, &intent.run, |run| run.inputs).is_some();
        if known && !refused {
            self.world.run(self.host, &intent.run, |run| run.inputs = true);
            return self.in_hand(&intent.run).await;
        }
        let kernel = &self.world.kernel;
        let untouched = self.world.run(self.host, &intent.run, |run| {
            let alive = run.lock.is_some_and(|runner| kernel.is_alive(runner));
            is_untouched(alive, run.record.phase)
        });
        if untouched.unwrap_or(true) {
            self.give_back(intent).await;
        }
        self.env.sleep(3_000).await;
    }

    async fn give_back(&self, intent: Intent) {
        let patience = async {
            self.env.until(|| self.env.is_told()).await;
            self.env.sleep(PATIENCE).await;
        };
        let giving = async {
            let unsettled = |e: &PopError<_, _>| matches!(e, PopError::Unresolved { .. });
            while self
                .popper
                .give_back(intent.clone(), PopPhase::Claimed)
                .await
                .is_err_and(|e| unsettled(&e))
            {
                self.env.sleep(1_000).await;
            }
        };
        either(giving, patience).await;
    }

    /// Keeps a runner on the run until it is done.
    async fn in_hand(&self, name: &str) {
        let told = self.env.until(|| self.env.is_told());
        let mut deaths = Deaths::default();
        if matches!(
            either(self.until_done(name, &mut deaths, false), told).await,
            Either::First(())
        ) || self.world.setup.detach
        {
            return;
        }
        let telling = async {
            loop {
                let kernel = &self.world.kernel;
                if let Some(Some(runner)) = self.world.run(self.host, name, |run| run.lock) {
                    kernel.tell(runner);
                }
                self.env.sleep(1_000).await;
            }
        };
        let patience = either(telling, self.env.sleep(REPORT_PATIENCE));
        either(self.until_done(name, &mut deaths, true), patience).await;
    }

    async fn until_done(&self, name: &str, deaths: &mut Deaths, stopping: bool) {
        loop {
            let Some(before) = self.record(name) else { return };
            if done(&before).is_some() {
                return;
            }
            let began = self.world.kernel.now();
            let kernel = &self.world.kernel;
            let present = self.world.run(self.host, name, |run| {
                run.lock.filter(|runner| kernel.is_alive(*runner))
            });
            let runner = match present {
                Some(Some(runner)) => runner,
                _ => {
                    self.env.step().await;
                    runner::start(&self.world, self.host, name)
                }
            };
            self.env.gone(runner).await;
            self.env.sleep(20).await;
            let Some(after) = self.record(name) else { return };
            let lived = Duration::from_millis(self.world.kernel.now() - began);
            match deaths.runner_ended(before.phase, &after, lived, stopping || self.env.is_told()) {
                AfterRunner::Done(_) | AfterRunner::LeaveForLater => return,
                AfterRunner::GiveUp => return self.give_up(name).await,
                AfterRunner::Another(pause) => {
                    self.env
                        .sleep(u64::try_from(pause.as_millis()).unwrap_or(0))
                        .await;
                }
            }
        }
    }

    fn record(&self, name: &str) -> Option<clearml_task_runner::RunRecord> {
        self.world.run(self.host, name, |run| run.record.clone())
    }

    async fn give_up(&self, name: &str) {
        let (world, env) = (&self.world, &self.env);
        let Some(record) = self.record(name) else { return };
        let verdict = world.run(self.host, name, |run| run.verdict.clone()).flatten();
        if let Some(Some(claim)) = world.run(self.host, name, |run| run.claim)
            && verdict.is_none()
        {
            world.kernel.tell(claim.pid);
            either(env.gone(claim.pid), env.sleep(20_000)).await;
            world.kernel.kill(claim.pid);
            kill_leftovers(world, env, self.host, name).await;
        }
        let over = world
            .run(self.host, name, |run| run.verdict.is_some())
            .unwrap_or(false);
        let failure = given_up(&record, verdict.as_ref(), over, "runners die".to_owned());
        let outcome = match record.outcome.clone() {
            Some(outcome) => outcome,
            None => {
                let Ok(task) = world
                    .ask(env, self.host, |server| server.task(&record.identity.task))
                    .await
                else {
                    return;
                };
                let abort = world.run(self.host, name, |run| {
                    run.abort.as_ref().map(|abort| abort.reason)
                });
                decide(&Facts::of_run(
                    (&record.identity, name),
                    (failure.as_ref(), verdict.as_ref()),
                    abort.flatten(),
                    task.as_ref(),
                    (0, world.setup.requeue_limit),
                ))
            }
        };
        world.run(self.host, name, |run| run.record.outcome = Some(outcome.clone()));
        env.step().await;
        let mut teller = Teller::new(&outcome, &record.identity, name);
        let telling = async {
            while !tell_once(world, env, self.host, name, &mut teller).await {
                env.sleep(1_000).await;
            }
        };
        if matches!(either(telling, env.sleep(60_000)).await, Either::First(())) {
            world.run(self.host, name, |run| {
                run.record.phase = if run.record.phase < Phase::Launching {
                    Phase::Abandoned
                } else {
                    Phase::Done
                };
            });
        }
    }
}
