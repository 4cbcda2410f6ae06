//! The daemon as a process of its own, against an embedded server that fails on demand.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of tests that can not do its part shall panic"
)]

mod cost;
mod faults;
mod owner;
mod queues;
mod requeue;
mod runs;
mod scene;
mod services;
mod surroundings;
