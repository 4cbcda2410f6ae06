//! Workers: registration, reports, lifetime, listings, and the properties they keep here.

use clearml_local_server::Clock;
use serde_json::{Value, json};

use crate::raw::TestServer;

const START: i64 = 1_700_000_000_000;

fn subcode(server: &TestServer, endpoint: &str, body: Value) -> i64 {
    server.call(endpoint, body).1
}

fn listed(server: &TestServer, request: Value) -> Vec<String> {
    let found = server.ok("workers.get_all", request)["workers"].clone();
    found
        .as_array()
        .unwrap()
        .iter()
        .map(|worker| worker["id"].as_str().unwrap().to_owned())
        .collect()
}

fn worker_of(server: &TestServer, id: &str) -> Value {
    let found = server.ok("workers.get_all", json!({"last_seen": 0}))["workers"].clone();
    found
        .as_array()
        .unwrap()
        .iter()
        .find(|worker| worker["id"] == id)
        .unwrap()
        .clone()
}

#[test]
fn a_registered_worker_is_listed_with_its_queues() {
    let server = TestServer::start();
    let queue = server.ok("queues.get_default", json!({}))["id"].clone();
    server.ok(
        "workers.register",
        json!({"worker": "w:0", "queues": [queue], "tags": ["gpu"]}),
    );
    let worker = worker_of(&server, "w:0");
    assert_eq!(
        worker["queues"],
        json!([{"id": queue, "name": "default", "num_tasks": 0}])
    );
    assert_eq!(
        (&worker["register_timeout"], &worker["ip"], &worker["tags"]),
        (&json!(600), &json!("127.0.0.1"), &json!(["gpu"]))
    );
    let task = server.new_task();
    server.ok("tasks.enqueue", json!({"task": task}));
    assert_eq!(
        worker_of(&server, "w:0")["queues"][0]["next_task"],
        json!({"id": task, "name": "a task"})
    );
    for (body, expected) in [
        (json!({"worker": "w", "queues": ["zz"]}), 701),
        (json!({"worker": "w", "timeout": -1}), 1002),
        (json!({}), 12),
    ] {
        assert_eq!(
            subcode(&server, "workers.register", body.clone()),
            expected,
            "{body}"
        );
    }
    server.ok("workers.register", json!({"worker": "w:0", "queues": [queue]}));
    assert_eq!(server.ok("workers.get_count", json!({}))["count"], 1);
    for _ in 0..2 {
        server.ok("workers.unregister", json!({"worker": "w:0", "queues": [queue]}));
    }
    assert!(listed(&server, json!({})).is_empty());
    server.stop();
}

#[test]
fn a_report_says_what_runs_and_registers_who_is_unknown() {
    let clock = Clock::manual(START);
    let given = clock.clone();
    let server = TestServer::start_with(move |options| options.clock = given);
    let (task, queue) = (
        server.new_task(),
        server.ok("queues.get_default", json!({}))["id"].clone(),
    );
    server.ok("tasks.started", json!({"task": task}));
    clock.advance(3000);
    server.ok(
        "workers.status_report",
        json!({"worker": "h:0", "timestamp": START, "task": task, "queue": queue, "queues": [queue],
        "machine_stats": null, "tags": null, "is_daemon": true}),
    );
    let worker = worker_of(&server, "h:0");
    assert_eq!(
        worker["task"],
        json!({"id": task, "name": "a task", "running_time": 3000, "last_iteration": 0})
    );
    assert_eq!(worker["queue"]["name"], "default");
    let known = server.ok("tasks.get_by_id", json!({"task": task}))["task"].clone();
    assert_eq!(
        (&known["last_worker"], &known["last_worker_report"]),
        (&json!("h:0"), &known["last_update"])
    );

    server.ok("workers.status_report", json!({"worker": "h:0", "timestamp": START, "queues": [], "machine_stats": {"cpu_usage": [1, 2], "bogus": 3}}));
    let idle = worker_of(&server, "h:0");
    assert!(idle.get("task").is_none() && idle.get("queue").is_none());
    assert_eq!(
        idle["queues"][0]["id"], queue,
        "no queues in a report leaves the list"
    );
    for (body, expected) in [
        (json!({"worker": "h:0"}), 12),
        (json!({"worker": "h:0", "timestamp": 1, "task": "zz"}), 101),
    ] {
        assert_eq!(
            subcode(&server, "workers.status_report", body.clone()),
            expected,
            "{body}"
        );
    }
    server.stop();
}

