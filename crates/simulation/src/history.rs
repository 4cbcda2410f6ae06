//! One history: the dice set the scene, people and chaos do what they want for a while, then there is peace, and
//! when everything has settled the audit looks at what is left.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use clearml_task_model::{TaskId, TaskStatus, WorkerId};
use clearml_task_runner::console::{Channel, Level};
use clearml_task_runner::record::{End, Verdict};

use crate::daemon;
use crate::kernel::{Env, Kernel, Ms};
use crate::server::{Entry, Server};
use crate::world::{Host, Run, Setup, Shared, World};
use crate::{Plant, Told};

/// Peace lasts at most so long.
const LONGEST_PEACE: Ms = 1_200_000;

/// Plays the history of this seed. The rules that were broken, as sentences, and what happened.
pub(crate) fn play(seed: u64, plant: Plant, tracing: bool) -> (Vec<String>, Told) {
    let kernel = Kernel::new(seed, tracing);
    let world = scene(&kernel, plant);
    let war = 20_000 + kernel.below(60_000);
    for index in 0..world.workers.len() {
        daemon::start(&world, index);
    }
    let tasks = 1 + kernel.below(4);
    for number in 0..tasks {
        let id = TaskId::new(format!("t{number}"));
        world.server.borrow_mut().create(id.clone());
        let world = world.clone();
        kernel.spawn("person", None, move |env| person(world, env, id, war));
    }
    kernel.spawn("chaos", None, {
        let world = world.clone();
        move |env| chaos(world, env)
    });
    kernel.run_until(war);
    world.peace.set(true);
    kernel.set_crashes(0);
    kernel.log(|| "PEACE".to_owned());
    for host in world.hosts.borrow_mut().iter_mut() {
        host.away_until = 0;
    }
    let end = war + LONGEST_PEACE;
    while kernel.now() < end && !is_settled(&world) {
        kernel.run_until(kernel.now() + 5_000);
    }
    let broken = audit(&world);
    let gaps = world
        .server
        .borrow()
        .tasks
        .values()
        .filter(|task| is_known_gap(task))
        .count();
    let told = Told {
        gaps,
        wiped: world.server.borrow().wiped,
        virtual_ms: kernel.now(),
        programs: world.executions.borrow().len(),
        put_back: world.put_back.borrow().values().sum(),
    };
    kernel.shut_down();
    (broken, told)
}

fn scene(kernel: &Kernel, plant: Plant) -> Shared {
    let hosts = 1 + kernel.below(2) as usize;
    let workers = 1 + kernel.below(3) as usize;
    let workers: Vec<(WorkerId, usize)> = (0..workers)
        .map(|number| (WorkerId::new(format!("w{number}")), number % hosts))
        .collect();
    let setup = Setup {
        trouble: [0, 0, 5, 15, 40][kernel.below(5) as usize],
        requeue_limit: kernel.below(3) as u32,
        detach: kernel.percent(50),
        adopt_after: [1_000, 30_000][kernel.below(2) as usize],
        stubborn: kernel.percent(20),
    };
    kernel.set_crashes([0, 5, 20, 60, 150][kernel.below(5) as usize]);
    kernel.log(|| format!("{workers:?} {setup:?}"));
    Rc::new(World {
        kernel: kernel.clone(),
        setup,
        plant,
        server: RefCell::new(Server::default()),
        hosts: RefCell::new((0..hosts).map(|_| Host::default()).collect()),
        executions: RefCell::default(),
        put_back: RefCell::default(),
        peace: Cell::new(false),
        next_run: Cell::new(0),
        workers,
    })
}

/// Somebody who wants a task to run, and perhaps changes their mind.
async fn person(world: Shared, env: Env, id: TaskId, war: Ms) {
    let kernel = &env.kernel;
    let act = |what: &str, act: &dyn Fn(&mut Server)| {
        kernel.log(|| format!("{what} {id}"));
        act(&mut world.server.borrow_mut());
    };
    env.sleep(kernel.below(10_000)).await;
    let enqueues = |server: &mut Server| server.person_enqueues(&id, kernel.now());
    act("enqueues", &enqueues);
    let resets = |server: &mut Server| server.person_resets(&id, kernel.now());
    while kernel.percent(35) {
        env.sleep(kernel.below(if kernel.percent(50) { 5_000 } else { 40_000 }))
            .await;
        if kernel.now() > war {
            return;
        }
        match kernel.below(10) {
            0..=3 => {
                let (listens, now) = (kernel.percent(70), kernel.now());
                act("stops", &|server| server.person_stops(&id, listens, now));
            }
            4 => act("resets", &resets),
            5..=7 => {
                act("resets", &resets);
                env.sleep(kernel.below(4_000)).await;
                act("enqueues again", &enqueues);
            }
            8 => act("enqueues while it may be running", &enqueues),
            _ => return act("deletes", &|server| server.person_deletes(&id)),
        }
    }
}

