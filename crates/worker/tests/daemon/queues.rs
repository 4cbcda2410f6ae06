//! Looking at queues: what it costs, and what happens when one goes away.

use std::time::{Duration, Instant};

use clearml_intake::Presence;
use serde_json::json;
use tokio::time::sleep;

use crate::scene::{Scene, WORKER, eventually};

/// Of the daemons here.
const POLL: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_deleted_queue_is_reported_once_and_the_others_are_served() {
    let scene = Scene::start().await;
    let doomed = scene.client.queues_create("doomed", &[]).await.unwrap();
    let daemon = scene.daemon(&["doomed", "work"]).await;
    let delete = clearml_api_client::Call::new("queues.delete").body(json!({"queue": doomed, "force": true}));
    let _: serde_json::Value = scene.client.call(delete).await.unwrap();
    daemon.says("does not exist any more").await;

    for name in ["first", "second"] {
        let task = scene.enqueued(&scene.queue, name).await;
        scene.completes_once(&task, name, &daemon).await;
    }
    // Some more looks at the queues.
    sleep(Duration::from_secs(1)).await;
    let output = daemon.output();
    assert_eq!(output.matches("does not exist any more").count(), 1, "{output}");
    assert!(output.contains(doomed.as_str()), "{output}");
}

#[tokio::test]
async fn a_look_at_all_queues_is_one_request() {
    let scene = Scene::start().await;
    let mut names: Vec<String> = vec!["work".into()];
    for n in 0..7 {
        let name = format!("queue {n}");
        scene.client.queues_create(&name, &[]).await.unwrap();
        names.push(name);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let daemon = scene.daemon(&names).await;
    // Let the registration pass.
    sleep(Duration::from_millis(500)).await;
    let passes = || daemon.output().matches("No tasks in Queues").count() as u64;
    let before = passes();
    scene.forget_calls().await;
    sleep(Duration::from_secs(2)).await;
    let calls = scene.calls().await;
    let passed = passes() - before;
    assert!(passed >= 4, "{}", daemon.output());
    let looks = calls.get("queues.get_all").copied().unwrap_or(0);
    // One more or less, because nobody stops the daemon between the two counts.
    assert!(looks.abs_diff(passed) <= 1, "{passed} passes cost {calls:?}");
    let others: u64 = calls.values().sum::<u64>() - looks;
    assert!(others <= 1, "a status report at most: {calls:?}");
}

/// Another agent takes the head between the look and the pop. What stands there next comes before other queues.
#[tokio::test]
async fn a_queue_whose_head_was_taken_by_another_agent_keeps_its_rank() {
    let scene = Scene::start().await;
    let low = scene.client.queues_create("low", &[]).await.unwrap();
    let taken = scene.enqueued(&scene.queue, "taken").await;
    let next = scene.enqueued(&scene.queue, "next").await;
    let other = scene.enqueued(&low, "other").await;
    scene.forget_calls().await;
    // The look at the task that comes just before the pop.
    scene
        .fault(json!({"endpoint": "tasks.get_all", "kind": "delay", "delay_ms": 1500}))
        .await;
    let daemon = scene.daemon_with(WORKER, &["work", "low"], &[]);
    while scene.calls_of("tasks.get_all").await == 0 {
        sleep(Duration::from_millis(20)).await;
    }
    let popped = scene
        .client
        .queues_get_next_task(&scene.queue, None)
        .await
        .unwrap();
    assert_eq!(popped.unwrap().task, taken);
    for (task, name) in [(&next, "next"), (&other, "other")] {
        scene.completes_once(task, name, &daemon).await;
    }
    let output = daemon.output();
    let begun = |task: &clearml_task_model::TaskId| output.find(&format!("Running task '{task}'"));
    assert!(begun(&next) < begun(&other), "{output}");
}

/// People who look see at once that what runs does not wait any more.
#[tokio::test]
async fn a_task_that_was_taken_is_not_counted_as_waiting() {
    let scene = Scene::start().await;
    for name in ["first", "second"] {
        scene.enqueued_script(&scene.queue, name, "exec sleep 600").await;
    }
    // It would be a minute before it counts anew.
    let slow = [("CLEARML_AGENT_QUEUE_POLL_FREQ_SEC", "60")];
    let _daemon = scene.daemon_with(WORKER, &["work"], &slow);
    eventually("it runs", || scene.executions("first") == 1).await;
    let waiting = || Presence::living(&scene.state()).first()?.queues.first()?.waiting;
    let begun = Instant::now();
    while waiting() != Some(1) {
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", waiting());
        sleep(Duration::from_millis(50)).await;
    }
}

/// Who sits at the terminal is not told that nothing waits where that is not known, or not true.
#[tokio::test]
async fn what_is_said_while_idle_is_true() {
    let scene = Scene::start().await;
    let tagged = |tag: &str| {
        let body = json!({"queue": scene.queue, "tags": [tag]});
        scene
            .client
            .call::<serde_json::Value>(clearml_api_client::Call::new("queues.update").body(body))
    };
    tagged("force_workers:off").await.unwrap();
    let task = scene.enqueued(&scene.queue, "rests").await;
    let daemon = scene.daemon_with(WORKER, &["work"], &[]);
    daemon.says(&format!("Queue {} rests", scene.queue)).await;
    assert!(
        !daemon.output().contains("No tasks in queue"),
        "{}",
        daemon.output()
    );
    tagged("force_workers:on").await.unwrap();
    scene.completes_once(&task, "rests", &daemon).await;

    scene
        .fault(json!({"endpoint": "queues.get_next_task", "kind": "status", "status": 400, "count": -1}))
        .await;
    let refused = scene.enqueued(&scene.queue, "refused").await;
    daemon
        .says(&format!(
            "Task {refused} of queue {} can't be taken now",
            scene.queue
        ))
        .await;
    daemon
        .says("No task can be taken, sleeping for 0.2 seconds")
        .await;
    scene.clear_faults().await;
    scene.completes_once(&refused, "refused", &daemon).await;

    scene
        .fault(json!({"endpoint": "queues.get_all", "kind": "status", "status": 400, "count": -1}))
        .await;
    daemon.says("The queues can't be read now").await;
    let before = daemon.output().matches("No tasks in").count();
    sleep(Duration::from_millis(700)).await;
    assert_eq!(daemon.output().matches("No tasks in").count(), before);
}

#[tokio::test]
async fn a_second_daemon_of_the_same_worker_is_refused() {
    let scene = Scene::start().await;
    let mut first = scene.daemon(&["work"]).await;
    let elsewhere = scene.folder().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    // Seen in the register of the machine; and, with a register of its own, in the state folder.
    for variables in [&[][..], &[("TMPDIR", elsewhere.to_str().unwrap())][..]] {
        let mut second = scene.daemon_with(WORKER, &["work"], variables);
        let status = second.end_within(Duration::from_secs(20)).await;
        let output = second.output();
        assert_eq!(status.code(), Some(1), "{output}");
        assert!(output.contains(WORKER) && output.contains("running"), "{output}");
        assert!(output.contains("CLEARML_WORKER_ID"), "what to do: {output}");
    }
    let task = scene.enqueued(&scene.queue, "undisturbed").await;
    scene.completes_once(&task, "undisturbed", &first).await;

    first.terminate();
    assert_eq!(first.end_within(Duration::from_secs(10)).await.code(), Some(254));
    let third = scene.daemon(&["work"]).await;
    drop(third);
}

/// People see what waits also while the daemon can't take it, for few requests.
#[tokio::test]
async fn what_waits_is_counted_on_while_no_task_can_be_taken() {
    for services in [&[][..], &[("EXAMPLE_SERVICES", "1")]] {
        let scene = Scene::start().await;
        let daemon = scene.daemon_with(WORKER, &["work"], services);
        let task = scene
            .enqueued_script(&scene.queue, "long", "exec sleep 600")
            .await;
        eventually("it runs", || scene.executions("long") == 1).await;
        for name in ["second", "third"] {
            scene.enqueued(&scene.queue, name).await;
        }
        scene.forget_calls().await;
        let begun = Instant::now();
        let waiting = || Some(Presence::living(&scene.state()).first()?.queues.first()?.waiting);
        eventually("both are counted", || waiting() == Some(Some(2))).await;
        sleep(Duration::from_secs(3)).await;
        let most = begun.elapsed().div_duration_f64(POLL * 6) + 1.0;
        #[expect(clippy::cast_precision_loss, reason = "a few")]
        let looks = scene.calls_of("queues.get_all").await as f64;
        assert!(
            (1.0..=most).contains(&looks),
            "{looks} of {most}\n{}",
            daemon.output()
        );
        drop((daemon, task));
    }
}
