//! Projects as stored. Names are whole paths; `path` in a document lists the ids of the ancestors.

use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::{document, documents};
use crate::api::ApiFault;
use crate::time;

pub(crate) fn load(connection: &Connection, id: &str) -> Result<Option<Value>, ApiFault> {
    document(connection, "SELECT doc FROM projects WHERE id = ?1", id)
}

/// A project that must exist: 400/401 otherwise.
pub(crate) fn require(connection: &Connection, id: &str) -> Result<Value, ApiFault> {
    load(connection, id)?.ok_or_else(|| ApiFault::invalid_project_id(id))
}

pub(crate) fn by_name(connection: &Connection, name: &str) -> Result<Option<Value>, ApiFault> {
    document(connection, "SELECT doc FROM projects WHERE name = ?1", name)
}

pub(crate) fn all(connection: &Connection) -> Result<Vec<Value>, ApiFault> {
    documents(connection, "SELECT doc FROM projects ORDER BY seq")
}

pub(crate) fn save(connection: &Connection, project: &Value) -> Result<(), ApiFault> {
    let text = |key: &str| project.get(key).and_then(Value::as_str);
    let sql = "INSERT INTO projects (id, name, parent, doc) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (id) DO UPDATE SET name = ?2, parent = ?3, doc = ?4";
    let columns = params![text("id"), text("name"), text("parent"), project.to_string()];
    connection.prepare_cached(sql)?.execute(columns)?;
    Ok(())
}

pub(crate) fn delete(connection: &Connection, id: &str) -> Result<usize, ApiFault> {
    Ok(connection.execute("DELETE FROM projects WHERE id = ?1", [id])?)
}

/// Moves `last_update` of a project, if there is one.
pub(crate) fn touch(connection: &Connection, id: Option<&str>, now: i64) -> Result<(), ApiFault> {
    let Some(id) = id else { return Ok(()) };
    if let Some(mut project) = load(connection, id)? {
        project["last_update"] = json!(time::iso(now));
        save(connection, &project)?;
    }
    Ok(())
}
