//! `cargo xtask soak`: the long forms of the tests that draw lots.
//!
//! Every round has a new seed, which the tests read from their environment; so does whoever repeats a round
//! that failed. The test suite runs the same tests with few cases.

use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cargo_metadata::{MetadataCommand, Target, TargetKind};

use crate::workbench::{Mark, wait_for};
use crate::{terminal, workspace};

/// A round that takes longer hangs.
const ROUND_LIMIT: Duration = Duration::from_secs(60 * 60);

/// How many lines of a failed round's log are shown.
const SHOWN: usize = 40;

/// One test, or one kind of test, in its long form.
struct Form {
    name: String,
    /// Arguments of cargo.
    arguments: Vec<String>,
    /// Variables that make it long.
    variables: Vec<(&'static str, String)>,
    /// The variable that takes the seed.
    seed: &'static str,
}

/// What became of a round.
struct Round {
    form: String,
    seed: u32,
    took: Duration,
    held: bool,
}

/// Runs the forms whose name contains `name`, in turn with new seeds, until the time is up; each at least once.
///
/// # Errors
///
/// When a round failed, or there is no form of that name.
pub fn run(minutes: u64, name: Option<&str>) -> Result<()> {
    let mut forms = forms()?;
    let names: Vec<String> = forms.iter().map(|form| form.name.clone()).collect();
    forms.retain(|form| name.is_none_or(|name| form.name.contains(name)));
    ensure!(
        !forms.is_empty(),
        "no test is called {:?}; there are: {}",
        name.unwrap_or_default(),
        names.join(", ")
    );
    let folder = workspace::target().join("soak");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let limit = Duration::from_secs(minutes.saturating_mul(60));
    let started = Instant::now();
    let mut rounds = Vec::new();
    'time: for lap in 0.. {
        for form in &forms {
            if lap > 0 && started.elapsed() >= limit {
                break 'time;
            }
            rounds.push(one_round(form, &folder)?);
        }
    }
    summary(&forms, &rounds, started.elapsed())
}

/// The kill campaigns, the model of the pop protocol, the simulation of whole histories, and every test program that has property tests.
fn forms() -> Result<Vec<Form>> {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut forms = vec![
        Form {
            name: "kill-campaign".to_owned(),
            arguments: words("--package clearml-agent --test whole kill_campaign"),
            variables: vec![("CLEARML_TEST_KILLS", "60".to_owned())],
            seed: "CLEARML_TEST_SEED",
        },
        Form {
            name: "slurm-kills".to_owned(),
            arguments: words(
                "--package clearml-agent-slurm --test cluster a_killed_glue_submits -- --nocapture",
            ),
            variables: vec![("CLEARML_TEST_KILLS", "100".to_owned())],
            seed: "CLEARML_TEST_SEED",
        },
        Form {
            name: "environment-kills".to_owned(),
            // The test kills an example, which cargo builds only if no target is named.
            arguments: words("--package clearml-env-builder builds_that_are_killed"),
            variables: vec![("CLEARML_TEST_KILLS", "200".to_owned())],
            seed: "CLEARML_TEST_SEED",
        },
        Form {
            name: "pop-model".to_owned(),
            arguments: words("--package clearml-intake --test pop_model"),
            variables: vec![("POP_MODEL_SEEDS", "3000".to_owned())],
            seed: "CLEARML_TEST_SEED",
        },
        Form {
            name: "simulation".to_owned(),
            arguments: words("--package clearml-simulation --test histories no_history_breaks_a_rule"),
            variables: vec![("SIMULATION_HISTORIES", "1000000".to_owned())],
            seed: "CLEARML_TEST_SEED",
        },
    ];
    let metadata = MetadataCommand::new()
        .current_dir(workspace::root())
        .no_deps()
        .exec()
        .context("reading the workspace")?;
    for package in metadata.workspace_packages() {
        for target in &package.targets {
            let Some(selection) = test_program(target) else {
                continue;
            };
            let files = property_files(target.src_path.as_std_path())?;
            if !files.is_empty() {
                let mut arguments = vec!["--package".to_owned(), package.name.to_string()];
                arguments.extend(selection);
                arguments.extend(filters(target, &files));
                forms.push(Form {
                    name: format!("properties:{}:{}", package.name, target.name),
                    arguments,
                    variables: vec![("PROPTEST_CASES", "20000".to_owned())],
                    seed: "PROPTEST_RNG_SEED",
                });
            }
        }
    }
    Ok(forms)
}

fn test_program(target: &Target) -> Option<Vec<String>> {
    match target.kind.first()? {
        TargetKind::Lib => Some(vec!["--lib".to_owned()]),
        TargetKind::Bin => Some(vec!["--bin".to_owned(), target.name.clone()]),
        TargetKind::Test => Some(vec!["--test".to_owned(), target.name.clone()]),
        _ => None,
    }
}

