//! `build --id`: makes what a task needs to run, and leaves it for `execute --standalone-mode`.
//!
//! Nothing is written to the server: the task keeps its status and its requirements, and no worker appears.

use std::io;
use std::path::{Path, PathBuf};

use clearml_agent_config::Settings;
use clearml_api_client::Client;
use clearml_env_builder as env_builder;
use clearml_env_builder::{EnvSettings, Kept, KeptError, Layout, PreparedEnvironment, python_for};
use clearml_support::command::CancelToken;
use clearml_support::redact::Redactor;
use clearml_task_model::{Task, TaskId, WorkerId};
use serde::{Deserialize, Serialize};

use super::silent::{Printed, build, say, say_aside};
use super::{ExecuteError, find, id_of};
use crate::record::{RunInputs, RunOptions};
use crate::runner::build_host::{BuildHost, Reported};
use crate::runner::describe::described;
use crate::runner::environment::{Parts, base};
use crate::runner::setup::{strings, with_causes};
use crate::settings::{RunSettings, client_options};

/// What to build, and where.
#[derive(Debug, Clone)]
pub struct BuildOnlyOptions {
    /// Id, or name if it is the only task of that name.
    pub task: String,
    /// The folder; without one, that of the version of Python below `agent.venvs_dir`.
    pub target: Option<PathBuf>,
    /// Packages go into the interpreter itself.
    pub globally: bool,
    /// The version of Python, whatever the task says.
    pub python_version: Option<String>,
    /// Progress is told on standard error, since standard output is data.
    pub aside: bool,
    /// Whose name the variables of the build bear.
    pub worker: WorkerId,
    /// Options that reach the build.
    pub run: RunOptions,
    /// The configuration.
    pub settings: Settings,
}

/// What has been built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Built {
    /// The task.
    pub task: TaskId,
    /// The folder of everything.
    pub target: PathBuf,
    /// The programs of the environment; `None` for a task without Python.
    pub virtual_environment: Option<PathBuf>,
    /// The working copy, or the folder of the script.
    pub source_code: PathBuf,
    /// The file that is started, or how it is named to the interpreter.
    pub entry_point: String,
    /// The folder in which it is started.
    pub working_dir: PathBuf,
    /// Program and arguments.
    pub command: Vec<String>,
    /// What is installed, as `name==version`.
    pub packages: Vec<String>,
    /// The commit.
    pub commit: Option<String>,
}

/// Builds; `None` when a signal has ended that.
///
/// # Errors
///
/// When there is no such task, the folder can't be used, or code or environment can't be made. Then nothing of it
/// stays.
pub async fn build_only(options: BuildOnlyOptions) -> Result<Option<Built>, ExecuteError> {
    let client = Client::new(client_options(&options.settings)?)?;
    client.login().await?;
    let task = find(&client, &options.task).await?;
    let id = id_of(&task, &client)?;
    let inputs = RunInputs::from_process(options.run.clone());
    let settings = RunSettings::new(&options.settings, &inputs)?;
    let say: Printed = if options.aside { say_aside } else { say };
    say(&settings.redactor, &described(&id, &task));
    let work = Work {
        task: &task,
        id: &id,
        environment: EnvSettings {
            env: strings(base(&Parts {
                base: &inputs.environment,
                options: &inputs.options,
                task: &id,
                worker: &options.worker,
                run_id: None,
                config: options.settings.location(),
                configured: &settings.configured_environment,
            })),
            optimization: options.run.optimization,
            ..settings.environment.clone()
        },
        target: options.target,
        globally: options.globally,
        python_version: options.python_version,
        venvs_dir: options.settings.agent.venvs_dir.clone(),
        redactor: &settings.redactor,
        say,
    };
    let host = |host: BuildHost| host.with_files(&client, settings.files_server.as_deref());
    Ok(work.make(host).await?.map(|(built, _)| built))
}

/// A build in a folder that stays. It needs no server.
pub(crate) struct Work<'a> {
    pub(crate) task: &'a Task,
    pub(crate) id: &'a TaskId,
    /// The settings of the builder, with the environment of its tools.
    pub(crate) environment: EnvSettings,
    pub(crate) target: Option<PathBuf>,
    pub(crate) globally: bool,
    pub(crate) python_version: Option<String>,
    pub(crate) venvs_dir: PathBuf,
    pub(crate) redactor: &'a Redactor,
    pub(crate) say: Printed,
}

