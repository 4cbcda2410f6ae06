//! The pop protocol of the product on the model's server and disks.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use clearml_intake::owner::OwnerMark;
use clearml_intake::pop::{Before, Intent, Phase as PopPhase, Place, TaskSighting};
use clearml_intake::popper::{Clock, Journal, Popper, Timing};
use clearml_intake::server::{PopAnswer, PutBack, QueueServer};
use clearml_task_model::{QueueId, TaskId, WorkerId};
use clearml_task_runner::Phase;
use clearml_task_runner::record::End;

use crate::Plant;
use crate::kernel::Env;
use crate::server::Reply;
use crate::world::{Shared, Trouble};

/// How long a pop may still be under way when its sender has given up.
const LATE_POP: u64 = 4_000;

/// One daemon's way to the server.
#[derive(Clone)]
pub(crate) struct Net {
    pub(crate) world: Shared,
    pub(crate) env: Env,
    pub(crate) host: usize,
    /// The run for which something is being changed, for the audit.
    pub(crate) run: RefCell<String>,
    /// When it has last looked at its task, or asked for it on condition that it is queued.
    pub(crate) looked: Cell<u64>,
}

impl QueueServer for Net {
    type Error = Trouble;

    async fn look(&self, task: &TaskId) -> Result<Option<TaskSighting>, Trouble> {
        self.looked.set(self.env.kernel.now());
        self.world
            .ask(&self.env, self.host, |server| server.sighting(task))
            .await
    }

    async fn place(&self, _: &QueueId, task: &TaskId) -> Result<Place, Trouble> {
        self.world
            .ask(&self.env, self.host, |server| server.place(task))
            .await
    }

    async fn competitors(&self, _: &QueueId, me: &WorkerId) -> Result<bool, Trouble> {
        Ok(self.world.workers.iter().any(|(worker, _)| worker != me))
    }

    async fn pop(&self, _: &QueueId, task: &TaskId) -> PopAnswer<Trouble> {
        loop {
            let wanted = task.clone();
            let life = self.world.server.borrow().life(task);
            let popped = self
                .world
                .tell(&self.env, self.host, LATE_POP, move |server| {
                    server.pop(&wanted, life)
                })
                .await;
            self.env.kernel.log(|| format!("pops {task}: {popped:?}"));
            match popped {
                Ok(Some(task)) => return PopAnswer::Popped(task),
                Ok(None) => return PopAnswer::Nothing,
                Err(Trouble::Unclear) if self.world.plant == Plant::PopRepeated => {}
                Err(e @ Trouble::NotApplied) => return PopAnswer::Refused(e),
                Err(e @ Trouble::Unclear) => return PopAnswer::Ambiguous(e),
            }
        }
    }

    async fn mark(&self, task: &TaskId, mark: &OwnerMark) -> Result<bool, Trouble> {
        self.run.borrow_mut().clone_from(&mark.run);
        let (task, mark) = (task.clone(), mark.clone());
        self.world
            .tell(&self.env, self.host, 0, move |server| server.mark(&task, mark))
            .await
    }

    async fn take_queued(&self, task: &TaskId, run: &str) -> Result<bool, Trouble> {
        self.looked.set(self.env.kernel.now());
        let (task, run) = (task.clone(), run.to_owned());
        self.world
            .tell(&self.env, self.host, 0, move |server| {
                server.take_queued(&task, &run)
            })
            .await
    }

    async fn started(&self, task: &TaskId, _: &str) -> Result<bool, Trouble> {
        let (task, run, looked) = (task.clone(), self.run.borrow().clone(), self.looked.get());
        let kernel = self.env.kernel.clone();
        let reply = self
            .world
            .tell(&self.env, self.host, 0, move |server| {
                server.started(&task, &run, (looked, kernel.now()))
            })
            .await?;
        Ok(reply == Reply::Done)
    }

