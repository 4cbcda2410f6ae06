//! Every kind of code and packages, through `execute` of the built executable, with real git, hg, ssh, pip, uv
//! and Poetry, against the embedded server; and the same with the official Python agent, for comparison.

#![expect(clippy::unwrap_used, reason = "a test whose scene cannot be set has failed")]

mod at_once;
#[path = "../../../../crates/env-builder/tests/builds/canary.rs"]
mod canary;
mod case;
mod code;
mod differential;
#[path = "../../../../crates/env-builder/tests/builds/fixtures.rs"]
mod fixtures;
mod journeys;
#[path = "../../../../crates/env-builder/tests/builds/package_index.rs"]
mod package_index;
mod packages;
mod place;
#[path = "../whole/scene.rs"]
#[expect(dead_code, reason = "the other program that has this scene uses all of it")]
mod scene;
#[path = "../../../../crates/env-builder/tests/builds/sshd.rs"]
mod sshd;
#[path = "../../../../crates/env-builder/tests/builds/web.rs"]
mod web;
