//! Notebooks as entry points: converted to a script by nbconvert, which is installed for that.

use std::path::Path;

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

/// Converts the entry point, if it is a notebook; the entry point to start instead.
pub(crate) fn convert(
    context: &Context<'_>,
    info: &ExecutionInfo,
    code: &Code,
    python: &Path,
) -> Result<Option<String>, LaunchError> {
    let entry = info.entry_point.as_str();
    let folder = code.folder();
    let notebook = folder.join(entry);
    // A script under the name of a notebook is how the SDK stores one that was never committed.
    if !is_entry(info) || code.literal.is_some() || !notebook.is_file() {
        return Ok(None);
    }
    let script = format!("{}.py", entry.trim_end_matches(SUFFIX));
    let failed = |reason| LaunchError::Notebook {
        entry: entry.to_owned(),
        reason,
    };
    context.info(&format!("converting {entry} to {script}"));
    let command = context
        .command(python)
        .cwd(&folder)
        .env_remove("PYTHONPATH")
        .args(["-u", "-m", "nbconvert", "--to", "python"])
        .arg(&notebook);
    let ended = context
        .stream(&command)
        .map_err(|error| failed(error.to_string()))?;
    if !ended.status.success() {
        return Err(failed(format!("{}: {}", ended.status, ended.last_line())));
    }
    if !folder.join(&script).is_file() {
        return Err(failed(format!("it made no {script}")));
    }
    Ok(Some(script))
}
