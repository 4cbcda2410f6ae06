//! The daemon. (The lead is writing this crate since 06:03; see the note in Cargo.toml.)
