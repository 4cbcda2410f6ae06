//! Single values that belong to the installation: the signing secret, the first key pair, the identity.

use rusqlite::{Connection, OptionalExtension as _};

/// The stored value of a key, made with `default` and stored the first time it is asked for.
pub(crate) fn get_or_create(
    connection: &Connection,
    key: &str,
    default: impl FnOnce() -> String,
) -> rusqlite::Result<String> {
    let found: Option<String> = connection
        .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))
        .optional()?;
    if let Some(value) = found {
        return Ok(value);
    }
    let value = default();
    connection.execute("INSERT INTO meta (key, value) VALUES (?1, ?2)", [key, &value])?;
    Ok(value)
}
