//! Workers: entries that expire unless they are heard of, and the runtime properties that agents may keep here.

use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::ApiFault;

/// What is known about one worker. Times are milliseconds since the epoch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Worker {
    pub(crate) id: String,
    pub(crate) user: String,
    pub(crate) ip: Option<String>,
    pub(crate) task: Option<String>,
    pub(crate) queue: Option<String>,
    pub(crate) queues: Vec<String>,
    pub(crate) tags: Value,
    pub(crate) system_tags: Value,
    pub(crate) registered: i64,
    /// Seconds of silence after which the entry vanishes.
    pub(crate) timeout: i64,
    pub(crate) last_activity: i64,
    pub(crate) last_report: Option<i64>,
}

impl Worker {
    /// What makes this entry unique: the same name under another user is another worker.
    pub(crate) fn key(&self, company: &str) -> String {
        format!("worker_{company}_{}_{}", self.user, self.id)
    }
}

/// A worker of a user, unless it has expired.
pub(crate) fn load(
    connection: &Connection,
    user: &str,
    id: &str,
    now: i64,
) -> Result<Option<Worker>, ApiFault> {
    let sql = "SELECT doc FROM workers WHERE user = ?1 AND id = ?2 AND expires > ?3";
    let doc: Option<String> = connection
        .prepare_cached(sql)?
        .query_row(params![user, id, now], |row| row.get(0))
        .optional()?;
    Ok(doc.map(|doc| serde_json::from_str(&doc)).transpose()?)
}

/// Stores a worker and starts its lifetime anew.
pub(crate) fn save(connection: &Connection, worker: &Worker) -> Result<(), ApiFault> {
    let sql =
        "INSERT OR REPLACE INTO workers (user, id, expires, last_activity, doc) VALUES (?1, ?2, ?3, ?4, ?5)";
    let expires = worker
        .last_activity
        .saturating_add(worker.timeout.saturating_mul(1000));
    let doc = serde_json::to_string(worker)?;
    connection.prepare_cached(sql)?.execute(params![
        worker.user,
        worker.id,
        expires,
        worker.last_activity,
        doc
    ])?;
    Ok(())
}

pub(crate) fn delete(connection: &Connection, user: &str, id: &str) -> Result<(), ApiFault> {
    connection.execute("DELETE FROM workers WHERE user = ?1 AND id = ?2", [user, id])?;
    Ok(())
}

/// Live workers that were active at or after a time.
pub(crate) fn active_since(connection: &Connection, since: i64, now: i64) -> Result<Vec<Worker>, ApiFault> {
    let sql = "SELECT doc FROM workers WHERE expires > ?1 AND last_activity >= ?2 ORDER BY id";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([now, since], |row| row.get::<_, String>(0))?;
    rows.map(|doc| Ok(serde_json::from_str(&doc?)?)).collect()
}

/// Forgets what has expired.
pub(crate) fn purge(connection: &Connection, now: i64) -> Result<(), ApiFault> {
    connection.execute("DELETE FROM workers WHERE expires <= ?1", [now])?;
    connection.execute("DELETE FROM worker_properties WHERE expires <= ?1", [now])?;
    Ok(())
}

/// One runtime property: key, value, and when it ends.
pub(crate) type Property = (String, String, Option<i64>);

pub(crate) fn properties(connection: &Connection, worker: &str, now: i64) -> Result<Vec<Property>, ApiFault> {
    let sql = "SELECT key, value, expires FROM worker_properties
        WHERE worker = ?1 AND (expires IS NULL OR expires > ?2) ORDER BY key";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![worker, now], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(crate) fn set_property(
    connection: &Connection,
    worker: &str,
    (key, value, expires): &Property,
) -> Result<(), ApiFault> {
    let sql =
        "INSERT OR REPLACE INTO worker_properties (worker, key, value, expires) VALUES (?1, ?2, ?3, ?4)";
    connection
        .prepare_cached(sql)?
        .execute(params![worker, key, value, expires])?;
    Ok(())
}

pub(crate) fn delete_property(connection: &Connection, worker: &str, key: &str) -> Result<(), ApiFault> {
    connection.execute(
        "DELETE FROM worker_properties WHERE worker = ?1 AND key = ?2",
        [worker, key],
    )?;
    Ok(())
}
