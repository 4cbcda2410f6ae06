//! conda: environments, and packages as far as it has them.
//!
//! conda is asked in JSON. A call that fails says why and ends nothing: packages that conda can't install
//! are left to pip, as the Python agent does it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clearml_support::command::Command;
use clearml_support::fs::remove_tree;
use pep440_rs::Version;
use serde_json::Value;

use crate::error::at;
use crate::packages::PackageError;
use crate::packages::conda_call::{ask, command, failed, reason};
use crate::packages::conda_requirements::{Split, Wish, bad_packages, environment_file, listed, recorded};
use crate::packages::install::quiet_tool;
use crate::packages::pip::WantedPip;
use crate::packages::requirements::line::{Line, Target, parse};
use crate::packages::requirements::logical;
use crate::packages::requirements::pep::{Surroundings, normal_name};
use crate::packages::requirements::step::write_private;
use crate::packages::requirements::torch::cuda::{Accelerator, detect};
use crate::python::venv::{self, Venv};
use crate::tools::Context;

/// Older ones do not know the arguments.
const OLDEST: &str = "4.3.30";
const TIMEOUT: Duration = Duration::from_secs(60);
/// Rounds of leaving packages to pip: there are not more packages that conda would name one by one.
const MAX_ROUNDS: usize = 50;
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

/// An environment of conda.
#[derive(Debug)]
pub(crate) struct Conda {
    program: PathBuf,
    pub(crate) venv: Venv,
    /// What starts its interpreter: conda's own scripts set the variables of packages.
    pub(crate) command: Vec<OsString>,
    /// Nothing is installed into it.
    pub(crate) read_only: bool,
}

/// The lists of a task, or of a file of its repository.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CondaLists<'a> {
    pub(crate) conda: Option<&'a str>,
    pub(crate) pip: &'a str,
    /// A recorded environment (`conda_env_json`).
    pub(crate) environment: Option<&'a str>,
}

/// What conda reports of an environment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CondaFreeze {
    pub(crate) pip: Vec<String>,
    pub(crate) conda: Vec<String>,
    pub(crate) environment: Option<Value>,
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

impl Conda {
    /// A program in the activated environment.
    fn activated(&self, context: &Context<'_>, words: &[OsString]) -> Command {
        let before = &self.command[..self.command.len() - 1];
        let all: Vec<&OsString> = before.iter().chain(words).collect();
        let program = all.first().map(PathBuf::from).unwrap_or_default();
        quiet_tool(context, context.command(&program)).args(&all[1..])
    }

    /// Installs what conda has of the lists; what is left for pip.
    pub(crate) fn install(
        &self,
        context: &Context<'_>,
        lists: &CondaLists<'_>,
        temp: &Path,
    ) -> Result<String, PackageError> {
        let cuda = match detect(context) {
            Accelerator::Cuda(version) => Some(version),
            _ => None,
        };
        let channels = &context.settings.package_manager.conda.channels;
        if let Some(environment) = lists.environment {
            let repositories = repositories(lists.pip);
            if let Some((file, pip)) = recorded(environment, channels, cuda.is_some(), &repositories) {
                let answer = self.update(context, &file, temp)?;
                let bad = bad_packages(&answer);
                if !failed(&answer) {
                    return Ok(pip.join("\n"));
                }
                context.warn(&format!(
                    "the recorded environment can't be made again{}",
                    if bad.is_empty() {
                        String::new()
                    } else {
                        format!(": {}", bad.join(", "))
                    }
                ));
            }
        }
        let here = Surroundings::new(&self.venv.interpreter);
        let mut split = Split::new(&Wish {
            conda: lists.conda,
            pip: Some(lists.pip),
            channels,
            cuda,
            here: &here,
        });
        for _ in 0..MAX_ROUNDS {
            if split.conda.is_empty() {
                break;
            }
            let names = split.conda.iter().map(|p| format!("{}{}", p.name, p.range));
            let names: Vec<String> = names.collect();
            context.info(&format!("conda installs {}", names.join(", ")));
            let answer = self.update(context, &environment_file(channels, &split.conda), temp)?;
            if !failed(&answer) {
                return Ok(split.pip.join("\n"));
            }
            let bad = bad_packages(&answer);
            if !split.hand_over(&bad) {
                break;
            }
            context.info(&format!("left to pip: {}", bad.join(", ")));
        }
        if !split.conda.is_empty() {
            context.warn("conda can't install the list; all of it is left to pip");
            split.hand_over_all();
        }
        Ok(split.pip.join("\n"))
    }

