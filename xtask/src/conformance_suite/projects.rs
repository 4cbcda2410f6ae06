//! The tree of projects and what is in it; models and reports, which live there too.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::scene::{Scene, fields, id, list, not_applicable, same, text};
use super::{Case, case};

pub(super) const CASES: &[Case] = &[
    case(
        "2.6.move",
        "a project moves with everything below it, but not below itself",
        moving,
    ),
    case(
        "2.6.merge",
        "a merged project gives away its tasks and its children",
        |scene| {
            let (from, to) = (named(scene, "from/inner")?, named(scene, "to")?);
            let task = scene.task_with(json!({"project": from.outer}))?;
            let body = json!({"project": from.outer, "destination_project": to.name});
            let reply = scene.ok("projects.merge", body)?;
            fields(&reply, json!({"moved_entities": 1, "moved_projects": 1}))?;
            same("the task", &scene.task_doc(&task)?["project"], json!(to.outer))?;
            same(
                "the child",
                &json!(project(scene, &from.inner)?["name"]),
                json!(format!("{}/inner", to.name)),
            )?;
            scene.refused("projects.get_by_id", json!({"project": from.outer}), (400, 401))
        },
    ),
    case(
        "2.6.rename",
        "a renamed project stays where it is and takes its children along",
        |scene| {
            let tree = named(scene, "old/inner")?;
            let away = json!({"project": tree.outer, "name": format!("{}/elsewhere", tree.name)});
            scene.refused("projects.update", away, (400, 408))?;
            let name = scene.name("renamed");
            scene.ok("projects.update", json!({"project": tree.outer, "name": name}))?;
            same(
                "the child",
                &project(scene, &tree.inner)?["name"],
                json!(format!("{name}/inner")),
            )
        },
    ),
    case(
        "2.6.delete",
        "a project with live contents is deleted only by force",
        |scene| {
            let tree = named(scene, "doomed/inner")?;
            let task = scene.task_with(json!({"project": tree.inner}))?;
            let body = json!({"project": tree.outer});
            let expected =
                json!({"tasks": 1, "non_archived_tasks": 1, "models": 0, "non_archived_models": 0});
            fields(&scene.ok("projects.validate_delete", body.clone())?, expected)?;
            scene.refused("projects.delete", body, (400, 402))?;
            let reply = scene.ok("projects.delete", json!({"project": tree.outer, "force": true}))?;
            same("loose tasks", &reply["disassociated_tasks"], json!(1))?;
            ensure!(
                scene.task_doc(&task)?.get("project").is_none(),
                "the task still has a project"
            );
            Ok(())
        },
    ),
    case(
        "2.6.delete.contents",
        "the contents of a project can go with it",
        |scene| {
            let tree = named(scene, "doomed/inner")?;
            let task = scene.task_with(json!({"project": tree.inner}))?;
            let body = json!({"project": tree.outer, "force": true, "delete_contents": true});
            same(
                "deleted",
                &scene.ok("projects.delete", body)?["deleted_tasks"],
                json!(1),
            )?;
            scene.refused("tasks.get_by_id", json!({"task": task}), (400, 101))
        },
    ),
    case(
        "2.6.levels",
        "projects are listed by level or with all below",
        |scene| {
            let tree = named(scene, "top/inner")?;
            for (body, expected) in [
                (
                    json!({"parent": [tree.outer], "shallow_search": true}),
                    vec![&tree.inner],
                ),
                (json!({"parent": [tree.outer]}), vec![&tree.inner]),
                (
                    json!({"name": format!("^{}", tree.name), "shallow_search": true}),
                    vec![&tree.outer],
                ),
            ] {
                let found = scene.ok("projects.get_all", body.clone())?;
                let found: Vec<&Value> = list(&found, "projects")?
                    .iter()
                    .map(|project| &project["id"])
                    .collect();
                same(&body.to_string(), &json!(found), json!(expected))?;
            }
            Ok(())
        },
    ),
    case(
        "2.6.contents",
        "what occurs in the tasks of a project can be asked for",
        contents,
    ),
    case(
        "2.6.stats",
        "a project says how many tasks of which status it has",
        |scene| {
            let tree = named(scene, "counted/inner")?;
            for project in [&tree.outer, &tree.inner] {
                scene.task_with(json!({"project": project}))?;
            }
            let found = scene.ok(
                "projects.get_all_ex",
                json!({"id": [tree.outer], "include_stats": true}),
            )?;
            let stats = &found["projects"][0]["stats"]["active"];
            same("the statuses", &stats["status_count"]["created"], json!(2))
        },
    ),
    case("2.12.ready", "a model becomes ready once", |scene| {
        let model = scene.model()?;
        scene.ok("models.set_ready", json!({"model": model}))?;
        scene.refused("models.set_ready", json!({"model": model}), (400, 203))
    }),
    case(
        "2.12.used",
        "a model that a task starts from is deleted only by force",
        |scene| {
            let (task, model) = (scene.task()?, scene.model()?);
            let body = json!({"task": task, "name": "m", "model": model, "type": "input"});
            scene.ok("tasks.add_or_update_model", body)?;
            scene.refused("models.delete", json!({"model": model}), (400, 205))?;
            scene
                .ok("models.delete", json!({"model": model, "force": true}))
                .map(drop)
        },
    ),
    case(
        "2.12.unknown",
        "unknown models, tasks and projects of models are refused",
        |scene| {
            scene.refused("models.get_by_id", json!({"model": "zz"}), (400, 201))?;
            let body = |field: &str| json!({"name": "name", "uri": "file:///w", field: "zz"});
            scene.refused("models.create", body("project"), (400, 12))?;
            scene.refused("models.create", body("task"), (400, 101))
        },
    ),
    case("reports", "a report is written until it is published", |scene| {
        let project = scene.project()?;
        let body =
            json!({"name": scene.name("report"), "project": project, "report": "# one", "tags": ["t"]});
        let made = scene.ok("reports.create", body)?;
        let report = id(&made)?;
        scene.ok("reports.update", json!({"task": report, "report": "# two"}))?;
        let found = scene.ok(
            "reports.get_all_ex",
            json!({"id": [report], "only_fields": ["report", "type"]}),
        )?;
        same(
            "the report",
            &found["tasks"],
            json!([{"report": "# two", "type": "report"}]),
        )?;
        scene.ok("reports.publish", json!({"task": report}))?;
        scene.refused(
            "reports.update",
            json!({"task": report, "report": "# three"}),
            (400, 110),
        )?;
        scene.refused(
            "reports.update",
            json!({"task": scene.task()?, "report": "x"}),
            (400, 101),
        )
    }),
    case(
        "pipelines",
        "a pipeline runs again with other arguments",
        |scene| {
            let args = json!({"Args": {"a": {"section": "Args", "name": "a", "value": "1"}}});
            let task = scene.task_with(json!({"hyperparams": args}))?;
            let queue = scene.queue()?;
            let body = json!({"task": task, "queue": queue, "args": [{"name": "a", "value": "2"}]});
            let started = scene.ok("pipelines.start_pipeline", body)?;
            let run = text(&started, "pipeline")?;
            let doc = scene.task_doc(&run)?;
            fields(
                &doc,
                json!({"status": "queued", "hyperparams.Args.a.value": "2", "parent": task}),
            )?;
            same("the queue", &json!(scene.waiting(&queue)?), json!([run]))
        },
    ),
    case(
        "vaults",
        "configuration can be kept on the server (an extension of this one)",
        |scene| {
            let body = json!({"description": "d", "data": "agent { x: 1 }"});
            let reply = scene.call("users.create_vault", &body)?;
            if reply.status != 200 {
                return not_applicable("this server keeps vaults in another way");
            }
            let vault = id(&reply.data()?)?;
            let read = || -> Result<Value> {
                let path = "/users.get_vaults?enabled=true&types=config&types=config";
                let found = scene.remote.send(&scene.remote.request(path))?.data()?;
                let own = list(&found, "vaults")?
                    .iter()
                    .find(|known| known["id"] == vault.as_str())
                    .cloned();
                Ok(json!(own))
            };
            fields(
                &read()?,
                json!({"data": "agent { x: 1 }", "description": "d", "scope": "user"}),
            )?;
            scene.ok("users.update_vault", json!({"vault": vault, "enabled": false}))?;
            same("when disabled", &read()?, json!(null))?;
            scene.ok("users.delete_vault", json!({"vault": vault}))?;
            scene.refused("users.delete_vault", json!({"vault": vault}), (400, 10))
        },
    ),
];