/// The files of a program that have property tests; a program that is a single file has only that.
fn property_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut waiting: Vec<PathBuf> = match root.file_name().and_then(|name| name.to_str()) {
        Some("lib.rs" | "main.rs") => root.parent().map(Path::to_owned).into_iter().collect(),
        _ => vec![root.to_owned()],
    };
    let mut found = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path).with_context(|| format!("reading {}", path.display()))? {
                waiting.push(entry?.path());
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            if text
                .lines()
                .any(|line| line.trim_start().starts_with("proptest! {"))
            {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// Only the modules with property tests, where a program has many others that take their time.
fn filters(target: &Target, files: &[PathBuf]) -> Vec<String> {
    let whole = !target.kind.contains(&TargetKind::Test) || files.contains(&target.src_path.clone().into());
    let stems = files
        .iter()
        .filter_map(|file| file.file_stem()?.to_str())
        .map(|stem| format!("{stem}::"));
    if whole {
        Vec::new()
    } else {
        std::iter::once("--".to_owned()).chain(stems).collect()
    }
}

/// Standard hashers are keyed at random. Not zero, which some generators can't begin with.
fn new_seed() -> u32 {
    let bits = RandomState::new().build_hasher().finish();
    u32::try_from(bits >> 32).unwrap_or_default().max(1)
}

fn one_round(form: &Form, folder: &Path) -> Result<Round> {
    let seed = new_seed();
    terminal::step(&format!("{} with seed {seed}", form.name));
    let log = folder.join(format!("{}-{seed}.log", form.name.replace(':', "-")));
    let started = Instant::now();
    let outcome = run_logged(&mut form.command(seed), &log);
    let took = started.elapsed();
    if let Err(error) = &outcome {
        let text = fs::read(&log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        println!("{}", lines[lines.len().saturating_sub(SHOWN)..].join("\n"));
        println!(
            "{} {error:#}; the whole output is in {}",
            terminal::red("failed:"),
            log.display()
        );
    } else {
        terminal::note(&format!("held for {}", terminal::duration(took)));
        fs::remove_file(&log).with_context(|| format!("removing {}", log.display()))?;
    }
    Ok(Round {
        form: form.name.clone(),
        seed,
        took,
        held: outcome.is_ok(),
    })
}

impl Form {
    fn command(&self, seed: u32) -> Command {
        let mut command = workspace::cargo();
        command.arg("test").args(&self.arguments);
        command.env(self.seed, seed.to_string());
        for (variable, value) in &self.variables {
            // Who sets it means it.
            if std::env::var_os(variable).is_none() {
                command.env(variable, value);
            }
        }
        command
    }

    fn repeat(&self, seed: u32) -> String {
        let variables: Vec<String> = self
            .variables
            .iter()
            .map(|(name, value)| format!("{name}={}", std::env::var(name).unwrap_or_else(|_| value.clone())))
            .collect();
        let (variables, arguments) = (variables.join(" "), self.arguments.join(" "));
        format!("{}={seed} {variables} cargo test {arguments}", self.seed)
    }
}

fn run_logged(command: &mut Command, log: &Path) -> Result<()> {
    let file = File::create(log).with_context(|| format!("creating {}", log.display()))?;
    let mark = Mark::new();
    let (name, value) = mark.variable();
    let mut child = command
        .env(name, value)
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .context("starting cargo test")?;
    let ended = wait_for("its end", ROUND_LIMIT, Duration::from_millis(200), || {
        Ok(child.try_wait()?)
    });
    if ended.is_err() {
        mark.kill_all();
        child.wait()?;
    }
    let status = ended?;
    if !status.success() {
        bail!("cargo test ended with {status}");
    }
    let text = fs::read_to_string(log).unwrap_or_default();
    if let Some(skipped) = text.lines().find(|line| line.starts_with("SKIPPED ")) {
        terminal::note(skipped);
    }
    Ok(())
}

fn summary(forms: &[Form], rounds: &[Round], took: Duration) -> Result<()> {
    println!();
    let mut failed = 0;
    for form in forms {
        let own: Vec<&Round> = rounds.iter().filter(|round| round.form == form.name).collect();
        let time: Duration = own.iter().map(|round| round.took).sum();
        let lost: Vec<&&Round> = own.iter().filter(|round| !round.held).collect();
        println!(
            "{}: {} rounds, {} failed, {}",
            form.name,
            own.len(),
            lost.len(),
            terminal::duration(time)
        );
        for round in &lost {
            println!("    {}", form.repeat(round.seed));
        }
        failed += lost.len();
    }
    println!(
        "{} rounds in {}, {failed} failed",
        rounds.len(),
        terminal::duration(took)
    );
    ensure!(
        failed == 0,
        "{failed} round(s) failed; the lines above repeat them"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_with_property_tests_has_a_long_form() {
        let names: Vec<String> = forms().unwrap().into_iter().map(|form| form.name).collect();
        for name in [
            "kill-campaign",
            "slurm-kills",
            "simulation",
            "properties:clearml-gpu-alloc:properties",
            "properties:clearml-intake:clearml_intake",
            "properties:clearml-task-model:round_trip",
        ] {
            assert!(
                names.iter().any(|known| known == name),
                "{name} is not among {names:?}"
            );
        }
        assert!(
            !names.iter().any(|name| name.contains("request_table")),
            "{names:?}"
        );
    }

    #[test]
    fn a_failed_round_can_be_repeated() {
        let form = Form {
            name: "x".to_owned(),
            arguments: vec!["--lib".to_owned()],
            variables: vec![("CASES_OF_NO_ONE", "7".to_owned())],
            seed: "SEED_OF_NO_ONE",
        };
        assert_eq!(
            form.repeat(9),
            "SEED_OF_NO_ONE=9 CASES_OF_NO_ONE=7 cargo test --lib"
        );
    }
}
