//! The whole pop protocol against a model of the server that loses, delays and refuses messages at
//! will, with competing agents that crash at random moments.
//!
//! Time is virtual. What must hold: in the end every task has run, and in one run only.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use clearml_intake::owner::OwnerMark;
use clearml_intake::pop::{Before, Intent, Phase, Place, TaskSighting};
use clearml_intake::popper::{Journal, Outcome, PopError, Popper, Timing};
use clearml_intake::server::{PopAnswer, PutBack, QueueServer};
use clearml_task_model::{QueueId, TaskId, TaskStatus, WorkerId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{Instant, sleep};

/// An injected failure, or a full disk.
#[derive(Debug, thiserror::Error)]
#[error("injected")]
struct Injected;

struct World {
    rng: StdRng,
    queue: VecDeque<TaskId>,
    tasks: BTreeMap<TaskId, TaskSighting>,
    /// The runs in which each task was started.
    runs: BTreeMap<TaskId, BTreeSet<String>>,
    /// Share of calls that go wrong, in percent; 0 towards the end, so that everything can settle.
    trouble: u32,
    /// Stands for the clock of the server.
    changes: u32,
    /// Whether the agents know of each other.
    competitors: bool,
    /// Whether a pop may be applied seconds after its caller has given up.
    late: bool,
}

type Shared = Rc<RefCell<World>>;

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Well,
    Refused,
    NotApplied,
    AnswerLost,
}

#[derive(Clone)]
struct Server(Shared);

impl Server {
    /// One call: travels, is applied or not, travels back or not.
    async fn call<T>(&self, apply: impl FnOnce(&mut World) -> T) -> (Fate, Option<T>) {
        let (there, back, fate) = {
            let mut world = self.0.borrow_mut();
            let trouble = world.trouble;
            let fate = match world.rng.random_range(0..100) {
                n if n >= trouble => Fate::Well,
                n => [Fate::Refused, Fate::NotApplied, Fate::AnswerLost][n as usize % 3],
            };
            (world.rng.random_range(0..20), world.rng.random_range(0..20), fate)
        };
        sleep(Duration::from_millis(there)).await;
        let answer = matches!(fate, Fate::Well | Fate::AnswerLost).then(|| apply(&mut self.0.borrow_mut()));
        sleep(Duration::from_millis(back)).await;
        (fate, answer)
    }

    async fn simple<T>(&self, apply: impl FnOnce(&mut World) -> T) -> Result<T, Injected> {
        match self.call(apply).await {
            (Fate::Well, Some(answer)) => Ok(answer),
            _ => Err(Injected),
        }
    }
}

fn take_head(world: &mut World, task: &TaskId) -> Option<TaskId> {
    if world.queue.front() == Some(task) {
        world.queue.pop_front()
    } else {
        None
    }
}

impl QueueServer for Server {
    type Error = Injected;

    async fn look(&self, task: &TaskId) -> Result<Option<TaskSighting>, Injected> {
        self.simple(|world| world.tasks.get(task).cloned()).await
    }

    async fn place(&self, _: &QueueId, task: &TaskId) -> Result<Place, Injected> {
        self.simple(|world| match world.queue.iter().position(|entry| entry == task) {
            Some(0) => Place::Head,
            Some(_) => Place::Behind,
            None => Place::Absent,
        })
        .await
    }

    async fn competitors(&self, _: &QueueId, _: &WorkerId) -> Result<bool, Injected> {
        Ok(self.0.borrow().competitors)
    }

    async fn pop(&self, _: &QueueId, task: &TaskId) -> PopAnswer<Injected> {
        let (fate, answer) = self.call(|world| take_head(world, task)).await;
        match (fate, answer) {
            (Fate::Well, Some(Some(popped))) => PopAnswer::Popped(popped),
            (Fate::Well, _) => PopAnswer::Nothing,
            (Fate::Refused, _) => PopAnswer::Refused(Injected),
            (Fate::NotApplied, _) => {
                let delay = self.0.borrow_mut().rng.random_range(0..8000);
                if self.0.borrow().late && delay < 4000 {
                    let (world, task) = (self.0.clone(), task.clone());
                    spawn_local(async move {
                        sleep(Duration::from_millis(delay)).await;
                        take_head(&mut world.borrow_mut(), &task);
                    });
                }
                PopAnswer::Ambiguous(Injected)
            }
            (Fate::AnswerLost, _) => PopAnswer::Ambiguous(Injected),
        }
    }

