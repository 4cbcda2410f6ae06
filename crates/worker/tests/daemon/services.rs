//! Services mode: many tasks at the same time, each a worker of its own.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use clearml_api_client::{StatusChange, WorkerEntry, WorkersQuery};
use clearml_task_model::{TaskId, TaskStatus};
use clearml_task_runner::Phase;
use rustix::process::Signal;
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::scene::{Daemon, Scene, WORKER, eventually};

const POLL: Duration = Duration::from_millis(100);

/// A daemon in services mode. The limit is a number or nothing.
fn services(scene: &Scene, limit: &str, variables: &[(&str, &str)]) -> Daemon {
    let variables = [&[("EXAMPLE_SERVICES", limit)], variables].concat();
    scene.daemon_with(WORKER, &["work"], &variables)
}

/// A script that goes on until the file `go` is there, and then says who it is.
fn waiting(scene: &Scene) -> String {
    let folder = scene.folder().display();
    format!(
        "while [ ! -e {folder}/go ]; do sleep 0.05; done\necho i am $CLEARML_WORKER_ID tags $CLEARML_WORKER_TAGS files $(ulimit -n)"
    )
}

fn go(scene: &Scene) {
    std::fs::write(scene.folder().join("go"), "").unwrap();
}

fn worker_of(task: &TaskId) -> String {
    format!("{WORKER}:service:{task}")
}

/// The workers on the server's list, with their tasks.
async fn workers(scene: &Scene) -> BTreeSet<(String, Option<TaskId>)> {
    let workers = scene
        .client
        .workers_get_all(&WorkersQuery::default())
        .await
        .unwrap();
    let task = |worker: &WorkerEntry| {
        worker
            .task
            .as_ref()
            .and_then(|task| Some(TaskId::new(task.id.clone()?)))
    };
    workers
        .iter()
        .map(|worker| (worker.id.to_string(), task(worker)))
        .collect()
}

async fn listed(scene: &Scene, tasks: &[&TaskId], daemon: &Daemon) {
    let mut expected: BTreeSet<_> = tasks
        .iter()
        .map(|task| (worker_of(task), Some((*task).clone())))
        .collect();
    expected.insert((WORKER.to_owned(), None));
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let found = workers(scene).await;
        if found == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{found:?}\n{}", daemon.output());
        sleep(POLL).await;
    }
}

async fn running(scene: &Scene, names: &[&str]) {
    eventually("all run", || names.iter().all(|name| scene.executions(name) == 1)).await;
}

async fn kill_runner(scene: &Scene) -> i32 {
    let runs = scene.runs().list().unwrap();
    let runner = runs.iter().find_map(|run| run.record().unwrap().runner).unwrap();
    runner.signal(Signal::KILL).unwrap();
    runner.pid
}

#[tokio::test]
async fn as_many_as_permitted_run_at_once_and_each_is_a_worker() {
    let scene = Scene::start().await;
    let script = waiting(&scene);
    let mut tasks = Vec::new();
    for name in ["one", "two", "three"] {
        tasks.push(scene.enqueued_script(&scene.queue, name, &script).await);
    }
    let daemon = services(&scene, "2", &[]);
    running(&scene, &["one", "two"]).await;
    listed(&scene, &[&tasks[0], &tasks[1]], &daemon).await;
    sleep(Duration::from_secs(1)).await;
    let third = scene.task(&tasks[2]).await;
    assert_eq!(third.status, Some(TaskStatus::Queued), "{}", daemon.output());
    // One process looks after all.
    let runs = scene.runs().list().unwrap();
    let runners: BTreeSet<i32> = runs
        .iter()
        .map(|run| run.record().unwrap().runner.unwrap().pid)
        .collect();
    assert_eq!((runs.len(), runners.len()), (2, 1));
    go(&scene);
    for (task, name) in tasks.iter().zip(["one", "two", "three"]) {
        scene.completes_once(task, name, &daemon).await;
        let log = scene
            .client
            .events_get_task_log(task, None, false, 100)
            .await
            .unwrap();
        let events: Vec<_> = log
            .events
            .iter()
            .filter(|event| event.msg.contains("i am"))
            .collect();
        let me = worker_of(task);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile)
            .current
            .unwrap();
        assert_eq!(events.len(), 1);
        assert!(
            events[0].msg.contains(&format!("i am {me} tags files {limit}")),
            "{:?}",
            events[0].msg
        );
        assert_eq!(events[0].worker, me);
    }
    listed(&scene, &[], &daemon).await;
}

