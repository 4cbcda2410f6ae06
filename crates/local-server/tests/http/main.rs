//! The server as a client sees it, over HTTP.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should panic where it is"
)]

mod editing;
mod events;
mod faults;
mod files;
mod lifecycle;
mod models;
mod queues;
mod queues_entries;
mod raw;
mod reading;
mod sdk;
mod startup;
mod transport;
mod workers;
