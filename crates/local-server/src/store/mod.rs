//! The database: one file, one thread that writes, one that reads.
//!
//! A job is a closure over a transaction. The writer runs each job in a savepoint of its own and commits once for
//! all jobs that were waiting, so that one `fsync` serves many callers; replies leave after the commit.

pub(crate) mod credentials;
pub(crate) mod events;
pub(crate) mod meta;
pub(crate) mod models;
pub(crate) mod projects;
pub(crate) mod queues;
pub(crate) mod schema;
pub(crate) mod statistics;
pub(crate) mod tasks;
pub(crate) mod users;
pub(crate) mod vaults;
pub(crate) mod workers;

use std::path::Path;
use std::thread::JoinHandle;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::api::{Access, ApiFault};

/// Jobs that may wait for a thread before callers are held back.
const QUEUE_LENGTH: usize = 1024;
/// Jobs that share one commit at most.
const GROUP_SIZE: usize = 128;

type Outcome = Result<Value, ApiFault>;
type Work = Box<dyn FnOnce(&Transaction<'_>) -> Outcome + Send>;

struct Job {
    work: Work,
    reply: oneshot::Sender<Outcome>,
}

/// Handle on the storage threads. They end when every handle is gone.
pub(crate) struct Store {
    writer: mpsc::Sender<Job>,
    reader: mpsc::Sender<Job>,
}

/// The threads behind a [`Store`]; joined at shutdown so that the file is closed before the lock is given up.
pub(crate) struct StoreThreads(Vec<JoinHandle<()>>);

impl Store {
    /// Starts the threads on an open writing connection and a second, reading one.
    pub(crate) fn start(writer: Connection, reader: Connection) -> std::io::Result<(Self, StoreThreads)> {
        let (write_sender, write_jobs) = mpsc::channel(QUEUE_LENGTH);
        let (read_sender, read_jobs) = mpsc::channel(QUEUE_LENGTH);
        let write = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || serve_writes(writer, write_jobs))?;
        let read = std::thread::Builder::new()
            .name("store-reader".to_owned())
            .spawn(move || serve_reads(reader, read_jobs))?;
        Ok((
            Self {
                writer: write_sender,
                reader: read_sender,
            },
            StoreThreads(vec![write, read]),
        ))
    }

    /// Runs a job on the thread that its access needs and waits for its outcome (and commit).
    pub(crate) async fn run(
        &self,
        access: Access,
        work: impl FnOnce(&Transaction<'_>) -> Outcome + Send + 'static,
    ) -> Outcome {
        let (reply, outcome) = oneshot::channel();
        let job = Job {
            work: Box::new(work),
            reply,
        };
        let thread = match access {
            Access::Read => &self.reader,
            Access::Write => &self.writer,
        };
        let stopped = || ApiFault::new(500, 102, "Database unavailable (the storage has stopped)");
        thread.send(job).await.map_err(|_| stopped())?;
        outcome.await.map_err(|_| stopped())?
    }
}

impl StoreThreads {
    pub(crate) fn join(self) {
        for thread in self.0 {
            if thread.join().is_err() {
                tracing::error!("a storage thread ended with a panic");
            }
        }
    }
}

/// Opens (and creates) the database for writing.
pub(crate) fn open_writer(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    prepare(&connection)?;
    Ok(connection)
}

/// Opens the database a second time, for reading only.
pub(crate) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    prepare(&connection)?;
    Ok(connection)
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(())
}

fn serve_writes(mut connection: Connection, mut jobs: mpsc::Receiver<Job>) {
    while let Some(first) = jobs.blocking_recv() {
        let tx = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
            Ok(tx) => tx,
            Err(error) => {
                let _ = first.reply.send(Err(error.into()));
                continue;
            }
        };
        let mut done = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next {
            let outcome = guarded(&tx, job.work);
            done.push((job.reply, outcome));
            next = if done.len() < GROUP_SIZE {
                jobs.try_recv().ok()
            } else {
                None
            };
        }
        let committed = tx.commit();
        for (reply, outcome) in done {
            let outcome = match &committed {
                Ok(()) => outcome,
                Err(error) => Err(ApiFault::new(
                    500,
                    110,
                    format!("Update failed (cannot commit: {error})"),
                )),
            };
            // A caller that went away does not need the outcome.
            let _ = reply.send(outcome);
        }
    }
}

