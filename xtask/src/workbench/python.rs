//! Python environments with official packages, kept between runs below the build folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clearml_support::lock::FileLock;

use crate::workspace;

/// A virtual environment with certain packages from the package index.
#[derive(Clone, Debug)]
pub struct PythonEnvironment {
    folder: PathBuf,
}

impl PythonEnvironment {
    /// The environment `name` with `packages` installed; built once and kept.
    ///
    /// Tests and commands may ask at the same time; one builds, the others wait.
    ///
    /// # Errors
    ///
    /// When there is no usable `python3` with `venv`, or a package cannot be installed.
    pub fn get(name: &str, packages: &[&str]) -> Result<Self> {
        let root = workspace::target().join("python");
        fs::create_dir_all(&root)?;
        let _lock = FileLock::acquire(&root.join(format!("{name}.lock")), Duration::from_secs(900))
            .with_context(|| format!("waiting for the environment {name}"))?;
        let folder = root.join(name);
        let complete = folder.join("complete.txt");
        let wanted = packages.join("\n");
        if fs::read_to_string(&complete).is_ok_and(|installed| installed == wanted) {
            return Ok(Self { folder });
        }
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))
            .context("a virtual environment could not be made; on Debian, install python3-venv")?;
        let environment = Self { folder };
        run(Command::new(environment.python())
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(packages))?;
        fs::write(&complete, wanted)?;
        Ok(environment)
    }

    /// Its interpreter.
    #[must_use]
    pub fn python(&self) -> PathBuf {
        self.folder.join("bin/python")
    }

    /// One of its commands.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    /// A Python command in a home of its own that uses the given ClearML configuration.
    #[must_use]
    pub fn command(&self, home: &Path, config: &Path) -> Command {
        let mut command = Command::new(self.python());
        command
            .env("HOME", home)
            .env("CLEARML_CONFIG_FILE", config)
            .env("PYTHONUNBUFFERED", "1")
            .env_remove("PYTHONPATH")
            .stdin(Stdio::null());
        command
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
