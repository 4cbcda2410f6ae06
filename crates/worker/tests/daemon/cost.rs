//! What a task costs the server, and how soon people know what it does.

use std::time::{Duration, Instant};

use clearml_api_client::StatusChange;
use clearml_task_model::TaskId;
use serde_json::json;
use tokio::time::sleep;

use crate::scene::{PATIENCE, Scene, WORKER, eventually};

/// Less than the five seconds of an agent that does everything by one clock, with room for a busy machine.
const SOON: Duration = Duration::from_secs(4);

async fn console(scene: &Scene, task: &TaskId) -> String {
    let log = scene.client.events_get_task_log(task, Some(0), false, 2000).await;
    log.unwrap()
        .events
        .iter()
        .map(|event| event.msg.as_str())
        .collect()
}

async fn shows(scene: &Scene, task: &TaskId, text: &str) -> Instant {
    let deadline = Instant::now() + PATIENCE;
    while !console(scene, task).await.contains(text) {
        assert!(Instant::now() < deadline, "{text:?} does not arrive");
        sleep(Duration::from_millis(20)).await;
    }
    Instant::now()
}

#[tokio::test]
async fn a_short_task_costs_few_requests() {
    let scene = Scene::start().await;
    let daemon = scene.daemon(&["work"]).await;
    // The first task also pays for what is done once.
    let first = scene.enqueued(&scene.queue, "first").await;
    scene.completes_once(&first, "first", &daemon).await;
    let task = scene.draft("short", "").await;
    sleep(Duration::from_millis(500)).await;
    scene.forget_calls().await;
    let change = StatusChange::default();
    scene
        .client
        .tasks_enqueue(&task, &scene.queue, &change)
        .await
        .unwrap();
    // Looking from outside would count as well.
    daemon.says(&format!("DONE: Running task '{task}'")).await;
    let mut calls = scene.calls().await;
    // Looks at the queues go on by the clock, and the enqueueing was ours.
    calls.remove("queues.get_all");
    calls.remove("tasks.enqueue");
    let sum: u64 = calls.values().sum();
    // About twenty on an idle machine, six of them status calls that other ClearML tools rely on; looks at the
    // status go on by the clock, so a busy machine adds some.
    assert!(sum <= 30, "{sum} requests: {calls:?}");
    scene.completes_once(&task, "short", &daemon).await;
}

#[tokio::test]
async fn lines_ends_and_aborts_are_known_soon() {
    let scene = Scene::start().await;
    let stamps = scene.folder().join("stamps");
    let script = format!(
        "for i in 1 2 3; do sleep 1.3; touch {0}-$i; echo mark $i; done; sleep 1; touch {0}-end",
        stamps.display()
    );
    let task = scene.enqueued_script(&scene.queue, "marks", &script).await;
    let endless = scene
        .enqueued_script(&scene.queue, "endless", "echo up; exec sleep 1000")
        .await;
    // How often the queues are looked at has no part in it.
    let seldom = [("CLEARML_AGENT_QUEUE_POLL_FREQ_SEC", "60")];
    let daemon = scene.daemon_with(WORKER, &["work"], &seldom);
    let since = |name: &str| {
        let path = format!("{}-{name}", stamps.display());
        let written = std::fs::metadata(path).unwrap().modified().unwrap();
        written.elapsed().unwrap()
    };
    for i in ["1", "2", "3"] {
        shows(&scene, &task, &format!("mark {i}\n")).await;
        assert!(since(i) < SOON, "line {i} took {:?}", since(i));
    }
    scene.completes_once(&task, "marks", &daemon).await;
    assert!(since("end") < SOON, "the end took {:?}", since("end"));

    let task = endless;
    shows(&scene, &task, "up\n").await;
    let told = Instant::now();
    scene
        .client
        .tasks_stop(&task, &StatusChange::default())
        .await
        .unwrap();
    let ended = scene.ended(&task, &daemon).await;
    assert_eq!(ended.status.unwrap().as_str(), "stopped");
    assert!(told.elapsed() < SOON, "the abort took {:?}", told.elapsed());
}

/// The console waits for an answer that takes long, and nothing else does.
#[tokio::test]
async fn a_call_that_takes_long_delays_neither_abort_nor_end() {
    let scene = Scene::start().await;
    let script = "echo up; sleep 1; for i in $(seq 1 600); do echo $i; sleep 0.1; done";
    let task = scene.enqueued_script(&scene.queue, "slow", script).await;
    let daemon = scene.daemon_with(WORKER, &["work"], &[]);
    shows(&scene, &task, "up\n").await;
    scene
        .fault(json!({"endpoint": "events.add_batch", "kind": "delay", "delay_ms": 20_000}))
        .await;
    scene.forget_calls().await;
    while scene.calls_of("events.add_batch").await == 0 {
        sleep(Duration::from_millis(50)).await;
    }
    let told = Instant::now();
    let change = StatusChange::default();
    scene.client.tasks_stop(&task, &change).await.unwrap();
    let exited = || {
        let runs = scene.runs().list().unwrap();
        runs.iter()
            .any(|run| run.verdict().is_ok_and(|verdict| verdict.is_some()))
    };
    eventually("the program has ended", exited).await;
    assert!(told.elapsed() < SOON, "{:?}\n{}", told.elapsed(), daemon.output());
    scene.clear_faults().await;
    let ended = scene.ended(&task, &daemon).await;
    assert_eq!(ended.status.unwrap().as_str(), "stopped");
}

/// A task that says nothing for hours is not taken for lost.
#[tokio::test]
async fn a_silent_task_gives_signs_of_life_as_often_as_configured() {
    for (period, expected) in [("1", 2..=6), ("0", 0..=0)] {
        let scene = Scene::start().await;
        let task = scene.enqueued_script(&scene.queue, "silent", "sleep 4.5").await;
        let daemon = scene.daemon_with(
            WORKER,
            &["work"],
            &[("CLEARML_AGENT__AGENT__TASK_PING_INTERVAL_SEC", period)],
        );
        scene.completes_once(&task, "silent", &daemon).await;
        let pings = scene.calls_of("tasks.ping").await;
        assert!(expected.contains(&pings), "{period}: {pings}");
    }
}

#[tokio::test]
async fn a_busy_agent_neither_hammers_a_server_in_trouble_nor_stays_away_afterwards() {
    let scene = Scene::start().await;
    let daemon = scene.daemon(&["work"]).await;
    let script = "for i in $(seq 1 120); do echo line $i; sleep 0.1; done";
    let task = scene.enqueued_script(&scene.queue, "chatty", script).await;
    shows(&scene, &task, "line 5\n").await;
    scene
        .fault(json!({"endpoint": "*", "kind": "status", "status": 503, "count": -1}))
        .await;
    scene.forget_calls().await;
    sleep(Duration::from_secs(8)).await;
    let calls = scene.calls().await;
    let sum: u64 = calls.values().sum();
    // Console, status of the task, report of the worker: each steps back by itself.
    assert!((3..=40).contains(&sum), "{calls:?}\n{}", daemon.output());
    scene.clear_faults().await;
    let back = shows(&scene, &task, "line 60\n");
    let waited = tokio::time::timeout(Duration::from_secs(15), back).await;
    assert!(waited.is_ok(), "the console stays away:\n{}", daemon.output());
    scene.completes_once(&task, "chatty", &daemon).await;
    let text = console(&scene, &task).await;
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("line ")).collect();
    let expected: Vec<String> = (1..=120).map(|n| format!("line {n}")).collect();
    assert_eq!(lines, expected);
}
