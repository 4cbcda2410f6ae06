//! The server as a client sees it, over HTTP.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod events;
mod faults;
mod files;
mod models;
mod raw;
mod sdk;
mod transport;