/// A project with another one below it.
struct Tree {
    /// Name of the outer one.
    name: String,
    outer: String,
    /// The inner one, or the outer one again when there is none.
    inner: String,
}

fn named(scene: &Scene<'_>, path: &str) -> Result<Tree> {
    let (outer, inner) = path.split_once('/').unwrap_or((path, ""));
    let name = scene.name(outer);
    let outer = id(&scene.ok("projects.create", json!({"name": name}))?)?;
    let inner = match inner {
        "" => outer.clone(),
        inner => id(&scene.ok("projects.create", json!({"name": format!("{name}/{inner}")}))?)?,
    };
    Ok(Tree { name, outer, inner })
}

fn project(scene: &Scene<'_>, id: &str) -> Result<Value> {
    Ok(scene.ok("projects.get_by_id", json!({"project": id}))?["project"].take())
}

fn moving(scene: &Scene<'_>) -> Result<()> {
    let (tree, place) = (named(scene, "moving/inner")?, named(scene, "place")?);
    let inside = json!({"project": tree.outer, "new_location": format!("{}/inner", tree.name)});
    let reply = scene.call("projects.move", &inside)?;
    ensure!(reply.status == 400, "moved below itself: {}", reply.text());
    let body = json!({"project": tree.outer, "new_location": place.name});
    scene.ok("projects.move", body)?;
    let moved = project(scene, &tree.outer)?;
    let name = format!("{}/{}", place.name, tree.name);
    fields(
        &moved,
        json!({"name": name, "basename": tree.name, "parent": place.outer}),
    )?;
    let child = project(scene, &tree.inner)?;
    fields(
        &child,
        json!({"name": format!("{name}/inner"), "parent": tree.outer}),
    )?;
    same("the way down", &child["path"], json!([place.outer, tree.outer]))?;
    scene.ok(
        "projects.move",
        json!({"project": tree.outer, "new_location": ""}),
    )?;
    let back = project(scene, &tree.outer)?;
    same("back again", &back["name"], json!(tree.name))?;
    ensure!(back.get("parent").is_none_or(Value::is_null), "{back}");
    Ok(())
}