#[tokio::test]
async fn one_task_that_takes_long_to_prepare_or_is_aborted_holds_up_no_other() {
    let scene = Scene::start().await;
    // Accepts connections and never says anything.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fields = serde_json::json!({"name": "slow", "type": "testing", "script": {
        "repository": format!("git://{}/x.git", silent.local_addr().unwrap()), "branch": "main", "entry_point": "x.py"}});
    let slow = scene.client.tasks_create(fields).await.unwrap();
    let change = StatusChange::default();
    scene
        .client
        .tasks_enqueue(&slow, &scene.queue, &change)
        .await
        .unwrap();
    let script = waiting(&scene);
    let one = scene.enqueued_script(&scene.queue, "one", &script).await;
    let two = scene.enqueued_script(&scene.queue, "two", &script).await;
    let daemon = services(&scene, "", &[]);
    running(&scene, &["one", "two"]).await;
    let preparing = scene.runs().list().unwrap().iter().any(|run| {
        let record = run.record().unwrap();
        record.identity.task == slow && record.phase == Phase::Preparing
    });
    assert!(preparing, "{}", daemon.output());

    for task in [&slow, &one] {
        scene.client.tasks_stop(task, &change).await.unwrap();
        assert_eq!(scene.ended(task, &daemon).await.status, Some(TaskStatus::Stopped));
    }
    listed(&scene, &[&two], &daemon).await;
    go(&scene);
    scene.completes_once(&two, "two", &daemon).await;
}

#[tokio::test]
async fn services_survive_daemon_and_runner_and_are_counted_again() {
    let scene = Scene::start().await;
    let script = waiting(&scene);
    let one = scene.enqueued_script(&scene.queue, "one", &script).await;
    let two = scene.enqueued_script(&scene.queue, "two", &script).await;
    let first = services(&scene, "2", &[]);
    running(&scene, &["one", "two"]).await;
    drop(first);
    let third = scene.enqueued_script(&scene.queue, "three", &script).await;
    let daemon = services(&scene, "2", &[]);
    listed(&scene, &[&one, &two], &daemon).await;
    let killed = kill_runner(&scene).await;
    eventually("another runner has all", || {
        scene.runs().list().unwrap().iter().all(|run| {
            let runner = run.record().unwrap().runner;
            runner.is_some_and(|runner| runner.pid != killed && runner.is_alive())
        })
    })
    .await;
    assert_eq!(scene.task(&third).await.status, Some(TaskStatus::Queued));
    go(&scene);
    for (task, name) in [(&one, "one"), (&two, "two"), (&third, "three")] {
        scene.completes_once(task, name, &daemon).await;
    }
    listed(&scene, &[], &daemon).await;
}

#[tokio::test]
async fn the_end_of_the_daemon_ends_services_or_leaves_them_alone() {
    let scene = Scene::start().await;
    let script = waiting(&scene);
    let one = scene.enqueued_script(&scene.queue, "one", &script).await;
    let mut daemon = services(&scene, "", &[]);
    running(&scene, &["one"]).await;
    listed(&scene, &[&one], &daemon).await;
    daemon.terminate();
    assert_eq!(daemon.end_within(Duration::from_secs(20)).await.code(), Some(254));
    let ended = scene.task(&one).await;
    assert_eq!(ended.status, Some(TaskStatus::Stopped), "{}", daemon.output());
    assert!(workers(&scene).await.is_empty(), "{}", daemon.output());

    let two = scene.enqueued_script(&scene.queue, "two", &script).await;
    let detach = [("CLEARML_AGENT__AGENT__ON_STOP", "detach")];
    let mut daemon = services(&scene, "", &detach);
    running(&scene, &["two"]).await;
    listed(&scene, &[&two], &daemon).await;
    daemon.terminate();
    daemon.end_within(Duration::from_secs(5)).await;
    assert_eq!(scene.task(&two).await.status, Some(TaskStatus::InProgress));
    go(&scene);
    // Its runner needs no daemon.
    let nobody = &daemon;
    scene.completes_once(&two, "two", nobody).await;
    let mut daemon = services(&scene, "", &detach);
    listed(&scene, &[], &daemon).await;
    eventually("the run is over", || {
        scene
            .runs()
            .list()
            .unwrap()
            .iter()
            .all(|run| run.record().unwrap().phase.is_final())
    })
    .await;
    daemon.terminate();
    daemon.end_within(Duration::from_secs(5)).await;
}

/// Others may use the room as well, and the operator's command knows of them.
#[tokio::test]
async fn a_command_of_the_operator_counts_against_the_limit() {
    let scene = Scene::start().await;
    let task = scene.enqueued(&scene.queue, "one").await;
    let folder = scene.folder().display();
    std::fs::write(scene.folder().join("others"), "a\n\nb\n").unwrap();
    let command =
        format!("sh -c 'echo {{parent_worker_label}} > {folder}/asked; cat {folder}/others || exit 1'");
    let daemon = services(&scene, "2", &[("CLEARML_AGENT_CHILD_AGENTS_COUNT_CMD", &command)]);
    eventually("it is asked", || scene.folder().join("asked").exists()).await;
    sleep(Duration::from_secs(1)).await;
    let asked = std::fs::read_to_string(scene.folder().join("asked")).unwrap();
    assert_eq!(asked, format!("clearml-parent-worker-id={WORKER}\n"));
    let status = scene.task(&task).await.status;
    assert_eq!(status, Some(TaskStatus::Queued), "{}", daemon.output());
    // A command that fails holds nothing up, and is told of once.
    std::fs::remove_file(scene.folder().join("others")).unwrap();
    scene.completes_once(&task, "one", &daemon).await;
    sleep(Duration::from_secs(1)).await;
    let told = daemon.output().matches("only those of this daemon count").count();
    assert_eq!(told, 1, "{}", daemon.output());
}
