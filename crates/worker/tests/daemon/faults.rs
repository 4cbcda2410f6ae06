//! A server that is overloaded, loses answers, or is not there.

use std::time::{Duration, Instant};

use clearml_api_client::WorkersQuery;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::scene::{Scene, WORKER, eventually};

/// How long an end may take when nobody answers.
const BOUND: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_server_in_trouble_is_not_hammered_and_is_served_again_afterwards() {
    tokio::join!(
        storm("unavailable", json!({"kind": "status", "status": 503})),
        storm(
            "limited",
            json!({"kind": "status", "status": 429, "headers": {"Retry-After": "1"}}),
        ),
        storm(
            "internal",
            json!({"kind": "status", "status": 500, "subcode": 100})
        ),
        storm("silent", json!({"kind": "reset_before"})),
    );
}

async fn storm(name: &str, mut fault: Value) {
    let scene = Scene::start().await;
    let daemon = scene.daemon(&["work"]).await;
    fault["endpoint"] = "*".into();
    fault["count"] = (-1).into();
    scene.fault(fault).await;
    scene.forget_calls().await;
    sleep(Duration::from_secs(6)).await;
    let calls = scene.calls().await;
    let sum: u64 = calls.values().sum();
    // A look that finds nothing is due every 0.2 s, so 30 requests would be no less than usual.
    assert!(sum <= 20, "{name}: {calls:?}\n{}", daemon.output());
    assert!(sum >= 2, "{name}: it has given up: {calls:?}");
    scene.clear_faults().await;

    let task = scene.enqueued(&scene.queue, name).await;
    let since = Instant::now();
    scene.completes_once(&task, name, &daemon).await;
    assert!(
        since.elapsed() < Duration::from_secs(20),
        "{name}: {:?}",
        since.elapsed()
    );
    let reports = daemon.output().matches(" WARN ").count();
    assert!(reports <= 4, "{name}: {}", daemon.output());
}

#[tokio::test]
async fn a_task_outlasts_a_minute_without_server() {
    let mut scene = Scene::start().await;
    let daemon = scene.daemon(&["work"]).await;
    let script = "for i in $(seq 1 130); do echo line $i; sleep 0.5; done";
    let task = scene.enqueued_script(&scene.queue, "minute", script).await;
    eventually("the task runs", || scene.executions("minute") == 1).await;
    sleep(Duration::from_secs(1)).await;
    scene.stop_server().await;
    sleep(Duration::from_secs(60)).await;
    scene.start_server().await;
    scene.completes_once(&task, "minute", &daemon).await;
    let log = scene
        .client
        .events_get_task_log(&task, Some(0), false, 2000)
        .await
        .unwrap();
    let text: String = log.events.iter().map(|event| event.msg.as_str()).collect();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("line ")).collect();
    let expected: Vec<String> = (1..=130).map(|n| format!("line {n}")).collect();
    assert_eq!(lines, expected);
    let warnings = daemon.output().matches(" WARN ").count();
    assert!(warnings <= 4, "{}", daemon.output());
}

#[tokio::test]
async fn a_pop_whose_answer_is_lost_runs_the_task_once() {
    let scene = Scene::start().await;
    let daemon = scene.daemon(&["work"]).await;
    scene
        .fault(json!({"endpoint": "queues.get_next_task", "kind": "reset_after"}))
        .await;
    let task = scene.enqueued(&scene.queue, "lost-answer").await;
    scene.completes_once(&task, "lost-answer", &daemon).await;
    assert_eq!(
        scene.calls_of("queues.get_next_task").await,
        1,
        "{}",
        daemon.output()
    );
    let next = scene.enqueued(&scene.queue, "next").await;
    scene.completes_once(&next, "next", &daemon).await;
    assert_eq!(scene.executions("lost-answer"), 1);
}

#[tokio::test]
async fn an_idle_daemon_ends_at_once_although_the_server_is_away() {
    let mut scene = Scene::start().await;
    let mut daemon = scene.daemon(&["work"]).await;
    scene.stop_server().await;
    daemon.says("trouble").await;
    sleep(Duration::from_secs(1)).await;
    daemon.terminate();
    assert_eq!(daemon.end_within(BOUND).await.code(), Some(254));
}

