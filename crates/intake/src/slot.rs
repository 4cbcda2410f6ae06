//! Which workers run on this machine, and which worker this one is.
//!
//! The register is the one of the Python agent, so that both kinds of agents on one machine see each
//! other: one file per daemon in the temporary folder, `.clearmlagent_<pid>_<random>.tmp`, with two lines,
//! worker id and slot. While it is read and written, two locks are held: an `flock` that ends with its
//! holder, and the lock file of the Python agent, which is one by its mere existence.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clearml_support::fs::{create_private_file, read_limited};
use clearml_support::lock::FileLock;
use clearml_support::process::ProcessIdentity;
use clearml_task_model::WorkerId;

const PREFIX: &str = ".clearmlagent_";
const SUFFIX: &str = ".tmp";
const PYTHON_LOCK: &str = "_.clearmlagent_global.lock";

/// The Python agent takes a lock that is older than this for forgotten.
const PYTHON_LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// Slot files are two short lines.
const MAX_FILE_BYTES: u64 = 4096;
/// What the kernel lets a command line be.
const MAX_COMMAND_LINE: u64 = 8 << 20;

/// The register of workers could not be used, or refuses this worker.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// This worker is running already.
    #[error(
        "Instance with the same WORKER_ID [{worker}] is already running (pid {pid}); stop it, or choose another id with CLEARML_WORKER_ID"
    )]
    Taken {
        /// The id.
        worker: WorkerId,
        /// The process that has it.
        pid: i32,
    },
    /// The file system refused.
    #[error("{action} {}: {source}; set TMPDIR to a folder that can be written", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// A worker in the register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its process.
    pub pid: i32,
    /// Its id.
    pub worker: WorkerId,
    /// Its slot.
    pub slot: u32,
}

/// The place of this worker in the register; given up when dropped.
#[derive(Debug)]
pub struct Slot {
    worker: WorkerId,
    number: u32,
    path: PathBuf,
}

impl Slot {
    /// The id of this worker.
    #[must_use]
    pub fn worker(&self) -> &WorkerId {
        &self.worker
    }

    /// The smallest number that no other worker of this machine had.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // A file that stays is ignored and removed by the next agent that looks.
        let _ = fs::remove_file(&self.path);
    }
}

/// The id of a worker without GPUs: the one that was given, or name and slot.
#[must_use]
pub fn worker_id(name: &str, explicit: Option<&str>, slot: u32) -> WorkerId {
    match explicit {
        Some(id) if !id.is_empty() => id.into(),
        _ => format!("{name}:{slot}").into(),
    }
}

/// Where the register is: the temporary folder of the system, `TMPDIR` honoured.
#[must_use]
pub fn register_folder() -> PathBuf {
    std::env::temp_dir()
}

/// Enters this process into the register. Blocks for at most about ten seconds while another agent does
/// the same.
///
/// # Errors
///
/// When the id is in use on this machine, or the register can't be written.
pub fn take_slot(folder: &Path, name: &str, explicit: Option<&str>) -> Result<Slot, SlotError> {
    let _lock = lock(folder)?;
    let running = instances(folder)?;
    let number = free_slot(&running);
    let worker = worker_id(name, explicit, number);
    if let Some(other) = running.iter().find(|instance| instance.worker == worker) {
        return Err(SlotError::Taken {
            worker,
            pid: other.pid,
        });
    }
    let random = &clearml_support::id::hex32()[..8];
    let path = folder.join(format!("{PREFIX}{}_{random}{SUFFIX}", std::process::id()));
    let slot = Slot { worker, number, path };
    create_private_file(&slot.path)
        .and_then(|mut file| write!(file, "{}\n{number}", slot.worker))
        .map_err(io_error("writing", &slot.path))?;
    Ok(slot)
}

/// The smallest slot that no instance has. Pure.
#[must_use]
pub fn free_slot(running: &[Instance]) -> u32 {
    (0..)
        .find(|slot| running.iter().all(|instance| instance.slot != *slot))
        .unwrap_or(u32::MAX)
}

/// The workers of this machine whose processes live. Files of dead ones are removed.
///
/// # Errors
///
/// When the folder can't be read.
pub fn instances(folder: &Path) -> Result<Vec<Instance>, SlotError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_error("listing", folder))? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry.file_name().to_str().and_then(pid_in_name) else {
            continue;
        };
        if !Path::new(&format!("/proc/{pid}")).exists() || is_inherited(&entry.path(), pid) {
            let _ = fs::remove_file(entry.path());
            continue;
        }
        // What can't be read belongs to another user, who has other workers.
        if let Some((worker, slot)) = read(&entry.path()).ok().and_then(|text| parse(&text)) {
            found.push(Instance { pid, worker, slot });
        }
    }
    found.sort_by(|a, b| a.worker.cmp(&b.worker));
    Ok(found)
}

