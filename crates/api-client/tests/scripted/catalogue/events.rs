//! `events.*`.

use clearml_api_client::{Axis, ClearLog, Event, EventsQuery, SINGLE_VALUE, Sample};
use clearml_task_model::TaskId;
use serde_json::json;

use super::Scene;
use crate::server::{Server, Step};

#[tokio::test]
async fn values_are_reported_and_console_lines_only_once() {
    let scene = Scene::new().await;
    let client = &scene.client;
    let point = Event::scalar(&TaskId::new("t"), "loss", "train", 3, 0.5);
    let sent = json!({
        "type": "training_stats_scalar", "task": "t", "metric": "loss", "variant": "train", "iter": 3, "value": 0.5,
    });
    let reply = || json!({"added": 1, "errors": 0, "errors_info": null});
    scene
        .safe("events.add", sent, reply(), || client.events_add(&point))
        .await;
    let line = Event {
        kind: "log".into(),
        task: "t".into(),
        ..Event::default()
    };
    let sent = json!({"type": "log", "task": "t", "metric": "", "variant": ""});
    scene
        .creating("events.add", sent, reply(), || client.events_add(&line))
        .await;
    let points = [Event {
        iter: Some(SINGLE_VALUE),
        ..point
    }];
    let sent = json!({
        "type": "training_stats_scalar", "task": "t", "metric": "loss", "variant": "train", "iter": -2_147_483_648_i64,
        "value": 0.5,
    });
    let added = scene
        .once("events.add_batch", sent, reply(), || {
            client.events_add_metrics(&points)
        })
        .await;
    assert_eq!(added.added, 1);
}

#[tokio::test]
async fn curves_plots_and_images_are_read() {
    let scene = Scene::new().await;
    let client = &scene.client;
    let tasks = [TaskId::new("t")];
    let task = &tasks[0];
    let reply =
        json!({"loss": {"train": {"name": "train", "x": [0, 1], "y": [0.5, null], "x_axis_label": "e"}}});
    let sent = json!({"task": "t", "samples": 100, "key": "iso_time"});
    let curves = scene
        .safe("events.scalar_metrics_iter_histogram", sent, reply, || {
            client.events_scalar_metrics_iter_histogram(task, 100, Axis::IsoTime)
        })
        .await;
    assert_eq!(curves["loss"]["train"].y, [Some(0.5), None]);
    let reply = json!({"metrics": {"loss": {"train": {"t": {"name": "n", "x": [1], "y": [2.0]}}}}});
    let sent = json!({"tasks": ["t"], "samples": 100, "key": "iter"});
    let curves = scene
        .safe(
            "events.multi_task_scalar_metrics_iter_histogram",
            sent,
            reply,
            || client.events_multi_task_scalar_metrics_iter_histogram(&tasks, 100, Axis::Iter),
        )
        .await;
    assert_eq!(curves["loss"]["train"]["t"].y, [Some(2.0)]);
    let reply = json!({"tasks": [{"task": "t", "task_name": "n", "values": [{"metric": "m", "variant": "v", "value": 1}]}]});
    let values = scene
        .safe(
            "events.get_task_single_value_metrics",
            json!({"tasks": ["t"]}),
            reply,
            || client.events_get_task_single_value_metrics(&tasks),
        )
        .await;
    assert_eq!(values[0].values[0].value, Some(1.0));
    let query = EventsQuery {
        event_type: Some("plot".into()),
        scroll_id: Some("s".into()),
        ..EventsQuery::default()
    };
    let sent = json!({"task": "t", "event_type": "plot", "scroll_id": "s"});
    let reply =
        json!({"events": [{"type": "plot", "plot_str": "{}"}], "returned": 1, "total": 9, "scroll_id": "s2"});
    let page = scene
        .safe("events.get_task_events", sent, reply, || {
            client.events_get_task_events(task, &query)
        })
        .await;
    assert_eq!(
        (
            page.events[0].extra["plot_str"].as_str(),
            page.scroll_id.as_deref()
        ),
        (Some("{}"), Some("s2"))
    );
    let reply = json!({"plots": [{"metric": "m", "iter": 2}], "returned": 1, "total": 1});
    let page = scene
        .safe(
            "events.get_task_plots",
            json!({"task": "t", "iters": 2}),
            reply,
            || client.events_get_task_plots(task, 2),
        )
        .await;
    assert_eq!(page.events[0].iter, Some(2));
    let metrics = [json!({"task": "t", "metric": "m"})];
    let sent = json!({"metrics": [{"task": "t", "metric": "m"}], "iters": 1, "scroll_id": "s"});
    scene
        .safe(
            "events.debug_images",
            sent,
            json!({"metrics": [{"task": "t", "iterations": []}], "scroll_id": "s"}),
            || client.events_debug_images(&metrics, 1, Some("s")),
        )
        .await;
    scene
        .safe(
            "events.plots",
            json!({"metrics": [{"task": "t", "metric": "m"}], "iters": 1}),
            json!({}),
            || client.events_plots(&metrics, 1),
        )
        .await;
    let names = scene
        .safe(
            "events.get_scalar_metrics_and_variants",
            json!({"task": "t"}),
            json!({"metrics": {"loss": ["train"]}}),
            || client.events_get_scalar_metrics_and_variants(task),
        )
        .await;
    assert_eq!(names["loss"], ["train"]);
    scene
        .safe(
            "events.get_task_metrics",
            json!({"tasks": ["t"], "event_type": "log"}),
            json!({"metrics": []}),
            || client.events_get_task_metrics(&tasks, "log"),
        )
        .await;
    scene
        .safe(
            "events.get_multi_task_plots",
            json!({"tasks": ["t"], "iters": 1}),
            json!({"plots": {}}),
            || client.events_get_multi_task_plots(&tasks, 1),
        )
        .await;
}