/// Kills, restarts and cuts off.
async fn chaos(world: Shared, env: Env) {
    let kernel = &env.kernel;
    let busy = [60_000, 12_000, 3_000][kernel.below(3) as usize];
    let mut down: Vec<bool> = vec![false; world.workers.len()];
    loop {
        env.sleep(if world.peace.get() {
            2_000
        } else {
            kernel.below(busy)
        })
        .await;
        let hosts = world.hosts.borrow().len();
        let host = kernel.below(hosts as u64) as usize;
        let victim = |name: &str| {
            let found = kernel.processes(None, name);
            (!found.is_empty()).then(|| found[kernel.below(found.len() as u64) as usize])
        };
        if !world.peace.get() {
            match kernel.below(20) {
                0 => {
                    kernel.log(|| format!("host {host} is restarted"));
                    for process in kernel.processes(Some(host), "") {
                        kernel.kill(process);
                    }
                    world.hosts.borrow_mut()[host].boot += 1;
                }
                1..=3 => {
                    kernel.log(|| format!("host {host} is cut off"));
                    let until = kernel.now() + kernel.below(30_000);
                    world.hosts.borrow_mut()[host].away_until = until;
                }
                4..=6 => {
                    if let Some(daemon) = victim("daemon") {
                        kernel.log(|| format!("daemon {daemon} is to stop"));
                        kernel.tell(daemon);
                    }
                }
                kind => {
                    let name = ["daemon", "runner", "shim", "runner", "program"][kind as usize % 5];
                    if let Some(process) = victim(name) {
                        kernel.log(|| format!("{name} {process} is killed"));
                        kernel.kill(process);
                    }
                }
            }
        }
        for index in 0..world.workers.len() {
            let (worker, host) = world.workers[index].clone();
            let is_up = |worker: &WorkerId| !kernel.processes(None, &format!("daemon {worker}")).is_empty();
            if is_up(&worker) || down[index] {
                continue;
            }
            // One that never comes back must have somebody who adopts its runs.
            let heir = (0..world.workers.len())
                .any(|other| other != index && !down[other] && world.workers[other].1 == host);
            if heir && kernel.percent(5) {
                kernel.log(|| format!("{worker} never comes back"));
                down[index] = true;
            } else if world.peace.get() || kernel.percent(30) {
                daemon::start(&world, index);
            }
        }
    }
}

fn is_settled(world: &Shared) -> bool {
    let busy = ["runner", "shim", "program"];
    let server = world.server.borrow();
    server.queue.is_empty()
        && busy
            .iter()
            .all(|name| world.kernel.processes(None, name).is_empty())
        && world
            .hosts
            .borrow()
            .iter()
            .all(|host| host.runs.values().all(|run| run.record.phase.is_final()))
        && server
            .tasks
            .values()
            .all(|task| task.status.is_final() || task.status == TaskStatus::Created || is_known_gap(task))
}

fn audit(world: &Shared) -> Vec<String> {
    let server = world.server.borrow();
    let mut broken = server.broken.clone();
    if !is_settled_with(world, &server, &mut broken) {
        return broken;
    }
    let hosts = world.hosts.borrow();
    for (id, task) in &server.tasks {
        let runs: Vec<&Run> = hosts
            .iter()
            .flat_map(|host| host.runs.values())
            .filter(|run| {
                let life = server.lives.get(&run.record.run_id);
                run.record.identity.task == *id && life.is_some_and(|(_, life)| *life == task.life)
            })
            .collect();
        started_once(world, id, task, &mut broken);
        stopped_as_wished(world, id, task, &mut broken);
        if is_known_gap(task) {
            continue;
        }
        if !task.disturbed {
            right_status(id, task, &runs, &mut broken);
            for run in &runs {
                whole_console(id, task, run, &mut broken);
            }
        } else if task.status == TaskStatus::Created {
            // Reset and left alone: whatever is in its log is from before.
        } else if let Some(at) = task.draft {
            broken.push(format!("task {id} is {}, but was reset at {at}", task.status));
        } else if !task.status.is_final() {
            broken.push(format!("task {id} is left {}", task.status));
        }
    }
    broken
}

fn is_settled_with(world: &Shared, server: &Server, broken: &mut Vec<String>) -> bool {
    let before = broken.len();
    for (id, task) in &server.tasks {
        if !task.status.is_final() && task.status != TaskStatus::Created && !is_known_gap(task) {
            broken.push(format!(
                "task {id} is lost: {} in life {}, queue {:?}",
                task.status, task.life, server.queue
            ));
        }
    }
    for name in ["runner", "shim", "program"] {
        for process in world.kernel.processes(None, name) {
            broken.push(format!("{name} {process} never ends"));
        }
    }
    for host in world.hosts.borrow().iter() {
        for (name, run) in &host.runs {
            if !run.record.phase.is_final() {
                broken.push(format!("run {name} stays in phase {:?}", run.record.phase));
            }
        }
    }
    broken.len() == before
}

/// A person has reset the task between the mark and the start of a worker, which has died right after that. It is in
/// progress, and nothing in it tells with whom.
fn is_known_gap(task: &Entry) -> bool {
    task.status == TaskStatus::InProgress && task.owner.is_none()
}

