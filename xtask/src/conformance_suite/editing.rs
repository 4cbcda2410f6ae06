//! Changing tasks: merging, parameters, artifacts, clones.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::scene::{Scene, fields, id, list, same, without};
use super::{Case, case};

pub(super) const CASES: &[Case] = &[
    case("85", "an edit of a running task needs force", |scene| {
        let task = scene.running()?;
        scene.refused("tasks.edit", json!({"task": task, "comment": "c"}), (400, 110))?;
        let reply = scene.ok("tasks.edit", json!({"task": task, "comment": "c", "force": true}))?;
        fields(&reply, json!({"updated": 1, "fields.comment": "c"}))
    }),
    case("86", "an edit replaces the runtime as a whole", |scene| {
        let task = scene.task()?;
        scene.ok("tasks.edit", json!({"task": task, "runtime": {"a": 1}}))?;
        scene.ok("tasks.edit", json!({"task": task, "runtime": {"b": 1}}))?;
        same("the runtime", &scene.task_doc(&task)?["runtime"], json!({"b": 1}))
    }),
    case("87", "an edit merges the script", |scene| {
        let task = scene.task_with(json!({"script": {"entry_point": "a.py", "repository": " r "}}))?;
        scene.ok(
            "tasks.edit",
            json!({"task": task, "script": {"version_num": "abc"}}),
        )?;
        fields(
            &scene.task_doc(&task)?["script"],
            json!({"entry_point": "a.py", "repository": "r", "version_num": "abc", "binary": "python"}),
        )
    }),
    case("88", "an edit replaces the container as a whole", |scene| {
        let task = scene.task()?;
        scene.ok("tasks.edit", json!({"task": task, "container": {"image": "x"}}))?;
        scene.ok(
            "tasks.edit",
            json!({"task": task, "container": {"arguments": "y"}}),
        )?;
        same(
            "the container",
            &scene.task_doc(&task)?["container"],
            json!({"arguments": "y"}),
        )
    }),
    case("89", "an edit of nothing changes nothing", |scene| {
        let body =
            json!({"task": scene.task()?, "comment": null, "script": null, "runtime": null, "tags": null});
        same("updated", &scene.ok("tasks.edit", body)?["updated"], json!(0))
    }),
    case("90", "tags that look like operators are 400/16", |scene| {
        scene.refused(
            "tasks.edit",
            json!({"task": scene.task()?, "tags": ["__$x"]}),
            (400, 16),
        )
    }),
    case("91", "an update changes labels only", |scene| {
        let task = scene.running()?;
        let body =
            json!({"task": task, "name": "renamed", "script": {"entry_point": "b.py"}, "status": "failed"});
        same("updated", &scene.ok("tasks.update", body)?["updated"], json!(1))?;
        fields(
            &scene.task_doc(&task)?,
            json!({"name": "renamed", "status": "in_progress", "script.entry_point": ""}),
        )
    }),
    case("92", "requirements can be stored at any time", |scene| {
        let task = scene.task_in("completed")?;
        scene.ok(
            "tasks.set_requirements",
            json!({"task": task, "requirements": {"pip": "six"}}),
        )?;
        same(
            "the requirements",
            &scene.task_doc(&task)?["script"]["requirements"],
            json!({"pip": "six"}),
        )
    }),
    case(
        "93",
        "parameters of a running task need force, user properties do not",
        |scene| {
            let task = scene.running()?;
            scene.refused("tasks.edit_hyper_params", parameter(&task, "S", "v"), (400, 110))?;
            let mut forced = parameter(&task, "S", "v");
            forced["force"] = json!(true);
            scene.ok("tasks.edit_hyper_params", forced)?;
            scene.ok("tasks.edit_hyper_params", parameter(&task, "Properties", "v"))?;
            fields(
                &scene.task_doc(&task)?["hyperparams"],
                json!({"S.n.value": "v", "properties.n.value": "v", "properties.n.section": "properties"}),
            )
        },
    ),
    case(
        "94",
        "parameters of a completed task are fixed, user properties are not",
        |scene| {
            let task = scene.task_in("completed")?;
            let mut forced = parameter(&task, "S", "v");
            forced["force"] = json!(true);
            scene.refused("tasks.edit_hyper_params", forced, (400, 110))?;
            scene
                .ok("tasks.edit_hyper_params", parameter(&task, "properties", "v"))
                .map(drop)
        },
    ),
    case("95", "the value of a parameter is text", |scene| {
        let items = json!([{"section": "S", "name": "n", "value": 5}]);
        scene.refused(
            "tasks.edit_hyper_params",
            json!({"task": scene.task()?, "hyperparams": items}),
            (400, 12),
        )
    }),
    case(
        "96",
        "names with dots are kept, and written with %2E in paths",
        |scene| {
            let task = scene.task()?;
            let items = json!([{"section": "S", "name": "n.m", "value": "v"}]);
            scene.ok(
                "tasks.edit_hyper_params",
                json!({"task": task, "hyperparams": items}),
            )?;
            same(
                "the value",
                &scene.task_doc(&task)?["hyperparams"]["S"]["n.m"]["value"],
                json!("v"),
            )?;
            let only = json!({"id": [task], "only_fields": ["hyperparams.S.n%2Em"]});
            let found = scene.ok("tasks.get_all", only)?;
            same(
                "projected",
                &found["tasks"][0]["hyperparams"]["S"]["n.m"]["value"],
                json!("v"),
            )
        },
    ),
    case("97", "a section can be replaced without the others", |scene| {
        let task = scene.task()?;
        let items = json!([
            {"section": "A", "name": "a", "value": "1"}, {"section": "A", "name": "b", "value": "1"},
            {"section": "B", "name": "c", "value": "1"},
        ]);
        scene.ok(
            "tasks.edit_hyper_params",
            json!({"task": task, "hyperparams": items}),
        )?;
        let mut body = parameter(&task, "A", "2");
        body["replace_hyperparams"] = json!("section");
        scene.ok("tasks.edit_hyper_params", body)?;
        let found = scene.task_doc(&task)?["hyperparams"].take();
        without(&found["A"], &["a", "b"])?;
        fields(&found, json!({"A.n.value": "2", "B.c.value": "1"}))
    }),
    case(
        "98",
        "parameters come flat, sorted by section and name",
        |scene| {
            let task = scene.task()?;
            let items = json!([
                {"section": "B", "name": "b", "value": "1"}, {"section": "A", "name": "z", "value": "1"},
                {"section": "B", "name": "a", "value": "1"},
            ]);
            scene.ok(
                "tasks.edit_hyper_params",
                json!({"task": task, "hyperparams": items}),
            )?;
            let found = scene.ok("tasks.get_hyper_params", json!({"tasks": [task]}))?["params"][0].take();
            let names: Vec<Value> = list(&found, "hyperparams")?
                .iter()
                .map(|item| json!([item["section"], item["name"]]))
                .collect();
            same(
                "the order",
                &json!(names),
                json!([["A", "z"], ["B", "a"], ["B", "b"]]),
            )
        },
    ),
    case("99", "an artifact is known by key and mode", |scene| {
        let task = scene.task()?;
        for (mode, uri) in [("output", "u1"), ("output", "u2"), ("input", "u3")] {
            let items = json!([{"key": "k", "type": "t", "mode": mode, "uri": uri}]);
            scene.ok(
                "tasks.add_or_update_artifacts",
                json!({"task": task, "artifacts": items}),
            )?;
        }
        let doc = scene.task_doc(&task)?;
        let mut found: Vec<String> = list(&doc["execution"], "artifacts")?
            .iter()
            .map(|item| format!("{} {}", item["mode"], item["uri"]))
            .collect();
        found.sort();
        same(
            "the artifacts",
            &json!(found),
            json!([r#""input" "u3""#, r#""output" "u2""#]),
        )
    }),
    case("100", "artifacts of a completed task are fixed", |scene| {
        let items = json!([{"key": "k", "type": "t"}]);
        let body = json!({"task": scene.task_in("completed")?, "artifacts": items});
        scene.refused("tasks.add_or_update_artifacts", body, (400, 110))
    }),
    case("101", "a clone copies the order and not the history", |scene| {
        clones(scene).map(drop)
    }),
    case("102", "a clone of a clone hangs under the original", |scene| {
        let (source, clone) = clones(scene)?;
        let second = id(&scene.ok("tasks.clone", json!({"task": clone}))?)?;
        same("the parent", &scene.task_doc(&second)?["parent"], json!(source))
    }),
    case(
        "103",
        "a clone can go to a project that is made for it",
        |scene| {
            let name = scene.name("for clones");
            let reply = scene.ok(
                "tasks.clone",
                json!({"task": scene.task()?, "new_project_name": name}),
            )?;
            scene.own_project(&reply["new_project"]["id"]);
            same("the project", &reply["new_project"]["name"], json!(name))?;
            same(
                "its id",
                &scene.task_doc(&id(&reply)?)?["project"],
                reply["new_project"]["id"].clone(),
            )
        },
    ),
    case("104", "a clone is checked", |scene| {
        scene.refused(
            "tasks.clone",
            json!({"task": scene.task()?, "new_task_name": "NN"}),
            (400, 800),
        )?;
        scene.refused("tasks.clone", json!({"task": "zz"}), (400, 101))
    }),
    case(
        "models.update_for_task",
        "older clients change the model of a task; for newer ones the call is retired",
        |scene| {
            let task = scene.task()?;
            let body = json!({"task": task, "uri": "file:///tmp/w", "name": scene.name("model")});
            let made = scene.ok("v2.13/models.update_for_task", body.clone())?;
            same("created", &made["created"], json!(true))?;
            scene.own_model(&made["id"]);
            same(
                "again",
                &scene.ok("v2.13/models.update_for_task", body.clone())?["id"],
                made["id"].clone(),
            )?;
            scene.refused("models.update_for_task", body, (301, 1))
        },
    ),
    case(
        "models.get_by_task_id",
        "older clients find the model of a task; for newer ones the call is retired",
        |scene| {
            let task = scene.task()?;
            let body = json!({"task": task, "uri": "file:///tmp/w", "name": scene.name("model")});
            let made = scene.ok("v2.13/models.update_for_task", body)?;
            scene.own_model(&made["id"]);
            let found = scene.ok("v2.13/models.get_by_task_id", json!({"task": task}))?;
            same("the model", &found["model"]["id"], made["id"].clone())?;
            scene.refused("models.get_by_task_id", json!({"task": task}), (301, 1))
        },
    ),
    case(
        "references",
        "the calls with references show the fields asked for",
        |scene| {
            let project = scene.project()?;
            let task = scene.task_with(json!({"project": project}))?;
            let only = json!(["id", "project.name", "project.basename"]);
            let found = scene.ok("tasks.get_by_id_ex", json!({"task": task, "only_fields": only}))?;
            fields(&found["task"]["project"], json!({"id": project}))?;
            ensure!(found["task"]["project"]["name"].is_string(), "no name: {found}");
            scene.refused("tasks.get_by_id_ex", json!({"task": "zz"}), (400, 101))?;
            scene.refused("tasks.get_by_id_ex", json!({}), (400, 11))
        },
    ),
    case(
        "3.8",
        "runtime of a live task is merged key by key, of an ended one fixed",
        |scene| {
            let task = scene.running()?;
            scene.ok(
                "tasks.edit",
                json!({"task": task, "force": true, "runtime": {"a": 1, "b": 1}}),
            )?;
            scene.ok(
                "tasks.edit_runtime",
                json!({"task": task, "add_or_update": {"c": 1}, "remove": ["a"]}),
            )?;
            same(
                "the runtime",
                &scene.task_doc(&task)?["runtime"],
                json!({"b": 1, "c": 1}),
            )?;
            scene.ok("tasks.completed", json!({"task": task}))?;
            scene.refused(
                "tasks.edit_runtime",
                json!({"task": task, "add_or_update": {"d": 1}}),
                (400, 110),
            )
        },
    ),
];

fn parameter(task: &str, section: &str, value: &str) -> Value {
    json!({"task": task, "hyperparams": [{"section": section, "name": "n", "value": value}]})
}

/// A task that has run, and a clone of it.
fn clones(scene: &Scene<'_>) -> Result<(String, String)> {
    let copied = json!({
        "comment": "c", "tags": ["t"], "script": {"entry_point": "a.py", "diff": "d"},
        "container": {"image": "i"}, "configuration": {"k": {"name": "k", "value": "v"}},
        "hyperparams": {"properties": {"n": {"section": "properties", "name": "n", "value": "v"}}},
    });
    let source = scene.task_with(copied.clone())?;
    let edit = json!({"task": source, "system_tags": ["development", "x"], "runtime": {"a": 1}});
    scene.ok("tasks.edit", edit)?;
    for mode in ["input", "output"] {
        let items = json!([{"key": mode, "type": "t", "mode": mode}]);
        scene.ok(
            "tasks.add_or_update_artifacts",
            json!({"task": source, "artifacts": items}),
        )?;
    }
    scene.ok("tasks.started", json!({"task": source}))?;
    scene.ok(
        "tasks.completed",
        json!({"task": source, "status_message": "over"}),
    )?;
    let clone = id(&scene.ok(
        "tasks.clone",
        json!({"task": source, "new_task_name": "the clone"}),
    )?)?;
    let doc = scene.task_doc(&clone)?;
    for field in ["comment", "tags", "container", "configuration", "hyperparams"] {
        same(field, &doc[field], copied[field].clone())?;
    }
    fields(
        &doc,
        json!({
            "name": "the clone", "status": "created", "parent": source, "system_tags": ["x"], "runtime": {},
            "script.entry_point": "a.py", "script.diff": "d",
        }),
    )?;
    without(&doc, &["started", "completed", "status_message", "last_worker"])?;
    let artifacts = list(&doc["execution"], "artifacts")?;
    ensure!(
        artifacts.len() == 1 && artifacts[0]["key"] == "input",
        "artifacts {artifacts:?}"
    );
    Ok((source, clone))
}
