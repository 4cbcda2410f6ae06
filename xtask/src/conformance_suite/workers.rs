//! Workers: registration, reports, lifetime, and the properties they keep on the server.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::lifecycle::now_ms;
use super::scene::{Scene, fields, list, not_applicable, same, text};
use super::{Case, case};

pub(super) const CASES: &[Case] = &[
    case(
        "132",
        "a registered worker is listed with its queues and what waits there",
        |scene| {
            let (queue, task) = (scene.queue()?, scene.task()?);
            scene.enqueue(&task, &queue)?;
            let worker = scene.name("worker");
            scene.ok(
                "workers.register",
                json!({"worker": worker, "queues": [queue], "tags": ["t"]}),
            )?;
            let found = listed(scene, &worker)?.context("not listed")?;
            same("the tags", &found["tags"], json!(["t"]))?;
            let shown = &list(&found, "queues")?[0];
            fields(shown, json!({"id": queue, "num_tasks": 1, "next_task.id": task}))?;
            text(shown, "name").map(drop)
        },
    ),
    case("133", "a registration is checked", |scene| {
        let worker = scene.name("worker");
        scene.refused(
            "workers.register",
            json!({"worker": worker, "queues": ["zz"]}),
            (400, 701),
        )?;
        scene.refused(
            "workers.register",
            json!({"worker": worker, "timeout": -1}),
            (400, 1002),
        )?;
        scene.refused("workers.register", json!({}), (400, 12))
    }),
    case("134", "registering and leaving twice does no harm", |scene| {
        let body = json!({"worker": scene.name("worker"), "queues": []});
        for call in ["register", "register", "unregister", "unregister"] {
            scene.ok(&format!("workers.{call}"), body.clone())?;
        }
        Ok(())
    }),
    case("135", "a report registers a worker that nobody knows", |scene| {
        let worker = scene.name("worker");
        report(scene, &worker, json!({}))?;
        listed(scene, &worker)?.context("not listed").map(drop)
    }),
    case("136", "a report without its time is 400/12", |scene| {
        scene.refused(
            "workers.status_report",
            json!({"worker": scene.name("worker")}),
            (400, 12),
        )
    }),
    case("137", "a report says who runs what", |scene| {
        let (worker, task) = (scene.name("worker"), scene.running()?);
        report(scene, &worker, json!({"task": task}))?;
        let doc = scene.task_doc(&task)?;
        same("the worker", &doc["last_worker"], json!(worker))?;
        text(&doc, "last_worker_report")?;
        let found = listed(scene, &worker)?.context("not listed")?;
        fields(&found["task"], json!({"id": task, "name": doc["name"]}))?;
        ensure!(found["task"]["running_time"].is_number(), "no running time");
        report(scene, &worker, json!({}))?;
        let found = listed(scene, &worker)?.context("not listed")?;
        ensure!(
            found.get("task").is_none_or(Value::is_null),
            "the task is still there"
        );
        Ok(())
    }),
    case("138", "a report about an unknown task is 400/101", |scene| {
        let body = json!({"worker": scene.name("worker"), "timestamp": now_ms(), "task": "zz"});
        scene.refused("workers.status_report", body, (400, 101))
    }),
    case("139", "what the agent sends besides is taken", |scene| {
        let extra = json!({"machine_stats": null, "tags": null, "is_daemon": true});
        report(scene, &scene.name("worker"), extra)
    }),
    case(
        "140",
        "an empty list of queues leaves the queues alone",
        |scene| {
            let (worker, queue) = (scene.name("worker"), scene.queue()?);
            scene.ok("workers.register", json!({"worker": worker, "queues": [queue]}))?;
            report(scene, &worker, json!({"queues": []}))?;
            let found = listed(scene, &worker)?.context("not listed")?;
            same("the queue", &found["queues"][0]["id"], json!(queue))
        },
    ),
    case("141", "silence ends a worker, a report keeps it", |scene| {
        let (silent, heard) = (scene.name("silent"), scene.name("heard"));
        for worker in [&silent, &heard] {
            scene.ok("workers.register", json!({"worker": worker, "timeout": 2}))?;
        }
        sleep(Duration::from_millis(1300));
        report(scene, &heard, json!({}))?;
        sleep(Duration::from_millis(1200));
        ensure!(listed(scene, &silent)?.is_none(), "still there after its time");
        listed(scene, &heard)?
            .context("gone in spite of its report")
            .map(drop)
    }),
    case(
        "142",
        "workers are found by pattern and by what they lack",
        |scene| {
            for (number, tag) in [("1", "x"), ("2", "y")] {
                let body = json!({"worker": scene.name(&format!("host:{number}")), "tags": [tag]});
                scene.ok("workers.register", body)?;
            }
            for (filter, expected) in [
                (json!({"worker_pattern": scene.name("host:*")}), 2),
                (json!({"worker_pattern": scene.name("host:?")}), 2),
                (json!({"worker_pattern": scene.name("host")}), 0),
                (json!({"worker_pattern": scene.name("host:*"), "tags": ["-x"]}), 1),
                (json!({"worker_pattern": scene.name("host:*"), "tags": ["x"]}), 1),
            ] {
                let mut body = filter;
                body["last_seen"] = json!(0);
                let found = scene.ok("workers.get_all", body.clone())?;
                same(
                    &body.to_string(),
                    &json!(list(&found, "workers")?.len()),
                    json!(expected),
                )?;
                let count = scene.ok("workers.get_count", body.clone())?;
                same(&body.to_string(), &count["count"], json!(expected))?;
            }
            Ok(())
        },
    ),
    case(
        "143",
        "properties of a worker are kept until they expire (an extension)",
        |scene| {
            let worker = scene.name("worker");
            let read = || scene.call("workers.get_runtime_properties", &json!({"worker": worker}));
            if read()?.status == 404 {
                return not_applicable("this server has no runtime properties");
            }
            let items = json!([
                {"key": "force", "value": "on"}, {"key": "soon", "value": "x", "expiry": 1},
                {"key": "later", "value": "y", "expiry": 600},
            ]);
            let body = json!({"worker": worker, "runtime_properties": items});
            scene.ok("workers.set_runtime_properties", body)?;
            sleep(Duration::from_millis(1100));
            let found = read()?.data()?;
            let keys: Vec<&Value> = list(&found, "runtime_properties")?
                .iter()
                .map(|item| &item["key"])
                .collect();
            same("the keys", &json!(keys), json!(["force", "later"]))?;
            let gone = json!([{"key": "force", "value": "", "expiry": 0}, {"key": "later", "value": "", "expiry": 0}]);
            scene.ok(
                "workers.set_runtime_properties",
                json!({"worker": worker, "runtime_properties": gone}),
            )?;
            same("after all", &read()?.data()?["runtime_properties"], json!([]))
        },
    ),
    case(
        "workers.cluster_report",
        "a report about a cluster is taken, or there is no such endpoint (an extension)",
        |scene| {
            let body =
                json!({"worker": scene.name("worker"), "key": "k", "partial": false, "timestamp": now_ms()});
            extension(scene, "workers.cluster_report", &body)
        },
    ),
    case(
        "workers.cluster_unregister",
        "a cluster can leave, or there is no such endpoint (an extension)",
        |scene| {
            extension(
                scene,
                "workers.cluster_unregister",
                &json!({"worker": scene.name("worker"), "key": "k"}),
            )
        },
    ),
    case(
        "4.7",
        "what machines report can be read back as series",
        statistics,
    ),
];

