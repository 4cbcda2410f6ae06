//! Interpreters, virtual environments, and the tools that install packages.

use std::path::PathBuf;

use clearml_agent_config::PackageManager;
use clearml_env_builder::trial::try_python;
use clearml_support::command::Command;

use super::report::Section;
use super::{Answer, Scene, TOOL_LIMIT};

/// The versions of Python 3 that are looked for by name.
const MINORS: std::ops::RangeInclusive<u32> = 6..=15;

pub(super) fn check(scene: &Scene, section: &Section) {
    let manager = scene
        .settings
        .as_ref()
        .map(|settings| settings.agent.package_manager.kind);
    let uv = tool(
        scene,
        section,
        "uv",
        manager == Some(PackageManager::Uv),
        "agent.package_manager.type is uv",
    );
    environment(scene, section, uv);
    tool(
        scene,
        section,
        "conda",
        manager == Some(PackageManager::Conda),
        "agent.package_manager.type is conda",
    );
    tool(
        scene,
        section,
        "poetry",
        manager == Some(PackageManager::Poetry),
        "agent.package_manager.type is poetry",
    );
}

/// Makes the environment that a task would get, and starts its interpreter.
fn environment(scene: &Scene, section: &Section, uv: bool) {
    // Where environments are made, or else where they can't disturb anybody.
    let place = scene
        .settings
        .as_ref()
        .map(|settings| settings.agent.state_dir.clone())
        .filter(|folder| folder.is_dir())
        .unwrap_or_else(std::env::temp_dir);
    let scratch = tempfile::Builder::new()
        .prefix("doctor-")
        .tempdir_in(&place)
        .or_else(|_| tempfile::tempdir());
    let scratch = match scratch {
        Ok(scratch) => scratch,
        Err(error) => {
            section.problem(
                "virtual environment",
                format!("no scratch folder can be made in {}: {error}", place.display()),
                "make it writable, or set agent.state_dir",
            );
            return;
        }
    };
    let settings = scene.env_settings(scratch.path());
    let root = scratch.path().join("venv");
    let tried = match try_python(&settings, &scene.host(), &scene.redactor, &root) {
        Ok(tried) => tried,
        Err(error) => {
            section.problem(
                "interpreter",
                error.to_string(),
                "install Python 3, or name an interpreter with agent.python_binary",
            );
            return;
        }
    };
    let chosen = &tried.interpreter;
    section.ok(
        "interpreter",
        format!(
            "{} {} ({})",
            chosen.implementation,
            chosen.full_version(),
            chosen.executable.display()
        ),
    );
    let others = other_interpreters(scene, &chosen.series());
    if !others.is_empty() {
        section.ok(
            "further interpreters",
            format!("{}, for tasks that ask for them", others.join(", ")),
        );
    }
    let started = Command::new(&tried.python)
        .args(["-I", "-c", "import ssl, sqlite3, ctypes; print('ok')"])
        .env("PYTHONNOUSERSITE", "1")
        .timeout(TOOL_LIMIT)
        .cancel(&scene.cancel)
        .check();
    match (started, &tried.pip) {
        (Err(error), _) => section.problem(
            "virtual environment",
            format!("its interpreter does not work: {error}"),
            "is the file system mounted noexec, or the installation of Python incomplete?",
        ),
        (Ok(_), Some(pip)) => section.ok("virtual environment", format!("can be made, with pip {pip}")),
        (Ok(_), None) if uv => section.ok(
            "virtual environment",
            "can be made; the interpreter brings no pip, so packages need agent.package_manager.type: uv",
        ),
        (Ok(_), None) => section.problem(
            "virtual environment",
            "can be made, but the interpreter brings no pip and there is no uv, so no package can be installed",
            "install pip's wheel (Debian and Ubuntu: apt-get install python3-venv) or uv",
        ),
    }
}

fn other_interpreters(scene: &Scene, chosen: &str) -> Vec<String> {
    MINORS
        .map(|minor| format!("3.{minor}"))
        .filter(|series| series != chosen)
        .map(|series| format!("python{series}"))
        // A launcher of pyenv is there even for versions that are not.
        .filter(|name| matches!(scene.ask(name, &["--version"]), Answer::Said(_)))
        .collect()
}

/// Whether the tool is there and answers.
fn tool(scene: &Scene, section: &Section, name: &str, needed: bool, why: &str) -> bool {
    match scene.ask(name, &["--version"]) {
        Answer::Said(version) => {
            let place = scene.find(name).unwrap_or_else(|| PathBuf::from(name));
            let version = version.lines().next().unwrap_or_default();
            section.ok(name, format!("{version} ({})", place.display()));
            true
        }
        Answer::Missing if needed => {
            section.problem(
                name,
                format!("not on PATH, but {why}"),
                format!("install {name}, or change agent.package_manager.type"),
            );
            false
        }
        Answer::Missing => {
            section.ok(name, "not installed, and not asked for");
            false
        }
        Answer::Failed(reason) => {
            section.warning(
                name,
                format!("installed, but does not work: {reason}"),
                format!("repair or remove {name}"),
            );
            false
        }
    }
}
