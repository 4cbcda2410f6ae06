//! The life of a task: started, stopped, failed, completed, closed, published, asked to stop, pinged; and the
//! watchdog for those that fell silent.

use clearml_task_model::status::{self as model, TaskStatus, Transition};
use rusqlite::{Transaction, params};
use serde_json::{Map, Value, json};

use super::{finish_transition, id, set_status, status};
use crate::api::update::{Changes, has_tag, text, unset};
use crate::api::{ApiFault, Call, Endpoint, batch};
use crate::store::{projects, queues, tasks};
use crate::time;

/// A worker that has not been heard of for longer (milliseconds) cannot be asked to stop.
const WORKER_SILENCE: i64 = 600_000;
/// Reason and message of a task that the watchdog stopped.
const NON_RESPONSIVE: &str = "Forced stop (non-responsive)";

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::write("tasks.started", (1, 0), started),
        Endpoint::write("tasks.stopped", (1, 0), |call, tx| {
            ended(call, tx, Transition::Stopped)
        }),
        Endpoint::write("tasks.failed", (1, 0), |call, tx| {
            ended(call, tx, Transition::Failed)
        }),
        Endpoint::write("tasks.completed", (2, 2), completed),
        Endpoint::write("tasks.close", (1, 0), |call, tx| {
            plain(call, tx, Transition::Close)
        }),
        Endpoint::write("tasks.publish", (1, 0), publish),
        Endpoint::write("tasks.stop", (1, 0), stop),
        Endpoint::write("tasks.ping", (2, 1), ping),
        Endpoint::write("tasks.publish_many", (2, 13), |call, tx| {
            batch::each(call, tx, "task", publish)
        }),
        Endpoint::write("tasks.stop_many", (2, 13), |call, tx| {
            batch::each(call, tx, "task", stop)
        }),
    ]
}

/// The status after a transition, or 400/110. A status that nobody knows is beyond rules (500/1), unless forced.
pub(super) fn target(call: &Call, task: &Value, transition: Transition) -> Result<TaskStatus, ApiFault> {
    let from = TaskStatus::from(status(task));
    let force = call.flag("force", false)?;
    if matches!(from, TaskStatus::Other(_)) && !force {
        return Err(ApiFault::new(
            500,
            1,
            format!("Internal error (no rule for status {from})"),
        ));
    }
    model::apply(&from, transition, force).map_err(|illegal| {
        ApiFault::invalid_task_status(illegal.to_string())
            .with("current_status", from.as_str())
            .with("id", id(task))
    })
}

/// Checks a transition and sets status, reason and message as the request says.
fn transit(
    call: &Call,
    task: &mut Value,
    changes: &mut Changes,
    transition: Transition,
) -> Result<(), ApiFault> {
    let to = target(call, task, transition)?;
    let reason = call.opt_str("status_reason")?.unwrap_or_default();
    let message = call.opt_str("status_message")?.unwrap_or_default();
    set_status(call, task, changes, to.as_str(), reason, message);
    Ok(())
}

fn started(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let wanted = call.required_str("task")?;
    let mut task = tasks::load(tx, wanted)?
        .ok_or_else(|| ApiFault::new(400, 10, format!("Invalid object id: id={wanted}")))?;
    let mut changes = Changes::default();
    let runs_already = status(&task) == "in_progress" && task.get("started").is_some();
    transit(call, &mut task, &mut changes, Transition::Started)?;
    if !runs_already {
        changes.set(&mut task, "started", time::iso(call.now));
        unset(&mut task, "completed");
        unset(&mut task, "active_duration");
    }
    finish_transition(call, tx, &mut task, &mut changes)?;
    let mut reply = changes.reply();
    reply.insert("started".to_owned(), json!(1));
    Ok(Value::Object(reply))
}

/// A transition after which nothing runs.
fn ended(call: &Call, tx: &Transaction<'_>, transition: Transition) -> Result<Value, ApiFault> {
    end(call, tx, transition).map(|(_, changes)| Value::Object(changes.reply()))
}

fn end(call: &Call, tx: &Transaction<'_>, transition: Transition) -> Result<(Value, Changes), ApiFault> {
    let mut task = tasks::require(tx, call.required_str("task")?)?;
    let mut changes = Changes::default();
    count_active_time(call, &mut task);
    transit(call, &mut task, &mut changes, transition)?;
    changes.set(&mut task, "completed", time::iso(call.now));
    finish_transition(call, tx, &mut task, &mut changes)?;
    Ok((task, changes))
}

fn completed(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let (mut task, mut changes) = end(call, tx, Transition::Completed)?;
    let publishes = call.flag("publish", false)?;
    if publishes {
        publish_task(call, tx, &mut task, &mut changes)?;
    }
    let mut reply = changes.reply();
    reply.insert("published".to_owned(), json!(i32::from(publishes)));
    Ok(Value::Object(reply))
}