/// How much younger than its file a process must be to be somebody else.
const PID_MARGIN: Duration = Duration::from_secs(5);

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

fn read(path: &Path) -> io::Result<String> {
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

/// Both locks of the register, as long as it lives.
struct RegisterLock {
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

fn lock(folder: &Path) -> Result<RegisterLock, SlotError> {
    let user = rustix::process::getuid().as_raw();
    let ours = folder.join(format!("{PREFIX}{user}.flock"));
    let held = FileLock::acquire(&ours, PYTHON_LOCK_PATIENCE * 2).map_err(io_error("locking", &ours))?;
    let path = folder.join(PYTHON_LOCK);
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
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
            Err(source) => return Err(io_error("creating", &path)(source)),
        }
    }
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

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SlotError + use<> {
    let path = path.to_owned();
    move |source| SlotError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn plant(folder: &Path, pid: i32, worker: &str, slot: u32) {
        fs::write(
            folder.join(format!(".clearmlagent_{pid}_abcd1234.tmp")),
            format!("{worker}\n{slot}"),
        )
        .unwrap();
    }

    /// The pid of a process that has ended.
    fn dead_pid() -> i32 {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id().cast_signed()
    }

    #[test]
    fn slots_are_the_smallest_free_numbers_and_the_file_is_what_the_python_agent_reads() {
        let folder = tempfile::tempdir().unwrap();
        let first = take_slot(folder.path(), "host", None).unwrap();
        let second = take_slot(folder.path(), "host", None).unwrap();
        assert_eq!(
            (first.worker().as_str(), second.worker().as_str()),
            ("host:0", "host:1")
        );
        assert_eq!(fs::read_to_string(&second.path).unwrap(), "host:1\n1");
        assert_eq!(
            second.path.metadata().unwrap().permissions().mode() & 0o777,
            0o600
        );
        drop(first);
        assert_eq!(take_slot(folder.path(), "host", None).unwrap().number(), 0);
        drop(second);
        assert!(instances(folder.path()).unwrap().is_empty());
        assert!(!folder.path().join(PYTHON_LOCK).exists());
    }

    #[test]
    fn agents_of_the_other_kind_are_seen_and_dead_ones_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        plant(folder.path(), 1, "host:0", 0);
        let dead = dead_pid();
        plant(folder.path(), dead, "host:1", 1);
        assert_eq!(take_slot(folder.path(), "host", None).unwrap().number(), 1);
        let left = instances(folder.path()).unwrap();
        assert_eq!(
            left,
            [Instance {
                pid: 1,
                worker: "host:0".into(),
                slot: 0
            }]
        );
        let error = take_slot(folder.path(), "host", Some("host:0")).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("WORKER_ID [host:0] is already running"),
            "{error}"
        );
        assert_eq!(
            take_slot(folder.path(), "host", Some("mine"))
                .unwrap()
                .worker()
                .as_str(),
            "mine"
        );
    }

    #[test]
    fn a_file_from_before_the_process_that_has_its_pid_now_takes_nobodys_id() {
        let folder = tempfile::tempdir().unwrap();
        let long_ago = std::time::SystemTime::now() - Duration::from_secs(100_000_000);
        let mut stranger = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        for pid in [stranger.id().cast_signed(), std::process::id().cast_signed()] {
            plant(folder.path(), pid, "host:0", 0);
            let file = folder.path().join(format!(".clearmlagent_{pid}_abcd1234.tmp"));
            File::options()
                .write(true)
                .open(&file)
                .unwrap()
                .set_modified(long_ago)
                .unwrap();
            let slot = take_slot(folder.path(), "host", Some("host:0")).unwrap();
            assert!(!file.exists());
            drop(slot);
        }
        // A new file of a living process counts, whatever the process is called.
        plant(folder.path(), stranger.id().cast_signed(), "host:0", 0);
        assert!(take_slot(folder.path(), "host", Some("host:0")).is_err());
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }

    #[test]
    fn nonsense_in_a_shared_folder_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            (".clearmlagent_1_x.tmp", ""),
            (".clearmlagent_1_y.tmp", "host:0"),
            (".clearmlagent_1_z.tmp", "host:0\nzero"),
            (".clearmlagent_-5_x.tmp", "host:0\n0"),
            (".clearmlagent_x_x.tmp", "host:0\n0"),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        std::os::unix::fs::symlink("/etc/hostname", folder.path().join(".clearmlagent_1_l.tmp")).unwrap();
        assert_eq!(take_slot(folder.path(), "host", None).unwrap().number(), 0);
    }

    #[test]
    fn a_lock_that_the_python_agent_forgot_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(PYTHON_LOCK);
        let file = File::create(&path).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(60))
            .unwrap();
        take_slot(folder.path(), "host", None).unwrap();
        assert!(!path.exists());
    }
}
