//! Console lines, scalars, plots and images: reported, summarised, read back.

use crate::raw::TestServer;
use serde_json::{Value, json};

const SINGLE: i64 = -2_147_483_648;

fn line(task: &str, timestamp: i64, message: &str) -> Value {
    json!({"type": "log", "task": task, "timestamp": timestamp, "level": "INFO", "msg": message})
}

fn scalar(task: &str, metric: &str, iter: i64, value: f64) -> Value {
    json!({"type": "training_stats_scalar", "task": task, "metric": metric, "variant": "v", "iter": iter,
        "value": value, "timestamp": 1000 + iter})
}

fn messages(data: &Value) -> Vec<&str> {
    data["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["msg"].as_str().unwrap())
        .collect()
}

fn task_of(server: &TestServer, task: &str) -> Value {
    server.ok("tasks.get_by_id", json!({"task": task}))["task"].clone()
}

/// The summary of a metric's variant `v`.
fn summary(task: &Value, metric: &str) -> Value {
    let pairs = task["last_metrics"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|m| m.as_object().unwrap().values());
    pairs
        .into_iter()
        .find(|pair| pair["metric"] == metric && pair["variant"] == "v")
        .unwrap()
        .clone()
}

#[test]
fn lines_are_counted_and_refusals_too() {
    let server = TestServer::start();
    let task = server.new_task();
    let ten: Vec<Value> = (0..10).map(|n| line(&task, n, "x")).collect();
    assert_eq!(
        server.add_batch(&ten),
        (200, 0, json!({"added": 10, "errors": 0, "errors_info": {}}))
    );

    let mixed = [
        line(&task, 1, "good"),
        line("nowhere", 1, "x"),
        line("nowhere", 2, "x"),
        json!({"type": "bogus", "task": task}),
        json!({"task": task}),
        json!({"type": "log"}),
    ];
    let expected = json!({"added": 1, "errors": 5, "errors_info": {
        "Invalid task id nowhere": 2, "Invalid event type bogus": 1,
        "Event must have a 'type' field": 1, "Event must have a 'task' field": 1}});
    assert_eq!(server.add_batch(&mixed), (200, 0, expected));

    let (code, subcode, data) = server.add_batch(&[line("nowhere", 1, "x")]);
    assert_eq!((code, subcode, data), (400, 131, json!({})));
    assert_eq!(server.ok("events.add", line(&task, 3, "one"))["added"], 1);
    server.stop();
}

#[test]
fn a_batch_that_cannot_be_read_stores_nothing() {
    let server = TestServer::start();
    let task = server.new_task();
    let lines = "application/json-lines";
    assert_eq!(server.call_raw("/events.add_batch", lines, b"").1, 17);
    let good = line(&task, 1, "x").to_string();
    for bad in [
        format!("{good}\n{{bad"),
        format!("{good}\n\n{good}"),
        format!("{good}\n\n"),
    ] {
        let (code, subcode, _) = server.call_raw("/events.add_batch", lines, bad.as_bytes());
        assert_eq!((code, subcode), (400, 0), "{bad}");
    }
    let disagreeing = [line(&task, 1, "a"), {
        let mut second = line(&task, 2, "b");
        second["allow_locked"] = json!(true);
        second
    }];
    assert_eq!(server.add_batch(&disagreeing).1, 12);
    assert_eq!(
        server.ok("events.get_task_log", json!({"task": task}))["total"],
        0
    );

    let one = format!("{good}\n");
    let charset = "application/json-lines; charset=utf-8";
    assert_eq!(
        server.call_raw("/events.add_batch", charset, one.as_bytes()).2["added"],
        1
    );
    server.stop();
}

#[test]
fn drafts_and_ended_tasks_take_lines_and_published_ones_only_when_asked_to() {
    let server = TestServer::start();
    let task = server.new_task();
    assert_eq!(server.add_batch(&[line(&task, 1, "draft")]).0, 200);
    server.ok("tasks.started", json!({"task": task}));
    server.ok("tasks.completed", json!({"task": task}));
    assert_eq!(server.add_batch(&[line(&task, 2, "completed")]).0, 200);
    server.ok("tasks.publish", json!({"task": task}));
    let (code, subcode, _) = server.add_batch(&[line(&task, 3, "published")]);
    assert_eq!((code, subcode), (400, 131));
    let mut allowed = line(&task, 3, "published");
    allowed["allow_locked"] = json!(true);
    assert_eq!(server.add_batch(&[allowed]).0, 200);
    let log = server.ok("events.get_task_log", json!({"task": task, "order": "asc"}));
    assert_eq!(messages(&log), ["draft", "completed", "published"]);
    server.stop();
}

#[test]
fn the_console_is_read_in_pages_by_time() {
    let server = TestServer::start();
    let task = server.new_task();
    let lines: Vec<Value> = (1..=5).map(|n| line(&task, n * 10, &n.to_string())).collect();
    server.add_batch(&lines);
    let read = |more: Value| {
        let mut request = json!({"task": task});
        request
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        server.ok("events.get_task_log", request)
    };
    let newest = read(json!({"batch_size": 3}));
    assert_eq!(
        (messages(&newest), &newest["total"], &newest["returned"]),
        (vec!["5", "4", "3"], &json!(5), &json!(3))
    );
    assert_eq!(
        messages(&read(json!({"batch_size": 3, "order": "asc"}))),
        ["3", "4", "5"]
    );
    assert_eq!(
        messages(&read(json!({"navigate_earlier": false, "from_timestamp": 20}))),
        ["3", "4", "5"]
    );
    assert_eq!(
        messages(&read(json!({"navigate_earlier": false, "batch_size": 2}))),
        ["1", "2"]
    );
    assert_eq!(messages(&read(json!({"from_timestamp": 30}))), ["2", "1"]);
    server.add_batch(&[line(&task, 50, "5b"), line(&task, 50, "5c")]);
    assert_eq!(messages(&read(json!({"batch_size": 1}))), ["5c", "5b", "5"]);
    assert_eq!(server.call("events.get_task_log", json!({"task": "none"})).1, 101);
    server.stop();
}

#[test]
fn a_line_comes_back_as_it_was_sent_with_its_defaults() {
    let server = TestServer::start();
    let task = server.new_task();
    let text = "tab\tü ☃ \u{1b}[31mred\u{1b}[0m \"quoted\" \\ 😀";
    server.add_batch(&[json!({"type": "log", "task": task, "msg": text, "method": "get"})]);
    let log = server.ok("events.get_task_log", json!({"task": task}));
    let event = &log["events"][0];
    assert_eq!(
        (event["msg"].as_str(), event["worker"].as_str()),
        (Some(text), Some("<unknown>"))
    );
    assert!(event["timestamp"].as_i64().unwrap() > 1_600_000_000_000);
    assert!(event["@timestamp"].is_string());
    assert!(event.get("method").is_none());
    server.stop();
}

#[test]
fn a_repeated_scalar_is_one_point() {
    let server = TestServer::start();
    let task = server.new_task();
    server.add_batch(&[scalar(&task, "m", 1, 5.0)]);
    server.add_batch(&[scalar(&task, "m", 1, 7.0)]);
    let curve = server.ok("events.scalar_metrics_iter_histogram", json!({"task": task}));
    assert_eq!(curve, json!({"m": {"v": {"name": "v", "x": [1], "y": [7.0]}}}));
    let summary = summary(&task_of(&server, &task), "m");
    assert_eq!((&summary["value"], &summary["count"]), (&json!(7.0), &json!(1)));
    server.stop();
}

#[test]
fn curves_are_thinned_and_labelled() {
    let server = TestServer::start();
    let task = server.new_task();
    let points: Vec<Value> = (0..6).map(|n| scalar(&task, "m", n, n as f64)).collect();
    server.add_batch(&points);
    let curve = |more: Value| {
        let mut request = json!({"task": task});
        request
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        server.ok("events.scalar_metrics_iter_histogram", request)["m"]["v"].clone()
    };
    assert_eq!(curve(json!({}))["x"], json!([0, 1, 2, 3, 4, 5]));
    let thin = curve(json!({"samples": 3}));
    assert_eq!(
        (&thin["x"], &thin["y"]),
        (&json!([0, 2, 4]), &json!([0.5, 2.5, 4.5]))
    );
    assert_eq!(curve(json!({"key": "timestamp", "samples": null}))["x"][5], 1005);
    assert_eq!(
        curve(json!({"key": "iso_time"}))["x"][0],
        "1970-01-01T00:00:01.000000+00:00"
    );
    assert_eq!(curve(json!({"metrics": [{"metric": "other"}]})), Value::Null);
    for bad in [
        json!({"task": task, "samples": 0}),
        json!({"task": task, "key": "x"}),
    ] {
        assert_eq!(server.call("events.scalar_metrics_iter_histogram", bad).1, 12);
    }
    let many = server.ok(
        "events.multi_task_scalar_metrics_iter_histogram",
        json!({"tasks": [task]}),
    );
    assert_eq!(many["metrics"]["m"]["v"][&task]["name"], "a task");
    let names = server.ok("events.get_scalar_metrics_and_variants", json!({"task": task}));
    assert_eq!(names, json!({"metrics": {"m": ["v"]}}));
    let of_type = json!({"tasks": [task], "event_type": "training_stats_scalar"});
    assert_eq!(
        server.ok("events.get_task_metrics", of_type)["metrics"][0]["metrics"],
        json!(["m"])
    );
    server.stop();
}

#[test]
fn single_values_and_machine_metrics_are_no_progress() {
    let server = TestServer::start();
    let task = server.new_task();
    server.add_batch(&[
        scalar(&task, "m", 4, 1.0),
        scalar(&task, "Summary", SINGLE, 0.5),
        scalar(&task, ":monitor:machine", 500, 1.0),
        scalar(&task, ":monitor:gpu", 500, 1.0),
    ]);
    assert_eq!(task_of(&server, &task)["last_iteration"], 4);
    let curves = server.ok("events.scalar_metrics_iter_histogram", json!({"task": task}));
    assert!(curves.get("Summary").is_none());
    let singles = server.ok("events.get_task_single_value_metrics", json!({"tasks": [task]}));
    assert_eq!(
        singles["tasks"],
        json!([{"task": task, "task_name": "a task",
            "values": [{"metric": "Summary", "variant": "v", "value": 0.5, "timestamp": 1000 + SINGLE}]}])
    );
    server.stop();
}

#[test]
fn a_batch_moves_the_summaries_of_its_tasks() {
    let server = TestServer::start();
    let (first, second) = (server.new_task(), server.new_task());
    server.ok("tasks.started", json!({"task": first}));
    server.add_batch(&[
        scalar(&first, "loss", 2, 1.0),
        scalar(&second, "loss", 9, 3.0),
        scalar(&first, "loss", 1, 2.0),
    ]);
    let task = task_of(&server, &first);
    assert_eq!(task["last_iteration"], 2);
    assert!(task["active_duration"].is_i64());
    let first_summary = summary(&task, "loss");
    assert_eq!(
        (&first_summary["value"], &first_summary["mean_value"]),
        (&json!(1.0), &json!(1.5))
    );
    assert_eq!(
        (&first_summary["max_value"], &first_summary["max_value_iteration"]),
        (&json!(2.0), &json!(1))
    );
    let stats = task["metric_stats"].as_object().unwrap().values().next().unwrap();
    assert_eq!(stats["metric"], "loss");
    assert!(stats["event_stats_by_type"]["training_stats_scalar"]["last_update"].is_string());
    assert_eq!(task_of(&server, &second)["last_iteration"], 9);
    server.stop();
}

#[test]
fn the_newest_plots_are_returned() {
    let server = TestServer::start();
    let task = server.new_task();
    let plot = |iter: i64| json!({"type": "plot", "task": task, "metric": "p", "variant": "v", "iter": iter, "plot_str": "{\"data\": []}"});
    server.add_batch(&[plot(0), plot(1), plot(2)]);
    let iterations = |request: Value| -> Vec<i64> {
        let plots = server.ok("events.get_task_plots", request);
        plots["plots"]
            .as_array()
            .unwrap()
            .iter()
            .map(|plot| plot["iter"].as_i64().unwrap())
            .collect()
    };
    assert_eq!(iterations(json!({"task": task, "iters": 2})), [2, 1]);
    assert_eq!(iterations(json!({"task": task})), [2]);
    let first = server.ok("events.get_task_plots", json!({"task": task}));
    assert_eq!(first["plots"][0]["plot_len"], 12);
    assert_eq!(
        iterations(json!({"task": task, "scroll_id": first["scroll_id"]})),
        [0i64; 0]
    );
    server.stop();
}

#[test]
fn scrolling_shows_every_event_once() {
    let server = TestServer::start();
    let task = server.new_task();
    let mut events: Vec<Value> = (0..23).map(|n| scalar(&task, "m", n % 12, n as f64)).collect();
    events.extend((0..5).map(|n| line(&task, 7, &n.to_string())));
    server.add_batch(&events);
    for (order, kind, expected) in [
        ("asc", "*", 17),
        ("desc", "*", 17),
        ("asc", "training_stats_scalar", 12),
        ("desc", "log", 5),
    ] {
        let (mut seen, mut scroll) = (Vec::new(), Value::Null);
        loop {
            let request = json!({"task": task, "order": order, "event_type": kind, "batch_size": 4, "scroll_id": scroll});
            let page = server.ok("events.get_task_events", request);
            assert_eq!(page["total"], expected);
            scroll = page["scroll_id"].clone();
            let events = page["events"].as_array().unwrap();
            if events.is_empty() {
                break;
            }
            seen.extend(events.iter().cloned());
        }
        assert_eq!(seen.len(), expected, "{order} {kind}");
        let iterations: Vec<i64> = seen.iter().filter_map(|event| event["iter"].as_i64()).collect();
        let mut sorted = iterations.clone();
        sorted.sort_unstable();
        if order == "desc" {
            sorted.reverse();
        }
        assert_eq!(iterations, sorted);
    }
    let bad = json!({"task": task, "scroll_id": "nonsense"});
    assert_eq!(server.call("events.get_task_events", bad).1, 1104);
    server.stop();
}

#[test]
fn debug_images_are_paged_by_iteration() {
    let server = TestServer::start();
    let task = server.new_task();
    let image = |iter: i64, variant: &str| {
        json!({"type": "training_debug_image", "task": task, "metric": "i", "variant": variant, "iter": iter,
            "key": format!("k{iter}{variant}"), "url": "http://x/y.png"})
    };
    server.add_batch(&[image(0, "a"), image(1, "a"), image(2, "a"), image(2, "b")]);
    let read = |scroll: &Value| {
        let metrics = json!([{"task": task, "metric": "i"}]);
        server.ok(
            "events.debug_images",
            json!({"metrics": metrics, "iters": 2, "scroll_id": scroll}),
        )
    };
    let first = read(&Value::Null);
    let shape = |reply: &Value| -> Vec<(i64, usize)> {
        let iterations = reply["metrics"][0]["iterations"].as_array().unwrap();
        iterations
            .iter()
            .map(|i| (i["iter"].as_i64().unwrap(), i["events"].as_array().unwrap().len()))
            .collect()
    };
    assert_eq!(shape(&first), [(2, 2), (1, 1)]);
    let second = read(&first["scroll_id"]);
    assert_eq!(shape(&second), [(0, 1)]);
    assert_eq!(shape(&read(&second["scroll_id"])), []);
    server.stop();
}

#[test]
fn events_of_a_model_are_its_own() {
    let server = TestServer::start();
    let model = server.ok("models.create", json!({"name": "a model", "uri": "file:///m"}));
    let model = model["id"].as_str().unwrap();
    let mut point = scalar("", "m", 3, 1.0);
    point["task"] = Value::Null;
    point["model"] = json!(model);
    point["model_event"] = json!(true);
    assert_eq!(server.add_batch(&[point]).0, 200);
    let request = json!({"task": model, "model_events": true});
    assert_eq!(
        server.ok("events.scalar_metrics_iter_histogram", request)["m"]["v"]["y"],
        json!([1.0])
    );
    let stored = server.ok("models.get_by_id", json!({"model": model}));
    assert_eq!(stored["model"]["last_iteration"], 3);
    server.stop();
}

#[test]
fn one_id_cannot_be_a_task_and_a_model_in_one_batch() {
    let server = TestServer::start();
    let task = server.new_task();
    let mut point = scalar(&task, "m", 1, 1.0);
    point["model_event"] = json!(true);
    assert_eq!(server.add_batch(&[scalar(&task, "m", 1, 1.0), point]).1, 12);
    assert_eq!(
        server.ok("events.get_task_events", json!({"task": task}))["total"],
        0
    );
    server.stop();
}

#[test]
fn a_plot_and_a_curve_may_have_the_same_name() {
    let server = TestServer::start();
    let task = server.new_task();
    let plot =
        json!({"type": "plot", "task": task, "metric": "m", "variant": "v", "iter": 1, "plot_str": "{}"});
    server.add_batch(&[scalar(&task, "m", 1, 1.0), plot]);
    assert_eq!(
        server.ok("events.get_task_events", json!({"task": task}))["total"],
        2
    );
    server.stop();
}

#[test]
fn events_can_be_cleared() {
    let server = TestServer::start();
    let task = server.new_task();
    server.add_batch(&[line(&task, 1, "x"), scalar(&task, "m", 1, 1.0)]);
    assert_eq!(
        server.ok("events.clear_task_log", json!({"task": task}))["deleted"],
        1
    );
    assert_eq!(
        server.ok("events.get_task_events", json!({"task": task}))["total"],
        1
    );
    assert_eq!(
        server.ok("events.delete_for_task", json!({"task": task}))["deleted"],
        true
    );
    assert_eq!(
        server.ok("events.get_task_events", json!({"task": task}))["total"],
        0
    );
    server.stop();
}
