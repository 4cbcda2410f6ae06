//! Events: console lines, scalars and plots, written and read back.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::http::Reply;
use super::scene::{Scene, fields, list, same};
use super::{Case, case};

/// The iteration of a value without a history.
const SINGLE: i64 = -2_147_483_648;

pub(super) const CASES: &[Case] = &[
    case("144", "ten console lines are ten events", |scene| {
        let task = scene.task()?;
        let lines: Vec<Value> = (0..10).map(|number| line(&task, number)).collect();
        let expected = json!({"added": 10, "errors": 0, "errors_info": {}});
        same("the reply", &scene.add_batch(&lines)?.data()?, expected)
    }),
    case(
        "145",
        "bad lines are counted by their reason beside the good ones",
        |scene| {
            let task = scene.task()?;
            let reply = scene.add_batch(&[
                line(&task, 1),
                line("zz", 1),
                json!({"type": "bogus", "task": task}),
                json!({"type": "bogus", "task": task}),
                json!({"task": task, "msg": "no type"}),
            ])?;
            let data = reply.data()?;
            fields(&data, json!({"added": 1, "errors": 4}))?;
            let info = &data["errors_info"];
            same("unknown task", &info["Invalid task id zz"], json!(1))?;
            same("unknown type", &info["Invalid event type bogus"], json!(2))
        },
    ),
    case("146", "a batch without one good line is 400/131", |scene| {
        codes(&scene.add_batch(&[line("zz", 1), line("yy", 1)])?, (400, 131))
    }),
    case("147", "an empty batch is 400/17", |scene| {
        codes(&scene.send_lines("")?, (400, 17))
    }),
    case("148", "a broken or blank line refuses the whole batch", |scene| {
        let task = scene.task()?;
        let good = line(&task, 1).to_string();
        for bad in [
            format!("{good}\n{{bad\n{good}"),
            format!("{good}\n\n{good}"),
            format!("{good}\n\n"),
        ] {
            codes(&scene.send_lines(&bad)?, (400, 0))?;
        }
        same("stored", &log(scene, json!({"task": task}))?["total"], json!(0))
    }),
    case(
        "149",
        "a content type with a character set takes one event",
        |scene| {
            let task = scene.task()?;
            let request = scene.remote.request("/events.add_batch");
            let request = request.header("content-type", "application/json-lines; charset=utf-8");
            let reply = scene.remote.send(&request.body(line(&task, 1).to_string()))?;
            same("added", &reply.data()?["added"], json!(1))
        },
    ),
    case(
        "150",
        "a published task takes lines only when asked to",
        |scene| {
            let task = scene.task_in("published")?;
            codes(&scene.add_batch(&[line(&task, 1)])?, (400, 131))?;
            let mut allowed = line(&task, 1);
            allowed["allow_locked"] = json!(true);
            codes(&scene.add_batch(&[allowed])?, (200, 0))
        },
    ),
    case("151", "a batch that contradicts itself is 400/12", |scene| {
        let task = scene.task()?;
        let mut allowed = line(&task, 1);
        allowed["allow_locked"] = json!(true);
        codes(&scene.add_batch(&[line(&task, 1), allowed])?, (400, 12))?;
        same("stored", &log(scene, json!({"task": task}))?["total"], json!(0))
    }),
    case("152", "drafts and ended tasks take lines", |scene| {
        for status in ["created", "completed"] {
            let task = scene.task_in(status)?;
            scene.report(&[line(&task, 1)])?;
        }
        Ok(())
    }),
    case("153", "a console is read from its newest lines", |scene| {
        let task = console(scene)?;
        let found = log(scene, json!({"task": task, "batch_size": 3}))?;
        fields(&found, json!({"returned": 3, "total": 8}))?;
        same("the lines", &messages(&found)?, json!(["8", "7", "6"]))
    }),
    case("154", "the order of a batch can be turned round", |scene| {
        let task = console(scene)?;
        let found = log(scene, json!({"task": task, "batch_size": 3, "order": "asc"}))?;
        same("the lines", &messages(&found)?, json!(["6", "7", "8"]))
    }),
    case(
        "155",
        "a reader who follows gets what is strictly later",
        |scene| {
            let task = console(scene)?;
            let body =
                json!({"task": task, "navigate_earlier": false, "from_timestamp": 6_000_000_000_000_i64 + 6});
            same("the lines", &messages(&log(scene, body)?)?, json!(["7", "8"]))
        },
    ),
    case("156", "lines of the same time stay together", |scene| {
        let task = scene.task()?;
        let tied: Vec<Value> = (0..5).map(|_| line(&task, 3)).collect();
        scene.report(&[&[line(&task, 1)], &tied[..], &[line(&task, 9)]].concat())?;
        let body = json!({"task": task, "batch_size": 2, "navigate_earlier": false});
        same("returned", &log(scene, body)?["returned"], json!(6))
    }),
    case("157", "a scalar that is sent twice is one point", |scene| {
        let task = scene.task()?;
        for _ in 0..2 {
            scene.report(&[scalar(&task, "m", 1, 0.5)])?;
        }
        let found = scene.ok("events.scalar_metrics_iter_histogram", json!({"task": task}))?;
        fields(&found["m"]["v"], json!({"x": [1], "y": [0.5], "name": "v"}))?;
        let doc = scene.task_doc(&task)?;
        let last = doc["last_metrics"]
            .as_object()
            .and_then(|metrics| metrics.values().next());
        let last = last.and_then(|variants| variants.as_object()?.values().next());
        fields(
            last.context("no last metrics")?,
            json!({"metric": "m", "variant": "v", "value": 0.5}),
        )
    }),
    case("158", "a curve is thinned to the samples asked for", |scene| {
        let task = scene.task()?;
        let points: Vec<Value> = (0..6).map(|iter| scalar(&task, "m", iter, iter as f64)).collect();
        scene.report(&points)?;
        let read = |samples: Value| {
            scene.ok(
                "events.scalar_metrics_iter_histogram",
                json!({"task": task, "samples": samples}),
            )
        };
        same(
            "all",
            &read(json!(null))?["m"]["v"]["x"],
            json!([0, 1, 2, 3, 4, 5]),
        )?;
        fields(
            &read(json!(3))?["m"]["v"],
            json!({"x": [0, 2, 4], "y": [0.5, 2.5, 4.5]}),
        )
    }),
    case("159", "a single value is no point of a curve", |scene| {
        let task = scene.task()?;
        scene.report(&[scalar(&task, "Summary", SINGLE, 7.0)])?;
        let found = scene.ok("events.get_task_single_value_metrics", json!({"tasks": [task]}))?;
        fields(
            &found["tasks"][0]["values"][0],
            json!({"metric": "Summary", "variant": "v", "value": 7.0}),
        )?;
        let curves = scene.ok("events.scalar_metrics_iter_histogram", json!({"task": task}))?;
        ensure!(curves.get("Summary").is_none(), "it is in {curves}");
        same(
            "the iteration",
            &scene.task_doc(&task)?["last_iteration"],
            json!(0),
        )
    }),
    case("160", "machine metrics are no progress", |scene| {
        let task = scene.task()?;
        scene.report(&[scalar(&task, ":monitor:machine", 500, 1.0)])?;
        same(
            "the iteration",
            &scene.task_doc(&task)?["last_iteration"],
            json!(0),
        )?;
        scene.report(&[scalar(&task, "m", 5, 1.0)])?;
        same(
            "the iteration",
            &scene.task_doc(&task)?["last_iteration"],
            json!(5),
        )
    }),
    case("161", "the newest plots are returned", |scene| {
        let task = scene.task()?;
        let plot = |iter: i64| {
            json!({
                "type": "plot", "task": task, "metric": "m", "variant": "v", "iter": iter, "plot_str": "{}",
            })
        };
        scene.report(&[plot(0), plot(1), plot(2)])?;
        let found = scene.ok("events.get_task_plots", json!({"task": task, "iters": 2}))?;
        let mut iterations: Vec<i64> = list(&found, "plots")?
            .iter()
            .filter_map(|plot| plot["iter"].as_i64())
            .collect();
        iterations.sort_unstable();
        same("the iterations", &json!(iterations), json!([1, 2]))?;
        same("the plot", &found["plots"][0]["plot_str"], json!("{}"))
    }),
    case(
        "163",
        "scrolling shows every event once and then nothing",
        |scene| {
            let task = scene.task()?;
            let points: Vec<Value> = (0..7).map(|iter| scalar(&task, "m", iter, 1.0)).collect();
            scene.report(&points)?;
            let (mut seen, mut scroll) = (Vec::new(), Value::Null);
            for _ in 0..10 {
                let body = json!({
                    "task": task, "event_type": "training_stats_scalar", "batch_size": 3, "scroll_id": scroll,
                });
                let mut reply = scene.ok("events.get_task_events", body)?;
                if list(&reply, "events")?.is_empty() {
                    return same("the iterations", &json!(seen), json!([0, 1, 2, 3, 4, 5, 6]));
                }
                seen.extend(list(&reply, "events")?.iter().map(|event| event["iter"].clone()));
                scroll = reply["scroll_id"].take();
            }
            anyhow::bail!("no end after {seen:?}")
        },
    ),
    case(
        "events.download_task_log",
        "the console as a text file",
        |scene| {
            let task = console(scene)?;
            let body = json!({"task": task, "line_type": "text", "line_format": "{level}: {msg}"});
            let text = scene.call("events.download_task_log", &body)?.text();
            same("the text", &json!(text.lines().next()), json!("INFO: 1"))?;
            let text = scene
                .call("events.download_task_log", &json!({"task": task}))?
                .text();
            same("the lines", &json!(text.lines().count()), json!(8))?;
            let first: Value = serde_json::from_str(text.lines().next().unwrap_or_default())?;
            same("as JSON", &first["msg"], json!("1"))
        },
    ),
    case(
        "events.next_debug_image_sample",
        "somebody who looks at images steps from one to the next",
        |scene| steps(scene, "training_debug_image", "debug_image"),
    ),
    case(
        "events.next_plot_sample",
        "somebody who looks at plots steps from one to the next",
        |scene| steps(scene, "plot", "plot"),
    ),
    case("5.1", "events of every type are stored and come back", |scene| {
        let task = scene.task()?;
        let mut sent = vec![scalar(&task, "m", 1, 1.0)];
        for (kind, field, value) in [
            ("training_stats_vector", "values", json!([1, 2])),
            ("training_debug_image", "url", json!("http://localhost/x.png")),
            ("plot", "plot_str", json!("{}")),
        ] {
            sent.push(json!({
                "type": kind, "task": task, "metric": "m", "variant": "v", "iter": 1, "key": "k", field: value,
            }));
        }
        scene.report(&sent)?;
        for event in sent {
            let body = json!({"task": task, "event_type": event["type"]});
            let found = scene.ok("events.get_task_events", body)?;
            same("the number", &found["total"], json!(1))?;
            fields(&found["events"][0], event)?;
        }
        Ok(())
    }),
    case("5.4", "older clients read a console in their ways", older),
    case("raw", "every point of a metric can be read in pages", raw),
];

