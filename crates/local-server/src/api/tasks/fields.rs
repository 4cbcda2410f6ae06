//! The writable fields of a task: checking what a request gives, and putting it into a document.
//!
//! `script`, `execution` and `output` are merged one level deep; everything else that is given replaces what was
//! there. Absent and null fields change nothing.

use rusqlite::Transaction;
use serde_json::{Map, Value, json};

use super::legacy;
use super::{TYPES, object_mut};
use crate::api::call::wrong_type;
use crate::api::update::{self, Changes, text};
use crate::api::{ApiFault, Call};
use crate::store::{projects, tasks};
use crate::time;

const SCRIPT_TEXTS: [&str; 7] = [
    "binary",
    "repository",
    "tag",
    "branch",
    "version_num",
    "entry_point",
    "working_dir",
];
/// Statuses that an edit may write.
const STATUSES: [&str; 10] = [
    "created",
    "queued",
    "in_progress",
    "stopped",
    "completed",
    "failed",
    "closed",
    "publishing",
    "published",
    "unknown",
];

/// Applies every writable field of the request. Says whether anything beyond the labels of the task was given.
pub(super) fn apply(
    call: &Call,
    tx: &Transaction<'_>,
    task: &mut Value,
    changes: &mut Changes,
) -> Result<bool, ApiFault> {
    let mut data = call.data.clone();
    data.retain(|_, value| !value.is_null());
    legacy::incoming(call.version, &mut data);
    let call = &call.with_data(data);
    apply_labels(call, tx, task, changes)?;
    let labels_only = changes.len();
    apply_type_and_status(call, task, changes)?;
    apply_parent(call, tx, task, changes)?;
    apply_script(call, task, changes)?;
    apply_execution(call, task, changes)?;
    apply_output(call, task, changes)?;
    apply_maps(call, task, changes)?;
    apply_legacy(call, task, changes)?;
    Ok(changes.len() > labels_only)
}

/// Name, comment, tags and project: the fields that may change in any status.
pub(super) fn apply_labels(
    call: &Call,
    tx: &Transaction<'_>,
    task: &mut Value,
    changes: &mut Changes,
) -> Result<(), ApiFault> {
    if let Some(name) = call.opt_str("name")? {
        changes.set(task, "name", checked_name(name)?);
    }
    if let Some(comment) = call.opt_str("comment")? {
        changes.set(task, "comment", comment);
    }
    for field in ["tags", "system_tags"] {
        if let Some(tags) = call.opt_strings(field)? {
            changes.set(task, field, update::tags(tags)?);
        }
    }
    if let Some(project) = call.opt_str("project")? {
        if project.is_empty() || projects::load(tx, project)?.is_none() {
            return Err(ApiFault::bad_value(format!(
                "there is no such project: project={project}"
            )));
        }
        changes.set(task, "project", project);
    }
    Ok(())
}

/// A task name without surrounding space: 400/800 when it is too short.
pub(super) fn checked_name(name: &str) -> Result<&str, ApiFault> {
    let name = name.trim();
    if name.chars().count() < 3 {
        return Err(ApiFault::unstorable(format!(
            "a task name needs three characters: name={name}"
        )));
    }
    Ok(name)
}

fn apply_type_and_status(call: &Call, task: &mut Value, changes: &mut Changes) -> Result<(), ApiFault> {
    for (field, allowed) in [("type", &TYPES[..]), ("status", &STATUSES[..])] {
        if let Some(value) = call.opt_str(field)? {
            if !allowed.contains(&value) {
                return Err(
                    ApiFault::validation(format!("field '{field}' has no value {value}"))
                        .with("field", field),
                );
            }
            changes.set(task, field, value);
        }
    }
    Ok(())
}

fn apply_parent(
    call: &Call,
    tx: &Transaction<'_>,
    task: &mut Value,
    changes: &mut Changes,
) -> Result<(), ApiFault> {
    match call.opt_str("parent")? {
        Some("") => {
            update::unset(task, "parent");
            changes.note("parent", Value::Null);
        }
        Some(parent) if tasks::load(tx, parent)?.is_none() => {
            return Err(ApiFault::bad_value(format!(
                "there is no such parent task: parent={parent}"
            )));
        }
        Some(parent) => changes.set(task, "parent", parent),
        None => {}
    }
    Ok(())
}

