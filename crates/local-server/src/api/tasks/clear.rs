//! Taking things away from tasks, and tasks away: reset, delete, archive.

use clearml_task_model::status::Transition;
use rusqlite::{OptionalExtension as _, Transaction};
use serde_json::{Map, Value, json};

use super::lifecycle::target;
use super::{default_execution, default_script, finish_transition, id, object_mut, set_status, status};
use crate::api::update::{Changes, has_tag, tags, text, unset};
use crate::api::{ApiFault, Call, Endpoint, batch};
use crate::store::{events, parse_all, projects, queues, tasks};

/// Fields that belong to a run and not to its task.
const RUN_FIELDS: [&str; 7] = [
    "started",
    "completed",
    "published",
    "active_duration",
    "last_worker",
    "last_worker_report",
    "enqueue_status",
];

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::write("tasks.reset", (1, 0), reset),
        Endpoint::write("tasks.delete", (1, 0), delete),
        Endpoint::write("tasks.archive", (2, 12), archive),
        Endpoint::write("tasks.reset_many", (2, 13), |call, tx| {
            batch::each(call, tx, "task", reset)
        }),
        Endpoint::write("tasks.delete_many", (2, 13), |call, tx| {
            batch::each(call, tx, "task", delete)
        }),
        Endpoint::write("tasks.archive_many", (2, 13), archive_many),
        Endpoint::write("tasks.unarchive_many", (2, 13), unarchive_many),
    ]
}

fn reset(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut task = tasks::require(tx, call.required_str("task")?)?;
    target(call, &task, Transition::Reset)?;
    let urls = file_urls(&task);
    let mut changes = Changes::default();
    let dequeued = queues::remove_elsewhere(tx, None, id(&task), call.now)?;
    let events = events::delete_for_task(tx, id(&task))?;
    let deleted_models = if call.flag("delete_output_models", true)? {
        delete_drafts(tx, id(&task))?
    } else {
        0
    };
    set_status(call, &mut task, &mut changes, "created", "reset", "reset");
    forget_run(&mut task);
    if call.flag("clear_all", false)? {
        task["execution"] = default_execution();
        task["script"] = default_script();
    }
    finish_transition(call, tx, &mut task, &mut changes)?;
    let mut reply = changes.reply();
    let removed = if dequeued > 0 {
        json!({"removed": dequeued})
    } else {
        json!({})
    };
    reply.insert("dequeued".to_owned(), removed);
    reply.insert("deleted_models".to_owned(), json!(deleted_models));
    reply.insert("events".to_owned(), json!({"deleted": events}));
    add_urls(call, &mut reply, urls)?;
    Ok(Value::Object(reply))
}

/// Leaves of a task what was asked for, and nothing of what happened.
fn forget_run(task: &mut Value) {
    for field in RUN_FIELDS {
        unset(task, field);
    }
    task["runtime"] = json!({});
    task["last_metrics"] = json!({});
    task["metric_stats"] = json!({});
    task["unique_metrics"] = json!([]);
    task["last_iteration"] = json!(0);
    object_mut(task, "models").insert("output".to_owned(), json!([]));
    let output = object_mut(task, "output");
    output.shift_remove("result");
    output.shift_remove("error");
    let execution = object_mut(task, "execution");
    execution.shift_remove("queue");
    if let Some(Value::Array(artifacts)) = execution.get_mut("artifacts") {
        artifacts.retain(|artifact| text(artifact, "mode") == Some("input"));
    }
}

/// The models that a task has made.
fn models_of(tx: &Transaction<'_>, task: &str) -> Result<Vec<Value>, ApiFault> {
    let mut statement = tx.prepare_cached("SELECT doc FROM models WHERE task = ?1")?;
    parse_all(statement.query_map([task], |row| row.get::<_, String>(0))?)
}

/// Whether another task takes a model in.
fn is_used(tx: &Transaction<'_>, model: &str, besides: &str) -> Result<bool, ApiFault> {
    let sql = "SELECT 1 FROM tasks, json_each(tasks.doc, '$.models.input') AS item
        WHERE tasks.id <> ?2 AND json_extract(item.value, '$.model') = ?1 LIMIT 1";
    let found: Option<i64> = tx.query_row(sql, [model, besides], |row| row.get(0)).optional()?;
    Ok(found.is_some())
}

fn delete_model(tx: &Transaction<'_>, model: &str) -> Result<(), ApiFault> {
    events::delete_for_task(tx, model)?;
    tx.execute("DELETE FROM models WHERE id = ?1", [model])?;
    Ok(())
}

/// Deletes unfinished models of a task that nobody else uses.
fn delete_drafts(tx: &Transaction<'_>, task: &str) -> Result<usize, ApiFault> {
    let mut deleted = 0;
    for model in models_of(tx, task)? {
        if model["ready"] != json!(true) && !is_used(tx, id(&model), task)? {
            delete_model(tx, id(&model))?;
            deleted += 1;
        }
    }
    Ok(deleted)
}

