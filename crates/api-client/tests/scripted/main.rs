//! The client against a server that misbehaves on purpose.

#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers end the test where something is wrong"
)]

mod calls;
mod canary;
mod catalogue;
mod faults;
mod properties;
mod proxies;
mod server;
mod session;
mod tls;
mod versions;