fn codes(reply: &Reply, expected: (i64, i64)) -> Result<()> {
    same(
        &reply.text(),
        &json!(reply.codes()?),
        json!([expected.0, expected.1]),
    )
}

/// A console line that says its number, at a time of its own.
fn line(task: &str, number: i64) -> Value {
    json!({"type": "log", "task": task, "level": "INFO", "msg": number.to_string(), "timestamp": 6_000_000_000_000_i64 + number})
}

fn scalar(task: &str, metric: &str, iter: i64, value: f64) -> Value {
    json!({"type": "training_stats_scalar", "task": task, "metric": metric, "variant": "v", "iter": iter, "value": value})
}

/// A task with eight console lines.
fn console(scene: &Scene<'_>) -> Result<String> {
    let task = scene.task()?;
    let lines: Vec<Value> = (1..=8).map(|number| line(&task, number)).collect();
    scene.report(&lines)?;
    Ok(task)
}

fn log(scene: &Scene<'_>, body: Value) -> Result<Value> {
    scene.ok("events.get_task_log", body)
}

fn messages(found: &Value) -> Result<Value> {
    Ok(list(found, "events")?
        .iter()
        .map(|event| event["msg"].clone())
        .collect())
}

fn older(scene: &Scene<'_>) -> Result<()> {
    let task = console(scene)?;
    for (version, extra, first, second) in [
        (
            "v2.5",
            json!({"from": "head", "order": "asc"}),
            ["1", "2", "3"],
            ["4", "5", "6"],
        ),
        (
            "v2.5",
            json!({"from": "tail", "order": "desc"}),
            ["8", "7", "6"],
            ["5", "4", "3"],
        ),
        ("v2.5", json!({}), ["3", "2", "1"], ["6", "5", "4"]),
        ("v1.5", json!({"order": "asc"}), ["1", "2", "3"], ["4", "5", "6"]),
    ] {
        let mut body = extra;
        body["task"] = json!(task);
        body["batch_size"] = json!(3);
        let endpoint = format!("{version}/events.get_task_log");
        let mut reply = scene.ok(&endpoint, body.clone())?;
        same(&body.to_string(), &messages(&reply)?, json!(first))?;
        body["scroll_id"] = reply["scroll_id"].take();
        same(
            &body.to_string(),
            &messages(&scene.ok(&endpoint, body.clone())?)?,
            json!(second),
        )?;
    }
    Ok(())
}

