//! `cargo xtask e2e slurm --docker-cluster DIR`: journeys of the glue on a cluster in containers.
//!
//! The cluster is the slurm-docker-cluster whose folder is given, which has to run; or, in a folder without a project,
//! one of the same shape: services `mysql`, `slurmdbd`, `slurmctld` and `cpu-worker`, and a volume `/data` that all
//! nodes share. Its image is built here of Debian's packages (`fixtures/slurm/docker`), so nothing is pulled.
//!
//! Everything happens inside, by `docker compose exec`: the glue works on `slurmctld`, which plays the login node, and
//! the server of the tasks runs there too. Only the journeys themselves ask that server from this machine, by the
//! address of its container, so the engine has to run here.

mod compose;
mod journeys;
mod site;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail, ensure};

use super::Action;
use crate::engine::Engine;
use crate::terminal::{duration, green, note, red, step};
use crate::workspace;
use compose::{Compose, LOGIN};
use journeys::{JOURNEYS, LIMITED, Outcome};
use site::{SHARED, Site};

/// Does it, in this folder. With `keep` the cluster runs on. `executable` is an agent that is built already, with the
/// glue beside it, such as one for the older system of somebody's cluster.
///
/// # Errors
///
/// When there is no engine, the cluster does not come up, or a journey goes wrong.
pub fn run(folder: &Path, action: Action, keep: bool, executable: Option<PathBuf>) -> Result<()> {
    let engine = match action {
        Action::Run if !keep => Engine::start_if_needed()?,
        _ => None,
    };
    let compose = Compose::open(folder, engine.as_ref().map(Engine::address))?;
    match action {
        Action::Up => {
            compose.up()?;
            hints(folder, &compose);
            Ok(())
        }
        Action::Down => {
            step("Stopping the cluster");
            compose.down()
        }
        Action::Run => {
            let agent = executable.map_or_else(build, Ok)?;
            let glue = agent.with_file_name("clearml-agent-slurm");
            ensure!(glue.is_file(), "there is no {}", glue.display());
            let ours = compose.ours;
            if ours && let Err(error) = compose.up() {
                if !keep {
                    compose.down()?;
                }
                return Err(error);
            }
            ensure!(
                compose.runs()?,
                "the services in {} do not run; start them by docker compose up -d",
                folder.display()
            );
            let outcome = travel(compose, &agent, &glue, keep);
            let compose = Compose::open(folder, engine.as_ref().map(Engine::address))?;
            if ours && !keep {
                step("Stopping the cluster");
                outcome.and(compose.down())
            } else {
                if keep {
                    hints(folder, &compose);
                }
                outcome
            }
        }
    }
}

/// How to look into a cluster that is left.
fn hints(folder: &Path, compose: &Compose) {
    note(&format!(
        "cd {} && {} exec {LOGIN} bash",
        folder.display(),
        compose.called()
    ));
    if compose.ours {
        note(&format!(
            "cargo xtask e2e slurm down --docker-cluster {}",
            folder.display()
        ));
    }
}

fn build() -> Result<PathBuf> {
    let status = workspace::cargo()
        .args(["build", "--package", "clearml-agent-slurm"])
        .status()?;
    ensure!(status.success(), "building clearml-agent-slurm failed ({status})");
    workspace::build_agent(false)
}

/// All journeys, even after one that goes wrong.
fn travel(compose: Compose, agent: &Path, glue: &Path, keep: bool) -> Result<()> {
    let site = Site::start(compose, agent, glue)?;
    let slurm = site.slurm(&["sinfo", "--version"])?;
    let nodes = site.slurm(&["sinfo", "-h", "-N", "-o", "%N %T"])?;
    step(&format!("Journeys on {slurm}: {}", nodes.replace('\n', ", ")));
    site.start_glue()?;
    let limited = journeys::begin_limited(&site)?;
    let mut count = Count::default();
    for journey in &JOURNEYS {
        count.walk(journey.name, || (journey.walk)(&site));
    }
    count.walk("the official SDK reports from two nodes", || journeys::sdk(&site));
    count.walk(LIMITED, || journeys::limited(&site, &limited));
    count.walk("SIGTERM ends the glue", || {
        site.end_glue("TERM")?;
        Ok(Outcome::Seen("in time".to_owned()))
    });
    step("What was real");
    note(
        "Slurm with its controller, accounting daemon, database and nodes; Apptainer; the SDK and its installation",
    );
    step("What was a stand-in");
    note("the ClearML server: this project's embedded one");
    note(
        "the image: clearml-base:python, unpacked and from a registry on the login node; entered with --userns",
    );
    note("Pyxis is not tried here: `cargo xtask e2e slurm` does, with a plugin of our own");
    if keep {
        note(&format!("server, logs and outputs of jobs stay in {SHARED}"));
    } else {
        site.end()?;
    }
    count.verdict()
}

#[derive(Default)]
struct Count {
    good: usize,
    skipped: usize,
    bad: usize,
}

impl Count {
    fn walk(&mut self, name: &str, journey: impl FnOnce() -> Result<Outcome>) {
        let begun = Instant::now();
        let outcome = journey();
        let took = duration(begun.elapsed());
        match outcome {
            Ok(Outcome::Seen(text)) => {
                self.good += 1;
                note(&format!("{} {name} ({took}): {text}", green("ok")));
            }
            Ok(Outcome::Skipped(why)) => {
                self.skipped += 1;
                note(&format!("SKIPPED {name}: {why}"));
            }
            Err(error) => {
                self.bad += 1;
                note(&format!("{} {name} ({took}): {error:#}", red("FAILED")));
            }
        }
    }

    fn verdict(&self) -> Result<()> {
        let Self { good, skipped, bad } = self;
        let text = format!("{good} journeys went well, {skipped} were skipped, {bad} failed");
        if *bad > 0 {
            bail!(text);
        }
        step(&text);
        Ok(())
    }
}
