//! `queues.*` that act on the entries of a queue: adding, removing, looking, moving.

use rusqlite::Transaction;
use serde_json::{Value, json};

use super::{ApiFault, Call, Endpoint};
use crate::api::tasks::{restore_status, set_execution_queue};
use crate::store::queues;

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::write("queues.add_task", (2, 4), add_task),
        Endpoint::write("queues.remove_task", (2, 4), remove_task),
        Endpoint::write("queues.clear_queue", (2, 4), clear_queue),
        Endpoint::write("queues.move_task_forward", (2, 4), |call, tx| shift(call, tx, -1)),
        Endpoint::write("queues.move_task_backward", (2, 4), |call, tx| shift(call, tx, 1)),
        Endpoint::write("queues.move_task_to_front", (2, 4), |call, tx| {
            place(call, tx, |_, _| 0)
        }),
        Endpoint::write("queues.move_task_to_back", (2, 4), |call, tx| {
            place(call, tx, |_, length| length - 1)
        }),
        Endpoint::read("queues.peek_task", (2, 15), peek_task),
        Endpoint::read("queues.get_num_entries", (2, 15), get_num_entries),
    ]
}

/// Appends a task id. Neither its existence nor its status matters here.
fn add_task(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let (queue, task) = (call.required_str("queue")?, call.required_str("task")?);
    queues::require(tx, queue)?;
    if !queues::append(tx, queue, task, call.now)? {
        return Err(already_there(queue, task));
    }
    if call.flag("update_execution_queue", true)? {
        set_execution_queue(call, tx, task, queue)?;
    }
    Ok(json!({"added": 1}))
}

/// 400/706: a queue holds a task once.
pub(crate) fn already_there(queue: &str, task: &str) -> ApiFault {
    ApiFault::new(
        400,
        706,
        format!("Task already queued: queue={queue}, task={task}"),
    )
}

fn not_there(queue: &str, task: &str) -> ApiFault {
    ApiFault::new(
        400,
        703,
        format!("Invalid queue or task not queued: queue={queue}, task={task}"),
    )
}

fn remove_task(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let (queue, task) = (call.required_str("queue")?, call.required_str("task")?);
    if !queues::remove(tx, queue, task, call.now)? {
        return Err(not_there(queue, task));
    }
    if call.flag("update_task_status", false)? {
        restore_status(call, tx, task, Some(queue), "task was removed from its queue")?;
    }
    Ok(json!({"removed": 1}))
}

fn clear_queue(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let queue = call.required_str("queue")?;
    queues::require(tx, queue)?;
    let entries = queues::entries(tx, queue)?;
    for entry in &entries {
        queues::remove(tx, queue, &entry.task, call.now)?;
        restore_status(call, tx, &entry.task, Some(queue), "queue was cleared")?;
    }
    let removed: Vec<&str> = entries.iter().map(|entry| entry.task.as_str()).collect();
    Ok(json!({"removed_tasks": removed}))
}

/// Moves a task by `count` places; negative is towards the front.
fn shift(call: &Call, tx: &Transaction<'_>, direction: isize) -> Result<Value, ApiFault> {
    let count = call.opt_i64("count")?.unwrap_or(1).max(0);
    let distance = isize::try_from(count)
        .unwrap_or(isize::MAX)
        .saturating_mul(direction);
    place(call, tx, |position, length| {
        position.saturating_add_signed(distance).min(length - 1)
    })
}

/// Moves a task to the place that `target` computes from its place and the number of entries.
fn place(
    call: &Call,
    tx: &Transaction<'_>,
    target: impl Fn(usize, usize) -> usize,
) -> Result<Value, ApiFault> {
    let (queue, task) = (call.required_str("queue")?, call.required_str("task")?);
    let mut entries = queues::entries(tx, queue)?;
    let position = entries
        .iter()
        .position(|entry| entry.task == task)
        .ok_or_else(|| not_there(queue, task))?;
    let target = target(position, entries.len());
    let entry = entries.remove(position);
    entries.insert(target, entry);
    queues::reorder(tx, queue, &entries)?;
    queues::touch(tx, queue, call.now)?;
    Ok(json!({"position": target}))
}

fn peek_task(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let queue = call.required_str("queue")?;
    queues::require(tx, queue)?;
    Ok(json!({"task": queues::first(tx, queue)?.map(|entry| entry.task)}))
}

fn get_num_entries(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let queue = call.required_str("queue")?;
    queues::require(tx, queue)?;
    Ok(json!({"num": queues::count(tx, queue)?}))
}
