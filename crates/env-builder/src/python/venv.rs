//! Creating a virtual environment without starting an interpreter.
//!
//! For CPython on Linux an environment is a folder with links to the interpreter, a `pyvenv.cfg` that
//! says where it comes from (PEP 405), and an empty `site-packages`. Other implementations need files
//! of their own next to the interpreter; they create it themselves.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::error::{FileError, at};
use crate::python::PythonError;
use crate::python::probe::Interpreter;
use crate::tools::Context;

/// A virtual environment.
#[derive(Debug, Clone)]
pub(crate) struct Venv {
    pub(crate) root: PathBuf,
    pub(crate) python: PathBuf,
    pub(crate) site_packages: PathBuf,
    pub(crate) interpreter: Interpreter,
    pub(crate) system_site_packages: bool,
}

/// Creates an environment at `root`, which does not exist yet.
pub(crate) fn create(
    context: &Context<'_>,
    root: &Path,
    interpreter: Interpreter,
) -> Result<Venv, PythonError> {
    let system = context.settings.package_manager.system_site_packages;
    if interpreter.implementation == "cpython" {
        in_process(root, &interpreter, system)?;
    } else {
        by_interpreter(context, root, &interpreter, system)?;
    }
    Ok(Venv {
        python: root.join("bin/python"),
        site_packages: root.join(&interpreter.site_packages),
        root: root.to_owned(),
        interpreter,
        system_site_packages: system,
    })
}

fn in_process(root: &Path, interpreter: &Interpreter, system: bool) -> Result<(), FileError> {
    let bin = root.join("bin");
    let site = root.join(&interpreter.site_packages);
    for folder in [&bin, &site, &root.join("include")] {
        fs::create_dir_all(folder).map_err(at("creating", folder))?;
    }
    let link = |target: &Path, name: &Path| symlink(target, name).map_err(at("creating", name));
    link(&interpreter.executable, &bin.join("python"))?;
    link(Path::new("python"), &bin.join("python3"))?;
    link(
        Path::new("python"),
        &bin.join(format!("python{}", interpreter.series())),
    )?;
    let lib64 = root.join("lib64");
    if cfg!(target_pointer_width = "64") && !lib64.exists() {
        link(Path::new("lib"), &lib64)?;
    }
    let home = interpreter.executable.parent().unwrap_or(Path::new("/"));
    let config = format!(
        "home = {}\ninclude-system-site-packages = {system}\nversion = {}\nexecutable = {}\n",
        home.display(),
        interpreter.full_version(),
        interpreter.executable.display(),
    );
    write(&root.join("pyvenv.cfg"), &config)?;
    write(&bin.join("activate"), &activate(root))
}

fn write(path: &Path, text: &str) -> Result<(), FileError> {
    fs::write(path, text).map_err(at("writing", path))
}

/// For people who look into the folder of a run; the agent itself sets the variables directly.
fn activate(root: &Path) -> String {
    let text = root.to_string_lossy();
    let quoted = shlex::try_quote(&text).unwrap_or_default();
    format!(
        "# Use with `. bin/activate`.\nVIRTUAL_ENV={quoted}\nexport VIRTUAL_ENV\n\
         PATH=\"$VIRTUAL_ENV/bin:$PATH\"\nexport PATH\nunset PYTHONHOME\n"
    )
}

fn by_interpreter(
    context: &Context<'_>,
    root: &Path,
    interpreter: &Interpreter,
    system: bool,
) -> Result<(), PythonError> {
    let mut command = context
        .command(&interpreter.executable)
        .args(["-m", "venv", "--without-pip"]);
    if system {
        command = command.arg("--system-site-packages");
    }
    let ended = context.stream(&command.arg(root))?;
    if !ended.status.success() || !root.join("bin/python").exists() {
        return Err(PythonError::Venv {
            last_line: ended.last_line(),
        });
    }
    Ok(())
}
