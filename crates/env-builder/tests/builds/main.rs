//! Whole builds with real git, real interpreters, real pip and real uv.

#![expect(
    clippy::unwrap_used,
    reason = "a test that can't prepare its bench has failed"
)]

mod caches;
mod canary;
mod common;
mod conda;
mod fixtures;
mod freeze;
mod hostile;
mod interpreters;
mod literal;
mod logins;
mod managers;
mod mercurial;
mod package_index;
mod packages;
mod patches;
mod projects;
mod python;
mod repository;
mod requirements;
mod ssh;
mod sshd;
mod submodules;
mod switches;
mod ways;
mod web;
