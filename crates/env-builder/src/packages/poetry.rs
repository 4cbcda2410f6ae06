//! Repositories that are projects of Poetry.
//!
//! Poetry makes the environment in the project's own folder, and the interpreter in it is started directly:
//! `poetry run` would do nothing but set `PATH` and `VIRTUAL_ENV`, as is done for every environment.

use std::path::{Path, PathBuf};

use clearml_support::command::Command;

use crate::packages::install::quiet_tool;
use crate::packages::pip::versioned;
use crate::packages::{PackageError, install_tool};
use crate::python::probe::Interpreter;
use crate::python::venv::{self, Venv};
use crate::tools::{Context, is_true};

/// An installed project.
#[derive(Debug)]
pub(crate) struct PoetryProject {
    pub(crate) venv: Venv,
    pub(crate) folder: PathBuf,
    poetry: Poetry,
}

/// How Poetry is called.
#[derive(Debug)]
struct Poetry {
    program: PathBuf,
    /// The interpreter that projects shall get, if they allow it.
    python: PathBuf,
}

/// Whether the configuration names Poetry.
pub(crate) fn is_wanted(context: &Context<'_>) -> bool {
    use crate::request::PackageManagerKind::Poetry;
    let forced = context.var("CLEARML_AGENT_FORCE_POETRY").is_some_and(is_true);
    context.settings.package_manager.kind == Poetry || forced
}

/// Whether a folder has a project of Poetry; any `pyproject.toml` counts.
pub(crate) fn is_project(folder: &Path) -> bool {
    ["pyproject.toml", "poetry.lock"]
        .iter()
        .any(|name| folder.join(name).is_file())
}

/// Installs the project.
pub(crate) fn install(
    context: &Context<'_>,
    folder: &Path,
    interpreter: &Interpreter,
) -> Result<PoetryProject, PackageError> {
    let poetry = obtain(context, interpreter)?;
    let run = |what: &str, arguments: &[String]| {
        let ended = context.stream(&poetry.command(context, folder).args(arguments))?;
        if ended.status.success() {
            return Ok(());
        }
        Err(PackageError::Install {
            what: what.to_owned(),
            last_line: ended.last_line(),
        })
    };
    context.info(&format!("Poetry installs the project in {}", folder.display()));
    let configure = ["config", "--local", "virtualenvs.in-project", "true"].map(str::to_owned);
    run("the configuration of Poetry", &configure)?;
    let mut arguments = vec!["install".to_owned(), "-n".to_owned()];
    let settings = &context.settings.package_manager;
    arguments.extend(settings.poetry_install_extra_args.iter().cloned());
    run("the Poetry project", &arguments)?;
    let output = poetry
        .command(context, folder)
        .args(["env", "info", "--executable"])
        .check()?;
    let python = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let venv = venv::existing(context, &python).ok_or_else(|| PackageError::Install {
        what: "the Poetry project".to_owned(),
        last_line: format!("its interpreter {} does not run", python.display()),
    })?;
    context.info("the project is installed by Poetry; the requirements of the task are not used");
    Ok(PoetryProject {
        venv,
        folder: folder.to_owned(),
        poetry,
    })
}

/// The Poetry of the configured version, in an environment of its own; without one, the one on `PATH`.
fn obtain(context: &Context<'_>, interpreter: &Interpreter) -> Result<Poetry, PackageError> {
    let settings = &context.settings.package_manager;
    let program = match (&settings.poetry_version, context.find_program("poetry")) {
        (None, Some(program)) => program,
        (None, None) => install_tool::install(context, interpreter, "poetry", "poetry")?,
        (Some(version), _) => {
            install_tool::install(context, interpreter, "poetry", &versioned("poetry", version))?
        }
    };
    Ok(Poetry {
        program,
        python: interpreter.executable.clone(),
    })
}

impl Poetry {
    fn command(&self, context: &Context<'_>, folder: &Path) -> Command {
        // Poetry takes the first interpreter on PATH that suits the project.
        let own = self.python.parent().map(Path::to_owned);
        let path = context
            .var("PATH")
            .map(std::env::split_paths)
            .into_iter()
            .flatten();
        let path = std::env::join_paths(own.into_iter().chain(path));
        let command = quiet_tool(context, context.command(&self.program))
            .cwd(folder)
            .env("POETRY_NO_INTERACTION", "1");
        match path {
            Ok(path) => command.env("PATH", path),
            Err(_) => command,
        }
    }
}

impl PoetryProject {
    /// What Poetry says is installed: `name==version # description`.
    pub(crate) fn freeze(&self, context: &Context<'_>) -> Result<Vec<String>, PackageError> {
        let output = self
            .poetry
            .command(context, &self.folder)
            .args(["show", "--no-ansi"])
            .check()?;
        Ok(shown(&String::from_utf8_lossy(&output.stdout)))
    }
}

/// Reads `poetry show`. What is locked but not installed is marked with `(!)`. Pure.
fn shown(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (name, version) = (words.next()?, words.next()?);
            let starts = version.starts_with(|c: char| c.is_ascii_digit());
            if !starts {
                return None;
            }
            let description: Vec<&str> = words.collect();
            Some(if description.is_empty() {
                format!("{name}=={version}")
            } else {
                format!("{name}=={version} # {}", description.join(" "))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_poetry_shows() {
        let text = "six        1.16.0 Python 2 and 3 compatibility utilities\npywin (!) 300   For Windows\nbare 1.0\n\n";
        assert_eq!(
            shown(text),
            [
                "six==1.16.0 # Python 2 and 3 compatibility utilities",
                "bare==1.0"
            ]
        );
    }
}
