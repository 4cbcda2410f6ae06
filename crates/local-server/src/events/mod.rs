//! What a task reports about itself: console lines, scalars, plots and debug images.
//!
//! The decisions are pure and live in files of their own: what a reported line means ([`incoming`]), how it moves
//! the task's metric summary ([`last_metrics`]), and how a long curve is thinned ([`histogram`]). [`store`] writes
//! and [`read`] reads the two tables; the endpoints themselves are in `crate::api::events`.
//!
//! The one thing to know: console lines are append-only rows ordered by time and then by arrival, everything else
//! is one row per identity (task, iteration, metric, variant and key), so that a repeated report replaces itself.

pub(crate) mod histogram;
pub(crate) mod incoming;
pub(crate) mod last_metrics;
pub(crate) mod read;
pub(crate) mod store;

/// Tables of this module; safe to run on a database that has them already.
///
/// The index of `events_metric` ends in the columns that a curve needs, so that a histogram is read from the index
/// alone, without touching the documents.
pub(crate) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS events_log (
    seq  INTEGER PRIMARY KEY AUTOINCREMENT,
    task TEXT NOT NULL,
    ts   INTEGER NOT NULL,
    doc  TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS events_log_by_task ON events_log (task, ts, seq);
CREATE TABLE IF NOT EXISTS events_metric (
    id      TEXT PRIMARY KEY,
    task    TEXT NOT NULL,
    type    TEXT NOT NULL,
    metric  TEXT NOT NULL,
    variant TEXT NOT NULL,
    iter    INTEGER NOT NULL,
    ts      INTEGER NOT NULL,
    value   REAL,
    doc     TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS events_metric_by_task ON events_metric (task, type, metric, variant, iter, ts, value);
CREATE INDEX IF NOT EXISTS events_metric_by_iter ON events_metric (task, type, iter, ts, id);
";

/// The iteration that marks a value without a history ("single value"): the smallest 32-bit integer.
pub(crate) const SINGLE_VALUE_ITER: i64 = -2_147_483_648;
