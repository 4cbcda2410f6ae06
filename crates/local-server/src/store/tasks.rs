//! Tasks as stored: one JSON document each, with the columns that selections use.
//!
//! Documents look as the API shows them. Keys that begin with `_` at the top level are bookkeeping of the server and
//! never leave it.

use rusqlite::{Connection, params};
use serde_json::Value;

use super::document;
use crate::api::ApiFault;
use crate::time;

/// The document of a task.
pub(crate) fn load(connection: &Connection, id: &str) -> Result<Option<Value>, ApiFault> {
    document(connection, "SELECT doc FROM tasks WHERE id = ?1", id)
}

/// The document of a task that must exist: 400/101 otherwise.
pub(crate) fn require(connection: &Connection, id: &str) -> Result<Value, ApiFault> {
    load(connection, id)?.ok_or_else(|| ApiFault::invalid_task_id(id))
}

/// Writes a document, new or known. `id`, `name`, `type`, `status`, `user`, `created` and `last_update` must be there.
pub(crate) fn save(connection: &Connection, task: &Value) -> Result<(), ApiFault> {
    let text = |key: &str| task.get(key).and_then(Value::as_str);
    let time_of = |key: &str| text(key).and_then(time::parse).unwrap_or_default();
    let sql = "INSERT INTO tasks (id, name, type, status, project, parent, user, created, last_update, doc)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
        ON CONFLICT (id) DO UPDATE SET name = ?2, type = ?3, status = ?4, project = ?5, parent = ?6, user = ?7,
            created = ?8, last_update = ?9, doc = ?10";
    connection.prepare_cached(sql)?.execute(params![
        text("id"),
        text("name"),
        text("type"),
        text("status"),
        text("project"),
        text("parent"),
        text("user"),
        time_of("created"),
        time_of("last_update"),
        task.to_string(),
    ])?;
    Ok(())
}

pub(crate) fn delete(connection: &Connection, id: &str) -> Result<bool, ApiFault> {
    Ok(connection.execute("DELETE FROM tasks WHERE id = ?1", [id])? > 0)
}
