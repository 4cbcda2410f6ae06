//! `cargo xtask e2e docker`: everything about containers on a real engine.
//!
//! The engine is the one that answers, or one that is started for this and ends with it. The tests are those of the
//! suite, in their long forms, one after the other.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::engine::{self, Engine};
use crate::terminal::{bold, duration, green, note, red, step};
use crate::testing::Tally;
use crate::workspace;

/// Programs of tests that need containers: of a package, and what they are about.
const PROGRAMS: [(&str, &str, &str); 5] = [
    ("clearml-container", "engine", "the engine, call by call"),
    ("clearml-agent", "containers", "tasks in containers"),
    ("clearml-agent", "services_contained", "services in containers"),
    ("clearml-agent", "image_build", "images of tasks"),
    (
        "clearml-agent",
        "engine",
        "engines that are stopped, killed and away",
    ),
];

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start an engine with the image of the tests, and leave it.
    Up,
    /// Run the tests; an engine that was started for them is left only on request.
    Run {
        /// Leave it.
        keep: bool,
    },
    /// Stop the engine that was left.
    Down,
}

/// Does it.
///
/// # Errors
///
/// When there is no engine and none can be started, or a test does not hold.
pub fn run(action: Action) -> Result<()> {
    match action {
        Action::Up => match prepare()? {
            Some(engine) => leave(engine),
            None => {
                note("one answers already");
                Ok(())
            }
        },
        Action::Down => {
            step("Stopping the engine that was left");
            ensure!(engine::stop_left()?, "no engine was left");
            Ok(())
        }
        Action::Run { keep } => {
            let engine = prepare()?;
            let outcome = tests(engine.as_ref());
            if let Some(engine) = engine.filter(|_| keep) {
                leave(engine)?;
            }
            outcome
        }
    }
}

fn prepare() -> Result<Option<Engine>> {
    step("Looking for an engine and the image");
    let engine = Engine::start_if_needed()?;
    engine::make_image(engine.as_ref().map(Engine::address).as_deref())?;
    Ok(engine)
}

fn leave(engine: Engine) -> Result<()> {
    note(&format!("export DOCKER_HOST={}", engine.address()));
    note("cargo xtask e2e docker down stops it");
    engine.leave()
}

fn tests(engine: Option<&Engine>) -> Result<()> {
    let mut rows = Vec::new();
    for (package, name, what) in PROGRAMS {
        step(&format!("Running {package}, {name}: {what}"));
        let begin = Instant::now();
        let (tally, ended_well) = program(package, name, engine)?;
        rows.push((name, what, tally, ended_well, begin.elapsed()));
    }
    println!();
    let mut failed = 0;
    for (name, what, tally, ended_well, took) in &rows {
        let holds = *ended_well && tally.failed.is_empty();
        let word = match (holds, tally.passed) {
            (false, _) => red("does not hold"),
            (true, 0) => bold("skipped"),
            (true, _) => green("holds"),
        };
        println!(
            "{word}: {what} ({name}: {} passed, {} failed, {} skipped, {})",
            tally.passed,
            tally.failed.len(),
            tally.skipped.len(),
            duration(*took)
        );
        for test in &tally.failed {
            note(&format!("failed: {test}"));
        }
        for test in &tally.skipped {
            note(&format!("skipped: {test}"));
        }
        failed += usize::from(!holds);
    }
    if failed > 0 {
        bail!("{failed} of {} parts do not hold", rows.len());
    }
    Ok(())
}

/// Runs one program of tests in its long form: what became of them, and whether cargo is content.
fn program(package: &str, name: &str, engine: Option<&Engine>) -> Result<(Tally, bool)> {
    let mut command = workspace::cargo();
    command
        .args([
            "test",
            "--package",
            package,
            "--test",
            name,
            "--",
            "--show-output",
        ])
        .env("CLEARML_TEST_LONG", "1");
    if let Some(engine) = engine {
        command.env("DOCKER_HOST", engine.address());
    }
    let mut tally = Tally::default();
    let ended_well = tally
        .read(&mut command, |_| Ok(()))
        .with_context(|| format!("running the tests {name} of {package}"))?;
    Ok((tally, ended_well))
}
