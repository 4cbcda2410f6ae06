//! `models.*` for several models at once, and the calls by task that newer clients no longer make.

use std::collections::BTreeSet;

use rusqlite::Transaction;
use serde_json::{Map, Value, json};

use super::models::{delete, given_fields, save, set_ready};
use super::update::{tags, text};
use super::{ApiFault, Call, Endpoint, batch, projects};
use crate::store;

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::write("models.publish_many", (2, 13), |call, tx| {
            batch::each(call, tx, "model", set_ready)
        }),
        Endpoint::write("models.delete_many", (2, 13), |call, tx| {
            batch::each(call, tx, "model", delete)
        }),
        Endpoint::write("models.move", (2, 12), move_models),
        Endpoint::write("models.update_tags", (2, 12), update_tags),
        Endpoint::read("models.get_frameworks", (2, 8), get_frameworks),
        Endpoint::read("models.get_by_task_id", (1, 5), get_by_task_id),
        Endpoint::read("models.get_by_task_id", (2, 14), retired),
        Endpoint::write("models.update_for_task", (1, 5), update_for_task),
        Endpoint::read("models.update_for_task", (2, 14), retired),
    ]
}

/// 301/1: the call exists only for older clients.
fn retired(call: &Call, _tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    Err(ApiFault::new(
        301,
        1,
        format!("The endpoint has been retired: endpoint={}", call.endpoint),
    ))
}

fn move_models(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let ids = call.required_strings("ids")?;
    let project = projects::wanted(call, tx)?;
    for id in &ids {
        let mut model = store::models::require(tx, id)?;
        model["project"] = json!(project);
        save(call, tx, &mut model)?;
    }
    Ok(json!({"project_id": project}))
}

fn update_tags(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let ids = call.required_strings("ids")?;
    let added = call.opt_strings("add_tags")?.unwrap_or_default();
    let removed = call.opt_strings("remove_tags")?.unwrap_or_default();
    let operations = usize::from(!added.is_empty()) + usize::from(!removed.is_empty());
    let mut updated = 0;
    for id in &ids {
        let Some(mut model) = store::models::load(tx, id)? else {
            continue;
        };
        let old = model["tags"].as_array().into_iter().flatten();
        let mut new: Vec<String> = old.filter_map(Value::as_str).map(str::to_owned).collect();
        new.extend(added.iter().cloned());
        new.retain(|tag| !removed.contains(tag));
        model["tags"] = tags(new)?;
        save(call, tx, &mut model)?;
        updated += operations;
    }
    Ok(json!({"updated": updated}))
}

fn get_frameworks(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let wanted = call.opt_strings("projects")?.unwrap_or_default();
    let inside = |model: &Value| {
        wanted.is_empty()
            || text(model, "project").is_some_and(|project| wanted.iter().any(|id| id == project))
    };
    let all = store::models::candidates(tx, "id", None)?;
    let models = all.iter().filter(|model| inside(model));
    let frameworks: BTreeSet<&str> = models.filter_map(|model| text(model, "framework")).collect();
    Ok(json!({"frameworks": frameworks}))
}

/// The model that a task has made last.
fn last_model(tx: &Transaction<'_>, task: &Value) -> Result<Option<Value>, ApiFault> {
    let outputs = task["models"]["output"].as_array();
    let id = outputs
        .and_then(|list| list.last())
        .and_then(|item| text(item, "model"));
    match id {
        Some(id) => store::models::load(tx, id),
        None => Ok(None),
    }
}

fn get_by_task_id(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let task = store::tasks::require(tx, call.required_str("task")?)?;
    let model = last_model(tx, &task)?.ok_or_else(|| ApiFault::invalid_model_id("none for this task"))?;
    Ok(json!({"model": model}))
}

/// Changes the last model of a task, or makes its first one.
fn update_for_task(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut task = store::tasks::require(tx, call.required_str("task")?)?;
    let mut given = given_fields(call, tx)?;
    given.shift_remove("task");
    let (mut model, created) = match last_model(tx, &task)? {
        Some(model) => (model, false),
        None => (fresh(call, &task), true),
    };
    if let Some(doc) = model.as_object_mut() {
        doc.extend(given.clone());
    }
    save(call, tx, &mut model)?;
    if created {
        let name = text(&model, "name").unwrap_or_default();
        let item = json!({"name": name, "model": model["id"], "updated": crate::time::iso(call.now)});
        task["models"]["output"] = json!([item]);
        store::tasks::save(tx, &task)?;
    }
    let mut reply = Map::new();
    reply.insert("id".to_owned(), model["id"].clone());
    reply.insert("created".to_owned(), json!(created));
    reply.insert("updated".to_owned(), json!(i32::from(!created)));
    reply.insert("fields".to_owned(), Value::Object(given));
    Ok(Value::Object(reply))
}

fn fresh(call: &Call, task: &Value) -> Value {
    let mut model = json!({
        "id": clearml_support::id::hex32(), "name": task["name"], "user": call.user.user,
        "company": call.user.company, "created": crate::time::iso(call.now), "task": task["id"],
        "tags": [], "system_tags": [], "labels": {}, "design": {}, "ready": false, "metadata": {},
    });
    if let Some(project) = task.get("project") {
        model["project"] = project.clone();
    }
    model
}
