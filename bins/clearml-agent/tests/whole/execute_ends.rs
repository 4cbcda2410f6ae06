//! How `execute` ends when somebody wants that.

use std::time::Duration;

use crate::scene::{LIMIT, QUEUE, Scene};
use rustix::process::Signal;
use serde_json::json;
use xtask::workbench::{Agent, TaskSpec, wait_for};

const SLEEPER: &str = "import subprocess, sys, time\n\
    subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'], start_new_session=True)\n\
    print('out: started', flush=True)\ntime.sleep(1000)\n";

/// A task that runs directly, and has begun.
fn begun(scene: &Scene) -> (String, Agent) {
    let task = scene
        .api
        .create_task("one task", &TaskSpec::script(SLEEPER))
        .unwrap();
    let options = scene
        .options()
        .variable("CLEARML_AGENT__AGENT__STATUS_POLL_INTERVAL_SEC", "0.5");
    let agent = Agent::start(&options, &["execute", "--id", &task]).unwrap();
    wait_for("the first line", LIMIT, Duration::from_millis(50), || {
        Ok(scene.api.console(&task)?.contains("out: started").then_some(()))
    })
    .unwrap();
    (task, agent)
}

#[track_caller]
fn nothing_is_left(scene: &Scene, agent: &Agent) {
    assert_eq!(agent.mark().processes(), [], "processes are left");
    let workers = scene.api.call("workers.get_all", json!({})).unwrap();
    assert_eq!(workers["workers"], json!([]), "the worker is still registered");
    assert_eq!(
        scene.api.waiting(&scene.queue).unwrap(),
        [""; 0],
        "{QUEUE} is not empty"
    );
}

#[test]
fn a_task_that_is_run_directly_hears_an_abort() {
    let scene = Scene::new();
    let (task, mut agent) = begun(&scene);
    scene.api.call("tasks.stop", json!({"task": task})).unwrap();
    agent.wait(LIMIT).unwrap();
    let ended = scene.ended(&task);
    ended.assert_status("stopped");
    assert_eq!(ended.reason(), "task was stopped by tasks.stop");
    assert!(
        ended.console.contains("User aborted: stopping task (1) stopped"),
        "{}",
        ended.console
    );
    nothing_is_left(&scene, &agent);
}

#[test]
fn a_signal_stops_the_task_and_the_exit_code_is_254() {
    let scene = Scene::new();
    for signal in [Signal::INT, Signal::TERM] {
        let (task, mut agent) = begun(&scene);
        agent.signal(signal);
        let status = agent.wait(LIMIT).unwrap();
        assert_eq!(status.code(), Some(254), "{}", agent.output());
        let ended = scene.ended(&task);
        ended.assert_status("stopped");
        assert_eq!(ended.reason(), "user abort");
        nothing_is_left(&scene, &agent);
    }
}

/// The memory of the agent holds secrets.
#[test]
fn core_dumps_of_the_agent_are_empty_and_those_of_the_task_as_usual() {
    let scene = Scene::new();
    let (_task, agent) = begun(&scene);
    let filter = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/coredump_filter")).unwrap();
    let mut programs = 0;
    for (pid, command) in agent.mark().processes() {
        let is_agent = Some(pid) == agent.pid();
        assert_eq!(filter(pid).trim() == "00000000", is_agent, "{command}");
        programs += usize::from(!is_agent);
        if command.contains("script.py") {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let supervisor = status.lines().find_map(|line| line.strip_prefix("PPid:"));
            let supervisor = supervisor.unwrap().trim().parse().unwrap();
            assert_eq!(filter(supervisor).trim(), "00000000", "the supervisor");
        }
    }
    assert_eq!(programs, 2, "the program and its child");
}
