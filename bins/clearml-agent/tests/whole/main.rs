//! The built executable as a user meets it: with its own server, real git, pip and Python, and the official
//! packages. One program, so that it is linked once.

#![expect(clippy::unwrap_used, reason = "a test whose scene cannot be set has failed")]

mod bad_tasks;
#[path = "../../../../crates/env-builder/tests/builds/canary.rs"]
mod canary;
mod code;
mod command_line;
mod daemon_options;
mod execute_ends;
mod includes;
mod journey;
mod kill_campaign;
mod machine;
mod odd_arguments;
mod scene;
mod server_faults;
mod services;
mod shown;
mod terminal;
#[path = "../../../../crates/env-builder/tests/builds/web.rs"]
mod web;
