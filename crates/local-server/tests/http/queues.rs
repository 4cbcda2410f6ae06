//! Queues of a fresh server, and how they went over time.

use clearml_local_server::Clock;
use serde_json::json;

use crate::raw::TestServer;

#[test]
fn a_fresh_server_has_one_default_queue() {
    let server = TestServer::start();
    let found = server.ok("queues.get_all", json!({}))["queues"].clone();
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert_eq!(
        (&found[0]["name"], &found[0]["system_tags"], &found[0]["entries"]),
        (&json!("default"), &json!(["default"]), &json!([]))
    );
    assert_eq!(
        server.ok("queues.get_default", json!({})),
        json!({"id": found[0]["id"], "name": "default"})
    );
    server.ok(
        "queues.update",
        json!({"queue": found[0]["id"], "system_tags": []}),
    );
    let default = |expected: i64| {
        let (code, subcode, _) = server.call("queues.get_default", json!({}));
        assert_eq!((code, subcode), (400, expected));
    };
    default(707);
    for name in ["one", "two"] {
        server.ok("queues.create", json!({"name": name, "system_tags": ["default"]}));
    }
    default(708);
    server.stop();
}

#[test]
fn lengths_and_waiting_times_are_kept() {
    let start = 1_700_000_000;
    let clock = Clock::manual(start * 1000);
    let given = clock.clone();
    let server = TestServer::start_with(move |options| options.clock = given);
    let queue = server.ok("queues.get_default", json!({}))["id"].clone();
    for task in ["a", "b"] {
        server.ok("queues.add_task", json!({"queue": queue, "task": task}));
    }
    clock.advance(100_000);
    let ask = |ids: serde_json::Value, refresh: bool| {
        let body = json!({
            "from_date": start, "to_date": start + 1000, "interval": 100, "queue_ids": ids, "refresh": refresh,
        });
        server.ok("queues.get_queue_metrics", body)["queues"][0].clone()
    };
    // The average of 1 and 2 is rounded: the SDK takes whole numbers only.
    let expected = json!({
        "queue": queue, "dates": [start, start + 100], "avg_waiting_times": [0.0, 100.0], "queue_lengths": [2, 2],
    });
    assert_eq!(ask(json!([queue]), true), expected);
    let total = ask(json!([]), false);
    assert_eq!(
        (&total["queue"], &total["queue_lengths"]),
        (&json!("total"), &json!([2, 2]))
    );
    let (code, subcode, _) = server.call(
        "queues.get_queue_metrics",
        json!({"from_date": 0, "to_date": start, "interval": 1}),
    );
    assert_eq!((code, subcode), (400, 12), "too many intervals");
    // What is a week old is forgotten.
    clock.advance(8 * 24 * 3_600_000);
    server.ok("queues.add_task", json!({"queue": queue, "task": "c"}));
    assert_eq!(ask(json!([queue]), false)["dates"], json!([]));
    server.stop();
}

#[test]
fn a_listing_names_tasks_and_workers() {
    let server = TestServer::start();
    let queue = server.ok("queues.get_default", json!({}))["id"].clone();
    let task = server.new_task();
    server.ok("tasks.enqueue", json!({"task": task}));
    server.ok(
        "workers.status_report",
        json!({"worker": "w:0", "timestamp": 1, "queues": [queue], "task": task}),
    );
    let found = server.ok("queues.get_all_ex", json!({}))["queues"][0].clone();
    assert_eq!(found["entries"][0]["task"], json!({"id": task, "name": "a task"}));
    let worker = &found["workers"][0];
    assert_eq!(
        (&worker["name"], &worker["ip"], &worker["task"]),
        (
            &json!("w:0"),
            &json!("127.0.0.1"),
            &json!({"id": task, "name": "a task"})
        )
    );
    let named =
        server.ok("queues.get_all_ex", json!({"only_fields": ["name", "workers"]}))["queues"][0].clone();
    assert_eq!(
        (&named["name"], named["workers"].is_array(), named.get("id")),
        (&json!("default"), true, None)
    );
    let plain = server.ok("queues.get_all_ex", json!({"only_fields": ["name"]}));
    assert_eq!(plain["queues"], json!([{"name": "default"}]));
    server.stop();
}
