//! The daemon as a process of its own, against an embedded server that fails on demand.

mod faults;
mod queues;
mod runs;
mod scene;
