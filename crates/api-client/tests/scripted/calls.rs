//! What typed calls send, and how they read replies.

use clearml_api_client::{
    ApiError, Call, Client, LogEvent, Method, QueuesQuery, Retry, StatusChange, StatusReport, TasksQuery,
    exact,
};
use clearml_task_model::{QueueId, TaskId, TaskStatus, WorkerId};
use serde_json::{Map, Value, json};

use crate::server::{Server, Step};

#[tokio::test]
async fn method_and_version_follow_the_call_and_the_options() {
    let server = Server::start().await;
    let mut options = server.options();
    options.default_method = Method::Get;
    let client = Client::new(options).unwrap();
    let _: Value = client
        .call(Call::new("projects.get_all").body(json!({"name": "x"})))
        .await
        .unwrap();
    let _: Value = client
        .call(Call::new("tasks.edit").version("2.13").method(Method::Put))
        .await
        .unwrap();
    let event = LogEvent::new(&TaskId::new("t"), "INFO", "w", "a", 1);
    client.events_add_batch(&[event]).await.unwrap();
    let calls = server.calls();
    let seen: Vec<_> = calls
        .iter()
        .map(|call| (call.method.as_str(), call.path.as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            ("GET", "/projects.get_all"),
            ("PUT", "/v2.13/tasks.edit"),
            ("POST", "/v2.23/events.add_batch")
        ]
    );
    assert_eq!(calls[0].json(), json!({"name": "x"}), "a GET has its body");
    assert_eq!(calls[0].header("content-type"), Some("application/json"));
    assert_eq!(calls[2].header("content-type"), Some("application/json-lines"));
    assert_eq!(server.logins()[0].method, "GET");
}

#[tokio::test]
async fn requests_leave_out_what_was_not_given() {
    let server = Server::start().await;
    let client = server.client().await;
    let (task, queue, worker) = (TaskId::new("t"), QueueId::new("q"), WorkerId::new("w:0"));
    client
        .tasks_started(&task, &StatusChange::default())
        .await
        .unwrap();
    client
        .tasks_failed(
            &task,
            &StatusChange::reason("process: exit 3").message("by w").force(),
        )
        .await
        .unwrap();
    client
        .tasks_dequeue(&task, Some(&TaskStatus::InProgress), &StatusChange::default())
        .await
        .unwrap();
    client
        .tasks_enqueue(&task, &queue, &StatusChange::reason("again"))
        .await
        .unwrap();
    client
        .workers_register(&worker, std::slice::from_ref(&queue), Some(90))
        .await
        .unwrap();
    let report = StatusReport {
        worker,
        timestamp_ms: 1000,
        task: None,
        queue: None,
        queues: vec![queue.clone()],
        tags: None,
        machine_stats: None,
        is_daemon: true,
    };
    client.workers_status_report(&report).await.unwrap();
    client
        .tasks_edit(&task, true, json!({"runtime": {"a": 1}}))
        .await
        .unwrap();
    assert!(
        client.queues_get_next_task(&queue, None).await.unwrap().is_none(),
        "an empty reply is an empty queue"
    );
    let bodies: Vec<Value> = server.calls().iter().map(|call| call.json()).collect();
    assert_eq!(
        bodies,
        [
            json!({"task": "t"}),
            json!({"task": "t", "status_reason": "process: exit 3", "status_message": "by w", "force": true}),
            json!({"task": "t", "new_status": "in_progress"}),
            json!({"task": "t", "queue": "q", "status_reason": "again"}),
            json!({"worker": "w:0", "queues": ["q"], "timeout": 90}),
            json!({"worker": "w:0", "timestamp": 1000, "queues": ["q"], "is_daemon": true}),
            json!({"runtime": {"a": 1}, "task": "t", "force": true}),
            json!({"queue": "q"}),
        ]
    );
}

#[tokio::test]
async fn replies_keep_what_this_version_does_not_know() {
    let server = Server::start().await;
    let client = server.client().await;
    server.script([
        Step::ok(json!({"tasks": [{"status": "brand_new", "status_message": "x", "novelty": {"a": 1}}]})),
        Step::ok(json!({"entry": {"task": "t9", "added": "2026-01-01T00:00:00Z"}})),
        Step::ok(json!({"workers": [{"id": "h:0", "queues": [{"id": "q", "num_tasks": 2}], "task": {"id": "t"}, "key": "k"}]})),
        Step::ok(json!({"queued": 1, "updated": 1, "fields": {"status": "queued"}})),
    ]);
    let query = TasksQuery::one(&TaskId::new("t"), ["status", "status_message"]);
    let task = client.tasks_get_all(&query).await.unwrap().remove(0);
    assert_eq!(task.status, Some(TaskStatus::Other("brand_new".into())));
    assert_eq!(task.extra["novelty"]["a"], 1);
    let popped = client
        .queues_get_next_task(&QueueId::new("q"), None)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(popped.task.as_str(), "t9");
    let workers = client.workers_get_all(&Default::default()).await.unwrap();
    assert_eq!(workers[0].queues[0].extra["num_tasks"], 2);
    let queued = client
        .tasks_enqueue(&TaskId::new("t"), &QueueId::new("q"), &StatusChange::default())
        .await
        .unwrap();
    assert_eq!((queued.updated, queued.extra["queued"].as_u64()), (1, Some(1)));
}

