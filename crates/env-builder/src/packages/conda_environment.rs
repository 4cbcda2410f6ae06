//! Environments of conda: the one that is made for a task, conda's own, or one that is named.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use pep440_rs::Version;

use crate::error::at;
use crate::packages::PackageError;
use crate::packages::conda::Conda;
use crate::packages::conda_call::{ask, command, failed, reason};
use crate::packages::pip::WantedPip;
use crate::packages::requirements::pep::Surroundings;
use crate::python::venv::{self, Venv};
use crate::tools::Context;

/// Older ones do not know the arguments.
const OLDEST: &str = "4.3.30";
const TIMEOUT: Duration = Duration::from_secs(60);
/// Activates an environment and becomes the program that follows. Paths are arguments, not text.
const ACTIVATED: &str = r#". "$1" && conda activate "$2" && shift 2 && exec "$@""#;

/// conda can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CondaError {
    /// It is not there.
    #[error(
        "agent.package_manager.type is conda, but there is no {program} on PATH; install it, or set \
         agent.package_manager.conda_executable"
    )]
    Missing {
        /// What was looked for.
        program: String,
    },
    /// It is too old.
    #[error("conda {version} is too old, {OLDEST} or later is needed; update it with `conda update conda`")]
    TooOld {
        /// Its version.
        version: String,
    },
    /// The environment was not made.
    #[error("conda made no environment with Python {python}: {reason}")]
    Create {
        /// The version that was asked for.
        python: String,
        /// What it said.
        reason: String,
    },
    /// The environment that is named does not exist.
    #[error(
        "{} is neither a folder nor an archive of a conda environment; correct CLEARML_CONDA_ENV_PACKAGE, or the image of the task",
        path.display()
    )]
    NoEnvironment {
        /// What is named.
        path: PathBuf,
    },
    /// It could not be unpacked.
    #[error("unpacking the conda environment {}: {reason}", path.display())]
    Unpack {
        /// The archive.
        path: PathBuf,
        /// What was said.
        reason: String,
    },
}

/// Makes the environment of a task at `root`, or takes the one that the configuration names. `image` is
/// that of the task.
pub(crate) fn environment(
    context: &Context<'_>,
    root: &Path,
    request: &str,
    image: Option<&str>,
    wanted_pip: &WantedPip,
) -> Result<Conda, PackageError> {
    let settings = &context.settings.package_manager.conda;
    let program = find(context)?;
    let named = ["CLEARML_CONDA_ENV_PACKAGE", "TRAINS_CONDA_ENV_PACKAGE"]
        .iter()
        .find_map(|name| context.var(name));
    let image = image.filter(|_| settings.env_as_base_docker);
    if let Some(path) = named.or(image).map(PathBuf::from) {
        return prebuilt(context, program, &path, root);
    }
    if settings.use_base_env {
        match base(context, &program) {
            Some(conda) => return Ok(conda),
            None => context.warn("conda's own environment can't be used; one is made for the task"),
        }
    }
    let python = python_version(request);
    context.info(&format!("conda makes an environment with Python {python}"));
    let create = command(context, &program)
        .args(["create", "--yes", "--prefix"])
        .arg(root)
        .arg(format!("python={python}"))
        .args(["--quiet", "--json"]);
    let answer = ask(context, &create)?;
    let made = venv::existing(context, &root.join("bin/python"));
    let Some(venv) = made else {
        return Err(CondaError::Create {
            python,
            reason: reason(&answer),
        }
        .into());
    };
    install_pip(context, &program, &venv, wanted_pip)?;
    Ok(of(context, program, venv, false))
}

fn find(context: &Context<'_>) -> Result<PathBuf, PackageError> {
    let named = context.settings.package_manager.conda.executable.as_deref();
    let name = named.unwrap_or("conda");
    let program = context.find_program(name).ok_or_else(|| CondaError::Missing {
        program: name.to_owned(),
    })?;
    if named.is_some() {
        // Another program has other versions.
        return Ok(program);
    }
    let output = command(context, &program)
        .arg("--version")
        .timeout(TIMEOUT)
        .output()?;
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    match first_version(&text) {
        Some((version, text)) if Version::from_str(OLDEST).is_ok_and(|oldest| version < oldest) => {
            Err(CondaError::TooOld { version: text }.into())
        }
        _ => Ok(program),
    }
}