fn contents(scene: &Scene<'_>) -> Result<()> {
    let tree = named(scene, "asked/inner")?;
    let parent = scene.task_with(json!({"project": tree.outer}))?;
    let args = json!({"S": {"n": {"section": "S", "name": "n", "value": "7"}}});
    let task = scene.task_with(json!({
        "project": tree.inner, "parent": parent, "tags": ["b", "a"], "hyperparams": args,
    }))?;
    scene.report(&[json!({
        "type": "training_stats_scalar", "task": task, "metric": "m", "variant": "v", "value": 1, "iter": 1,
    })])?;
    let ask = |endpoint: &str, extra: Value| {
        let mut body = extra;
        body["project"] = json!(tree.outer);
        body["projects"] = json!([tree.outer]);
        scene.ok(&format!("projects.{endpoint}"), body)
    };
    same(
        "tags",
        &ask("get_task_tags", json!({}))?["tags"],
        json!(["a", "b"]),
    )?;
    let parameters = ask("get_hyper_parameters", json!({}))?;
    fields(&parameters["parameters"][0], json!({"section": "S", "name": "n"}))?;
    let values = ask("get_hyperparam_values", json!({"section": "S", "name": "n"}))?;
    same("values", &values, json!({"total": 1, "values": ["7"]}))?;
    let metrics = ask("get_unique_metric_variants", json!({}))?;
    fields(&metrics["metrics"][0], json!({"metric": "m", "variant": "v"}))?;
    let parents = ask("get_task_parents", json!({}))?;
    same("parents", &parents["parents"][0]["id"], json!(parent))
}
