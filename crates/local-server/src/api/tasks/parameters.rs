//! Hyperparameters and configuration objects, changed item by item.

use rusqlite::Transaction;
use serde_json::{Value, json};

use super::fields::{named_item, section_name};
use super::{finish, object_mut, status};
use crate::api::update::{Changes, text};
use crate::api::{ApiFault, Call, Endpoint};
use crate::store::tasks;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::write("tasks.edit_hyper_params", (2, 9), edit_hyper_params),
        Endpoint::write("tasks.delete_hyper_params", (2, 9), delete_hyper_params),
        Endpoint::write("tasks.edit_configuration", (2, 9), edit_configuration),
        Endpoint::write("tasks.delete_configuration", (2, 9), delete_configuration),
    ]
}

/// Parameters change while a task is a draft, by force while it waits or runs, and never later.
fn require_editable(call: &Call, task: &Value) -> Result<(), ApiFault> {
    let force = call.flag("force", false)?;
    match status(task) {
        "created" => Ok(()),
        "queued" | "in_progress" if force => Ok(()),
        other => Err(ApiFault::invalid_task_status(format!("the task is {other}"))),
    }
}

/// The items of a request: at least one object.
fn items<'a>(call: &'a Call, field: &str) -> Result<&'a Vec<Value>, ApiFault> {
    let items = call
        .opt_list(field)?
        .ok_or_else(|| ApiFault::missing_field(field))?;
    if items.is_empty() {
        return Err(ApiFault::validation(format!(
            "field '{field}' needs at least one item"
        )));
    }
    Ok(items)
}

fn field<'a>(item: &'a Value, name: &str) -> Result<&'a str, ApiFault> {
    match item.get(name) {
        Some(Value::String(text)) => Ok(text),
        None | Some(Value::Null) => Err(ApiFault::missing_field(name)),
        Some(_) => Err(crate::api::call::wrong_type(name, "string")),
    }
}

/// User properties may change in every status; one other section among them makes the usual rule hold.
fn require_editable_unless_properties(
    call: &Call,
    task: &Value,
    sections: &[String],
) -> Result<(), ApiFault> {
    if sections.iter().all(|section| section == "properties") {
        Ok(())
    } else {
        require_editable(call, task)
    }
}

fn edit_hyper_params(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut task = tasks::require(tx, call.required_str("task")?)?;
    let items = items(call, "hyperparams")?;
    let replace = call.opt_str("replace_hyperparams")?.unwrap_or("none");
    let sections: Vec<String> = items
        .iter()
        .map(|item| section_name(field(item, "section")?))
        .collect::<Result<_, _>>()?;
    require_editable_unless_properties(call, &task, &sections)?;
    let stored = object_mut(&mut task, "hyperparams");
    match replace {
        "none" => {}
        "section" => sections.iter().for_each(|section| {
            stored.shift_remove(section);
        }),
        "all" => stored.clear(),
        other => {
            return Err(ApiFault::validation(format!(
                "field 'replace_hyperparams' has no value {other}"
            )));
        }
    }
    for (item, section) in items.iter().zip(&sections) {
        let name = field(item, "name")?;
        field(item, "value")?;
        let entry = named_item(Some(section), name, item)?;
        stored.entry(section.clone()).or_insert_with(|| json!({}))[name] = entry;
    }
    finish(call, tx, &mut task, &mut Changes::default(), true)?;
    Ok(json!({"updated": 1}))
}

fn delete_hyper_params(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut task = tasks::require(tx, call.required_str("task")?)?;
    let items = items(call, "hyperparams")?;
    let sections: Vec<String> = items
        .iter()
        .map(|item| section_name(field(item, "section")?))
        .collect::<Result<_, _>>()?;
    require_editable_unless_properties(call, &task, &sections)?;
    let stored = object_mut(&mut task, "hyperparams");
    for (item, section) in items.iter().zip(&sections) {
        match (
            text(item, "name"),
            stored.get_mut(section).and_then(Value::as_object_mut),
        ) {
            (Some(name), Some(items)) => {
                items.shift_remove(name);
            }
            (None, _) => {
                stored.shift_remove(section);
            }
            (Some(_), None) => {}
        }
    }
    stored.retain(|_, items| items.as_object().is_some_and(|items| !items.is_empty()));
    finish(call, tx, &mut task, &mut Changes::default(), true)?;
    Ok(json!({"deleted": 1}))
}

fn edit_configuration(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut task = tasks::require(tx, call.required_str("task")?)?;
    require_editable(call, &task)?;
    let items = items(call, "configuration")?;
    let stored = object_mut(&mut task, "configuration");
    if call.flag("replace_configuration", false)? {
        stored.clear();
    }
    for item in items {
        let name = field(item, "name")?;
        stored.insert(name.to_owned(), named_item(None, name, item)?);
    }
    finish(call, tx, &mut task, &mut Changes::default(), true)?;
    Ok(json!({"updated": 1}))
}

fn delete_configuration(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut task = tasks::require(tx, call.required_str("task")?)?;
    require_editable(call, &task)?;
    let stored = object_mut(&mut task, "configuration");
    for name in call.required_strings("configuration")? {
        stored.shift_remove(&name);
    }
    finish(call, tx, &mut task, &mut Changes::default(), true)?;
    Ok(json!({"deleted": 1}))
}
