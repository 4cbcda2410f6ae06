//! What the commands of `cargo xtask` are made of.
//!
//! A library besides the program because the journey tests of the binaries stand on the same
//! [`workbench`]: the embedded server and the agent as real processes, a small window onto the server,
//! and Python environments with the official packages. Nothing here ships to users.

pub mod bench;
pub mod conformance;
pub mod conformance_suite;
pub mod demo;
pub mod dist;
pub mod e2e;
pub mod engine;
pub mod floors;
pub mod reference;
pub mod soak;
pub mod terminal;
pub mod testing;
pub mod workbench;
pub mod workspace;
