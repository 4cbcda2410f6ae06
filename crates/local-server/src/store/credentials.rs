//! Key pairs. Only a fingerprint of each secret is stored.

use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::{Value, json};

use crate::auth::keys::fingerprint;
use crate::time;

pub(crate) fn insert(
    connection: &Connection,
    access_key: &str,
    secret_key: &str,
    user: &str,
    label: Option<&str>,
    now: i64,
) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT OR REPLACE INTO credentials (access_key, fingerprint, user, label, created) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![access_key, fingerprint(secret_key), user, label, now],
    )?;
    Ok(())
}

/// Whether this pair is one of ours.
pub(crate) fn matches(connection: &Connection, access_key: &str, secret_key: &str) -> rusqlite::Result<bool> {
    let stored: Option<String> = connection
        .prepare_cached("SELECT fingerprint FROM credentials WHERE access_key = ?1")?
        .query_row([access_key], |row| row.get(0))
        .optional()?;
    Ok(stored.is_some_and(|stored| stored == fingerprint(secret_key)))
}

pub(crate) fn touch(
    connection: &Connection,
    access_key: &str,
    from: Option<&str>,
    now: i64,
) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE credentials SET last_used = ?2, last_used_from = ?3 WHERE access_key = ?1",
        params![access_key, now, from],
    )?;
    Ok(())
}

/// All pairs of a user, without their secrets.
pub(crate) fn list(connection: &Connection, user: &str) -> rusqlite::Result<Vec<Value>> {
    let sql = "SELECT access_key, label, last_used, last_used_from FROM credentials WHERE user = ?1 ORDER BY created";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([user], |row| {
        let mut pair = json!({"access_key": row.get::<_, String>(0)?});
        if let Some(label) = row.get::<_, Option<String>>(1)? {
            pair["label"] = json!(label);
        }
        if let Some(used) = row.get::<_, Option<i64>>(2)? {
            pair["last_used"] = json!(time::iso(used));
        }
        if let Some(from) = row.get::<_, Option<String>>(3)? {
            pair["last_used_from"] = json!(from);
        }
        Ok(pair)
    })?;
    rows.collect()
}

pub(crate) fn relabel(
    connection: &Connection,
    access_key: &str,
    user: &str,
    label: Option<&str>,
) -> rusqlite::Result<usize> {
    connection.execute(
        "UPDATE credentials SET label = ?3 WHERE access_key = ?1 AND user = ?2",
        params![access_key, user, label],
    )
}

pub(crate) fn remove(connection: &Connection, access_key: &str, user: &str) -> rusqlite::Result<usize> {
    connection.execute(
        "DELETE FROM credentials WHERE access_key = ?1 AND user = ?2",
        [access_key, user],
    )
}
