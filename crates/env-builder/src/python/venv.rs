//! Creating a virtual environment without starting an interpreter.
//!
//! For CPython on Linux an environment is a folder with links to the interpreter, a `pyvenv.cfg` that
//! says where it comes from (PEP 405), and an empty `site-packages`. Other implementations need files
//! of their own next to the interpreter; they create it themselves.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use clearml_support::fs::remove_tree;

use crate::error::{FileError, at};
use crate::python::PythonError;
use crate::python::probe::{Interpreter, probe};
use crate::request::Layout;
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
    Ok(of(root, interpreter, system))
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

/// Other implementations know best what belongs into an environment. The one that is sure to have pip
/// comes first; each that fails is followed by the next.
fn by_interpreter(
    context: &Context<'_>,
    root: &Path,
    interpreter: &Interpreter,
    system: bool,
) -> Result<(), PythonError> {
    let python = &interpreter.executable;
    let mut last_line = String::new();
    for module in ["virtualenv", "venv"] {
        let mut command = context.command(python).args(["-m", module]);
        if system {
            command = command.arg("--system-site-packages");
        }
        let ended = context.stream(&command.arg(root))?;
        if ended.status.success() && root.join("bin/python").exists() {
            return Ok(());
        }
        last_line = ended.last_line();
        context.info(&format!("{module} made no environment: {last_line}"));
        undo(root)?;
    }
    Err(PythonError::Venv { last_line })
}

/// Lets uv create an environment for a version that this machine may not have yet.
pub(crate) fn by_uv(
    context: &Context<'_>,
    uv: &Path,
    root: &Path,
    version: &str,
) -> Result<Venv, PythonError> {
    let system = context.settings.package_manager.system_site_packages;
    context.info(&format!("uv makes an environment with Python {version}"));
    let mut command = context
        .command(uv)
        .args(["venv", "--no-project", "--python", version]);
    if system {
        command = command.arg("--system-site-packages");
    }
    if context.settings.layout != Layout::Run {
        // Temporary files of the build are there already.
        command = command.arg("--allow-existing");
    }
    let command = crate::packages::install::quiet_tool(context, command.arg(root));
    let command = crate::packages::uv_downloads::tell(context, command, None);
    let command = crate::packages::uv::caches(context, root, command);
    let ended = context.stream(&command)?;
    let python = root.join("bin/python");
    let made = ended.status.success().then(|| probe(context, &python)).flatten();
    let Some(interpreter) = made else {
        undo(root)?;
        return Err(PythonError::Venv {
            last_line: ended.last_line(),
        });
    };
    Ok(of(root, interpreter, system))
}

/// Removes what is left of an attempt. Where the environment is the folder of the build, its temporary files stay.
fn undo(root: &Path) -> Result<(), FileError> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(at("reading", root)(e)),
    };
    for entry in entries {
        let path = entry.map_err(at("reading", root))?.path();
        if path != root.join("tmp") {
            remove_tree(&path).map_err(at("removing", &path))?;
        }
    }
    Ok(())
}

/// An environment that somebody else has made, or an interpreter as if it were one.
pub(crate) fn existing(context: &Context<'_>, python: &Path) -> Option<Venv> {
    let interpreter = probe(context, python)?;
    let root = python.parent()?.parent()?.to_owned();
    if root.join("pyvenv.cfg").is_file() {
        let text = fs::read_to_string(root.join("pyvenv.cfg")).unwrap_or_default();
        let system = text.lines().any(|line| {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            key.trim() == "include-system-site-packages" && value.trim().eq_ignore_ascii_case("true")
        });
        return Some(of(&root, interpreter, system));
    }
    let first = interpreter.base_sites.first().cloned();
    Some(Venv {
        python: python.to_owned(),
        site_packages: first.unwrap_or_else(|| root.join(&interpreter.site_packages)),
        root,
        system_site_packages: true,
        interpreter,
    })
}

fn of(root: &Path, interpreter: Interpreter, system_site_packages: bool) -> Venv {
    Venv {
        python: root.join("bin/python"),
        site_packages: root.join(&interpreter.site_packages),
        root: root.to_owned(),
        interpreter,
        system_site_packages,
    }
}
