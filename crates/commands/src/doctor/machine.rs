//! Folders, free space, locks, and other agents on this machine.

use std::path::{Path, PathBuf};

use clearml_intake::Register;
use clearml_support::lock::FileLock;
use rustix::fs::{Access, StatVfs, StatVfsMountFlags, access, statvfs};

use super::Scene;
use super::report::Section;

const GIB: u64 = 1 << 30;
/// Less than this and the next environment does not fit.
const LITTLE_SPACE: u64 = GIB;
/// Less than this and an environment with a large framework does not fit.
const SCANT_SPACE: u64 = 10 * GIB;
/// A Python environment has tens of thousands of files.
const LITTLE_FILES: u64 = 50_000;

pub(super) fn check(scene: &Scene, section: &Section) {
    let mut places: Vec<(&str, PathBuf)> = Vec::new();
    if let Some(settings) = &scene.settings {
        let agent = &settings.agent;
        places.push(("state (agent.state_dir)", agent.state_dir.clone()));
        if agent.vcs_cache.enabled {
            places.push(("clones (agent.vcs_cache.path)", agent.vcs_cache.path.clone()));
        }
        if agent.pip_download_cache.enabled {
            let path = agent.pip_download_cache.path.clone();
            places.push(("packages (agent.pip_download_cache.path)", path));
        }
        if let Some(path) = &agent.venvs_cache.path {
            places.push(("environments (agent.venvs_cache.path)", path.clone()));
        }
    } else if let Some(home) = &scene.home {
        places.push(("home", home.clone()));
    }
    places.push(("temporary files", std::env::temp_dir()));
    for (name, path) in &places {
        folder(section, name, path);
    }
    if let Some((_, state)) = places.first() {
        locks(section, state);
    }
    agents(section);
}

/// The folder, or the one in which it would be created.
fn existing(path: &Path) -> &Path {
    path.ancestors()
        .find(|ancestor| ancestor.exists())
        .unwrap_or(Path::new("/"))
}

fn folder(section: &Section, name: &str, path: &Path) {
    let present = existing(path);
    let shown = if present == path {
        path.display().to_string()
    } else {
        format!("{} (to be created)", path.display())
    };
    if !present.is_dir() || access(present, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        section.problem(
            name,
            format!("{shown}: {} can't be written to", present.display()),
            "change its permissions, or choose another folder in the configuration",
        );
        return;
    }
    match statvfs(present) {
        Ok(stat) => space(section, name, &shown, &stat),
        Err(error) => section.problem(
            name,
            format!("{shown}: its file system does not answer: {error}"),
            "mount it again",
        ),
    }
}

fn space(section: &Section, name: &str, shown: &str, stat: &StatVfs) {
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let message = format!("{shown}: {} free", amount(free));
    let advice = "free some space, or choose another folder in the configuration";
    // Some file systems count no files; they say that there are none at all.
    let files_scarce = stat.f_files > 0 && stat.f_favail < LITTLE_FILES;
    if stat.f_flag.contains(StatVfsMountFlags::NOEXEC) && name.starts_with("state") {
        section.problem(
            name,
            format!("{shown}: mounted noexec, so the Python of an environment can't be started there"),
            "choose another agent.state_dir",
        );
    } else if free < LITTLE_SPACE {
        section.problem(name, message, advice);
    } else if files_scarce {
        section.warning(
            name,
            format!("{shown}: room for {} more files only", stat.f_favail),
            "remove files, or choose another folder in the configuration",
        );
    } else if free < SCANT_SPACE {
        section.warning(name, message, advice);
    } else {
        section.ok(name, message);
    }
}

fn amount(bytes: u64) -> String {
    if bytes >= GIB {
        format!("{} GiB", bytes / GIB)
    } else {
        format!("{} MiB", bytes >> 20)
    }
}

/// Takes a lock twice; the second time must not work.
fn locks(section: &Section, state: &Path) {
    let place = existing(state);
    let Ok(scratch) = tempfile::Builder::new().prefix(".doctor-").tempdir_in(place) else {
        // Said above already.
        return;
    };
    let path = scratch.path().join("lock");
    let first = FileLock::try_acquire(&path);
    let outcome = first.and_then(|held| {
        let second = FileLock::try_acquire(&path)?;
        Ok(held.is_some() && second.is_none())
    });
    let advice = "choose an agent.state_dir on a local disk";
    match outcome {
        Ok(true) => section.ok("locks", format!("work in {}", place.display())),
        Ok(false) => section.problem(
            "locks",
            format!("the file system of {} grants a lock twice", place.display()),
            advice,
        ),
        Err(error) => section.problem(
            "locks",
            format!("the file system of {} refuses locks: {error}", place.display()),
            advice,
        ),
    }
}

fn agents(section: &Section) {
    let register = Register::of_machine();
    match register.instances() {
        Ok(running) if running.is_empty() => section.ok("agents", "none runs here"),
        Ok(running) => {
            for instance in running {
                section.ok(
                    "agents",
                    format!("worker {} runs here (pid {})", instance.worker, instance.pid),
                );
            }
        }
        Err(error) => section.problem(
            "agents",
            error.to_string(),
            "set TMPDIR to a folder that can be written",
        ),
    }
}
