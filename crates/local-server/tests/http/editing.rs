//! Editing and cloning tasks, their parameters and artifacts.

use serde_json::{Value, json};

use crate::raw::TestServer;

fn task_of(server: &TestServer, task: &str) -> Value {
    server.ok("tasks.get_by_id", json!({"task": task}))["task"].clone()
}

fn subcode(server: &TestServer, endpoint: &str, body: Value) -> i64 {
    server.call(endpoint, body).1
}

fn running(server: &TestServer) -> String {
    let task = server.new_task();
    server.ok("tasks.started", json!({"task": task}));
    task
}

#[test]
fn an_edit_merges_some_fields_and_replaces_the_others() {
    let server = TestServer::start();
    let task = server.new_task();
    let edit = |body: Value| {
        let mut body = body;
        body["task"] = json!(task);
        server.ok("tasks.edit", body)
    };
    edit(json!({"runtime": {"a": 1}}));
    edit(json!({"runtime": {"b": 1}}));
    edit(json!({"script": {"repository": " r ", "diff": " d\n"}}));
    let reply = edit(json!({"script": {"version_num": "abc", "tag": null}}));
    assert_eq!(reply["fields"]["script.version_num"], "abc");
    edit(json!({"container": {"image": "x"}}));
    edit(json!({"container": {"arguments": "y", "setup_shell_script": null}}));
    let after = task_of(&server, &task);
    assert_eq!(after["runtime"], json!({"b": 1}));
    assert_eq!(after["script"]["repository"], "r");
    assert_eq!(after["script"]["diff"], " d\n", "the diff is not trimmed");
    assert_eq!(
        after["container"],
        json!({"arguments": "y", "setup_shell_script": null})
    );
    let nothing = edit(json!({"name": null, "script": null, "runtime": null}));
    assert_eq!(nothing, json!({"updated": 0, "fields": {}}));
    for (body, expected) in [
        (json!({"task": task, "tags": ["__$x"]}), 16),
        (json!({"task": task, "project": ""}), 16),
        (json!({"task": task, "status": "bogus"}), 12),
        (json!({"task": "zz", "name": "abc"}), 101),
    ] {
        assert_eq!(subcode(&server, "tasks.edit", body.clone()), expected, "{body}");
    }
    server.stop();
}

#[test]
fn an_edit_of_a_task_that_is_no_draft_needs_force() {
    let server = TestServer::start();
    let task = running(&server);
    assert_eq!(
        subcode(&server, "tasks.edit", json!({"task": task, "comment": "c"})),
        110
    );
    assert_eq!(
        server.ok("tasks.edit", json!({"task": task, "comment": "c", "force": true}))["updated"],
        1
    );
    server.stop();
}

#[test]
fn an_update_changes_labels_only_and_in_any_status() {
    let server = TestServer::start();
    let task = running(&server);
    server.ok("tasks.completed", json!({"task": task}));
    server.ok("tasks.update", json!({"task": task, "name": "renamed", "script": {"repository": "x"}, "status": "failed", "status_message": "m"}));
    let after = task_of(&server, &task);
    assert_eq!(
        (&after["name"], &after["status"], &after["status_message"]),
        (&json!("renamed"), &json!("completed"), &json!("m"))
    );
    assert_eq!(after["script"]["repository"], "");
    assert_eq!(
        server.ok("tasks.update", json!({"task": task, "script": {}}))["updated"],
        0
    );
    server.ok(
        "tasks.set_requirements",
        json!({"task": task, "requirements": {"pip": "a==1"}}),
    );
    assert_eq!(
        task_of(&server, &task)["script"]["requirements"],
        json!({"pip": "a==1"})
    );
    server.stop();
}

