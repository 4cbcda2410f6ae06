//! What the image may lack: git, an interpreter, and keys of the agent's user.
//!
//! Nothing is installed unless it is missing, or asked for.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clearml_support::command::Command;
use clearml_task_model::Task;
use serde::{Deserialize, Serialize};

use super::official::with_pip;

/// The longest that a package manager may take.
const LIMIT: Duration = Duration::from_secs(1800);
/// How deep folders of keys may be.
const MAX_DEPTH: u32 = 8;

/// What is to be seen to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Tools {
    /// Install the libraries that OpenCV needs.
    pub(crate) opencv: bool,
    /// There has to be an interpreter with pip.
    #[serde(default)]
    pub(crate) pip: bool,
    /// Folders of keys: where they are mounted, and where programs look for them.
    pub(crate) keys: Vec<(String, String)>,
}

impl Tools {
    /// Sees to it. The error names what is missing.
    ///
    /// `asked` lists the packages that were asked for before in this container: they are not tried again. `saved` is
    /// where to put what keys replace, if they are to be taken back later.
    pub(super) fn provide(
        &self,
        task: &Task,
        asked: &Path,
        saved: Option<&Path>,
        say: &mut dyn FnMut(&str),
    ) -> Result<(), String> {
        self.bring_keys(saved, say);
        let missing = missing(task, self.pip);
        let mut wanted = self.asked_for();
        let before = std::fs::read_to_string(asked).unwrap_or_default();
        wanted.retain(|package| before.split_whitespace().all(|known| known != package));
        if !wanted.is_empty()
            && let Err(e) = std::fs::write(asked, format!("{before} {}", wanted.join(" ")))
        {
            say(&format!("Warning: noting what is installed: {e}"));
        }
        wanted.extend(missing.iter().map(|tool| tool.package.to_owned()));
        if !wanted.is_empty() {
            let failed = install(&wanted, say).err();
            let still = missing.iter().filter(|tool| !(tool.is_there)());
            let still: Vec<&str> = still.map(|tool| tool.what).collect();
            let why = failed.as_deref().unwrap_or("the package brings no such program");
            if !still.is_empty() {
                return Err(format!(
                    "the image has no {}, and it could not be installed: {why}; use an image that has it, or a setup \
                     script that installs it",
                    still.join(" and no ")
                ));
            }
            if failed.is_some() {
                say(&format!(
                    "Warning: not all of {} is installed: {why}",
                    wanted.join(" ")
                ));
            }
        }
        free_interpreters();
        Ok(())
    }

    /// What is installed whether it is there or not.
    fn asked_for(&self) -> Vec<String> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let asked = ["CLEARML_APT_INSTALL", "TRAINS_APT_INSTALL"]
            .into_iter()
            .find_map(variable);
        let mut wanted: Vec<String> = asked
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        if self.opencv {
            wanted.extend(["libsm6", "libxext6", "libxrender-dev", "libglib2.0-0"].map(str::to_owned));
        }
        wanted
    }

    fn bring_keys(&self, saved: Option<&Path>, say: &mut dyn FnMut(&str)) {
        // They are there already, and what they replace must not be replaced by themselves.
        let again = saved.is_some_and(Path::is_dir);
        for (from, to) in self.keys.iter().filter(|_| !again) {
            let to = at_home(to);
            if Path::new(from).is_dir()
                && let Err(e) = copy_keys(Path::new(from), &to, saved, 0)
            {
                say(&format!(
                    "Warning: copying {from} to {} failed: {e}",
                    to.display()
                ));
            }
        }
    }

    /// Removes the keys again, and puts back what was there before them.
    pub(super) fn take_back(&self, saved: &Path) -> io::Result<()> {
        for (from, to) in &self.keys {
            let from = Path::new(from);
            if from.is_dir() {
                remove_keys(from, &at_home(to), saved, 0)?;
            }
        }
        Ok(())
    }
}

struct Tool {
    what: &'static str,
    package: &'static str,
    is_there: fn() -> bool,
}

fn missing(task: &Task, pip: bool) -> Vec<Tool> {
    let script = task.script.as_ref();
    let repository = script.and_then(|script| script.repository.as_deref());
    let git = Tool {
        what: "git, which the repository of the task needs",
        package: "git",
        is_there: || on_path(|name| name == "git"),
    };
    let python = Tool {
        what: "Python",
        package: "python3-pip",
        is_there: || {
            let preset = std::env::var_os("LOCAL_PYTHON").is_some_and(|python| !python.is_empty());
            preset || on_path(|name| name == "python3" || name == "python" || name.starts_with("python3."))
        },
    };
    let with_pip = Tool {
        what: "Python with pip, which installs the official agent",
        package: "python3-pip",
        is_there: || with_pip().is_some(),
    };
    let mut tools = vec![if pip { with_pip } else { python }];
    if repository.is_some_and(|repository| !repository.trim().is_empty()) {
        tools.push(git);
    }
    tools.retain(|tool| !(tool.is_there)());
    tools
}

