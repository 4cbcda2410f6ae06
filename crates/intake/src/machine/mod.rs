//! The machine under the worker: what it has and how busy it is. Reading only; averages are made in
//! [`metrics`](crate::metrics).

pub(crate) mod counters;
pub mod cuda;
pub(crate) mod gauges;
pub(crate) mod gpu;

/// Metrics of memory and traffic are in units of this many bytes.
pub(crate) const MEBIBYTE: f64 = 1_048_576.0;
