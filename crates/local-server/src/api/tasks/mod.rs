//! `tasks.*`. What several of its parts share is here: the stored form of a task, and how a change of it ends.

mod artifacts;
mod clear;
mod copy;
mod fields;
pub(crate) mod legacy;
pub(crate) mod lifecycle;
mod parameters;
mod queueing;
mod read;
mod reports;
mod write;

use rusqlite::Transaction;
use serde_json::{Map, Value, json};

use super::update::{self, Changes, text};
use super::{ApiFault, Call, Endpoint};
use crate::store::{projects, tasks};
use crate::time;

pub(crate) use clear::delete as delete_task;
pub(crate) use queueing::{restore_status, set_execution_queue};

/// The types a task can have.
pub(crate) const TYPES: [&str; 12] = [
    "training",
    "testing",
    "inference",
    "data_processing",
    "application",
    "monitor",
    "controller",
    "report",
    "optimizer",
    "service",
    "qc",
    "custom",
];

pub(crate) fn endpoints() -> Vec<Endpoint> {
    [
        read::endpoints(),
        write::endpoints(),
        parameters::endpoints(),
        artifacts::endpoints(),
        lifecycle::endpoints(),
        queueing::endpoints(),
        copy::endpoints(),
        clear::endpoints(),
        reports::endpoints(),
    ]
    .concat()
}

/// A draft with every default, owned by the caller.
fn fresh(call: &Call) -> Value {
    let now = time::iso(call.now);
    json!({
        "id": clearml_support::id::hex32(),
        "name": "",
        "type": "training",
        "status": "created",
        "company": call.user.company,
        "user": call.user.user,
        "created": now,
        "last_update": now,
        "last_change": now,
        "last_changed_by": call.user.user,
        "status_changed": now,
        "tags": [],
        "system_tags": [],
        "script": default_script(),
        "container": {},
        "execution": default_execution(),
        "models": {"input": [], "output": []},
        "hyperparams": {},
        "configuration": {},
        "runtime": {},
        "output": {},
        "last_iteration": 0,
        "last_metrics": {},
        "metric_stats": {},
        "unique_metrics": [],
        "report_assets": [],
    })
}

fn default_script() -> Value {
    json!({"binary": "python", "repository": "", "entry_point": "", "requirements": {}})
}

fn default_execution() -> Value {
    json!({"test_split": 0, "parameters": {}, "model_desc": {}, "model_labels": {}, "artifacts": []})
}

/// A nested object of a document, made when it is missing.
fn object_mut<'a>(doc: &'a mut Value, name: &str) -> &'a mut Map<String, Value> {
    let slot = &mut doc[name];
    if !slot.is_object() {
        *slot = json!({});
    }
    slot.as_object_mut().expect("it was made an object just now")
}

fn status(task: &Value) -> &str {
    text(task, "status").unwrap_or_default()
}

fn id(task: &Value) -> &str {
    text(task, "id").unwrap_or_default()
}

/// Ends a change of a task: moves `last_change`, and `last_update` when more than labels changed, and stores it.
fn finish(
    call: &Call,
    tx: &Transaction<'_>,
    task: &mut Value,
    changes: &mut Changes,
    moves_last_update: bool,
) -> Result<(), ApiFault> {
    let now = time::iso(call.now);
    if moves_last_update {
        changes.set(task, "last_update", now.clone());
    }
    changes.set(task, "last_change", now);
    changes.set(task, "last_changed_by", call.user.user.clone());
    tasks::save(tx, task)
}

/// As `finish`, for changes of status, which the project notices too.
fn finish_transition(
    call: &Call,
    tx: &Transaction<'_>,
    task: &mut Value,
    changes: &mut Changes,
) -> Result<(), ApiFault> {
    finish(call, tx, task, changes, true)?;
    projects::touch(tx, text(task, "project"), call.now)
}

/// Sets status, reason and message. A task that goes to a queue is no longer under development.
fn set_status(
    call: &Call,
    task: &mut Value,
    changes: &mut Changes,
    status: &str,
    reason: &str,
    message: &str,
) {
    changes.set(task, "status", status);
    changes.set(task, "status_reason", reason);
    changes.set(task, "status_message", message);
    changes.set(task, "status_changed", time::iso(call.now));
    if status == "queued" && update::has_tag(task, "system_tags", "development") {
        remove_tag(task, changes, "development");
    }
}

fn remove_tag(task: &mut Value, changes: &mut Changes, tag: &str) {
    let mut tags = task
        .get("system_tags")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    tags.retain(|found| found != tag);
    changes.set(task, "system_tags", Value::Array(tags));
}

/// Refuses (400/110) unless the task may still be changed by its own run: draft, queued or running.
fn require_unfinished(task: &Value) -> Result<(), ApiFault> {
    match status(task) {
        "created" | "queued" | "in_progress" => Ok(()),
        other => Err(ApiFault::invalid_task_status(format!("the task is {other}"))),
    }
}
