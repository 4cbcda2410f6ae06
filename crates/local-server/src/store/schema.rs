//! The tables. Documents are JSON as the API shows them; columns beside `doc` repeat what selections and joins need.

use rusqlite::Connection;

/// Version of the layout below, kept in `PRAGMA user_version`.
const SCHEMA_VERSION: i64 = 2;

const TABLES: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE users (id TEXT PRIMARY KEY, doc TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE credentials (
    access_key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, user TEXT NOT NULL, label TEXT,
    created INTEGER NOT NULL, last_used INTEGER, last_used_from TEXT
) WITHOUT ROWID;
CREATE TABLE revoked_sessions (session TEXT PRIMARY KEY, expires INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE projects (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL UNIQUE, parent TEXT, doc TEXT NOT NULL);
CREATE INDEX projects_parent ON projects (parent);

CREATE TABLE tasks (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, type TEXT NOT NULL, status TEXT NOT NULL,
    project TEXT, parent TEXT, user TEXT NOT NULL, created INTEGER NOT NULL, last_update INTEGER NOT NULL,
    doc TEXT NOT NULL
);
CREATE INDEX tasks_status ON tasks (status, last_update);
CREATE INDEX tasks_project ON tasks (project);
CREATE INDEX tasks_parent ON tasks (parent);
CREATE INDEX tasks_type ON tasks (type);
CREATE INDEX tasks_name ON tasks (name);
CREATE INDEX tasks_last_update ON tasks (last_update);

CREATE TABLE queues (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL UNIQUE, doc TEXT NOT NULL);
CREATE TABLE queue_entries (
    queue TEXT NOT NULL REFERENCES queues (id) ON DELETE CASCADE, position INTEGER NOT NULL, task TEXT NOT NULL,
    added INTEGER NOT NULL, PRIMARY KEY (queue, task)
) WITHOUT ROWID;
CREATE INDEX queue_entries_order ON queue_entries (queue, position);
CREATE INDEX queue_entries_task ON queue_entries (task);

CREATE TABLE workers (
    user TEXT NOT NULL, id TEXT NOT NULL, expires INTEGER NOT NULL, last_activity INTEGER NOT NULL, doc TEXT NOT NULL,
    PRIMARY KEY (user, id)
) WITHOUT ROWID;
CREATE TABLE worker_properties (
    worker TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, expires INTEGER, PRIMARY KEY (worker, key)
) WITHOUT ROWID;

CREATE TABLE models (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, project TEXT, task TEXT, parent TEXT,
    ready INTEGER NOT NULL, created INTEGER NOT NULL, last_update INTEGER NOT NULL, doc TEXT NOT NULL
);
CREATE INDEX models_task ON models (task);
CREATE INDEX models_project ON models (project);

CREATE TABLE events_log (seq INTEGER PRIMARY KEY AUTOINCREMENT, task TEXT NOT NULL, timestamp INTEGER NOT NULL, doc TEXT NOT NULL);
CREATE INDEX events_log_order ON events_log (task, timestamp, seq);
CREATE TABLE events_metric (
    key TEXT PRIMARY KEY, task TEXT NOT NULL, type TEXT NOT NULL, metric TEXT NOT NULL, variant TEXT NOT NULL,
    iter INTEGER NOT NULL, timestamp INTEGER NOT NULL, value REAL, doc TEXT NOT NULL
) WITHOUT ROWID;
-- Curves are read from this index alone, without touching the documents.
CREATE INDEX events_metric_order ON events_metric (task, type, metric, variant, iter, timestamp, value);
CREATE INDEX events_metric_paging ON events_metric (task, type, iter, timestamp);
";

/// What layout 2 adds.
const TABLES_2: &str = "
CREATE TABLE worker_stats (
    worker TEXT NOT NULL, timestamp INTEGER NOT NULL, task TEXT, category TEXT, metric TEXT, variant TEXT, value REAL
);
CREATE INDEX worker_stats_time ON worker_stats (timestamp);
CREATE INDEX worker_stats_metric ON worker_stats (metric, timestamp);
CREATE TABLE queue_samples (queue TEXT NOT NULL, timestamp INTEGER NOT NULL, length INTEGER NOT NULL, waiting REAL NOT NULL);
CREATE INDEX queue_samples_time ON queue_samples (timestamp);
CREATE TABLE vaults (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, user TEXT NOT NULL, doc TEXT NOT NULL);
";

/// Why the stored layout cannot be used.
#[derive(Debug)]
pub(crate) enum SchemaProblem {
    Sqlite(rusqlite::Error),
    /// Written by a newer program.
    TooNew(i64),
}

impl From<rusqlite::Error> for SchemaProblem {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Creates the tables in a new file, brings an older one up to date, or refuses one from the future.
pub(crate) fn ensure(connection: &mut Connection) -> Result<(), SchemaProblem> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > SCHEMA_VERSION {
        return Err(SchemaProblem::TooNew(found));
    }
    if found < SCHEMA_VERSION {
        let tx = connection.transaction()?;
        if found == 0 {
            tx.execute_batch(TABLES)?;
        }
        tx.execute_batch(TABLES_2)?;
        tx.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        tx.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_layout_is_completed_and_keeps_its_rows() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(TABLES).unwrap();
        connection
            .execute("INSERT INTO meta VALUES ('key', 'kept')", [])
            .unwrap();
        connection.pragma_update(None, "user_version", 1).unwrap();
        for _ in 0..2 {
            ensure(&mut connection).unwrap_or_else(|problem| panic!("{problem:?}"));
        }
        let count = |table: &str| {
            let sql = format!("SELECT count(*) FROM {table}");
            connection
                .query_row(&sql, [], |row| row.get::<_, i64>(0))
                .unwrap()
        };
        assert_eq!((count("meta"), count("vaults"), count("worker_stats")), (1, 0, 0));
    }
}
