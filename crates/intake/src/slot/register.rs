//! The register itself: its folder, its files, its locks, and which of its processes are still those that
//! entered themselves.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clearml_support::fs::{create_private_file, read_limited};
use clearml_support::lock::FileLock;
use clearml_support::process::ProcessIdentity;
use clearml_task_model::WorkerId;

use super::SlotError;

pub(super) const PREFIX: &str = ".clearmlagent_";
pub(super) const SUFFIX: &str = ".tmp";
const PYTHON_LOCK: &str = "_.clearmlagent_global.lock";
/// Variables that name a folder of the host which containers use in common: `host path:container path`.
const HOST_MOUNTS: [&str; 2] = ["CLEARML_AGENT_K8S_HOST_MOUNT", "CLEARML_AGENT_DOCKER_HOST_MOUNT"];

/// The Python agent takes a lock that is older than this for forgotten.
const PYTHON_LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// How often to ask for a lock that somebody holds.
const LOCK_POLL: Duration = Duration::from_millis(100);
/// Slot files are two short lines.
const MAX_FILE_BYTES: u64 = 4096;
/// What the kernel lets a command line be.
const MAX_COMMAND_LINE: u64 = 8 << 20;
/// How much younger than its file a process must be to be somebody else.
const PID_MARGIN: Duration = Duration::from_secs(5);
/// A daemon has registered itself long before it is as old as this.
const SURELY_REGISTERED: Duration = Duration::from_secs(60);

/// A worker in the register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its process.
    pub pid: i32,
    /// Its id.
    pub worker: WorkerId,
    /// Its slot.
    pub slot: u32,
    file: PathBuf,
    /// No other file has its pid.
    alone: bool,
}

impl Instance {
    /// The process that has entered itself, if the one that has the pid now is that one. In doubt it is
    /// not, so that what is signalled is never a stranger to whom the number was given later.
    #[must_use]
    pub fn process(&self) -> Option<ProcessIdentity> {
        // Before the tests: they then speak of this very process or of none.
        let process = ProcessIdentity::of(self.pid).ok()??;
        let command = command_line(self.pid)?;
        if !command.to_ascii_lowercase().contains("clearml") && !runs_this_program(self.pid) {
            return None;
        }
        let (file, age) = (file_age(&self.file), process_age(self.pid));
        // A process that had the pid when the file was written is the one that wrote it.
        let wrote_it = matches!((file, age), (Some(file), Some(age)) if file <= age + PID_MARGIN);
        // The clock may have been set in between. A daemon that is not new has a file, and this is the
        // only one with its pid.
        let has_no_other = self.alone
            && command.split('\0').any(|word| word == "daemon")
            && age.is_none_or(|age| age > SURELY_REGISTERED);
        (wrote_it || has_no_other).then_some(process)
    }
}

/// The folder in which the workers of this machine are registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    pub(super) folder: PathBuf,
    pub(super) shared: bool,
}

impl Register {
    /// The register of this machine: in the temporary folder of the system, `TMPDIR` honoured, or in the
    /// folder that the host lends to all containers.
    #[must_use]
    pub fn of_machine() -> Self {
        let mount = HOST_MOUNTS
            .iter()
            .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
        match mount.as_deref().and_then(|value| value.rsplit(':').next()) {
            Some(folder) if !folder.is_empty() => Self {
                folder: folder.into(),
                shared: true,
            },
            _ => Self::at(&std::env::temp_dir()),
        }
    }

    /// A register in this folder, of processes that see each other.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            shared: false,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether containers use it together, so that a pid in it may be one that is not visible from here.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// The workers of this machine whose processes live, by id. Changes nothing.
    ///
    /// # Errors
    ///
    /// When the folder can't be read.
    pub fn instances(&self) -> Result<Vec<Instance>, SlotError> {
        self.read(false, &[])
    }

    /// The same, and removes the files of dead ones; what `listed` names may live in another container.
    pub(super) fn sweep(&self, listed: &[WorkerId]) -> Result<Vec<Instance>, SlotError> {
        self.read(true, listed)
    }

    fn read(&self, sweep: bool, listed: &[WorkerId]) -> Result<Vec<Instance>, SlotError> {
        let mut found: Vec<Instance> = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(io_error("listing", &self.folder))? {
            let Ok(entry) = entry else { continue };
            let Some(pid) = entry.file_name().to_str().and_then(pid_in_name) else {
                continue;
            };
            let file = entry.path();
            // What can't be read belongs to another user, who has other workers.
            let content = read_file(&file).ok().and_then(|text| parse(&text));
            let elsewhere = self.shared
                && content
                    .as_ref()
                    .is_some_and(|(worker, _)| listed.contains(worker));
            let dead = !Path::new(&format!("/proc/{pid}")).exists() || is_inherited(&file, pid);
            if dead && !elsewhere {
                if sweep {
                    let _ = fs::remove_file(&file);
                }
                continue;
            }
            if let Some((worker, slot)) = content {
                found.push(Instance {
                    pid,
                    worker,
                    slot,
                    file,
                    alone: true,
                });
            }
        }
        found.sort_by(|a, b| a.worker.cmp(&b.worker));
        let pids: Vec<i32> = found.iter().map(|instance| instance.pid).collect();
        for instance in &mut found {
            instance.alone = pids.iter().filter(|pid| **pid == instance.pid).count() == 1;
        }
        Ok(found)
    }