    async fn put_back(&self, _: &QueueId, task: &TaskId, started: bool) -> Result<PutBack, Trouble> {
        self.env.kernel.log(|| format!("gives {task} back"));
        let wanted = task.clone();
        let (run, looked) = (self.run.borrow().clone(), self.looked.get());
        let kernel = self.env.kernel.clone();
        let reply = self
            .world
            .tell(&self.env, self.host, 0, move |server| {
                let times = (looked, kernel.now());
                server.enqueue(&wanted, started, "returned by agent", &run, times)
            })
            .await?;
        if reply != Reply::Done {
            return Ok(PutBack::NotWanted);
        }
        let wanted = task.clone();
        self.world
            .tell_often(&self.env, self.host, move |server| server.put_in_front(&wanted))
            .await?;
        Ok(PutBack::Done)
    }

    async fn stop(&self, task: &TaskId, reason: &str) -> Result<(), Trouble> {
        let (task, reason, run) = (task.clone(), reason.to_owned(), self.run.borrow().clone());
        self.world
            .tell_often(&self.env, self.host, move |server| {
                server.end(&task, &run, End::Stopped, &reason, (0, 0))
            })
            .await?;
        Ok(())
    }
}

/// The kernel's clock.
#[derive(Clone)]
pub(crate) struct Time(pub(crate) Env);

impl Clock for Time {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.kernel.now())
    }

    async fn sleep(&self, time: Duration) {
        self.0
            .sleep(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
            .await;
    }
}

/// The disk refuses, or the process dies in the middle.
#[derive(Debug, thiserror::Error)]
#[error("the disk refuses")]
pub(crate) struct DiskError;

/// Run directories as the memory of pops.
#[derive(Clone)]
pub(crate) struct Runs {
    pub(crate) world: Shared,
    pub(crate) env: Env,
    pub(crate) host: usize,
    pub(crate) worker: WorkerId,
}

impl Runs {
    /// Whether something goes wrong at this moment.
    fn bad_luck(&self) -> bool {
        !self.world.peace.get() && self.env.kernel.below(1_000) < 4
    }
}

impl Journal for Runs {
    type Error = DiskError;

    fn begin(&self, task: &TaskId, queue: &QueueId, before: &Before) -> Result<Intent, DiskError> {
        if self.bad_luck() {
            return Err(DiskError);
        }
        let run = self.world.create_run(self.host, &self.worker, task, self.env.pid);
        if self.bad_luck() {
            // Dies between the two files of the run.
            self.env.kernel.kill(self.env.pid);
            return Err(DiskError);
        }
        let intent = Intent {
            run: run.clone(),
            worker: self.worker.clone(),
            task: task.clone(),
            queue: queue.clone(),
            before: before.clone(),
        };
        self.world
            .run(self.host, &run, |run| run.intent = Some(intent.clone()));
        Ok(intent)
    }

    fn advance(&self, intent: &Intent, phase: PopPhase) -> Result<(), DiskError> {
        if self.bad_luck() {
            return Err(DiskError);
        }
        let phase = match phase {
            PopPhase::Popping => Phase::Popping,
            PopPhase::Popped => Phase::Popped,
            PopPhase::Claimed => Phase::Claimed,
        };
        self.world
            .run(self.host, &intent.run, |run| {
                run.record.phase = run.record.phase.max(phase);
            })
            .ok_or(DiskError)
    }

    fn forget(&self, intent: &Intent) -> Result<(), DiskError> {
        if self.bad_luck() {
            return Err(DiskError);
        }
        self.env.kernel.log(|| format!("forgets {}", intent.run));
        if let Some(host) = self.world.hosts.borrow_mut().get_mut(self.host) {
            host.runs.remove(&intent.run);
        }
        Ok(())
    }
}

/// The product's popper in this world.
pub(crate) type ModelPopper = Popper<Net, Runs, Time>;

/// A popper for a worker that runs as this process.
pub(crate) fn popper(world: &Shared, env: &Env, host: usize, worker: &WorkerId) -> ModelPopper {
    let net = Net {
        world: world.clone(),
        env: env.clone(),
        host,
        run: RefCell::default(),
        looked: Cell::default(),
    };
    let runs = Runs {
        world: world.clone(),
        env: env.clone(),
        host,
        worker: worker.clone(),
    };
    let names = (worker.clone(), host.to_string());
    Popper::with_clock(net, runs, names, Timing::default(), Time(env.clone()))
}
