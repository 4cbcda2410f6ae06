//! Projects, creating tasks, and the language of selections.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::scene::{Scene, fields, id, list, same, without};
use super::{Case, case};

pub(super) const CASES: &[Case] = &[
    case("41", "a project brings its parents", |scene| {
        tree(scene).map(drop)
    }),
    case("42", "a project name is used once", |scene| {
        let name = tree(scene)?;
        scene.refused("projects.create", json!({"name": name}), (400, 801))
    }),
    case(
        "43",
        "every part of a project name needs three letters",
        |scene| scene.refused("projects.create", json!({"name": "ab"}), (400, 12)),
    ),
    case(
        "44",
        "a project is found by an anchored pattern, with only its id",
        |scene| {
            let name = tree(scene)?;
            let found = scene.ok(
                "projects.get_all",
                json!({"name": format!("^{name}$"), "only_fields": ["id"]}),
            )?;
            let found = list(&found, "projects")?;
            same("the number", &json!(found.len()), json!(1))?;
            same(
                "the fields",
                &json!(found[0].as_object().map(|fields| fields.len())),
                json!(1),
            )?;
            id(&found[0]).map(drop)
        },
    ),
    case("45", "an unknown project is 400/401", |scene| {
        scene.refused("projects.get_by_id", json!({"project": "zz"}), (400, 401))
    }),
    case("46", "unknown fields do not hinder a creation", |scene| {
        scene.task_with(json!({"bogus": 1, "method": "get"})).map(drop)
    }),
    case("47", "a creation is checked", |scene| {
        for (body, codes) in [
            (json!({"name": "x", "type": "training"}), (400, 800)),
            (json!({"name": "xyz", "type": "bogus"}), (400, 12)),
            (json!({"name": "xyz"}), (400, 12)),
            (
                json!({"name": "xyz", "type": "training", "project": "zz"}),
                (400, 16),
            ),
            (
                json!({"name": "xyz", "type": "training", "parent": "zz"}),
                (400, 16),
            ),
        ] {
            scene.refused("tasks.create", body, codes)?;
        }
        Ok(())
    }),
    case("48", "a fresh task has its defaults and no more", defaults),
    case(
        "49",
        "a projection has the fields asked for and not even the id",
        |scene| {
            let task = scene.running()?;
            let only = json!({"id": [task], "only_fields": ["status", "status_message"]});
            let found = scene.ok("tasks.get_all", only)?;
            same(
                "the tasks",
                &found["tasks"],
                json!([{"status": "in_progress", "status_message": ""}]),
            )
        },
    ),
    case("50", "a projection goes into nested fields", |scene| {
        let task = scene.task()?;
        let only = json!({"id": [task], "only_fields": ["runtime._x"]});
        let unset = scene.ok("tasks.get_all", only.clone())?["tasks"][0].take();
        ensure!(
            unset == json!({"runtime": {}}) || unset == json!({}),
            "unset is {unset}"
        );
        scene.ok(
            "tasks.edit",
            json!({"task": task, "runtime": {"_x": "set", "_y": 1}}),
        )?;
        let found = scene.ok("tasks.get_all", only)?;
        same("the task", &found["tasks"][0], json!({"runtime": {"_x": "set"}}))
    }),
    case(
        "51",
        "unknown fields in projections and orders are 400/14",
        |scene| {
            scene.refused("tasks.get_all", json!({"only_fields": ["nosuch"]}), (400, 14))?;
            scene.refused("tasks.get_all", json!({"order_by": ["nosuch"]}), (400, 14))
        },
    ),
    case("52", "an id may be a string", |scene| {
        let task = scene.task()?;
        let found = scene.ok("tasks.get_all", json!({"id": task}))?;
        same("the tasks", &json!(list(&found, "tasks")?.len()), json!(1))
    }),
    case("53", "an empty list of ids selects everything", |scene| {
        let (project, _) = tagged(scene)?;
        let body = json!({"id": [], "project": [project]});
        same(
            "the tasks",
            &json!(list(&scene.ok("tasks.get_all", body)?, "tasks")?.len()),
            json!(2),
        )
    }),
    case("54", "a pattern that is none is 400/21", |scene| {
        scene.refused("tasks.get_all", json!({"name": "("}), (400, 21))
    }),
    case("55", "patterns are not anchored and know capitals", |scene| {
        let queue = scene.queue()?;
        let found = |pattern: &str| -> Result<bool> {
            let pattern = json!({"id": [queue], "name": scene.name(pattern)[1..]});
            Ok(!list(&scene.ok("queues.get_all", pattern)?, "queues")?.is_empty())
        };
        ensure!(found("que")?, "a part of the name does not find it");
        ensure!(!found("QUE")?, "capitals do not matter");
        Ok(())
    }),
    case("56", "no reply holds more than 500 tasks", capped),
    case("57", "pages and their sizes are checked", |scene| {
        scene.refused("tasks.get_all", json!({"page": -1, "page_size": 5}), (400, 12))?;
        scene.refused("tasks.get_all", json!({"page": 0, "page_size": 0}), (400, 12))
    }),
    case("58", "tags are selected by any, all, none and not", |scene| {
        let (project, _) = tagged(scene)?;
        for (tags, expected) in [
            (json!(["x"]), json!(["tagged x"])),
            (json!(["x", "y"]), json!(["tagged x", "tagged y"])),
            (json!(["-x"]), json!(["tagged y"])),
            (json!(["__$all", "x", "y"]), json!([])),
            (json!(["__$not", "x"]), json!(["tagged y"])),
        ] {
            let body =
                json!({"project": [project], "tags": tags, "order_by": ["name"], "only_fields": ["name"]});
            let found = scene.ok("tasks.get_all", body)?;
            let names: Vec<&Value> = list(&found, "tasks")?.iter().map(|task| &task["name"]).collect();
            same(&tags.to_string(), &json!(names), expected)?;
        }
        Ok(())
    }),
    case(
        "59",
        "statuses are selected by any; what is no text is 400/16",
        |scene| {
            let project = scene.project()?;
            for status in ["created", "failed", "completed"] {
                let task = scene.task_with(json!({"project": project}))?;
                scene.ok(
                    "tasks.edit",
                    json!({"task": task, "status": status, "force": true}),
                )?;
            }
            let found = scene.ok(
                "tasks.get_all",
                json!({"project": [project], "status": ["created", "failed"]}),
            )?;
            same("the tasks", &json!(list(&found, "tasks")?.len()), json!(2))?;
            scene.refused("tasks.get_all", json!({"status": [5]}), (400, 16))
        },
    ),
    case("60", "hidden tasks are found by id or on request", |scene| {
        let name = scene.name("hidden");
        let task = scene.task_with(json!({"name": name, "system_tags": ["hidden"]}))?;
        for (body, expected) in [
            (json!({"name": name}), 0),
            (json!({"name": name, "search_hidden": true}), 1),
            (json!({"id": [task]}), 1),
        ] {
            let found = scene.ok("tasks.get_all", body.clone())?;
            same(
                &body.to_string(),
                &json!(list(&found, "tasks")?.len()),
                json!(expected),
            )?;
        }
        Ok(())
    }),
    case(
        "61",
        "a search over several fields does not know capitals",
        |scene| {
            let task = scene.task_with(json!({"comment": "has a comment"}))?;
            let any = json!({"fields": ["comment", "report"], "pattern": "A COM"});
            let found = scene.ok("tasks.get_all", json!({"id": [task], "_any_": any}))?;
            same("the tasks", &json!(list(&found, "tasks")?.len()), json!(1))
        },
    ),
    case("62", "old clients see a container as a command", |scene| {
        let task = scene.task_with(json!({"container": {"image": "ubuntu", "arguments": "--x"}}))?;
        let found = scene.ok("v2.5/tasks.get_by_id", json!({"task": task}))?;
        same(
            "the command",
            &found["task"]["execution"]["docker_cmd"],
            json!("ubuntu --x"),
        )?;
        without(&scene.task_doc(&task)?["execution"], &["docker_cmd"])
    }),
    case(
        "63",
        "flat parameters become hyperparameters, and old clients see them flat",
        |scene| {
            let task = scene.task()?;
            let given = json!({"a/b": 1, "TF_DEFINE/x": "y"});
            scene.ok(
                "v2.5/tasks.edit",
                json!({"task": task, "execution": {"parameters": given}}),
            )?;
            let found = scene.task_doc(&task)?;
            fields(
                &found["hyperparams"]["Args"]["a/b"],
                json!({"value": "1", "type": "legacy"}),
            )?;
            fields(
                &found["hyperparams"]["TF_DEFINE"]["x"],
                json!({"value": "y", "type": "legacy"}),
            )?;
            let old = scene.ok("v2.5/tasks.get_by_id", json!({"task": task}))?;
            let shown = &old["task"]["execution"]["parameters"];
            same("the parameters", &shown["TF_DEFINE/x"], json!("y"))
        },
    ),
    case(
        "order",
        "unset values come last, numbers are ordered as numbers",
        ordered,
    ),
    case("scroll", "a selection can be read in steps", scrolled),
];

