//! Giving an environment its pip.
//!
//! User code calls pip, and so do we. The wheel that comes with the interpreter is unpacked and
//! compiled once per interpreter under the caches folder; each environment gets hard links to it,
//! which takes milliseconds. The files are read-only: installers replace files, they don't change them.
//!
//! An environment that sees the packages of the interpreter, as those in containers do, has a pip already when the
//! interpreter has one. It only gets the commands, which work on the environment.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clearml_support::fs::{create_private_dir, remove_tree, sync_filesystem};
use clearml_support::id::hex32;
use pep440_rs::Version;

use crate::code::transfer::link_or_copy;
use crate::error::{FileError, at};
use crate::packages::pip::{base_version, own_version};
use crate::python::PythonError;
use crate::python::venv::Venv;
use crate::tools::Context;

const UNPACK: &str = "import compileall, sys, zipfile
zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2])
compileall.compile_dir(sys.argv[2], quiet=2)";
/// What the file name of pip's wheel has behind the version.
const WHEEL_TAGS: &str = "-py3-none-any-";
const TIMEOUT: Duration = Duration::from_secs(120);

/// Puts pip into the environment, unless whoever made it has done so. Returns its version, or `None` when the
/// interpreter brings none.
pub(crate) fn seed(context: &Context<'_>, venv: &Venv) -> Result<Option<String>, PythonError> {
    if let Some(there) = own_version(venv) {
        return Ok(Some(there));
    }
    if let Some(there) = base_version(venv) {
        put_commands(venv)?;
        return Ok(Some(there));
    }
    let Some(wheel) = &venv.interpreter.pip_wheel else {
        return Ok(None);
    };
    let stem = wheel
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default();
    let version = stem.split('-').nth(1).unwrap_or_default().to_owned();
    let unpacked = unpacked(context, venv, wheel, &stem)?;
    put(venv, &unpacked)?;
    Ok(Some(version))
}

fn put(venv: &Venv, unpacked: &Path) -> Result<(), FileError> {
    link_tree(unpacked, &venv.site_packages)?;
    put_commands(venv)
}

fn put_commands(venv: &Venv) -> Result<(), FileError> {
    for name in [
        "pip".to_owned(),
        "pip3".to_owned(),
        format!("pip{}", venv.interpreter.series()),
    ] {
        let path = venv.root.join("bin").join(name);
        fs::write(&path, script(&venv.python)).map_err(at("writing", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(at("changing", &path))?;
    }
    Ok(())
}

/// The latest kept pip that is allowed, and its folder.
pub(crate) fn kept(
    context: &Context<'_>,
    venv: &Venv,
    allowed: &dyn Fn(&str) -> bool,
) -> Option<(String, PathBuf)> {
    let end = format!("{WHEEL_TAGS}{}", venv.interpreter.cache_tag);
    // A cache that can't be read is an empty one.
    let versions = fs::read_dir(parent(context))
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = entry.file_name();
            let version = name.to_str()?.strip_prefix("pip-")?.strip_suffix(&end)?;
            let order = Version::from_str(version).ok()?;
            allowed(version).then(|| (order, version.to_owned(), entry.path()))
        });
    let (_, version, folder) = versions.max_by(|a, b| a.0.cmp(&b.0))?;
    folder
        .join("pip/__main__.py")
        .is_file()
        .then_some((version, folder))
}

/// A new empty folder for a pip that is going to be kept.
pub(crate) fn staging(context: &Context<'_>) -> Result<PathBuf, PythonError> {
    let parent = parent(context);
    create_private_dir(&parent).map_err(at("creating", &parent))?;
    let staging = parent.join(format!(".{}", hex32()));
    create_private_dir(&staging).map_err(at("creating", &staging))?;
    Ok(staging)
}

/// Keeps the pip that was installed into `staging`; its version and its folder.
pub(crate) fn keep(venv: &Venv, staging: &Path) -> Result<(String, PathBuf), PythonError> {
    let version = entries(staging)?
        .iter()
        .find_map(|(path, _)| {
            let name = path.file_name()?.to_str()?;
            let version = name.strip_prefix("pip-")?.strip_suffix(".dist-info")?;
            Some(version.to_owned())
        })
        .ok_or_else(|| PythonError::Venv {
            last_line: format!("no pip in {}", staging.display()),
        })?;
    // Scripts with the path of the interpreter that has installed it.
    let scripts = staging.join("bin");
    remove_tree(&scripts).map_err(at("removing", &scripts))?;
    let name = format!("pip-{version}{WHEEL_TAGS}{}", venv.interpreter.cache_tag);
    let target = staging.with_file_name(name);
    finish(staging, &target)?;
    Ok((version, target))
}

