//! A runner: the calls and waits of `clearml-task-runner` around its decisions.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use clearml_support::process::ProcessIdentity;
use clearml_task_model::TaskId;
use clearml_task_runner::Phase;
use clearml_task_runner::console::Tag;
use clearml_task_runner::decisions::{
    Becomes, Facts, Gone, Interpreter, Launching, MayStart, Meaning, Prepared, Step, Teller, abort_to_note,
    claimed_to_end, decide, is_revived, launching, leftovers_killed, may_launch, may_start, next_step,
    shim_gone, shim_started, stopped_by,
};
use clearml_task_runner::record::{AbortReason, Failure, Identity, RunRecord};

use crate::Plant;
use crate::kernel::{Either, Env, Pid, either};
use crate::server::Server;
use crate::tell::tell_once;
use crate::world::{Claim, Run, Shared, Trouble};
use crate::{shim, shipper};

/// How often a runner looks at its task.
const STATUS_POLL: u64 = 2_000;
/// Between SIGTERM and SIGKILL.
pub(crate) const GRACE: u64 = 10_000;
const STOP_PATIENCE: u64 = 8_000;
/// After that a call has been answered, or never will be.
const LONGEST_CALL: u64 = 2_000;

/// One runner process.
pub(crate) struct Runner {
    pub(crate) world: Shared,
    pub(crate) env: Env,
    pub(crate) host: usize,
    pub(crate) name: String,
    identity: RefCell<Option<Identity>>,
    wish: Cell<Option<AbortReason>>,
    stop: Cell<bool>,
    /// When it has begun to say that its task has started, as long as there is no answer.
    telling: Cell<Option<u64>>,
    /// Whether the agent's and the task's channel get nothing more.
    pub(crate) closed: Cell<(bool, bool)>,
    pub(crate) shipped: Cell<bool>,
}

/// Starts a runner for a run; it lives on when its daemon dies.
pub(crate) fn start(world: &Shared, host: usize, name: &str) -> Pid {
    let (world, name) = (world.clone(), name.to_owned());
    let kernel = world.kernel.clone();
    kernel.spawn(&format!("runner {name}"), Some(host), |env| async move {
        let runner = Rc::new(Runner {
            world,
            env,
            host,
            name,
            identity: RefCell::default(),
            wish: Cell::default(),
            stop: Cell::default(),
            telling: Cell::default(),
            closed: Cell::default(),
            shipped: Cell::default(),
        });
        runner.main().await;
    })
}

impl Runner {
    /// The run on the disk. A runner whose run has been removed has nothing to do.
    pub(crate) fn disk<T>(&self, act: impl FnOnce(&mut Run) -> T) -> Option<T> {
        self.world.run(self.host, &self.name, act)
    }

    async fn main(self: Rc<Self>) {
        // From the start of the program to its lock.
        self.env.step().await;
        self.env.sleep(self.env.kernel.below(200)).await;
        let (kernel, me) = (&self.world.kernel, self.env.pid);
        let boot_id = self.world.boot(self.host).to_string();
        let taken = self.disk(|run| {
            let free = run.lock.is_none_or(|runner| !kernel.is_alive(runner));
            let ours = free && run.record.phase.belongs_to_runner() && run.inputs;
            if ours {
                run.lock = Some(me);
                run.record.runner = Some(ProcessIdentity {
                    pid: me,
                    start_ticks: me.unsigned_abs().into(),
                    boot_id,
                });
            }
            ours.then(|| run.record.identity.clone())
        });
        let Some(Some(identity)) = taken else { return };
        *self.identity.borrow_mut() = Some(identity);
        let beside = either(self.watch(), either(self.hear(), shipper::ship(&self)));
        either(self.steps(), beside).await;
        kernel.log(|| "ends".to_owned());
    }

    fn identity(&self) -> Identity {
        self.identity.borrow().clone().expect("set before anything else")
    }

    fn task(&self) -> TaskId {
        self.identity().task
    }

