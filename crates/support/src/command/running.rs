//! A program while it runs: its output, its end, and stopping it with everything below it.

use std::io::{self, PipeReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::{Command, CommandError};
use crate::process::{ProcessIdentity, descendants, end_inheritance_of_ignored_signals};

/// How often a running command is looked at for its end, its time limit and a cancellation.
const TICK: Duration = Duration::from_millis(20);
/// How long descendants may hold the output open after the program itself has ended.
const DRAIN: Duration = Duration::from_secs(2);
/// How a program is asked to end, and how long it may take to clean up, before it is killed. Programs in Python, pip
/// and its gigabytes among them, remove what they have begun after an interrupt only.
const WISHES: [(Signal, Duration); 2] = [
    (Signal::INT, Duration::from_secs(2)),
    (Signal::TERM, Duration::from_secs(2)),
];
/// How long what was killed may take to be gone.
const GRACE: Duration = Duration::from_secs(3);

/// A started program. Dropping it on an early return kills the tree.
pub(super) struct Running {
    child: Child,
    ended: bool,
}

impl Running {
    pub(super) fn start(command: &Command, stdout: Stdio, stderr: Stdio) -> Result<Self, CommandError> {
        let mut std_command = std::process::Command::new(&command.program);
        std_command
            .args(&command.args)
            .stdout(stdout)
            .stderr(stderr)
            .process_group(0);
        std_command.stdin(if command.stdin.is_empty() {
            Stdio::null()
        } else {
            Stdio::piped()
        });
        if command.env_clear {
            std_command.env_clear();
        }
        for (key, value) in &command.env {
            match value {
                Some(value) => std_command.env(key, value),
                None => std_command.env_remove(key),
            };
        }
        if let Some(folder) = &command.cwd {
            std_command.current_dir(folder);
        }
        end_inheritance_of_ignored_signals();
        let mut child = std_command.spawn().map_err(|source| CommandError::Start {
            command: command.describe(),
            source,
        })?;
        if let Some(mut stdin) = child.stdin.take() {
            let bytes = command.stdin.clone();
            // A program that does not read its input must not block us; a broken pipe is its choice.
            thread::spawn(move || drop(stdin.write_all(&bytes)));
        }
        Ok(Self { child, ended: false })
    }

    /// Feeds output to `take` until the program has ended and its output is drained.
    pub(super) fn finish(
        mut self,
        command: &Command,
        output: &Receiver<(usize, Vec<u8>)>,
        take: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<ExitStatus, CommandError> {
        let started = Instant::now();
        let mut drain_until = None;
        let mut open = true;
        loop {
            if open {
                match output.recv_timeout(TICK) {
                    Ok((stream, chunk)) => take(stream, &chunk),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => open = false,
                }
            } else if drain_until.is_none() {
                // All pipes are closed: what remains is to wait for the program itself.
                thread::sleep(Duration::from_millis(1));
            }
            if drain_until.is_none() && self.child.try_wait().map_err(|e| command.io_error(e))?.is_some() {
                drain_until = Some(Instant::now() + DRAIN);
            }
            if let Some(until) = drain_until
                && (!open || Instant::now() >= until)
            {
                self.ended = true;
                let status = self.child.wait().map_err(|e| command.io_error(e))?;
                kill_group(&self.child, Signal::KILL);
                return Ok(status);
            }
            if command.cancel.is_cancelled() {
                self.stop();
                return Err(CommandError::Cancelled {
                    command: command.describe(),
                });
            }
            if let Some(limit) = command.timeout.filter(|limit| started.elapsed() >= *limit) {
                self.stop();
                return Err(CommandError::TimedOut {
                    command: command.describe(),
                    limit,
                });
            }
        }
    }

    /// Asks the whole tree to end, kills what has not after a grace period, and waits until it is gone.
    fn stop(&mut self) {
        let mut tree = self.tree();
        for (wish, patience) in WISHES {
            kill_group(&self.child, wish);
            kill_all(&tree, wish);
            let deadline = Instant::now() + patience;
            while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
                thread::sleep(TICK);
            }
            tree.extend(self.tree());
            if !matches!(self.child.try_wait(), Ok(None)) {
                break;
            }
        }
        kill_group(&self.child, Signal::KILL);
        kill_all(&tree, Signal::KILL);
        // Reaping can't fail in a way that we could act on: the process was killed.
        drop(self.child.wait());
        self.ended = true;
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline && tree.iter().any(ProcessIdentity::is_alive) {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn tree(&self) -> Vec<ProcessIdentity> {
        descendants(self.child.id().cast_signed())
            .into_iter()
            .filter_map(|pid| ProcessIdentity::of(pid).ok()?)
            .collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.stop();
        }
    }
}

fn kill_group(child: &Child, signal: Signal) {
    if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
        // No such group means that all of it has ended, which is what we want.
        let _ = rustix::process::kill_process_group(group, signal);
    }
}

fn kill_all(tree: &[ProcessIdentity], signal: Signal) {
    for process in tree {
        // A process that can't be signalled is gone or not ours; either way there is nothing to do.
        let _ = process.signal(signal);
    }
}

/// Reads a pipe on a thread of its own until it closes. The bounded channel holds the program back
/// when nobody takes its output.
pub(super) fn pump(mut pipe: PipeReader, stream: usize, sender: SyncSender<(usize, Vec<u8>)>) {
    thread::spawn(move || {
        let mut buffer = [0; 8 << 10];
        loop {
            match pipe.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => {
                    if sender.send((stream, buffer[..n].to_vec())).is_err() {
                        return;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
}
