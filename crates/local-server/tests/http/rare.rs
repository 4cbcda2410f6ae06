//! What few clients call: public objects, vectors, last values, runs of pipelines; and what is not there.

use serde_json::{Value, json};

use crate::raw::TestServer;

#[test]
fn what_is_not_there_says_so() {
    let server = TestServer::start();
    for endpoint in [
        "serving.get_endpoints",
        "storage.get_settings",
        "workers.cluster_report",
        "workers.cluster_unregister",
        "tasks.share",
        "async.result",
    ] {
        let (code, subcode, data) = server.call(endpoint, json!({}));
        assert_eq!((code, subcode, data), (404, 0, json!({})), "{endpoint}");
    }
    server.stop();
}

#[test]
fn public_objects_can_be_taken_back() {
    let server = TestServer::start();
    let task = server.new_task();
    let company = |server: &TestServer| {
        let found = server.ok("tasks.get_by_id", json!({"task": task}));
        found["task"]["company"].clone()
    };
    let own = company(&server);
    let ids = json!({"ids": [task]});
    assert_eq!(server.ok("tasks.make_public", ids.clone())["updated"], 1);
    assert_eq!(company(&server), "");
    // All or none: one that is public already cannot become so, and nothing else is changed either.
    let other = server.new_task();
    let (code, subcode, _) = server.call("tasks.make_public", json!({"ids": [other, task]}));
    assert_eq!((code, subcode), (400, 101));
    assert_eq!(server.call("tasks.make_private", json!({"ids": [other]})).0, 400);
    server.ok("tasks.started", json!({"task": task}));
    assert_eq!(server.ok("tasks.make_private", ids)["updated"], 1);
    assert_eq!(company(&server), own);
    server.stop();
}

#[test]
fn vectors_points_and_last_values_are_read_back() {
    let server = TestServer::start();
    let task = server.new_task();
    let vector = |iter: i32| {
        json!({"type": "training_stats_vector", "task": task, "metric": "v", "variant": "w", "iter": iter,
            "values": [iter, 2]})
    };
    let scalar = |iter: i32| {
        json!({"type": "training_stats_scalar", "task": task, "metric": "m", "variant": "x", "iter": iter,
            "value": iter})
    };
    server.add_batch(&[vector(2), vector(1), scalar(1), scalar(5)]);
    let of_task = |more: Value| {
        let mut body = json!({"task": task});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        body
    };
    let names = server.ok("events.get_vector_metrics_and_variants", of_task(json!({})));
    assert_eq!(names, json!({"metrics": {"v": ["w"]}}));
    let vectors = of_task(json!({"metric": "v", "variant": "w"}));
    let vectors = server.ok("events.vector_metrics_iter_histogram", vectors);
    assert_eq!(vectors["iterations"], json!([1, 2]));
    assert_eq!(vectors["vectors"], json!([[1, 2], [2, 2]]));
    let points = server.ok(
        "events.get_scalar_metric_data",
        of_task(json!({"metric": "m", "batch_size": 1})),
    );
    assert_eq!(
        (&points["total"], &points["events"][0]["iter"]),
        (&json!(2), &json!(1))
    );
    let rest = json!({"metric": "m", "scroll_id": points["scroll_id"]});
    let rest = server.ok("events.get_scalar_metric_data", of_task(rest));
    assert_eq!(
        (&rest["returned"], &rest["events"][0]["value"]),
        (&json!(1), &json!(5))
    );
    let last = server.ok("events.get_task_latest_scalar_values", of_task(json!({})));
    let expected = json!([{"name": "m", "variants": [{"name": "x", "last_value": 5.0}]}]);
    assert_eq!((&last["metrics"], &last["last_iter"]), (&expected, &json!(5)));
    server.stop();
}

#[test]
fn the_last_run_of_a_pipeline_stays() {
    let server = TestServer::start();
    let project = server.ok("projects.create", json!({"name": "pipelines"}))["id"].clone();
    let run = || {
        let fields =
            json!({"name": "run", "type": "controller", "project": project, "system_tags": ["pipeline"]});
        server.ok("tasks.create", fields)["id"].clone()
    };
    let (first, second) = (run(), run());
    let delete = |ids: Value| server.call("pipelines.delete_runs", json!({"project": project, "ids": ids}));
    assert_eq!(delete(json!([first, second])).0, 400);
    assert_eq!(delete(json!([server.new_task()])).0, 400);
    let (code, _, data) = delete(json!([first]));
    assert_eq!((code, &data["succeeded"][0]["id"]), (200, &first), "{data}");
    assert_eq!(server.call("tasks.get_by_id", json!({"task": first})).0, 400);
    assert_eq!(delete(json!([second])).0, 400);
    server.stop();
}