/// A transition without side effects.
fn plain(call: &Call, tx: &Transaction<'_>, transition: Transition) -> Result<Value, ApiFault> {
    let mut task = tasks::require(tx, call.required_str("task")?)?;
    let mut changes = Changes::default();
    transit(call, &mut task, &mut changes, transition)?;
    finish_transition(call, tx, &mut task, &mut changes)?;
    Ok(Value::Object(changes.reply()))
}

fn publish(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut task = tasks::require(tx, call.required_str("task")?)?;
    let mut changes = Changes::default();
    publish_task(call, tx, &mut task, &mut changes)?;
    Ok(Value::Object(changes.reply()))
}

/// Publishes the task and its last output model. Publishing happens in one transaction, so nobody ever sees the
/// status in between.
fn publish_task(
    call: &Call,
    tx: &Transaction<'_>,
    task: &mut Value,
    changes: &mut Changes,
) -> Result<(), ApiFault> {
    transit(call, task, changes, Transition::Publish)?;
    changes.set(task, "published", time::iso(call.now));
    if call.flag("publish_model", true)? {
        let models = task["models"]["output"].as_array();
        if let Some(model) = models
            .and_then(|list| list.last())
            .and_then(|item| text(item, "model"))
        {
            let sql =
                "UPDATE models SET ready = 1, last_update = ?2, doc = json_set(doc, '$.ready', json('true'),
                '$.last_update', ?3, '$.last_change', ?3) WHERE id = ?1 AND ready = 0";
            tx.execute(sql, params![model, call.now, time::iso(call.now)])?;
        }
    }
    finish_transition(call, tx, task, changes)
}

/// Asks for a stop. A waiting task leaves its queue; a running one is told so that its worker ends it, unless no
/// worker could hear it.
fn stop(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut task = tasks::require(tx, call.required_str("task")?)?;
    target(call, &task, Transition::Stopped)?;
    let mut changes = Changes::default();
    let reason = call.opt_str("status_reason")?.unwrap_or_default().to_owned();
    let was = status(&task).to_owned();
    if was == "queued" {
        queues::remove_elsewhere(tx, None, id(&task), call.now)?;
    }
    if was == "in_progress" && worker_listens(call, &task) {
        set_status(call, &mut task, &mut changes, &was, &reason, "stopping");
    } else {
        let message = format!("Stopped by {}", call.user.user_name);
        count_active_time(call, &mut task);
        set_status(call, &mut task, &mut changes, "stopped", &reason, &message);
    }
    finish_transition(call, tx, &mut task, &mut changes)?;
    Ok(Value::Object(changes.reply()))
}

fn worker_listens(call: &Call, task: &Value) -> bool {
    let heard = text(task, "last_update")
        .and_then(time::parse)
        .is_some_and(|heard| call.now - heard <= WORKER_SILENCE);
    !has_tag(task, "system_tags", "development") && text(task, "last_worker").is_some() && heard
}

/// Brings `active_duration` (seconds) of a running task up to date.
pub(crate) fn count_active_time(call: &Call, task: &mut Value) {
    let started = text(task, "started").and_then(time::parse);
    if let Some(started) = started.filter(|_| status(task) == "in_progress") {
        task["active_duration"] = json!((call.now - started).max(0) / 1000);
    }
}

/// A sign of life. Nobody minds when the task is gone.
fn ping(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    if let Some(mut task) = tasks::load(tx, call.required_str("task")?)? {
        count_active_time(call, &mut task);
        let now = time::iso(call.now);
        task["last_update"] = json!(now);
        task["last_change"] = json!(now);
        tasks::save(tx, &task)?;
    }
    Ok(json!({}))
}

/// Stops running tasks that have shown no sign of life since `threshold_ms` ago. Gives the ids.
pub(crate) fn stop_silent(tx: &Transaction<'_>, now: i64, threshold_ms: i64) -> Result<Value, ApiFault> {
    let sql = "SELECT id FROM tasks WHERE status = 'in_progress' AND last_update < ?1";
    let silent: Vec<String> = tx
        .prepare_cached(sql)?
        .query_map([now.saturating_sub(threshold_ms)], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let stamp = json!(time::iso(now));
    for id in &silent {
        let mut task = tasks::require(tx, id)?;
        let changes: Map<String, Value> = [
            ("status", json!("stopped")),
            ("status_reason", json!(NON_RESPONSIVE)),
            ("status_message", json!(NON_RESPONSIVE)),
            ("status_changed", stamp.clone()),
            ("last_update", stamp.clone()),
            ("last_change", stamp.clone()),
            ("completed", stamp.clone()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        if let Value::Object(fields) = &mut task {
            fields.extend(changes);
        }
        tasks::save(tx, &task)?;
        projects::touch(tx, text(&task, "project"), now)?;
    }
    Ok(json!(silent))
}
