//! Queues: making and finding them, the way of tasks through them, and who gets which task.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::raw::TestServer;

fn outcome(server: &TestServer, endpoint: &str, body: Value) -> (i64, i64) {
    let (code, subcode, _) = server.call(endpoint, body);
    (code, subcode)
}

fn queue(server: &TestServer, name: &str) -> String {
    server.ok("queues.create", json!({"name": name}))["id"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn default_queue(server: &TestServer) -> String {
    server.ok("queues.get_default", json!({}))["id"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn entries(server: &TestServer, queue: &str) -> Vec<String> {
    let queue = server.ok("queues.get_by_id", json!({"queue": queue}))["queue"].clone();
    queue["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["task"].as_str().unwrap().to_owned())
        .collect()
}

fn task_of(server: &TestServer, task: &str) -> Value {
    server.ok("tasks.get_by_id", json!({"task": task}))["task"].clone()
}

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
    assert_eq!(
        outcome(&server, "queues.get_by_id", json!({"queue": "default"})),
        (400, 701),
        "a name is no id"
    );
    let by_name = server.ok(
        "queues.get_all",
        json!({"name": "^default$", "only_fields": ["id"]}),
    );
    assert_eq!(by_name["queues"], json!([{"id": found[0]["id"]}]));
    server.ok(
        "queues.update",
        json!({"queue": found[0]["id"], "system_tags": []}),
    );
    assert_eq!(outcome(&server, "queues.get_default", json!({})), (400, 707));
    for name in ["one", "two"] {
        server.ok("queues.create", json!({"name": name, "system_tags": ["default"]}));
    }
    assert_eq!(outcome(&server, "queues.get_default", json!({})), (400, 708));
    server.stop();
}

#[test]
fn names_are_unique_and_long_enough() {
    let server = TestServer::start();
    let id = queue(&server, " work ");
    assert_eq!(
        outcome(&server, "queues.create", json!({"name": "work"})),
        (400, 801)
    );
    assert_eq!(
        outcome(&server, "queues.create", json!({"name": "ab"})),
        (400, 800)
    );
    assert_eq!(
        outcome(&server, "queues.update", json!({"queue": id, "name": "default"})),
        (400, 801)
    );
    server.ok(
        "queues.update",
        json!({"queue": id, "name": "working", "display_name": "Work"}),
    );
    let named = server.ok("queues.get_by_id", json!({"queue": id}))["queue"].clone();
    assert_eq!(
        (&named["name"], &named["display_name"]),
        (&json!("working"), &json!("Work"))
    );
    server.ok(
        "queues.add_or_update_metadata",
        json!({"queue": id, "metadata": [{"key": "k", "type": "t", "value": "v"}]}),
    );
    assert_eq!(
        server.ok("queues.get_by_id", json!({"queue": id}))["queue"]["metadata"]["k"]["value"],
        "v"
    );
    let old = server
        .call_raw(
            "/v2.5/queues.get_by_id",
            "application/json",
            json!({"queue": id}).to_string().as_bytes(),
        )
        .2;
    assert_eq!(old["queue"]["metadata"], json!([]));
    server.ok("queues.delete_metadata", json!({"queue": id, "keys": ["k"]}));
    assert_eq!(
        server.ok("queues.get_by_id", json!({"queue": id}))["queue"]["metadata"],
        json!({})
    );
    server.stop();
}

#[test]
fn the_glue_hides_its_queue() {
    let server = TestServer::start();
    let id = server.ok(
        "queues.create",
        json!({"name": "k8s_scheduler", "system_tags": ["k8s-glue"]}),
    )["id"]
        .clone();
    for (request, expected) in [
        (json!({}), false),
        (json!({"name": "k8s_scheduler"}), true),
        (json!({"id": [id]}), true),
        (json!({"search_hidden": true}), true),
    ] {
        let found = server.ok("queues.get_all", request.clone())["queues"].clone();
        assert_eq!(
            found.as_array().unwrap().iter().any(|queue| queue["id"] == id),
            expected,
            "{request}"
        );
    }
    server.stop();
}

#[test]
fn enqueueing_moves_a_task_to_the_end_of_one_queue() {
    let server = TestServer::start();
    let (first, other) = (queue(&server, "first"), default_queue(&server));
    let (task, earlier) = (server.new_task(), server.new_task());
    server.ok("tasks.enqueue", json!({"task": earlier, "queue": first}));
    server.ok(
        "tasks.edit",
        json!({"task": task, "system_tags": ["development"]}),
    );
    let reply = server.ok("tasks.enqueue", json!({"task": task, "queue": first}));
    assert_eq!(
        (
            &reply["queued"],
            &reply["updated"],
            &reply["fields"]["execution.queue"]
        ),
        (&json!(1), &json!(1), &json!(first))
    );
    let queued = task_of(&server, &task);
    assert_eq!(
        (
            &queued["status"],
            &queued["execution"]["queue"],
            &queued["system_tags"]
        ),
        (&json!("queued"), &json!(first), &json!([]))
    );
    assert_eq!(entries(&server, &first), [earlier, task.clone()]);
    assert_eq!(
        outcome(&server, "tasks.enqueue", json!({"task": task, "queue": first})),
        (400, 706)
    );
    server.ok("tasks.enqueue", json!({"task": task, "queue": other}));
    assert_eq!(
        (entries(&server, &first).len(), entries(&server, &other)),
        (1, vec![task])
    );
    server.stop();
}

#[test]
fn enqueueing_knows_where_or_says_so() {
    let server = TestServer::start();
    let (task, default) = (server.new_task(), default_queue(&server));
    for (body, expected) in [
        (json!({"queue": "zz"}), (400, 701)),
        (json!({"queue": default, "queue_name": "default"}), (400, 12)),
        (
            json!({"queue": default, "update_execution_queue": false}),
            (400, 12),
        ),
    ] {
        let mut body = body;
        body["task"] = json!(task);
        assert_eq!(
            outcome(&server, "tasks.enqueue", body.clone()),
            expected,
            "{body}"
        );
        assert_eq!(task_of(&server, &task)["status"], "created");
    }
    server.ok("tasks.enqueue", json!({"task": task}));
    assert_eq!(entries(&server, &default), std::slice::from_ref(&task));
    let pending = queue(&server, "pending");
    server.ok(
        "tasks.enqueue",
        json!({"task": task, "queue": pending, "update_execution_queue": false}),
    );
    assert_eq!(
        (entries(&server, &pending), entries(&server, &default).len()),
        (vec![task.clone()], 0)
    );
    assert_eq!(task_of(&server, &task)["execution"]["queue"], json!(default));

    let named = server.new_task();
    server.ok("tasks.enqueue", json!({"task": named, "queue_name": "made now"}));
    assert_eq!(
        server.ok("queues.get_all", json!({"name": "^made now$"}))["queues"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    server.stop();
}

#[test]
fn a_watched_queue_is_known() {
    let server = TestServer::start();
    let queue = queue(&server, "watched");
    let watched = || {
        server.ok(
            "tasks.enqueue",
            json!({"task": server.new_task(), "queue": queue, "verify_watched_queue": true}),
        )["queue_watched"]
            .clone()
    };
    assert_eq!(watched(), json!(false));
    server.ok("workers.register", json!({"worker": "w:0", "queues": [queue]}));
    assert_eq!(watched(), json!(true));
    server.stop();
}

#[test]
fn tasks_are_popped_first_in_first_out() {
    let server = TestServer::start();
    let queue = queue(&server, "line");
    let pop = |body: Value| {
        let mut body = body;
        body["queue"] = json!(queue);
        server.ok("queues.get_next_task", body)
    };
    assert_eq!(pop(json!({})), json!({}));
    assert_eq!(
        outcome(&server, "queues.get_next_task", json!({"queue": "zz"})),
        (400, 701)
    );
    let tasks: Vec<String> = (0..3).map(|_| server.new_task()).collect();
    for task in &tasks {
        server.ok("tasks.enqueue", json!({"task": task, "queue": queue}));
    }
    assert_eq!(
        server.ok("queues.peek_task", json!({"queue": queue}))["task"],
        json!(tasks[0])
    );
    assert_eq!(pop(json!({"task": tasks[1]})), json!({}), "not the first");
    assert_eq!(entries(&server, &queue).len(), 3);
    let popped = pop(json!({"task": tasks[0], "get_task_info": true}));
    assert_eq!(popped["entry"]["task"], json!(tasks[0]));
    assert!(
        popped["entry"]["added"].is_string()
            && popped["task_info"]["user"].is_string()
            && popped["task_info"]["company"].is_string()
    );
    assert_eq!(
        task_of(&server, &tasks[0])["status"],
        "queued",
        "popping does not start"
    );
    server.ok(
        "tasks.edit",
        json!({"task": tasks[1], "status": "stopped", "force": true}),
    );
    assert_eq!(pop(json!({}))["entry"]["task"], json!(tasks[1]));
    assert_eq!(
        task_of(&server, &tasks[1])["status"],
        "queued",
        "whoever stopped it lost the race"
    );
    assert_eq!(
        server.ok("queues.get_num_entries", json!({"queue": queue}))["num"],
        1
    );
    server.stop();
}

#[test]
fn a_hundred_tasks_and_eight_pollers() {
    let server = TestServer::start();
    let queue = queue(&server, "crowded");
    let tasks: Vec<String> = (0..100).map(|_| server.new_task()).collect();
    for task in &tasks {
        server.ok("queues.add_task", json!({"queue": queue, "task": task}));
    }
    let seen: Mutex<BTreeMap<String, u32>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let reply = server.ok("queues.get_next_task", json!({"queue": queue}));
                    let Some(task) = reply["entry"]["task"].as_str() else {
                        return;
                    };
                    *seen.lock().unwrap().entry(task.to_owned()).or_default() += 1;
                }
            });
        }
    });
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen.len(), 100);
    assert!(seen.values().all(|times| *times == 1), "{seen:?}");
    assert!(tasks.iter().all(|task| seen.contains_key(task)));
    server.stop();
}
