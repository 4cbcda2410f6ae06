//! `queues.*`: making, finding, changing and deleting queues, and popping tasks. What only changes the order of
//! entries is in `queues_order`.

use rusqlite::Transaction;
use serde_json::{Map, Value, json};

use super::update::{self, Changes, has_tag, text};
use super::{ApiFault, Call, Endpoint};
use crate::api::tasks::restore_status;
use crate::select::{Collection, Kind, Selection, shape_common};
use crate::store::{queues, tasks};
use crate::time;

const QUEUES: Collection = Collection {
    fields: &[
        ("id", Kind::List),
        ("tags", Kind::List),
        ("system_tags", Kind::List),
        ("metadata.*", Kind::List),
        ("name", Kind::Pattern),
    ],
    known: &[
        "id",
        "name",
        "display_name",
        "company",
        "user",
        "created",
        "last_update",
        "tags",
        "system_tags",
        "entries",
        "metadata",
        "resources",
    ],
};

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::write("queues.create", (2, 4), create),
        Endpoint::read("queues.get_by_id", (2, 4), get_by_id),
        Endpoint::read("queues.get_all", (2, 4), get_all),
        Endpoint::read("queues.get_default", (2, 4), get_default),
        Endpoint::write("queues.update", (2, 4), update),
        Endpoint::write("queues.delete", (2, 4), delete),
        Endpoint::write("queues.get_next_task", (2, 4), get_next_task),
        Endpoint::write("queues.add_or_update_metadata", (2, 13), add_or_update_metadata),
        Endpoint::write("queues.delete_metadata", (2, 13), delete_metadata),
    ]
}

/// A new, empty queue.
pub(crate) fn fresh(name: &str, company: &str, now: i64) -> Value {
    json!({
        "id": clearml_support::id::hex32(),
        "name": name,
        "company": company,
        "created": time::iso(now),
        "last_update": time::iso(now),
        "tags": [],
        "system_tags": [],
        "metadata": {},
    })
}

/// A name without surrounding space: 400/800 when it is too short.
fn checked_name(name: &str) -> Result<&str, ApiFault> {
    let name = name.trim();
    if name.chars().count() < 3 {
        return Err(ApiFault::unstorable(format!(
            "a queue name needs three characters: name={name}"
        )));
    }
    Ok(name)
}

/// The id of the queue with exactly this name, made when it is missing.
pub(crate) fn find_or_create(call: &Call, tx: &Transaction<'_>, name: &str) -> Result<String, ApiFault> {
    let queue = match queues::by_name(tx, name.trim())? {
        Some(queue) => queue,
        None => {
            let queue = fresh(checked_name(name)?, &call.user.company, call.now);
            queues::save(tx, &queue)?;
            queue
        }
    };
    Ok(text(&queue, "id").unwrap_or_default().to_owned())
}

/// The queue with system tag `default`: 400/707 when there is none, 400/708 when there are several.
pub(crate) fn default_queue(tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut found = queues::all(tx)?
        .into_iter()
        .filter(|queue| has_tag(queue, "system_tags", "default"));
    let first = found
        .next()
        .ok_or_else(|| ApiFault::new(400, 707, "No default queue"))?;
    if found.next().is_some() {
        return Err(ApiFault::new(400, 708, "There is more than one default queue"));
    }
    Ok(first)
}

fn create(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let name = checked_name(call.required_str("name")?)?;
    if queues::by_name(tx, name)?.is_some() {
        return Err(ApiFault::not_unique("name", name));
    }
    let mut queue = fresh(name, &call.user.company, call.now);
    apply_fields(call, &mut queue, &mut Changes::default())?;
    queues::save(tx, &queue)?;
    Ok(json!({"id": queue["id"]}))
}

fn apply_fields(call: &Call, queue: &mut Value, changes: &mut Changes) -> Result<(), ApiFault> {
    if let Some(name) = call.opt_str("display_name")? {
        changes.set(queue, "display_name", name);
    }
    for field in ["tags", "system_tags"] {
        if let Some(tags) = call.opt_strings(field)? {
            changes.set(queue, field, update::tags(tags)?);
        }
    }
    match call.get("metadata") {
        Some(Value::Object(metadata)) => changes.set(queue, "metadata", Value::Object(metadata.clone())),
        Some(Value::Array(items)) => changes.set(queue, "metadata", Value::Object(keyed(items)?)),
        Some(_) => {
            return Err(ApiFault::validation(
                "field 'metadata' must be an object or a list",
            ));
        }
        None => {}
    }
    Ok(())
}

/// Metadata items by their key.
fn keyed(items: &[Value]) -> Result<Map<String, Value>, ApiFault> {
    let one = |item: &Value| text(item, "key").map(|key| (key.to_owned(), item.clone()));
    items
        .iter()
        .map(|item| one(item).ok_or_else(|| ApiFault::missing_field("key")))
        .collect()
}

