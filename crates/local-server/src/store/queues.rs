//! Queues and their entries. Entries are rows, ordered by position; the front is the smallest.

use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::{Value, json};

use super::{document, documents, statistics};
use crate::api::ApiFault;
use crate::time;

/// One waiting task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) task: String,
    pub(crate) added: i64,
}

impl Entry {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            task: row.get(0)?,
            added: row.get(1)?,
        })
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({"task": self.task, "added": time::iso(self.added)})
    }
}

/// The document of a queue, without its entries.
pub(crate) fn load(connection: &Connection, id: &str) -> Result<Option<Value>, ApiFault> {
    document(connection, "SELECT doc FROM queues WHERE id = ?1", id)
}

/// A queue that must exist: 400/701 otherwise.
pub(crate) fn require(connection: &Connection, id: &str) -> Result<Value, ApiFault> {
    load(connection, id)?.ok_or_else(|| ApiFault::invalid_queue_id(id))
}

pub(crate) fn by_name(connection: &Connection, name: &str) -> Result<Option<Value>, ApiFault> {
    document(connection, "SELECT doc FROM queues WHERE name = ?1", name)
}

pub(crate) fn all(connection: &Connection) -> Result<Vec<Value>, ApiFault> {
    documents(connection, "SELECT doc FROM queues ORDER BY seq")
}

pub(crate) fn save(connection: &Connection, queue: &Value) -> rusqlite::Result<()> {
    let text = |key: &str| queue.get(key).and_then(Value::as_str);
    let sql = "INSERT INTO queues (id, name, doc) VALUES (?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET name = ?2, doc = ?3";
    connection
        .prepare_cached(sql)?
        .execute(params![text("id"), text("name"), queue.to_string()])?;
    Ok(())
}

/// Deletes a queue with its entries.
pub(crate) fn delete(connection: &Connection, id: &str) -> Result<usize, ApiFault> {
    connection.execute("DELETE FROM queue_entries WHERE queue = ?1", [id])?;
    Ok(connection.execute("DELETE FROM queues WHERE id = ?1", [id])?)
}

/// Moves `last_update` of a queue whose entries have changed, and notes how long it is now.
pub(crate) fn touch(connection: &Connection, id: &str, now: i64) -> Result<(), ApiFault> {
    let sql = "UPDATE queues SET doc = json_set(doc, '$.last_update', ?2) WHERE id = ?1";
    connection
        .prepare_cached(sql)?
        .execute(params![id, time::iso(now)])?;
    statistics::sample_queue(connection, id, now)
}

/// All entries in service order.
pub(crate) fn entries(connection: &Connection, queue: &str) -> Result<Vec<Entry>, ApiFault> {
    let sql = "SELECT task, added FROM queue_entries WHERE queue = ?1 ORDER BY position";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([queue], Entry::read)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(crate) fn count(connection: &Connection, queue: &str) -> Result<i64, ApiFault> {
    let sql = "SELECT count(*) FROM queue_entries WHERE queue = ?1";
    Ok(connection
        .prepare_cached(sql)?
        .query_row([queue], |row| row.get(0))?)
}

/// The entry that is served next.
pub(crate) fn first(connection: &Connection, queue: &str) -> Result<Option<Entry>, ApiFault> {
    let sql = "SELECT task, added FROM queue_entries WHERE queue = ?1 ORDER BY position LIMIT 1";
    Ok(connection
        .prepare_cached(sql)?
        .query_row([queue], Entry::read)
        .optional()?)
}

/// Appends a task. False when it is there already.
pub(crate) fn append(connection: &Connection, queue: &str, task: &str, now: i64) -> Result<bool, ApiFault> {
    let sql = "INSERT INTO queue_entries (queue, position, task, added)
        SELECT ?1, coalesce(max(position), 0) + 1, ?2, ?3 FROM queue_entries WHERE queue = ?1
        ON CONFLICT (queue, task) DO NOTHING";
    let added = connection
        .prepare_cached(sql)?
        .execute(params![queue, task, now])?;
    if added > 0 {
        touch(connection, queue, now)?;
    }
    Ok(added > 0)
}

/// Removes a task from one queue. False when it was not there.
pub(crate) fn remove(connection: &Connection, queue: &str, task: &str, now: i64) -> Result<bool, ApiFault> {
    let sql = "DELETE FROM queue_entries WHERE queue = ?1 AND task = ?2";
    let removed = connection.prepare_cached(sql)?.execute([queue, task])?;
    if removed > 0 {
        touch(connection, queue, now)?;
    }
    Ok(removed > 0)
}

/// Removes a task from every queue but one.
pub(crate) fn remove_elsewhere(
    connection: &Connection,
    keep: Option<&str>,
    task: &str,
    now: i64,
) -> Result<usize, ApiFault> {
    let mut statement = connection.prepare_cached("SELECT queue FROM queue_entries WHERE task = ?1")?;
    let queues: Vec<String> = statement
        .query_map([task], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut removed = 0;
    for queue in queues.iter().filter(|queue| Some(queue.as_str()) != keep) {
        removed += usize::from(remove(connection, queue, task, now)?);
    }
    Ok(removed)
}

/// Puts the entries into this order.
pub(crate) fn reorder(connection: &Connection, queue: &str, entries: &[Entry]) -> Result<(), ApiFault> {
    let sql = "UPDATE queue_entries SET position = ?3 WHERE queue = ?1 AND task = ?2";
    let mut statement = connection.prepare_cached(sql)?;
    for (position, entry) in (1_i64..).zip(entries) {
        statement.execute(params![queue, entry.task, position])?;
    }
    Ok(())
}
