//! What a task reports about itself: console lines, scalars, plots and debug images.
//!
//! The decisions are pure and live in files of their own: what a reported line means ([`incoming`]), how it moves
//! the task's metric summary ([`last_metrics`]), and how a long curve is thinned ([`histogram`]). [`write`] and the
//! reading files work on the two tables of events; the endpoints themselves are in `crate::api::events`.
//!
//! The one thing to know: console lines are append-only rows ordered by time and then by arrival, everything else
//! is one row per identity (type, task, iteration, metric, variant and key), so that a repeated report replaces itself.

pub(crate) mod curves;
pub(crate) mod filter;
pub(crate) mod histogram;
pub(crate) mod incoming;
pub(crate) mod last_metrics;
pub(crate) mod log;
pub(crate) mod samples;
pub(crate) mod scroll;
pub(crate) mod write;

/// The iteration that marks a value without a history ("single value"): the smallest 32-bit integer.
pub(crate) const SINGLE_VALUE_ITER: i64 = -2_147_483_648;
