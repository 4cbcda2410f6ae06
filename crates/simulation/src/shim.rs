//! Shims and the programs of users below them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use clearml_task_runner::record::Verdict;

use crate::kernel::{Either, Env, Pid, either};
use crate::runner::GRACE;
use crate::world::{Claim, Execution, Shared};

/// The pipe between a program and its shim.
#[derive(Default)]
struct Pipe {
    lines: RefCell<Vec<String>>,
    /// The exit code, or minus a signal.
    code: Cell<Option<i32>>,
}

/// Starts a shim for a run; it lives on when its runner dies.
pub(crate) fn start(world: &Shared, host: usize, name: &str) -> Pid {
    let (world, name) = (world.clone(), name.to_owned());
    let kernel = world.kernel.clone();
    kernel.spawn(&format!("shim {name}"), Some(host), |env| async move {
        supervise(&world, &env, host, &name).await;
    })
}

async fn supervise(world: &Shared, env: &Env, host: usize, name: &str) {
    // A machine under load may need long to start a program.
    env.sleep(env.kernel.below(40)).await;
    if !world.peace.get() && env.kernel.percent(10) {
        env.sleep(env.kernel.below(10_000)).await;
    }
    env.step().await;
    if !world.peace.get() && env.kernel.percent(3) {
        // A full disk, or no more processes.
        return;
    }
    let claim = Claim {
        pid: env.pid,
        boot: world.boot(host),
    };
    let ours = world.run(host, name, |run| {
        run.launch && run.claim.get_or_insert(claim).pid == env.pid
    });
    if ours != Some(true) {
        return;
    }
    env.step().await;
    let pipe = Rc::new(Pipe::default());
    let program = start_program(world, host, name, &pipe, env.pid);
    let drain = || {
        let now = env.kernel.now();
        for line in pipe.lines.take() {
            world.run(host, name, |run| run.output(now, &line));
        }
    };
    let mut aborted = false;
    env.kernel.watch(program, env.pid);
    while env.kernel.is_alive(program) {
        let something = env.until(|| {
            !pipe.lines.borrow().is_empty() || !env.kernel.is_alive(program) || (env.is_told() && !aborted)
        });
        something.await;
        drain();
        if !env.kernel.is_alive(program) {
            break;
        }
        if env.is_told() && !aborted {
            aborted = true;
            env.kernel.tell(program);
            let ended = env.until(|| !env.kernel.is_alive(program));
            if let Either::Second(()) = either(ended, env.sleep(GRACE)).await {
                while env.kernel.is_alive(program) {
                    kill_program(world, program);
                    env.sleep(100).await;
                }
            }
        }
        env.sleep(env.kernel.below(20)).await;
    }
    // What the program has written right before its end.
    env.step().await;
    drain();
    env.step().await;
    let code = pipe.code.get().unwrap_or(-9);
    let verdict = Verdict {
        aborted,
        ..Verdict::of(Some(code))
    };
    env.kernel
        .log(|| format!("{name} has ended with {code}, aborted {aborted}"));
    world.run(host, name, |run| run.verdict = Some(verdict));
    env.step().await;
}

/// A program gets SIGKILL. One that hangs in the kernel takes its time.
pub(crate) fn kill_program(world: &Shared, program: Pid) {
    let now = world.kernel.now();
    let mut executions = world.executions.borrow_mut();
    if let Some(execution) = executions.iter_mut().find(|execution| execution.pid == program) {
        execution.killed.get_or_insert(now);
    }
    drop(executions);
    if !world.setup.stubborn || world.peace.get() || world.kernel.percent(20) {
        world.kernel.kill(program);
    }
}

fn start_program(world: &Shared, host: usize, name: &str, pipe: &Rc<Pipe>, shim: Pid) -> Pid {
    let (lives, kernel) = (world.clone(), world.kernel.clone());
    let (task, life) = world
        .server
        .borrow()
        .lives
        .get(name)
        .cloned()
        .unwrap_or_else(|| ("?".into(), 0));
    let number = world.executions.borrow().len();
    let (run, pipe) = (name.to_owned(), pipe.clone());
    let pid = kernel.spawn(&format!("program {name}"), Some(host), |env| async move {
        let lines = env.kernel.below(8);
        let ends_at_once = env.kernel.percent(70);
        for line in 0..lines {
            let text = format!("{run} {line}\n");
            // Lines come in pieces.
            let (first, second) = text.split_at(text.len() / 2);
            for part in [first, second] {
                pipe.lines.borrow_mut().push(part.to_owned());
                env.kernel.wake(shim);
                if env.kernel.percent(20) {
                    env.sleep(env.kernel.below(300)).await;
                }
            }
            let pause = env.sleep(env.kernel.below(2_000));
            let told = env.until(|| env.is_told() && ends_at_once);
            if let Either::Second(()) = either(pause, told).await {
                break;
            }
        }
        if env.kernel.percent(10) {
            // Longer than anybody waits before a task is put back.
            let told = env.until(|| env.is_told() && ends_at_once);
            either(env.sleep(env.kernel.below(40_000)), told).await;
        }
        let code = match env.kernel.below(10) {
            _ if env.is_told() && ends_at_once => -15,
            0..=5 => 0,
            6..=8 => 3,
            _ => -11,
        };
        let execution = &mut lives.executions.borrow_mut()[number];
        (execution.code, execution.ended) = (Some(code), Some(env.kernel.now()));
        pipe.code.set(Some(code));
    });
    kernel.log(|| format!("starts the program of {name}, {task} life {life}"));
    for other in world.executions.borrow().iter() {
        if other.task == task && other.life == life && kernel.is_alive(other.pid) {
            world.broken(format!("{name} starts {task} while {} still runs it", other.run));
        }
        if other.run == name {
            world.broken(format!("{name} starts its program twice"));
        }
    }
    world.executions.borrow_mut().push(Execution {
        run: name.to_owned(),
        task,
        life,
        pid,
        code: None,
        ended: None,
        killed: None,
    });
    world.run(host, name, |run| run.program = Some(pid));
    pid
}
