//! Containers for ClearML tasks.
//!
//! # What it is for
//!
//! * [`flags`]: options as people write them for `docker run` become fields of the Engine API. Every option of
//!   that program is in a table with what becomes of it.

pub mod flags;
