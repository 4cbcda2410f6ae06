//! Running pip or uv. Secrets and lists go in a private file, never in arguments.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use clearml_support::command::Command;
use clearml_support::fs::create_private_file;

use crate::code::git::with_defaults;
use crate::error::at;
use crate::packages::lines::{Prepared, prepare};
use crate::packages::{PackageError, RequirementSet};
use crate::python::venv::Venv;
use crate::request::PackageManagerKind;
use crate::tools::{Context, Ended, is_true};

/// What installs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Installer {
    /// The pip of the environment, of this version.
    Pip(String),
    /// This uv.
    Uv(PathBuf),
}

/// Chooses the installer. Without pip in the environment, uv serves even if it was not asked for.
pub(crate) fn choose(
    context: &Context<'_>,
    venv: &Venv,
    pip: Option<String>,
) -> Result<Installer, PackageError> {
    let settings = &context.settings.package_manager;
    let named = settings
        .uv_binary
        .as_ref()
        .map(|path| path.to_string_lossy().into_owned());
    let find_uv = || context.find_program(named.as_deref().unwrap_or("uv"));
    let forced = context.var("CLEARML_AGENT_FORCE_UV").is_some_and(is_true);
    let uv_wanted = settings.kind == PackageManagerKind::Uv || settings.uv_replace_pip || forced;
    if uv_wanted {
        match find_uv() {
            Some(uv) => return Ok(Installer::Uv(uv)),
            None => context.warn("uv is configured but is not on PATH; pip is used instead"),
        }
    }
    if let Some(version) = pip {
        return Ok(Installer::Pip(version));
    }
    find_uv()
        .map(Installer::Uv)
        .ok_or_else(|| PackageError::NoInstaller {
            python: venv.interpreter.executable.clone(),
        })
}

/// Installs one list. Returns what it contained.
pub(crate) fn install(
    context: &Context<'_>,
    venv: &Venv,
    installer: &Installer,
    set: &RequirementSet,
    temp: &Path,
) -> Result<Prepared, PackageError> {
    let prepared = prepare(&set.text, &set.folder);
    for warning in &prepared.warnings {
        context.warn(&format!("{}: {warning}", set.what));
    }
    if prepared.lines.is_empty() {
        context.info(&format!("{}: nothing to install", set.what));
        return Ok(prepared);
    }
    let file = temp.join("requirements.txt");
    write_list(context, &file, &prepared)?;
    context.info(&format!("installing {}", set.what));
    let command = command(context, venv, installer, &file).cwd(&set.folder);
    let ended = context.stream(&command);
    fs::remove_file(&file).map_err(at("removing", &file))?;
    let ended = ended?;
    if ended.status.success() {
        return Ok(prepared);
    }
    context.error("these requirements could not be installed:");
    prepared.lines.iter().for_each(|line| context.error(line));
    Err(PackageError::Install {
        what: set.what.clone(),
        last_line: reason(&ended),
    })
}

fn write_list(context: &Context<'_>, file: &Path, prepared: &Prepared) -> Result<(), PackageError> {
    let mut text = String::new();
    for url in &context.settings.package_manager.extra_index_url {
        text.push_str(&format!("--extra-index-url {url}\n"));
    }
    for line in &prepared.lines {
        text.push_str(line);
        text.push('\n');
    }
    create_private_file(file)
        .and_then(|mut f| f.write_all(text.as_bytes()))
        .map_err(at("writing", file))?;
    Ok(())
}

fn command(context: &Context<'_>, venv: &Venv, installer: &Installer, file: &Path) -> Command {
    let settings = &context.settings.package_manager;
    let mut flags: Vec<String> = settings.extra_pip_install_flags.clone();
    let command = match installer {
        Installer::Pip(version) => {
            if legacy_resolver(version, &settings.pip_legacy_resolver) {
                flags.insert(0, "--use-deprecated=legacy-resolver".to_owned());
            }
            context.command(&venv.python).args(["-m", "pip", "install"])
        }
        Installer::Uv(uv) => {
            flags.retain(|flag| !flag.starts_with("--use-deprecated"));
            if settings.uv_unsafe_best_match && context.var("UV_INDEX_STRATEGY").is_none() {
                flags.push("--index-strategy=unsafe-best-match".to_owned());
            }
            context
                .command(uv)
                .args(["pip", "install", "--python"])
                .arg(&venv.python)
        }
    };
    if settings.force_upgrade {
        flags.push("--upgrade".to_owned());
    }
    // Packages from version control are fetched by git, which must not ask anybody either.
    let mut command = with_defaults(context, command.args(flags).arg("-r").arg(file));
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
    // Variables of the agent's own Python must not reach the one of the task.
    ["PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX"]
        .iter()
        .fold(command, Command::env_remove)
}

/// Whether a pip version falls into one of the ranges (`>=20.3,<24.3`) of the legacy resolver, which
/// accepts lists that contradict themselves, as frozen ones do. Pure.
fn legacy_resolver(version: &str, ranges: &[String]) -> bool {
    let release = |text: &str| -> Option<Vec<u32>> {
        let mut parts = text
            .trim()
            .split('.')
            .map(str::parse)
            .collect::<Result<Vec<u32>, _>>()
            .ok()?;
        while parts.last() == Some(&0) {
            parts.pop();
        }
        Some(parts)
    };
    let holds = |condition: &str| -> Option<bool> {
        let condition = condition.trim();
        let at = condition.find(|c: char| c.is_ascii_digit())?;
        let (have, want) = (release(version)?, release(&condition[at..])?);
        Some(match condition[..at].trim() {
            ">=" => have >= want,
            "<=" => have <= want,
            ">" => have > want,
            "<" => have < want,
            "==" => have == want,
            "!=" => have != want,
            _ => return None,
        })
    };
    ranges
        .iter()
        .any(|range| range.split(',').all(|condition| holds(condition) == Some(true)))
}

/// What the installer gives as the reason: pip has one line for it; uv names the cause after the
/// error, and older versions draw both over several lines.
fn reason(ended: &Ended) -> String {
    let trimmed = || ended.tail.iter().map(|line| line.trim_start());
    if let Some(cause) = trimmed().find_map(|line| line.strip_prefix("cause: ")) {
        return cause.to_owned();
    }
    let words: Vec<&str> = trimmed()
        .skip_while(|line| !line.starts_with('×'))
        .flat_map(str::split_whitespace)
        .filter(|word| !matches!(*word, "×" | "╰─▶" | "├─▶" | "│"))
        .take(80)
        .collect();
    if words.is_empty() {
        ended.last_line()
    } else {
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_resolver_ranges() {
        let default = [">=20.3,<24.3".to_owned()];
        for (version, expected) in [
            ("22.2.2", true),
            ("20.3", true),
            ("24.3", false),
            ("24.3.1", false),
            ("19.3", false),
            ("x", false),
        ] {
            assert_eq!(legacy_resolver(version, &default), expected, "{version}");
        }
        assert!(!legacy_resolver("22.0", &[]));
        assert!(!legacy_resolver("22.0", &["~=22".to_owned()]));
    }
}