/// A queue as replies show it, with its entries.
fn with_entries(call: &Call, tx: &Transaction<'_>, mut queue: Value) -> Result<Value, ApiFault> {
    let limit = call
        .opt_i64("max_task_entries")?
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(usize::MAX);
    let entries = queues::entries(tx, text(&queue, "id").unwrap_or_default())?;
    queue["entries"] = entries.iter().take(limit).map(queues::Entry::to_json).collect();
    shape_common(call.version, &mut queue);
    Ok(queue)
}

fn get_by_id(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let queue = queues::require(tx, call.required_str("queue")?)?;
    Ok(json!({"queue": with_entries(call, tx, queue)?}))
}

pub(crate) fn get_all(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let selection = Selection::parse(&call.data, &QUEUES)?;
    let named = selection.mentions("id") || selection.mentions("name");
    let show_hidden = named || call.flag("search_hidden", false)?;
    let mut candidates = match selection.ids() {
        Some(ids) => ids
            .iter()
            .filter_map(|id| queues::load(tx, id).transpose())
            .collect::<Result<Vec<_>, _>>()?,
        None => queues::all(tx)?,
    };
    candidates.retain(|queue| show_hidden || !has_tag(queue, "system_tags", "k8s-glue"));
    let page = selection.run(candidates);
    let docs: Vec<Value> = page
        .docs
        .into_iter()
        .map(|queue| with_entries(call, tx, queue))
        .collect::<Result<_, _>>()?;
    let mut reply = json!({"queues": selection.project(docs)});
    if let Some(scroll_id) = page.scroll_id {
        reply["scroll_id"] = json!(scroll_id);
    }
    Ok(reply)
}

fn get_default(_call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let queue = default_queue(tx)?;
    Ok(json!({"id": queue["id"], "name": queue["name"]}))
}

fn update(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut queue = queues::require(tx, call.required_str("queue")?)?;
    let mut changes = Changes::default();
    if let Some(name) = call.opt_str("name")?.map(checked_name).transpose()? {
        if queues::by_name(tx, name)?.is_some_and(|other| other["id"] != queue["id"]) {
            return Err(ApiFault::not_unique("name", name));
        }
        changes.set(&mut queue, "name", name);
    }
    apply_fields(call, &mut queue, &mut changes)?;
    if !changes.is_empty() {
        changes.set(&mut queue, "last_update", time::iso(call.now));
        queues::save(tx, &queue)?;
    }
    Ok(Value::Object(changes.reply()))
}

fn delete(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let id = call.required_str("queue")?;
    queues::require(tx, id)?;
    let entries = queues::entries(tx, id)?;
    if !entries.is_empty() && !call.flag("force", false)? {
        return Err(ApiFault::new(
            400,
            702,
            format!("Queue is not empty, use force=true to delete: id={id}"),
        ));
    }
    queues::delete(tx, id)?;
    for entry in entries {
        restore_status(call, tx, &entry.task, Some(id), "queue deleted")?;
    }
    Ok(json!({"deleted": 1}))
}

/// Pops the first entry. The whole call is one transaction, so no two callers get the same entry. The status of the
/// task stays, except that a task found stopped is queued again: whoever stopped it raced with its enqueueing.
fn get_next_task(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let id = call.required_str("queue")?;
    let Some(entry) = queues::first(tx, id)? else {
        queues::require(tx, id)?;
        return Ok(json!({}));
    };
    if call.opt_str("task")?.is_some_and(|wanted| wanted != entry.task) {
        return Ok(json!({}));
    }
    queues::remove(tx, id, &entry.task, call.now)?;
    let task = tasks::load(tx, &entry.task)?;
    if let Some(mut task) = task
        .clone()
        .filter(|task| text(task, "status") == Some("stopped"))
    {
        task["status"] = json!("queued");
        task["last_change"] = json!(time::iso(call.now));
        tasks::save(tx, &task)?;
    }
    let mut reply = json!({"entry": entry.to_json()});
    if call.flag("get_task_info", false)?
        && let Some(task) = task
    {
        reply["task_info"] = json!({"company": task["company"], "user": task["user"]});
    }
    Ok(reply)
}

fn add_or_update_metadata(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut queue = queues::require(tx, call.required_str("queue")?)?;
    let items = keyed(
        call.opt_list("metadata")?
            .ok_or_else(|| ApiFault::missing_field("metadata"))?,
    )?;
    let mut metadata = queue
        .get("metadata")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    if call.flag("replace_metadata", false)? {
        metadata.clear();
    }
    metadata.extend(items);
    queue["metadata"] = Value::Object(metadata);
    queue["last_update"] = json!(time::iso(call.now));
    queues::save(tx, &queue)?;
    Ok(json!({"updated": 1}))
}

fn delete_metadata(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut queue = queues::require(tx, call.required_str("queue")?)?;
    if let Some(metadata) = queue.get_mut("metadata").and_then(Value::as_object_mut) {
        for key in call.required_strings("keys")? {
            metadata.shift_remove(&key);
        }
    }
    queue["last_update"] = json!(time::iso(call.now));
    queues::save(tx, &queue)?;
    Ok(json!({"updated": 1}))
}