fn steps(scene: &Scene<'_>, kind: &str, name: &str) -> Result<()> {
    let task = scene.task()?;
    let image = |iter: i64, variant: &str| {
        json!({
            "type": kind, "task": task, "metric": "m", "variant": variant, "iter": iter, "key": "k",
            "url": format!("http://localhost/{iter}/{variant}"), "plot_str": "{}",
        })
    };
    scene.report(&[image(1, "a"), image(1, "b"), image(2, "a"), image(2, "b")])?;
    let body = json!({"task": task, "metric": "m", "variant": "a"});
    let mut reply = scene.ok(&format!("events.get_{name}_sample"), body)?;
    fields(
        &reply,
        json!({"event.iter": 2, "event.variant": "a", "min_iteration": 1, "max_iteration": 2}),
    )?;
    for (extra, iter, variant) in [
        (json!({"navigate_earlier": true}), 1, "b"),
        (json!({"navigate_earlier": false}), 2, "a"),
        (json!({"navigate_earlier": true, "next_iteration": true}), 1, "a"),
    ] {
        let mut body = extra;
        body["task"] = json!(task);
        body["scroll_id"] = reply["scroll_id"].take();
        reply = scene.ok(&format!("events.next_{name}_sample"), body)?;
        fields(&reply["event"], json!({"iter": iter, "variant": variant}))?;
    }
    Ok(())
}

fn raw(scene: &Scene<'_>) -> Result<()> {
    let task = scene.task()?;
    let points: Vec<Value> = (0..5).map(|iter| scalar(&task, "m", iter, iter as f64)).collect();
    scene.report(&points)?;
    let (mut seen, mut scroll) = (Vec::new(), Value::Null);
    for _ in 0..5 {
        let body = json!({"task": task, "metric": {"metric": "m"}, "batch_size": 2, "count_total": true, "scroll_id": scroll});
        let mut reply = scene.ok("events.scalar_metrics_iter_raw", body)?;
        if reply["returned"] == 0 {
            break;
        }
        same("the total", &reply["total"], json!(5))?;
        seen.extend(list(&reply["variants"]["v"], "iter")?.iter().cloned());
        scroll = reply["scroll_id"].take();
    }
    same("the iterations", &json!(seen), json!([0, 1, 2, 3, 4]))
}
