//! Queues, pops and reports against the embedded server over HTTP, with its faults switched on.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod monitor;
mod pop;
mod queues;
mod report;
mod vaults;
mod world;
