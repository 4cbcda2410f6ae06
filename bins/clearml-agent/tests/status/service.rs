//! The agent as a service: the unit in `dist/`, what the service manager is told, reload, and restarts that
//! leave tasks alone.

use std::fs;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use xtask::workbench::{TaskSpec, wait_for};

use crate::manager::{Manager, Unit};
use crate::scene::{AGENT, LIMIT, Scene};

/// Prints what it was given, waits for a file, and prints once more.
fn waiting(file: &std::path::Path) -> String {
    format!(
        "import os, time\nprint('out:', os.environ.get('MARK'), os.environ.get('NOTIFY_SOCKET'), flush=True)\n\
         while not os.path.exists({file:?}): time.sleep(0.05)\nprint('out: end', flush=True)"
    )
}

#[test]
fn systemd_understands_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clearml-agent.service");
    fs::write(&path, Unit::read().with_program(AGENT)).unwrap();
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&path)
        .output();
    let Ok(output) = verified else {
        eprintln!("SKIPPED systemd_understands_the_unit: systemd-analyze is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // Other units of this machine may be unsound; ours must not be mentioned.
    let ours: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("clearml-agent.service"))
        .collect();
    assert!(ours.is_empty(), "{said}");
    let unit = Unit::read();
    for (key, value) in [("Type", "notify"), ("KillMode", "process"), ("Delegate", "yes")] {
        assert_eq!(unit.value(key), value);
    }
}

#[test]
fn a_service_is_watched_reloaded_and_restarted_and_its_tasks_go_on() {
    let scene = Scene::new();
    let config = scene.folder.path().join("agent.conf");
    let packaged = fs::read_to_string(scene.server.config()).unwrap();
    let write = |mark: &str| {
        fs::write(
            &config,
            format!("{packaged}\nenvironment {{ MARK: \"{mark}\" }}\n"),
        )
        .unwrap()
    };
    write("first");
    let mut options = crate::options(&scene);
    options.config = config.clone();
    let unit = Unit::read();
    let (manager, mut agent) = Manager::start(&unit, options, scene.folder.path());
    let before = manager.hears("READY=1");
    assert!(before[0].starts_with("STATUS="), "{before:?}");
    // Twice within the period of one second.
    manager.hears("WATCHDOG=1");
    manager.hears("WATCHDOG=1");

    // A reload counts for the next task, and the manager knows when it is done.
    let file = scene.folder.path().join("go-1");
    let first = scene.submit("first", &TaskSpec::script(&waiting(&file)));
    manager.hears(&format!("STATUS=running task {first}"));
    write("second");
    agent.signal(Signal::HUP);
    let heard = manager.hears("RELOADING=1").pop().unwrap();
    assert!(heard.contains("\nMONOTONIC_USEC="), "{heard}");
    manager.hears("READY=1");
    fs::write(&file, "").unwrap();
    let ended = scene.ended(&first);
    ended.assert_status("completed");
    assert_eq!(ended.output(), ["out: first None", "out: end"]);

    // A restart: the task goes on, is adopted, and ends well, with every line once.
    let file = scene.folder.path().join("go-2");
    let second = scene.submit("second", &TaskSpec::script(&waiting(&file)));
    wait_for("the first line", LIMIT, Duration::from_millis(50), || {
        Ok(scene
            .api
            .console(&second)?
            .contains("out: second None")
            .then_some(()))
    })
    .unwrap();
    agent.signal(Signal::TERM);
    manager.hears("STOPPING=1");
    let status = agent.wait(Duration::from_secs(10)).unwrap();
    let success = unit.value("SuccessExitStatus").parse().ok();
    assert_eq!(
        status.code(),
        success,
        "a service that was stopped has not failed"
    );
    assert_eq!(scene.api.status(&second).unwrap(), "in_progress");
    assert!(!agent.mark().processes().is_empty(), "the task goes on");
    agent.start_again().unwrap();
    manager.hears("READY=1");
    manager.hears(&format!("STATUS=running task {second}"));
    fs::write(&file, "").unwrap();
    let ended = scene.ended(&second);
    ended.assert_status("completed");
    assert_eq!(ended.output(), ["out: second None", "out: end"]);
    assert!(agent.output().contains(&format!("Continuing task '{second}'")));
    manager.hears("STATUS=waiting for tasks");
    // A log that is collected does not say every few seconds that there is nothing to do.
    assert!(
        !agent.output().contains("No tasks in queue"),
        "{}",
        agent.output()
    );

    // A configuration that can't be read changes nothing.
    fs::write(&config, "api {").unwrap();
    agent.signal(Signal::HUP);
    manager.hears("READY=1");
    assert!(
        agent
            .output()
            .contains("going on with the configuration as it was")
    );
    scene.good_task_completes();
}
