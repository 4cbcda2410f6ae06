//! Models as stored: one JSON document each, as the API shows it, with the columns that selections use.

use rusqlite::{Connection, params};
use serde_json::Value;

use super::document;
use crate::api::ApiFault;
use crate::time;

/// The document of a model.
pub(crate) fn load(connection: &Connection, id: &str) -> Result<Option<Value>, ApiFault> {
    document(connection, "SELECT doc FROM models WHERE id = ?1", id)
}

/// The document of a model that must exist: 400/201 otherwise.
pub(crate) fn require(connection: &Connection, id: &str) -> Result<Value, ApiFault> {
    load(connection, id)?.ok_or_else(|| ApiFault::invalid_model_id(id))
}

/// The documents whose indexed column (`id`, `task` or `project`) has this value, oldest first; all of them when no
/// value is given.
pub(crate) fn candidates(
    connection: &Connection,
    column: &'static str,
    value: Option<&str>,
) -> Result<Vec<Value>, ApiFault> {
    let sql = match value {
        Some(_) => format!("SELECT doc FROM models WHERE {column} = ?1 ORDER BY seq"),
        None => "SELECT doc FROM models WHERE ?1 IS NULL ORDER BY seq".to_owned(),
    };
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([value])?;
    let mut docs = Vec::new();
    while let Some(row) = rows.next()? {
        docs.push(serde_json::from_str(
            row.get_ref(0)?.as_str().unwrap_or_default(),
        )?);
    }
    Ok(docs)
}

/// Writes a document, new or known. `id`, `name`, `created` and `last_update` must be there.
pub(crate) fn save(connection: &Connection, model: &Value) -> Result<(), ApiFault> {
    let text = |key: &str| model.get(key).and_then(Value::as_str);
    let time_of = |key: &str| text(key).and_then(time::parse).unwrap_or_default();
    let sql = "INSERT INTO models (id, name, project, task, parent, ready, created, last_update, doc)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
        ON CONFLICT (id) DO UPDATE SET name = ?2, project = ?3, task = ?4, parent = ?5, ready = ?6, created = ?7,
            last_update = ?8, doc = ?9";
    connection.prepare_cached(sql)?.execute(params![
        text("id"),
        text("name"),
        text("project"),
        text("task"),
        text("parent"),
        model.get("ready").and_then(Value::as_bool).unwrap_or(false),
        time_of("created"),
        time_of("last_update"),
        model.to_string(),
    ])?;
    Ok(())
}

/// Deletes the model, but not its events.
pub(crate) fn delete(connection: &Connection, id: &str) -> Result<bool, ApiFault> {
    Ok(connection.execute("DELETE FROM models WHERE id = ?1", [id])? > 0)
}
