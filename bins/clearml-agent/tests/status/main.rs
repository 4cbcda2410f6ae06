//! What people and their programs see of the agent, and its life under a service manager: `status`, the log
//! in JSON, metrics, readiness and watchdog, reload, and restarts that leave tasks alone.

#![expect(clippy::unwrap_used, reason = "a test whose scene cannot be set has failed")]

mod adopts;
mod log;
mod manager;
mod metrics;
mod overview;
#[path = "../whole/scene.rs"]
#[expect(dead_code, reason = "it serves more tests than these")]
mod scene;
mod service;
mod terminal;

use scene::Scene;
use xtask::workbench::AgentOptions;

/// An agent that sees no workers but those of its scene.
fn options(scene: &Scene) -> AgentOptions {
    let folder = scene.folder.path().to_str().unwrap();
    scene.options().variable("TMPDIR", folder)
}