/// A task runs once for each time that it was put into the queue, by people or because its run had died.
fn started_once(world: &Shared, id: &TaskId, task: &Entry, broken: &mut Vec<String>) {
    for life in 1..=task.life {
        let executions = world.executions.borrow();
        let count = executions
            .iter()
            .filter(|execution| execution.task == *id && execution.life == life)
            .count();
        let key = (id.clone(), life);
        let again = world.put_back.borrow().get(&key).copied().unwrap_or(0) as usize;
        let limit = world.setup.requeue_limit as usize;
        if count > 1 + again || again > limit {
            broken.push(format!(
                "task {id} ran {count} times in life {life}, and was put back {again} times of {limit}"
            ));
        }
    }
}

/// A stop that was accepted before the program ended, or was killed, is what the task ends with.
fn stopped_as_wished(world: &World, id: &TaskId, task: &Entry, broken: &mut Vec<String>) {
    let Some(at) = task.stop.filter(|_| task.status != TaskStatus::Stopped) else {
        return;
    };
    let executions = world.executions.borrow();
    let ran_on = executions.iter().any(|execution| {
        let end = execution.killed.or(execution.ended);
        execution.task == *id && execution.life == task.life && end.is_some_and(|end| end > at)
    });
    if ran_on {
        broken.push(format!(
            "task {id} is {} ({}), but was stopped at {at}",
            task.status, task.reason
        ));
    }
}

fn right_status(id: &TaskId, task: &Entry, runs: &[&Run], broken: &mut Vec<String>) {
    // The last one has the word; the others have put the task back.
    let owner = task.owner.as_ref().map(|mark| mark.run.as_str());
    let last = |run: &&&Run| (Some(run.record.run_id.as_str()) == owner, run.record.created_ms);
    let Some(last) = runs.iter().max_by_key(last) else {
        broken.push(format!("task {id} is {} and nobody has run it", task.status));
        return;
    };
    let record = &last.record;
    let (end, status) = (record.outcome.as_ref().map(|outcome| outcome.end), &task.status);
    let expected: &[TaskStatus] = match (&record.failure, &last.verdict) {
        // It came to a task that had an end already: somebody had put it into the queue again in the instant in which
        // its earlier run told the server how it had ended.
        (_, None) if last.program.is_none() && end == Some(End::LeftAlone) && task.life > 1 => {
            &[TaskStatus::Completed, TaskStatus::Stopped, TaskStatus::Failed]
        }
        (Some(_), _) if end == Some(End::Stopped) => &[TaskStatus::Stopped],
        (Some(_), _) => &[TaskStatus::Failed],
        (None, Some(verdict)) => status_of(verdict),
        // Stopped before its program was started, or given up.
        (None, None) if last.program.is_none() => &[TaskStatus::Stopped, TaskStatus::Failed],
        (None, None) => &[TaskStatus::Failed],
    };
    if !expected.contains(status) {
        broken.push(format!(
            "task {id} is {status} ({}), but its program: {:?}, failure {:?}",
            task.reason, last.verdict, record.failure
        ));
    }
    if record.failure.is_some() && last.verdict.is_some() {
        broken.push(format!("{} failed, although its verdict is known", record.run_id));
    }
}

fn status_of(verdict: &Verdict) -> &'static [TaskStatus] {
    match verdict.code() {
        _ if verdict.aborted => &[TaskStatus::Stopped],
        Some(0) => &[TaskStatus::Completed],
        _ => &[TaskStatus::Failed],
    }
}

/// What the disk had, the server has: once, in order.
fn whole_console(id: &TaskId, task: &Entry, run: &Run, broken: &mut Vec<String>) {
    let name = &run.record.run_id;
    if run.record.phase == clearml_task_runner::Phase::Abandoned || run.record.outcome.is_none() {
        return;
    }
    // One that was given up may never have sent what it had.
    if run.cursor.pending.is_some() {
        return;
    }
    let mut events: Vec<_> = task
        .events
        .iter()
        .map(|(_, event)| event)
        .filter(|event| event.worker == *name)
        .collect();
    events.sort_by_key(|event| event.timestamp);
    if events
        .windows(2)
        .any(|pair| pair[0].timestamp == pair[1].timestamp)
    {
        broken.push(format!("events of {name} have the same time"));
    }
    for (channel, level) in [(Channel::Agent, Level::Info), (Channel::Task, Level::Debug)] {
        let of_channel = events.iter().filter(|event| event.level == level.as_str());
        // A message may go without the end of its last line.
        let has: String = of_channel
            .flat_map(|event| event.msg.chars())
            .filter(|c| *c != '\n')
            .collect();
        let chunks = run.chunks(channel).iter();
        let written: Vec<u8> = chunks.flat_map(|chunk| chunk.payload.iter().copied()).collect();
        let should = String::from_utf8_lossy(&written).replace('\n', "");
        if has != should {
            broken.push(format!(
                "the console of {name} of {id}, channel {channel:?}, is {has:?} instead of {should:?}"
            ));
        }
    }
}