    async fn hear(&self) {
        self.env.until(|| self.env.is_told()).await;
        self.announce(AbortReason::AgentStopped);
        self.stop.set(true);
        self.env.wake_self();
        std::future::pending::<()>().await;
    }

    fn announce(&self, reason: AbortReason) {
        if self.wish.get().is_none() {
            self.env
                .kernel
                .log(|| format!("wants to abort {}: {reason:?}", self.name));
            self.wish.set(Some(reason));
            self.env.wake_self();
        }
    }

    async fn watch(&self) {
        let identity = self.identity();
        let mut interpreter = Interpreter::default();
        loop {
            self.env.sleep(STATUS_POLL).await;
            let seen = self
                .world
                .ask(&self.env, self.host, |server| server.task(&identity.task))
                .await;
            if let Ok(task) = seen
                && let Meaning::Abort(reason) = interpreter.observe_own(task.as_ref(), &identity, &self.name)
            {
                self.announce(reason);
            }
        }
    }

    async fn steps(&self) {
        loop {
            self.env.step().await;
            let Some(phase) = self.disk(|run| run.record.phase) else {
                return;
            };
            self.env.kernel.log(|| format!("{} is {phase:?}", self.name));
            let step = next_step(phase);
            match step {
                Step::Prepare { .. } => {
                    self.becomes(&Becomes::Phase(Phase::Preparing));
                    let prepared = self.prepare().await;
                    if prepared == Prepared::Aborted {
                        self.note_abort().await;
                    }
                    self.becomes(&prepared.becomes());
                }
                Step::Launch => self.launch().await,
                Step::Supervise => self.supervise().await,
                Step::Conclude | Step::Report => {
                    let waits = async {
                        if step == Step::Conclude {
                            self.conclude().await;
                        } else {
                            self.report().await;
                        }
                    };
                    let patience = async {
                        self.env.until(|| self.stop.get()).await;
                        self.env.sleep(STOP_PATIENCE).await;
                    };
                    if let Either::Second(()) = either(waits, patience).await {
                        return;
                    }
                }
                Step::Finish => self.becomes(&Becomes::Phase(Phase::Done)),
                Step::Done | Step::NotReady(_) => return,
            }
        }
    }

    fn becomes(&self, becomes: &Becomes) {
        let from = self.disk(|run| {
            let from = run.record.phase;
            becomes.apply(&mut run.record);
            (from, run.record.phase)
        });
        if let Some((from, to)) = from
            && !from.may_become(to)
        {
            self.world
                .broken(format!("{} goes back from {from:?} to {to:?}", self.name));
        }
    }

    fn line(&self, tag: Option<Tag>, text: &str) {
        let now = self.env.kernel.now();
        self.disk(|run| run.line(now, tag, text));
    }

    /// A call until it is answered.
    async fn patiently<T>(&self, mut call: impl AsyncFnMut() -> Result<T, Trouble>) -> T {
        let mut pause = 500;
        loop {
            if let Ok(value) = call().await {
                return value;
            }
            self.env.sleep(pause).await;
            pause = (pause * 2).min(10_000);
        }
    }

    async fn look(&self) -> Option<clearml_task_model::Task> {
        let id = self.task();
        self.patiently(async || {
            self.world
                .ask(&self.env, self.host, |server| server.task(&id))
                .await
        })
        .await
    }

    async fn prepare(&self) -> Prepared {
        self.line(Some(Tag::Pulled), "pulled");
        let wish = self.env.until(|| self.wish.get().is_some());
        match either(self.prepare_steps(), wish).await {
            Either::First(prepared) => prepared,
            Either::Second(()) => Prepared::Aborted,
        }
    }

    async fn prepare_steps(&self) -> Prepared {
        if self.look().await.is_none() {
            self.announce(AbortReason::NotFound);
            return Prepared::Aborted;
        }
        if !self.goes_on().await {
            return Prepared::Aborted;
        }
        self.env.sleep(100 + self.env.kernel.below(2_000)).await;
        if self.env.kernel.percent(4) {
            let failure = Failure {
                stage: "environment".to_owned(),
                ..Failure::infrastructure("no such package")
            };
            return Prepared::Failed(failure);
        }
        self.env.step().await;
        self.disk(|run| run.launch = true);
        Prepared::Ready
    }

