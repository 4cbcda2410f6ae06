//! Installing lists of packages. Secrets and lists go in a private file, never in arguments.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use clearml_support::command::Command;

use crate::code::git::with_defaults;
use crate::error::at;
use crate::packages::PackageError;
use crate::packages::pip::{self, WantedPip, index_options};
use crate::packages::reason::reason;
use crate::packages::requirements::external::secrets;
use crate::packages::requirements::flow::{self, Backend};
use crate::packages::requirements::step::{Action, Call, Step, own_netrc, write_private};
use crate::packages::requirements::{Requested, RequirementSet};
use crate::packages::uv::{Outcome, Uv};
use crate::python::venv::Venv;
use crate::tools::{Context, Ended};

/// What installs into one environment.
#[derive(Debug)]
pub(crate) struct Installer {
    uv: Option<Uv>,
    pip: Option<Pip>,
}

/// The pip of an environment.
#[derive(Debug)]
struct Pip {
    /// The version that the environment began with.
    own: String,
    wanted: WantedPip,
    /// Its version once it is the wanted one; only what pip installs needs that.
    settled: Mutex<Option<String>>,
}

/// Where a call of the installer works.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) venv: &'a Venv,
    /// Where relative paths begin.
    pub(crate) folder: &'a Path,
    /// For the file that the list is written to.
    pub(crate) temp: &'a Path,
}

impl Installer {
    /// Chooses the installer. Without pip in the environment, uv serves even if it was not asked for.
    /// `pip` is the version that is there, `wanted_uv` the uv of a build whose package manager is uv.
    pub(crate) fn new(
        context: &Context<'_>,
        venv: &Venv,
        pip: Option<String>,
        wanted: WantedPip,
        wanted_uv: Option<PathBuf>,
    ) -> Result<Self, PackageError> {
        let uv = Uv::choose(context, venv, wanted_uv, pip.is_some());
        let pip = pip.map(|own| Pip {
            own,
            wanted,
            settled: Mutex::default(),
        });
        if uv.is_none() && pip.is_none() {
            return Err(PackageError::NoInstaller {
                python: venv.interpreter.executable.clone(),
            });
        }
        Ok(Self { uv, pip })
    }

    /// The environment was replaced by one with this pip.
    pub(crate) fn set_pip(&mut self, version: String) {
        if let Some(pip) = &mut self.pip {
            pip.own = version;
        }
    }

    /// Whether packages of this kind of list are installed by uv: its caches and its way to build hold.
    pub(crate) fn is_uv(&self) -> bool {
        self.uv.is_some()
    }

    /// Carries out one step.
    pub(crate) fn run(
        &self,
        context: &Context<'_>,
        place: &Place<'_>,
        step: &Step,
    ) -> Result<(), PackageError> {
        let failed = |reason| {
            Err(PackageError::Install {
                what: step.what.clone(),
                last_line: reason,
            })
        };
        if let Some(uv) = self.uv.as_ref().filter(|_| step.action == Action::Install) {
            match uv.install(context, place, step)? {
                Outcome::Installed => return Ok(()),
                Outcome::Failed { reason, network } if !uv.stands_in || network || self.pip.is_none() => {
                    return failed(reason);
                }
                Outcome::Failed { reason, .. } => context.warn(&format!(
                    "uv could not install {}: {reason}; pip is tried",
                    step.what
                )),
                Outcome::NotForUv(why) => context.info(&format!(
                    "pip installs {}, because uv does not know {why}",
                    step.what
                )),
            }
        }
        match &self.pip {
            Some(pip) => pip.run(context, place, step)?.map_or(Ok(()), failed),
            None => Err(PackageError::NoInstaller {
                python: place.venv.interpreter.executable.clone(),
            }),
        }
    }
}

impl Pip {
    /// The reason why it failed, if it did.
    fn run(
        &self,
        context: &Context<'_>,
        place: &Place<'_>,
        step: &Step,
    ) -> Result<Option<String>, PackageError> {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        let version = match &*settled {
            Some(version) => version.clone(),
            None => {
                let version = pip::settle(context, place, &self.own, &self.wanted)?;
                if pip::wants_cython(place.venv) {
                    context.info("installing Cython, which old packages need to be built");
                    // Whether it is needed shows when the list is installed.
                    run_pip(context, place, &version, &cython(context))?;
                }
                settled.insert(version).clone()
            }
        };
        let failure = run_pip(context, place, &version, step)?;
        if step.name.as_deref() == Some("pip") && failure.is_none() {
            *settled = Some(pip::version_in(place.venv).unwrap_or(version));
        }
        Ok(failure)
    }
}

