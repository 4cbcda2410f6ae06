//! The life of a task: which call is legal when, and what else it does.

use clearml_local_server::Clock;
use serde_json::{Value, json};

use crate::raw::TestServer;

const START: i64 = 1_700_000_000_000;

fn with_clock() -> (TestServer, Clock) {
    let clock = Clock::manual(START);
    let given = clock.clone();
    (
        TestServer::start_with(move |options| options.clock = given),
        clock,
    )
}

fn task_of(server: &TestServer, task: &str) -> Value {
    server.ok("tasks.get_by_id", json!({"task": task}))["task"].clone()
}

/// A new task brought into a status.
fn in_status(server: &TestServer, status: &str) -> String {
    let task = server.new_task();
    match status {
        "created" => {}
        "queued" => drop(server.ok("tasks.enqueue", json!({"task": task}))),
        other => drop(server.ok(
            "tasks.edit",
            json!({"task": task, "status": other, "force": true}),
        )),
    }
    assert_eq!(task_of(server, &task)["status"], status);
    task
}

#[test]
fn started_keeps_its_time_and_clears_the_end() {
    let (server, clock) = with_clock();
    let task = server.new_task();
    let first = server.ok(
        "tasks.started",
        json!({"task": task, "status_reason": "r", "status_message": "m"}),
    );
    assert_eq!((&first["started"], &first["updated"]), (&json!(1), &json!(1)));
    let before = task_of(&server, &task);
    assert_eq!(
        (&before["status_reason"], &before["status_message"]),
        (&json!("r"), &json!("m"))
    );
    clock.advance(5000);
    server.ok("tasks.started", json!({"task": task}));
    let after = task_of(&server, &task);
    assert_eq!(after["started"], before["started"]);
    assert_eq!(
        after["status_message"], "",
        "a message that is not given becomes empty"
    );
    clock.advance(5000);
    server.ok("tasks.ping", json!({"task": task}));
    assert_eq!(task_of(&server, &task)["active_duration"], 10);
    server.ok("tasks.completed", json!({"task": task}));
    server.ok("tasks.completed", json!({"task": task}));
    assert!(task_of(&server, &task)["completed"].is_string());
    server.ok("tasks.started", json!({"task": task}));
    let again = task_of(&server, &task);
    assert!(again.get("completed").is_none() && again.get("active_duration").is_none());
    assert_ne!(again["started"], before["started"]);
    let (code, subcode, _) = server.call("tasks.started", json!({"task": "zz"}));
    assert_eq!((code, subcode), (400, 10));
    assert_eq!(server.ok("tasks.ping", json!({"task": "zz"})), json!({}));
    server.stop();
}

#[test]
fn completion_may_publish() {
    let server = TestServer::start();
    let task = in_status(&server, "in_progress");
    assert_eq!(
        server.ok("tasks.completed", json!({"task": task, "publish": true}))["published"],
        1
    );
    let after = task_of(&server, &task);
    assert_eq!(after["status"], "published");
    assert!(after["published"].is_string());
    server.stop();
}

#[test]
fn a_stop_is_a_request_when_a_worker_listens() {
    let (server, clock) = with_clock();
    let report = |task: &str| {
        drop(server.ok(
            "workers.status_report",
            json!({"worker": "w:0", "timestamp": START, "task": task}),
        ))
    };
    let after = |task: &str| {
        let task = task_of(&server, task);
        (
            task["status"].as_str().unwrap().to_owned(),
            task["status_message"].as_str().unwrap().to_owned(),
        )
    };
    let heard = in_status(&server, "in_progress");
    report(&heard);
    clock.advance(1000);
    server.ok("tasks.stop", json!({"task": heard, "force": true}));
    assert_eq!(after(&heard), ("in_progress".to_owned(), "stopping".to_owned()));

    let silent = in_status(&server, "in_progress");
    report(&silent);
    clock.advance(601_000);
    server.ok("tasks.stop", json!({"task": silent}));
    assert_eq!(
        after(&silent),
        ("stopped".to_owned(), "Stopped by local user".to_owned())
    );

    let developed = in_status(&server, "in_progress");
    report(&developed);
    server.ok(
        "tasks.edit",
        json!({"task": developed, "system_tags": ["development"], "force": true}),
    );
    server.ok("tasks.stop", json!({"task": developed}));
    assert_eq!(after(&developed).0, "stopped");
    assert!(task_of(&server, &developed).get("completed").is_none());

    let waiting = in_status(&server, "queued");
    server.ok("tasks.stop", json!({"task": waiting}));
    assert_eq!(after(&waiting).0, "stopped");
    let queue = server.ok("queues.get_default", json!({}))["id"].clone();
    assert_eq!(
        server.ok("queues.get_num_entries", json!({"queue": queue}))["num"],
        0
    );
    server.stop();
}

#[test]
fn the_watchdog_stops_what_has_gone_silent() {
    let (server, clock) = with_clock();
    let (silent, alive) = (
        in_status(&server, "in_progress"),
        in_status(&server, "in_progress"),
    );
    clock.advance(7_190_000);
    server.ok("tasks.ping", json!({"task": alive}));
    assert!(server.watchdog().is_empty());
    clock.advance(20_000);
    assert_eq!(server.watchdog(), std::slice::from_ref(&silent));
    let stopped = task_of(&server, &silent);
    assert_eq!(
        (&stopped["status"], &stopped["status_reason"]),
        (&json!("stopped"), &json!("Forced stop (non-responsive)"))
    );
    assert_eq!(task_of(&server, &alive)["status"], "in_progress");
    server.stop();
}

