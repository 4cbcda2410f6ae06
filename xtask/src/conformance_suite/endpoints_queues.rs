//! Queues and workers: each endpoint with a call that must succeed.

use anyhow::Result;
use serde_json::{Value, json};

use super::endpoints::Contract;
use super::lifecycle::now_ms;
use super::scene::Scene;

pub(super) const CONTRACTS: &[Contract] = &[
    Contract::new(
        "queues.create",
        "a new queue",
        None,
        |s| Ok(json!({"name": s.name("created")})),
        &["id"],
    ),
    Contract::new(
        "queues.get_by_id",
        "one queue with its entries",
        None,
        |s| Ok(json!({"queue": s.queue()?})),
        &["queue"],
    ),
    Contract::new(
        "queues.get_all",
        "the queues of a selection",
        None,
        |s| Ok(json!({"id": [s.queue()?], "max_task_entries": 1})),
        &["queues"],
    ),
    Contract::new(
        "queues.get_all_ex",
        "the same with names of tasks and workers",
        None,
        |s| Ok(json!({"id": [s.queue()?]})),
        &["queues"],
    ),
    Contract::new(
        "queues.get_default",
        "the queue for tasks that name none",
        None,
        |_| Ok(json!({})),
        &["id", "name"],
    ),
    Contract::new(
        "queues.update",
        "another name shown for a queue",
        None,
        |s| Ok(json!({"queue": s.queue()?, "display_name": "d"})),
        &["updated", "fields"],
    ),
    Contract::new(
        "queues.delete",
        "the end of a queue",
        None,
        |s| Ok(json!({"queue": s.queue()?})),
        &["deleted"],
    ),
    Contract::new(
        "queues.add_task",
        "an entry at the end",
        None,
        |s| Ok(json!({"queue": s.queue()?, "task": s.task()?})),
        &["added"],
    ),
    Contract::new(
        "queues.get_next_task",
        "the first entry, taken out",
        None,
        |s| Ok(json!({"queue": waiting(s)?.0})),
        &["entry"],
    ),
    Contract::new(
        "queues.remove_task",
        "an entry taken out",
        None,
        entry,
        &["removed"],
    ),
    Contract::new(
        "queues.clear_queue",
        "all entries taken out",
        None,
        |s| Ok(json!({"queue": waiting(s)?.0})),
        &["removed_tasks"],
    ),
    Contract::new(
        "queues.move_task_forward",
        "an entry moved towards the front",
        None,
        entry,
        &["position"],
    ),
    Contract::new(
        "queues.move_task_backward",
        "an entry moved towards the end",
        None,
        entry,
        &["position"],
    ),
    Contract::new(
        "queues.move_task_to_front",
        "an entry moved to the front",
        None,
        entry,
        &["position"],
    ),
    Contract::new(
        "queues.move_task_to_back",
        "an entry moved to the end",
        None,
        entry,
        &["position"],
    ),
    Contract::new(
        "queues.peek_task",
        "the first entry, left there",
        Some("2.15"),
        |s| Ok(json!({"queue": waiting(s)?.0})),
        &["task"],
    ),
    Contract::new(
        "queues.get_num_entries",
        "the length of a queue",
        Some("2.15"),
        |s| Ok(json!({"queue": s.queue()?})),
        &["num"],
    ),
    Contract::new(
        "queues.add_or_update_metadata",
        "a note on a queue",
        Some("2.13"),
        |s| Ok(json!({"queue": s.queue()?, "metadata": [{"key": "k", "type": "t", "value": "v"}]})),
        &["updated"],
    ),
    Contract::new(
        "queues.delete_metadata",
        "a note taken away from a queue",
        Some("2.13"),
        |s| Ok(json!({"queue": s.queue()?, "keys": ["k"]})),
        &["updated"],
    ),
    Contract::new(
        "queues.get_queue_metrics",
        "lengths and waiting times over time",
        None,
        |s| Ok(period(json!({"queue_ids": [waiting(s)?.0], "refresh": true}))),
        &["queues"],
    ),
    Contract::new(
        "workers.register",
        "a worker made known",
        None,
        |s| Ok(worker(s, json!({"queues": []}))),
        &[],
    ),
    Contract::new(
        "workers.unregister",
        "a worker gone",
        None,
        |s| Ok(worker(s, json!({"queues": []}))),
        &[],
    ),
    Contract::new(
        "workers.status_report",
        "a sign of life of a worker",
        None,
        |s| Ok(worker(s, json!({"timestamp": now_ms()}))),
        &[],
    ),
    Contract::new(
        "workers.get_all",
        "the live workers",
        None,
        |s| Ok(json!({"last_seen": 0, "worker_pattern": s.name("none")})),
        &["workers"],
    ),
    Contract::new(
        "workers.get_count",
        "the number of workers",
        None,
        |s| Ok(json!({"worker_pattern": s.name("none")})),
        &["count"],
    ),
    Contract::new(
        "workers.get_metric_keys",
        "the names of what machines reported",
        None,
        |s| Ok(json!({"worker_ids": [reported(s)?]})),
        &["categories"],
    ),
    Contract::new(
        "workers.get_stats",
        "what machines reported, as series",
        None,
        |s| {
            Ok(period(
                json!({"worker_ids": [reported(s)?], "items": [{"key": "cpu_usage"}]}),
            ))
        },
        &["workers"],
    ),
    Contract::new(
        "workers.get_activity_report",
        "how many workers were there",
        None,
        |_| Ok(period(json!({}))),
        &["total", "active"],
    ),
    Contract::new(
        "workers.get_runtime_properties",
        "what a worker keeps on the server (an extension)",
        None,
        |s| Ok(json!({"worker": s.name("none")})),
        &["runtime_properties"],
    ),
    Contract::new(
        "workers.set_runtime_properties",
        "something a worker keeps on the server (an extension)",
        None,
        |s| {
            Ok(worker(
                s,
                json!({"runtime_properties": [{"key": "k", "value": "v", "expiry": 1}]}),
            ))
        },
        &[],
    ),
];

/// A fresh queue with a fresh task in it.
fn waiting(s: &Scene<'_>) -> Result<(String, String)> {
    let (queue, task) = (s.queue()?, s.task()?);
    s.enqueue(&task, &queue)?;
    Ok((queue, task))
}

/// The same as a request.
fn entry(s: &Scene<'_>) -> Result<Value> {
    let (queue, task) = waiting(s)?;
    Ok(json!({"queue": queue, "task": task}))
}

fn worker(s: &Scene<'_>, extra: Value) -> Value {
    let mut body = extra;
    body["worker"] = json!(s.name("worker"));
    body
}

/// A worker that has reported a number.
fn reported(s: &Scene<'_>) -> Result<String> {
    let name = s.name("worker");
    let stats = json!({"cpu_usage": 1.5});
    let body = json!({"worker": name, "timestamp": now_ms(), "machine_stats": stats});
    s.ok("workers.status_report", body)?;
    Ok(name)
}

/// The last hour.
fn period(extra: Value) -> Value {
    let mut body = extra;
    let now = now_ms() / 1000;
    body["from_date"] = json!(now - 3600);
    body["to_date"] = json!(now + 60);
    body["interval"] = json!(3600);
    body
}