/// Merges given sub-fields into a nested object.
fn merge(task: &mut Value, changes: &mut Changes, object: &str, given: Map<String, Value>) {
    for (field, value) in given {
        changes.note(&format!("{object}.{field}"), value.clone());
        object_mut(task, object).insert(field, value);
    }
}

fn apply_script(call: &Call, task: &mut Value, changes: &mut Changes) -> Result<(), ApiFault> {
    let Some(given) = call.opt_object("script")? else {
        return Ok(());
    };
    let mut script = Map::new();
    for (field, value) in given.iter().filter(|(_, value)| !value.is_null()) {
        let value = match (field.as_str(), value) {
            (name, Value::String(text)) if SCRIPT_TEXTS.contains(&name) => json!(text.trim()),
            ("diff", Value::String(text)) => json!(text),
            ("requirements", Value::Object(requirements)) => json!(requirements),
            // Clients of every age add this to whatever they send.
            ("method", _) => continue,
            (name, _) if SCRIPT_TEXTS.contains(&name) || name == "diff" => {
                return Err(wrong_type(name, "string"));
            }
            ("requirements", _) => return Err(wrong_type("requirements", "object")),
            (unknown, _) => {
                return Err(ApiFault::validation(format!(
                    "field 'script.{unknown}' does not exist"
                )));
            }
        };
        script.insert(field.clone(), value);
    }
    merge(task, changes, "script", script);
    Ok(())
}

fn apply_execution(call: &Call, task: &mut Value, changes: &mut Changes) -> Result<(), ApiFault> {
    let Some(given) = call.opt_object("execution")? else {
        return Ok(());
    };
    let mut execution = Map::new();
    for (field, value) in given.iter().filter(|(_, value)| !value.is_null()) {
        let value = if field == "artifacts" {
            artifact_list(value)?
        } else {
            value.clone()
        };
        execution.insert(field.clone(), value);
    }
    merge(task, changes, "execution", execution);
    Ok(())
}

/// Artifacts as a list sorted by key and mode; a map of them is read too.
pub(super) fn artifact_list(value: &Value) -> Result<Value, ApiFault> {
    let mut items: Vec<Value> = match value {
        Value::Array(items) => items.clone(),
        Value::Object(map) => map.values().cloned().collect(),
        _ => return Err(wrong_type("artifacts", "list")),
    };
    for item in &mut items {
        if text(item, "key").is_none_or(str::is_empty) {
            return Err(ApiFault::missing_field("key"));
        }
        if text(item, "mode").is_none() {
            item["mode"] = json!("output");
        }
    }
    items.sort_by(|left, right| {
        (text(left, "key"), text(left, "mode")).cmp(&(text(right, "key"), text(right, "mode")))
    });
    Ok(Value::Array(items))
}

fn apply_output(call: &Call, task: &mut Value, changes: &mut Changes) -> Result<(), ApiFault> {
    let mut output = call.opt_object("output")?.cloned().unwrap_or_default();
    if let Some(destination) = call.opt_str("output_dest")? {
        output.insert("destination".to_owned(), json!(destination));
    }
    if let Some(error) = call.opt_str("error")? {
        output.insert("error".to_owned(), json!(error));
    }
    if let Some(Value::String(destination)) = output.get_mut("destination") {
        *destination = destination.trim().to_owned();
    }
    output.retain(|_, value| !value.is_null());
    merge(task, changes, "output", output);
    Ok(())
}

/// The fields that are replaced as a whole.
fn apply_maps(call: &Call, task: &mut Value, changes: &mut Changes) -> Result<(), ApiFault> {
    if let Some(container) = call.opt_object("container")? {
        if let Some((name, _)) = container
            .iter()
            .find(|(_, value)| !value.is_string() && !value.is_null())
        {
            return Err(wrong_type(&format!("container.{name}"), "string"));
        }
        changes.set(task, "container", Value::Object(container.clone()));
    }
    if let Some(runtime) = call.opt_object("runtime")? {
        changes.set(task, "runtime", Value::Object(runtime.clone()));
    }
    if let Some(models) = call.opt_object("models")? {
        changes.set(task, "models", model_lists(call, models));
    }
    if let Some(hyperparams) = call.opt_object("hyperparams")? {
        changes.set(task, "hyperparams", hyperparameters(hyperparams)?);
    }
    if let Some(configuration) = call.opt_object("configuration")? {
        let mut items = Map::new();
        for (name, item) in configuration {
            items.insert(name.clone(), named_item(None, name, item)?);
        }
        changes.set(task, "configuration", Value::Object(items));
    }
    Ok(())
}

