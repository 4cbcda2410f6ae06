//! Run directories that a daemon finds when it starts.

use std::time::Duration;

use clearml_api_client::{StatusChange, WorkersQuery};
use clearml_intake::owner::OwnerMark;
use clearml_intake::pop::{Before, Intent};
use clearml_task_model::{TaskId, WorkerId};
use clearml_task_runner::{NewRun, Phase, RunDir};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::scene::{Scene, WORKER, eventually};

fn new_run(scene: &Scene, task: &TaskId, worker: &str) -> RunDir {
    let new = NewRun {
        task: task.clone(),
        queue: Some(scene.queue.clone()),
        worker: WorkerId::new(worker),
    };
    scene.runs().create(new).unwrap().0
}

/// The run of a task as a daemon leaves it that is killed right after it has come to `phase`.
async fn left_at(scene: &Scene, name: &str, worker: &str, phase: Phase) -> (TaskId, RunDir) {
    let task = scene.enqueued(&scene.queue, name).await;
    let run = new_run(scene, &task, worker);
    let run_id = run.record().unwrap().run_id;
    let seen = scene.task(&task).await;
    let before = Before {
        status: seen.status,
        ..Before::default()
    };
    let intent = Intent {
        run: run_id.clone(),
        worker: worker.into(),
        task: task.clone(),
        queue: scene.queue.clone(),
        before,
    };
    let file = json!({"schema": 1, "intent": intent});
    std::fs::write(run.path().join("pop.json"), file.to_string()).unwrap();
    if phase > Phase::Popping {
        let popped = scene.client.queues_get_next_task(&scene.queue, Some(&task)).await;
        assert!(popped.unwrap().is_some());
    }
    if phase == Phase::Claimed {
        let mark = OwnerMark {
            worker: worker.into(),
            run: run_id,
            host: "host".into(),
            ts: 0,
        };
        scene
            .client
            .tasks_edit_runtime(&task, mark.entries(), &[])
            .await
            .unwrap();
        let change = StatusChange::default().message("pulled by agent").force();
        scene.client.tasks_started(&task, &change).await.unwrap();
    }
    run.set_phase(phase).unwrap();
    (task, run)
}

#[tokio::test]
async fn a_pop_is_continued_from_wherever_it_was_interrupted() {
    let scene = Scene::start().await;
    let mut left = Vec::new();
    for (name, phase) in [
        ("claimed", Phase::Claimed),
        ("popped", Phase::Popped),
        ("popping", Phase::Popping),
    ] {
        left.push((name, left_at(&scene, name, WORKER, phase).await.0));
    }
    let daemon = scene.daemon(&["work"]).await;
    for (name, task) in &left {
        scene.completes_once(task, name, &daemon).await;
    }
    assert_eq!(scene.runs().list().unwrap().len(), 3, "{}", daemon.output());
}

#[tokio::test]
async fn only_own_runs_are_touched_at_once_and_one_without_a_pop_is_removed() {
    let scene = Scene::start().await;
    let (task, foreign) = left_at(&scene, "foreign", "somebody:1", Phase::Claimed).await;
    let foreign_new = new_run(&scene, &TaskId::new("t"), "somebody:1");
    let unsent = new_run(&scene, &TaskId::new("t"), WORKER);
    let before = [&foreign, &foreign_new].map(|run| run.record().unwrap());

    let daemon = scene.daemon(&["work"]).await;
    sleep(Duration::from_millis(500)).await;
    assert!(!unsent.path().exists(), "{}", daemon.output());
    assert_eq!(
        [&foreign, &foreign_new].map(|run| run.record().unwrap()),
        before,
        "{}",
        daemon.output()
    );
    assert_eq!(scene.executions("foreign"), 0);
    assert_eq!(scene.task(&task).await.status.unwrap().as_str(), "in_progress");
}

const ADOPT_SOON: (&str, &str) = ("CLEARML_AGENT__AGENT__ADOPT_AFTER_SEC", "1");

#[tokio::test]
async fn what_a_daemon_has_left_that_does_not_come_back_is_taken_over() {
    let scene = Scene::start().await;
    let mut left = Vec::new();
    for (name, phase) in [("claimed", Phase::Claimed), ("popped", Phase::Popped)] {
        left.push((name, left_at(&scene, name, "gone:0", phase).await.0));
    }
    let (task, elsewhere) = left_at(&scene, "elsewhere", "gone:0", Phase::Claimed).await;
    elsewhere
        .update(|record| record.host = "another host".into())
        .unwrap();
    let first = scene.daemon(&["work"]).await;
    let running = scene.enqueued_script(&scene.queue, "running", "sleep 4").await;
    first.says("Running task").await;
    eventually("the program runs", || scene.executions("running") == 1).await;
    drop(first);

    let second = scene.daemon_with("second:0", &["work"], &[ADOPT_SOON]);
    second.says("Taking over task").await;
    for (name, task) in &left {
        scene.completes_once(task, name, &second).await;
    }
    scene.completes_once(&running, "running", &second).await;
    assert_eq!(scene.task(&task).await.status.unwrap().as_str(), "in_progress");
    assert_eq!(scene.executions("elsewhere"), 0);
}

