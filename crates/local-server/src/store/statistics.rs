//! What workers and queues looked like over time. Kept for a week, so that a busy server does not grow without end.

use rusqlite::{Connection, params};

use crate::api::ApiFault;

/// How long a sample is kept, in milliseconds.
const KEPT: i64 = 7 * 24 * 3600 * 1000;

/// One number that a worker reported about its machine.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Number {
    /// `cpu_usage`, `memory_free` and the like.
    pub(crate) metric: String,
    /// `total`, or the index of a processor.
    pub(crate) variant: String,
    pub(crate) value: f64,
}

/// Stores a report. A report without numbers is stored too, because it shows that the worker was there.
pub(crate) fn add_report(
    connection: &Connection,
    worker: &str,
    task: Option<&str>,
    timestamp: i64,
    now: i64,
    numbers: &[Number],
) -> Result<(), ApiFault> {
    connection
        .prepare_cached("DELETE FROM worker_stats WHERE timestamp < ?1")?
        .execute([now - KEPT])?;
    let sql = "INSERT INTO worker_stats (worker, timestamp, task, category, metric, variant, value)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let mut statement = connection.prepare_cached(sql)?;
    if numbers.is_empty() {
        let nothing: Option<&str> = None;
        statement.execute(params![
            worker, timestamp, task, nothing, nothing, nothing, nothing
        ])?;
    }
    for number in numbers {
        let category = number.metric.split('_').next().unwrap_or_default();
        statement.execute(params![
            worker,
            timestamp,
            task,
            category,
            number.metric,
            number.variant,
            number.value
        ])?;
    }
    Ok(())
}

/// Categories and the metrics in them that workers have reported, sorted. `workers` is a JSON list, or nothing for all.
pub(crate) fn metric_keys(
    connection: &Connection,
    workers: Option<&str>,
) -> Result<Vec<(String, String)>, ApiFault> {
    let sql = "SELECT DISTINCT category, metric FROM worker_stats
        WHERE metric IS NOT NULL AND (?1 IS NULL OR worker IN (SELECT value FROM json_each(?1)))
        ORDER BY category, metric";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([workers], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Part of a stretch of time, cut into pieces of equal length. All times are milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slices {
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) length: i64,
}

/// What is made of the numbers of one slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aggregation {
    Average,
    Least,
    Greatest,
}

impl Aggregation {
    fn sql(self) -> &'static str {
        match self {
            Self::Average => "avg",
            Self::Least => "min",
            Self::Greatest => "max",
        }
    }
}

/// One value of a series.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Point {
    pub(crate) worker: String,
    /// Empty unless the series is split.
    pub(crate) variant: String,
    /// Begin of the slice, in milliseconds.
    pub(crate) begin: i64,
    pub(crate) value: f64,
}

/// The values of one metric, by worker (and variant, when split) and slice, in this order.
pub(crate) fn series(
    connection: &Connection,
    metric: &str,
    aggregation: Aggregation,
    split: bool,
    slices: Slices,
    workers: Option<&str>,
) -> Result<Vec<Point>, ApiFault> {
    let variant = if split { "variant" } else { "''" };
    let sql = format!(
        "SELECT worker, {variant} AS part, (timestamp - ?2) / ?4 AS slice, {}(value) FROM worker_stats
            WHERE metric = ?1 AND timestamp >= ?2 AND timestamp < ?3
                AND (?5 IS NULL OR worker IN (SELECT value FROM json_each(?5)))
            GROUP BY worker, part, slice ORDER BY worker, part, slice",
        aggregation.sql()
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let parameters = params![metric, slices.from, slices.to, slices.length, workers];
    let rows = statement.query_map(parameters, |row| {
        Ok(Point {
            worker: row.get(0)?,
            variant: row.get(1)?,
            begin: slices.from + row.get::<_, i64>(2)? * slices.length,
            value: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// For every slice with reports: its begin, how many workers reported, and how many of them had a task.
pub(crate) fn activity(connection: &Connection, slices: Slices) -> Result<Vec<(i64, i64, i64)>, ApiFault> {
    let sql = "SELECT (timestamp - ?1) / ?3 AS slice, count(DISTINCT worker),
            count(DISTINCT CASE WHEN task IS NOT NULL THEN worker END)
        FROM worker_stats WHERE timestamp >= ?1 AND timestamp < ?2 GROUP BY slice ORDER BY slice";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![slices.from, slices.to, slices.length], |row| {
        let begin = slices.from + row.get::<_, i64>(0)? * slices.length;
        Ok((begin, row.get(1)?, row.get(2)?))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Notes how long a queue is now, and how many seconds its entries have waited on average.
pub(crate) fn sample_queue(connection: &Connection, queue: &str, now: i64) -> Result<(), ApiFault> {
    connection
        .prepare_cached("DELETE FROM queue_samples WHERE timestamp < ?1")?
        .execute([now - KEPT])?;
    let sql = "INSERT INTO queue_samples (queue, timestamp, length, waiting)
        SELECT ?1, ?2, count(*), coalesce(avg(?2 - added), 0) / 1000 FROM queue_entries WHERE queue = ?1";
    connection.prepare_cached(sql)?.execute(params![queue, now])?;
    Ok(())
}

/// For every slice with samples of a queue: its begin, the average waiting time in seconds, and the average length.
pub(crate) fn queue_series(
    connection: &Connection,
    queue: &str,
    slices: Slices,
) -> Result<Vec<(i64, f64, f64)>, ApiFault> {
    let sql = "SELECT (timestamp - ?2) / ?4 AS slice, avg(waiting), avg(length) FROM queue_samples
        WHERE queue = ?1 AND timestamp >= ?2 AND timestamp < ?3 GROUP BY slice ORDER BY slice";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![queue, slices.from, slices.to, slices.length], |row| {
        let begin = slices.from + row.get::<_, i64>(0)? * slices.length;
        Ok((begin, row.get(1)?, row.get(2)?))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
