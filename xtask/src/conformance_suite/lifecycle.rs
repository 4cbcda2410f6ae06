//! The life of a task: which changes of status are legal, and what else they do.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::scene::{Scene, fields, list, same, without};
use super::{Case, case};

pub(super) const CASES: &[Case] = &[
    case("64", "the whole matrix of transitions without force", |scene| {
        matrix(scene, false)
    }),
    case("65", "the whole matrix of transitions with force", |scene| {
        matrix(scene, true)
    }),
    case("66", "a start sets the time and says so", |scene| {
        let task = scene.task()?;
        let reply = scene.ok("tasks.started", json!({"task": task}))?;
        fields(&reply, json!({"started": 1, "updated": 1}))?;
        let doc = scene.task_doc(&task)?;
        same("the status", &doc["status"], json!("in_progress"))?;
        ensure!(doc["started"].is_string(), "no time of the start");
        Ok(())
    }),
    case(
        "67",
        "a second start keeps the time and replaces the message",
        |scene| {
            let task = scene.task()?;
            scene.ok("tasks.started", json!({"task": task, "status_message": "first"}))?;
            let first = scene.task_doc(&task)?;
            scene.ok("tasks.started", json!({"task": task}))?;
            let second = scene.task_doc(&task)?;
            same("the time", &second["started"], first["started"].clone())?;
            same("the message", &second["status_message"], json!(""))
        },
    ),
    case("68", "a start of a completed task removes its end", |scene| {
        let task = scene.running()?;
        scene.ok("tasks.completed", json!({"task": task}))?;
        scene.ok("tasks.started", json!({"task": task}))?;
        without(&scene.task_doc(&task)?, &["completed", "active_duration"])
    }),
    case("69", "a start of an unknown task is 400/10", |scene| {
        scene.refused("tasks.started", json!({"task": "zz"}), (400, 10))
    }),
    case("70", "a completion sets the end and may be repeated", |scene| {
        let task = scene.running()?;
        for _ in 0..2 {
            scene.ok("tasks.completed", json!({"task": task}))?;
            ensure!(
                scene.task_doc(&task)?["completed"].is_string(),
                "no time of the end"
            );
        }
        Ok(())
    }),
    case("71", "a completion may publish", |scene| {
        let task = scene.running()?;
        let reply = scene.ok("tasks.completed", json!({"task": task, "publish": true}))?;
        same("published", &reply["published"], json!(1))?;
        scene.is_in(&task, "published")
    }),
    case(
        "72",
        "a ping counts the active time, and nobody minds an unknown task",
        |scene| {
            let task = scene.running()?;
            let before = scene.task_doc(&task)?;
            std::thread::sleep(std::time::Duration::from_millis(20));
            scene.ok("tasks.ping", json!({"task": task}))?;
            let after = scene.task_doc(&task)?;
            ensure!(
                after["active_duration"]
                    .as_i64()
                    .is_some_and(|seconds| seconds >= 0),
                "{after}"
            );
            ensure!(
                after["last_update"].as_str() > before["last_update"].as_str(),
                "last_update stood still"
            );
            scene.ok("tasks.ping", json!({"task": "zz"})).map(drop)
        },
    ),
    case("73", "a draft cannot be stopped", |scene| {
        scene.refused("tasks.stop", json!({"task": scene.task()?}), (400, 110))
    }),
    case("74", "a stop is a request when a worker listens", |scene| {
        let task = listened(scene, &[])?;
        scene.ok("tasks.stop", json!({"task": task, "status_reason": "why"}))?;
        fields(
            &scene.task_doc(&task)?,
            json!({"status": "in_progress", "status_message": "stopping", "status_reason": "why"}),
        )
    }),
    case("75", "a task under development is stopped at once", |scene| {
        let task = listened(scene, &["development"])?;
        scene.ok("tasks.stop", json!({"task": task}))?;
        let doc = scene.task_doc(&task)?;
        same("the status", &doc["status"], json!("stopped"))?;
        let message = doc["status_message"].as_str().unwrap_or_default();
        ensure!(message.starts_with("Stopped by "), "the message is {message}");
        Ok(())
    }),
    case(
        "76",
        "a task that no worker has ever had is stopped at once",
        |scene| {
            let task = scene.running()?;
            scene.ok("tasks.stop", json!({"task": task}))?;
            scene.is_in(&task, "stopped")
        },
    ),
    case("77", "a stop takes a waiting task out of its queue", |scene| {
        let (task, queue) = (scene.task()?, scene.queue()?);
        scene.enqueue(&task, &queue)?;
        scene.ok("tasks.stop", json!({"task": task}))?;
        scene.is_in(&task, "stopped")?;
        same("the queue", &json!(scene.waiting(&queue)?), json!([]))
    }),
    case(
        "79",
        "of two transitions at once only the legal ones happen",
        |scene| {
            for _ in 0..5 {
                let task = scene.running()?;
                let body = json!({"task": task});
                let requests = ["tasks.completed", "tasks.failed"].map(|call| scene.request(call, &body));
                let codes = scene
                    .remote
                    .send_together(&requests)?
                    .iter()
                    .map(super::http::Reply::codes)
                    .collect::<Result<Vec<_>>>()?;
                let held = codes.iter().filter(|codes| **codes == (200, 0)).count();
                let refused = codes
                    .iter()
                    .filter(|codes| matches!(codes, (400, 110 | 121)))
                    .count();
                ensure!((held, refused) == (1, 1), "{codes:?}");
            }
            Ok(())
        },
    ),
    case(
        "80",
        "a reset keeps what was asked for and forgets what happened",
        reset,
    ),
    case("81", "a published task is reset only by force", |scene| {
        let task = scene.task_in("published")?;
        scene.refused("tasks.reset", json!({"task": task}), (400, 110))?;
        scene.ok("tasks.reset", json!({"task": task, "force": true}))?;
        scene.is_in(&task, "created")
    }),
    case(
        "82",
        "a reset of a waiting task takes it out of its queue; clearing all forgets the script",
        |scene| {
            let task = scene.task_with(json!({
                "script": {"entry_point": "a.py", "repository": "r"}, "container": {"image": "i"},
            }))?;
            scene.enqueue(&task, &scene.queue()?)?;
            let reply = scene.ok("tasks.reset", json!({"task": task, "clear_all": true}))?;
            same("dequeued", &reply["dequeued"]["removed"], json!(1))?;
            let doc = scene.task_doc(&task)?;
            fields(
                &doc,
                json!({"script.entry_point": "", "script.repository": "", "container.image": "i"}),
            )
        },
    ),
    case(
        "83",
        "drafts, archived tasks and, by force, all others are deleted",
        |scene| {
            let running = scene.running()?;
            scene.refused("tasks.delete", json!({"task": running}), (400, 123))?;
            scene.ok("tasks.delete", json!({"task": running, "force": true}))?;
            scene.ok("tasks.delete", json!({"task": scene.task()?}))?;
            let archived = scene.task_in("completed")?;
            scene.ok("tasks.archive", json!({"tasks": [archived]}))?;
            scene.ok("tasks.delete", json!({"task": archived})).map(drop)
        },
    ),
    case("84", "a deleted task is unknown", |scene| {
        let task = scene.task()?;
        scene.ok("tasks.delete", json!({"task": task}))?;
        scene.refused("tasks.get_by_id", json!({"task": task}), (400, 101))
    }),
    case(
        "orphans",
        "the children of a deleted task remember that it is gone",
        |scene| {
            let parent = scene.task()?;
            let child = scene.task_with(json!({"parent": parent}))?;
            let reply = scene.ok("tasks.delete", json!({"task": parent}))?;
            same("the children", &reply["updated_children"], json!(1))?;
            same(
                "the parent",
                &scene.task_doc(&child)?["parent"],
                json!(format!("__DELETED__{parent}")),
            )
        },
    ),
    case("many", "a call for many reports each of them", |scene| {
        let (good, published) = (scene.task()?, scene.task_in("published")?);
        let reply = scene.ok("tasks.reset_many", json!({"ids": [good, published, "zz"]}))?;
        same("good", &json!(list(&reply, "succeeded")?.len()), json!(1))?;
        same("good", &reply["succeeded"][0]["id"], json!(good))?;
        let codes: Vec<&Value> = list(&reply, "failed")?
            .iter()
            .map(|item| &item["error"]["codes"])
            .collect();
        same("failed", &json!(codes), json!([[400, 110], [400, 101]]))?;
        scene.refused("tasks.reset_many", json!({"ids": []}), (400, 12))
    }),
    case(
        "publish.model",
        "publishing a task publishes its last model",
        |scene| {
            let (task, model) = (scene.running()?, scene.model()?);
            let body = json!({"task": task, "name": "m", "model": model, "type": "output"});
            scene.ok("tasks.add_or_update_model", body)?;
            scene.ok("tasks.completed", json!({"task": task}))?;
            scene.ok("tasks.publish", json!({"task": task}))?;
            let found = scene.ok("models.get_by_id", json!({"model": model}))?;
            same("ready", &found["model"]["ready"], json!(true))
        },
    ),
];

