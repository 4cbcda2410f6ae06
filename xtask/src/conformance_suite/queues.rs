//! Queues: making and finding them, the way of tasks through them, and who gets which task.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::scene::{Scene, fields, id, list, not_applicable, same, text};
use super::{Case, case};

pub(super) const CASES: &[Case] = &[
    case(
        "105",
        "there is one default queue, which can be asked for",
        |scene| {
            let reply = scene.call("queues.get_default", &json!({}))?;
            if matches!(reply.codes()?, (400, 707 | 708)) {
                return not_applicable("this server has no single default queue");
            }
            let default = reply.data()?;
            let found = scene.ok("queues.get_by_id", json!({"queue": default["id"]}))?["queue"].take();
            same("the name", &found["name"], default["name"].clone())?;
            ensure!(
                list(&found, "system_tags")?.contains(&json!("default")),
                "{found}"
            );
            Ok(())
        },
    ),
    case("106", "queue names are unique and long enough", |scene| {
        let queue = scene.queue()?;
        let name = scene.ok("queues.get_by_id", json!({"queue": queue}))?["queue"]["name"].take();
        scene.refused("queues.create", json!({"name": name}), (400, 801))?;
        scene.refused(
            "queues.update",
            json!({"queue": scene.queue()?, "name": name}),
            (400, 801),
        )?;
        scene.refused("queues.create", json!({"name": "ab"}), (400, 800))
    }),
    case("107", "the glue's queue is hidden from plain listings", |scene| {
        let name = scene.name("glue");
        let queue = id(&scene.ok(
            "queues.create",
            json!({"name": name, "system_tags": ["k8s-glue"]}),
        )?)?;
        for (body, expected) in [
            (json!({}), false),
            (json!({"name": name}), true),
            (json!({"id": [queue]}), true),
            (json!({"search_hidden": true, "tags": null}), true),
        ] {
            let found = scene.ok("queues.get_all", body.clone())?;
            let found = list(&found, "queues")?;
            if found.len() >= 500 {
                return not_applicable("this server has more queues than one reply holds");
            }
            let there = found.iter().any(|found| found["id"] == queue.as_str());
            same(&body.to_string(), &json!(there), json!(expected))?;
        }
        Ok(())
    }),
    case("108", "the name of a queue is not its id", |scene| {
        scene.refused("queues.get_by_id", json!({"queue": "default"}), (400, 701))
    }),
    case("109", "a task goes to the end of its queue", |scene| {
        let (queue, task, earlier) = (scene.queue()?, scene.task()?, scene.task()?);
        scene.enqueue(&earlier, &queue)?;
        scene.ok(
            "tasks.edit",
            json!({"task": task, "system_tags": ["development"]}),
        )?;
        let reply = scene.enqueue(&task, &queue)?;
        fields(&reply, json!({"queued": 1, "updated": 1}))?;
        same("the reply", &reply["fields"]["execution.queue"], json!(queue))?;
        let doc = scene.task_doc(&task)?;
        fields(
            &doc,
            json!({"status": "queued", "execution.queue": queue, "system_tags": []}),
        )?;
        same(
            "the queue",
            &json!(scene.waiting(&queue)?),
            json!([earlier, task]),
        )
    }),
    case("110", "a task waits once, in one queue", |scene| {
        let (queue, other, task) = (scene.queue()?, scene.queue()?, scene.task()?);
        scene.enqueue(&task, &queue)?;
        scene.refused("tasks.enqueue", json!({"task": task, "queue": queue}), (400, 706))?;
        scene.enqueue(&task, &other)?;
        same("the first queue", &json!(scene.waiting(&queue)?), json!([]))?;
        same("the other queue", &json!(scene.waiting(&other)?), json!([task]))
    }),
    case(
        "111",
        "a queue that does not exist leaves the task alone",
        |scene| {
            let task = scene.task()?;
            scene.refused("tasks.enqueue", json!({"task": task, "queue": "zz"}), (400, 701))?;
            scene.is_in(&task, "created")
        },
    ),
    case(
        "112",
        "a queue that is named is made when it is missing",
        |scene| {
            let name = scene.name("made now");
            let reply = scene.ok(
                "tasks.enqueue",
                json!({"task": scene.task()?, "queue_name": name}),
            )?;
            let queue = &reply["fields"]["execution.queue"];
            scene.own_queue(queue);
            let found = scene.ok("queues.get_by_id", json!({"queue": queue}))?;
            same("the name", &found["queue"]["name"], json!(name))
        },
    ),
    case("113", "a queue is given by id or by name", |scene| {
        let body = json!({"task": scene.task()?, "queue": scene.queue()?, "queue_name": "default"});
        scene.refused("tasks.enqueue", body, (400, 12))
    }),
    case(
        "114",
        "without a queue a task goes to the default one",
        to_the_default,
    ),
    case(
        "115",
        "whether somebody serves a queue can be asked for",
        |scene| {
            let queue = scene.queue()?;
            for expected in [false, true] {
                let body = json!({"task": scene.task()?, "queue": queue, "verify_watched_queue": true});
                same(
                    "watched",
                    &scene.ok("tasks.enqueue", body)?["queue_watched"],
                    json!(expected),
                )?;
                let worker = json!({"worker": scene.name("worker"), "queues": [queue]});
                scene.ok("workers.register", worker)?;
            }
            Ok(())
        },
    ),
    case(
        "116",
        "only a waiting task can be moved without being told",
        |scene| {
            let (queue, pending, task) = (scene.queue()?, scene.queue()?, scene.task()?);
            let quietly = json!({"task": task, "queue": pending, "update_execution_queue": false});
            scene.refused("tasks.enqueue", quietly.clone(), (400, 12))?;
            scene.enqueue(&task, &queue)?;
            scene.ok("tasks.enqueue", quietly)?;
            same(
                "its queue",
                &scene.task_doc(&task)?["execution"]["queue"],
                json!(queue),
            )?;
            same("the queue", &json!(scene.waiting(&queue)?), json!([]))?;
            same("pending", &json!(scene.waiting(&pending)?), json!([task]))
        },
    ),
    case(
        "117",
        "tasks are popped first in, first out, and stay queued",
        |scene| {
            let (queue, tasks) = line(scene, 2)?;
            for task in &tasks {
                let popped = scene.ok("queues.get_next_task", json!({"queue": queue}))?;
                same("the task", &popped["entry"]["task"], json!(task))?;
                text(&popped["entry"], "added")?;
                scene.is_in(task, "queued")?;
            }
            Ok(())
        },
    ),
    case("118", "an empty queue gives nothing", |scene| {
        let queue = scene.queue()?;
        same(
            "the data",
            &scene.ok("queues.get_next_task", json!({"queue": queue}))?,
            json!({}),
        )
    }),
    case("119", "an unknown queue is 400/701", |scene| {
        scene.refused("queues.get_next_task", json!({"queue": "zz"}), (400, 701))
    }),
    case("120", "a popped task comes with its owner on request", |scene| {
        let (queue, tasks) = line(scene, 1)?;
        let owner = scene.task_doc(&tasks[0])?;
        let popped = scene.ok(
            "queues.get_next_task",
            json!({"queue": queue, "get_task_info": true}),
        )?;
        fields(
            &popped["task_info"],
            json!({"user": owner["user"], "company": owner["company"]}),
        )
    }),
    case("121", "a wanted task is popped only when it is first", |scene| {
        let (queue, tasks) = line(scene, 2)?;
        let body = json!({"queue": queue, "task": tasks[1]});
        same("the data", &scene.ok("queues.get_next_task", body)?, json!({}))?;
        same("the queue", &json!(scene.waiting(&queue)?), json!(tasks))
    }),
    case(
        "122",
        "a popped task that was stopped meanwhile is queued again",
        |scene| {
            let (queue, tasks) = line(scene, 1)?;
            scene.ok(
                "tasks.edit",
                json!({"task": tasks[0], "status": "stopped", "force": true}),
            )?;
            scene.ok("queues.get_next_task", json!({"queue": queue}))?;
            scene.is_in(&tasks[0], "queued")
        },
    ),
    case(
        "123",
        "a hundred tasks and eight pollers: each task is handed out once",
        pollers,
    ),
    case("124", "a dequeued task gets back the status it had", |scene| {
        let (queue, task) = (scene.queue()?, scene.task_in("failed")?);
        scene.enqueue(&task, &queue)?;
        scene.ok("tasks.dequeue", json!({"task": task}))?;
        scene.is_in(&task, "failed")?;
        same("the queue", &json!(scene.waiting(&queue)?), json!([]))
    }),
    case(
        "125",
        "a dequeue can start a waiting or running task, no other",
        |scene| {
            let (waiting, running, failed) = (scene.task()?, scene.running()?, scene.task_in("failed")?);
            scene.enqueue(&waiting, &scene.queue()?)?;
            for (task, updated, status) in [
                (waiting, 1, "in_progress"),
                (running, 1, "in_progress"),
                (failed, 0, "failed"),
            ] {
                let body = json!({"task": task, "new_status": "in_progress"});
                same(
                    status,
                    &scene.ok("tasks.dequeue", body)?["updated"],
                    json!(updated),
                )?;
                scene.is_in(&task, status)?;
            }
            Ok(())
        },
    ),
    case("126", "a dequeue of an unknown task succeeds", |scene| {
        fields(
            &scene.ok("tasks.dequeue", json!({"task": "zz"}))?,
            json!({"dequeued": 1, "updated": 0}),
        )?;
        let body = json!({"task": scene.task()?, "new_status": "bogus"});
        scene.refused("tasks.dequeue", body, (400, 12))
    }),
    case("127", "entries move and stop at the ends", |scene| {
        let (queue, tasks) = line(scene, 5)?;
        for (call, count, position) in [
            ("to_front", None, 0),
            ("to_back", None, 4),
            ("forward", Some(1), 3),
            ("forward", Some(2), 1),
            ("backward", Some(10), 4),
            ("forward", Some(10), 0),
        ] {
            let body = json!({"queue": queue, "task": tasks[2], "count": count});
            let reply = scene.ok(&format!("queues.move_task_{call}"), body)?;
            same(call, &reply["position"], json!(position))?;
            let mut now = scene.waiting(&queue)?;
            let at = now.iter().position(|task| *task == tasks[2]);
            same(call, &json!(at), json!(position))?;
            now.retain(|task| *task != tasks[2]);
            same(
                "the others",
                &json!(now),
                json!([tasks[0], tasks[1], tasks[3], tasks[4]]),
            )?;
        }
        let late = scene.task()?;
        scene.enqueue(&late, &queue)?;
        same("a new one", &json!(scene.waiting(&queue)?.last()), json!(late))?;
        let body = json!({"queue": queue, "task": "zz"});
        scene.refused("queues.move_task_to_front", body, (400, 703))
    }),
    case(
        "128",
        "an entry is removed once, and its task restored on request",
        |scene| {
            let (queue, tasks) = line(scene, 2)?;
            let body = json!({"queue": queue, "task": tasks[0]});
            same(
                "removed",
                &scene.ok("queues.remove_task", body.clone())?["removed"],
                json!(1),
            )?;
            scene.is_in(&tasks[0], "queued")?;
            scene.refused("queues.remove_task", body, (400, 703))?;
            let body = json!({"queue": queue, "task": tasks[1], "update_task_status": true});
            scene.ok("queues.remove_task", body)?;
            let doc = scene.task_doc(&tasks[1])?;
            same("the status", &doc["status"], json!("created"))?;
            ensure!(
                doc["status_reason"]
                    .as_str()
                    .is_some_and(|reason| !reason.is_empty()),
                "no reason"
            );
            Ok(())
        },
    ),
    case("129", "an entry is added without asking for its task", |scene| {
        let queue = scene.queue()?;
        let body = json!({"queue": queue, "task": "0123456789abcdef0123456789abcdef"});
        same(
            "added",
            &scene.ok("queues.add_task", body.clone())?["added"],
            json!(1),
        )?;
        scene.refused("queues.add_task", body, (400, 706))?;
        scene.refused(
            "queues.add_task",
            json!({"queue": "zz", "task": "zz"}),
            (400, 701),
        )
    }),
    case("130", "a queue that goes gives its tasks back", |scene| {
        let (queue, tasks) = line(scene, 2)?;
        let failed = scene.task_in("failed")?;
        scene.enqueue(&failed, &queue)?;
        scene.refused("queues.delete", json!({"queue": queue}), (400, 702))?;
        scene.ok("queues.delete", json!({"queue": queue, "force": true}))?;
        scene.is_in(&failed, "failed")?;
        scene.refused("queues.get_num_entries", json!({"queue": queue}), (400, 701))?;
        tasks.iter().try_for_each(|task| scene.is_in(task, "created"))
    }),
    case(
        "131",
        "the length and the first entry of a queue can be asked for",
        |scene| {
            let (queue, tasks) = line(scene, 2)?;
            let body = json!({"queue": queue});
            same(
                "the length",
                &scene.ok("queues.get_num_entries", body.clone())?["num"],
                json!(2),
            )?;
            same(
                "the first",
                &scene.ok("queues.peek_task", body)?["task"],
                json!(tasks[0]),
            )?;
            let empty = scene.ok("queues.peek_task", json!({"queue": scene.queue()?}))?;
            same("of an empty one", &empty, json!({"task": null}))
        },
    ),
    case("clear", "a cleared queue gives its tasks back", |scene| {
        let (queue, tasks) = line(scene, 2)?;
        let reply = scene.ok("queues.clear_queue", json!({"queue": queue}))?;
        same("removed", &reply["removed_tasks"], json!(tasks))?;
        tasks.iter().try_for_each(|task| scene.is_in(task, "created"))
    }),
    case(
        "metadata",
        "notes on a queue are merged and removed, and empty for old clients",
        metadata,
    ),
];

