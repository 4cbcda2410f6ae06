//! The commands that are not a service, as the built executable: `init`, `doctor`, and what the program writes
//! about itself.

#![expect(clippy::unwrap_used, reason = "a test whose scene cannot be set has failed")]

mod doctor;
mod init;
mod init_given;
mod list;
mod owner;
mod reference;
mod stage;
