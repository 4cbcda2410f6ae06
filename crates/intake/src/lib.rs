//! placeholder
pub mod order;
pub mod owner;
pub mod pop;
pub mod popper;
pub mod schedule;
pub mod server;
