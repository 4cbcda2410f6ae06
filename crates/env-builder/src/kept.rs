//! Builds that stay: a folder that is the environment, with the code in it, until somebody runs the task there.
//!
//! ```text
//! <folder>/bin, lib, …            the environment
//! <folder>/task_repository/<name> the repository, or
//! <folder>/code                   the script that the task carries itself
//! <folder>/clearml-agent-build.json   what it is; written last
//! ```
//!
//! A file for each folder among the agent's own caches is locked while somebody builds there, and says so long
//! after a killed build that nothing in the folder is to be relied upon. It also names the folder, so that a build
//! is found wherever it is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clearml_support::command::CancelToken;
use clearml_support::fs::{create_private_dir, read_json, remove_tree, write_json_atomic};
use clearml_support::lock::FileLock;
use clearml_support::redact::Redactor;
use clearml_task_model::{Script, Task};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::code::info::ExecutionInfo;
use crate::error::{FileError, at};
use crate::host::{Host, Level, Phase, PhaseEvent};
use crate::packages::{self, uv};
use crate::python::find;
use crate::request::{EnvSettings, PreparedEnvironment};
use crate::tools::Context;
use crate::{BuildError, launch};

/// The file in the folder.
const RECORD: &str = "clearml-agent-build.json";
/// Where the agent's own files about builds are, below its caches.
const REGISTER: &str = "builds";
const SCHEMA: u32 = 1;
/// The name of a folder for tasks without Python.
const NO_PYTHON: &str = "none";

/// The folder can't take a build.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// Something else is there.
    #[error(
        "{} exists and is not an earlier build of the agent; name another folder with --target, or remove it",
        path.display()
    )]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// Somebody builds there.
    #[error("another process is building in {}; wait for it, or name another folder with --target", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// The record can't be written.
    #[error("writing what has been built to {}: {reason}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] FileError),
}

/// What a build is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    schema: u32,
    task: String,
    /// Of what decides about the code, so that it is found for a copy of the task as well.
    code: String,
    /// The interpreter of the environment.
    pub(crate) python: Option<PathBuf>,
}

/// What the agent remembers about a folder.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    folder: PathBuf,
    building: bool,
}

/// A folder that is being built in.
#[derive(Debug)]
pub struct Kept {
    folder: PathBuf,
    register: PathBuf,
    created: bool,
    replaces: bool,
    _lock: FileLock,
}

impl Kept {
    /// Takes a folder for a build. An earlier build in it is removed; anything else is not touched, unless `own`
    /// says that the folder is the agent's own, where one of the Python agent may be.
    ///
    /// # Errors
    ///
    /// When something else is there, somebody builds there, or the file system refuses.
    pub fn begin(caches_dir: &Path, folder: &Path, own: bool) -> Result<Self, KeptError> {
        let created = !folder.exists();
        create_private_dir(folder).map_err(at("creating", folder))?;
        let folder = folder.canonicalize().map_err(at("opening", folder))?;
        let builds = caches_dir.join(REGISTER);
        create_private_dir(&builds).map_err(at("creating", &builds))?;
        let register = entry_of(caches_dir, &folder);
        let lock = FileLock::try_acquire(&register).map_err(at("locking", &register))?;
        let Some(lock) = lock else {
            return Err(KeptError::Busy { path: folder });
        };
        let occupied = fs::read_dir(&folder)
            .map_err(at("reading", &folder))?
            .next()
            .is_some();
        let ours =
            record(&folder).is_some() || is_building(caches_dir, &folder) || own && looks_built(&folder);
        if occupied && !ours {
            return Err(KeptError::Occupied { path: folder });
        }
        let kept = Self {
            folder,
            register,
            created,
            replaces: occupied,
            _lock: lock,
        };
        kept.note(true)?;
        empty(&kept.folder)?;
        Ok(kept)
    }

    /// The folder, for [`BuildRequest::run_dir_env`](crate::BuildRequest::run_dir_env).
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether an earlier build was removed.
    #[must_use]
    pub fn replaces(&self) -> bool {
        self.replaces
    }

    /// The build is complete and may be used.
    ///
    /// # Errors
    ///
    /// When that can't be written down.
    pub fn finish(self, task: &Task, prepared: &PreparedEnvironment) -> Result<(), KeptError> {
        let own = self.folder.join("bin/python");
        let record = Record {
            schema: SCHEMA,
            task: task.id.as_ref().map(ToString::to_string).unwrap_or_default(),
            code: task.script.as_ref().map(code_of).unwrap_or_default(),
            python: if own.is_file() {
                Some(own)
            } else {
                prepared.python.clone()
            },
        };
        let path = self.folder.join(RECORD);
        write_json_atomic(&path, &record, 0o600).map_err(|e| KeptError::Record {
            path,
            reason: e.to_string(),
        })?;
        self.note(false)
    }

