//! Giving an environment its pip.
//!
//! User code calls pip, and so do we. The wheel that comes with the interpreter is unpacked and
//! compiled once per interpreter under the caches folder; each environment gets hard links to it,
//! which takes milliseconds. The files are read-only: installers replace files, they don't change them.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clearml_support::fs::{create_private_dir, sync_filesystem};
use clearml_support::id::hex32;

use crate::code::transfer::link_or_copy;
use crate::error::{FileError, at};
use crate::python::PythonError;
use crate::python::venv::Venv;
use crate::tools::Context;

const UNPACK: &str = "import compileall, sys, zipfile
zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2])
compileall.compile_dir(sys.argv[2], quiet=2)";
const TIMEOUT: Duration = Duration::from_secs(120);

/// Puts pip into the environment. Returns its version, or `None` when the interpreter brings none.
pub(crate) fn seed(context: &Context<'_>, venv: &Venv) -> Result<Option<String>, PythonError> {
    let Some(wheel) = &venv.interpreter.pip_wheel else {
        return Ok(None);
    };
    let stem = wheel
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default();
    let version = stem.split('-').nth(1).unwrap_or_default().to_owned();
    let unpacked = unpacked(context, venv, wheel, &stem)?;
    link_tree(&unpacked, &venv.site_packages)?;
    for name in [
        "pip".to_owned(),
        "pip3".to_owned(),
        format!("pip{}", venv.interpreter.series()),
    ] {
        let path = venv.root.join("bin").join(name);
        fs::write(&path, script(&venv.python)).map_err(at("writing", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(at("changing", &path))?;
    }
    Ok(Some(version))
}

/// The unpacked wheel in the cache; made if it is not there.
fn unpacked(context: &Context<'_>, venv: &Venv, wheel: &Path, stem: &str) -> Result<PathBuf, PythonError> {
    let parent = context.settings.caches_dir.join("pip");
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
    make_read_only(&staging)?;
    // Once per interpreter. Under its final name it is trusted for ever, also after a power failure.
    sync_filesystem(&staging).map_err(at("writing", &staging))?;
    match fs::rename(&staging, &target) {
        // Somebody else was faster; theirs is as good.
        Err(_) if target.join("pip/__main__.py").is_file() => {
            fs::remove_dir_all(&staging).map_err(at("removing", &staging))?;
        }
        result => result.map_err(at("renaming", &staging))?,
    }
    Ok(target)
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