fn model_lists(call: &Call, models: &Map<String, Value>) -> Value {
    let mut lists = json!({"input": [], "output": []});
    for side in ["input", "output"] {
        let given = models.get(side).and_then(Value::as_array).into_iter().flatten();
        let stamped = given.map(|item| {
            let mut item = item.clone();
            if item.is_object() && item.get("updated").is_none() {
                item["updated"] = json!(time::iso(call.now));
            }
            item
        });
        lists[side] = stamped.collect();
    }
    lists
}

/// Sections of hyperparameters. Section `properties` has one spelling, whatever was sent.
fn hyperparameters(sections: &Map<String, Value>) -> Result<Value, ApiFault> {
    let mut checked = Map::new();
    for (section, items) in sections {
        let section = section_name(section)?;
        let items = items
            .as_object()
            .ok_or_else(|| wrong_type("hyperparams", "object of objects"))?;
        let mut section_items = Map::new();
        for (name, item) in items {
            section_items.insert(name.clone(), named_item(Some(&section), name, item)?);
        }
        checked.insert(section, Value::Object(section_items));
    }
    Ok(Value::Object(checked))
}

/// The stored name of a section.
pub(super) fn section_name(section: &str) -> Result<String, ApiFault> {
    if section.is_empty() {
        return Err(ApiFault::validation("a hyperparameter section needs a name"));
    }
    Ok(if section.eq_ignore_ascii_case("properties") {
        "properties".to_owned()
    } else {
        section.to_owned()
    })
}

/// A hyperparameter or configuration item with its own name in it. Values are text.
pub(super) fn named_item(section: Option<&str>, name: &str, item: &Value) -> Result<Value, ApiFault> {
    if name.is_empty() {
        return Err(ApiFault::validation("a parameter needs a name"));
    }
    let given = item.as_object().ok_or_else(|| wrong_type(name, "object"))?;
    let mut stored = Map::new();
    if let Some(section) = section {
        stored.insert("section".to_owned(), json!(section));
    }
    stored.insert("name".to_owned(), json!(name));
    for field in ["value", "type", "description"] {
        match given.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => {
                stored.insert(field.to_owned(), json!(text));
            }
            Some(_) => return Err(wrong_type(&format!("{name}.{field}"), "string")),
        }
    }
    Ok(Value::Object(stored))
}

/// Flat parameters and model descriptions replace all earlier items of that origin and leave the others alone.
fn apply_legacy(call: &Call, task: &mut Value, changes: &mut Changes) -> Result<(), ApiFault> {
    let is_legacy = |item: &Value| text(item, "type") == Some("legacy");
    if let Some(parameters) = call.opt_object("_legacy_parameters")? {
        let sections = object_mut(task, "hyperparams");
        for items in sections.values_mut().filter_map(Value::as_object_mut) {
            items.retain(|_, item| !is_legacy(item));
        }
        sections.retain(|_, items| items.as_object().is_some_and(|items| !items.is_empty()));
        for (flat, value) in parameters {
            let (section, name) = legacy::parameter_place(flat);
            let item = json!({"value": legacy::parameter_text(value), "type": "legacy"});
            let item = named_item(Some(section), name, &item)?;
            let items = sections.entry(section).or_insert_with(|| json!({}));
            items[name] = item;
        }
        changes.note("hyperparams", task["hyperparams"].clone());
    }
    if let Some(model_desc) = call.opt_object("_legacy_model_desc")? {
        let items = object_mut(task, "configuration");
        items.retain(|_, item| !is_legacy(item));
        for (name, value) in model_desc {
            let item = json!({"value": legacy::parameter_text(value), "type": "legacy"});
            items.insert(name.clone(), named_item(None, name, &item)?);
        }
        changes.note("configuration", task["configuration"].clone());
    }
    Ok(())
}
