//! Models: created, described, found, made ready, deleted.

use crate::raw::TestServer;
use serde_json::{Value, json};

fn create(server: &TestServer, more: Value) -> String {
    let mut request = json!({"name": "a model", "uri": "file:///weights"});
    request
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let reply = server.ok("models.create", request);
    assert_eq!(reply["created"], true);
    reply["id"].as_str().unwrap().to_owned()
}

fn get(server: &TestServer, model: &str) -> Value {
    server.ok("models.get_by_id", json!({"model": model}))["model"].clone()
}

#[test]
fn a_model_has_defaults_and_keeps_what_it_was_given() {
    let server = TestServer::start();
    let task = server.new_task();
    let id = create(
        &server,
        json!({"labels": {"cat": 1}, "task": task, "ready": false, "framework": null,
        "metadata": [{"key": "a.b", "type": "str", "value": "1"}]}),
    );
    let model = get(&server, &id);
    assert_eq!(
        (&model["labels"], &model["task"], &model["ready"]),
        (&json!({"cat": 1}), &json!(task), &json!(false))
    );
    assert_eq!((&model["tags"], &model["design"]), (&json!([]), &json!({})));
    assert_eq!(
        model["metadata"],
        json!({"a.b": {"key": "a.b", "type": "str", "value": "1"}})
    );
    assert!(model.get("framework").is_none());
    server.stop();
}

#[test]
fn what_does_not_exist_is_refused() {
    let server = TestServer::start();
    let refusal = |endpoint: &str, body: Value| {
        let (code, subcode, _) = server.call(endpoint, body);
        assert_eq!(code, 400);
        subcode
    };
    assert_eq!(refusal("models.get_by_id", json!({"model": "none"})), 201);
    assert_eq!(refusal("models.create", json!({"name": "m"})), 12);
    assert_eq!(
        refusal(
            "models.create",
            json!({"name": "m", "uri": "u", "project": "none"})
        ),
        12
    );
    assert_eq!(
        refusal("models.create", json!({"name": "m", "uri": "u", "task": "none"})),
        101
    );
    assert_eq!(
        refusal(
            "models.create",
            json!({"name": "m", "uri": "u", "tags": ["__$x"]})
        ),
        16
    );
    assert_eq!(refusal("models.edit", json!({"model": "none"})), 201);
    server.stop();
}

#[test]
fn an_edit_reports_what_changed_and_raises_the_iteration_of_the_task() {
    let server = TestServer::start();
    let task = server.new_task();
    let id = create(&server, json!({"task": task}));
    let reply = server.ok(
        "models.edit",
        json!({"model": id, "name": "b", "uri": null, "iteration": 7}),
    );
    assert_eq!(reply, json!({"updated": 1, "fields": {"name": "b"}}));
    assert_eq!(
        server.ok("models.edit", json!({"model": id, "name": "b"}))["updated"],
        0
    );
    assert_eq!(get(&server, &id)["uri"], "file:///weights");
    assert_eq!(
        server.ok("tasks.get_by_id", json!({"task": task}))["task"]["last_iteration"],
        7
    );
    let reply = server.ok("models.update", json!({"model": id, "comment": "c", "uri": "x"}));
    assert_eq!(reply["fields"], json!({"comment": "c"}));
    server.stop();
}

#[test]
fn models_are_found_by_task_name_and_tag() {
    let server = TestServer::start();
    let task = server.new_task();
    let first = create(&server, json!({"task": task, "tags": ["x"]}));
    let second = create(&server, json!({"task": task, "name": "other", "ready": false}));
    create(&server, json!({}));
    let ids = |request: Value| -> Vec<String> {
        let reply = server.ok("models.get_all", request);
        let models = reply["models"].as_array().unwrap();
        models
            .iter()
            .map(|model| model["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let of_task = json!({"task": [task], "order_by": ["created"], "only_fields": ["id"]});
    assert_eq!(ids(of_task), [first.as_str(), second.as_str()]);
    assert_eq!(ids(json!({"name": "^oth"})), [second.as_str()]);
    assert_eq!(ids(json!({"tags": ["x"]})), [first.as_str()]);
    assert_eq!(ids(json!({"ready": false})), [second.as_str()]);
    assert_eq!(
        ids(json!({"id": [second, first.clone()], "uri": ["file:///weights"]})).len(),
        2
    );
    server.ok("models.archive_many", json!({"ids": [first]}));
    assert_eq!(ids(json!({"system_tags": ["-archived"]})).len(), 2);
    let reply = server.ok("models.unarchive_many", json!({"ids": [first, "none"]}));
    assert_eq!(reply["succeeded"][0]["id"], json!(first));
    assert_eq!(reply["failed"][0]["error"]["codes"], json!([400, 201]));
    server.stop();
}

#[test]
fn a_model_becomes_ready_once_and_may_publish_its_task() {
    let server = TestServer::start();
    let task = server.new_task();
    server.ok("tasks.started", json!({"task": task}));
    server.ok("tasks.completed", json!({"task": task}));
    let quiet = create(&server, json!({"task": task, "ready": false}));
    let reply = server.ok("models.set_ready", json!({"model": quiet, "publish_task": false}));
    assert_eq!(
        (&reply["updated"], reply.get("published_task")),
        (&json!(1), None)
    );
    assert_eq!(server.call("models.set_ready", json!({"model": quiet})).1, 203);
    let loud = create(&server, json!({"task": task, "ready": false}));
    let reply = server.ok("models.set_ready", json!({"model": loud}));
    assert_eq!(reply["published_task"]["id"], json!(task));
    assert_eq!(
        server.ok("tasks.get_by_id", json!({"task": task}))["task"]["status"],
        "published"
    );
    server.stop();
}

#[test]
fn notes_are_merged_replaced_and_removed() {
    let server = TestServer::start();
    let id = create(&server, json!({}));
    let note = |key: &str| json!({"key": key, "type": "str", "value": "v"});
    let add = |more: Value| server.ok("models.add_or_update_metadata", more);
    add(json!({"model": id, "metadata": [note("a"), note("b")]}));
    add(json!({"model": id, "metadata": [note("c")]}));
    let keys = || {
        get(&server, &id)["metadata"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(), ["a", "b", "c"]);
    assert_eq!(
        server.ok("models.delete_metadata", json!({"model": id, "keys": ["a"]}))["updated"],
        1
    );
    add(json!({"model": id, "metadata": [note("z")], "replace_metadata": true}));
    assert_eq!(keys(), ["z"]);
    let bad = json!({"model": id, "metadata": [{"value": "x"}]});
    assert_eq!(server.call("models.add_or_update_metadata", bad).1, 12);
    server.stop();
}

#[test]
fn a_model_in_use_is_deleted_only_by_force() {
    let server = TestServer::start();
    let user = server.new_task();
    let id = create(&server, json!({}));
    let models = json!({"input": [{"name": "in", "model": id}], "output": []});
    server.ok("tasks.edit", json!({"task": user, "models": models}));
    assert_eq!(server.call("models.delete", json!({"model": id})).1, 205);
    let reply = server.ok("models.delete", json!({"model": id, "force": true}));
    assert_eq!(reply, json!({"deleted": true, "url": "file:///weights"}));
    assert_eq!(server.call("models.get_by_id", json!({"model": id})).1, 201);

    let task = server.new_task();
    server.ok("tasks.started", json!({"task": task}));
    server.ok("tasks.completed", json!({"task": task, "publish": true}));
    let published = create(&server, json!({"task": task}));
    assert_eq!(server.call("models.delete", json!({"model": published})).1, 206);
    server.stop();
}
