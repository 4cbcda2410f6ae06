//! Running an external program: an argument vector, never a shell string.
//!
//! A command runs in a process group of its own, reads nothing but what it is given, has a time
//! limit, can be cancelled from another thread, and leaves no descendant behind when it is stopped.
//! What it prints is bounded in memory and cleaned of secrets before anybody sees it.

mod running;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use crate::redact::Redactor;
use running::{Running, pump};

/// Lines are handed on in pieces of at most this many bytes.
const MAX_LINE: usize = 64 << 10;
/// How much of each stream [`Command::output`] keeps.
const MAX_CAPTURE: usize = 64 << 20;
/// How many lines of what a failed command printed go into its error.
const ERROR_LINES: usize = 20;

/// Asks running commands to stop. Clones are the same token.
#[derive(Debug, Clone, Default)]
pub struct CancelToken {
    flag: Arc<AtomicBool>,
    /// Cancelling this one cancels that of the token, but not the other way round.
    parent: Option<Arc<CancelToken>>,
    deadline: Option<Instant>,
}

impl CancelToken {
    /// A token that is not cancelled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A token that is cancelled with this one, on its own, or at a point of time.
    #[must_use]
    pub fn child(&self, deadline: Option<Instant>) -> Self {
        Self {
            flag: Arc::default(),
            parent: Some(Arc::new(self.clone())),
            deadline,
        }
    }

    /// Stops everything that holds this token or a child of it.
    pub fn cancel(&self) {
        self.flag.store(true, Ordering::Release);
    }

    /// Whether [`CancelToken::cancel`] was called, here or at the token that this is a child of, or the time
    /// is over.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.flag.load(Ordering::Acquire)
            || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
            || self.parent.as_ref().is_some_and(|parent| parent.is_cancelled())
    }
}

/// A command could not be run, was stopped, or failed. Texts are redacted.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The program could not be started.
    #[error("starting `{command}`: {source}")]
    Start {
        /// Program and arguments.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// Its pipes or its exit status could not be read.
    #[error("talking to `{command}`: {source}")]
    Io {
        /// Program and arguments.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// It ran longer than allowed and was stopped.
    #[error("`{command}` took longer than {limit:?} and was stopped")]
    TimedOut {
        /// Program and arguments.
        command: String,
        /// The limit.
        limit: Duration,
    },
    /// Somebody cancelled it.
    #[error("`{command}` was cancelled")]
    Cancelled {
        /// Program and arguments.
        command: String,
    },
    /// It ended with a status other than 0 (only from [`Command::check`]).
    #[error("`{command}` failed with {status}{}", tail(last_lines))]
    Failed {
        /// Program and arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it printed.
        last_lines: String,
    },
}

fn tail(lines: &str) -> String {
    if lines.is_empty() {
        String::new()
    } else {
        format!(":\n{lines}")
    }
}

impl CommandError {
    /// Whether the reason is that the program does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Start { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether somebody cancelled it.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled { .. })
    }
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// The first 64 MiB of its standard output.
    pub stdout: Vec<u8>,
    /// The first 64 MiB of its standard error.
    pub stderr: Vec<u8>,
}

/// An external program with its arguments, environment and limits.
#[derive(Debug)]
pub struct Command {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, Option<OsString>)>,
    env_clear: bool,
    cwd: Option<PathBuf>,
    stdin: Vec<u8>,
    timeout: Option<Duration>,
    cancel: CancelToken,
    redactor: Redactor,
}