/// Makes a project three levels deep and gives its name.
fn tree(scene: &Scene<'_>) -> Result<String> {
    let top = scene.name("tree");
    let name = format!("{top}/Beta/Gamma");
    let made = id(&scene.ok("projects.create", json!({"name": name}))?)?;
    let parents = scene.ok("projects.get_all", json!({"name": format!("^{top}")}))?;
    let parents = list(&parents, "projects")?;
    for parent in parents.iter().filter(|parent| parent["name"] == top.as_str()) {
        scene.own_project(&parent["id"]);
    }
    same("the projects", &json!(parents.len()), json!(3))?;
    let project = scene.ok("projects.get_by_id", json!({"project": made}))?["project"].take();
    fields(&project, json!({"name": name, "basename": "Gamma"}))?;
    let parent = parents
        .iter()
        .find(|parent| parent["name"] == format!("{top}/Beta"));
    same(
        "the parent",
        &project["parent"],
        json!(parent.map(|parent| &parent["id"])),
    )?;
    Ok(name)
}

/// A project with a task tagged `x` and one tagged `y`.
fn tagged(scene: &Scene<'_>) -> Result<(String, Vec<String>)> {
    let project = scene.project()?;
    let tasks = ["x", "y"]
        .into_iter()
        .map(|tag| {
            scene.task_with(json!({"project": project, "tags": [tag], "name": format!("tagged {tag}")}))
        })
        .collect::<Result<_>>()?;
    Ok((project, tasks))
}

