//! Where things are in this repository, and how to build them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The root of the repository.
#[must_use]
pub fn root() -> &'static Path {
    // The manifest of this crate lies one level below the root.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// The build folder, where scratch data of the commands lives as well.
#[must_use]
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The cargo that runs us.
#[must_use]
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Builds the agent and returns the path of its executable.
///
/// # Errors
///
/// When the build fails.
pub fn build_agent(release: bool) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--package", "clearml-agent", "--bin", "clearml-agent"]);
    if release {
        command.arg("--release");
    }
    let status = command.status().context("starting cargo build")?;
    ensure!(status.success(), "building clearml-agent failed ({status})");
    let profile = if release { "release" } else { "debug" };
    let executable = target().join(profile).join("clearml-agent");
    ensure!(executable.is_file(), "cargo built no {}", executable.display());
    Ok(executable)
}