impl Command {
    /// A command without arguments, in the current folder and environment, without a time limit.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            env_clear: false,
            cwd: None,
            stdin: Vec::new(),
            timeout: None,
            cancel: CancelToken::new(),
            redactor: Redactor::new(),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I>(mut self, args: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env
            .push((key.as_ref().to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    /// Removes an environment variable.
    #[must_use]
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        self.env.push((key.as_ref().to_owned(), None));
        self
    }

    /// Starts from an empty environment; variables set before or after this call are kept.
    #[must_use]
    pub fn env_clear(mut self) -> Self {
        self.env_clear = true;
        self
    }

    /// The folder to run in.
    #[must_use]
    pub fn cwd(mut self, folder: impl AsRef<Path>) -> Self {
        self.cwd = Some(folder.as_ref().to_owned());
        self
    }

    /// What the program reads from its standard input; nothing by default.
    #[must_use]
    pub fn stdin_bytes(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// The longest time the program may run.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Stops the program when this token is cancelled.
    #[must_use]
    pub fn cancel(mut self, token: &CancelToken) -> Self {
        self.cancel = token.clone();
        self
    }

    /// Removes these secrets from lines and errors.
    #[must_use]
    pub fn redactor(mut self, redactor: &Redactor) -> Self {
        self.redactor = redactor.clone();
        self
    }

    /// Program and arguments for people: quoted where needed, without secrets.
    #[must_use]
    pub fn describe(&self) -> String {
        let words: Vec<String> = std::iter::once(&self.program)
            .chain(&self.args)
            .map(|word| {
                let text = word.to_string_lossy();
                let plain = |c: char| c.is_alphanumeric() || "-_./=:@%+,~".contains(c);
                if !text.is_empty() && text.chars().all(plain) {
                    text.into_owned()
                } else {
                    format!("{text:?}")
                }
            })
            .collect();
        self.redactor.redact(&words.join(" ")).into_owned()
    }

    /// Runs the program and hands every line it prints, on either stream and in the order in which it
    /// was printed, to `sink`: without the line end, redacted, with replacement characters for bytes
    /// that are not UTF-8, in pieces of at most 64 KiB.
    ///
    /// # Errors
    ///
    /// When it can't be started, is cancelled, or runs out of time. An exit status other than 0 is
    /// not an error here.
    pub fn run_streamed(&self, sink: &mut dyn FnMut(&str)) -> Result<ExitStatus, CommandError> {
        let (reader, writer) = io::pipe().map_err(|e| self.io_error(e))?;
        let second = writer.try_clone().map_err(|e| self.io_error(e))?;
        let (sender, receiver) = sync_channel(64);
        let mut lines = LineSplitter::default();
        let mut hand_on = |piece: &[u8]| sink(&self.redactor.redact(&String::from_utf8_lossy(piece)));
        let running = Running::start(self, Stdio::from(writer), Stdio::from(second))?;
        pump(reader, 0, sender);
        let status = running.finish(self, &receiver, &mut |_, chunk| lines.push(chunk, &mut hand_on))?;
        lines.end(&mut hand_on);
        Ok(status)
    }

    /// Runs the program and keeps what it prints, up to 64 MiB a stream.
    ///
    /// # Errors
    ///
    /// As [`Command::run_streamed`].
    pub fn output(&self) -> Result<Output, CommandError> {
        let (out_reader, out_writer) = io::pipe().map_err(|e| self.io_error(e))?;
        let (err_reader, err_writer) = io::pipe().map_err(|e| self.io_error(e))?;
        let (sender, receiver) = sync_channel(64);
        let running = Running::start(self, Stdio::from(out_writer), Stdio::from(err_writer))?;
        pump(out_reader, 0, sender.clone());
        pump(err_reader, 1, sender);
        let mut kept = [Vec::new(), Vec::new()];
        let status = running.finish(self, &receiver, &mut |stream, chunk| {
            let room = MAX_CAPTURE.saturating_sub(kept[stream].len());
            kept[stream].extend_from_slice(&chunk[..chunk.len().min(room)]);
        })?;
        let [stdout, stderr] = kept;
        Ok(Output {
            status,
            stdout,
            stderr,
        })
    }

    /// Like [`Command::output`], but an exit status other than 0 is an error that carries the end of
    /// what the program printed.
    ///
    /// # Errors
    ///
    /// As [`Command::run_streamed`], and [`CommandError::Failed`].
    pub fn check(&self) -> Result<Output, CommandError> {
        let output = self.output()?;
        if output.status.success() {
            return Ok(output);
        }
        let text = if output.stderr.is_empty() {
            &output.stdout
        } else {
            &output.stderr
        };
        let text = String::from_utf8_lossy(text);
        let lines: Vec<&str> = text.trim_end().lines().collect();
        let last = lines[lines.len().saturating_sub(ERROR_LINES)..].join("\n");
        Err(CommandError::Failed {
            command: self.describe(),
            status: output.status,
            last_lines: self.redactor.redact(&last).into_owned(),
        })
    }

    fn io_error(&self, source: io::Error) -> CommandError {
        CommandError::Io {
            command: self.describe(),
            source,
        }
    }
}

/// Cuts a stream of bytes into lines of bounded length.
#[derive(Default)]
struct LineSplitter {
    rest: Vec<u8>,
}

impl LineSplitter {
    fn push(&mut self, chunk: &[u8], line: &mut dyn FnMut(&[u8])) {
        for piece in chunk.split_inclusive(|b| *b == b'\n') {
            self.rest.extend_from_slice(piece);
            if self.rest.last() == Some(&b'\n') {
                self.rest.pop();
                if self.rest.last() == Some(&b'\r') {
                    self.rest.pop();
                }
                line(&self.rest);
                self.rest.clear();
            } else if self.rest.len() >= MAX_LINE {
                line(&self.rest);
                self.rest.clear();
            }
        }
    }

    fn end(&mut self, line: &mut dyn FnMut(&[u8])) {
        if !self.rest.is_empty() {
            line(&self.rest);
            self.rest.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::process::ProcessIdentity;
    use crate::secret::Secret;

    fn python(code: &str) -> Command {
        Command::new("python3").args(["-c", code])
    }

    #[test]
    fn lines_of_both_streams_arrive_in_order_and_without_secrets() {
        let redactor = Redactor::new();
        redactor.add(&Secret::new("pa55word"));
        let mut lines = Vec::new();
        let code = "import os\nfor i in range(3):\n os.write(1,b'out %d\\n'%i); os.write(2,b'pa55word %d\\r\\n'%i)\nos.write(1,b'\\xff end')";
        let status = python(code)
            .redactor(&redactor)
            .run_streamed(&mut |line| lines.push(line.to_owned()))
            .unwrap();
        assert!(status.success());
        assert_eq!(
            lines,
            [
                "out 0",
                "**** 0",
                "out 1",
                "**** 1",
                "out 2",
                "**** 2",
                "\u{fffd} end"
            ]
        );
    }

    #[test]
    fn a_failed_command_tells_how_and_why() {
        let error = python("import sys; print('reason', file=sys.stderr); sys.exit(3)")
            .check()
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("exit status: 3") && text.contains("reason"),
            "{text}"
        );
    }

    #[test]
    fn a_missing_program_is_recognised() {
        assert!(
            Command::new("no-such-program-at-all")
                .output()
                .unwrap_err()
                .is_not_found()
        );
    }

    #[test]
    fn large_input_and_output_do_not_deadlock() {
        let input = vec![b'x'; 1 << 20];
        let output = Command::new("cat").stdin_bytes(input.clone()).check().unwrap();
        assert_eq!(output.stdout, input);
    }

    /// A grandchild in a session of its own, which ignores the polite signal, must be gone too.
    #[test]
    fn the_whole_tree_is_gone_after_a_time_out() {
        let folder = tempfile::tempdir().unwrap();
        let pid_file = folder.path().join("pid");
        let code = format!(
            "import os,signal,time\nif os.fork() == 0:\n os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN)\n open({:?},'w').write(str(os.getpid()))\ntime.sleep(600)",
            pid_file.to_str().unwrap()
        );
        let error = python(&code)
            .timeout(Duration::from_secs(1))
            .output()
            .unwrap_err();
        assert!(matches!(error, CommandError::TimedOut { .. }), "{error}");
        let pid: i32 = std::fs::read_to_string(pid_file).unwrap().parse().unwrap();
        let gone = ProcessIdentity::of(pid).unwrap().is_none_or(|p| !p.is_alive());
        assert!(gone, "grandchild {pid} is still running");
    }

    /// As pip keeps what it downloads: a folder that Python removes when the program ends by itself.
    #[test]
    fn a_program_that_is_stopped_cleans_up() {
        let folder = tempfile::tempdir().unwrap();
        let code = "import tempfile,time\nwith tempfile.TemporaryDirectory():\n print('up', flush=True)\n time.sleep(600)";
        let token = CancelToken::new();
        let error = python(code)
            .env("TMPDIR", folder.path())
            .cancel(&token)
            .run_streamed(&mut |_| {
                assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
                token.cancel();
            })
            .unwrap_err();
        assert!(error.is_cancelled(), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        // What hears neither wish is killed.
        let deaf = "import signal,time\nfor s in (2, 15): signal.signal(s, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)";
        let token = CancelToken::new();
        let stopped = python(deaf).cancel(&token).run_streamed(&mut |_| token.cancel());
        assert!(stopped.unwrap_err().is_cancelled());
    }

    /// As a process that a script has put into the background.
    #[test]
    fn it_does_so_too_where_this_process_ignores_interrupts() {
        let test = "command::tests::a_program_that_is_stopped_cleans_up";
        let status = std::process::Command::new("sh")
            .args(["-c", "trap '' INT QUIT; exec \"$0\" --exact \"$1\""])
            .arg(std::env::current_exe().unwrap())
            .arg(test)
            .stdout(Stdio::null())
            .status();
        assert!(status.unwrap().success());
    }

    #[test]
    fn a_child_ends_with_its_parent_on_its_own_or_in_time() {
        let parent = CancelToken::new();
        let (child, late) = (parent.child(None), parent.child(Some(Instant::now())));
        assert!(!child.is_cancelled() && late.is_cancelled() && !parent.is_cancelled());
        let grandchild = child.child(None);
        child.cancel();
        assert!(grandchild.is_cancelled() && !parent.is_cancelled());
        let other = parent.child(None);
        parent.cancel();
        assert!(other.is_cancelled());
    }

    #[test]
    fn cancelling_from_another_thread_stops_it() {
        let token = CancelToken::new();
        let other = token.clone();
        let canceller = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            other.cancel();
        });
        let error = Command::new("sleep")
            .arg("600")
            .cancel(&token)
            .output()
            .unwrap_err();
        assert!(error.is_cancelled(), "{error}");
        canceller.join().unwrap();
    }
}
