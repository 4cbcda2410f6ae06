//! A server that is away or answers nonsense: nothing is lost, nothing happens twice.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use crate::scene::{LIMIT, Scene};
use serde_json::{Value, json};
use xtask::workbench::{TaskSpec, wait_for};

/// Every fault that the embedded server can produce and that a client may meet.
fn faults() -> Vec<Value> {
    vec![
        json!({"kind": "status", "status": 503}),
        json!({"kind": "status", "status": 500}),
        json!({"kind": "status", "status": 429, "headers": {"Retry-After": "1"}}),
        json!({"kind": "truncate"}),
        json!({"kind": "html"}),
        json!({"kind": "bad_json"}),
        json!({"kind": "reset_before"}),
        json!({"kind": "reset_after"}),
        json!({"kind": "html", "apply": true}),
        json!({"kind": "status", "status": 502, "apply": true}),
        json!({"kind": "expired_token"}),
    ]
}

fn at(fault: &Value, endpoint: &str, count: u32) -> Value {
    let mut fault = fault.clone();
    fault["endpoint"] = endpoint.into();
    fault["count"] = count.into();
    fault
}

/// Prints numbered lines for about a second and leaves one character per execution in `witness`.
fn numbered(scene: &Scene, name: &str, lines: usize, pause: f64) -> (TaskSpec, std::path::PathBuf) {
    let witness = scene.folder.path().join(format!("{name}.witness"));
    let code = format!(
        "import time\nwith open({:?}, 'a') as witness:\n    witness.write('x')\n\
         for i in range({lines}):\n    print('out:', i, flush=True)\n    time.sleep({pause})\n",
        witness.display().to_string()
    );
    (TaskSpec::script(&code), witness)
}

fn assert_exactly_once(scene: &Scene, task: &str, witness: &std::path::Path, lines: usize, what: &str) {
    let ended = scene.ended(task);
    ended.assert_status("completed");
    let expected: Vec<_> = (0..lines).map(|i| format!("out: {i}")).collect();
    assert_eq!(ended.output(), expected, "{what}");
    assert_eq!(
        fs::read_to_string(witness).unwrap(),
        "x",
        "{what}: not executed exactly once"
    );
}

#[test]
fn console_lines_survive_every_fault_exactly_once() {
    let scene = Scene::new();
    let _daemon = scene.daemon();
    for (index, fault) in faults().iter().enumerate() {
        let (spec, witness) = numbered(&scene, &format!("console-{index}"), 30, 0.05);
        scene.server.fault(&at(fault, "events.add_batch", 2)).unwrap();
        let task = scene.submit("noisy", &spec);
        assert_exactly_once(&scene, &task, &witness, 30, &fault.to_string());
        scene.server.clear_faults().unwrap();
    }
}

#[test]
fn a_pop_is_never_lost_and_never_doubled() {
    let scene = Scene::new();
    let daemon = scene.daemon();
    for (index, fault) in faults().iter().enumerate() {
        let (spec, witness) = numbered(&scene, &format!("pop-{index}"), 3, 0.0);
        scene.server.fault(&at(fault, "queues.get_next_task", 1)).unwrap();
        let task = scene.submit("popped", &spec);
        assert_exactly_once(
            &scene,
            &task,
            &witness,
            3,
            &format!("{fault}\n{}", daemon.output()),
        );
        scene.server.clear_faults().unwrap();
    }
}

#[test]
fn the_final_status_survives_every_fault() {
    let scene = Scene::new();
    let _daemon = scene.daemon();
    for (index, fault) in faults().iter().enumerate() {
        for endpoint in ["tasks.completed", "tasks.started"] {
            let (spec, witness) = numbered(&scene, &format!("{endpoint}-{index}"), 3, 0.0);
            scene.server.fault(&at(fault, endpoint, 1)).unwrap();
            let task = scene.submit("status", &spec);
            assert_exactly_once(&scene, &task, &witness, 3, &format!("{endpoint} {fault}"));
            scene.server.clear_faults().unwrap();
        }
    }
}

#[test]
fn a_server_that_is_away_in_the_middle_costs_nothing() {
    let mut scene = Scene::new();
    let _daemon = scene.daemon();
    let (spec, witness) = numbered(&scene, "outage", 100, 0.1);
    let task = scene.submit("through an outage", &spec);
    wait_for("the first line", LIMIT, Duration::from_millis(50), || {
        Ok(scene.api.console(&task)?.contains("out: 0").then_some(()))
    })
    .unwrap();
    scene.server.kill();
    sleep(Duration::from_secs(8));
    scene.server.start_again().unwrap();
    assert_exactly_once(&scene, &task, &witness, 100, "an outage of 8 s");
}

#[test]
fn a_task_that_ends_while_the_server_is_away_is_reported_later() {
    let mut scene = Scene::new();
    let _daemon = scene.daemon();
    let (spec, witness) = numbered(&scene, "short", 20, 0.1);
    let task = scene.submit("ends unseen", &spec);
    wait_for("the first line", LIMIT, Duration::from_millis(50), || {
        Ok(scene.api.console(&task)?.contains("out: 0").then_some(()))
    })
    .unwrap();
    scene.server.kill();
    sleep(Duration::from_secs(5));
    scene.server.start_again().unwrap();
    assert_exactly_once(&scene, &task, &witness, 20, "ended during an outage");
    scene.good_task_completes();
}
