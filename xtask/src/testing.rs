//! `cargo xtask test`: every test and every example of the workspace, with one summary at the end.
//!
//! A test that cannot run on this machine prints `SKIPPED <test>: <reason>` and returns; the test harness
//! counts it as passed. Here it is taken out of the passed ones and listed, so that nobody mistakes it.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use cargo_metadata::{MetadataCommand, TargetKind};

use crate::engine::Engine;
use crate::{terminal, workspace};

/// What became of the tests so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that ran and held.
    pub passed: usize,
    /// Names of the tests that did not hold.
    pub failed: Vec<String>,
    /// Tests that could not run here, each with its reason.
    pub skipped: Vec<String>,
    inside_failures: bool,
}

impl Tally {
    /// Takes one line of the harness's output; true when people should see it at once.
    pub fn line(&mut self, line: &str) -> bool {
        if let Some(at) = line.find("SKIPPED ") {
            let text = &line[at + "SKIPPED ".len()..];
            // A failing test's output is shown twice, and a message may quote the marker: count lines once.
            if at == 0 && text.contains(": ") && !self.skipped.iter().any(|known| known == text) {
                self.skipped.push(text.to_owned());
                self.passed = self.passed.saturating_sub(1);
            }
            return at == 0;
        }
        if let Some(rest) = line.strip_prefix("test ")
            && let Some((name, outcome)) = rest.rsplit_once(" ... ")
        {
            match outcome {
                "ok" => self.passed += 1,
                "FAILED" => self.failed.push(name.to_owned()),
                _ if outcome.starts_with("ignored") => self.skipped.push(format!("{name}: {outcome}")),
                _ => {}
            }
            return outcome == "FAILED";
        }
        match line {
            "failures:" => self.inside_failures = true,
            "successes:" => self.inside_failures = false,
            _ if line.starts_with("test result:") => {
                self.inside_failures = false;
                return true;
            }
            _ => {}
        }
        self.inside_failures
    }

    /// Runs tests to their end and takes their output, which `also` sees as it is. True when cargo is content.
    ///
    /// # Errors
    ///
    /// When they can't be started or followed.
    pub fn read(&mut self, command: &mut Command, mut also: impl FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .context("starting cargo test")?;
        let stdout = child.stdout.take().context("cargo test has no stdout")?;
        let mut reader = BufReader::new(stdout);
        let mut bytes = Vec::new();
        // The output of tests may hold any bytes.
        while reader.read_until(b'\n', &mut bytes)? > 0 {
            also(&bytes)?;
            let line = String::from_utf8_lossy(&bytes);
            let line = line.trim_end();
            if self.line(line) {
                println!("{line}");
            }
            bytes.clear();
        }
        Ok(child.wait()?.success())
    }
}

/// Runs everything; `filter` limits the run to tests whose name contains it.
///
/// # Errors
///
/// When something failed, or cargo could not be started.
pub fn run(filter: Option<&str>) -> Result<()> {
    let started = Instant::now();
    let mut tally = Tally::default();
    std::fs::create_dir_all(workspace::target())?;
    let log_path = workspace::target().join("xtask-test.log");
    let mut log = File::create(&log_path).with_context(|| format!("creating {}", log_path.display()))?;

    let engine = match Engine::start_if_needed() {
        Ok(engine) => engine,
        Err(e) => {
            println!("Tests with containers are skipped: {e:#}");
            None
        }
    };
    if let Some(Err(e)) = engine.as_ref().map(Engine::make_image) {
        println!("Tests that run tasks in containers are skipped: {e:#}");
    }
    terminal::step("Running the tests of the workspace");
    let built = run_tests(filter, engine.as_ref(), &mut tally, &mut log)?;
    drop(engine);
    if filter.is_none() && built {
        terminal::step("Running the examples");
        run_examples(&mut tally)?;
    }

    println!();
    for skipped in &tally.skipped {
        println!("skipped: {skipped}");
    }
    for failed in &tally.failed {
        println!("failed: {failed}");
    }
    println!(
        "The whole output is in {}; it took {}.",
        log_path.display(),
        terminal::duration(started.elapsed())
    );
    println!(
        "{} passed, {} failed, {} skipped",
        tally.passed,
        tally.failed.len(),
        tally.skipped.len()
    );
    ensure!(tally.failed.is_empty(), "{} test(s) failed", tally.failed.len());
    ensure!(
        built,
        "cargo test failed without naming a test; its messages are above"
    );
    Ok(())
}

/// True when cargo is content. A build error has no failed test to show, but makes cargo discontent.
fn run_tests(
    filter: Option<&str>,
    engine: Option<&Engine>,
    tally: &mut Tally,
    log: &mut File,
) -> Result<bool> {
    let mut command = workspace::cargo();
    if let Some(engine) = engine {
        command.env("DOCKER_HOST", engine.address());
    }
    command.args(["test", "--workspace", "--no-fail-fast"]);
    command.args(filter).args(["--", "--show-output"]);
    tally.read(&mut command, |bytes| Ok(log.write_all(bytes)?))
}

fn run_examples(tally: &mut Tally) -> Result<()> {
    let metadata = MetadataCommand::new()
        .manifest_path(workspace::root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .context("reading the workspace with cargo metadata")?;
    for package in metadata.workspace_packages() {
        for example in package
            .targets
            .iter()
            .filter(|target| target.kind.contains(&TargetKind::Example))
        {
            let name = format!("{} example {}", package.name, example.name);
            // Built with the tests; `cargo run` would build it again with the features of its package alone.
            let output = Command::new(workspace::target().join("debug/examples").join(&example.name))
                .current_dir(workspace::root())
                .stdin(Stdio::null())
                .output()
                .with_context(|| format!("starting {name}"))?;
            if output.status.success() {
                println!("{name}: ok");
                tally.passed += 1;
            } else {
                println!("{name}: {}", output.status);
                print!(
                    "{}{}",
                    String::from_utf8_lossy(&output.stdout),
                    String::from_utf8_lossy(&output.stderr)
                );
                tally.failed.push(name);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_tests_are_not_counted_as_passed() {
        let mut tally = Tally::default();
        let output = "running 3 tests\ntest a ... ok\ntest needs_uv ... ok\ntest broken ... FAILED\n\n\
            successes:\n\n---- needs_uv stdout ----\nSKIPPED needs_uv: uv is not installed\n\n\
            failures:\n\n---- broken stdout ----\nassertion failed\n\ntest result: FAILED. 2 passed; 1 failed";
        let shown: Vec<_> = output.lines().filter(|line| tally.line(line)).collect();
        assert_eq!(tally.passed, 1);
        assert_eq!(tally.failed, ["broken"]);
        assert_eq!(tally.skipped, ["needs_uv: uv is not installed"]);
        assert!(shown.contains(&"assertion failed"), "{shown:?}");
        assert!(!shown.contains(&"test a ... ok"), "{shown:?}");
    }

    #[test]
    fn ignored_tests_count_as_skipped() {
        let mut tally = Tally::default();
        tally.line("test long_one ... ignored, takes an hour");
        assert_eq!(tally.skipped, ["long_one: ignored, takes an hour"]);
    }
}