fn first_version(text: &str) -> Option<(Version, String)> {
    text.split_whitespace()
        .filter(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        .find_map(|word| Some((Version::from_str(word).ok()?, word.to_owned())))
}

/// The version in a request: `3.10` from `/usr/bin/python3.10`. Pure.
fn python_version(request: &str) -> String {
    let name = request.rsplit('/').next().unwrap_or_default();
    let version = name.rsplit("python").next().unwrap_or_default();
    if version.starts_with(|c: char| c.is_ascii_digit()) {
        version.to_owned()
    } else {
        "3".to_owned()
    }
}

fn install_pip(
    context: &Context<'_>,
    program: &Path,
    venv: &Venv,
    wanted: &WantedPip,
) -> Result<(), PackageError> {
    let here = Surroundings::new(&venv.interpreter);
    let install = command(context, program)
        .args(["install", "--yes", "--prefix"])
        .arg(&venv.root)
        .args(channel_arguments(
            &context.settings.package_manager.conda.channels,
        ))
        .args(wanted.that_apply(&here))
        .args(["--quiet", "--json"]);
    let answer = ask(context, &install)?;
    if failed(&answer) {
        context.warn(&format!("conda did not install pip: {}", reason(&answer)));
    }
    Ok(())
}

/// Channels as arguments. One with a login is left to the file: arguments can be seen by everybody. Pure.
fn channel_arguments(channels: &[String]) -> Vec<String> {
    channels
        .iter()
        .filter(|channel| !channel.contains('@') && !channel.contains("/t/"))
        .flat_map(|channel| ["-c".to_owned(), channel.clone()])
        .collect()
}

fn of(context: &Context<'_>, program: PathBuf, venv: Venv, read_only: bool) -> Conda {
    let command = match activation(context, &program) {
        Some(script) => {
            let mut words: Vec<OsString> = vec!["/bin/bash".into(), "-c".into(), ACTIVATED.into()];
            words.extend(["activate".into(), script.into(), venv.root.clone().into()]);
            words.push(venv.python.clone().into());
            words
        }
        None => {
            context.warn("conda.sh was not found, so the environment is used without activating it");
            vec![venv.python.clone().into()]
        }
    };
    Conda {
        program,
        venv,
        command,
        read_only,
    }
}

/// `conda.sh`: of this installation, else of any that is on `PATH`.
fn activation(context: &Context<'_>, program: &Path) -> Option<PathBuf> {
    let beside = |program: &Path| {
        let base = program.canonicalize().ok()?.parent()?.parent()?.to_owned();
        Some(base.join("etc/profile.d/conda.sh")).filter(|path| path.is_file())
    };
    let path = context
        .var("PATH")
        .map(std::env::split_paths)
        .into_iter()
        .flatten();
    beside(program).or_else(|| {
        path.map(|folder| folder.join("conda"))
            .find_map(|conda| beside(&conda))
    })
}

/// A folder that is an environment, or an archive of one.
fn prebuilt(
    context: &Context<'_>,
    program: PathBuf,
    path: &Path,
    root: &Path,
) -> Result<Conda, PackageError> {
    let missing = || CondaError::NoEnvironment {
        path: path.to_owned(),
    };
    if path.is_dir() {
        let venv = venv::existing(context, &path.join("bin/python")).ok_or_else(missing)?;
        return Ok(of(context, program, venv, true));
    }
    if !path.is_file() {
        return Err(missing().into());
    }
    fs::create_dir_all(root).map_err(at("creating", root))?;
    let unpack = |reason: String| CondaError::Unpack {
        path: path.to_owned(),
        reason,
    };
    let tar = context.find_program("tar").unwrap_or_else(|| "/bin/tar".into());
    let command = context
        .command(&tar)
        .arg("-xzf")
        .arg(path)
        .args(["--no-same-owner", "-C"])
        .arg(root);
    let ended = context.stream(&command)?;
    if !ended.status.success() {
        return Err(unpack(ended.last_line()).into());
    }
    let venv = venv::existing(context, &root.join("bin/python")).ok_or_else(missing)?;
    let conda = of(context, program, venv, true);
    let fix = conda.activated(context, &[root.join("bin/conda-unpack").into()]);
    let ended = context.stream(&fix)?;
    if !ended.status.success() {
        return Err(unpack(ended.last_line()).into());
    }
    Ok(conda)
}

/// conda's own environment.
fn base(context: &Context<'_>, program: &Path) -> Option<Conda> {
    let answer = ask(context, &command(context, program).args(["info", "--json"])).ok()?;
    let prefix = PathBuf::from(answer.get("root_prefix")?.as_str()?);
    let venv = venv::existing(context, &prefix.join("bin/python"))?;
    Some(of(context, program.to_owned(), venv, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (request, expected) in [
            ("3.10", "3.10"),
            ("/usr/bin/python3.9", "3.9"),
            ("python", "3"),
            ("/opt/py", "3"),
        ] {
            assert_eq!(python_version(request), expected, "{request}");
        }
        let version = |text: &str| first_version(text).map(|(_, text)| text);
        assert_eq!(version("conda 23.1.0\n").as_deref(), Some("23.1.0"));
        assert_eq!(version("no number"), None);
        let channels = ["nvidia", "https://u:p@h/c", "https://h/t/token/c"].map(str::to_owned);
        assert_eq!(channel_arguments(&channels), ["-c", "nvidia"]);
    }
}
