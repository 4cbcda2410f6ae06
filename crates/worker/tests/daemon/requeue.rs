//! Tasks whose run dies go back to their queue, as often as it is configured.

use clearml_support::process::ProcessIdentity;
use clearml_task_model::TaskId;
use clearml_task_runner::requeue::Requeues;
use clearml_task_runner::{Phase, RunDir};
use rustix::process::Signal;

use crate::scene::{Scene, WORKER, eventually};

/// The run of the task whose program is running.
fn running(scene: &Scene, task: &TaskId) -> Option<RunDir> {
    scene.runs().list().unwrap().into_iter().find(|run| {
        run.record()
            .is_ok_and(|record| record.identity.task == *task && record.phase == Phase::Running)
    })
}

/// Kills the supervisor of a running task, when its program has begun for the n-th time.
async fn kill_supervisor(scene: &Scene, task: &TaskId, name: &str, execution: usize) -> ProcessIdentity {
    eventually("the program runs", || {
        scene.executions(name) == execution && running(scene, task).is_some()
    })
    .await;
    let run = running(scene, task).unwrap();
    let shim = run.claim().unwrap().unwrap().shim;
    assert!(shim.signal(Signal::KILL).unwrap());
    shim
}

#[tokio::test]
async fn a_task_whose_run_has_died_is_put_back_as_often_as_configured_and_not_once_more() {
    let scene = Scene::start().await;
    let once = [("CLEARML_AGENT__AGENT__REQUEUE_ON_INFRASTRUCTURE_FAILURE", "1")];
    let daemon = scene.daemon_with(WORKER, &["work"], &once);
    let task = scene
        .enqueued_script(&scene.queue, "dies", "exec sleep 1000")
        .await;
    eventually("the program runs", || scene.executions("dies") == 1).await;
    let behind = scene.enqueued(&scene.queue, "behind").await;

    kill_supervisor(&scene, &task, "dies", 1).await;
    kill_supervisor(&scene, &task, "dies", 2).await;
    assert_eq!(scene.executions("behind"), 0, "it goes back to the head");
    let seen = scene.task(&task).await;
    assert_eq!(Requeues::read(&seen.runtime).unwrap().count, 1);

    let ended = scene.ended(&task, &daemon).await;
    assert_eq!(ended.status.unwrap().as_str(), "failed", "{}", daemon.output());
    let reason = ended.status_reason.unwrap();
    assert!(reason.starts_with("infrastructure: "), "{reason}");
    assert!(!reason.contains("put back"), "{reason}");
    assert_eq!(scene.executions("dies"), 2);
    scene.completes_once(&behind, "behind", &daemon).await;

    let log = scene
        .client
        .events_get_task_log(&task, Some(0), false, 2000)
        .await
        .unwrap();
    let text: String = log.events.iter().map(|event| event.msg.as_str()).collect();
    assert!(text.contains("put back into its queue (1 of 1)"), "{text}");
}
