//! The embedded server's page in a real browser, and over https with the real agent.

#![expect(clippy::unwrap_used, reason = "a test whose scene cannot be set has failed")]

mod browser;
mod https;
mod journey;
mod strangers;