/// Replaces the pip of an environment.
pub(crate) fn exchange(venv: &Venv, folder: &Path) -> Result<(), PythonError> {
    for (path, _) in entries(&venv.site_packages)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name == "pip" || name.starts_with("pip-") && name.ends_with(".dist-info") {
            remove_tree(&path).map_err(at("removing", &path))?;
        }
    }
    Ok(put(venv, folder)?)
}

fn parent(context: &Context<'_>) -> PathBuf {
    context.settings.caches_dir.join("pip")
}

/// The unpacked wheel in the cache; made if it is not there.
fn unpacked(context: &Context<'_>, venv: &Venv, wheel: &Path, stem: &str) -> Result<PathBuf, PythonError> {
    let parent = parent(context);
    let target = parent.join(format!("{stem}-{}", venv.interpreter.cache_tag));
    if target.join("pip/__main__.py").is_file() {
        return Ok(target);
    }
    create_private_dir(&parent).map_err(at("creating", &parent))?;
    let staging = parent.join(format!(".{}", hex32()));
    context
        .command(&venv.interpreter.executable)
        .args(["-I", "-c", UNPACK])
        .args([wheel, staging.as_path()])
        .timeout(TIMEOUT)
        .check()?;
    let info = staging.join(format!(
        "{}.dist-info",
        stem.split('-').take(2).collect::<Vec<_>>().join("-")
    ));
    let installer = info.join("INSTALLER");
    fs::write(&installer, "pip\n").map_err(at("writing", &installer))?;
    list_in_record(&info, "INSTALLER")?;
    finish(&staging, &target)?;
    Ok(target)
}

/// Adds a file to the list of what belongs to the package: whoever replaces pip removes what is listed, and a
/// folder that is left over would be taken for a second pip.
fn list_in_record(info: &Path, name: &str) -> Result<(), PythonError> {
    let record = info.join("RECORD");
    let mut lines = fs::read_to_string(&record).map_err(at("reading", &record))?;
    if !lines.ends_with('\n') {
        lines.push('\n');
    }
    let folder = info.file_name().unwrap_or_default().to_string_lossy();
    lines.push_str(&format!("{folder}/{name},,\n"));
    fs::write(&record, lines).map_err(at("writing", &record))?;
    Ok(())
}

/// Gives an unpacked pip its final name.
fn finish(staging: &Path, target: &Path) -> Result<(), PythonError> {
    make_read_only(staging)?;
    // Once per interpreter. Under its final name it is trusted for ever, also after a power failure.
    sync_filesystem(staging).map_err(at("writing", staging))?;
    match fs::rename(staging, target) {
        // Somebody else was faster; theirs is as good.
        Err(_) if target.join("pip/__main__.py").is_file() => {
            remove_tree(staging).map_err(at("removing", staging))?;
        }
        result => result.map_err(at("renaming", staging))?,
    }
    Ok(())
}

fn make_read_only(folder: &Path) -> Result<(), FileError> {
    for entry in entries(folder)? {
        if entry.1 {
            make_read_only(&entry.0)?;
        } else {
            fs::set_permissions(&entry.0, fs::Permissions::from_mode(0o444))
                .map_err(at("changing", &entry.0))?;
        }
    }
    Ok(())
}

fn link_tree(from: &Path, to: &Path) -> Result<(), FileError> {
    match fs::create_dir(to) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(at("creating", to)(e)),
        _ => {}
    }
    for (path, is_folder) in entries(from)? {
        let Some(name) = path.file_name() else { continue };
        if is_folder {
            link_tree(&path, &to.join(name))?;
        } else {
            link_or_copy(&path, &to.join(name))?;
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<(PathBuf, bool)>, FileError> {
    fs::read_dir(folder)
        .and_then(|entries| {
            entries
                .map(|entry| entry.and_then(|entry| Ok((entry.path(), entry.file_type()?.is_dir()))))
                .collect()
        })
        .map_err(at("reading", folder))
}

/// A script that starts pip with the interpreter of its environment. The kernel's limit for the first
/// line, and blanks in it, are avoided by going through the shell, which ignores what Python reads.
fn script(python: &Path) -> String {
    let python = python.to_string_lossy();
    let first = if python.len() < 120 && !python.contains(char::is_whitespace) {
        format!("#!{python}\n")
    } else {
        format!("#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n")
    };
    format!("{first}import sys\nfrom pip._internal.cli.main import main\nsys.exit(main())\n")
}
