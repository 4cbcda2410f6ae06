//! The configuration as a whole, through its public interface.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod bytes;
mod home;
mod mask;
mod settings;
mod start;
mod table;
mod vaults;
