//! The glue without a terminal (`--detached`), and `--stop`.
//!
//! A process with threads must not fork, so a glue in the background is this program started once more. Each glue
//! leaves its process in the folder of its journal, by which it can be found and ended.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clearml_support::fs::{create_private_dir, read_json, write_json_atomic};
use clearml_support::process::{ProcessIdentity, detach_session};
use rustix::process::Signal;

/// How long a glue may take to end: it finishes what it is submitting.
const END: Duration = Duration::from_secs(120);
/// How long it may take to begin.
const BEGIN: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(50);

fn note(state: &Path) -> PathBuf {
    state.join("process.json")
}

/// The process of the glue of this folder.
pub(crate) fn running(state: &Path) -> Option<ProcessIdentity> {
    let found: ProcessIdentity = read_json(&note(state)).ok()?;
    found.is_alive().then_some(found)
}

/// Notes this process as the glue of this folder; one in the background leaves its terminal.
pub(crate) fn announce(state: &Path, in_background: bool) -> Result<()> {
    if in_background {
        // It may be the leader of a group of processes already.
        if let Err(error) = detach_session() {
            tracing::debug!("staying in the session of the caller: {error}");
        }
    }
    let me = ProcessIdentity::current().context("reading the process table")?;
    Ok(write_json_atomic(&note(state), &me, 0o600)?)
}

/// Ends the glue of this folder.
pub(crate) fn stop(state: &Path) -> Result<u8> {
    let Some(glue) = running(state) else {
        bail!(
            "no glue works in {}; --state-dir or the worker's name may be another",
            state.display()
        );
    };
    glue.signal(Signal::TERM).context("ending the glue")?;
    let begun = Instant::now();
    while glue.is_alive() {
        if begun.elapsed() > END {
            bail!("the glue has not ended within {END:?}; a command of Slurm may hang");
        }
        std::thread::sleep(PAUSE);
    }
    tracing::info!("the glue has ended; its jobs go on");
    Ok(0)
}

/// Starts the same glue in the background, and waits until it works.
pub(crate) fn start(state: &Path) -> Result<u8> {
    create_private_dir(state).with_context(|| format!("making {}", state.display()))?;
    let path = state.join("glue.log");
    let log = File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    let arguments = std::env::args_os()
        .skip(1)
        .filter(|argument| argument != "--detached");
    let mut child = Command::new(std::env::current_exe().context("finding this program")?)
        .args(arguments)
        .arg("--in-background")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("starting the glue in the background")?;
    let pid = i32::try_from(child.id())?;
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            tracing::error!("the glue has ended at once ({status}); see {}", path.display());
            return Ok(code.unwrap_or(1));
        }
        let is_it = |glue: ProcessIdentity| ProcessIdentity::of(pid).ok().flatten() == Some(glue);
        if running(state).is_some_and(is_it) {
            tracing::info!(
                "the glue works in the background as process {pid}; its log is {}",
                path.display()
            );
            return Ok(0);
        }
        if begun.elapsed() > BEGIN {
            bail!(
                "the glue has not begun to work within {BEGIN:?}; see {}",
                path.display()
            );
        }
        std::thread::sleep(PAUSE);
    }
}