/// A queue with fresh tasks in it.
fn line(scene: &Scene<'_>, length: usize) -> Result<(String, Vec<String>)> {
    let queue = scene.queue()?;
    let mut tasks = Vec::new();
    for _ in 0..length {
        let task = scene.task()?;
        scene.enqueue(&task, &queue)?;
        tasks.push(task);
    }
    Ok((queue, tasks))
}

/// Uses the server's own default queue, so only when nobody would take the task out of it.
fn to_the_default(scene: &Scene<'_>) -> Result<()> {
    let reply = scene.call("queues.get_default", &json!({}))?;
    if reply.status != 200 {
        return not_applicable("this server has no single default queue");
    }
    let default = text(&reply.data()?, "id")?;
    let workers = scene.ok("workers.get_all", json!({"last_seen": 0}))?;
    let serves = |worker: &Value| {
        let queues = worker["queues"].as_array().into_iter().flatten();
        queues.into_iter().any(|queue| queue["id"] == default.as_str())
    };
    if list(&workers, "workers")?.iter().any(serves) {
        return not_applicable("somebody serves the default queue and would run the task");
    }
    let task = scene.task()?;
    scene.ok("tasks.enqueue", json!({"task": task}))?;
    let there = scene.waiting(&default)?.contains(&task);
    scene.ok("tasks.dequeue", json!({"task": task}))?;
    ensure!(there, "the task is not in the default queue");
    Ok(())
}

