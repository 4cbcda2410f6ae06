//! The order of a build: environment, code, packages, command.

use std::path::Path;

use clearml_support::fs::{create_private_dir, remove_tree};

use crate::code::cache;
use crate::code::diff::{DiffKind, classify};
use crate::code::info::{ExecutionInfo, Interpreter};
use crate::code::literal::{self, LiteralError};
use crate::code::patch::{self, PatchError};
use crate::code::repo_url::without_password;
use crate::error::{BuildError, FileError, at};
use crate::host::{Host, Phase};
use crate::launch::{self, Code, LaunchError, Runtime};
use crate::packages::{self, RequirementSet, freeze, install};
use crate::python::{PythonError, find, seed, venv};
use crate::request::{BuildRequest, EnvSettings, PackageManagerKind, PreparedEnvironment};
use crate::tools::{Context, is_true};

/// Makes everything that a task needs to run, below `request.run_dir_env`.
///
/// Blocks; on cancellation of `host.cancel()` it ends within a fraction of a second, or after the few
/// seconds that a running tool takes to stop.
///
/// # Errors
///
/// [`BuildError`] says why, and [`BuildError::stage`] in which stage. What was made so far stays below
/// `request.run_dir_env`, which the next build, or whoever removes the run, clears.
pub fn build(request: &BuildRequest<'_>, host: &dyn Host) -> Result<PreparedEnvironment, BuildError> {
    let context = Context {
        settings: request.settings,
        host,
        redactor: request.redactor,
    };
    let result = Build {
        context: &context,
        request,
    }
    .run();
    match result {
        Err(_) if host.cancel().is_cancelled() => Err(BuildError::Cancelled),
        result => result,
    }
}

struct Build<'a> {
    context: &'a Context<'a>,
    request: &'a BuildRequest<'a>,
}

/// The environment, and what installs into it.
struct Environment {
    venv: venv::Venv,
    installer: Result<install::Installer, packages::PackageError>,
}

