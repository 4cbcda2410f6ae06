//! Users. There is normally one; the table exists so that objects have an owner with a name.

use rusqlite::{Connection, OptionalExtension as _};
use serde_json::{Map, Value};

pub(crate) fn load(
    connection: &Connection,
    id: &str,
) -> Result<Option<Map<String, Value>>, crate::api::ApiFault> {
    let doc: Option<String> = connection
        .prepare_cached("SELECT doc FROM users WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    Ok(doc.map(|doc| serde_json::from_str(&doc)).transpose()?)
}

pub(crate) fn save(connection: &Connection, id: &str, doc: &Value) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT OR REPLACE INTO users (id, doc) VALUES (?1, ?2)",
        [id, &doc.to_string()],
    )?;
    Ok(())
}

pub(crate) fn all(connection: &Connection) -> Result<Vec<Map<String, Value>>, crate::api::ApiFault> {
    let mut statement = connection.prepare_cached("SELECT doc FROM users ORDER BY id")?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
    rows.map(|doc| Ok(serde_json::from_str(&doc?)?)).collect()
}
