//! `tasks.clone`: a new draft that asks for the same thing, without anything that its source has lived through.

use rusqlite::Transaction;
use serde_json::{Map, Value, json};

use super::{fields, fresh, id};
use crate::api::update::{Changes, text};
use crate::api::{ApiFault, Call, Endpoint, projects};
use crate::store::{self, tasks};

/// Fields that a clone takes over as they are.
const COPIED: [&str; 9] = [
    "name",
    "comment",
    "type",
    "tags",
    "script",
    "container",
    "hyperparams",
    "configuration",
    "project",
];

/// Request fields that replace a whole field of the clone.
const REPLACED: [(&str, &str); 7] = [
    ("new_task_name", "name"),
    ("new_task_comment", "comment"),
    ("new_task_tags", "tags"),
    ("new_task_system_tags", "system_tags"),
    ("new_task_hyperparams", "hyperparams"),
    ("new_task_configuration", "configuration"),
    ("new_task_container", "container"),
];

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint::write("tasks.clone", (2, 1), clone)]
}

pub(super) fn clone(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let source = tasks::require(tx, call.required_str("task")?)?;
    let mut task = fresh(call);
    for field in COPIED {
        if let Some(value) = source.get(field) {
            task[field] = value.clone();
        }
    }
    task["system_tags"] = tags_to_keep(&source);
    task["execution"] = execution_to_keep(&source);
    task["models"]["input"] = source["models"]
        .get("input")
        .cloned()
        .unwrap_or_else(|| json!([]));
    if let Some(destination) = source["output"].get("destination") {
        task["output"]["destination"] = destination.clone();
    }
    task["parent"] = json!(text(&source, "parent").unwrap_or_else(|| id(&source)));

    let (overrides, new_project) = overrides(call, tx)?;
    fields::apply(&call.with_data(overrides), tx, &mut task, &mut Changes::default())?;
    tasks::save(tx, &task)?;
    store::projects::touch(tx, text(&task, "project"), call.now)?;
    let mut reply = json!({"id": id(&task)});
    if let Some(new_project) = new_project {
        reply["new_project"] = new_project;
    }
    Ok(reply)
}

fn tags_to_keep(source: &Value) -> Value {
    let tags = source["system_tags"].as_array().into_iter().flatten();
    tags.filter(|tag| !matches!(tag.as_str(), Some("development" | "archived")))
        .cloned()
        .collect()
}

fn execution_to_keep(source: &Value) -> Value {
    let mut execution = source["execution"].as_object().cloned().unwrap_or_default();
    execution.shift_remove("queue");
    if let Some(Value::Array(artifacts)) = execution.get_mut("artifacts") {
        artifacts.retain(|artifact| text(artifact, "mode") == Some("input"));
    }
    Value::Object(execution)
}

/// The request's wishes as fields of a task, and the project when one was named. Empty values are no wish.
fn overrides(call: &Call, tx: &Transaction<'_>) -> Result<(Map<String, Value>, Option<Value>), ApiFault> {
    let mut data = Map::new();
    for (wish, field) in REPLACED {
        if let Some(value) = call.get(wish).filter(|value| !is_empty(value)) {
            data.insert(field.to_owned(), value.clone());
        }
    }
    if let Some(parent) = call
        .opt_str("new_task_parent")?
        .filter(|parent| !parent.is_empty())
    {
        data.insert("parent".to_owned(), json!(parent));
    }
    if let Some(models) = call
        .get("new_task_input_models")
        .filter(|models| !is_empty(models))
    {
        data.insert("models".to_owned(), json!({"input": models, "output": []}));
    }
    if let Some(execution) = call.opt_object("execution_overrides")? {
        data.insert("execution".to_owned(), Value::Object(execution.clone()));
    }
    let mut new_project = None;
    if let Some(name) = call.opt_str("new_project_name")?.filter(|name| !name.is_empty()) {
        let existed = store::projects::by_name(tx, name)?.is_some();
        let project = projects::find_or_create(call, tx, name)?;
        if !existed {
            new_project = Some(json!({"id": project, "name": name}));
        }
        data.insert("project".to_owned(), json!(project));
    } else if let Some(project) = call
        .opt_str("new_task_project")?
        .filter(|project| !project.is_empty())
    {
        store::projects::require(tx, project)?;
        data.insert("project".to_owned(), json!(project));
    }
    Ok((data, new_project))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}