#[tokio::test]
async fn a_daemon_whose_task_was_taken_over_waits_for_it_before_it_pulls_another() {
    let scene = Scene::start().await;
    let first = scene.daemon(&["work"]).await;
    let running = scene.enqueued_script(&scene.queue, "running", "sleep 5").await;
    eventually("the program runs", || scene.executions("running") == 1).await;
    let kept = scene.runs().list().unwrap().remove(0);
    assert!(
        kept.keep().unwrap().is_none(),
        "nobody can take over from a living daemon"
    );
    drop(first);
    let second = scene.daemon_with("second:0", &["work"], &[ADOPT_SOON]);
    second.says("Taking over task").await;

    let next = scene.enqueued(&scene.queue, "next").await;
    let first = scene.daemon_with(WORKER, &["work"], &[]);
    first.says("looked after by another agent").await;
    drop(second);
    scene.completes_once(&running, "running", &first).await;
    scene.completes_once(&next, "next", &first).await;
    let output = first.output();
    let at = |text: &str| output.find(text).unwrap_or_else(|| panic!("{text}: {output}"));
    let begun = format!("Running task '{next}'");
    assert!(at("Continuing task") < at(&begun), "{output}");
}

#[tokio::test]
async fn damaged_runs_are_reported_kept_and_not_in_the_way() {
    let scene = Scene::start().await;
    let (_, unreadable) = left_at(&scene, "unreadable", WORKER, Phase::Popped).await;
    std::fs::write(unreadable.path().join("pop.json"), "{").unwrap();
    let (_, forgetful) = left_at(&scene, "forgetful", WORKER, Phase::Claimed).await;
    std::fs::remove_file(forgetful.path().join("pop.json")).unwrap();
    let (_, torn) = left_at(&scene, "torn", WORKER, Phase::Popped).await;
    std::fs::write(torn.path().join("run.json"), "").unwrap();

    let daemon = scene.daemon(&["work"]).await;
    let next = scene.enqueued(&scene.queue, "next").await;
    scene.completes_once(&next, "next", &daemon).await;
    let output = daemon.output();
    for run in [&unreadable, &forgetful, &torn] {
        let name = run.path().file_name().unwrap().to_str().unwrap();
        assert!(run.path().exists(), "{output}");
        assert!(output.contains(name), "{name}: {output}");
    }
    assert_eq!(output.matches(" ERROR ").count(), 2, "{output}");
}

#[tokio::test]
async fn a_finished_run_is_left_as_it_is() {
    let scene = Scene::start().await;
    let task = scene.draft("finished", "").await;
    let run = new_run(&scene, &task, WORKER);
    run.set_phase(Phase::Done).unwrap();
    let daemon = scene.daemon(&["work"]).await;
    assert_eq!(run.record().unwrap().phase, Phase::Done, "{}", daemon.output());
    assert_eq!(scene.executions("finished"), 0);
    let reply: Value = json!(scene.calls().await);
    assert!(reply.get("tasks.started").is_none(), "{reply}");
}

/// What was removed does not come back, so nobody waits for it.
#[tokio::test]
async fn a_task_that_removes_its_console_ends_all_the_same() {
    let scene = Scene::start().await;
    let script = "rm -rf $(dirname $CLEARML_CONFIG_FILE)/console";
    let task = scene.enqueued_script(&scene.queue, "mute", script).await;
    let daemon = scene.daemon_with(WORKER, &["work"], &[]);
    scene.completes_once(&task, "mute", &daemon).await;
}

/// With `CLEARML_MULTI_NODE_SINGLE_TASK=-1` the first node alone is to be heard.
#[tokio::test]
async fn a_later_node_that_is_not_to_be_heard_does_not_name_its_task() {
    for (shared, named) in [("1", true), ("-1", false)] {
        let scene = Scene::start().await;
        let task = scene.enqueued_script(&scene.queue, "node", "sleep 4").await;
        let variables = [("RANK", "1"), ("CLEARML_MULTI_NODE_SINGLE_TASK", shared)];
        let daemon = scene.daemon_with(WORKER, &["work"], &variables);
        daemon.says(&format!("Running task '{task}'")).await;
        let mut seen = false;
        for _ in 0..15 {
            sleep(Duration::from_millis(200)).await;
            let workers = scene
                .client
                .workers_get_all(&WorkersQuery::default())
                .await
                .unwrap();
            let me = workers.iter().find(|worker| worker.id.as_str() == WORKER);
            seen |= me.is_some_and(|me| me.task.is_some());
        }
        assert_eq!(seen, named, "{shared}: {}", daemon.output());
    }
}

/// A task that is put back would do so again, for ever.
#[tokio::test]
async fn a_task_that_removes_the_folder_of_its_run_fails_and_is_not_run_again() {
    let scene = Scene::start().await;
    let script = "rm -rf $(dirname $CLEARML_CONFIG_FILE)";
    let task = scene.enqueued_script(&scene.queue, "remover", script).await;
    let daemon = scene.daemon(&["work"]).await;
    let task = scene.ended(&task, &daemon).await;
    assert_eq!(task.status.unwrap().as_str(), "failed", "{}", daemon.output());
    let reason = task.status_reason.unwrap();
    // What is being written at that moment can escape, the end of the program among it.
    let known = ["infrastructure: ", "worker execution exit code "];
    assert!(known.iter().any(|known| reason.starts_with(known)), "{reason}");
    assert_eq!(scene.executions("remover"), 1, "{}", daemon.output());
    let next = scene.enqueued(&scene.queue, "next").await;
    scene.completes_once(&next, "next", &daemon).await;
}