fn cython(context: &Context<'_>) -> Step {
    Step {
        what: "Cython".to_owned(),
        action: Action::Install,
        requirements: vec!["Cython".to_owned()],
        options: Vec::new(),
        indexes: context.settings.package_manager.extra_index_url.clone(),
        access: None,
        hg: None,
        torch_backend: None,
        name: None,
    }
}

fn run_pip(
    context: &Context<'_>,
    place: &Place<'_>,
    version: &str,
    step: &Step,
) -> Result<Option<String>, PackageError> {
    let settings = &context.settings.package_manager;
    let (options, flags) = index_options(&pip::flags(version, settings));
    let variables = ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"];
    let variables = variables.map(|name| Some((name, context.var(name)?)));
    let variables: Vec<_> = variables.into_iter().flatten().collect();
    for (_, value) in &variables {
        let found = value.split_whitespace().flat_map(secrets);
        found.for_each(|secret| context.redactor.add(&secret));
    }
    let call = step.for_pip(&own_netrc(context), &variables);
    let command = context.command(&place.venv.python).args(["-m", "pip"]);
    let command = match &step.action {
        Action::Install => command.arg("install").args(flags),
        Action::Download(folder) => command.args(["download", "--no-deps", "--dest"]).arg(folder),
    };
    let text: String = options.iter().flat_map(|line| [line, "\n"]).collect();
    let ended = run_call(
        context,
        place,
        step,
        command,
        &Call {
            text: text + &call.text,
            ..call
        },
    )?;
    Ok((!ended.status.success()).then(|| reason(&ended)))
}

/// Runs an installer on the file of a call.
pub(crate) fn run_call(
    context: &Context<'_>,
    place: &Place<'_>,
    step: &Step,
    command: Command,
    call: &Call,
) -> Result<Ended, PackageError> {
    let file = place.temp.join("requirements.txt");
    let netrc = place.temp.join("netrc");
    write_private(&file, &call.text)?;
    let mut command = quiet_tool(context, command.args(&call.flags).arg("-r").arg(&file));
    if let Some(text) = &call.netrc {
        write_private(&netrc, text)?;
        command = command.env("NETRC", &netrc);
    }
    for (name, value) in &call.env {
        command = command.env(name, value);
    }
    let ended = context.stream(&step.prepare(context, command).cwd(place.folder));
    for file in [Some(&file), call.netrc.as_ref().map(|_| &netrc)]
        .into_iter()
        .flatten()
    {
        fs::remove_file(file).map_err(at("removing", file))?;
    }
    Ok(ended?)
}

/// Installs one list. Returns what it contained.
pub(crate) fn install(
    context: &Context<'_>,
    venv: &Venv,
    installer: &Installer,
    set: &RequirementSet,
    temp: &Path,
) -> Result<Requested, PackageError> {
    let place = Place {
        venv,
        folder: &set.folder,
        temp,
    };
    let backend = if installer.is_uv() {
        Backend::Uv
    } else {
        Backend::Pip
    };
    flow::install(context, venv, set, backend, &mut |step| {
        installer.run(context, &place, step)
    })
}

/// Variables that keep installers from asking and from drawing, and none of the agent's own Python.
pub(crate) fn quiet_tool(context: &Context<'_>, command: Command) -> Command {
    // Packages from version control are fetched by git, which must not ask anybody either.
    let mut command = with_defaults(context, command);
    for (name, value) in [
        ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
        ("PIP_NO_INPUT", "1"),
        ("PIP_PROGRESS_BAR", "off"),
        ("PIP_ROOT_USER_ACTION", "ignore"),
        ("UV_NO_PROGRESS", "1"),
    ] {
        if context.var(name).is_none() {
            command = command.env(name, value);
        }
    }
    if let Some(proxy) = pip::proxy(&context.settings.package_manager.extra_pip_install_flags).0 {
        secrets(&proxy)
            .iter()
            .for_each(|secret| context.redactor.add(secret));
        for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            command = command.env(name, &proxy);
        }
    }
    ["PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX"]
        .iter()
        .fold(command, Command::env_remove)
}
