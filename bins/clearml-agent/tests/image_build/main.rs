//! `build --docker` with a real engine: a private repository, a private package index, and what becomes of the
//! image.
//!
//! `DOCKER_HOST` says where the engine is. The image has to have glibc, git and Python: `CLEARML_TEST_IMAGE`, or
//! `clearml-base:python`. Where something of that is missing, the tests say so and do nothing.

#![expect(clippy::unwrap_used, reason = "a test whose scene cannot be set has failed")]

mod ends;
#[path = "../../../../crates/env-builder/tests/builds/fixtures.rs"]
#[expect(dead_code, reason = "it serves more tests than these")]
mod fixtures;
mod images;
#[path = "../containers/place.rs"]
#[expect(dead_code, reason = "it serves more tests than these")]
mod place;
#[path = "../whole/scene.rs"]
#[expect(dead_code, reason = "it serves more tests than these")]
mod scene;
mod studio;
#[path = "../../../../crates/env-builder/tests/builds/web.rs"]
mod web;
