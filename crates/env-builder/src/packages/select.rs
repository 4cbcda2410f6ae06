//! Which package manager serves a task, and the environment that it makes.
//!
//! Poetry and uv serve repositories that are their projects; a repository that is none, and a project that
//! can't be installed, get an ordinary environment and the list of requirements.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clearml_task_model::Requirements;

use crate::caches::{Cached, Outcome, Wanted};
use crate::code::info::ExecutionInfo;
use crate::error::BuildError;
use crate::kept;
use crate::launch::Code;
use crate::packages::conda::{Conda, CondaFreeze, CondaLists};
use crate::packages::conda_environment;
use crate::packages::freeze::{self, Origin};
use crate::packages::install::{self, Installer};
use crate::packages::pip::{self, WantedPip, version_by_task};
use crate::packages::poetry::{self, PoetryProject};
use crate::packages::requirements::{Requested, RequirementSet, restore};
use crate::packages::uv_project::{self, UvProject};
use crate::packages::{PackageError, uv};
use crate::python::probe::Interpreter;
use crate::python::seed;
use crate::python::venv::{self, Venv};
use crate::python::{PythonError, find};
use crate::request::{Layout, PackageManagerKind};
use crate::tools::{Context, is_true};

/// An environment, and what installs into it.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) venv: Venv,
    /// What starts its interpreter; several words where more is needed than the interpreter itself.
    pub(crate) command: Vec<OsString>,
    /// Whether it is a virtual environment of ours, not an interpreter or one of conda.
    pub(crate) is_virtual: bool,
    /// Whether the interpreter's own search path goes into the variables of the task.
    pub(crate) own_path: bool,
    manager: Manager,
}

#[derive(Debug)]
enum Manager {
    /// Lists are installed.
    Lists(Result<Installer, PackageError>),
    Conda(Conda, Box<Result<Installer, PackageError>>),
    Poetry(Box<PoetryProject>),
    Uv(Box<UvProject>),
}

/// What is reported after all is installed.
#[derive(Debug, Default)]
pub(crate) struct Frozen {
    pub(crate) lines: Vec<String>,
    pub(crate) conda: Option<CondaFreeze>,
}

/// Chooses and makes environments.
pub(crate) struct Select<'a> {
    pub(crate) context: &'a Context<'a>,
    pub(crate) info: &'a ExecutionInfo,
    pub(crate) requirements: Option<&'a Requirements>,
    /// The image of the task, which may stand for an environment of conda.
    pub(crate) image: Option<&'a str>,
    /// Where an environment of the task goes.
    pub(crate) root: PathBuf,
    /// The folder of the build.
    pub(crate) run: PathBuf,
}