    async fn mark(&self, task: &TaskId, mark: &OwnerMark) -> Result<bool, Injected> {
        self.simple(|world| {
            let task = world.tasks.get_mut(task).unwrap();
            let editable = task.status != TaskStatus::Completed;
            if editable {
                task.owner = Some(mark.clone());
            }
            editable
        })
        .await
    }

    async fn take_queued(&self, id: &TaskId, run: &str) -> Result<bool, Injected> {
        self.simple(|world| {
            world.queue.retain(|entry| entry != id);
            let task = world.tasks.get_mut(id).unwrap();
            let taken = matches!(task.status, TaskStatus::Queued | TaskStatus::InProgress);
            if taken {
                (task.status, task.taken_by) = (TaskStatus::Created, Some(run.to_owned()));
            }
            taken
        })
        .await
    }

    async fn started(&self, task: &TaskId, _: &str) -> Result<bool, Injected> {
        self.simple(|world| {
            let task = world.tasks.get_mut(task).unwrap();
            let startable = task.status != TaskStatus::Completed;
            if startable {
                (task.status, task.taken_by) = (TaskStatus::InProgress, None);
            }
            startable
        })
        .await
    }

    async fn put_back(&self, _: &QueueId, task: &TaskId, started: bool) -> Result<PutBack, Injected> {
        self.simple(|world| {
            let wanted = world.tasks.get_mut(task).unwrap();
            match wanted.status {
                TaskStatus::Queued => {}
                TaskStatus::Created => (wanted.status, wanted.taken_by) = (TaskStatus::Queued, None),
                TaskStatus::InProgress if started => wanted.status = TaskStatus::Queued,
                _ => return PutBack::NotWanted,
            }
            if !world.queue.contains(task) {
                world.queue.push_front(task.clone());
                world.changes += 1;
                let changed = Some(world.changes.to_string());
                world.tasks.get_mut(task).unwrap().changed = changed;
            }
            PutBack::Done
        })
        .await
    }

    async fn stop(&self, _: &TaskId, _: &str) -> Result<(), Injected> {
        unreachable!("the queue of the model is never deleted")
    }
}

/// Survives the crashes of its agent.
#[derive(Clone)]
struct Disk {
    worker: WorkerId,
    intents: Rc<RefCell<BTreeMap<String, (Intent, Phase)>>>,
    next: Rc<RefCell<u32>>,
}

impl Journal for Disk {
    type Error = Injected;

    fn begin(&self, task: &TaskId, queue: &QueueId, before: &Before) -> Result<Intent, Injected> {
        *self.next.borrow_mut() += 1;
        let intent = Intent {
            run: format!("{}-{}", self.worker, self.next.borrow()),
            worker: self.worker.clone(),
            task: task.clone(),
            queue: queue.clone(),
            before: before.clone(),
        };
        self.intents
            .borrow_mut()
            .insert(intent.run.clone(), (intent.clone(), Phase::Popping));
        Ok(intent)
    }

    fn advance(&self, intent: &Intent, phase: Phase) -> Result<(), Injected> {
        self.intents
            .borrow_mut()
            .insert(intent.run.clone(), (intent.clone(), phase));
        Ok(())
    }

    fn forget(&self, intent: &Intent) -> Result<(), Injected> {
        self.intents.borrow_mut().remove(&intent.run);
        Ok(())
    }
}

/// What a daemon does: bring open intents to their end first, then take from the queue.
async fn agent(world: Shared, disk: Disk) {
    let popper = Popper::new(
        Server(world.clone()),
        disk.clone(),
        disk.worker.clone(),
        "h".into(),
        Timing::default(),
    );
    loop {
        let open = disk.intents.borrow().values().next().cloned();
        let head = world.borrow().queue.front().cloned();
        let result = match (open, head) {
            (Some((intent, phase)), _) => popper.recover(intent, phase).await,
            (None, Some(head)) => popper.acquire(&"q".into(), &head).await,
            (None, None) => Ok(Outcome::Missed),
        };
        match result {
            // Now and then a task can't be launched.
            Ok(Outcome::Ours(intent)) if !has_begun(&world, &intent) && unlucky(&world) => {
                let _journal_has_it = popper.give_back(intent, Phase::Claimed).await;
                sleep(Duration::from_millis(100)).await;
            }
            Ok(Outcome::Ours(intent)) => run(&world, &disk, &intent).await,
            Ok(_) => sleep(Duration::from_millis(300)).await,
            Err(PopError::Journal { .. }) => unreachable!("the disk of the model never fails"),
            Err(_) => sleep(Duration::from_millis(500)).await,
        }
    }
}

