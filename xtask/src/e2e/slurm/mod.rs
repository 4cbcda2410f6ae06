//! `cargo xtask e2e slurm`: a real Slurm cluster on this machine, and journeys of the glue on it.

pub mod cluster;
pub mod containers;

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::terminal::{note, step};
use crate::workspace;
use cluster::{Cluster, missing};

/// What to do with the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Bring it up, and leave it.
    Up,
    /// Bring it up, run the tests of the glue against it, tear it down.
    Run,
    /// Tear down what `Up` has left.
    Down,
}

/// Where a cluster lives that is brought up by hand.
#[must_use]
pub fn folder() -> PathBuf {
    workspace::target().join("slurm-cluster")
}

/// Does it.
///
/// # Errors
///
/// When Slurm is not installed, the cluster does not come up, or a test fails.
pub fn run(action: Action) -> Result<()> {
    let folder = folder();
    match action {
        Action::Up => {
            if let Some(reason) = missing() {
                bail!("no cluster can be started here: {reason}");
            }
            step("Starting the cluster");
            let cluster = Cluster::up(&folder)?;
            note(&format!(
                "export SLURM_CONF={}",
                cluster.configuration().display()
            ));
            cluster.leave();
            Ok(())
        }
        Action::Down => {
            step("Stopping the cluster");
            Cluster::attach(&folder)?.down()
        }
        Action::Run => tests(),
    }
}

/// The tests of the glue start a cluster of their own when they find none.
fn tests() -> Result<()> {
    if let Some(reason) = missing() {
        bail!("no cluster can be started here: {reason}");
    }
    workspace::build_agent(false)?;
    step("Running the glue on a real cluster");
    let status = workspace::cargo()
        .args([
            "test",
            "--package",
            "clearml-agent-slurm",
            "--test",
            "cluster",
            "--",
            "--nocapture",
            // They wait most of the time.
            "--test-threads=3",
        ])
        .status()?;
    if !status.success() {
        bail!("the tests of the glue failed ({status})");
    }
    Ok(())
}