impl Select<'_> {
    /// Whether the code of the task may be a project, so that it has to be there first.
    pub(crate) fn may_be_project(&self) -> bool {
        !self.info.repository.is_empty() && (poetry::is_wanted(self.context) || uv::is_wanted(self.context))
    }

    /// The environment of the project that the code is, if it is one and can be installed.
    pub(crate) fn project(&self, code: &Code) -> Result<Option<Environment>, BuildError> {
        if !code.is_repository {
            return Ok(None);
        }
        let settings = &self.context.settings.package_manager;
        let outside = matches!(code.working_dir.split('/').next(), Some("" | ".."));
        let folder = |in_working_dir: bool| {
            if in_working_dir && !outside {
                code.folder()
            } else {
                code.root.clone()
            }
        };
        if poetry::is_wanted(self.context) {
            let folder = folder(settings.poetry_files_from_repo_working_dir);
            if poetry::is_project(&folder) {
                if let Some(environment) = self.poetry(&folder)? {
                    return Ok(Some(environment));
                }
            } else {
                self.context
                    .info("the repository is no Poetry project; the list of requirements is installed");
            }
        }
        if uv::is_wanted(self.context) {
            let folder = folder(settings.uv_files_from_repo_working_dir);
            if uv_project::is_project(&folder) {
                return self.uv_project(&folder);
            }
            self.context
                .info("the repository is no uv project; the list of requirements is installed");
        }
        Ok(None)
    }

    fn poetry(&self, folder: &Path) -> Result<Option<Environment>, BuildError> {
        let context = self.context;
        let interpreter = find::find(context, self.info)?;
        match poetry::install(context, folder, &interpreter) {
            Ok(project) => {
                let venv = project.venv.clone();
                self.add_sdk(&venv);
                Ok(Some(Environment {
                    command: vec![venv.python.clone().into()],
                    is_virtual: true,
                    own_path: false,
                    venv,
                    manager: Manager::Poetry(Box::new(project)),
                }))
            }
            Err(error) if context.settings.package_manager.poetry_strict || self.is_cancelled() => {
                Err(error.into())
            }
            Err(error) => {
                context.warn(&format!("{error}; the list of requirements is installed"));
                Ok(None)
            }
        }
    }

    fn uv_project(&self, folder: &Path) -> Result<Option<Environment>, BuildError> {
        let looked = find::look(self.context, self.info).map(|found| found.interpreter);
        let uv = match &looked {
            Ok(interpreter) => self.obtain_uv(interpreter),
            // uv brings one where there is none.
            Err(_) => uv::find(self.context),
        };
        let Some(uv) = uv else {
            return Ok(None);
        };
        let mut cached = match &looked {
            Ok(interpreter) => self.cached_project(interpreter, folder),
            Err(_) => Cached::none(self.context),
        };
        cached.restore()?;
        let any = looked.as_ref().ok().map(|found| found.executable.as_path());
        // Also after restoring: the project itself is not kept, and uv knows best whether all is right.
        let Some(mut project) = uv_project::sync(self.context, &uv, folder, any)? else {
            return Ok(None);
        };
        cached.keep(&project.venv.site_packages, None, folder);
        project.outcome = cached.outcome;
        self.add_sdk(&project.venv);
        Ok(Some(Environment {
            venv: project.venv.clone(),
            command: project.command.clone(),
            is_virtual: true,
            own_path: false,
            manager: Manager::Uv(Box::new(project)),
        }))
    }

    fn cached_project(&self, interpreter: &Interpreter, folder: &Path) -> Cached<'_> {
        let Some(lock) = uv_project::lock(self.context, folder) else {
            return Cached::none(self.context);
        };
        let wanted = Wanted {
            manager: "uv-project",
            interpreter,
            sets: &[],
            image: self.image,
            lock: Some(lock),
        };
        Cached::new(self.context, &wanted, &folder.join(".venv"), &self.run)
    }

    /// Where `Task.init` is added to scripts, a project needs the SDK although it does not list it.
    fn add_sdk(&self, venv: &Venv) {
        let context = self.context;
        if !crate::code::source::forces_task_init(context) {
            return;
        }
        let temp = self.run.join("tmp");
        let set = RequirementSet::new("the SDK", "clearml", &temp);
        let pip = pip::version_in(venv);
        let uv = uv::find(context);
        let result = Installer::new(context, venv, pip, WantedPip::any(), uv)
            .and_then(|installer| install::install(context, venv, &installer, &set, &temp));
        if let Err(error) = result {
            context.warn(&format!("the SDK could not be added to the project: {error}"));
        }
    }

    fn is_cancelled(&self) -> bool {
        self.context.host.cancel().is_cancelled()
    }

    fn obtain_uv(&self, interpreter: &Interpreter) -> Option<PathBuf> {
        let by_task = version_by_task(self.requirements, "uv");
        uv::obtain(self.context, by_task.as_deref(), interpreter)
    }

    fn wanted_pip(&self) -> WantedPip {
        let by_task = version_by_task(self.requirements, "pip");
        WantedPip::new(
            &self.context.settings.package_manager.pip_version,
            by_task.as_deref(),
        )
    }

    /// An environment that lists are installed into.
    pub(crate) fn environment(&self) -> Result<Environment, BuildError> {
        let context = self.context;
        if let Some(existing) = self.existing() {
            return Ok(existing);
        }
        if context.settings.package_manager.kind == PackageManagerKind::Conda {
            return self.conda();
        }
        if context.settings.layout == (Layout::Kept { globally: true }) {
            return self.global();
        }
        let looked = find::look(context, self.info);
        let uv = match &looked {
            _ if !uv::is_wanted(context) => None,
            Ok(found) => self.obtain_uv(&found.interpreter),
            Err(_) => uv::find(context),
        };
        let missing = match &looked {
            Ok(found) => found.missing.clone().filter(|text| text.contains('.')),
            Err(_) => find::requests(context.settings, self.info).into_iter().next(),
        };
        if let (Some(request), Some(uv)) = (missing, &uv) {
            match venv::by_uv(context, uv, &self.root, &request) {
                Ok(venv) => {
                    let pip = self.seed(&venv)?;
                    return Ok(self.lists(venv, pip, Some(uv.clone())));
                }
                Err(error) => context.warn(&format!("uv made no environment: {error}")),
            }
        }
        let found = looked?;
        if let Some(request) = &found.missing {
            find::warn_of_other(context, request, &found.interpreter);
        }
        let interpreter = found.interpreter;
        context.info(&format!(
            "Python {} ({})",
            interpreter.full_version(),
            interpreter.executable.display()
        ));
        let venv = venv::create(context, &self.root, interpreter)?;
        let pip = self.seed(&venv)?;
        Ok(self.lists(venv, pip, uv))
    }

    /// Gives the environment a pip: tasks call it, whatever installs their packages.
    fn seed(&self, venv: &Venv) -> Result<Option<String>, BuildError> {
        let context = self.context;
        let there = seed::seed(context, venv)?;
        Ok(match (there, uv::find(context)) {
            (None, Some(uv)) => pip::fetch_with_uv(context, venv, &uv, &self.run.join("tmp"))?,
            (there, _) => there,
        })
    }

    fn lists(&self, venv: Venv, pip: Option<String>, uv: Option<PathBuf>) -> Environment {
        let settings = &self.context.settings.package_manager;
        let own_path = uv.is_none() && !settings.uv_replace_pip && pip.is_some();
        let installer = Installer::new(self.context, &venv, pip, self.wanted_pip(), uv);
        Environment {
            command: vec![venv.python.clone().into()],
            is_virtual: true,
            own_path,
            venv,
            manager: Manager::Lists(installer),
        }
    }

    /// An interpreter that the configuration or the container names: no environment is made.
    fn existing(&self) -> Option<Environment> {
        let context = self.context;
        let python = match self.named_interpreter() {
            Some(python) => python,
            None => {
                let active = self.active_in_container()?;
                context.warn(&format!(
                    "packages are installed into the virtual environment {} of the container",
                    active.display()
                ));
                active.join("bin/python")
            }
        };
        self.of_interpreter(&python)
    }

    fn of_interpreter(&self, python: &Path) -> Option<Environment> {
        let context = self.context;
        let venv = venv::existing(context, python)?;
        context.info(&format!(
            "Python {} ({}), without an environment of its own",
            venv.interpreter.full_version(),
            python.display()
        ));
        let pip = freeze::installed_in(&venv)
            .into_iter()
            .find(|package| package.name == "pip")
            .map(|package| package.version);
        let installer = Installer::new(context, &venv, pip, WantedPip::any(), None);
        Some(Environment {
            command: vec![python.into()],
            is_virtual: venv.root.join("pyvenv.cfg").is_file(),
            own_path: false,
            venv,
            manager: Manager::Lists(installer),
        })
    }

    /// Packages go into the interpreter; an environment without packages of its own sees them.
    fn global(&self) -> Result<Environment, BuildError> {
        let context = self.context;
        let interpreter = find::find(context, self.info)?;
        let python = interpreter.found_at.clone();
        let environment = self.of_interpreter(&python);
        let environment = environment.ok_or_else(|| PythonError::NotFound {
            tried: vec![python.display().to_string()],
        })?;
        let own = venv::create(context, &self.root, interpreter)?;
        kept::see(&own.site_packages, &environment.venv.site_packages)?;
        Ok(environment)
    }

    /// `CLEARML_AGENT_SKIP_PIP_VENV_INSTALL`: a yes stands for the interpreter that is found anyway.
    fn named_interpreter(&self) -> Option<PathBuf> {
        let context = self.context;
        let named = context.var("CLEARML_AGENT_SKIP_PIP_VENV_INSTALL")?.trim();
        let no = ["0", "false", "no", "off", "n", "f"];
        if named.is_empty() || no.contains(&named.to_ascii_lowercase().as_str()) {
            return None;
        }
        if is_true(named) {
            return find::find(context, self.info).ok().map(|found| found.found_at);
        }
        let program = context.find_program(named);
        if program.is_none() {
            context.warn(&format!(
                "CLEARML_AGENT_SKIP_PIP_VENV_INSTALL names {named}, which is not there; an environment is made"
            ));
        }
        program
    }

    /// Nested environments do not see what is installed in the outer one.
    fn active_in_container(&self) -> Option<PathBuf> {
        let settings = self.context.settings;
        let active = self.context.var("VIRTUAL_ENV")?;
        self.context.var("CLEARML_DOCKER_IMAGE")?;
        let wanted = settings.docker_use_activated_venv && settings.package_manager.system_site_packages;
        wanted.then(|| PathBuf::from(active))
    }

    fn conda(&self) -> Result<Environment, BuildError> {
        let context = self.context;
        let requests = find::requests(context.settings, self.info);
        let request = requests.first().map_or("3", String::as_str);
        let wanted = self.wanted_pip();
        let conda = conda_environment::environment(context, &self.root, request, self.image, &wanted)?;
        let pip = freeze::installed_in(&conda.venv)
            .into_iter()
            .find(|package| package.name == "pip")
            .map(|package| package.version);
        // conda has chosen its pip already.
        let installer = Installer::new(context, &conda.venv, pip, WantedPip::any(), None);
        context.info(&format!(
            "Python {} of conda ({})",
            conda.venv.interpreter.full_version(),
            conda.venv.root.display()
        ));
        Ok(Environment {
            venv: conda.venv.clone(),
            command: conda.command.clone(),
            is_virtual: false,
            own_path: false,
            manager: Manager::Conda(conda, Box::new(installer)),
        })
    }
}

