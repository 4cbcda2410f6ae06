//! Trying single steps of a build without a task, for tools that say whether tasks would get through.

use std::path::{Path, PathBuf};

use clearml_support::redact::Redactor;
use clearml_task_model::Script;

use crate::code::cache::prepare_access;
use crate::code::git::{Git, GitError};
use crate::code::info::ExecutionInfo;
use crate::host::Host;
use crate::python::probe::Interpreter;
use crate::python::{PythonError, find, seed, venv};
use crate::request::EnvSettings;
use crate::tools::Context;

/// What a task without wishes of its own gets.
#[derive(Debug, Clone)]
pub struct TriedPython {
    /// The interpreter that was chosen.
    pub interpreter: Interpreter,
    /// The interpreter of the environment that was made.
    pub python: PathBuf,
    /// The version of pip in it; `None` when the interpreter brings none.
    pub pip: Option<String>,
}

/// Finds an interpreter and makes a virtual environment at `root`, which does not exist yet.
///
/// # Errors
///
/// As the same step of [`build`](crate::build()).
pub fn try_python(
    settings: &EnvSettings,
    host: &dyn Host,
    redactor: &Redactor,
    root: &Path,
) -> Result<TriedPython, PythonError> {
    let context = Context {
        settings,
        host,
        redactor,
    };
    let (info, _) = ExecutionInfo::new(&Script::default(), &settings.env);
    let interpreter = find::find(&context, &info)?;
    let venv = venv::create(&context, root, interpreter)?;
    let pip = seed::seed(&context, &venv)?;
    Ok(TriedPython {
        python: venv.python,
        interpreter: venv.interpreter,
        pip,
    })
}

/// Lists the branches of a repository with the login that a task would get, asking nobody. `folder` is
/// any folder that is no repository.
///
/// # Errors
///
/// As the same step of [`build`](crate::build()).
pub fn try_repository(
    settings: &EnvSettings,
    host: &dyn Host,
    redactor: &Redactor,
    url: &str,
    folder: &Path,
) -> Result<(), GitError> {
    let context = Context {
        settings,
        host,
        redactor,
    };
    let access = prepare_access(&context, url)?;
    let git = Git::new(&context, Some(&access))?;
    let command = git
        .command(folder)
        .args(["ls-remote", "--quiet", "--heads", "--"])
        .arg(&access.url);
    git.run("listing the branches of the repository", &command)
}