#[tokio::test]
async fn raw_points_and_samples_are_read_step_by_step() {
    let scene = Scene::new().await;
    let client = &scene.client;
    let task = TaskId::new("t");
    let metric = json!({"metric": "loss", "variants": ["train"]});
    let sent =
        json!({"task": "t", "metric": metric, "key": "timestamp", "batch_size": 10, "count_total": true});
    let reply = json!({"variants": {"train": {"y": [1], "timestamp": [2]}}, "returned": 1, "total": 1, "scroll_id": "s"});
    let raw = scene
        .safe("events.scalar_metrics_iter_raw", sent, reply, || {
            client.events_scalar_metrics_iter_raw(&task, &metric, Axis::Timestamp, 10, None)
        })
        .await;
    assert_eq!(raw.variants["train"]["y"][0], 1);
    for (kind, get, next) in [
        (
            Sample::DebugImage,
            "events.get_debug_image_sample",
            "events.next_debug_image_sample",
        ),
        (Sample::Plot, "events.get_plot_sample", "events.next_plot_sample"),
    ] {
        let sent = json!({"task": "t", "metric": "m", "variant": "v", "iteration": 4});
        scene
            .safe(get, sent, json!({"event": {}}), || {
                client.events_get_sample(kind, &task, "m", "v", Some(4))
            })
            .await;
        let sent = json!({"task": "t", "scroll_id": "s", "navigate_earlier": true});
        scene
            .creating(next, sent, json!({"event": {}}), || {
                client.events_next_sample(kind, &task, "s", true)
            })
            .await;
    }
    scene
        .safe(
            "events.vector_metrics_iter_histogram",
            json!({"task": "t", "metric": "m", "variant": "v"}),
            json!({"events": []}),
            || client.events_vector_metrics_iter_histogram(&task, "m", "v"),
        )
        .await;
    scene
        .safe(
            "events.clear_scroll",
            json!({"scroll_id": "s"}),
            json!({}),
            || client.events_clear_scroll("s"),
        )
        .await;
}

#[tokio::test]
async fn logs_are_removed_and_downloaded() {
    let scene = Scene::new().await;
    let client = &scene.client;
    let task = TaskId::new("t");
    let which = ClearLog {
        threshold_sec: Some(5),
        ..ClearLog::default()
    };
    let sent = json!({"task": "t", "threshold_sec": 5, "allow_locked": false});
    let deleted = scene
        .safe("events.clear_task_log", sent, json!({"deleted": 7}), || {
            client.events_clear_task_log(&task, &which)
        })
        .await;
    assert_eq!(deleted, 7);
    scene
        .safe(
            "events.delete_for_task",
            json!({"task": "t", "allow_locked": true}),
            json!({"deleted": true}),
            || client.events_delete_for_task(&task, true),
        )
        .await;

    let server = Server::start().await;
    let client = server.client().await;
    server.script([
        Step::http(200, "text/plain", &[], b"one\ntwo\n"),
        Step::error(400, 101, "no such task"),
    ]);
    let text = client
        .events_download_task_log(&task, Some("{msg}"))
        .await
        .unwrap();
    assert_eq!(&text[..], b"one\ntwo\n");
    assert_eq!(
        server.calls()[0].json(),
        json!({"task": "t", "line_type": "text", "line_format": "{msg}"})
    );
    let error = client.events_download_task_log(&task, None).await.unwrap_err();
    assert!(error.is_code(400, 101), "{error:?}");
}