pub(crate) fn delete(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let task = tasks::require(tx, call.required_str("task")?)?;
    let force = call.flag("force", false)?;
    let refuse = |why: &str| {
        ApiFault::new(
            400,
            123,
            format!("Task cannot be deleted ({why}), use force=true: id={}", id(&task)),
        )
    };
    if !force && status(&task) != "created" && !has_tag(&task, "system_tags", "archived") {
        return Err(refuse("it is neither a draft nor archived"));
    }
    let mut statement = tx.prepare_cached("SELECT doc FROM tasks WHERE parent = ?1")?;
    let children = parse_all(statement.query_map([id(&task)], |row| row.get::<_, String>(0))?)?;
    let models = models_of(tx, id(&task))?;
    if !force && children.iter().any(|child| status(child) == "published") {
        return Err(refuse("a child is published"));
    }
    if !force && models.iter().any(|model| model["ready"] == json!(true)) {
        return Err(refuse("a model of it is published"));
    }
    let grave = format!("__DELETED__{}", id(&task));
    for mut child in children.iter().cloned() {
        child["parent"] = json!(grave);
        tasks::save(tx, &child)?;
    }
    let deleted_models = bury_models(call, tx, id(&task), &models, &grave)?;
    queues::remove_elsewhere(tx, None, id(&task), call.now)?;
    events::delete_for_task(tx, id(&task))?;
    tasks::delete(tx, id(&task))?;
    projects::touch(tx, text(&task, "project"), call.now)?;
    let mut reply = Map::new();
    reply.insert("deleted".to_owned(), json!(true));
    reply.insert("updated_children".to_owned(), json!(children.len()));
    reply.insert("updated_models".to_owned(), json!(models.len() - deleted_models));
    reply.insert("deleted_models".to_owned(), json!(deleted_models));
    add_urls(call, &mut reply, file_urls(&task))?;
    Ok(Value::Object(reply))
}

/// Deletes the models of a deleted task, or lets those that stay point at its grave.
fn bury_models(
    call: &Call,
    tx: &Transaction<'_>,
    task: &str,
    models: &[Value],
    grave: &str,
) -> Result<usize, ApiFault> {
    let may_delete = call.flag("delete_output_models", true)?;
    let mut deleted = 0;
    for model in models {
        if may_delete && !is_used(tx, id(model), task)? {
            delete_model(tx, id(model))?;
            deleted += 1;
        } else {
            tx.execute(
                "UPDATE models SET task = ?2, doc = json_set(doc, '$.task', ?2) WHERE id = ?1",
                [id(model), grave],
            )?;
        }
    }
    Ok(deleted)
}

/// Addresses of files that a task has left on file servers.
fn file_urls(task: &Value) -> Value {
    let artifacts = task["execution"]["artifacts"].as_array().into_iter().flatten();
    let outputs = artifacts.filter(|artifact| text(artifact, "mode") != Some("input"));
    let urls: Vec<&str> = outputs.filter_map(|artifact| text(artifact, "uri")).collect();
    json!({"model_urls": [], "event_urls": [], "artifact_urls": urls})
}

fn add_urls(call: &Call, reply: &mut Map<String, Value>, urls: Value) -> Result<(), ApiFault> {
    let wanted = call.flag("return_file_urls", false)?;
    reply.insert("urls".to_owned(), if wanted { urls } else { json!({}) });
    Ok(())
}

fn archive(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let ids = call.required_strings("tasks")?;
    for id in &ids {
        archive_one(call, tx, id)?;
    }
    Ok(json!({"archived": ids.len()}))
}

fn archive_many(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    batch::run(call, tx, "ids", |call, tx, id| {
        archive_one(call, tx, id)?;
        Ok([("archived".to_owned(), json!(true))].into_iter().collect())
    })
}

/// Marks a task as archived. A waiting task leaves its queue, a running one is stopped.
pub(super) fn archive_one(call: &Call, tx: &Transaction<'_>, wanted: &str) -> Result<(), ApiFault> {
    let mut task = tasks::require(tx, wanted)?;
    let mut changes = Changes::default();
    let was = status(&task).to_owned();
    if was == "queued" {
        queues::remove_elsewhere(tx, None, wanted, call.now)?;
        let before = text(&task, "enqueue_status").unwrap_or("created").to_owned();
        set_status(call, &mut task, &mut changes, &before, "archived", "");
        unset(&mut task, "enqueue_status");
    } else if was == "in_progress" {
        set_status(call, &mut task, &mut changes, "stopped", "archived", "");
    }
    let kept = task["system_tags"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    let with_mark = kept.chain(["archived"]).map(str::to_owned).collect();
    changes.set(&mut task, "system_tags", tags(with_mark)?);
    finish_transition(call, tx, &mut task, &mut changes)
}

fn unarchive_many(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    batch::run(call, tx, "ids", |call, tx, id| {
        let mut task = tasks::require(tx, id)?;
        let mut changes = Changes::default();
        super::remove_tag(&mut task, &mut changes, "archived");
        finish_transition(call, tx, &mut task, &mut changes)?;
        Ok([("unarchived".to_owned(), json!(true))].into_iter().collect())
    })
}