const CALLS: [&str; 10] = [
    "started",
    "stopped",
    "failed",
    "completed",
    "close",
    "publish",
    "stop",
    "reset",
    "enqueue",
    "dequeue",
];

/// The status after each of [`CALLS`] without force; nothing means refused.
type Row = (&'static str, [Option<&'static str>; 10]);

const RUN: Option<&str> = Some("in_progress");
const STOP: Option<&str> = Some("stopped");
const FAIL: Option<&str> = Some("failed");
const DONE: Option<&str> = Some("completed");
const CLOSE: Option<&str> = Some("closed");
const PUB: Option<&str> = Some("published");
const NEW: Option<&str> = Some("created");
const WAIT: Option<&str> = Some("queued");

#[rustfmt::skip]
const MATRIX: [Row; 10] = [
    ("created",     [RUN,  None, None, None, None,  None, None, NEW,  WAIT, NEW]),
    ("queued",      [RUN,  STOP, None, None, None,  None, STOP, NEW,  WAIT, NEW]),
    ("in_progress", [RUN,  STOP, FAIL, DONE, None,  None, STOP, NEW,  None, NEW]),
    ("stopped",     [RUN,  STOP, FAIL, DONE, CLOSE, PUB,  STOP, NEW,  WAIT, STOP]),
    ("closed",      [None, STOP, FAIL, None, CLOSE, PUB,  STOP, NEW,  None, CLOSE]),
    ("failed",      [None, STOP, FAIL, None, None,  PUB,  STOP, NEW,  WAIT, FAIL]),
    ("completed",   [RUN,  None, None, DONE, None,  PUB,  None, NEW,  None, DONE]),
    ("publishing",  [None, None, None, None, None,  PUB,  None, None, None, Some("publishing")]),
    ("published",   [None, None, None, None, None,  None, None, None, None, PUB]),
    ("unknown",     [None, None, None, None, None,  None, None, None, None, Some("unknown")]),
];
/// What each of [`CALLS`] leads to when forced, `dequeue` excepted.
const FORCED: [&str; 9] = [
    "in_progress",
    "stopped",
    "failed",
    "completed",
    "closed",
    "published",
    "stopped",
    "created",
    "queued",
];

