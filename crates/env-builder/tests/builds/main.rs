//! Whole builds with real git, real interpreters, real pip and real uv.

#![expect(
    clippy::unwrap_used,
    reason = "a test that can't prepare its bench has failed"
)]

mod common;
mod literal;
mod packages;
mod repository;
