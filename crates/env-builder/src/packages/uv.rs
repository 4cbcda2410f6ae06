//! uv: finding it, and installing lists with it as pip would.
//!
//! uv is an order of magnitude faster than pip. As an installer of pip's lists it must lead to the same
//! packages, so it looks at all indexes for the best version, it is told what pip is configured to do, and
//! a list that it can't resolve is given to pip, which has the last word.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clearml_support::command::Command;
use pep440_rs::{Version, VersionSpecifiers};

use crate::packages::install::{Place, run_call};
use crate::packages::pip::{index_options, proxy, versioned};
use crate::packages::pip_config::{self, PipConfig};
use crate::packages::reason::reason;
use crate::packages::requirements::step::{Call, Step};
use crate::packages::{PackageError, install_tool};
use crate::python::probe::Interpreter;
use crate::python::venv::Venv;
use crate::request::{PackageManagerKind, PipBackend};
use crate::tools::{Context, is_true};

const TIMEOUT: Duration = Duration::from_secs(30);

/// uv as an installer of lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uv {
    pub(crate) program: PathBuf,
    config: PipConfig,
    arguments: Vec<String>,
    /// Whether it stands in for pip, so that pip is asked when it fails.
    pub(crate) stands_in: bool,
}

/// How an installation by uv ended, if it ran.
pub(crate) enum Outcome {
    Installed,
    /// It did not: the reason, and whether that is the network.
    Failed {
        reason: String,
        network: bool,
    },
    /// It was not asked, because only pip understands this.
    NotForUv(String),
}

/// Whether the configuration names uv as the package manager.
pub(crate) fn is_wanted(context: &Context<'_>) -> bool {
    let forced = context.var("CLEARML_AGENT_FORCE_UV").is_some_and(is_true);
    context.settings.package_manager.kind == PackageManagerKind::Uv || forced
}

/// The uv that is there: the configured one, else the first on `PATH`.
pub(crate) fn find(context: &Context<'_>) -> Option<PathBuf> {
    let settings = &context.settings.package_manager;
    let named = context.var("CLEARML_BOOTSTRAP_UV_EXEC").map(PathBuf::from);
    match named.or_else(|| settings.uv_binary.clone()) {
        Some(named) => context.find_program(&named.to_string_lossy()),
        None => context.find_program("uv"),
    }
}

/// A uv of the wanted version: the one that is there, or one in an environment of its own.
pub(crate) fn obtain(context: &Context<'_>, by_task: Option<&str>, python: &Interpreter) -> Option<PathBuf> {
    let settings = &context.settings.package_manager;
    let configured = || {
        settings
            .uv_version
            .as_deref()
            .filter(|text| !text.trim().is_empty())
    };
    let spec = match by_task.filter(|spec| !spec.is_empty()) {
        Some(spec) => format!("uv{spec}"),
        None => configured().map_or_else(|| "uv".to_owned(), |item| versioned("uv", item)),
    };
    let there = find(context);
    if let Some(uv) = there.as_ref().filter(|uv| has_version(context, uv, &spec[2..])) {
        return Some(uv.clone());
    }
    if there.is_none() && (settings.uv_binary.is_some() || context.var("CLEARML_BOOTSTRAP_UV_EXEC").is_some())
    {
        context.warn("uv is configured but is not there; pip is used instead");
        return None;
    }
    match install_tool::install(context, python, "uv", &spec) {
        Ok(uv) => Some(uv),
        Err(error) => {
            context.warn(&format!(
                "uv is configured but is not on PATH, and {spec} can't be installed: {error}; pip is used instead"
            ));
            None
        }
    }
}

fn has_version(context: &Context<'_>, uv: &Path, range: &str) -> bool {
    if range.is_empty() {
        return true;
    }
    let output = context.command(uv).arg("--version").timeout(TIMEOUT).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let version = text.ok().and_then(|text| {
        let word = text.split_whitespace().nth(1)?;
        Version::from_str(word).ok()
    });
    match (version, VersionSpecifiers::from_str(range)) {
        (Some(version), Ok(range)) => range.contains(&version),
        _ => false,
    }
}

impl Uv {
    /// The uv that installs the lists of this environment, if one shall. `wanted` is the one of a build
    /// whose package manager is uv.
    pub(crate) fn choose(
        context: &Context<'_>,
        venv: &Venv,
        wanted: Option<PathBuf>,
        has_pip: bool,
    ) -> Option<Self> {
        let settings = &context.settings.package_manager;
        let instead = settings.uv_replace_pip || settings.pip_backend == PipBackend::Uv || !has_pip;
        if wanted.is_none() && !instead && settings.pip_backend != PipBackend::Auto {
            return None;
        }
        let stands_in = wanted.is_none() && !instead;
        let program = match wanted.or_else(|| find(context)) {
            Some(program) => program,
            None if instead && has_pip => {
                context.warn("uv is configured but is not on PATH; pip is used instead");
                return None;
            }
            None => return None,
        };
        match Self::with(context, venv, program, stands_in) {
            Ok(uv) => Some(uv),
            Err(why) => {
                context.info(&format!(
                    "packages are installed by pip, not by uv, because {why}"
                ));
                None
            }
        }
    }