#[tokio::test]
async fn data_of_another_shape_is_told_and_not_repeated() {
    let server = Server::start().await;
    let client = server.client().await;
    server.script([Step::ok(json!({"queues": "none"}))]);
    let error = client.queues_get_all(&QueuesQuery::default()).await.unwrap_err();
    assert!(
        matches!(error, ApiError::Data { .. }) && !error.is_transient() && !error.was_not_applied(),
        "{error:?}"
    );
    assert_eq!(server.calls().len(), 1);
}

#[tokio::test]
async fn a_deferred_answer_is_fetched() {
    let server = Server::start().await;
    let client = server.client().await;
    let pending = || Step::api(202, 0, "Accepted", json!({}));
    server.script([
        pending(),
        pending(),
        Step::html(502),
        Step::ok(json!({"done": true})),
    ]);
    let result: Value = client.call(Call::new("tasks.delete").deferred()).await.unwrap();
    assert_eq!(result, json!({"done": true}));
    let calls = server.calls();
    assert_eq!(calls[0].header("x-clearml-async"), Some("1"));
    assert_eq!(calls[1].path, "/async.result");
    assert_eq!(calls[1].json(), json!({"id": "call-1"}));
    assert_eq!(calls.len(), 4);
}

#[tokio::test]
async fn a_large_batch_is_cut_at_line_ends() {
    let server = Server::start().await;
    let mut options = server.options();
    options.max_request_bytes = 400;
    let client = Client::new(options).unwrap();
    let added = |count: u64| Step::ok(json!({"added": count, "errors": 1, "errors_info": {"odd": 1}}));
    server.script([added(2), added(3)]);
    let event = |text: String, at| LogEvent::new(&TaskId::new("t"), "DEBUG", "w:0", text, at);
    let mut events: Vec<_> = (0..5).map(|at| event("x".repeat(60), at)).collect();
    events.insert(2, event("y".repeat(1000), 99));
    let result = client.events_add_batch(&events).await.unwrap();
    assert_eq!((result.added, result.errors), (5, 3));
    assert_eq!(result.errors_info["odd"], 2);
    let sent: Vec<i64> = server
        .calls()
        .iter()
        .inspect(|call| assert!(call.body.len() <= 400))
        .flat_map(|call| {
            let text = String::from_utf8(call.body.clone()).unwrap();
            text.lines()
                .map(|line| {
                    serde_json::from_str::<Value>(line).unwrap()["timestamp"]
                        .as_i64()
                        .unwrap()
                })
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(sent, [0, 1, 2, 3, 4]);

    server.script([added(2), Step::error(503, 0, "away")]);
    let error = client.events_add_batch(&events).await.unwrap_err();
    assert!(
        matches!(error, ApiError::Ambiguous { .. }),
        "the first part was applied: {error:?}"
    );
}

#[tokio::test]
async fn runtime_is_edited_by_key_or_as_a_whole_on_old_servers() {
    let server = Server::start().await;
    let client = server.client().await;
    let task = TaskId::new("t");
    let add = || Map::from_iter([("new".to_owned(), json!(2))]);
    client.tasks_edit_runtime(&task, add(), &["old"]).await.unwrap();
    assert_eq!(
        server.calls()[0].json(),
        json!({"task": "t", "add_or_update": {"new": 2}, "remove": ["old"]})
    );

    let stored = || Step::ok(json!({"tasks": [{"runtime": {"old": 1, "other": 3}}]}));
    server.script([
        Step::error(404, 0, "no such endpoint"),
        stored(),
        Step::ok(json!({"updated": 1})),
        stored(),
    ]);
    client.tasks_edit_runtime(&task, add(), &["old"]).await.unwrap();
    client.tasks_edit_runtime(&task, add(), &[]).await.unwrap();
    let calls = server.calls();
    let names: Vec<_> = calls[1..]
        .iter()
        .map(|call| call.path.rsplit('/').next().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "tasks.edit_runtime",
            "tasks.get_all",
            "tasks.edit",
            "tasks.get_all",
            "tasks.edit"
        ]
    );
    assert_eq!(
        calls[3].json(),
        json!({"runtime": {"other": 3, "new": 2}, "task": "t", "force": true})
    );
    assert_eq!(
        calls[5].json(),
        json!({"runtime": {"old": 1, "other": 3, "new": 2}, "task": "t", "force": true})
    );
}

#[tokio::test]
async fn health_needs_no_login() {
    let server = Server::start().await;
    let client = Client::new(server.options()).unwrap();
    client.debug_ping().await.unwrap();
    assert_eq!(server.logins().len(), 0);
    assert_eq!(server.calls()[0].header("authorization"), None);
}

#[tokio::test]
async fn dropping_the_future_cancels_the_call() {
    let server = Server::start().await;
    let client = server.client().await;
    server.script(std::iter::repeat_n(Step::error(503, 0, "away"), 1000));
    let call = client.call::<Value>(Call::new("tasks.get_all").retry(Retry::Idempotent));
    let _ = tokio::time::timeout(std::time::Duration::from_millis(80), call)
        .await
        .unwrap_err();
    tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    let before = server.calls().len();
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(server.calls().len(), before);
}

#[test]
fn exact_names_are_escaped() {
    assert_eq!(exact("a.b*c"), r"^a\.b\*c$");
}
