//! Console batches, lost answers, restarts: what the client claims against what the server did.

use std::time::Duration;

use clearml_api_client::{ApiError, Call, Client, LogEvent, Retry, StatusChange};
use clearml_local_server::{Server, ServerOptions};
use clearml_task_model::{TaskId, TaskStatus};
use serde_json::{Value, json};

use crate::{options, plain, world};

fn line(task: &TaskId, number: i64) -> LogEvent {
    LogEvent::new(task, "DEBUG", "host:0", format!("line {number}"), 1_000 + number)
}

#[tokio::test]
async fn a_console_is_appended_and_read_back_without_gap() {
    let world = world().await;
    let task = world.draft().await;
    let events: Vec<_> = (0..25).map(|number| line(&task, number)).collect();
    let result = world.client.events_add_batch(&events).await.unwrap();
    assert_eq!((result.added, result.errors), (25, 0));
    let newest = world
        .client
        .events_get_task_log(&task, None, true, 3)
        .await
        .unwrap();
    assert_eq!(
        newest
            .events
            .iter()
            .map(|event| event.timestamp)
            .collect::<Vec<_>>(),
        [1022, 1023, 1024]
    );
    assert_eq!(newest.total, 25);
    let (mut seen, mut from) = (Vec::new(), Some(999));
    loop {
        let window = world
            .client
            .events_get_task_log(&task, from, false, 10)
            .await
            .unwrap();
        let Some(last) = window.events.last() else { break };
        from = Some(last.timestamp);
        seen.extend(window.events.into_iter().map(|event| event.msg));
    }
    assert_eq!(
        seen,
        (0..25).map(|number| format!("line {number}")).collect::<Vec<_>>()
    );
    let mixed = [line(&task, 30), line(&TaskId::new("none"), 31)];
    let result = world.client.events_add_batch(&mixed).await.unwrap();
    assert_eq!((result.added, result.errors, result.errors_info.len()), (1, 1, 1));
    let error = world.client.events_add_batch(&mixed[1..]).await.unwrap_err();
    assert!(error.is_code(400, 131) && error.was_not_applied(), "{error}");
}

#[tokio::test]
async fn what_the_error_says_is_what_the_server_did() {
    let world = world().await;
    // (fault, applied by the server, may the client say "not applied")
    for (fault, applied, sure) in [
        (json!({"kind": "reset_before"}), false, false),
        (json!({"kind": "reset_after"}), true, false),
        (json!({"kind": "truncate"}), true, false),
        (json!({"kind": "html", "apply": true}), true, false),
        (json!({"kind": "bad_json", "apply": true}), true, false),
        (
            json!({"kind": "status", "status": 502, "apply": true}),
            true,
            false,
        ),
        (json!({"kind": "status", "status": 503}), false, true),
        (
            json!({"kind": "status", "status": 429, "headers": {"Retry-After": "7"}}),
            false,
            true,
        ),
    ] {
        let (task, queue) = world.enqueued().await;
        let with = |endpoint: &str| {
            let mut fault = fault.clone();
            fault["endpoint"] = endpoint.into();
            fault
        };
        world.fault(with("queues.get_next_task")).await;
        let error = world
            .client
            .queues_get_next_task(&queue, Some(&task))
            .await
            .unwrap_err();
        assert_eq!(error.was_not_applied(), sure, "{fault}: {error:?}");
        assert_eq!(
            matches!(error, ApiError::Ambiguous { .. }),
            !sure,
            "{fault}: {error:?}"
        );
        assert_eq!(world.waiting(&queue).await.is_empty(), applied, "{fault}");

        world.fault(with("events.add_batch")).await;
        let error = world
            .client
            .events_add_batch(&[line(&task, 1)])
            .await
            .unwrap_err();
        assert_eq!(error.was_not_applied(), sure, "{fault}: {error:?}");
        assert!(error.is_transient());
        assert_eq!(
            error.retry_after(),
            fault["headers"]["Retry-After"]
                .is_string()
                .then_some(Duration::from_secs(7))
        );
        let log = world
            .client
            .events_get_task_log(&task, None, true, 10)
            .await
            .unwrap();
        assert_eq!(log.total, u64::from(applied), "{fault}");
    }
}

#[tokio::test]
async fn repeated_calls_take_effect_once() {
    let world = world().await;
    let (task, queue) = (world.draft().await, world.queue().await);
    for kind in ["reset_after", "reset_before", "truncate", "expired_token"] {
        world
            .fault(json!({"endpoint": "tasks.enqueue", "kind": kind}))
            .await;
    }
    world.client.tasks_enqueue(&task, &queue, &plain()).await.unwrap();
    assert_eq!(world.waiting(&queue).await, std::slice::from_ref(&task));
    for endpoint in ["tasks.started", "tasks.completed", "tasks.get_by_id"] {
        world
            .fault(json!({"endpoint": endpoint, "kind": "reset_after", "count": 2}))
            .await;
    }
    world.client.tasks_started(&task, &plain()).await.unwrap();
    world
        .client
        .tasks_completed(&task, &StatusChange::reason("worker execution done"))
        .await
        .unwrap();
    let done = world.client.tasks_get_by_id(&task).await.unwrap();
    assert_eq!(
        (done.status, done.status_reason.as_deref()),
        (Some(TaskStatus::Completed), Some("worker execution done"))
    );
}

#[tokio::test]
async fn a_server_that_goes_away_and_comes_back_is_a_pause() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(ServerOptions::new(folder.path())).await.unwrap();
    let port: u16 = server.api_url().rsplit(':').next().unwrap().parse().unwrap();
    let client = Client::new(options(&server)).unwrap();
    let task = client
        .tasks_create(json!({"name": "draft", "type": "training"}))
        .await
        .unwrap();
    server.shutdown().await;
    let error = client.events_add_batch(&[line(&task, 1)]).await.unwrap_err();
    assert!(error.was_not_applied() && error.is_transient(), "{error:?}");

    let waiting = tokio::spawn({
        let (client, task) = (client.clone(), task.clone());
        async move { client.tasks_started(&task, &StatusChange::reason("back")).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished());
    let server = Server::start(ServerOptions {
        port,
        ..ServerOptions::new(folder.path())
    })
    .await
    .unwrap();
    let updated = tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(updated.fields["status"], "in_progress");
    let bounded = Call::new("debug.ping")
        .retry(Retry::Idempotent)
        .deadline(Duration::from_secs(1));
    client.call::<Value>(bounded).await.unwrap();
    server.shutdown().await;
}

#[tokio::test]
async fn short_tokens_are_replaced_in_time() {
    let world = world().await;
    let mut options = options(&world.server);
    options.token_expiration = Some(Duration::from_secs(2));
    let client = Client::new(options).unwrap();
    client.login().await.unwrap();
    let first = client.token().unwrap();
    for _ in 0..8 {
        client.users_get_current_user().await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_ne!(client.token().unwrap(), first);
}