impl Build<'_> {
    fn run(&self) -> Result<PreparedEnvironment, BuildError> {
        let context = self.context;
        let script = self.request.task.script.as_ref().ok_or(BuildError::NoScript)?;
        refuse_unsupported(self.request.settings)?;
        let (info, warnings) = ExecutionInfo::new(script, &self.request.settings.env);
        self.announce(&info, &warnings);
        self.clear()?;

        let pip_list = packages::of_task(script.requirements.as_ref(), &context.settings.package_manager);
        let skip = launch::skips_python(context, &info, pip_list.is_some());
        let environment = if skip {
            None
        } else {
            Some(context.phase(Phase::Python, || self.environment(&info))?)
        };
        let (code, commit) = self.code(&info)?;
        if let Some(environment) = &environment {
            self.packages(environment, &info, &code, commit.as_deref(), pip_list)?;
        }
        if let Some(commit) = commit.as_ref().filter(|_| info.version.is_empty()) {
            context.host.report_commit(commit);
        }
        self.prepare(&info, &code, commit, environment.as_ref())
    }

    fn announce(&self, info: &ExecutionInfo, warnings: &[String]) {
        for warning in warnings {
            self.context.warn(warning);
        }
        let repository = without_password(&info.repository);
        for (name, value) in [
            ("repository", repository.as_str()),
            ("branch", &info.branch),
            ("version_num", &info.version),
            ("tag", &info.tag),
            ("entry_point", &info.entry_point),
            ("working_dir", &info.working_dir),
        ] {
            self.context.info(&format!("{name} = {value}"));
        }
    }

    /// Starts from an empty folder: what an interrupted build has left is of no use.
    fn clear(&self) -> Result<(), FileError> {
        let folder = &self.request.run_dir_env;
        create_private_dir(folder).map_err(at("creating", folder))?;
        for name in ["venv", "code", "task_repository", "tmp"] {
            let path = folder.join(name);
            remove_tree(&path).map_err(at("removing", &path))?;
        }
        let temp = folder.join("tmp");
        create_private_dir(&temp).map_err(at("creating", &temp))
    }

    fn environment(&self, info: &ExecutionInfo) -> Result<Environment, PythonError> {
        let context = self.context;
        let interpreter = find::find(context, info)?;
        context.info(&format!(
            "Python {} ({})",
            interpreter.full_version(),
            interpreter.executable.display()
        ));
        let venv = venv::create(context, &self.request.run_dir_env.join("venv"), interpreter)?;
        let pip = seed::seed(context, &venv)?;
        let installer = install::choose(context, &venv, pip);
        Ok(Environment { venv, installer })
    }

    /// Brings the code to its place and applies or writes what the task carries itself.
    fn code(&self, info: &ExecutionInfo) -> Result<(Code, Option<String>), BuildError> {
        if info.repository.is_empty() {
            return Ok((self.standalone(info)?, None));
        }
        let kind = classify(&info.diff, !info.version.is_empty());
        if kind == DiffKind::Placeholder {
            return Err(PatchError::LeftOut.into());
        }
        let parent = self.request.run_dir_env.join("task_repository");
        let copy = cache::retrieve(self.context, info, &parent)?;
        let mut code = Code {
            root: copy.root,
            working_dir: info.working_dir.clone(),
            literal: None,
            is_repository: true,
        };
        match kind {
            DiffKind::Patch => {
                self.context.phase(Phase::Patch, || {
                    patch::apply(self.context, &code.root, &info.diff)
                })?;
            }
            DiffKind::PointersOnly => self.context.warn(
                "the uncommitted changes only move submodules to other commits, which can't be reproduced; \
                 the task runs without them",
            ),
            DiffKind::Literal => self
                .context
                .phase(Phase::Script, || self.literal(info, &mut code))?,
            DiffKind::Empty | DiffKind::Placeholder => {}
        }
        Ok((code, Some(copy.commit)))
    }

    fn standalone(&self, info: &ExecutionInfo) -> Result<Code, BuildError> {
        let root = self.request.run_dir_env.join("code");
        create_private_dir(&root).map_err(at("creating", &root))?;
        let folder = info.working_dir.split(':').next().unwrap_or_default();
        if !matches!(folder, "" | ".") {
            self.context.warn(&format!(
                "without a repository, the working folder {folder:?} is ignored"
            ));
        }
        let mut code = Code {
            root,
            working_dir: ".".to_owned(),
            literal: None,
            is_repository: false,
        };
        match classify(&info.diff, false) {
            DiffKind::Literal => self
                .context
                .phase(Phase::Script, || self.literal(info, &mut code))?,
            _ => self
                .context
                .warn("the task has neither a repository nor a script of its own"),
        }
        Ok(code)
    }

    fn literal(&self, info: &ExecutionInfo, code: &mut Code) -> Result<(), LiteralError> {
        let plan = literal::plan(info);
        if code.is_repository {
            code.working_dir = plan.working_dir;
        }
        let (path, written) = literal::write(&code.root, &code.folder(), &plan.file, &info.diff)?;
        if !written {
            self.context
                .warn(&format!("{} exists already and is used as it is", path.display()));
        }
        code.literal = Some((path, plan.entry));
        Ok(())
    }

    fn packages(
        &self,
        environment: &Environment,
        info: &ExecutionInfo,
        code: &Code,
        commit: Option<&str>,
        pip_list: Option<String>,
    ) -> Result<(), BuildError> {
        let has_list = pip_list.is_some();
        let sets = match pip_list {
            Some(text) => {
                let folder = code.root.clone();
                vec![RequirementSet {
                    what: "task requirements".to_owned(),
                    text,
                    folder,
                }]
            }
            None if code.is_repository => {
                packages::of_repository(&code.root, &code.working_dir, &info.entry_point)
            }
            None => Vec::new(),
        };
        if sets.is_empty() && code.is_repository {
            self.context
                .warn("neither the task nor the repository lists requirements: nothing is installed");
        }
        let context = self.context;
        let requested = context.phase(Phase::Packages, || self.install(environment, code, sets))?;
        if has_list || code.is_repository {
            let origin = commit.map(|commit| freeze::Origin {
                root: code.root.clone(),
                url: without_password(&info.repository),
                commit: commit.to_owned(),
            });
            let lines = freeze::freeze(&environment.venv, &requested, origin.as_ref());
            let lines: Vec<String> = lines
                .iter()
                .map(|line| context.redactor.redact(line).into_owned())
                .collect();
            context.info(&format!("installed packages: {}", lines.join(", ")));
            context.host.report_packages(&lines);
        }
        Ok(())
    }

    fn install(
        &self,
        environment: &Environment,
        code: &Code,
        sets: Vec<RequirementSet>,
    ) -> Result<Vec<packages::lines::Prepared>, packages::PackageError> {
        if sets.is_empty() {
            return Ok(Vec::new());
        }
        let project = ["uv.lock", "poetry.lock"]
            .iter()
            .find(|name| code.root.join(name).exists());
        let uv = self.request.settings.package_manager.kind == PackageManagerKind::Uv;
        if let (true, Some(name)) = (uv, project) {
            self.context.warn(&format!(
                "{name} is not used by this version; the list of requirements is installed"
            ));
        }
        let installer = match &environment.installer {
            Ok(installer) => installer,
            Err(_) => {
                let python = environment.venv.interpreter.executable.clone();
                return Err(packages::PackageError::NoInstaller { python });
            }
        };
        let temp = self.request.run_dir_env.join("tmp");
        sets.iter()
            .map(|set| install::install(self.context, &environment.venv, installer, set, &temp))
            .collect()
    }

    fn prepare(
        &self,
        info: &ExecutionInfo,
        code: &Code,
        commit: Option<String>,
        environment: Option<&Environment>,
    ) -> Result<PreparedEnvironment, BuildError> {
        let context = self.context;
        if info.entry_point.is_empty() && code.literal.is_none() {
            return Err(LaunchError::NothingToRun.into());
        }
        let runtime = match environment {
            Some(Environment { venv, installer }) => Runtime::Venv {
                venv,
                own_path: !matches!(installer, Ok(install::Installer::Uv(_))),
            },
            None if info.interpreter == Interpreter::Python => {
                Runtime::System(find::find(context, info)?.found_at)
            }
            None => Runtime::None,
        };
        let task_id = self
            .request
            .task
            .id
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        let launch = launch::launch(context, info, code, &runtime, &task_id)?;
        let env = launch::variables(context, &launch, code, &runtime);
        remove_temporary(&self.request.run_dir_env)?;
        let python = runtime.python().map(Path::to_owned);
        let what = commit.as_ref().map_or_else(
            || "a literal script".to_owned(),
            |commit| format!("commit {commit}"),
        );
        let with = match environment {
            Some(environment) => format!("Python {}", environment.venv.interpreter.full_version()),
            None => "no environment of its own".to_owned(),
        };
        Ok(PreparedEnvironment {
            argv: launch.argv,
            cwd: launch.cwd,
            env,
            python,
            repository_root: code.is_repository.then(|| code.root.clone()),
            commit,
            summary: format!("{what} with {with}"),
        })
    }
}