fn has_begun(world: &Shared, intent: &Intent) -> bool {
    world
        .borrow()
        .runs
        .get(&intent.task)
        .is_some_and(|runs| runs.contains(&intent.run))
}

fn unlucky(world: &Shared) -> bool {
    world.borrow_mut().rng.random_range(0..100) < 10
}

async fn run(world: &Shared, disk: &Disk, intent: &Intent) {
    world
        .borrow_mut()
        .runs
        .entry(intent.task.clone())
        .or_default()
        .insert(intent.run.clone());
    let duration = world.borrow_mut().rng.random_range(0..3000);
    sleep(Duration::from_millis(duration)).await;
    world.borrow_mut().tasks.get_mut(&intent.task).unwrap().status = TaskStatus::Completed;
    disk.forget(intent).unwrap();
}

fn world(seed: u64, tasks: usize, trouble: u32, late: bool) -> Shared {
    let ids: Vec<TaskId> = (0..tasks).map(|n| TaskId::new(format!("t{n}"))).collect();
    let fresh = TaskSighting {
        status: TaskStatus::Queued,
        owner: None,
        execution_queue: Some("q".into()),
        stopping: false,
        taken_by: None,
        changed: None,
    };
    Rc::new(RefCell::new(World {
        rng: StdRng::seed_from_u64(seed),
        queue: ids.iter().cloned().collect(),
        tasks: ids.into_iter().map(|id| (id, fresh.clone())).collect(),
        runs: BTreeMap::new(),
        trouble,
        changes: 0,
        competitors: true,
        late,
    }))
}

async fn simulate(seed: u64, agents: usize, trouble: u32, late: bool) {
    let world = world(seed, 6, trouble, late);
    world.borrow_mut().competitors = agents > 1;
    let disks: Vec<Disk> = (0..agents)
        .map(|n| Disk {
            worker: WorkerId::new(format!("w{n}")),
            intents: Rc::default(),
            next: Rc::default(),
        })
        .collect();
    let mut running: Vec<JoinHandle<()>> = disks
        .iter()
        .map(|disk| spawn_local(agent(world.clone(), disk.clone())))
        .collect();
    let start = Instant::now();
    // Four minutes of trouble with a crash every few seconds, then peace.
    while start.elapsed() < Duration::from_secs(240) {
        let pause = world.borrow_mut().rng.random_range(0..12_000);
        sleep(Duration::from_millis(pause)).await;
        let victim = world.borrow_mut().rng.random_range(0..agents);
        running[victim].abort();
        let down = world.borrow_mut().rng.random_range(0..3000);
        sleep(Duration::from_millis(down)).await;
        running[victim] = spawn_local(agent(world.clone(), disks[victim].clone()));
    }
    world.borrow_mut().trouble = 0;
    sleep(Duration::from_secs(300)).await;
    for handle in running {
        handle.abort();
    }
    let world = world.borrow();
    for (task, state) in &world.tasks {
        let runs = world.runs.get(task).cloned().unwrap_or_default();
        assert_eq!(
            runs.len(),
            1,
            "seed {seed}: task {task} ran in {runs:?}; {state:?}"
        );
        assert_eq!(state.status, TaskStatus::Completed, "seed {seed}: {task}");
    }
    assert!(world.queue.is_empty(), "seed {seed}");
    assert!(
        disks.iter().all(|disk| disk.intents.borrow().is_empty()),
        "seed {seed}"
    );
}

/// Seeds of one scenario; more with `POP_MODEL_SEEDS=n`, others with `CLEARML_TEST_SEED=first`.
fn seeds() -> std::ops::Range<u64> {
    let number = |variable| std::env::var(variable).ok()?.parse::<u64>().ok();
    let first = number("CLEARML_TEST_SEED").unwrap_or(0);
    first..first.saturating_add(number("POP_MODEL_SEEDS").unwrap_or(60))
}

fn scenario(agents: usize, trouble: u32, late: bool) {
    for seed in seeds() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        LocalSet::new().block_on(&runtime.unwrap(), simulate(seed, agents, trouble, late));
    }
}

#[test]
fn one_agent_that_keeps_crashing() {
    scenario(1, 0, false);
}

#[test]
fn one_agent_and_a_bad_network() {
    scenario(1, 40, true);
}

#[test]
fn two_agents_that_keep_crashing() {
    scenario(2, 0, false);
}

#[test]
fn two_agents_and_a_bad_network() {
    scenario(2, 40, true);
}

#[test]
fn three_agents_and_a_dreadful_network() {
    scenario(3, 70, true);
}
