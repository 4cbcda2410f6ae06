//! The server as a client sees it, over HTTP: what is special to this server, and what needs its clock. How every
//! server has to behave is checked by the cases of `cargo xtask conformance`.

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
mod rare;
mod raw;
mod reading;
mod sdk;
mod startup;
mod transport;
mod workers;