fn defaults(scene: &Scene<'_>) -> Result<()> {
    let task = scene.task_doc(&scene.task()?)?;
    fields(
        &task,
        json!({
            "status": "created", "type": "training", "output": {}, "tags": [], "system_tags": [],
            "execution.test_split": 0, "execution.parameters": {}, "execution.model_desc": {},
            "execution.model_labels": {}, "execution.artifacts": [],
            "script.binary": "python", "script.repository": "", "script.entry_point": "", "script.requirements": {},
            "hyperparams": {}, "configuration": {}, "runtime": {}, "container": {}, "last_metrics": {},
            "models": {"input": [], "output": []}, "last_iteration": 0,
        }),
    )?;
    without(
        &task,
        &[
            "status_message",
            "status_reason",
            "started",
            "completed",
            "project",
            "last_worker",
        ],
    )
}

fn capped(scene: &Scene<'_>) -> Result<()> {
    let project = scene.project()?;
    let body = json!({"name": scene.name("many"), "type": "testing", "project": project});
    for _ in 0..520 {
        scene.ok("tasks.create", body.clone())?;
    }
    for (page, expected) in [
        (json!({}), 500),
        (json!({"page": 1, "page_size": 500}), 20),
        (json!({"page": 0, "page_size": 1000}), 500),
    ] {
        let mut body = page;
        body["project"] = json!([project]);
        body["only_fields"] = json!(["id"]);
        let found = scene.ok("tasks.get_all", body.clone())?;
        same(
            &body.to_string(),
            &json!(list(&found, "tasks")?.len()),
            json!(expected),
        )?;
    }
    Ok(())
}

fn ordered(scene: &Scene<'_>) -> Result<()> {
    let project = scene.project()?;
    let mut expected = Vec::new();
    for iteration in [2, 10] {
        let task = scene.task_with(json!({"project": project}))?;
        scene.report(&[json!({
            "type": "training_stats_scalar", "task": task, "metric": "m", "variant": "v", "value": 1, "iter": iteration,
        })])?;
        expected.push(task);
    }
    let body = json!({"project": [project], "order_by": ["last_iteration"], "only_fields": ["id"]});
    let found = scene.ok("tasks.get_all", body)?;
    let ids: Vec<&Value> = list(&found, "tasks")?.iter().map(|task| &task["id"]).collect();
    same("ascending", &json!(ids), json!(expected))?;
    scene.ok("tasks.started", json!({"task": expected[1]}))?;
    let body = json!({"project": [project], "order_by": ["started"], "only_fields": ["id"]});
    let found = scene.ok("tasks.get_all", body)?;
    same("unset last", &found["tasks"][0]["id"], json!(expected[1]))
}

fn scrolled(scene: &Scene<'_>) -> Result<()> {
    let project = scene.project()?;
    for _ in 0..5 {
        scene.task_with(json!({"project": project}))?;
    }
    let (mut seen, mut scroll) = (Vec::new(), Value::Null);
    for _ in 0..4 {
        let body = json!({"project": [project], "size": 2, "scroll_id": scroll, "only_fields": ["id"]});
        let mut reply = scene.ok("tasks.get_all", body)?;
        scroll = reply["scroll_id"].take();
        ensure!(scroll.is_string(), "no scroll id");
        for task in list(&reply, "tasks")? {
            ensure!(!seen.contains(task), "{task} came twice");
            seen.push(task.clone());
        }
    }
    same("the tasks", &json!(seen.len()), json!(5))
}
