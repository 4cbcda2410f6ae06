//! Notebooks as entry points: converted to a script by nbconvert, which is installed for that.

use std::path::{Path, PathBuf};

use clearml_support::fs::create_private_dir;

use crate::code::info::{ExecutionInfo, Interpreter};
use crate::launch::{Code, LaunchError};
use crate::tools::Context;

/// What a notebook needs beside the requirements of its task: the converter, and what `%` lines become.
pub(crate) const REQUIREMENTS: [&str; 2] = ["nbconvert", "ipython"];

const SUFFIX: &str = ".ipynb";

/// Whether the entry point is a notebook.
pub(crate) fn is_entry(info: &ExecutionInfo) -> bool {
    info.interpreter == Interpreter::Python
        && info.entry_point.ends_with(SUFFIX)
        && !info.entry_is_option('m')
        && !info.entry_is_option('c')
}

/// What is started in place of a notebook.
pub(crate) struct Script {
    /// The entry point.
    pub(crate) entry: String,
    /// The folder of the notebook, if the script is not in it.
    pub(crate) beside: Option<PathBuf>,
}

/// Converts the entry point, if it is a notebook. The script goes beside it; beside a notebook that is not this
/// task's alone there may be somebody's script of that name, so the script of such a one goes into the folder of
/// the build.
pub(crate) fn convert(
    context: &Context<'_>,
    info: &ExecutionInfo,
    code: &Code,
    python: &Path,
    run_dir_env: &Path,
) -> Result<Option<Script>, LaunchError> {
    let entry = info.entry_point.as_str();
    let folder = code.folder();
    let notebook = folder.join(entry);
    // A script under the name of a notebook is how the SDK stores one that was never committed.
    if !is_entry(info) || code.literal.is_some() || !notebook.is_file() {
        return Ok(None);
    }
    let failed = |reason| LaunchError::Notebook {
        entry: entry.to_owned(),
        reason,
    };
    let mut script = Script {
        entry: format!("{}.py", entry.strip_suffix(SUFFIX).unwrap_or(entry)),
        beside: None,
    };
    let mut command = context
        .command(python)
        .cwd(&folder)
        .env_remove("PYTHONPATH")
        .args(["-u", "-m", "nbconvert", "--to", "python"])
        .arg(&notebook);
    if !code.owns(&folder.join(&script.entry)) {
        let own = run_dir_env.join("code");
        create_private_dir(&own).map_err(|error| failed(format!("creating {}: {error}", own.display())))?;
        let name = script.entry.rsplit('/').next().unwrap_or_default();
        script = Script {
            entry: own.join(name).to_string_lossy().into_owned(),
            beside: notebook.parent().map(Path::to_owned),
        };
        command = command.arg("--output-dir").arg(own);
    }
    context.info(&format!("converting {entry} to {}", script.entry));
    let ended = context
        .stream(&command)
        .map_err(|error| failed(error.to_string()))?;
    if !ended.status.success() {
        return Err(failed(format!("{}: {}", ended.status, ended.last_line())));
    }
    if !folder.join(&script.entry).is_file() {
        return Err(failed(format!("it made no {}", script.entry)));
    }
    Ok(Some(script))
}
