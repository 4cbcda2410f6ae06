//! What tasks need to know about their stored events.

use rusqlite::Connection;

/// Deletes every event of a task (or model) and says how many there were.
pub(crate) fn delete_for_task(connection: &Connection, task: &str) -> rusqlite::Result<usize> {
    let lines = connection.execute("DELETE FROM events_log WHERE task = ?1", [task])?;
    let points = connection.execute("DELETE FROM events_metric WHERE task = ?1", [task])?;
    Ok(lines + points)
}
