//! Packages: which lists apply, what is in them, installing them, and reading what is installed.

use std::path::{Path, PathBuf};

use clearml_support::command::CommandError;
use clearml_task_model::{Requirements, TextOrLines};

use crate::error::FileError;
use crate::request::PackageManagerSettings;

pub(crate) mod freeze;
pub(crate) mod install;
pub mod lines;

/// Packages could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The installer failed.
    #[error("Could not install {what}: {last_line}")]
    Install {
        /// The list.
        what: String,
        /// What the installer said.
        last_line: String,
    },
    /// There is nothing to install with.
    #[error(
        "packages are required, but the interpreter {} brings no pip and there is no uv on PATH; \
         install its venv package (for example `apt-get install python3-venv`) or uv",
        python.display()
    )]
    NoInstaller {
        /// The interpreter.
        python: PathBuf,
    },
    /// The installer could not be run.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A list of requirements and what to call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequirementSet {
    pub(crate) what: String,
    pub(crate) text: String,
    /// Where includes and local packages are looked for.
    pub(crate) folder: PathBuf,
}

/// The pip list of the task that counts, if it has one with content.
pub(crate) fn of_task(
    requirements: Option<&Requirements>,
    settings: &PackageManagerSettings,
) -> Option<String> {
    let requirements = requirements.filter(|_| !settings.force_repo_requirements_txt)?;
    let text = |field: &Option<TextOrLines>| {
        field
            .as_ref()
            .filter(|text| !text.is_blank())
            .map(TextOrLines::text)
    };
    let original = text(&requirements.org_pip).filter(|_| settings.force_original_requirements);
    original.or_else(|| text(&requirements.pip))
}

/// The `requirements.txt` files from the repository root down to the folder of the entry script.
pub(crate) fn of_repository(root: &Path, working_dir: &str, entry_point: &str) -> Vec<RequirementSet> {
    let script = entry_point
        .split_whitespace()
        .next()
        .filter(|word| !word.starts_with('-'))
        .unwrap_or("x");
    let relative = crate::code::info::normal_path(&format!("{working_dir}/{script}"));
    let mut folders = vec![root.to_owned()];
    let parts: Vec<&str> = relative.split('/').collect();
    let inside = !relative.starts_with('/') && parts.first() != Some(&"..");
    for part in parts
        .iter()
        .take(parts.len() - 1)
        .filter(|part| inside && **part != ".")
    {
        folders.push(folders[folders.len() - 1].join(part));
    }
    let read = |folder: PathBuf| {
        let file = folder.join("requirements.txt");
        let text = std::fs::read_to_string(&file).ok()?;
        Some(RequirementSet {
            what: file.display().to_string(),
            text,
            folder: root.to_owned(),
        })
    };
    folders.into_iter().filter_map(read).collect()
}