    /// Fails with the reason why it can't stand in for pip.
    fn with(context: &Context<'_>, venv: &Venv, program: PathBuf, stands_in: bool) -> Result<Self, String> {
        let settings = &context.settings.package_manager;
        let config = pip_config::read(context);
        let flags = proxy(&settings.extra_pip_install_flags).1;
        let arguments = pip_config::arguments(&flags);
        if !stands_in {
            return Ok(Self {
                program,
                config: config.unwrap_or_default(),
                arguments: arguments.unwrap_or(flags),
                stands_in,
            });
        }
        if venv.interpreter.implementation != "cpython" || venv.interpreter.version < [3, 8, 0] {
            return Err("this interpreter is not one that uv knows".to_owned());
        }
        if venv.system_site_packages {
            return Err("only pip counts the packages of the interpreter itself".to_owned());
        }
        let config = config.map_err(|key| format!("pip is configured with {key}"))?;
        let arguments = arguments.map_err(|flag| {
            let name = flag.split('=').next().unwrap_or_default();
            format!("{name} is among the arguments of pip")
        })?;
        Ok(Self {
            program,
            config,
            arguments,
            stands_in,
        })
    }

    /// Carries out one step.
    pub(crate) fn install(
        &self,
        context: &Context<'_>,
        place: &Place<'_>,
        step: &Step,
    ) -> Result<Outcome, PackageError> {
        if let Some(why) = step.pip_only().filter(|_| self.stands_in) {
            return Ok(Outcome::NotForUv(why));
        }
        let call = step.for_uv();
        let (options, arguments) = index_options(&self.arguments);
        let own_index = |line: &str| line.starts_with("-i") || line.starts_with("--index-url");
        let replaced = call.text.lines().any(own_index);
        let config = self
            .config
            .lines
            .iter()
            .filter(|line| !replaced || !own_index(line));
        let text: String = config.chain(&options).flat_map(|line| [line, "\n"]).collect();
        let mut command = context
            .command(&self.program)
            .args(["pip", "install", "--python"])
            .arg(&place.venv.python)
            .args(self.strategy(context, &call.flags))
            .args(&arguments)
            .args(&self.config.arguments);
        if context.settings.package_manager.force_upgrade {
            command = command.arg("--upgrade");
        }
        for (name, value) in &self.config.variables {
            if context.var(name).is_none() {
                command = command.env(name, value);
            }
        }
        let command = caches(context, &place.venv.root, command);
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
        if ended.status.success() {
            return Ok(Outcome::Installed);
        }
        Ok(Outcome::Failed {
            network: ended.tail.iter().any(|line| is_network(line)),
            reason: reason(&ended),
        })
    }

    /// Where versions are looked for.
    fn strategy(&self, context: &Context<'_>, more: &[String]) -> Vec<&'static str> {
        let mut out = Vec::new();
        let best = self.stands_in || context.settings.package_manager.uv_unsafe_best_match;
        let said = |name: &str| {
            self.arguments
                .iter()
                .chain(more)
                .any(|flag| flag.starts_with(name))
        };
        if best && context.var("UV_INDEX_STRATEGY").is_none() && !said("--index-strategy") {
            out.push("--index-strategy=unsafe-best-match");
        }
        if self.stands_in && !said("--prerelease") {
            out.push("--prerelease=if-necessary-or-explicit");
        }
        out
    }
}

/// Tells uv where its cache is, unless it has been told. `target` is where it links files to.
pub(crate) fn caches(context: &Context<'_>, target: &Path, mut command: Command) -> Command {
    let configured = context.settings.package_manager.uv_cache_dir.clone();
    let Some(cache) = configured.filter(|_| context.var("UV_CACHE_DIR").is_none()) else {
        return command;
    };
    let device = |path: &Path| {
        path.ancestors()
            .find_map(|path| Some(fs::metadata(path).ok()?.dev()))
    };
    if context.var("UV_LINK_MODE").is_none() && device(&cache) != device(target) {
        command = command.env("UV_LINK_MODE", "copy");
    }
    command.env("UV_CACHE_DIR", cache)
}

fn is_network(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    [
        "error sending request",
        "connection refused",
        "connection reset",
        "dns error",
        "network",
        "operation timed out",
        "tcp connect error",
        "certificate",
    ]
    .iter()
    .any(|phrase| line.contains(phrase))
}