    /// The build has failed: nothing of it stays.
    ///
    /// # Errors
    ///
    /// When something can't be removed. The next build tries that again.
    pub fn abandon(self) -> Result<(), KeptError> {
        empty(&self.folder)?;
        self.note(false)?;
        if self.created {
            // Somebody may have put something there in the meantime, which is theirs.
            let _not_empty = fs::remove_dir(&self.folder);
        }
        Ok(())
    }

    /// Writes into the locked file itself, which must not be replaced.
    fn note(&self, building: bool) -> Result<(), KeptError> {
        let entry = Entry {
            folder: self.folder.clone(),
            building,
        };
        let text = serde_json::to_vec(&entry).map_err(|e| KeptError::Record {
            path: self.register.clone(),
            reason: e.to_string(),
        })?;
        fs::write(&self.register, text).map_err(at("writing", &self.register))?;
        Ok(())
    }
}

fn entry_of(caches_dir: &Path, folder: &Path) -> PathBuf {
    let id = hex(&Sha256::digest(folder.as_os_str().as_encoded_bytes()));
    caches_dir.join(REGISTER).join(format!("{id}.json"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What decides about the code of a task.
fn code_of(script: &Script) -> String {
    let mut digest = Sha256::new();
    let parts = [
        &script.repository,
        &script.branch,
        &script.tag,
        &script.version_num,
        &script.diff,
    ];
    for part in parts {
        let part = part.as_deref().unwrap_or_default();
        digest.update(part.len().to_le_bytes());
        digest.update(part.as_bytes());
    }
    hex(&digest.finalize())
}

/// What the build in a folder is, if there is a complete one.
pub(crate) fn record(folder: &Path) -> Option<Record> {
    let record: Record = read_json(&folder.join(RECORD)).ok()?;
    (record.schema == SCHEMA).then_some(record)
}

/// Whether a build in this folder goes on, or was killed.
pub(crate) fn is_building(caches_dir: &Path, folder: &Path) -> bool {
    let Ok(folder) = folder.canonicalize() else {
        return false;
    };
    // What can't be read was never more than locked: it is written before anything in the folder is changed, and
    // again after the record.
    read_json::<Entry>(&entry_of(caches_dir, &folder)).is_ok_and(|entry| entry.building)
}

/// Whether it looks like a build of the Python agent, which leaves no record.
fn looks_built(folder: &Path) -> bool {
    ["pyvenv.cfg", "task_repository", "code", "conda-meta"]
        .iter()
        .any(|name| folder.join(name).exists())
}

fn empty(folder: &Path) -> Result<(), FileError> {
    let entries = fs::read_dir(folder).map_err(at("reading", folder))?;
    for entry in entries {
        let path = entry.map_err(at("reading", folder))?.path();
        remove_tree(&path).map_err(at("removing", &path))?;
    }
    Ok(())
}

/// The newest complete build of this task, or of one with the same code, in `builds` or anywhere else.
pub(crate) fn of_task(context: &Context<'_>, builds: &Path, task: &Task) -> Option<PathBuf> {
    let caches = &context.settings.caches_dir;
    let id = task.id.as_ref().map(ToString::to_string).unwrap_or_default();
    let code = task.script.as_ref().map(code_of).unwrap_or_default();
    let here = folders(builds).into_iter();
    let registered = folders(&caches.join(REGISTER));
    let elsewhere = registered.iter().filter_map(|file| read_json::<Entry>(file).ok());
    here.chain(elsewhere.map(|entry| entry.folder))
        .filter(|folder| !is_building(caches, folder))
        .filter_map(|folder| {
            let record = record(&folder)?;
            let made = folder.join(RECORD).metadata().and_then(|meta| meta.modified());
            let made = made.unwrap_or(SystemTime::UNIX_EPOCH);
            let same = record.code == code;
            (same || record.task == id).then_some((same, record.task == id, made, folder))
        })
        .max()
        .map(|(.., folder)| folder)
}

fn folders(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// The version of Python that a task gets, as `3.11`; `none` for a task without Python. It names the folder of a
/// build that has no other name.
///
/// # Errors
///
/// When there is no interpreter, or the task says nothing about what to run.
pub fn python_for(
    task: &Task,
    settings: &EnvSettings,
    redactor: &Redactor,
    cancel: &CancelToken,
) -> Result<String, BuildError> {
    let host = Quiet(cancel);
    let context = Context {
        settings,
        host: &host,
        redactor,
    };
    let script = task.script.as_ref().ok_or(BuildError::NoScript)?;
    let (info, _) = ExecutionInfo::new(script, &settings.env);
    let lists = packages::of_task(script.requirements.as_ref(), &settings.package_manager);
    let has_pip_list = lists.as_ref().is_some_and(|lists| !lists.pip.trim().is_empty());
    if launch::skips_python(&context, &info, has_pip_list) {
        return Ok(NO_PYTHON.to_owned());
    }
    let uv_makes_it = || uv::is_wanted(&context) && uv::find(&context).is_some();
    match find::look(&context, &info) {
        Ok(found) => Ok(match found.missing {
            Some(missing) if missing.contains('.') && !missing.contains('/') && uv_makes_it() => missing,
            _ => found.interpreter.series(),
        }),
        Err(_) if uv_makes_it() => Ok(find::requests(settings, &info)
            .into_iter()
            .next()
            .unwrap_or_default()),
        Err(error) => Err(error.into()),
    }
}

/// What is said about interpreters is said again when the build begins.
struct Quiet<'a>(&'a CancelToken);

impl Host for Quiet<'_> {
    fn line(&self, _: Level, _: &str) {}

    fn phase(&self, _: Phase, _: PhaseEvent) {}

    fn report_packages(&self, _: &[String]) {}

    fn report_commit(&self, _: &str) {}

    fn cancel(&self) -> &CancelToken {
        self.0
    }
}

/// Lets an environment see what is installed elsewhere.
pub(crate) fn see(site_packages: &Path, others: &Path) -> Result<(), FileError> {
    let path = site_packages.join("clearml-agent-global.pth");
    let line = match others.to_str() {
        Some(text) if !text.contains('\n') => format!("{text}\n"),
        _ => {
            let odd = io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{others:?} can't be named in it"),
            );
            return Err(at("writing", &path)(odd));
        }
    };
    fs::write(&path, line).map_err(at("writing", &path))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tools::tests::Silent;

    fn task(id: &str, diff: &str) -> Task {
        serde_json::from_value(json!({"id": id, "script": {"diff": diff}})).unwrap()
    }

    fn prepared() -> PreparedEnvironment {
        PreparedEnvironment {
            argv: Vec::new(),
            cwd: "/".into(),
            env: Vec::new(),
            python: Some("/any/python".into()),
            commit: None,
            repository_root: None,
            summary: String::new(),
        }
    }

    #[test]
    fn a_folder_is_taken_only_if_it_is_ours() {
        let scratch = tempfile::tempdir().unwrap();
        let caches = scratch.path().join("caches");
        let begin = |name: &str, own| Kept::begin(&caches, &scratch.path().join(name), own);
        let other = scratch.path().join("other");
        fs::create_dir_all(other.join("bin")).unwrap();
        fs::write(other.join("pyvenv.cfg"), "").unwrap();
        assert!(matches!(begin("other", false), Err(KeptError::Occupied { .. })));
        // That was asked does not make it ours.
        assert!(matches!(begin("other", false), Err(KeptError::Occupied { .. })));
        assert!(other.join("pyvenv.cfg").is_file());
        fs::write(scratch.path().join("file"), "").unwrap();
        assert!(matches!(begin("file", true), Err(KeptError::Io(_))));
        // Where the agents build, one of the Python agent gives way.
        let kept = begin("other", true).unwrap();
        assert!(kept.replaces() && !other.join("bin").exists());
        assert!(matches!(begin("other", true), Err(KeptError::Busy { .. })));
        // It stays its owner's.
        kept.abandon().unwrap();
        assert!(other.is_dir());

        let kept = begin("new", false).unwrap();
        assert!(!kept.replaces());
        fs::write(kept.folder().join("half"), "").unwrap();
        // As if it had been killed.
        drop(kept);
        let kept = begin("new", false).unwrap();
        assert!(kept.replaces() && !kept.folder().join("half").exists());
        kept.abandon().unwrap();
        let left = fs::read_dir(scratch.path().join("new")).unwrap();
        assert_eq!(left.count(), 0);
    }

    #[test]
    fn a_task_and_its_copy_find_the_build_wherever_it_is() {
        let scratch = tempfile::tempdir().unwrap();
        let settings = EnvSettings {
            caches_dir: scratch.path().join("caches"),
            ..EnvSettings::default()
        };
        let (host, redactor) = (Silent::default(), Redactor::new());
        let context = Context {
            settings: &settings,
            host: &host,
            redactor: &redactor,
        };
        let builds = scratch.path().join("builds");
        let find = |task: &Task| of_task(&context, &builds, task);
        let target = scratch.path().join("far/away");
        let kept = Kept::begin(&settings.caches_dir, &target, false).unwrap();
        let target = kept.folder().to_owned();
        let built = task("a", "print()");
        assert_eq!(find(&built), None);
        kept.finish(&built, &prepared()).unwrap();
        assert_eq!(find(&built).as_deref(), Some(&*target));
        assert_eq!(find(&task("copy", "print()")).as_deref(), Some(&*target));
        assert_eq!(find(&task("other", "print(1)")), None);
        assert_eq!(record(&target).unwrap().python, Some("/any/python".into()));
        // A killed build is not used, and its record is gone.
        drop(Kept::begin(&settings.caches_dir, &target, false).unwrap());
        assert_eq!(find(&built), None);
        assert!(is_building(&settings.caches_dir, &target));
    }
}