/// Clients take 404 as "this server does not have that"; anything but it and success would stop them.
fn extension(scene: &Scene<'_>, endpoint: &str, body: &Value) -> Result<()> {
    let codes = scene.call(endpoint, body)?.codes()?;
    ensure!(matches!(codes, (200 | 404, 0)), "{codes:?}");
    Ok(())
}

fn listed(scene: &Scene<'_>, worker: &str) -> Result<Option<Value>> {
    let found = scene.ok(
        "workers.get_all",
        json!({"last_seen": 0, "worker_pattern": worker}),
    )?;
    Ok(list(&found, "workers")?.first().cloned())
}

fn report(scene: &Scene<'_>, worker: &str, extra: Value) -> Result<()> {
    let mut body = json!({"worker": worker, "timestamp": now_ms() / 1000 * 1000});
    if let (Some(body), Value::Object(extra)) = (body.as_object_mut(), extra) {
        body.extend(extra);
    }
    scene.ok("workers.status_report", body).map(drop)
}

fn statistics(scene: &Scene<'_>) -> Result<()> {
    let worker = scene.name("worker");
    for usage in [[10.0, 30.0], [20.0, 60.0]] {
        let stats = json!({"cpu_usage": usage, "memory_used": 100.0, "gpu_usage": null, "nobody_knows": 1});
        report(scene, &worker, json!({"machine_stats": stats}))?;
    }
    let keys = scene.ok("workers.get_metric_keys", json!({"worker_ids": [worker]}))?;
    let expected = json!([
        {"name": "cpu", "metric_keys": ["cpu_usage"]}, {"name": "memory", "metric_keys": ["memory_used"]},
    ]);
    same("the metrics", &keys["categories"], expected)?;
    scene.refused(
        "workers.get_metric_keys",
        json!({"worker_ids": ["nobody"]}),
        (400, 1005),
    )?;
    let now = now_ms() / 1000;
    let period =
        json!({"from_date": now - 3000, "to_date": now + 60, "interval": 6000, "worker_ids": [worker]});
    for (aggregation, expected) in [("avg", 30.0), ("min", 10.0), ("max", 60.0)] {
        let mut body = period.clone();
        body["items"] = json!([{"key": "cpu_usage", "aggregation": aggregation}]);
        let found = scene.ok("workers.get_stats", body)?;
        let stats = &found["workers"][0]["metrics"][0]["stats"][0];
        fields(stats, json!({"aggregation": aggregation, "values": [expected]}))?;
    }
    let activity = scene.ok("workers.get_activity_report", period)?;
    let total = activity["total"]["counts"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    ensure!(
        total.iter().filter_map(Value::as_i64).sum::<i64>() >= 1,
        "{activity}"
    );
    Ok(())
}