fn on_path(wanted: impl Fn(&str) -> bool) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .flatten()
        .any(|entry| entry.file_name().to_str().is_some_and(&wanted))
}

/// By apt, or else by dnf.
fn install(packages: &[String], say: &mut dyn FnMut(&str)) -> Result<(), String> {
    let keep = Path::new("/etc/apt/apt.conf.d/docker-clean");
    if keep.parent().is_some_and(Path::is_dir) {
        // Images throw packages away that the mounted cache shall keep.
        let text = "Binary::apt::APT::Keep-Downloaded-Packages \"true\";\n";
        let _not_permitted = std::fs::write(keep, text);
    }
    let mut run = |program: &str, arguments: &[&str], packages: &[String]| {
        let command = Command::new(program)
            .args(arguments)
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .timeout(LIMIT);
        match command.run_streamed(&mut *say) {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{program} failed ({status})")),
            Err(e) => Err(e.to_string()),
        }
    };
    // Lists that can't be read may be there already.
    let _old_lists = run("apt-get", &["update"], &[]);
    let Err(by_apt) = run("apt-get", &["install", "-y", "--"], packages) else {
        return Ok(());
    };
    run("dnf", &["install", "-y", "--"], packages).map_err(|by_dnf| format!("{by_apt}; {by_dnf}"))
}

/// Lets `pip install` of scripts work: a container is nobody's system.
fn free_interpreters() {
    for entry in std::fs::read_dir("/usr/lib").into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("python3") {
            let _none_or_not_permitted = std::fs::remove_file(entry.path().join("EXTERNALLY-MANAGED"));
        }
    }
}

fn at_home(path: &str) -> PathBuf {
    let home = std::env::var_os("HOME").unwrap_or_else(|| "/".into());
    match path.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            PathBuf::from(home).join(rest.trim_start_matches('/'))
        }
        _ => path.into(),
    }
}

/// Copies files so that only this user may read them, as programs want keys to be.
fn copy_keys(from: &Path, to: &Path, saved: Option<&Path>, depth: u32) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(to)?;
    if let Some(saved) = saved {
        DirBuilder::new().recursive(true).mode(0o700).create(saved)?;
    }
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_keys(&entry.path(), &target, saved, depth + 1)?;
            continue;
        }
        if let Some(saved) = saved
            && target.is_file()
        {
            let kept = below(saved, &target);
            std::fs::create_dir_all(kept.parent().unwrap_or(saved))?;
            std::fs::copy(&target, &kept)?;
        }
        std::fs::copy(entry.path(), &target)?;
        std::fs::set_permissions(&target, Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// The other way round. A folder that is empty then was made for the keys.
fn remove_keys(from: &Path, to: &Path, saved: &Path, depth: u32) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Ok(());
    }
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            remove_keys(&entry.path(), &target, saved, depth + 1)?;
            continue;
        }
        let kept = below(saved, &target);
        let removed = if kept.is_file() {
            std::fs::copy(&kept, &target).map(drop)
        } else {
            std::fs::remove_file(&target)
        };
        match removed {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    let _in_use = std::fs::remove_dir(to);
    Ok(())
}

/// The place of an absolute path below another folder.
fn below(folder: &Path, path: &Path) -> PathBuf {
    folder.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_back_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["from/ssh/deep", "home/.ssh"] {
            std::fs::create_dir_all(path(name)).unwrap();
        }
        for name in ["from/ssh/id", "from/ssh/config", "from/ssh/deep/key"] {
            std::fs::write(path(name), "mine").unwrap();
        }
        for name in ["home/.ssh/config", "home/.ssh/other"] {
            std::fs::write(path(name), "of the image").unwrap();
        }
        let text = |name: &str| path(name).to_string_lossy().into_owned();
        let tools = Tools {
            opencv: false,
            pip: false,
            keys: vec![
                (text("from/ssh"), text("home/.ssh")),
                (text("from/none"), "~".to_owned()),
            ],
        };
        tools.bring_keys(Some(&path("saved")), &mut |_| {});
        let read = |name: &str| std::fs::read_to_string(path(name)).ok();
        assert_eq!(read("home/.ssh/config").as_deref(), Some("mine"));
        assert_eq!(read("home/.ssh/deep/key").as_deref(), Some("mine"));
        tools.bring_keys(Some(&path("saved")), &mut |_| {});
        tools.take_back(&path("saved")).unwrap();
        assert_eq!(read("home/.ssh/config").as_deref(), Some("of the image"));
        assert_eq!(read("home/.ssh/other").as_deref(), Some("of the image"));
        assert!(!path("home/.ssh/id").exists() && !path("home/.ssh/deep").exists());
    }
}
