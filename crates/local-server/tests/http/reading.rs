//! Projects, creation of tasks, selections and projections, and what old clients see.

use serde_json::{Value, json};

use crate::raw::TestServer;

fn ids(data: &Value) -> Vec<&str> {
    data["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| task["id"].as_str().unwrap())
        .collect()
}

/// Code and subcode of a call.
fn outcome(server: &TestServer, endpoint: &str, body: Value) -> (i64, i64) {
    let (code, subcode, _) = server.call(endpoint, body);
    (code, subcode)
}

fn create(server: &TestServer, fields: Value) -> String {
    let mut body = json!({"name": "a task", "type": "training"});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    server.ok("tasks.create", body)["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_project_brings_its_parents() {
    let server = TestServer::start();
    let id = server.ok(
        "projects.create",
        json!({"name": "Alpha / Beta/Gamma/", "description": ""}),
    )["id"]
        .clone();
    let all = server.ok("projects.get_all", json!({}))["projects"].clone();
    assert_eq!(all.as_array().unwrap().len(), 3);
    let project = server.ok("projects.get_by_id", json!({"project": id}))["project"].clone();
    assert_eq!(
        (&project["name"], &project["basename"]),
        (&json!("Alpha/Beta/Gamma"), &json!("Gamma"))
    );
    assert_eq!(project["path"].as_array().unwrap().len(), 2);
    assert_eq!(project["parent"], project["path"][1]);
    assert!(all[0].get("path").is_none());
    for (name, expected) in [
        ("Alpha/Beta/Gamma", (400, 801)),
        ("ab", (400, 12)),
        ("Alpha/b", (400, 12)),
    ] {
        assert_eq!(
            outcome(&server, "projects.create", json!({"name": name})),
            expected,
            "{name}"
        );
    }
    assert_eq!(outcome(&server, "projects.create", json!({})), (400, 11));
    assert_eq!(
        outcome(&server, "projects.get_by_id", json!({"project": "zz"})),
        (400, 401)
    );
    let found = server.ok(
        "projects.get_all",
        json!({"name": "^Alpha/Beta/Gamma$", "only_fields": ["id"], "search_hidden": true}),
    );
    assert_eq!(found["projects"], json!([{"id": id}]));
    server.stop();
}

#[test]
fn projects_are_listed_by_level_renamed_and_deleted() {
    let server = TestServer::start();
    server.ok("projects.create", json!({"name": "Top/Mid/Low"}));
    let names = |body: Value| -> Vec<String> {
        let found = server.ok("projects.get_all", body);
        found["projects"]
            .as_array()
            .unwrap()
            .iter()
            .map(|project| project["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let top = server.ok("projects.get_all", json!({"name": "^Top$"}))["projects"][0]["id"].clone();
    assert_eq!(names(json!({"shallow_search": true})), ["Top"]);
    assert_eq!(names(json!({"parent": [top]})), ["Top/Mid", "Top/Mid/Low"]);
    assert_eq!(
        names(json!({"parent": [top], "shallow_search": true})),
        ["Top/Mid"]
    );
    assert_eq!(
        outcome(
            &server,
            "projects.update",
            json!({"project": top, "name": "Other/Top"})
        ),
        (400, 408)
    );
    server.ok(
        "projects.update",
        json!({"project": top, "name": "New", "tags": ["b", "a", "b"]}),
    );
    assert_eq!(names(json!({})), ["New", "New/Mid", "New/Mid/Low"]);
    let task = create(&server, json!({"project": top}));
    assert_eq!(
        outcome(&server, "projects.delete", json!({"project": top})),
        (400, 402)
    );
    assert_eq!(
        server.ok("projects.delete", json!({"project": top, "force": true}))["disassociated_tasks"],
        1
    );
    assert!(
        server.ok("tasks.get_by_id", json!({"task": task}))["task"]
            .get("project")
            .is_none()
    );
    assert!(names(json!({})).is_empty());
    server.stop();
}

#[test]
fn a_fresh_task_has_the_documented_defaults() {
    let server = TestServer::start();
    let id = create(&server, json!({"name": " xyz ", "bogus": 1}));
    let task = server.ok("tasks.get_by_id", json!({"task": id, "only_fields": ["id"]}))["task"].clone();
    let expected = json!({
        "name": "xyz", "type": "training", "status": "created", "output": {}, "tags": [], "system_tags": [],
        "execution": {"test_split": 0, "parameters": {}, "model_desc": {}, "model_labels": {}, "artifacts": []},
        "script": {"binary": "python", "repository": "", "entry_point": "", "requirements": {}},
        "hyperparams": {}, "configuration": {}, "runtime": {}, "container": {}, "last_metrics": {}, "metric_stats": {},
        "models": {"input": [], "output": []}, "last_iteration": 0, "report_assets": [],
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&task[field], value, "{field}");
    }
    for absent in [
        "status_message",
        "status_reason",
        "started",
        "completed",
        "project",
        "parent",
        "enqueue_status",
    ] {
        assert!(task.get(absent).is_none(), "{absent}");
    }
    server.stop();
}

#[test]
fn creation_checks_what_it_is_given() {
    let server = TestServer::start();
    for (body, expected) in [
        (json!({"name": "x", "type": "training"}), (400, 800)),
        (json!({"name": "xyz", "type": "bogus"}), (400, 12)),
        (json!({"name": "xyz"}), (400, 12)),
        (json!({"type": "training"}), (400, 12)),
        (
            json!({"name": "xyz", "type": "training", "project": "zz"}),
            (400, 16),
        ),
        (
            json!({"name": "xyz", "type": "training", "parent": "zz"}),
            (400, 16),
        ),
        (
            json!({"name": "xyz", "type": "training", "tags": ["__$x"]}),
            (400, 16),
        ),
        (
            json!({"name": "xyz", "type": "training", "script": {"nosuch": "x"}}),
            (400, 12),
        ),
        (
            json!({"name": "xyz", "type": "training", "container": {"image": 5}}),
            (400, 12),
        ),
        (
            json!({"name": "xyz", "type": "training", "hyperparams": {"": {"a": {"value": "1"}}}}),
            (400, 12),
        ),
    ] {
        assert_eq!(outcome(&server, "tasks.create", body.clone()), expected, "{body}");
        assert_eq!(
            outcome(&server, "tasks.validate", body.clone()),
            expected,
            "{body}"
        );
    }
    server.ok("tasks.validate", json!({"name": "xyz", "type": "training"}));
    assert!(
        server.ok("tasks.get_all", json!({}))["tasks"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    server.stop();
}

#[test]
fn selections_by_id_and_projections_are_exact() {
    let server = TestServer::start();
    let (one, two) = (
        create(&server, json!({})),
        create(&server, json!({"runtime": {"_x": 5, "y": 6}})),
    );
    for (request, expected) in [
        (json!({"id": one}), vec![&one]),
        (json!({"id": [two, one]}), vec![&two, &one]),
        (json!({"id": []}), vec![&one, &two]),
        (json!({"id": ["zz"]}), vec![]),
        (
            json!({"id": [one, two], "order_by": ["-created", "id"], "page": 0, "page_size": 1}),
            vec![],
        ),
    ] {
        let found = server.ok("tasks.get_all", request.clone());
        if request.get("order_by").is_some() {
            assert_eq!(ids(&found).len(), 1);
        } else {
            assert_eq!(ids(&found), expected, "{request}");
        }
    }
    for (task, fields, expected) in [
        (
            &one,
            json!(["status", "status_message"]),
            json!({"status": "created"}),
        ),
        (&one, json!(["runtime._x"]), json!({"runtime": {}})),
        (&two, json!(["runtime._x"]), json!({"runtime": {"_x": 5}})),
    ] {
        let found = server.ok("tasks.get_all", json!({"id": [task], "only_fields": fields}));
        assert_eq!(found["tasks"], json!([expected]));
    }
    for (request, expected) in [
        (json!({"only_fields": ["nosuch"]}), (400, 14)),
        (json!({"order_by": ["nosuch"]}), (400, 14)),
        (json!({"name": "("}), (400, 21)),
        (json!({"status": [5]}), (400, 16)),
        (json!({"page": -1}), (400, 12)),
        (json!({"page_size": 0}), (400, 12)),
    ] {
        assert_eq!(
            outcome(&server, "tasks.get_all", request.clone()),
            expected,
            "{request}"
        );
    }
    server.stop();
}

#[test]
fn selections_by_column_and_by_document_agree() {
    let server = TestServer::start();
    let project = server.ok("projects.create", json!({"name": "the project"}))["id"].clone();
    let one = create(
        &server,
        json!({"tags": ["x"], "project": project, "comment": "com"}),
    );
    let two = create(
        &server,
        json!({"tags": ["y"], "type": "testing", "parent": one, "name": "Other"}),
    );
    for (request, expected) in [
        (json!({"project": project}), vec![&one]),
        (json!({"project": [null]}), vec![&two]),
        (json!({"type": ["testing", "qc"]}), vec![&two]),
        (json!({"type": ["-testing"]}), vec![&one]),
        (json!({"parent": one}), vec![&two]),
        (json!({"status": ["created", "failed"]}), vec![&one, &two]),
        (json!({"tags": ["__$not", "x"]}), vec![&two]),
        (json!({"name": "^a\\ task$"}), vec![&one]),
        (json!({"name": "other"}), vec![]),
        (
            json!({"_any_": {"fields": ["comment", "name"], "pattern": "COM"}}),
            vec![&one],
        ),
        (json!({"order_by": ["-type"]}), vec![&one, &two]),
        (json!({"order_by": "name"}), vec![&two, &one]),
    ] {
        assert_eq!(
            ids(&server.ok("tasks.get_all", request.clone())),
            expected,
            "{request}"
        );
    }
    server.stop();
}

#[test]
fn hidden_tasks_are_found_by_those_who_ask() {
    let server = TestServer::start();
    let hidden = create(&server, json!({"name": "concealed", "system_tags": ["hidden"]}));
    for (request, expected) in [
        (json!({"name": "concealed"}), 0),
        (json!({"name": "concealed", "search_hidden": true}), 1),
        (json!({"id": [hidden]}), 1),
    ] {
        assert_eq!(
            ids(&server.ok("tasks.get_all", request.clone())).len(),
            expected,
            "{request}"
        );
    }
    server.stop();
}

#[test]
fn no_reply_holds_more_than_500_tasks() {
    let server = TestServer::start();
    for _ in 0..520 {
        create(&server, json!({}));
    }
    for (request, expected) in [
        (json!({}), 500),
        (json!({"page": 1, "page_size": 500}), 20),
        (json!({"page_size": 1000}), 500),
    ] {
        let mut request = request;
        request["only_fields"] = json!(["id"]);
        assert_eq!(
            ids(&server.ok("tasks.get_all", request.clone())).len(),
            expected,
            "{request}"
        );
    }
    server.stop();
}

#[test]
fn old_clients_see_and_send_the_old_forms() {
    let server = TestServer::start();
    let old = |path: &str, body: Value| {
        server
            .call_raw(path, "application/json", body.to_string().as_bytes())
            .2
    };
    let task = create(
        &server,
        json!({"container": {"image": "ubuntu", "arguments": "--x"}, "tags": ["t"], "system_tags": ["development"],
        "models": {"input": [{"name": "m", "model": "m1"}]}}),
    );
    let body = json!({"task": task});
    assert_eq!(
        old("/v2.5/tasks.get_by_id", body.clone())["task"]["execution"]["docker_cmd"],
        "ubuntu --x"
    );
    assert_eq!(
        old("/v2.5/tasks.get_by_id", body.clone())["task"]["execution"]["model"],
        "m1"
    );
    assert!(
        old("/v2.13/tasks.get_by_id", body.clone())["task"]["execution"]
            .get("docker_cmd")
            .is_none()
    );
    assert_eq!(
        old("/v2.2/tasks.get_by_id", body.clone())["task"]["tags"],
        json!(["t", "development"])
    );

    let parameters = json!({"a/b": 1, "TF_DEFINE/x": "y", "flag": true});
    old(
        "/v2.5/tasks.edit",
        json!({"task": task, "execution": {"parameters": parameters, "docker_cmd": "image -v /a:/b --rm"}}),
    );
    let now = server.ok("tasks.get_by_id", body.clone())["task"].clone();
    assert_eq!(
        now["hyperparams"]["Args"]["a/b"],
        json!({"section": "Args", "name": "a/b", "value": "1", "type": "legacy"})
    );
    assert_eq!(now["hyperparams"]["TF_DEFINE"]["x"]["value"], "y");
    assert_eq!(
        now["container"],
        json!({"image": "image", "arguments": "-v /a:/b --rm"})
    );
    assert_eq!(now["execution"]["parameters"], json!({}));
    let echoed = old("/v2.5/tasks.get_by_id", body.clone())["task"]["execution"]["parameters"].clone();
    assert_eq!(echoed, json!({"a/b": "1", "TF_DEFINE/x": "y", "flag": "True"}));
    old(
        "/v2.5/tasks.edit",
        json!({"task": task, "execution": {"parameters": {"only": "z"}}}),
    );
    assert_eq!(
        server.ok("tasks.get_by_id", body)["task"]["hyperparams"]
            .as_object()
            .unwrap()
            .len(),
        1,
        "earlier ones are replaced"
    );
    server.stop();
}

#[test]
fn parameters_come_flat_and_sorted() {
    let server = TestServer::start();
    let task = create(
        &server,
        json!({"hyperparams": {"B": {"z": {"value": "1"}, "a": {"value": "2"}}, "A": {"n.m": {"value": "3"}}},
        "configuration": {"c1": {"value": "text"}, "c2": {"value": ""}}}),
    );
    let items =
        server.ok("tasks.get_hyper_params", json!({"tasks": [task]}))["params"][0]["hyperparams"].clone();
    let names: Vec<(&str, &str)> = items
        .as_array()
        .unwrap()
        .iter()
        .map(|item| (item["section"].as_str().unwrap(), item["name"].as_str().unwrap()))
        .collect();
    assert_eq!(names, [("A", "n.m"), ("B", "a"), ("B", "z")]);
    let found = server.ok(
        "tasks.get_all",
        json!({"id": [task], "only_fields": ["hyperparams.A.n%2Em.value"]}),
    );
    assert_eq!(found["tasks"][0]["hyperparams"]["A"]["n.m"]["value"], "3");
    assert_eq!(
        outcome(&server, "tasks.get_hyper_params", json!({"tasks": ["zz"]})),
        (400, 101)
    );
    assert_eq!(
        outcome(&server, "tasks.get_hyper_params", json!({"tasks": []})),
        (400, 12)
    );
    let names = server.ok("tasks.get_configuration_names", json!({"tasks": [task]}));
    assert_eq!(names["configurations"][0]["names"], json!(["c1"]));
    let configurations = server.ok(
        "tasks.get_configurations",
        json!({"tasks": [task], "names": ["c1"]}),
    );
    assert_eq!(
        configurations["configurations"][0]["configuration"][0]["value"],
        "text"
    );
    assert_eq!(
        server.ok("tasks.get_types", json!({}))["types"],
        json!(["training"])
    );
    server.stop();
}
