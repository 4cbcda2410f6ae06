//! Repositories that are projects of uv: `uv sync` makes their environment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clearml_support::command::Command;
use clearml_support::fs::read_limited;
use sha2::{Digest, Sha256};

use crate::caches;
use crate::packages::PackageError;
use crate::packages::install::quiet_tool;
use crate::packages::reason::reason;
use crate::packages::uv::caches as uv_caches;
use crate::packages::uv_downloads;
use crate::python::venv::{self, Venv};
use crate::tools::Context;

/// Lock files are smaller.
const MAX_FILE: u64 = 64 << 20;

/// The environment of a project, in `.venv` beside its files.
#[derive(Debug)]
pub(crate) struct UvProject {
    pub(crate) venv: Venv,
    pub(crate) folder: PathBuf,
    /// What starts its interpreter.
    pub(crate) command: Vec<OsString>,
    /// What the cache of environments has done for it.
    pub(crate) outcome: caches::Outcome,
}

/// What a project with a lock file is known by: all that uv goes by.
pub(crate) fn lock(context: &Context<'_>, folder: &Path) -> Option<String> {
    let settings = &context.settings.package_manager;
    let mut hash = Sha256::new();
    for name in ["uv.lock", "pyproject.toml", "uv.toml"] {
        match read_limited(&folder.join(name), MAX_FILE) {
            Ok(bytes) => hash.update(&bytes),
            Err(_) if name == "uv.lock" => return None,
            Err(_) => {}
        }
        hash.update([0]);
    }
    hash.update(settings.uv_sync_extra_args.join("\0"));
    Some(format!("{:x}", hash.finalize()))
}

/// Whether a folder has a project of uv.
pub(crate) fn is_project(folder: &Path) -> bool {
    ["pyproject.toml", "uv.lock"]
        .iter()
        .any(|name| folder.join(name).is_file())
}

/// Makes the environment of the project. `python` is any interpreter of the machine. `None`, after a line that says why, where the list of the task has
/// to serve instead.
pub(crate) fn sync(
    context: &Context<'_>,
    uv: &Path,
    folder: &Path,
    python: Option<&Path>,
) -> Result<Option<UvProject>, PackageError> {
    let settings = &context.settings.package_manager;
    let has_lock = folder.join("uv.lock").is_file();
    let insist = has_lock && settings.uv_sync_locked_if_lock_file;
    context.info(&format!("uv syncs the project in {}", folder.display()));
    let told = |locked| uv_downloads::tell(context, command(context, uv, folder, locked), python);
    let mut ended = context.stream(&told(insist))?;
    if !ended.status.success() && has_lock {
        context.warn(&format!(
            "uv sync failed, and is repeated once{}: {}",
            if insist { " without --locked" } else { "" },
            reason(&ended)
        ));
        ended = context.stream(&told(false))?;
    }
    let python = folder.join(".venv/bin/python");
    let venv = ended
        .status
        .success()
        .then(|| venv::existing(context, &python))
        .flatten();
    match venv {
        Some(venv) => {
            context.info("the project is installed by uv; the requirements of the task are not used");
            Ok(Some(UvProject {
                command: launcher(&settings.uv_run_extra_args, uv, &venv.python),
                venv,
                folder: folder.to_owned(),
                outcome: caches::Outcome::Unused,
            }))
        }
        None if has_lock => Err(PackageError::Install {
            what: format!("the project with {}", folder.join("uv.lock").display()),
            last_line: reason(&ended),
        }),
        None => {
            context.warn(&format!(
                "uv sync failed, so the list of requirements is installed: {}",
                reason(&ended)
            ));
            Ok(None)
        }
    }
}

/// The interpreter itself, which needs no uv around it, unless `uv run` has arguments to obey. Pure.
fn launcher(run_arguments: &[String], uv: &Path, python: &Path) -> Vec<OsString> {
    if run_arguments.is_empty() {
        return vec![python.into()];
    }
    let mut words: Vec<OsString> = vec![uv.into(), "run".into()];
    words.extend(run_arguments.iter().map(OsString::from));
    words.extend(["--python".into(), python.into(), "python".into()]);
    words
}

fn command(context: &Context<'_>, uv: &Path, folder: &Path, locked: bool) -> Command {
    let settings = &context.settings.package_manager;
    let mut command = context.command(uv).arg("sync");
    if locked {
        command = command.arg("--locked");
    }
    command = command.args(&settings.uv_sync_extra_args).cwd(folder);
    if !settings.extra_index_url.is_empty() {
        // They may contain passwords, and arguments can be seen by everybody.
        let own = context.var("UV_EXTRA_INDEX_URL").map(str::to_owned);
        let all: Vec<String> = own.into_iter().chain(settings.extra_index_url.clone()).collect();
        command = command.env("UV_EXTRA_INDEX_URL", all.join(" "));
    }
    let said = settings
        .uv_sync_extra_args
        .iter()
        .any(|argument| argument.starts_with("--index-strategy"));
    if settings.uv_unsafe_best_match && !said && context.var("UV_INDEX_STRATEGY").is_none() {
        command = command.env("UV_INDEX_STRATEGY", "unsafe-best-match");
    }
    // The environment is looked for in its usual place afterwards.
    uv_caches(context, folder, quiet_tool(context, command)).env_remove("UV_PROJECT_ENVIRONMENT")
}

/// Lines of a freeze with what is below the project named from there, and without comments. Pure.
pub(crate) fn relative(lines: Vec<String>, folder: &Path) -> Vec<String> {
    let own = |line: String| {
        let path = line.strip_prefix("-e ").map(Path::new)?;
        let below = path.strip_prefix(folder).ok()?;
        Some(match below.to_string_lossy().as_ref() {
            "" => "-e .".to_owned(),
            below => format!("-e {below}"),
        })
    };
    lines
        .into_iter()
        .filter(|line| !line.starts_with('#'))
        .map(|line| own(line.clone()).unwrap_or(line))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uv_run_is_there_for_its_arguments_only() {
        let (uv, python) = (Path::new("/b/uv"), Path::new("/p/.venv/bin/python"));
        assert_eq!(launcher(&[], uv, python), ["/p/.venv/bin/python"]);
        assert_eq!(
            launcher(&["--no-sync".to_owned()], uv, python),
            [
                "/b/uv",
                "run",
                "--no-sync",
                "--python",
                "/p/.venv/bin/python",
                "python"
            ]
        );
    }

    #[test]
    fn paths_of_the_project_are_relative() {
        let lines = [
            "# Editable install with no version control (p==1)",
            "-e /p",
            "-e /p/lib",
            "-e /q",
            "six==1",
        ];
        assert_eq!(
            relative(lines.map(str::to_owned).to_vec(), Path::new("/p")),
            ["-e .", "-e lib", "-e /q", "six==1"]
        );
    }
}
