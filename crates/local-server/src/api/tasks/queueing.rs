//! A task's way into a queue and out of it.

use clearml_task_model::status::Transition;
use rusqlite::Transaction;
use serde_json::{Value, json};

use super::lifecycle::target;
use super::{finish, finish_transition, id, object_mut, set_status, status};
use crate::api::queues::{default_queue, find_or_create};
use crate::api::queues_order::already_there;
use crate::api::update::{Changes, text, unset};
use crate::api::{ApiFault, Call, Endpoint, batch};
use crate::store::{queues, tasks, workers};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::write("tasks.enqueue", (1, 0), enqueue),
        Endpoint::write("tasks.dequeue", (1, 0), dequeue),
        Endpoint::write("tasks.enqueue_many", (2, 13), |call, tx| {
            batch::each(call, tx, "task", enqueue)
        }),
        Endpoint::write("tasks.dequeue_many", (2, 13), |call, tx| {
            batch::each(call, tx, "task", dequeue)
        }),
    ]
}

/// The queue that a request names, or the default one.
fn wanted_queue(call: &Call, tx: &Transaction<'_>) -> Result<String, ApiFault> {
    let given = |name: &str| {
        call.opt_str(name)
            .map(|text| text.filter(|text| !text.is_empty()))
    };
    match (given("queue")?, given("queue_name")?) {
        (Some(_), Some(_)) => Err(ApiFault::validation(
            "give either 'queue' or 'queue_name', not both",
        )),
        (Some(queue), None) => queues::require(tx, queue).map(|_| queue.to_owned()),
        (None, Some(name)) => find_or_create(call, tx, name),
        (None, None) => Ok(text(&default_queue(tx)?, "id").unwrap_or_default().to_owned()),
    }
}

pub(super) fn enqueue(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut task = tasks::require(tx, call.required_str("task")?)?;
    let verify = call.flag("verify_watched_queue", false)?;
    let update_queue = call.flag("update_execution_queue", true)?;
    if !update_queue {
        check_keeps_queue(&task, verify)?;
    }
    let queue = wanted_queue(call, tx)?;
    let before = status(&task).to_owned();
    let to = target(call, &task, Transition::Enqueue)?;
    let mut changes = Changes::default();
    if before != "queued" {
        task["enqueue_status"] = json!(before);
    }
    let reason = call.opt_str("status_reason")?.unwrap_or_default();
    let message = call.opt_str("status_message")?.unwrap_or_default();
    set_status(call, &mut task, &mut changes, to.as_str(), reason, message);
    if !queues::append(tx, &queue, id(&task), call.now)? {
        return Err(already_there(&queue, id(&task)));
    }
    if update_queue {
        object_mut(&mut task, "execution").insert("queue".to_owned(), json!(queue));
        changes.note("execution.queue", queue.clone());
    }
    queues::remove_elsewhere(tx, Some(&queue), id(&task), call.now)?;
    finish_transition(call, tx, &mut task, &mut changes)?;
    let mut reply = changes.reply();
    reply.insert("queued".to_owned(), json!(1));
    if verify {
        reply.insert("queue_watched".to_owned(), json!(is_watched(call, tx, &queue)?));
    }
    Ok(Value::Object(reply))
}

/// Moving a task without telling it is for tasks that already wait for a queue.
fn check_keeps_queue(task: &Value, verify: bool) -> Result<(), ApiFault> {
    if verify {
        return Err(ApiFault::validation(
            "'verify_watched_queue' needs 'update_execution_queue'",
        ));
    }
    if status(task) != "queued" || text(&task["execution"], "queue").is_none_or(str::is_empty) {
        return Err(ApiFault::validation(
            "'update_execution_queue' may only be false for a queued task with a queue",
        ));
    }
    Ok(())
}

/// Whether a live worker serves the queue.
fn is_watched(call: &Call, tx: &Transaction<'_>, queue: &str) -> Result<bool, ApiFault> {
    let live = workers::active_since(tx, i64::MIN, call.now)?;
    Ok(live
        .iter()
        .any(|worker| worker.queues.iter().any(|served| served == queue)))
}

/// Takes a task out of its queue. It never checks legality: a waiting or running task gets the status asked for, or
/// the one it had before it was enqueued; any other keeps its own.
fn dequeue(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    const NEW_STATUSES: [&str; 9] = [
        "created",
        "queued",
        "in_progress",
        "stopped",
        "completed",
        "failed",
        "closed",
        "publishing",
        "published",
    ];
    let wanted = call.required_str("task")?;
    let new_status = call.opt_str("new_status")?;
    if let Some(bad) = new_status.filter(|status| !NEW_STATUSES.contains(status)) {
        return Err(ApiFault::validation(format!(
            "field 'new_status' has no value {bad}"
        )));
    }
    let Some(mut task) = tasks::load(tx, wanted)? else {
        queues::remove_elsewhere(tx, None, wanted, call.now)?;
        return Ok(json!({"dequeued": 1, "updated": 0}));
    };
    if call.flag("remove_from_all_queues", false)? {
        queues::remove_elsewhere(tx, None, wanted, call.now)?;
    } else if let Some(queue) = text(&task["execution"], "queue") {
        queues::remove(tx, queue, wanted, call.now)?;
    }
    let mut changes = Changes::default();
    if matches!(status(&task), "queued" | "in_progress") {
        let remembered = text(&task, "enqueue_status").unwrap_or("created");
        let to = new_status.unwrap_or(remembered).to_owned();
        let reason = call.opt_str("status_reason")?.unwrap_or_default();
        let message = call.opt_str("status_message")?.unwrap_or_default();
        set_status(call, &mut task, &mut changes, &to, reason, message);
        unset(&mut task, "enqueue_status");
        finish_transition(call, tx, &mut task, &mut changes)?;
    }
    let mut reply = changes.reply();
    reply.insert("dequeued".to_owned(), json!(1));
    Ok(Value::Object(reply))
}

/// Gives a task that waited in `queue` the status it had before, because its entry is gone. Tasks that have moved on
/// meanwhile are left alone.
pub(crate) fn restore_status(
    call: &Call,
    tx: &Transaction<'_>,
    task: &str,
    queue: Option<&str>,
    reason: &str,
) -> Result<(), ApiFault> {
    let Some(mut task) = tasks::load(tx, task)? else {
        return Ok(());
    };
    let waits_here = queue.is_none_or(|queue| text(&task["execution"], "queue") == Some(queue));
    if status(&task) != "queued" || !waits_here {
        return Ok(());
    }
    let before = text(&task, "enqueue_status").unwrap_or("created").to_owned();
    let mut changes = Changes::default();
    set_status(call, &mut task, &mut changes, &before, reason, "");
    unset(&mut task, "enqueue_status");
    finish_transition(call, tx, &mut task, &mut changes)
}

/// Tells a task which queue it is in. A task that does not exist is none of the queue's business.
pub(crate) fn set_execution_queue(
    call: &Call,
    tx: &Transaction<'_>,
    task: &str,
    queue: &str,
) -> Result<(), ApiFault> {
    let Some(mut task) = tasks::load(tx, task)? else {
        return Ok(());
    };
    object_mut(&mut task, "execution").insert("queue".to_owned(), json!(queue));
    finish(call, tx, &mut task, &mut Changes::default(), true)
}
