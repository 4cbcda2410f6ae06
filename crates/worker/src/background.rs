//! The daemon without a terminal: its log file, and `--detached`.
//!
//! A process with threads must not fork, so a detached daemon is this program started once more, in a
//! session of its own. It shares the terminal until it is about to serve: what goes wrong up to then is
//! said where the command was given, and the command ends with the same exit code. Then it turns to its
//! log file and tells the command, over the socket that it has as standard input, that it is well.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use clearml_support::process::{ProcessIdentity, detach_session};
use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use crate::stop::Stop;

/// A log that has grown beyond this is begun anew with the next task.
const MOST_BYTES: u64 = 16 << 20;
/// Exit code of a command that was ended by a signal.
const EXIT_SIGNAL: i32 = 254;

/// Where the daemon's output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Output {
    /// To the terminal, with messages about waiting.
    #[default]
    Terminal,
    /// To a log file; the process stays what the shell has started.
    Log,
    /// To a log file, from a process that [`start_detached`] has started.
    Detached,
}

/// The log file of a daemon in the background. Removed when dropped, unless it shall be kept.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    /// Only the present task is of interest.
    short: bool,
    keep: bool,
}

impl LogFile {
    pub(crate) fn create(folder: &Path, short: bool, keep: bool) -> io::Result<Self> {
        let random = &clearml_support::id::hex32()[..12];
        let path = folder.join(format!(".clearml_agent_daemon_out{random}.txt"));
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)?;
        Ok(Self {
            path,
            file,
            short,
            keep,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// From here on, standard output and error of this process go to the file. Each line at once, which
    /// satisfies every setting of `agent.log_files_buffering`.
    pub(crate) fn redirect(&self) -> io::Result<()> {
        io::stdout().flush()?;
        rustix::stdio::dup2_stdout(&self.file)?;
        rustix::stdio::dup2_stderr(&self.file)?;
        Ok(())
    }

    /// A task begins.
    pub(crate) fn begin_task(&self) {
        let large = self.file.metadata().is_ok_and(|file| file.len() > MOST_BYTES);
        if large || (self.short && !self.keep) {
            // The file is written at its end, wherever that is.
            if let Err(e) = self.file.set_len(0) {
                tracing::warn!("emptying {}: {e}", self.path.display());
            }
        }
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        if !self.keep {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Starts `program` with these arguments as a daemon that outlives this process, and waits until it serves.
/// Returns the exit code for this process: 0, or that of a daemon that could not start.
///
/// The started process must be a daemon with [`Output::Detached`].
///
/// # Errors
///
/// When the process can't be started or watched.
pub async fn start_detached(program: &Path, arguments: Vec<OsString>) -> io::Result<i32> {
    let stop = Stop::listen()?;
    let (ours, mut child) = spawn(program, arguments)?;
    ours.set_nonblocking(true)?;
    let mut ours = tokio::net::UnixStream::from_std(ours)?;
    let mut byte = [0];
    let read = tokio::select! {
        read = ours.read(&mut byte) => read,
        () = stop.wait() => {
            terminate(&mut child).await?;
            return Ok(EXIT_SIGNAL);
        }
    };
    if matches!(read, Ok(1)) {
        return Ok(0);
    }
    let status = child.wait().await?;
    // Killed by a signal: as the shell shows it.
    let signal = std::os::unix::process::ExitStatusExt::signal(&status).map(|signal| 128 + signal);
    // A daemon that ends well without having served has been told to end.
    Ok(status.code().or(signal).unwrap_or(1))
}

fn spawn(program: &Path, arguments: Vec<OsString>) -> io::Result<(UnixStream, Child)> {
    let (ours, theirs) = UnixStream::pair()?;
    // The command keeps its end of the socket, so it must not live on: the end of the daemon would not be
    // noticed.
    let child = Command::new(program)
        .args(arguments)
        .stdin(OwnedFd::from(theirs))
        .spawn()?;
    Ok((ours, child))
}

async fn terminate(child: &mut Child) -> io::Result<()> {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(process) = pid.and_then(|pid| ProcessIdentity::of(pid).ok().flatten()) {
        process.signal(Signal::TERM)?;
    }
    child.wait().await.map(drop)
}

/// The first thing that a detached daemon does: nothing that happens to the terminal reaches it any more.
///
/// # Errors
///
/// When the operating system refuses.
pub fn leave_terminal() -> io::Result<()> {
    detach_session()
}

/// The last thing before it serves. Its output must have left the terminal.
pub(crate) fn tell_starter() -> io::Result<()> {
    // A starter that was killed reads no more; the daemon goes on.
    let _gone = rustix::io::write(rustix::stdio::stdin(), b".");
    let nothing = File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_log_is_private_and_begins_anew_with_each_task_of_a_detached_daemon() {
        let folder = tempfile::tempdir().unwrap();
        for (short, keep, left, exists) in [
            (true, false, 0, false),
            (true, true, 4, true),
            (false, false, 4, false),
        ] {
            let log = LogFile::create(folder.path(), short, keep).unwrap();
            assert_eq!(log.path().metadata().unwrap().permissions().mode() & 0o777, 0o600);
            (&log.file).write_all(b"line").unwrap();
            log.begin_task();
            assert_eq!(log.path().metadata().unwrap().len(), left);
            let path = log.path().to_owned();
            drop(log);
            assert_eq!(path.exists(), exists);
        }
    }

    #[tokio::test]
    async fn the_exit_code_of_a_daemon_that_cannot_start_is_passed_on() {
        let run = |script: &str| start_detached(Path::new("/bin/sh"), vec!["-c".into(), script.into()]);
        assert_eq!(run("exit 3").await.unwrap(), 3);
        assert_eq!(run("kill -9 $$").await.unwrap(), 137);
        // It says that it is well and goes on; nobody waits for it.
        assert_eq!(run("printf . >&0; sleep 0.2").await.unwrap(), 0);
        assert!(start_detached(Path::new("/nowhere/agent"), vec![]).await.is_err());
    }
}
