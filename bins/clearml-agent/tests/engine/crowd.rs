//! Five containers at a time.

use rustix::process::Signal;
use xtask::workbench::Agent;

use crate::stage::{Counting, Stage};

const NUMBER: usize = 5;

#[test]
fn killed_agents_find_five_containers_again() {
    let Some(stage) = Stage::or_skip("killed_agents_find_five_containers_again") else {
        return;
    };
    let mut agents = stage.daemons(NUMBER);
    let tasks = stage.counting("task", NUMBER);
    kill_all(&mut agents);
    let before: Vec<_> = tasks.iter().map(Counting::count).collect();
    std::thread::sleep(std::time::Duration::from_secs(2));
    // Two end while nobody looks.
    tasks[0].finish();
    tasks[1].finish();
    for (task, before) in tasks.iter().zip(before) {
        assert!(
            task.count() > before,
            "a container stands still without its agent"
        );
    }
    std::thread::sleep(std::time::Duration::from_secs(1));
    for agent in &mut agents {
        agent.start_again().unwrap();
    }
    for task in &tasks[2..] {
        stage.goes_on(task);
        task.finish();
    }
    complete(&stage, &tasks);
    for mut agent in agents {
        agent.stop().unwrap();
    }
}

/// SIGKILL to the daemons and their runners; what is in containers is not theirs.
fn kill_all(agents: &mut [Agent]) {
    for agent in agents.iter_mut() {
        agent.kill();
    }
    for agent in agents {
        agent.mark().kill_all();
    }
}

#[test]
fn an_engine_that_is_restarted_ends_its_containers_and_their_tasks_say_so() {
    let Some(mut stage) =
        Stage::or_skip("an_engine_that_is_restarted_ends_its_containers_and_their_tasks_say_so")
    else {
        return;
    };
    let agents = stage.daemons(NUMBER);
    // It says good-bye to its containers, or it can't.
    for (name, signal) in [("stopped", Signal::TERM), ("killed", Signal::KILL)] {
        let tasks = stage.counting(name, NUMBER);
        stage.engine.end(signal).unwrap();
        stage.engine.start_again(false).unwrap();
        for task in &tasks {
            let ended = stage.ended(&task.task);
            ended.assert_failed_in("infrastructure: the container", "container engine");
            if signal == Signal::TERM {
                task.assert_complete(&ended);
            } else {
                task.assert_complete_to_the_kill(&ended);
            }
        }
        stage.are_removed(ids(&tasks));
    }
    // And they work on.
    let tasks = stage.counting("afterwards", 1);
    tasks[0].finish();
    complete(&stage, &tasks);
    for mut agent in agents {
        agent.stop().unwrap();
    }
}

#[test]
fn with_live_restore_five_containers_outlive_their_engine() {
    let Some(mut stage) = Stage::or_skip("with_live_restore_five_containers_outlive_their_engine") else {
        return;
    };
    stage.engine.end(Signal::TERM).unwrap();
    stage.engine.start_again(true).unwrap();
    let mut agents = stage.daemons(NUMBER);
    let tasks = stage.counting("task", NUMBER);
    for signal in [Signal::TERM, Signal::KILL] {
        stage.engine.end(signal).unwrap();
        // The console comes without the engine.
        for task in &tasks {
            stage.goes_on(task);
        }
        // Agents that are killed at the worst time as well.
        if signal == Signal::KILL {
            kill_all(&mut agents);
            stage.engine.start_again(true).unwrap();
            for agent in &mut agents {
                agent.start_again().unwrap();
            }
        } else {
            stage.engine.start_again(true).unwrap();
        }
    }
    for task in &tasks {
        stage.goes_on(task);
        task.finish();
    }
    complete(&stage, &tasks);
    for mut agent in agents {
        agent.stop().unwrap();
    }
}

#[track_caller]
fn complete(stage: &Stage, tasks: &[Counting]) {
    for task in tasks {
        let ended = stage.ended(&task.task);
        ended.assert_status("completed");
        task.assert_complete(&ended);
    }
    stage.are_removed(ids(tasks));
}

fn ids(tasks: &[Counting]) -> impl Iterator<Item = &str> {
    tasks.iter().map(|task| task.task.as_str())
}
