//! Vaults: pieces of client configuration that the server keeps for a user.

use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::Value;

use super::parse_all;
use crate::api::ApiFault;

pub(crate) fn of_user(connection: &Connection, user: &str) -> Result<Vec<Value>, ApiFault> {
    let mut statement = connection.prepare_cached("SELECT doc FROM vaults WHERE user = ?1 ORDER BY seq")?;
    parse_all(statement.query_map([user], |row| row.get::<_, String>(0))?)
}

pub(crate) fn load(connection: &Connection, user: &str, id: &str) -> Result<Option<Value>, ApiFault> {
    let doc: Option<String> = connection
        .prepare_cached("SELECT doc FROM vaults WHERE user = ?1 AND id = ?2")?
        .query_row([user, id], |row| row.get(0))
        .optional()?;
    Ok(doc.map(|doc| serde_json::from_str(&doc)).transpose()?)
}

/// Writes a vault, new or known.
pub(crate) fn save(connection: &Connection, user: &str, id: &str, doc: &Value) -> Result<(), ApiFault> {
    let sql =
        "INSERT INTO vaults (id, user, doc) VALUES (?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET doc = ?3";
    connection
        .prepare_cached(sql)?
        .execute(params![id, user, doc.to_string()])?;
    Ok(())
}

pub(crate) fn delete(connection: &Connection, user: &str, id: &str) -> Result<usize, ApiFault> {
    Ok(connection.execute("DELETE FROM vaults WHERE user = ?1 AND id = ?2", [user, id])?)
}