#[tokio::test]
async fn a_busy_daemon_ends_with_its_task_although_the_server_is_away() {
    let mut scene = Scene::start().await;
    let mut daemon = scene.daemon(&["work"]).await;
    let pid = scene.folder().join("pid");
    let script = format!("echo $$ > {}\nexec sleep 1000", pid.display());
    let task = scene.enqueued_script(&scene.queue, "busy", &script).await;
    eventually("the task runs", || {
        std::fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n'))
    })
    .await;
    scene.stop_server().await;
    sleep(Duration::from_secs(1)).await;
    daemon.terminate();
    assert_eq!(
        daemon.end_within(BOUND).await.code(),
        Some(254),
        "{}",
        daemon.output()
    );
    let pid: i32 = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    assert!(
        !std::path::Path::new(&format!("/proc/{pid}")).exists(),
        "the user's program runs on"
    );

    // What could not be reported then is reported by the next daemon.
    scene.start_server().await;
    let daemon = scene.daemon_with(WORKER, &["work"], &[]);
    let ended = scene.ended(&task, &daemon).await;
    assert_eq!(
        ended.status.unwrap().as_str(),
        "stopped",
        "{:?}",
        ended.status_reason
    );
    assert_eq!(scene.executions("busy"), 1);
}

#[tokio::test]
async fn the_last_lines_are_sent_before_the_daemon_ends() {
    let scene = Scene::start().await;
    let mut daemon = scene.daemon(&["work"]).await;
    // Many lines right before the end, and more because of it.
    let script = "trap 'echo last words; exit 0' TERM\n\
                  for i in $(seq 1 2000); do echo line $i; done\n\
                  touch ../up; while :; do sleep 0.05; done";
    let script = script.replace("../up", scene.folder().join("up").to_str().unwrap());
    let task = scene.enqueued_script(&scene.queue, "talkative", &script).await;
    let up = scene.folder().join("up");
    eventually("the task runs", || up.exists()).await;
    daemon.terminate();
    let status = daemon.end_within(BOUND).await;
    assert_eq!(status.code(), Some(254), "{}", daemon.output());
    let ended = scene.task(&task).await;
    assert_eq!(ended.status.unwrap().as_str(), "stopped");
    let mut text = String::new();
    let mut from = 0;
    loop {
        let page = scene
            .client
            .events_get_task_log(&task, Some(from), false, 2000)
            .await;
        let events = page.unwrap().events;
        let Some(last) = events.last() else { break };
        from = last.timestamp;
        text.extend(events.iter().map(|event| event.msg.as_str()));
    }
    let lines = text.lines().filter(|line| line.starts_with("line ")).count();
    assert_eq!(lines, 2000);
    let workers = scene.client.workers_get_all(&WorkersQuery::default()).await;
    assert!(workers.unwrap().is_empty(), "it is taken off the list");
    let (_, end) = text.split_once("line 2000\n").unwrap();
    assert!(end.contains("last words\n"), "{end}");
}

/// Somebody who presses Ctrl-C twice gets the terminal back at once, and the task ends all the same.
#[tokio::test]
async fn a_daemon_that_is_told_twice_does_not_wait_for_its_task() {
    let scene = Scene::start().await;
    let mut daemon = scene.daemon_with(WORKER, &["work"], &[("EXAMPLE_GRACE", "6")]);
    let up = scene.folder().join("up");
    // Whatever it is told, it goes on until it is killed.
    let script = format!(
        "trap '' TERM; touch {}; while :; do sleep 0.05; done",
        up.display()
    );
    let task = scene.enqueued_script(&scene.queue, "stubborn", &script).await;
    eventually("the task runs", || up.exists()).await;
    daemon.terminate();
    daemon.says("Stopping task").await;
    sleep(Duration::from_secs(1)).await;
    let hurry = Instant::now();
    daemon.terminate();
    assert_eq!(daemon.end_within(Duration::from_secs(4)).await.code(), Some(254));
    assert!(hurry.elapsed() < Duration::from_secs(4));
    let said = format!("Task '{task}' has been told to end; that goes on without the daemon");
    assert!(daemon.output().contains(&said), "{}", daemon.output());
    let ended = scene.ended(&task, &daemon).await;
    assert_eq!(ended.status.unwrap().as_str(), "stopped");
}

#[tokio::test]
async fn a_daemon_comes_up_before_its_server() {
    let mut scene = Scene::start().await;
    scene.stop_server().await;
    let daemon = scene.daemon_with(WORKER, &["work"], &[]);
    let mut impatient = scene.daemon_with("other:0", &["work"], &[]);
    daemon.says("waiting for the server").await;
    impatient.says("waiting for the server").await;
    impatient.terminate();
    assert_eq!(impatient.end_within(BOUND).await.code(), Some(254));
    sleep(Duration::from_secs(2)).await;

    // Up, but not well yet.
    scene.start_server().await;
    scene
        .fault(json!({"endpoint": "auth.login", "kind": "status", "status": 500, "count": 2}))
        .await;
    scene
        .fault(json!({"endpoint": "queues.get_all", "kind": "status", "status": 500, "count": 1}))
        .await;
    daemon.says("Listening to queues").await;
    assert!(scene.calls_of("auth.login").await >= 3);
    let task = scene.enqueued(&scene.queue, "late").await;
    scene.completes_once(&task, "late", &daemon).await;
}