#[test]
fn a_reset_keeps_what_was_asked_for_and_forgets_what_happened() {
    let server = TestServer::start();
    let task = server.new_task();
    server.ok("tasks.edit", json!({"task": task, "tags": ["t"], "system_tags": ["development"], "comment": "c", "script": {"repository": "r", "binary": "python3"},
        "container": {"image": "i"}, "hyperparams": {"A": {"a": {"value": "1"}}}, "runtime": {"x": 1}, "execution": {"framework": "f"},
        "output_dest": "s3://x"}));
    server.ok("tasks.started", json!({"task": task}));
    server.ok(
        "workers.status_report",
        json!({"worker": "w", "timestamp": 1, "task": task}),
    );
    server.ok(
        "tasks.add_or_update_artifacts",
        json!({"task": task, "artifacts": [
        {"key": "o", "type": "t", "uri": "http://f/o"}, {"key": "i", "type": "t", "mode": "input"}]}),
    );
    server.add_batch(&[json!({"type": "log", "task": task, "msg": "m"})]);
    server.ok("tasks.completed", json!({"task": task}));

    let reply = server.ok("tasks.reset", json!({"task": task, "return_file_urls": true}));
    assert_eq!(
        (&reply["dequeued"], &reply["urls"]["artifact_urls"]),
        (&json!({}), &json!(["http://f/o"]))
    );
    let after = task_of(&server, &task);
    for field in [
        "started",
        "completed",
        "active_duration",
        "last_worker",
        "last_worker_report",
    ] {
        assert!(after.get(field).is_none(), "{field}");
    }
    assert_eq!(
        (&after["status"], &after["status_reason"], &after["runtime"]),
        (&json!("created"), &json!("reset"), &json!({}))
    );
    assert_eq!(after["execution"]["artifacts"][0]["key"], "i");
    assert_eq!(
        (&after["tags"], &after["comment"], &after["script"]["repository"]),
        (&json!(["t"]), &json!("c"), &json!("r"))
    );
    assert_eq!(
        (&after["container"]["image"], &after["output"]["destination"]),
        (&json!("i"), &json!("s3://x"))
    );
    assert_eq!(after["hyperparams"]["A"]["a"]["value"], "1");
    assert_eq!(after["system_tags"], json!(["development"]));
    assert_eq!(
        server.ok("events.get_task_log", json!({"task": task}))["total"],
        0
    );

    server.ok("tasks.enqueue", json!({"task": task}));
    assert_eq!(
        server.ok("tasks.reset", json!({"task": task, "clear_all": true}))["dequeued"],
        json!({"removed": 1})
    );
    let cleared = task_of(&server, &task);
    assert_eq!(
        (&cleared["script"]["binary"], &cleared["container"]["image"]),
        (&json!("python"), &json!("i"))
    );
    assert!(cleared["execution"].get("framework").is_none() && cleared["execution"].get("queue").is_none());
    server.stop();
}

#[test]
fn deleting_needs_a_draft_an_archived_task_or_force() {
    let server = TestServer::start();
    let running = in_status(&server, "in_progress");
    let child = server.ok(
        "tasks.create",
        json!({"name": "child", "type": "qc", "parent": running}),
    )["id"]
        .clone();
    assert_eq!(server.call("tasks.delete", json!({"task": running})).1, 123);
    assert_eq!(
        server.ok("tasks.delete", json!({"task": running, "force": true}))["updated_children"],
        1
    );
    assert_eq!(
        task_of(&server, child.as_str().unwrap())["parent"],
        format!("__DELETED__{running}")
    );
    assert_eq!(server.call("tasks.get_by_id", json!({"task": running})).1, 101);

    let draft = in_status(&server, "queued");
    server.ok("tasks.dequeue", json!({"task": draft}));
    server.ok("tasks.delete", json!({"task": draft}));
    let archived = in_status(&server, "completed");
    assert_eq!(
        server.ok("tasks.archive", json!({"tasks": [archived]}))["archived"],
        1
    );
    server.ok("tasks.delete", json!({"task": archived}));
    server.stop();
}

#[test]
fn batches_report_each_item() {
    let server = TestServer::start();
    let (good, bad) = (in_status(&server, "completed"), in_status(&server, "published"));
    let reply = server.ok("tasks.reset_many", json!({"ids": [good, bad, "zz"]}));
    assert_eq!(reply["succeeded"][0]["id"], json!(good));
    let codes: Vec<&Value> = reply["failed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["error"]["codes"])
        .collect();
    assert_eq!(codes, [&json!([400, 110]), &json!([400, 101])]);
    assert_eq!(server.call("tasks.reset_many", json!({"ids": []})).1, 12);
    server.ok("tasks.archive_many", json!({"ids": [good]}));
    assert_eq!(task_of(&server, &good)["system_tags"], json!(["archived"]));
    server.ok("tasks.unarchive_many", json!({"ids": [good]}));
    assert_eq!(task_of(&server, &good)["system_tags"], json!([]));
    server.stop();
}