#[test]
fn parameters_follow_the_status_and_user_properties_do_not() {
    let server = TestServer::start();
    let task = running(&server);
    let edit = |section: &str, force: bool, value: Value| {
        let body = json!({"task": task, "force": force, "hyperparams": [{"section": section, "name": "n.m", "value": value}]});
        subcode(&server, "tasks.edit_hyper_params", body)
    };
    assert_eq!(edit("S", false, json!("1")), 110);
    assert_eq!(edit("S", true, json!("1")), 0);
    assert_eq!(edit("Properties", false, json!("2")), 0);
    assert_eq!(edit("S", true, json!(5)), 12);
    let params = task_of(&server, &task)["hyperparams"].clone();
    assert_eq!(
        params["properties"]["n.m"],
        json!({"section": "properties", "name": "n.m", "value": "2"})
    );
    server.ok("tasks.completed", json!({"task": task}));
    assert_eq!(edit("S", true, json!("3")), 110);
    assert_eq!(edit("PROPERTIES", false, json!("3")), 0);
    server.stop();
}

#[test]
fn parameters_are_replaced_as_far_as_asked() {
    let server = TestServer::start();
    let task = server.new_task();
    let edit = |replace: &str, section: &str, name: &str| {
        server.ok(
            "tasks.edit_hyper_params",
            json!({"task": task, "replace_hyperparams": replace,
            "hyperparams": [{"section": section, "name": name, "value": "v"}]}),
        );
    };
    let names = || {
        let params = task_of(&server, &task)["hyperparams"].clone();
        let sections = params.as_object().unwrap().iter();
        sections
            .map(|(section, items)| format!("{section}:{}", items.as_object().unwrap().len()))
            .collect::<Vec<_>>()
    };
    edit("none", "A", "1");
    edit("none", "A", "2");
    edit("none", "B", "1");
    assert_eq!(names(), ["A:2", "B:1"]);
    edit("section", "A", "3");
    assert_eq!(
        task_of(&server, &task)["hyperparams"]["A"]
            .as_object()
            .unwrap()
            .keys()
            .collect::<Vec<_>>(),
        ["3"]
    );
    server.ok(
        "tasks.delete_hyper_params",
        json!({"task": task, "hyperparams": [{"section": "B"}]}),
    );
    assert_eq!(names(), ["A:1"]);
    edit("all", "C", "1");
    assert_eq!(names(), ["C:1"]);
    server.ok(
        "tasks.edit_configuration",
        json!({"task": task, "configuration": [{"name": "c", "value": "text"}]}),
    );
    assert_eq!(task_of(&server, &task)["configuration"]["c"]["value"], "text");
    server.ok(
        "tasks.delete_configuration",
        json!({"task": task, "configuration": ["c"]}),
    );
    assert_eq!(task_of(&server, &task)["configuration"], json!({}));
    server.stop();
}

