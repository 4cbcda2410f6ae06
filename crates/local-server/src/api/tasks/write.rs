//! Creating tasks and changing what they are about. Life-cycle, queues, parameters and artifacts are elsewhere.

use rusqlite::Transaction;
use serde_json::{Value, json};

use super::{fields, finish, fresh, id, object_mut, require_unfinished, status};
use crate::api::update::{Changes, tags};
use crate::api::{ApiFault, Call, Endpoint, projects};
use crate::store::{self, tasks};
use crate::time;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::write("tasks.create", (1, 0), create),
        Endpoint::read("tasks.validate", (1, 0), validate),
        Endpoint::write("tasks.edit", (1, 0), edit),
        Endpoint::write("tasks.update", (1, 0), update),
        Endpoint::write("tasks.update_batch", (2, 1), update_batch),
        Endpoint::write("tasks.set_requirements", (2, 1), set_requirements),
        Endpoint::write("tasks.edit_runtime", (2, 13), edit_runtime),
        Endpoint::write("tasks.move", (2, 12), move_tasks),
        Endpoint::write("tasks.update_tags", (2, 12), update_tags),
    ]
}

/// A new task out of a request, not stored yet.
fn build(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    call.required_str("name")?;
    call.required_str("type")?;
    let mut task = fresh(call);
    // A draft begins as a draft, whatever the request says.
    let mut data = call.data.clone();
    data.shift_remove("status");
    fields::apply(&call.with_data(data), tx, &mut task, &mut Changes::default())?;
    Ok(task)
}

fn create(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let task = build(call, tx)?;
    tasks::save(tx, &task)?;
    store::projects::touch(tx, task.get("project").and_then(Value::as_str), call.now)?;
    Ok(json!({"id": id(&task)}))
}

fn validate(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    build(call, tx)?;
    Ok(json!({}))
}

fn edit(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut task = tasks::require(tx, call.required_str("task")?)?;
    if status(&task) != "created" && !call.flag("force", false)? {
        return Err(ApiFault::invalid_task_status(format!(
            "the task is {}, expected created",
            status(&task)
        )));
    }
    let mut changes = Changes::default();
    let beyond_labels = fields::apply(call, tx, &mut task, &mut changes)?;
    if !changes.is_empty() {
        finish(call, tx, &mut task, &mut changes, beyond_labels)?;
    }
    Ok(Value::Object(changes.reply()))
}

/// Changes labels only, in any status; everything else in the request is ignored.
fn update(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut task = tasks::require(tx, call.required_str("task")?)?;
    let mut changes = Changes::default();
    fields::apply_labels(call, tx, &mut task, &mut changes)?;
    if let Some(message) = call.opt_str("status_message")? {
        changes.set(&mut task, "status_message", message);
    }
    if let Some(created) = call.opt_str("created")? {
        let created =
            time::parse(created).ok_or_else(|| ApiFault::validation("field 'created' must be a date"))?;
        changes.set(&mut task, "created", time::iso(created));
    }
    if let Some(error) = call.opt_str("output__error")? {
        object_mut(&mut task, "output").insert("error".to_owned(), json!(error));
        changes.note("output.error", error);
    }
    if !changes.is_empty() {
        finish(call, tx, &mut task, &mut changes, false)?;
    }
    Ok(Value::Object(changes.reply()))
}

fn update_batch(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let lines = call
        .lines
        .clone()
        .unwrap_or_else(|| vec![Value::Object(call.data.clone())]);
    if lines.is_empty() {
        return Err(ApiFault::new(400, 17, "Batch contains no items"));
    }
    let mut updated = 0;
    for line in lines {
        if let Value::Object(data) = line {
            updated += update(&call.with_data(data), tx)?["updated"]
                .as_i64()
                .unwrap_or_default();
        }
    }
    Ok(json!({"updated": updated}))
}

fn set_requirements(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut task = tasks::require(tx, call.required_str("task")?)?;
    let requirements = call
        .opt_object("requirements")?
        .ok_or_else(|| ApiFault::missing_field("requirements"))?;
    let requirements = Value::Object(requirements.clone());
    let mut changes = Changes::default();
    object_mut(&mut task, "script").insert("requirements".to_owned(), requirements.clone());
    changes.note("script.requirements", requirements);
    finish(call, tx, &mut task, &mut changes, true)?;
    Ok(Value::Object(changes.reply()))
}

fn edit_runtime(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut task = tasks::require(tx, call.required_str("task")?)?;
    require_unfinished(&task)?;
    let added = call.opt_object("add_or_update")?.cloned().unwrap_or_default();
    let removed = call.opt_strings("remove")?.unwrap_or_default();
    let runtime = object_mut(&mut task, "runtime");
    for key in removed {
        runtime.shift_remove(&key);
    }
    runtime.extend(added);
    finish(call, tx, &mut task, &mut Changes::default(), true)?;
    Ok(json!({"updated": 1}))
}

fn move_tasks(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let ids = call.required_strings("ids")?;
    let project = projects::wanted(call, tx)?;
    for id in &ids {
        let mut task = tasks::require(tx, id)?;
        let mut changes = Changes::default();
        changes.set(&mut task, "project", project.clone());
        finish(call, tx, &mut task, &mut changes, false)?;
    }
    store::projects::touch(tx, Some(&project), call.now)?;
    Ok(json!({"project_id": project}))
}

fn update_tags(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let ids = call.required_strings("ids")?;
    let added = call.opt_strings("add_tags")?.unwrap_or_default();
    let removed = call.opt_strings("remove_tags")?.unwrap_or_default();
    let operations = usize::from(!added.is_empty()) + usize::from(!removed.is_empty());
    let mut updated = 0;
    for id in &ids {
        let Some(mut task) = tasks::load(tx, id)? else {
            continue;
        };
        let old = task.get("tags").and_then(Value::as_array).into_iter().flatten();
        let mut new: Vec<String> = old.filter_map(Value::as_str).map(str::to_owned).collect();
        new.extend(added.iter().cloned());
        new.retain(|tag| !removed.contains(tag));
        let mut changes = Changes::default();
        changes.set(&mut task, "tags", tags(new)?);
        finish(call, tx, &mut task, &mut changes, false)?;
        updated += operations;
    }
    Ok(json!({"updated": updated}))
}