/// Runs a job in a savepoint: what a failed job wrote is undone without touching the others of its group.
fn guarded(tx: &Transaction<'_>, work: Work) -> Outcome {
    tx.execute_batch("SAVEPOINT job")?;
    let outcome = work(tx);
    let end = if outcome.is_ok() {
        "RELEASE job"
    } else {
        "ROLLBACK TO job; RELEASE job"
    };
    tx.execute_batch(end)?;
    outcome
}

fn serve_reads(mut connection: Connection, mut jobs: mpsc::Receiver<Job>) {
    while let Some(job) = jobs.blocking_recv() {
        let outcome = match connection.transaction() {
            Ok(tx) => (job.work)(&tx),
            Err(error) => Err(error.into()),
        };
        let _ = job.reply.send(outcome);
    }
}

/// The document that a query with one parameter finds.
pub(crate) fn document(connection: &Connection, sql: &str, key: &str) -> Result<Option<Value>, ApiFault> {
    let doc: Option<String> = connection
        .prepare_cached(sql)?
        .query_row([key], |row| row.get(0))
        .optional()?;
    Ok(doc.map(|doc| serde_json::from_str(&doc)).transpose()?)
}

/// The documents that a query without parameters finds.
pub(crate) fn documents(connection: &Connection, sql: &str) -> Result<Vec<Value>, ApiFault> {
    parse_all(
        connection
            .prepare_cached(sql)?
            .query_map([], |row| row.get::<_, String>(0))?,
    )
}

/// Reads documents out of rows.
pub(crate) fn parse_all(
    rows: impl Iterator<Item = rusqlite::Result<String>>,
) -> Result<Vec<Value>, ApiFault> {
    rows.map(|doc| Ok(serde_json::from_str(&doc?)?)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    /// Opens a store with one small table, in a folder that lives as long as the caller keeps it.
    fn open() -> (tempfile::TempDir, Store, StoreThreads) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.db");
        let writer = open_writer(&path).unwrap();
        writer
            .execute_batch("CREATE TABLE numbers (number INTEGER PRIMARY KEY)")
            .unwrap();
        let (store, threads) = Store::start(writer, open_reader(&path).unwrap()).unwrap();
        (folder, store, threads)
    }

    fn insert(tx: &Transaction<'_>, number: i64) -> Outcome {
        tx.execute("INSERT INTO numbers VALUES (?1)", [number])?;
        Ok(json!(number))
    }

    async fn stored(store: &Store) -> Value {
        let sql = "SELECT json_group_array(number) FROM (SELECT number FROM numbers ORDER BY number)";
        let read = move |tx: &Transaction<'_>| {
            Ok(serde_json::from_str(
                &tx.query_row(sql, [], |row| row.get::<_, String>(0))?,
            )?)
        };
        store.run(Access::Read, read).await.unwrap()
    }

    #[tokio::test]
    async fn a_job_that_fails_takes_nothing_else_with_it() {
        let (_folder, store, threads) = open();
        let store = Arc::new(store);
        let jobs: Vec<_> = (0..20)
            .map(|number| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    let work = move |tx: &Transaction<'_>| {
                        insert(tx, number)?;
                        if number % 2 == 0 {
                            Ok(json!(number))
                        } else {
                            Err(ApiFault::bad_request("odd"))
                        }
                    };
                    store.run(Access::Write, work).await.is_ok()
                })
            })
            .collect();
        for (number, job) in jobs.into_iter().enumerate() {
            assert_eq!(job.await.unwrap(), number % 2 == 0);
        }
        assert_eq!(stored(&store).await, json!([0, 2, 4, 6, 8, 10, 12, 14, 16, 18]));
        drop(store);
        threads.join();
    }

    #[tokio::test]
    async fn readers_see_what_was_acknowledged_and_cannot_write() {
        let (_folder, store, threads) = open();
        for number in 0..3 {
            store
                .run(Access::Write, move |tx| insert(tx, number))
                .await
                .unwrap();
            assert_eq!(stored(&store).await.as_array().unwrap().len() as i64, number + 1);
        }
        assert!(store.run(Access::Read, |tx| insert(tx, 9)).await.is_err());
        drop(store);
        threads.join();
    }
}
