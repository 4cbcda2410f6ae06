//! `reports.*`: texts about tasks, stored as tasks of type `report` in a hidden project beside the others; and
//! the runs of pipelines, which are tasks as well: a new run is a clone that is enqueued.

use rusqlite::Transaction;
use serde_json::{Map, Value, json};

use super::clear::{archive_one, delete};
use super::{
    copy, fields, finish, finish_transition, fresh, id, object_mut, queueing, read, set_status, status,
};
use crate::api::update::{Changes, has_tag, tags, text};
use crate::api::{ApiFault, Call, Endpoint, batch, projects};
use crate::store::{self, tasks};
use crate::time;

/// The system tag of reports, and of the projects that hold them.
const TAG: &str = "reports";
/// Last part of the name of such a project.
const FOLDER: &str = ".reports";

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::write("reports.create", (2, 23), create),
        Endpoint::write("reports.update", (2, 23), update),
        Endpoint::write("reports.publish", (2, 23), publish),
        Endpoint::write("reports.archive", (2, 23), archive),
        Endpoint::write("reports.unarchive", (2, 23), unarchive),
        Endpoint::write("reports.move", (2, 23), move_report),
        Endpoint::write("reports.delete", (2, 23), |call, tx| {
            required(call, tx)?;
            delete(call, tx)
        }),
        Endpoint::read("reports.get_all_ex", (2, 23), get_all_ex),
        Endpoint::write("pipelines.start_pipeline", (2, 17), start_pipeline),
        Endpoint::write("pipelines.delete_runs", (2, 30), delete_runs),
    ]
}

/// The report that a call names; other tasks are none.
fn required(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let wanted = call.required_str("task")?;
    let task = tasks::require(tx, wanted)?;
    if text(&task, "type") == Some("report") {
        Ok(task)
    } else {
        Err(ApiFault::invalid_task_id(wanted))
    }
}

/// The hidden project for the reports of a project (or of none), made when it is missing.
fn folder(call: &Call, tx: &Transaction<'_>, project: Option<&str>) -> Result<String, ApiFault> {
    let name = match project {
        Some(project) => {
            let project = store::projects::require(tx, project)?;
            let name = text(&project, "name").unwrap_or_default().to_owned();
            if name == FOLDER || name.ends_with(&format!("/{FOLDER}")) {
                return Ok(id(&project).to_owned());
            }
            format!("{name}/{FOLDER}")
        }
        None => FOLDER.to_owned(),
    };
    let folder = projects::find_or_create(call, tx, &name)?;
    let mut project = store::projects::require(tx, &folder)?;
    if !has_tag(&project, "system_tags", TAG) {
        project["system_tags"] = json!(["hidden", TAG]);
        store::projects::save(tx, &project)?;
    }
    Ok(folder)
}

/// Takes over what a request says about a report.
fn apply(call: &Call, tx: &Transaction<'_>, task: &mut Value, changes: &mut Changes) -> Result<(), ApiFault> {
    let mut labels = call.data.clone();
    labels.retain(|name, _| matches!(name.as_str(), "name" | "comment" | "tags"));
    fields::apply_labels(&call.with_data(labels), tx, task, changes)?;
    if let Some(report) = call.opt_str("report")? {
        changes.set(task, "report", report);
    }
    if let Some(assets) = call.opt_strings("report_assets")? {
        changes.set(task, "report_assets", json!(assets));
    }
    Ok(())
}

fn create(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    call.required_str("name")?;
    let project = call.opt_str("project")?.filter(|project| !project.is_empty());
    let project = folder(call, tx, project)?;
    let mut task = fresh(call);
    apply(call, tx, &mut task, &mut Changes::default())?;
    task["type"] = json!("report");
    task["system_tags"] = json!([TAG]);
    task["project"] = json!(project);
    tasks::save(tx, &task)?;
    store::projects::touch(tx, Some(&project), call.now)?;
    Ok(json!({"id": id(&task), "project_id": project}))
}

fn update(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut task = required(call, tx)?;
    if status(&task) != "created" {
        return Err(ApiFault::invalid_task_status(format!(
            "the report is {}",
            status(&task)
        )));
    }
    let mut changes = Changes::default();
    apply(call, tx, &mut task, &mut changes)?;
    if !changes.is_empty() {
        finish(call, tx, &mut task, &mut changes, true)?;
    }
    Ok(Value::Object(changes.reply()))
}

