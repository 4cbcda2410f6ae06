//! conda: packages as far as it has them, in an environment
//! of its own ([`conda_environment`](super::conda_environment)).
//!
//! conda is asked in JSON. A call that fails says why and ends nothing: packages that conda can't install
//! are left to pip, as the Python agent does it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clearml_support::command::Command;
use clearml_support::fs::remove_tree;
use serde_json::Value;

use crate::error::at;
use crate::packages::PackageError;
use crate::packages::conda_call::{ask, command, failed};
use crate::packages::conda_requirements::{Split, Wish, bad_packages, environment_file, listed, recorded};
use crate::packages::install::quiet_tool;
use crate::packages::requirements::line::{Line, Target, parse};
use crate::packages::requirements::logical;
use crate::packages::requirements::pep::{Surroundings, normal_name};
use crate::packages::requirements::step::write_private;
use crate::packages::requirements::torch::cuda::{Accelerator, detect};
use crate::python::venv::Venv;
use crate::tools::Context;

/// Rounds of leaving packages to pip: there are not more packages that conda would name one by one.
const MAX_ROUNDS: usize = 50;
/// An environment of conda.
#[derive(Debug)]
pub(crate) struct Conda {
    pub(crate) program: PathBuf,
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

impl Conda {
    /// A program in the activated environment.
    pub(crate) fn activated(&self, context: &Context<'_>, words: &[OsString]) -> Command {
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
