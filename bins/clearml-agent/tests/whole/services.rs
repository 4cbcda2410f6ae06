//! Services mode as a user meets it, and a daemon that is interrupted.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use xtask::workbench::{Agent, TaskSpec};

use crate::scene::{LIMIT, QUEUE, Scene};

#[test]
fn services_have_no_gpus_and_carry_the_tags_of_their_daemon() {
    let scene = Scene::new();
    let arguments = [
        "daemon",
        "--queue",
        QUEUE,
        "--foreground",
        "--gpus",
        "0",
        "--child-report-tags",
        "fast",
    ];
    let arguments = [&arguments[..], &["--services-mode", "2"]].concat();
    // A register of its own, so that no other daemon of this machine takes the first slot.
    let options = scene
        .options()
        .variable("TMPDIR", scene.folder.path().to_str().unwrap());
    let mut daemon = Agent::start(&options, &arguments).unwrap();
    let script = "import os, time\n\
        names = ['NVIDIA_VISIBLE_DEVICES', 'CLEARML_WORKER_TAGS', 'CLEARML_WORKER_ID']\n\
        print('out:', *[os.environ.get(name) for name in names], flush=True)\n\
        time.sleep(600)\n";
    let submit = |name| {
        scene
            .api
            .submit(name, &TaskSpec::script(script), &scene.queue)
            .unwrap()
    };
    let tasks = [submit("first"), submit("second")];
    for task in &tasks {
        let line = format!("out: none fast tester:cpu:0:service:{task}");
        xtask::workbench::wait_for("the line of a service", LIMIT, Duration::from_millis(100), || {
            Ok(scene.api.console(task)?.contains(&line).then_some(()))
        })
        .unwrap_or_else(|e| panic!("{e}\n{}", daemon.output()));
    }
    let reply = scene.api.call("workers.get_all", json!({})).unwrap();
    let workers = reply["workers"].as_array().unwrap().iter();
    let mut tags: Vec<_> = workers
        .map(|worker| (worker["id"].as_str().unwrap().to_owned(), worker["tags"].clone()))
        .collect();
    tags.sort_by(|a, b| a.0.cmp(&b.0));
    let mut expected = tasks
        .clone()
        .map(|task| (format!("tester:cpu:0:service:{task}"), json!(["fast"])));
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(tags.len(), 3, "{tags:?}");
    assert!(
        tags[0].0 == "tester:cpu:0" && tags[0].1 != json!(["fast"]),
        "{tags:?}"
    );
    assert_eq!(tags[1..], expected);
    let printed = daemon.output();
    assert!(
        printed.contains("ClearML-Agent running in services mode"),
        "{printed}"
    );
    for task in &tasks {
        assert!(printed.contains(&format!("Running task '{task}'\n")), "{printed}");
    }
    daemon.stop().unwrap();
    for task in &tasks {
        assert_eq!(scene.api.status(task).unwrap(), "stopped");
    }
}

#[test]
fn an_interrupt_ends_a_daemon_with_its_task() {
    let scene = Scene::new();
    let mut daemon = Agent::daemon(&scene.options(), QUEUE).unwrap();
    let spec = TaskSpec::script("import time\nprint('out: here', flush=True)\ntime.sleep(600)\n");
    let task = scene.api.submit("interrupted", &spec, &scene.queue).unwrap();
    xtask::workbench::wait_for("the first line", LIMIT, Duration::from_millis(100), || {
        Ok(scene.api.console(&task)?.contains("out: here").then_some(()))
    })
    .unwrap();
    daemon.signal(Signal::INT);
    let status = daemon.wait(Duration::from_secs(30)).unwrap();
    assert_eq!(status.code(), Some(254), "{}", daemon.output());
    assert_eq!(scene.api.status(&task).unwrap(), "stopped");
}