    /// Whether the task may go on.
    async fn goes_on(&self) -> bool {
        let identity = self.identity();
        let mut interpreter = Interpreter::default();
        let mut told = false;
        loop {
            let looked = self.env.kernel.now();
            let task = self.look().await;
            if task.as_ref().is_some_and(|task| is_revived(task, &identity)) {
                let id = identity.task.clone();
                self.patiently(async || {
                    let id = id.clone();
                    let now = self.env.kernel.now();
                    let reset = move |server: &mut Server| server.reset(&id, now);
                    self.world.tell_often(&self.env, self.host, reset).await
                })
                .await;
                self.announce(AbortReason::Reset);
                return false;
            }
            match may_start(&mut interpreter, task.as_ref(), &identity, &self.name) {
                MayStart::LookAgain => {
                    self.env.sleep(STATUS_POLL).await;
                    continue;
                }
                MayStart::No(reason) => {
                    self.announce(reason);
                    return false;
                }
                MayStart::Yes if self.world.plant != Plant::StartedOften || told => return true,
                MayStart::Untold if told => return true,
                MayStart::Yes | MayStart::Untold => {}
            }
            let (id, run) = (identity.task.clone(), self.name.clone());
            let kernel = self.env.kernel.clone();
            let start = move |server: &mut Server| server.started(&id, &run, (looked, kernel.now()));
            self.telling.set(Some(self.env.kernel.now()));
            let answer = self.world.tell(&self.env, self.host, 0, start).await;
            self.telling.set(None);
            match answer {
                Ok(_) => told = true,
                Err(_) => self.env.sleep(500).await,
            }
        }
    }

    async fn launch(&self) {
        let mut next = launching(self.disk(|run| run.claim.is_some()).unwrap_or(true));
        if next == Launching::Ask {
            let wish = self.env.until(|| self.wish.get().is_some());
            let goes_on = matches!(either(self.goes_on(), wish).await, Either::First(true));
            next = may_launch(goes_on, self.wish.get());
        }
        if next == Launching::Start {
            next = self.start_shim().await;
        }
        if let Launching::Claim(failure) = next {
            if failure.is_none() {
                self.note_abort().await;
            }
            self.env.step().await;
            let claim = Claim {
                pid: self.env.pid,
                boot: self.world.boot(self.host),
            };
            let careless = failure.is_some() && self.world.plant == Plant::NoClaim;
            let ours = careless
                || self
                    .disk(|run| run.claim.get_or_insert(claim).pid == self.env.pid)
                    .unwrap_or(true);
            self.env.step().await;
            return self.becomes(&claimed_to_end(ours, failure));
        }
        self.env.step().await;
        self.becomes(&Becomes::Phase(Phase::Running));
    }

    async fn start_shim(&self) -> Launching {
        self.env.step().await;
        let shim = shim::start(&self.world, self.host, &self.name);
        loop {
            let ended = (!self.env.kernel.is_alive(shim)).then_some("(killed)");
            let claimed = self.disk(|run| run.claim.is_some()).unwrap_or(true);
            match shim_started(ended, claimed) {
                Launching::Wait => self.env.sleep(10).await,
                next => return next,
            }
        }
    }