    /// Dropping the future ends the wait for other agents.
    pub(super) async fn lock(&self) -> Result<RegisterLock, SlotError> {
        let held = self.own_lock().await?;
        let path = self.folder.join(PYTHON_LOCK);
        let start = Instant::now();
        loop {
            match create_private_file(&path) {
                Ok(mut file) => {
                    // Only for people: the lock is that the file exists.
                    let _ = write!(file, "{}", std::process::id());
                    return Ok(RegisterLock {
                        _ours: held,
                        python: Some(path),
                    });
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    if start.elapsed() >= PYTHON_LOCK_PATIENCE || is_forgotten(&path) {
                        tracing::warn!("removing the forgotten lock {}", path.display());
                        if fs::remove_file(&path).is_err() {
                            return Ok(RegisterLock {
                                _ours: held,
                                python: None,
                            });
                        }
                    } else {
                        tokio::time::sleep(LOCK_POLL).await;
                    }
                }
                Err(source) => return Err(io_error("creating", &path)(source)),
            }
        }
    }

    async fn own_lock(&self) -> Result<FileLock, SlotError> {
        let user = rustix::process::getuid().as_raw();
        let path = self.folder.join(format!("{PREFIX}{user}.flock"));
        let start = Instant::now();
        loop {
            if let Some(lock) = FileLock::try_acquire(&path).map_err(io_error("locking", &path))? {
                return Ok(lock);
            }
            let waited = start.elapsed();
            if waited >= PYTHON_LOCK_PATIENCE * 2 {
                let text = format!("another agent still holds it after {waited:.0?}");
                return Err(io_error("locking", &path)(io::Error::new(
                    io::ErrorKind::TimedOut,
                    text,
                )));
            }
            tokio::time::sleep(LOCK_POLL).await;
        }
    }
}

/// Both locks of the register, as long as it lives.
pub(super) struct RegisterLock {
    _ours: FileLock,
    python: Option<PathBuf>,
}

impl Drop for RegisterLock {
    fn drop(&mut self) {
        if let Some(path) = &self.python {
            let _ = fs::remove_file(path);
        }
    }
}

/// Whether the process that has the pid now is not the one that wrote the file: pids are given out again,
/// after a restart of the machine or of a container even to the very agent that looks.
fn is_inherited(path: &Path, pid: i32) -> bool {
    let (Some(file), Some(process)) = (file_age(path), process_age(pid)) else {
        return false;
    };
    let me = i32::try_from(std::process::id()) == Ok(pid);
    // The clock may have been set between, so the age alone never tells that a living agent is none.
    file > process + PID_MARGIN && (me || !may_be_agent(pid))
}

fn file_age(path: &Path) -> Option<Duration> {
    path.symlink_metadata().ok()?.modified().ok()?.elapsed().ok()
}

fn process_age(pid: i32) -> Option<Duration> {
    let identity = ProcessIdentity::of(pid).ok()??;
    // Some containers show the time since their own start; the difference is negative then, and unknown.
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let up = Duration::try_from_secs_f64(uptime.split_whitespace().next()?.parse().ok()?).ok()?;
    // The kernel counts in hundredths of a second for everybody (`proc_pid_stat(5)`).
    up.checked_sub(Duration::from_millis(identity.start_ticks.checked_mul(10)?))
}

/// Whether the command line of a process names an agent, of either kind, or can't be read.
fn may_be_agent(pid: i32) -> bool {
    match read_limited(Path::new(&format!("/proc/{pid}/cmdline")), MAX_COMMAND_LINE) {
        Ok(bytes) => String::from_utf8_lossy(&bytes)
            .to_ascii_lowercase()
            .contains("clearml"),
        Err(e) => e.kind() != io::ErrorKind::NotFound,
    }
}

/// Whether a process runs the program that this one runs, under whatever name it was installed.
fn runs_this_program(pid: i32) -> bool {
    let program = |path: String| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let ours = program("/proc/self/exe".to_owned());
    ours.is_some() && program(format!("/proc/{pid}/exe")) == ours
}

/// Words separated by zero bytes; `None` when the process is gone or somebody else's.
fn command_line(pid: i32) -> Option<String> {
    let bytes = read_limited(Path::new(&format!("/proc/{pid}/cmdline")), MAX_COMMAND_LINE).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn pid_in_name(name: &str) -> Option<i32> {
    name.strip_prefix(PREFIX)?
        .strip_suffix(SUFFIX)?
        .split('_')
        .next()?
        .parse()
        .ok()
        .filter(|pid| *pid > 0)
}

fn parse(text: &str) -> Option<(WorkerId, u32)> {
    let mut lines = text.lines();
    let worker = lines.next().filter(|id| !id.is_empty())?;
    Some((worker.into(), lines.next()?.trim().parse().ok()?))
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open_own(OpenOptions::new().read(true), path)?
        .take(MAX_FILE_BYTES)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// Opens a file in a folder where others can create files, never through a link of theirs.
fn open_own(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options
        .custom_flags(
            (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK)
                .bits()
                .cast_signed(),
        )
        .open(path)
}

/// Nobody holds the lock for as long as this.
fn is_forgotten(path: &Path) -> bool {
    let age = path
        .symlink_metadata()
        .and_then(|meta| meta.modified())
        .ok()
        .and_then(|time| time.elapsed().ok());
    age.is_some_and(|age| age > PYTHON_LOCK_PATIENCE)
}

pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SlotError + use<> {
    let path = path.to_owned();
    move |source| SlotError::Io { action, path, source }
}