fn matrix(scene: &Scene<'_>, force: bool) -> Result<()> {
    let queue = scene.queue()?;
    let mut wrong = Vec::new();
    for (from, row) in &MATRIX {
        for (column, call) in CALLS.iter().enumerate() {
            let expected = match FORCED.get(column) {
                Some(forced) if force => Some(*forced),
                _ => row[column],
            };
            let task = scene.task_in(from)?;
            let mut body = json!({"task": task, "force": force});
            if *call == "enqueue" {
                body["queue"] = json!(queue);
            }
            let codes = scene.call(&format!("tasks.{call}"), &body)?.codes()?;
            let held = match expected {
                Some(_) => codes == (200, 0),
                // A status that nobody knows is beyond rules.
                None if *from == "unknown" => codes == (500, 1),
                None => codes == (400, 110),
            };
            let status = scene.task_doc(&task)?["status"].take();
            if !held || status != expected.unwrap_or(from) {
                wrong.push(format!("{from} {call}: {codes:?} {status}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

/// A running task that a worker has just spoken of.
fn listened(scene: &Scene<'_>, system_tags: &[&str]) -> Result<String> {
    let task = scene.task_with(json!({"system_tags": system_tags}))?;
    scene.ok("tasks.started", json!({"task": task}))?;
    let now = now_ms();
    let body = json!({"worker": scene.name("worker"), "timestamp": now, "task": task});
    scene.ok("workers.status_report", body)?;
    Ok(task)
}

/// The time as the API counts it.
pub(super) fn now_ms() -> i64 {
    clearml_support::time::now_ms()
}

fn reset(scene: &Scene<'_>) -> Result<()> {
    let kept = json!({
        "comment": "c", "tags": ["t"], "system_tags": ["development"], "script": {"entry_point": "a.py"},
        "container": {"image": "i"},
        "hyperparams": {"S": {"n": {"section": "S", "name": "n", "value": "v"}}},
        "configuration": {"k": {"name": "k", "value": "v"}},
    });
    let task = scene.task_with(kept.clone())?;
    scene.ok("tasks.edit", json!({"task": task, "runtime": {"a": 1}}))?;
    for (key, mode) in [("in", "input"), ("out", "output")] {
        let artifacts = json!([{"key": key, "type": "t", "mode": mode}]);
        scene.ok(
            "tasks.add_or_update_artifacts",
            json!({"task": task, "artifacts": artifacts}),
        )?;
    }
    scene.ok("tasks.started", json!({"task": task}))?;
    scene.report(&[
        json!({"type": "log", "task": task, "msg": "line"}),
        json!({"type": "training_stats_scalar", "task": task, "metric": "m", "variant": "v", "value": 1, "iter": 3}),
    ])?;
    scene.ok("tasks.completed", json!({"task": task}))?;
    let reply = scene.ok("tasks.reset", json!({"task": task}))?;
    same("dequeued", &reply["dequeued"], json!({}))?;
    let doc = scene.task_doc(&task)?;
    for field in ["comment", "tags", "system_tags", "container"] {
        same(field, &doc[field], kept[field].clone())?;
    }
    fields(
        &doc,
        json!({
            "status": "created", "status_reason": "reset", "status_message": "reset", "script.entry_point": "a.py",
            "hyperparams.S.n.value": "v", "configuration.k.value": "v", "runtime": {}, "last_metrics": {},
            "last_iteration": 0,
        }),
    )?;
    without(&doc, &["started", "completed", "active_duration", "last_worker"])?;
    let artifacts: Vec<&Value> = list(&doc["execution"], "artifacts")?
        .iter()
        .map(|artifact| &artifact["key"])
        .collect();
    same("the artifacts", &json!(artifacts), json!(["in"]))?;
    let log = scene.ok("events.get_task_log", json!({"task": task}))?;
    same("the console", &log["total"], json!(0))
}
