//! Starting the two private commands, runner and shim, as processes of their own.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::run_dir::RunDir;

/// A path that starts this very program: that of its file, by which people know it, or, when an upgrade
/// has replaced or removed the file meanwhile, the kernel's link to what is running.
#[must_use]
pub fn this_program() -> PathBuf {
    let link = PathBuf::from("/proc/self/exe");
    let identity = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    match std::env::current_exe() {
        Ok(path) if identity(&path).is_some() && identity(&path) == identity(&link) => path,
        _ => link,
    }
}

/// Starts `exe runner --run DIR` for a run whose inputs are written. The runner leaves the caller's
/// session by itself, so the caller may end without harm to it; a caller that stays should wait for
/// the child, which is how it learns that it can look at the record again. What the runner says about
/// itself goes to `runner.log` in the run directory.
///
/// # Errors
///
/// When the log can't be opened or the program can't be started.
pub fn spawn_runner(exe: &Path, run: &RunDir) -> io::Result<Child> {
    command(exe, "runner", run)?.spawn()
}

/// Starts `exe runner --services FOLDER`; see [`crate::run_many`]. As with [`spawn_runner`], it lives on
/// without the caller; its log is in the folder.
///
/// # Errors
///
/// When the log can't be opened or the program can't be started.
pub fn spawn_runner_of_many(exe: &Path, folder: &Path) -> io::Result<Child> {
    let log = folder.join(".runner.log");
    // It lives for months, and tells of each run that fails.
    if std::fs::metadata(&log).is_ok_and(|file| file.len() > LARGEST_LOG) {
        std::fs::remove_file(&log)?;
    }
    start(
        exe,
        ["runner".as_ref(), "--services".as_ref(), folder.as_os_str()],
        &log,
    )?
    .spawn()
}

/// Starts `exe shim --run DIR` for a run whose launch file is written; see [`crate::shim_main`].
///
/// # Errors
///
/// When the log can't be opened or the program can't be started.
pub fn spawn_shim(exe: &Path, run: &RunDir) -> io::Result<Child> {
    // It needs nothing from its environment, and lives long; so it carries no secrets around.
    command(exe, "shim", run)?.env_clear().spawn()
}

/// A log of this size is begun anew.
const LARGEST_LOG: u64 = 16 << 20;

fn command(exe: &Path, name: &str, run: &RunDir) -> io::Result<Command> {
    let arguments = [name.as_ref(), "--run".as_ref(), run.path().as_os_str()];
    start(exe, arguments, &run.path().join(format!("{name}.log")))
}

fn start(exe: &Path, arguments: [&OsStr; 3], log: &Path) -> io::Result<Command> {
    // Descriptors that a careless ancestor left open must not live on in a process that outlives it.
    close_fds::set_fds_cloexec_threadsafe(3, &[]);
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(log)?;
    let mut command = Command::new(exe);
    command
        .args(arguments)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    Ok(command)
}
