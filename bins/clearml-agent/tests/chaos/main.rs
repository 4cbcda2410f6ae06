//! A short storm; `cargo xtask e2e chaos` has the long form.

use std::path::Path;
use std::time::Duration;

use xtask::e2e::chaos::{Options, campaign};

#[test]
fn a_short_storm_leaves_nothing_wrong() {
    let folder = tempfile::tempdir().unwrap();
    // Kept for people when something was wrong.
    let scratch = folder.path().join("chaos");
    let seed = std::env::var("CLEARML_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_secs());
    eprintln!("chaos: CLEARML_TEST_SEED={seed} repeats the choices");
    let outcome = campaign(&Options {
        executable: Path::new(env!("CARGO_BIN_EXE_clearml-agent")).to_owned(),
        scratch,
        storm: Duration::from_secs(40),
        seed,
    });
    if let Err(error) = outcome {
        panic!("in {}: {error:#}", folder.keep().display());
    }
}
