//! What happens to tasks when their engine, or what it runs, is treated badly from outside.
//!
//! These tests start an engine of their own, one at a time: nobody stops an engine that others use. That takes root
//! and an installed engine; where something is missing, they say so and do nothing. `CLEARML_TEST_LONG=1` lets
//! engines stay away for as long as an upgrade takes.

#![expect(clippy::unwrap_used, reason = "a test whose scene cannot be set has failed")]

mod away;
mod bare;
mod crowd;
mod outside;
#[path = "../whole/scene.rs"]
#[expect(dead_code, reason = "it serves more tests than these")]
mod scene;
mod stage;