impl Work<'_> {
    /// Builds; `None` when a signal has ended that.
    pub(crate) async fn make(
        mut self,
        host: impl FnOnce(BuildHost) -> BuildHost,
    ) -> Result<Option<(Built, Reported)>, ExecuteError> {
        let (say, redactor) = (self.say, self.redactor);
        self.choose();
        let kept = self.begin().await?;
        if kept.replaces() {
            say(
                redactor,
                &format!("replacing the earlier build in {}", kept.folder().display()),
            );
        }
        let folder = kept.folder().to_owned();
        match build(self.task, self.environment, folder.clone(), redactor, say, host).await {
            Ok(Some((prepared, host))) => {
                kept.finish(self.task, &prepared).map_err(|e| unusable(&e))?;
                let reported = host.reported();
                let packages = reported.packages.clone().unwrap_or_default();
                let built = built(self.id.clone(), &folder, prepared, packages);
                Ok(Some((built, reported)))
            }
            ended => {
                kept.abandon().map_err(|e| unusable(&e))?;
                ended.map(|_| None)
            }
        }
    }

    /// What the options say about packages and interpreter.
    fn choose(&mut self) {
        let environment = &mut self.environment;
        environment.layout = Layout::Kept {
            globally: self.globally,
        };
        environment.standalone = None;
        if self.globally {
            environment.package_manager.system_site_packages = true;
            environment.package_manager.conda.use_base_env = true;
        }
        if let Some(version) = &self.python_version {
            environment.ignore_requested_python_version = true;
            environment.python_binary = None;
            environment.default_python = Some(version.clone());
        }
    }

    /// Finds the folder and takes it.
    async fn begin(&self) -> Result<Kept, ExecuteError> {
        let (task, environment) = (self.task.clone(), self.environment.clone());
        let (redactor, venvs_dir) = (self.redactor.clone(), self.venvs_dir.clone());
        let (target, wanted) = (self.target.clone(), self.python_version.clone());
        let begun = tokio::task::spawn_blocking(move || {
            let conda = environment.package_manager.kind == env_builder::PackageManagerKind::Conda;
            let version = python_for(&task, &environment, &redactor, &CancelToken::default());
            let version = match (version, wanted) {
                // conda brings every version.
                (_, Some(wanted)) if conda => wanted,
                (Err(_), None) if conda => "conda".to_owned(),
                (version, wanted) => {
                    let version = version.map_err(|e| ExecuteError::Prepare {
                        stage: e.stage().as_str(),
                        reason: with_causes(&e),
                    })?;
                    has_version(&version, wanted.as_deref())?;
                    version
                }
            };
            let own = target.is_none();
            let folder = match target {
                Some(target) => std::path::absolute(&target).map_err(|source| ExecuteError::System {
                    doing: "making --target absolute",
                    source,
                })?,
                None => venvs_dir.join(version),
            };
            Kept::begin(&environment.caches_dir, &folder, own).map_err(|e| unusable(&e))
        });
        begun.await.map_err(|e| ExecuteError::System {
            doing: "preparing the folder of the build",
            source: io::Error::other(e),
        })?
    }
}

/// Who names a version wants no other.
fn has_version(found: &str, wanted: Option<&str>) -> Result<(), ExecuteError> {
    let Some(wanted) = wanted else { return Ok(()) };
    let series = |version: &str| version.split('.').take(2).map(str::to_owned).collect::<Vec<_>>();
    let (have, want) = (series(found), series(wanted));
    let is_version = |part: &String| part.parse::<u32>().is_ok();
    if !have.iter().all(is_version) || have.starts_with(&want) {
        return Ok(());
    }
    Err(ExecuteError::Prepare {
        stage: "environment",
        reason: format!(
            "there is no Python {wanted} on this machine, the nearest is {found}; install it, or give another version \
             with --python-version"
        ),
    })
}

fn unusable(error: &KeptError) -> ExecuteError {
    ExecuteError::Prepare {
        stage: "environment",
        reason: with_causes(error),
    }
}

fn built(task: TaskId, target: &Path, prepared: PreparedEnvironment, packages: Vec<String>) -> Built {
    let bin = target.join("bin");
    let of_project = || {
        let bin = prepared.python.as_ref()?.parent()?;
        bin.starts_with(target).then(|| bin.to_owned())
    };
    let code = target.join("code");
    let source = prepared.repository_root.clone();
    let command: Vec<String> = prepared
        .argv
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    Built {
        task,
        virtual_environment: if bin.join("python").is_file() {
            Some(bin)
        } else {
            of_project()
        },
        source_code: source.unwrap_or_else(|| if code.is_dir() { code } else { prepared.cwd.clone() }),
        entry_point: entry_point(&command, &prepared.cwd),
        working_dir: prepared.cwd,
        command,
        packages,
        commit: prepared.commit,
        target: target.to_owned(),
    }
}

/// The file among the words of a command, or what the interpreter is told instead.
fn entry_point(command: &[String], cwd: &Path) -> String {
    let words = command.get(1..).unwrap_or_default();
    let words: Vec<&str> = words
        .iter()
        .map(String::as_str)
        .skip_while(|word| matches!(*word, "-u" | "-O" | "-OO"))
        .collect();
    let file = words
        .first()
        .map(|word| cwd.join(word))
        .filter(|path| path.is_file());
    file.map_or_else(|| words.join(" "), |path| path.display().to_string())
}

impl Built {
    /// The summary for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut lines = vec!["Packages:".to_owned()];
        lines.extend(self.packages.iter().map(|package| format!("  {package}")));
        if self.packages.is_empty() {
            lines.push("  none".to_owned());
        }
        let environment = self.virtual_environment.as_ref();
        let environment = environment.map_or_else(|| "none".to_owned(), |path| path.display().to_string());
        lines.push(format!("Virtual environment: {environment}"));
        lines.push(format!("Source code: {}", self.source_code.display()));
        lines.push(format!("Entry point: {}", self.entry_point));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_point_is_a_file_where_there_is_one() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("main.py"), "").unwrap();
        let entry = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            entry_point(&words, folder.path())
        };
        let main = folder.path().join("main.py").display().to_string();
        assert_eq!(entry(&["/b/python", "-u", "-O", "main.py", "--x"]), main);
        assert_eq!(
            entry(&["/b/python", "-u", "-m", "pkg.main", "--x"]),
            "-m pkg.main --x"
        );
        assert_eq!(entry(&["/bin/bash", "-c", "echo"]), "-c echo");
        assert_eq!(entry(&[]), "");
    }

    #[test]
    fn a_version_that_is_named_has_to_be_there() {
        for (found, wanted, fits) in [
            ("3.11", "3.11", true),
            ("3.11", "3", true),
            ("3.11", "3.11.4", true),
            ("3.11", "3.1", false),
            ("3.11", "3.9", false),
            ("none", "3.9", true),
        ] {
            assert_eq!(has_version(found, Some(wanted)).is_ok(), fits, "{found} {wanted}");
        }
        assert!(has_version("3.11", None).is_ok());
    }
}