fn pollers(scene: &Scene<'_>) -> Result<()> {
    let (queue, tasks) = line(scene, 100)?;
    let body = json!({"queue": queue});
    let requests = vec![scene.request("queues.get_next_task", &body); 8];
    let mut seen = BTreeSet::new();
    loop {
        let mut popped = 0;
        for reply in scene.remote.send_together(&requests)? {
            if let Some(task) = reply.data()?["entry"]["task"].as_str() {
                ensure!(seen.insert(task.to_owned()), "{task} was handed out twice");
                popped += 1;
            }
        }
        if popped == 0 {
            break;
        }
    }
    same(
        "all tasks",
        &json!(seen),
        json!(tasks.into_iter().collect::<BTreeSet<_>>()),
    )
}

fn metadata(scene: &Scene<'_>) -> Result<()> {
    let queue = scene.queue()?;
    let notes = |version: &str| -> Result<Value> {
        let found = scene.ok(&format!("{version}queues.get_by_id"), json!({"queue": queue}))?;
        Ok(found["queue"]["metadata"].clone())
    };
    for key in ["a", "b"] {
        let items = json!([{"key": key, "type": "t", "value": "v"}]);
        scene.ok(
            "queues.add_or_update_metadata",
            json!({"queue": queue, "metadata": items}),
        )?;
    }
    fields(&notes("")?, json!({"a.value": "v", "b.value": "v"}))?;
    same("of old", &notes("v2.5/")?, json!([]))?;
    scene.ok("queues.delete_metadata", json!({"queue": queue, "keys": ["a"]}))?;
    let left = notes("")?;
    ensure!(left.get("a").is_none() && left.get("b").is_some(), "{left}");
    Ok(())
}