fn remove_temporary(folder: &Path) -> Result<(), FileError> {
    let temp = folder.join("tmp");
    remove_tree(&temp).map_err(at("removing", &temp))
}

fn refuse_unsupported(settings: &EnvSettings) -> Result<(), BuildError> {
    let refuse = |what: String, instead| Err(BuildError::Unsupported { what, instead });
    if let PackageManagerKind::Other(kind) = &settings.package_manager.kind {
        return refuse(format!("agent.package_manager.type: {kind}"), "use pip or uv");
    }
    let set = |name: &str| settings.env.get(name).is_some_and(|value| !value.is_empty());
    if settings
        .env
        .get("CLEARML_AGENT_FORCE_POETRY")
        .is_some_and(|value| is_true(value))
    {
        return refuse("CLEARML_AGENT_FORCE_POETRY".to_owned(), "use pip or uv");
    }
    for name in [
        "CLEARML_AGENT_FORCE_CODE_DIR",
        "CLEARML_AGENT_CUSTOM_BUILD_SCRIPT",
    ] {
        if set(name) {
            return refuse(
                name.to_owned(),
                "unset it and let the agent build the environment",
            );
        }
    }
    let skip = settings
        .env
        .get("CLEARML_AGENT_SKIP_PIP_VENV_INSTALL")
        .map(|value| value.trim().to_ascii_lowercase());
    match skip.as_deref() {
        None | Some("" | "0" | "false" | "no" | "off" | "n" | "f") => Ok(()),
        Some(_) => refuse(
            "CLEARML_AGENT_SKIP_PIP_VENV_INSTALL".to_owned(),
            "unset it; the agent makes an environment for each task",
        ),
    }
}
