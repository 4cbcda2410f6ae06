//! Entries of queues: taking tasks out, moving them, and what remains of a queue that goes.

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
fn dequeueing_gives_back_the_status_before() {
    let server = TestServer::start();
    let in_status = |status: &str| {
        let task = server.new_task();
        server.ok("tasks.edit", json!({"task": task, "status": status}));
        task
    };
    let failed = in_status("failed");
    server.ok("tasks.enqueue", json!({"task": failed}));
    let reply = server.ok("tasks.dequeue", json!({"task": failed}));
    assert_eq!((&reply["dequeued"], &reply["updated"]), (&json!(1), &json!(1)));
    let after = task_of(&server, &failed);
    assert_eq!(
        (&after["status"], &after["execution"]["queue"]),
        (&json!("failed"), &json!(default_queue(&server)))
    );

    let queued = server.new_task();
    server.ok("tasks.enqueue", json!({"task": queued}));
    for (task, updated, status) in [
        (queued, 1, "in_progress"),
        (in_status("in_progress"), 1, "in_progress"),
        (in_status("failed"), 0, "failed"),
    ] {
        let reply = server.ok(
            "tasks.dequeue",
            json!({"task": task, "new_status": "in_progress"}),
        );
        assert_eq!(
            (&reply["updated"], &task_of(&server, &task)["status"]),
            (&json!(updated), &json!(status))
        );
    }
    assert_eq!(
        server.ok("tasks.dequeue", json!({"task": "zz"})),
        json!({"dequeued": 1, "updated": 0})
    );
    assert_eq!(
        outcome(
            &server,
            "tasks.dequeue",
            json!({"task": failed, "new_status": "bogus"})
        ),
        (400, 12)
    );
    server.stop();
}

#[test]
fn entries_move_and_stop_at_the_ends() {
    let server = TestServer::start();
    for (call, count, expected) in [
        ("move_task_to_front", None, 0),
        ("move_task_to_back", None, 4),
        ("move_task_forward", Some(1), 1),
        ("move_task_forward", Some(10), 0),
        ("move_task_backward", None, 3),
        ("move_task_backward", Some(10), 4),
    ] {
        let queue = queue(&server, &format!("{call} {count:?}"));
        for task in 0..5 {
            server.ok(
                "queues.add_task",
                json!({"queue": queue, "task": task.to_string()}),
            );
        }
        let reply = server.ok(
            &format!("queues.{call}"),
            json!({"queue": queue, "task": "2", "count": count}),
        );
        assert_eq!(reply["position"], expected, "{call} {count:?}");
        let now = entries(&server, &queue);
        assert_eq!(now[expected], "2");
        assert_eq!(
            now.iter()
                .filter(|task| *task != "2")
                .cloned()
                .collect::<Vec<_>>(),
            ["0", "1", "3", "4"]
        );
        server.ok("queues.add_task", json!({"queue": queue, "task": "5"}));
        assert_eq!(entries(&server, &queue)[5], "5", "new ones still go to the end");
    }
    let (line, task) = (queue(&server, "steps"), "2");
    for name in ["0", "1", task, "3", "4"] {
        server.ok("queues.add_task", json!({"queue": line, "task": name}));
    }
    let moves = [
        ("to_front", 0, 0),
        ("to_back", 0, 4),
        ("forward", 1, 3),
        ("forward", 2, 1),
        ("backward", 10, 4),
        ("forward", 10, 0),
    ];
    for (direction, count, expected) in moves {
        let reply = server.ok(
            &format!("queues.move_task_{direction}"),
            json!({"queue": line, "task": task, "count": count}),
        );
        assert_eq!(reply["position"], expected, "{direction} {count}");
    }
    assert_eq!(
        outcome(
            &server,
            "queues.move_task_to_front",
            json!({"queue": line, "task": "zz"})
        ),
        (400, 703)
    );
    server.stop();
}

#[test]
fn entries_are_added_and_removed_without_asking_the_task() {
    let server = TestServer::start();
    let queue = queue(&server, "loose");
    assert_eq!(
        server.ok("queues.add_task", json!({"queue": queue, "task": "nobody"}))["added"],
        1
    );
    assert_eq!(
        outcome(
            &server,
            "queues.add_task",
            json!({"queue": queue, "task": "nobody"})
        ),
        (400, 706)
    );
    assert_eq!(
        outcome(
            &server,
            "queues.add_task",
            json!({"queue": "zz", "task": "nobody"})
        ),
        (400, 701)
    );
    let task = server.new_task();
    server.ok("tasks.enqueue", json!({"task": task, "queue": queue}));
    let remove = json!({"queue": queue, "task": task});
    assert_eq!(server.ok("queues.remove_task", remove.clone())["removed"], 1);
    assert_eq!(task_of(&server, &task)["status"], "queued");
    assert_eq!(outcome(&server, "queues.remove_task", remove), (400, 703));
    server.ok("queues.add_task", json!({"queue": queue, "task": task}));
    server.ok(
        "queues.remove_task",
        json!({"queue": queue, "task": task, "update_task_status": true}),
    );
    let after = task_of(&server, &task);
    assert_eq!(after["status"], "created");
    assert!(!after["status_reason"].as_str().unwrap().is_empty());
    server.stop();
}

#[test]
fn a_queue_that_goes_gives_its_tasks_back() {
    let server = TestServer::start();
    let queue = queue(&server, "doomed");
    let (draft, failed) = (server.new_task(), server.new_task());
    server.ok("tasks.edit", json!({"task": failed, "status": "failed"}));
    for task in [&draft, &failed] {
        server.ok("tasks.enqueue", json!({"task": task, "queue": queue}));
    }
    assert_eq!(
        outcome(&server, "queues.delete", json!({"queue": queue})),
        (400, 702)
    );
    assert_eq!(
        server.ok("queues.delete", json!({"queue": queue, "force": true}))["deleted"],
        1
    );
    assert_eq!(
        (
            &task_of(&server, &draft)["status"],
            &task_of(&server, &failed)["status"]
        ),
        (&json!("created"), &json!("failed"))
    );
    assert_eq!(
        outcome(&server, "queues.get_num_entries", json!({"queue": queue})),
        (400, 701)
    );
    let default = default_queue(&server);
    server.ok("tasks.enqueue", json!({"task": draft}));
    assert_eq!(
        server.ok("queues.clear_queue", json!({"queue": default}))["removed_tasks"],
        json!([draft])
    );
    assert_eq!(
        server.ok("queues.peek_task", json!({"queue": default}))["task"],
        Value::Null
    );
    server.stop();
}