    async fn supervise(&self) {
        let Some(Some(claim)) = self.disk(|run| run.claim) else {
            let failure = Failure::infrastructure("the claim has vanished");
            return self.becomes(&Becomes::Failed(failure));
        };
        if let Some(Some(reason)) = self.disk(|run| run.abort.as_ref().map(|abort| abort.reason)) {
            self.announce(reason);
        }
        let wish = self.env.until(|| self.wish.get().is_some());
        if let Either::Second(()) = either(self.env.gone(claim.pid), wish).await {
            self.note_abort().await;
            self.line(Some(Tag::Abort), "stopping task");
            self.env.step().await;
            self.env.kernel.tell(claim.pid);
            let patience = self.env.sleep(GRACE + 60_000);
            either(self.env.gone(claim.pid), patience).await;
            if self.env.kernel.is_alive(claim.pid) {
                self.env.kernel.kill(claim.pid);
            }
        }
        self.env.step().await;
        let has_verdict =
            self.disk(|run| run.verdict.is_some()).unwrap_or(false) && self.world.plant != Plant::NoVerdict;
        let boot = self.world.boot(self.host).to_string();
        let becomes = match shim_gone(has_verdict, &claim.boot.to_string(), Some(&boot)) {
            Gone::Known(becomes) => becomes,
            Gone::KillLeftovers => {
                let all = self.world.plant == Plant::LeftoversLive
                    || kill_leftovers(&self.world, &self.env, self.host, &self.name).await;
                leftovers_killed(all)
            }
        };
        self.env.step().await;
        self.becomes(&becomes);
    }

    async fn note_abort(&self) {
        self.env.step().await;
        let now = i64::try_from(self.env.kernel.now()).unwrap_or(0);
        let wish = self.wish.get();
        self.disk(|run| {
            if let Some(intent) = abort_to_note(run.abort.as_ref(), wish, now) {
                run.abort = Some(intent);
            }
        });
    }

    async fn conclude(&self) {
        self.closed.set((false, true));
        let Some((record, verdict, noted)) = self.disk(|run| {
            let noted = run.abort.as_ref().map(|abort| abort.reason);
            (run.record.clone(), run.verdict.clone(), noted)
        }) else {
            return;
        };
        let verdict = verdict.filter(|_| self.world.plant != Plant::NoVerdict);
        if let Some(failure) = &record.failure {
            self.line(Some(Tag::SetupError), &failure.to_string());
        }
        let outcome = match record.outcome {
            Some(outcome) => outcome,
            None => {
                let task = self.look().await;
                let failure = record.failure.as_ref();
                let facts = Facts::of_run(
                    (&record.identity, &self.name),
                    (failure, verdict.as_ref()),
                    stopped_by(noted, self.wish.get(), verdict.as_ref(), failure),
                    task.as_ref(),
                    (0, self.world.setup.requeue_limit),
                );
                let outcome = decide(&facts);
                self.env.step().await;
                self.disk(|run| run.record.outcome = Some(outcome.clone()));
                outcome
            }
        };
        self.env
            .kernel
            .log(|| format!("{} shall end: {outcome:?}", self.name));
        if let Some(line) = &outcome.line {
            self.line(Some(Tag::End), line);
        }
        self.closed.set((true, true));
        self.env.wake_self();
        self.env.until(|| self.shipped.get()).await;
        self.env.step().await;
        self.becomes(&Becomes::Phase(Phase::Shipped));
    }

    async fn report(&self) {
        let Some(RunRecord {
            outcome, identity, ..
        }) = self.disk(|run| run.record.clone())
        else {
            return;
        };
        if let Some(outcome) = outcome {
            if let Some(since) = self.telling.get() {
                let answered = since + LONGEST_CALL;
                self.env
                    .sleep(answered.saturating_sub(self.env.kernel.now()))
                    .await;
            }
            let mut teller = Teller::new(&outcome, &identity, &self.name);
            while !tell_once(&self.world, &self.env, self.host, &self.name, &mut teller).await {}
        }
        self.env.step().await;
        self.becomes(&Becomes::Phase(Phase::Reported));
    }
}

/// Kills what a dead shim has left. Returns whether nothing is left.
pub(crate) async fn kill_leftovers(world: &Shared, env: &Env, host: usize, name: &str) -> bool {
    let Some(Some(program)) = world.run(host, name, |run| run.program) else {
        return true;
    };
    for _ in 0..20 {
        if !world.kernel.is_alive(program) {
            return true;
        }
        shim::kill_program(world, program);
        env.sleep(100).await;
    }
    !world.kernel.is_alive(program)
}
