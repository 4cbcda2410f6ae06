//! The server over https, and its web page without a browser.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should panic where it is"
)]

mod page;
mod produced;
mod tls;