impl Environment {
    /// Whether lists are installed into it: projects bring their own, and some environments stay as they are.
    pub(crate) fn takes_lists(&self) -> bool {
        match &self.manager {
            Manager::Lists(_) => true,
            Manager::Conda(conda, _) => !conda.read_only,
            Manager::Poetry(_) | Manager::Uv(_) => false,
        }
    }

    /// Whether it may be kept for other tasks, and put together of files alone.
    pub(crate) fn is_of_lists(&self) -> bool {
        matches!(self.manager, Manager::Lists(_)) && self.is_virtual
    }

    /// What the cache has done for it already.
    pub(crate) fn outcome(&self) -> Outcome {
        match &self.manager {
            Manager::Uv(project) => project.outcome,
            _ => Outcome::Unused,
        }
    }

    /// To be called when its files were replaced by those of a cached one.
    pub(crate) fn was_replaced(&mut self) {
        let version = pip::version_in(&self.venv);
        if let (Manager::Lists(Ok(installer)), Some(version)) = (&mut self.manager, version) {
            installer.set_pip(version);
        }
    }

    /// Installs a list. `task` is what a task says beside its list for pip.
    pub(crate) fn install(
        &self,
        context: &Context<'_>,
        set: &RequirementSet,
        task: Option<&CondaLists<'_>>,
        temp: &Path,
    ) -> Result<Requested, PackageError> {
        let python = || self.venv.interpreter.executable.clone();
        let (installer, set) = match &self.manager {
            Manager::Lists(installer) => (installer, set.clone()),
            Manager::Conda(conda, installer) => {
                let plain = CondaLists {
                    conda: None,
                    pip: &set.text,
                    environment: None,
                };
                let lists = task.copied().unwrap_or(plain);
                let text = conda.install(
                    context,
                    &CondaLists {
                        pip: &set.text,
                        ..lists
                    },
                    temp,
                )?;
                (&**installer, RequirementSet { text, ..set.clone() })
            }
            Manager::Poetry(_) | Manager::Uv(_) => return Ok(Requested::default()),
        };
        match installer {
            Ok(installer) => install::install(context, &self.venv, installer, &set, temp),
            Err(_) => Err(PackageError::NoInstaller { python: python() }),
        }
    }

    /// What is installed, in the form in which it is reported.
    pub(crate) fn freeze(
        &self,
        context: &Context<'_>,
        requested: &[Requested],
        origin: Option<&Origin>,
    ) -> Result<Frozen, PackageError> {
        let lines = |origin| freeze::freeze(&self.venv, requested, origin);
        match &self.manager {
            Manager::Lists(_) => Ok(Frozen {
                lines: restore::lines(lines(origin), requested),
                conda: None,
            }),
            Manager::Poetry(project) => Ok(Frozen {
                lines: project.freeze(context)?,
                conda: None,
            }),
            Manager::Uv(project) => Ok(Frozen {
                lines: uv_project::relative(lines(None), &project.folder),
                conda: None,
            }),
            Manager::Conda(conda, _) => {
                let frozen = conda.freeze(context, lines(origin))?;
                Ok(Frozen {
                    lines: frozen.pip.clone(),
                    conda: Some(frozen),
                })
            }
        }
    }

    /// Whether what is installed is written back to the task.
    pub(crate) fn is_reported(&self, context: &Context<'_>) -> bool {
        !matches!(self.manager, Manager::Conda(..)) || context.settings.package_manager.conda.full_env_update
    }
}