#[test]
fn artifacts_are_keyed_by_name_and_mode() {
    let server = TestServer::start();
    let task = running(&server);
    let add = |uri: &str, mode: &str| {
        server.call(
            "tasks.add_or_update_artifacts",
            json!({"task": task, "force": true,
            "artifacts": [{"key": "k", "type": "custom", "mode": mode, "uri": uri}]}),
        )
    };
    add("1", "output");
    add("2", "output");
    add("3", "input");
    let found = task_of(&server, &task)["execution"]["artifacts"].clone();
    let found: Vec<(&str, &str)> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|a| (a["mode"].as_str().unwrap(), a["uri"].as_str().unwrap()))
        .collect();
    assert_eq!(found, [("input", "3"), ("output", "2")]);
    server.ok(
        "tasks.delete_artifacts",
        json!({"task": task, "artifacts": [{"key": "k", "mode": "input"}]}),
    );
    assert_eq!(
        task_of(&server, &task)["execution"]["artifacts"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    server.ok("tasks.completed", json!({"task": task}));
    assert_eq!(add("4", "output").1, 110);
    assert_eq!(
        subcode(
            &server,
            "tasks.add_or_update_model",
            json!({"task": task, "name": "m", "model": "zz", "type": "output"})
        ),
        201
    );
    server.stop();
}

#[test]
fn runtime_is_merged_key_by_key_while_the_task_lives() {
    let server = TestServer::start();
    let task = running(&server);
    server.ok(
        "tasks.edit_runtime",
        json!({"task": task, "add_or_update": {"a": 1, "b": 2}}),
    );
    server.ok(
        "tasks.edit_runtime",
        json!({"task": task, "add_or_update": {"c": 3}, "remove": ["a"]}),
    );
    assert_eq!(task_of(&server, &task)["runtime"], json!({"b": 2, "c": 3}));
    server.ok("tasks.stopped", json!({"task": task}));
    assert_eq!(
        subcode(
            &server,
            "tasks.edit_runtime",
            json!({"task": task, "add_or_update": {}})
        ),
        110
    );
    server.stop();
}

#[test]
fn a_clone_copies_the_order_and_not_the_history() {
    let server = TestServer::start();
    let project = server.ok("projects.create", json!({"name": "origin"}))["id"].clone();
    let task = server.new_task();
    server.ok("tasks.edit", json!({"task": task, "project": project, "tags": ["t"], "system_tags": ["development", "archived", "keep"],
        "script": {"repository": "r"}, "container": {"image": "i"}, "runtime": {"x": 1}, "output_dest": "dest",
        "hyperparams": {"properties": {"p": {"value": "1"}}}, "execution": {"framework": "f", "queue": "q",
        "artifacts": [{"key": "o", "type": "t"}, {"key": "i", "type": "t", "mode": "input"}]},
        "models": {"input": [{"name": "in", "model": "m1"}], "output": [{"name": "out", "model": "m2"}]}}));
    server.ok("tasks.started", json!({"task": task, "status_reason": "r"}));
    let copy = server.ok(
        "tasks.clone",
        json!({"task": task, "new_task_name": "the copy", "new_task_tags": []}),
    )["id"]
        .clone();
    let copied = task_of(&server, copy.as_str().unwrap());
    for (field, expected) in [
        ("name", json!("the copy")),
        ("status", json!("created")),
        ("project", project),
        ("parent", json!(task)),
        ("tags", json!(["t"])),
        ("system_tags", json!(["keep"])),
        ("container", json!({"image": "i"})),
        ("runtime", json!({})),
        ("output", json!({"destination": "dest"})),
    ] {
        assert_eq!(copied[field], expected, "{field}");
    }
    assert_eq!(
        (&copied["script"]["repository"], &copied["execution"]["framework"]),
        (&json!("r"), &json!("f"))
    );
    assert!(
        copied["execution"].get("queue").is_none()
            && copied.get("started").is_none()
            && copied.get("status_reason").is_none()
    );
    assert_eq!(copied["execution"]["artifacts"].as_array().unwrap().len(), 1);
    assert_eq!(
        (
            &copied["models"]["input"][0]["model"],
            &copied["models"]["output"]
        ),
        (&json!("m1"), &json!([]))
    );
    assert_eq!(copied["hyperparams"]["properties"]["p"]["value"], "1");

    let grandchild = server.ok("tasks.clone", json!({"task": copy}))["id"].clone();
    assert_eq!(
        task_of(&server, grandchild.as_str().unwrap())["parent"],
        json!(task)
    );
    let moved = server.ok("tasks.clone", json!({"task": copy, "new_project_name": "brand new", "execution_overrides": {"parameters": {"a": "1"}}}));
    assert_eq!(moved["new_project"]["name"], "brand new");
    assert_eq!(
        task_of(&server, moved["id"].as_str().unwrap())["hyperparams"]["Args"]["a"]["value"],
        "1"
    );
    for (body, expected) in [
        (json!({"task": task, "new_task_name": "NN"}), 800),
        (json!({"task": "zz"}), 101),
        (json!({"task": task, "new_task_project": "zz"}), 401),
    ] {
        assert_eq!(subcode(&server, "tasks.clone", body.clone()), expected, "{body}");
    }
    server.stop();
}

#[test]
fn tags_and_places_change_for_many_at_once() {
    let server = TestServer::start();
    let tasks = [server.new_task(), running(&server)];
    assert_eq!(
        server.ok(
            "tasks.update_tags",
            json!({"ids": tasks, "add_tags": ["b", "a"], "remove_tags": ["z"]})
        )["updated"],
        4
    );
    assert_eq!(task_of(&server, &tasks[1])["tags"], json!(["a", "b"]));
    let project =
        server.ok("tasks.move", json!({"ids": tasks, "project_name": "new place"}))["project_id"].clone();
    assert_eq!(task_of(&server, &tasks[0])["project"], project);
    server.stop();
}
