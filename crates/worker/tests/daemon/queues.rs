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