#[test]
fn silence_ends_a_worker() {
    let clock = Clock::manual(START);
    let given = clock.clone();
    let server = TestServer::start_with(move |options| options.clock = given);
    for worker in ["silent", "talking"] {
        server.ok("workers.register", json!({"worker": worker, "timeout": 2}));
    }
    clock.advance(1500);
    server.ok(
        "workers.status_report",
        json!({"worker": "talking", "timestamp": 1}),
    );
    clock.advance(1500);
    assert_eq!(listed(&server, json!({"last_seen": 0})), ["talking"]);
    server.stop();
}

#[test]
fn listings_are_narrowed_by_pattern_time_and_tags() {
    let clock = Clock::manual(START);
    let given = clock.clone();
    let server = TestServer::start_with(move |options| options.clock = given);
    server.ok(
        "workers.register",
        json!({"worker": "h:gpu0", "timeout": 100_000, "tags": ["a"]}),
    );
    clock.advance(4_000_000);
    server.ok("workers.register", json!({"worker": "h:cpu:0", "tags": ["b"]}));
    for (request, expected) in [
        (json!({}), vec!["h:cpu:0"]),
        (json!({"last_seen": 0}), vec!["h:cpu:0", "h:gpu0"]),
        (
            json!({"last_seen": 0, "worker_pattern": "h:gpu*"}),
            vec!["h:gpu0"],
        ),
        (
            json!({"last_seen": 0, "worker_pattern": "h:*"}),
            vec!["h:cpu:0", "h:gpu0"],
        ),
        (
            json!({"last_seen": 0, "worker_pattern": "h:gpu?"}),
            vec!["h:gpu0"],
        ),
        (json!({"last_seen": 0, "worker_pattern": "gpu*"}), vec![]),
        (json!({"last_seen": 0, "tags": ["a"]}), vec!["h:gpu0"]),
        (json!({"last_seen": 0, "tags": ["-a"]}), vec!["h:cpu:0"]),
    ] {
        assert_eq!(listed(&server, request.clone()), expected, "{request}");
    }
    server.stop();
}

#[test]
fn runtime_properties_are_kept_until_they_expire() {
    let clock = Clock::manual(START);
    let given = clock.clone();
    let server = TestServer::start_with(move |options| options.clock = given);
    let properties =
        || server.ok("workers.get_runtime_properties", json!({"worker": "w"}))["runtime_properties"].clone();
    let set = |key: &str, value: &str, expiry: Value| {
        server.ok(
            "workers.set_runtime_properties",
            json!({"worker": "w", "runtime_properties": [{"key": key, "value": value, "expiry": expiry}]}),
        );
    };
    assert_eq!(properties(), json!([]));
    set("force", "on", Value::Null);
    set("available_gpus", "0,1", json!(10));
    assert_eq!(
        properties(),
        json!([{"key": "available_gpus", "value": "0,1", "expiry": 10}, {"key": "force", "value": "on"}])
    );
    clock.advance(10_000);
    assert_eq!(properties(), json!([{"key": "force", "value": "on"}]));
    set("force", "", json!(0));
    assert_eq!(properties(), json!([]));
    server.stop();
}

#[test]
fn the_only_user_is_there_and_keeps_preferences() {
    let server = TestServer::start();
    let me = server.ok("users.get_current_user", json!({}))["user"].clone();
    assert_eq!(
        (&me["role"], &me["company"]["name"]),
        (&json!("admin"), &json!("local"))
    );
    assert_eq!(
        server.ok("users.get_by_id", json!({"user": me["id"]}))["user"]["name"],
        me["name"]
    );
    assert_eq!(subcode(&server, "users.get_by_id", json!({"user": "zz"})), 301);
    assert_eq!(
        server.ok("users.get_all", json!({"only_fields": ["id"]}))["users"],
        json!([{"id": me["id"]}])
    );
    server.ok("users.set_preferences", json!({"preferences": {"a.b": 1}}));
    server.ok("users.set_preferences", json!({"preferences": {"a.c": 2}}));
    assert_eq!(
        server.ok("users.get_preferences", json!({}))["preferences"],
        json!({"a": {"b": 1, "c": 2}})
    );
    let info = server.ok("server.info", json!({}));
    assert_eq!(
        (&info["version"], &info["api_version"]),
        (&json!("2.3.0"), &json!("2.34"))
    );
    server.stop();
}
