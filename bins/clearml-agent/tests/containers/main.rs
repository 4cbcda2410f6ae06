//! Tasks in containers of a real engine, through the built executable and the embedded server.
//!
//! `DOCKER_HOST` says where the engine is. The image has to have glibc and Python: `CLEARML_TEST_IMAGE`, or
//! `clearml-base:python`. Where something of that is missing, the tests say so and do nothing.

#![expect(clippy::unwrap_used, reason = "a test whose scene cannot be set has failed")]

mod ends;
#[path = "../../../../crates/env-builder/tests/builds/fixtures.rs"]
#[expect(dead_code, reason = "it serves more tests than these")]
mod fixtures;
mod hostile;
mod journey;
mod login;
mod official;
mod offline;
mod owner;
mod place;
mod podman;
#[path = "../services_contained/registry.rs"]
mod registry;
mod restarts;
#[path = "../whole/scene.rs"]
#[expect(dead_code, reason = "it serves more tests than these")]
mod scene;
mod services;
mod siblings;
mod tables;
mod tools;