fn publish(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut task = required(call, tx)?;
    if status(&task) == "published" {
        return Err(ApiFault::invalid_task_status("the report is published"));
    }
    let message = call.opt_str("message")?.unwrap_or_default();
    let mut changes = Changes::default();
    set_status(call, &mut task, &mut changes, "published", "", message);
    changes.set(&mut task, "published", time::iso(call.now));
    finish_transition(call, tx, &mut task, &mut changes)?;
    Ok(Value::Object(changes.reply()))
}

fn archive(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let task = required(call, tx)?;
    let fresh = !has_tag(&task, "system_tags", "archived");
    archive_one(call, tx, id(&task))?;
    Ok(json!({"archived": i32::from(fresh)}))
}

fn unarchive(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut task = required(call, tx)?;
    let archived = has_tag(&task, "system_tags", "archived");
    let mut changes = Changes::default();
    super::remove_tag(&mut task, &mut changes, "archived");
    finish_transition(call, tx, &mut task, &mut changes)?;
    Ok(json!({"unarchived": i32::from(archived)}))
}

fn move_report(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut task = required(call, tx)?;
    let project = folder(call, tx, Some(&projects::wanted(call, tx)?))?;
    let mut changes = Changes::default();
    changes.set(&mut task, "project", project.clone());
    finish(call, tx, &mut task, &mut changes, false)?;
    Ok(json!({"project_id": project}))
}

fn get_all_ex(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut data = call.data.clone();
    data.insert("type".to_owned(), json!(["report"]));
    read::get_all_ex(&call.with_data(data), tx)
}

/// Runs a pipeline again: a clone of it with other arguments, enqueued.
fn start_pipeline(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let source = tasks::require(tx, call.required_str("task")?)?;
    let queue = call.required_str("queue")?;
    store::queues::require(tx, queue)?;
    let request = |fields: Value| match fields {
        Value::Object(data) => call.with_data(data),
        _ => call.with_data(Map::new()),
    };
    let new = copy::clone(&request(json!({"task": id(&source)})), tx)?["id"].clone();
    let mut task = tasks::require(tx, new.as_str().unwrap_or_default())?;
    for argument in call.opt_list("args")?.into_iter().flatten() {
        let name = text(argument, "name").ok_or_else(|| ApiFault::missing_field("name"))?;
        let item = fields::named_item(Some("Args"), name, &json!({"value": argument.get("value")}))?;
        let sections = object_mut(&mut task, "hyperparams");
        sections.entry("Args").or_insert_with(|| json!({}))[name] = item;
    }
    let mut system = vec!["pipeline".to_owned()];
    let kept = source["system_tags"].as_array().into_iter().flatten();
    system.extend(kept.filter_map(Value::as_str).map(str::to_owned));
    system.retain(|tag| !matches!(tag.as_str(), "development" | "archived"));
    task["system_tags"] = tags(system)?;
    tasks::save(tx, &task)?;
    let verify = call.flag("verify_watched_queue", false)?;
    let order = json!({"task": new, "queue": queue, "verify_watched_queue": verify});
    let reply = queueing::enqueue(&request(order), tx)?;
    let mut started = json!({"pipeline": new, "enqueued": true});
    if let Some(watched) = reply.get("queue_watched") {
        started["queue_watched"] = watched.clone();
    }
    Ok(started)
}

/// Deletes runs of a pipeline with what they have made. A project keeps its last run, because a pipeline is nothing
/// but its runs.
fn delete_runs(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let project = call.required_str("project")?;
    let ids = call.required_strings("ids")?;
    let sql = "SELECT id FROM tasks WHERE project = ?1 AND type = 'controller'
        AND EXISTS (SELECT 1 FROM json_each(doc, '$.system_tags') WHERE value = 'pipeline')";
    let runs = tx
        .prepare_cached(sql)?
        .query_map([project], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<String>>>()?;
    if let Some(foreign) = ids.iter().find(|id| !runs.contains(id)) {
        return Err(ApiFault::invalid_task_id(foreign));
    }
    if runs.iter().all(|run| ids.contains(run)) {
        let msg = "Validation error (the last run of a pipeline stays; delete its project instead)";
        return Err(ApiFault::new(400, 12, msg));
    }
    batch::run(call, tx, "ids", |call, tx, id| {
        let mut data = call.data.clone();
        data.insert("task".to_owned(), json!(id));
        data.insert("force".to_owned(), json!(true));
        match delete(&call.with_data(data), tx)? {
            Value::Object(reply) => Ok(reply),
            _ => Ok(Map::new()),
        }
    })
}