    fn update(&self, context: &Context<'_>, file: &str, temp: &Path) -> Result<Value, PackageError> {
        let path = temp.join("conda_env.yml");
        write_private(&path, file)?;
        let update = command(context, &self.program)
            .args(["env", "update", "--prefix"])
            .arg(&self.venv.root)
            .arg("--file")
            .arg(&path)
            .args(["--quiet", "--json"]);
        let answer = ask(context, &update);
        remove_tree(&path).map_err(at("removing", &path))?;
        Ok(answer?)
    }

    /// What is installed, given what pip sees of it.
    pub(crate) fn freeze(
        &self,
        context: &Context<'_>,
        pip: Vec<String>,
    ) -> Result<CondaFreeze, PackageError> {
        let list = command(context, &self.program)
            .args(["list", "--prefix"])
            .arg(&self.venv.root)
            .arg("--json");
        let by_conda = listed(&ask(context, &list)?);
        let export = command(context, &self.program)
            .args(["env", "export", "--prefix"])
            .arg(&self.venv.root)
            .arg("--json");
        let mut environment = ask(context, &export).ok().filter(|answer| !failed(answer));
        if let Some(Value::Object(environment)) = &mut environment {
            for key in ["name", "prefix", "channels"] {
                environment.remove(key);
            }
        }
        let (conda, pip) = divide(&by_conda, pip);
        Ok(CondaFreeze {
            pip,
            conda,
            environment,
        })
    }
}

/// The list for conda, and the one that has both for readers that know pip only. Pure.
fn divide(by_conda: &[(String, String)], pip: Vec<String>) -> (Vec<String>, Vec<String>) {
    let conda: Vec<String> = by_conda
        .iter()
        .map(|(name, version)| format!("{name}=={version}"))
        .collect();
    if conda.is_empty() {
        return (conda, pip);
    }
    let of_conda = |line: &String| {
        let name = line.split(['=', ' ', '@']).next().map(normal_name);
        by_conda.iter().any(|(known, _)| Some(normal_name(known)) == name)
    };
    let mut all = vec!["# Conda Packages".to_owned(), String::new()];
    all.extend(conda.iter().cloned());
    all.extend([String::new(), "# Pip Packages".to_owned(), String::new()]);
    all.extend(pip.into_iter().filter(|line| !of_conda(line)));
    (conda, all)
}

/// The lines of a list that are repositories, by name.
fn repositories(pip: &str) -> BTreeMap<String, String> {
    logical::lines(pip)
        .into_iter()
        .filter_map(|(_, line)| match parse(line.trim()).ok()?.pop()? {
            Line::Requirement(found) if matches!(found.target, Target::Vcs(_)) => {
                Some((normal_name(found.known_name()?), line))
            }
            _ => None,
        })
        .collect()
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

    #[test]
    fn one_list_for_readers_of_pip() {
        let by_conda = [("torch".to_owned(), "2.0".to_owned())];
        let pip = vec!["torch==2.0".to_owned(), "six==1.16.0".to_owned()];
        let (conda, all) = divide(&by_conda, pip);
        assert_eq!(conda, ["torch==2.0"]);
        assert_eq!(
            all,
            [
                "# Conda Packages",
                "",
                "torch==2.0",
                "",
                "# Pip Packages",
                "",
                "six==1.16.0"
            ]
        );
        assert_eq!(
            divide(&[], vec!["a==1".to_owned()]),
            (vec![], vec!["a==1".to_owned()])
        );
    }

    #[test]
    fn lines_that_name_repositories() {
        let found = repositories("six\ngit+https://h/r.git@v1#egg=My_R\n");
        assert_eq!(found["my-r"], "git+https://h/r.git@v1#egg=My_R");
        assert_eq!(found.len(), 1);
    }
}
