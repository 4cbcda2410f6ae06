use std::time::Duration;

use clearml_api_client::WorkersQuery;
use clearml_intake::{About, Activity, Reporter};
use serde_json::json;

use crate::world::{World, world};

/// The task that the server shows for the worker; `None` when it does not list the worker.
async fn listed(world: &World) -> Option<Option<String>> {
    let workers = world
        .client
        .workers_get_all(&WorkersQuery::default())
        .await
        .unwrap();
    let worker = workers.into_iter().find(|worker| worker.id.as_str() == "w:0")?;
    Some(worker.task.and_then(|task| task.id))
}

async fn wait_until(world: &World, expected: Option<Option<String>>) {
    for _ in 0..200 {
        if listed(world).await == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the server shows {:?}, not {expected:?}", listed(world).await);
}

#[tokio::test]
async fn the_server_sees_the_worker_and_its_task_at_once_and_no_worker_afterwards() {
    let world = world().await;
    let task = world.enqueued("only").await;
    let queues = vec![world.queue.clone()];
    let reporter = Reporter::start(
        world.client.clone(),
        About {
            worker: "w:0".into(),
            queues,
            tags: vec!["fast".into()],
            is_daemon: true,
        },
        Duration::from_secs(30),
        None,
    );
    wait_until(&world, Some(None)).await;
    reporter.set(Activity {
        task: Some(task.clone()),
        queue: Some(world.queue.clone()),
    });
    wait_until(&world, Some(Some(task.to_string()))).await;
    reporter.set(Activity::default());
    wait_until(&world, Some(None)).await;
    reporter.stop(Duration::from_secs(5)).await;
    assert_eq!(listed(&world).await, None);
}

#[tokio::test]
async fn a_server_in_trouble_is_not_hammered_and_is_found_again() {
    let world = world().await;
    // Nothing depends on the registration: the first report makes the worker known.
    world
        .fault(json!({"endpoint": "workers.register", "kind": "status", "status": 400, "subcode": 701}))
        .await;
    world
        .fault(json!({"endpoint": "workers.status_report", "kind": "status", "status": 503, "count": 2}))
        .await;
    let queues = vec![world.queue.clone()];
    let reporter = Reporter::start(
        world.client.clone(),
        About {
            worker: "w:0".into(),
            queues,
            tags: vec!["fast".into()],
            is_daemon: true,
        },
        Duration::from_millis(900),
        None,
    );
    tokio::time::sleep(Duration::from_millis(3200)).await;
    let calls = world.calls().await;
    let made: u32 = calls
        .split("\"workers.status_report\":")
        .nth(1)
        .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
        .unwrap_or_else(|| panic!("{calls}"));
    assert!((3..=5).contains(&made), "{made} reports: {calls}");
    reporter.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn the_end_does_not_wait_for_an_absent_server() {
    let world = world().await;
    let reporter = Reporter::start(
        world.client.clone(),
        About {
            worker: "w:0".into(),
            queues: vec![],
            tags: vec![],
            is_daemon: true,
        },
        Duration::from_secs(30),
        None,
    );
    world.server.shutdown().await;
    let begun = std::time::Instant::now();
    reporter.stop(Duration::from_millis(300)).await;
    assert!(begun.elapsed() < Duration::from_secs(2));
}
