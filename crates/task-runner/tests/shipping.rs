//! The console arrives once and in order, whatever the server does.

mod common;

use std::time::Duration;

use common::world::{World, numbered};
use serde_json::json;

const DONE: &str = "Process completed successfully\n";

#[tokio::test]
async fn answers_that_are_lost_damaged_or_refused_neither_lose_nor_double_a_line() {
    let world = World::start().await;
    for fault in [
        json!({"kind": "reset_after"}),
        json!({"kind": "reset_before"}),
        json!({"kind": "truncate"}),
        json!({"kind": "bad_json", "apply": true}),
        json!({"kind": "html", "apply": true}),
        json!({"kind": "status", "status": 503}),
        json!({"kind": "status", "status": 429, "headers": {"Retry-After": "1"}}),
        json!({"kind": "status", "status": 500, "apply": true}),
        json!({"kind": "status", "status": 504}),
        json!({"kind": "expired_token"}),
    ] {
        let mut switch = fault;
        switch["endpoint"] = "events.add_batch".into();
        world.fault(switch).await;
    }
    let (task, run) = world
        .task("for i in $(seq 1 100); do echo line $i; sleep 0.01; done")
        .await;
    assert_eq!(world.run(&run).await, 0);
    assert_eq!(world.output(&task).await, numbered(100) + DONE);
    assert_eq!(world.status(&task).await.0, "completed");
}

#[tokio::test]
async fn a_server_that_is_away_gets_everything_when_it_comes_back() {
    let mut world = World::start().await;
    let (task, run) = world
        .task("for i in $(seq 1 200); do echo line $i; sleep 0.01; done; exit 9")
        .await;
    let mut runner = world.spawn(&run);
    world.wait_for_output(&task, "line 1\n").await;
    world.stop_server().await;
    // The program ends meanwhile.
    tokio::time::sleep(Duration::from_secs(4)).await;
    world.start_server().await;
    assert_eq!(world.end_of(&mut runner, &run).await, 0);
    assert_eq!(
        world.output(&task).await,
        numbered(200) + "Process failed, exit code 9\n"
    );
    assert_eq!(
        world.status(&task).await,
        ("failed".into(), "worker execution exit code 9".into())
    );
}

#[tokio::test]
async fn the_final_status_is_repeated_until_it_is_accepted() {
    let world = World::start().await;
    for kind in ["reset_after", "reset_before", "truncate"] {
        world
            .fault(json!({"endpoint": "tasks.completed", "kind": kind}))
            .await;
    }
    world
        .fault(json!({"endpoint": "tasks.completed", "kind": "status", "status": 500}))
        .await;
    let (task, run) = world.task("true").await;
    assert_eq!(world.run(&run).await, 0);
    assert_eq!(
        world.status(&task).await,
        ("completed".into(), "worker execution done".into())
    );
}

#[tokio::test]
async fn own_secrets_do_not_reach_the_console_even_if_the_program_prints_them() {
    let world = World::start().await;
    let (task, run) = world.task("cat $CLEARML_CONFIG_FILE; echo; echo end").await;
    assert_eq!(world.run(&run).await, 0);
    let output = world.output(&task).await;
    assert!(
        output.contains("\"secret_key\"") && output.contains("****"),
        "{output}"
    );
    assert!(
        !output.contains(&world.secret()),
        "the API secret is in the console"
    );
}
