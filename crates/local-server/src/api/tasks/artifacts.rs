//! Artifacts and models of a task: what a run takes in and leaves behind.

use rusqlite::{OptionalExtension as _, Transaction};
use serde_json::{Value, json};

use super::fields::artifact_list;
use super::{finish, object_mut, require_unfinished};
use crate::api::update::{Changes, text};
use crate::api::{ApiFault, Call, Endpoint};
use crate::store::tasks;
use crate::time;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::write("tasks.add_or_update_artifacts", (2, 10), add_or_update_artifacts),
        Endpoint::write("tasks.delete_artifacts", (2, 10), delete_artifacts),
        Endpoint::write("tasks.add_or_update_model", (2, 13), add_or_update_model),
        Endpoint::write("tasks.delete_models", (2, 13), delete_models),
    ]
}

/// Whether two artifacts are the same one: key and mode decide.
fn same(left: &Value, right: &Value) -> bool {
    let mode = |item| text(item, "mode").unwrap_or("output").to_owned();
    text(left, "key") == text(right, "key") && mode(left) == mode(right)
}

/// Replaces the artifacts of a task by what `change` makes of them.
fn change_artifacts(
    call: &Call,
    tx: &Transaction<'_>,
    change: impl Fn(&mut Vec<Value>, &Value),
) -> Result<(), ApiFault> {
    let mut task = tasks::require(tx, call.required_str("task")?)?;
    require_unfinished(&task)?;
    let given = call
        .opt_list("artifacts")?
        .ok_or_else(|| ApiFault::missing_field("artifacts"))?;
    if given.is_empty() {
        return Err(ApiFault::validation("field 'artifacts' needs at least one item"));
    }
    let given = artifact_list(&Value::Array(given.clone()))?;
    let mut artifacts = task["execution"]["artifacts"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    for item in given.as_array().into_iter().flatten() {
        change(&mut artifacts, item);
    }
    let artifacts = artifact_list(&Value::Array(artifacts))?;
    object_mut(&mut task, "execution").insert("artifacts".to_owned(), artifacts);
    finish(call, tx, &mut task, &mut Changes::default(), true)
}

fn add_or_update_artifacts(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    for item in call.opt_list("artifacts")?.into_iter().flatten() {
        if text(item, "type").is_none() {
            return Err(ApiFault::missing_field("type"));
        }
    }
    change_artifacts(call, tx, |artifacts, item| {
        artifacts.retain(|old| !same(old, item));
        artifacts.push(item.clone());
    })?;
    Ok(json!({"updated": 1}))
}

fn delete_artifacts(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    change_artifacts(call, tx, |artifacts, item| {
        artifacts.retain(|old| !same(old, item))
    })?;
    Ok(json!({"deleted": 1}))
}

/// `input` or `output`.
fn side(value: Option<&str>) -> Result<&str, ApiFault> {
    match value {
        Some(side @ ("input" | "output")) => Ok(side),
        Some(other) => Err(ApiFault::validation(format!(
            "field 'type' must be input or output, not {other}"
        ))),
        None => Err(ApiFault::missing_field("type")),
    }
}

fn add_or_update_model(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut task = tasks::require(tx, call.required_str("task")?)?;
    let (name, model) = (call.required_str("name")?, call.required_str("model")?);
    let side = side(call.opt_str("type")?)?;
    let known: Option<i64> = tx
        .query_row("SELECT 1 FROM models WHERE id = ?1", [model], |row| row.get(0))
        .optional()?;
    if known.is_none() {
        return Err(ApiFault::invalid_model_id(model));
    }
    require_unfinished(&task)?;
    let item = json!({"name": name, "model": model, "updated": time::iso(call.now)});
    let models = object_mut(&mut task, "models")
        .entry(side)
        .or_insert_with(|| json!([]));
    if let Value::Array(list) = models {
        match list.iter_mut().find(|old| text(old, "name") == Some(name)) {
            Some(old) => *old = item,
            None => list.push(item),
        }
    }
    if let Some(iteration) = call.opt_i64("iteration")? {
        let last = task["last_iteration"].as_i64().unwrap_or_default();
        task["last_iteration"] = json!(last.max(iteration));
    }
    finish(call, tx, &mut task, &mut Changes::default(), true)?;
    Ok(json!({"updated": 1}))
}

fn delete_models(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut task = tasks::require(tx, call.required_str("task")?)?;
    require_unfinished(&task)?;
    let given = call
        .opt_list("models")?
        .ok_or_else(|| ApiFault::missing_field("models"))?;
    for item in given {
        let name = text(item, "name").ok_or_else(|| ApiFault::missing_field("name"))?;
        let side = side(text(item, "type"))?;
        if let Some(Value::Array(list)) = object_mut(&mut task, "models").get_mut(side) {
            list.retain(|old| text(old, "name") != Some(name));
        }
    }
    finish(call, tx, &mut task, &mut Changes::default(), true)?;
    Ok(json!({"updated": 1}))
}
