//! Services mode in containers of a real engine, through the built executable and the embedded server.
//!
//! As in the tests of single containers, `DOCKER_HOST` says where the engine is and `CLEARML_TEST_IMAGE` names an
//! image with glibc and Python, or there is `clearml-base:python`.

#![expect(clippy::unwrap_used, reason = "a test whose scene cannot be set has failed")]

mod ends;
mod many;
#[path = "../containers/place.rs"]
#[expect(dead_code, reason = "it serves more tests than these")]
mod place;
mod registry;
mod restarts;
#[path = "../whole/scene.rs"]
#[expect(dead_code, reason = "it serves more tests than these")]
mod scene;
mod stand;
