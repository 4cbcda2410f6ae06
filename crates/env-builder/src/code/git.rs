//! Starting git: which arguments and variables every call has, and what its failures mean.
//!
//! Nothing is written to the user's configuration, and no secret is in an argument or a variable: git asks
//! our own program for logins ([`askpass`]), or reads a header from a file in memory.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clearml_support::command::{Command, CommandError};

use crate::code::askpass;
use crate::code::credentials::Access;
use crate::error::FileError;
use crate::request::Lfs;
use crate::tools::Context;

/// Options of every call: no hooks, no transport that runs a command, no background jobs, no
/// submodules on the way, no paths in questions for logins, and no complaint about caches that another
/// user owns.
const OPTIONS: [&str; 9] = [
    "safe.directory=*",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "protocol.ext.allow=never",
    "advice.detachedHead=false",
    "credential.useHttpPath=false",
    "submodule.recurse=false",
    "gc.auto=0",
    "maintenance.auto=false",
];

/// Seconds without a byte after which an HTTP server is given up.
const SILENCE_SEC: &str = "300";
/// ssh, which asks nobody and gives a silent server up after five minutes.
pub(crate) const SSH: &str =
    "ssh -oBatchMode=yes -oConnectTimeout=60 -oServerAliveInterval=30 -oServerAliveCountMax=10";

/// What makes git fetch files from LFS, as `git lfs install` would have it.
const LFS_OPTIONS: [&str; 4] = [
    "filter.lfs.clean=git-lfs clean -- %f",
    "filter.lfs.smudge=git-lfs smudge -- %f",
    "filter.lfs.process=git-lfs filter-process",
    "filter.lfs.required=true",
];

/// What makes git leave such files as pointers, also where its configuration demands git-lfs.
const WITHOUT_LFS: [&str; 4] = [
    "filter.lfs.clean=",
    "filter.lfs.smudge=",
    "filter.lfs.process=",
    "filter.lfs.required=false",
];

/// The pause before the first repetition after a fault of the network; every further one is four times as long.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// What git and curl say about faults that may be gone in a moment, in lower case.
const TRANSIENT: [&str; 13] = [
    "could not resolve host",
    "connection timed out",
    "operation timed out",
    "connection refused",
    "connection reset",
    "failed to connect",
    "couldn't connect",
    "early eof",
    "unexpected disconnect",
    "rpc failed",
    "error: 5",
    "operation too slow",
    "gnutls_handshake",
];

/// Variables that would make git work on another repository than the given one.
const FOREIGN: [&str; 7] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
];

/// The code could not be fetched or checked out.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is no git.
    #[error("there is no git on PATH; install it (for example `apt-get install git`)")]
    NotInstalled,
    /// The address is not one we hand to git.
    #[error("the address is refused: {0}")]
    Refused(&'static str),
    /// git said no.
    #[error(
        "{doing} failed ({status}): {last_line}; check the address, that the worker can reach it, and its credentials"
    )]
    Failed {
        /// What was being done.
        doing: &'static str,
        /// How git ended.
        status: String,
        /// What it said last.
        last_line: String,
        /// Whether it looks like a fault of the network that may be gone in a moment.
        transient: bool,
    },
    /// A submodule could not be brought to its commit.
    #[error(
        "submodule {path}: {last_line}; make it reachable for this worker, or set agent.git_ignore_submodule_errors"
    )]
    Submodule {
        /// Its path, or `(unknown)`.
        path: String,
        /// What git said last.
        last_line: String,
    },
    /// Files are kept in Git LFS.
    #[error(
        "the repository keeps files in Git LFS, but there is no git-lfs on PATH; install it (for example \
         `apt-get install git-lfs`), or set agent.git_lfs to skip"
    )]
    NoLfs,
    /// There is no hg.
    #[error("there is no hg on PATH; install it (for example `apt-get install mercurial`)")]
    NoMercurial,
    /// The commit, tag or branch is not in the repository.
    #[error("{wanted} does not exist in the repository; was it pushed?")]
    NoRevision {
        /// What was looked for.
        wanted: String,
    },
    /// git could not be run.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// Somebody cancelled the build.
    #[error("cancelled")]
    Cancelled,
}

/// git, ready to be called.
pub(crate) struct Git<'a> {
    context: &'a Context<'a>,
    program: PathBuf,
    access: Option<&'a Access>,
    /// Whether git-lfs is there and wanted.
    pub(crate) lfs: bool,
}

impl<'a> Git<'a> {
    /// Finds git. The logins of `access` go along with every call.
    pub(crate) fn new(context: &'a Context<'a>, access: Option<&'a Access>) -> Result<Self, GitError> {
        let program = context.find_program("git").ok_or(GitError::NotInstalled)?;
        let lfs = context.settings.git.lfs != Lfs::Skip && context.find_program("git-lfs").is_some();
        Ok(Self {
            context,
            program,
            access,
            lfs,
        })
    }

    /// A git command in a folder, with everything that each call has.
    pub(crate) fn command(&self, folder: &Path) -> Command {
        let mut command = with_defaults(self.context, self.context.command(&self.program)).cwd(folder);
        for name in FOREIGN {
            command = command.env_remove(name);
        }
        // Messages are searched for known phrases.
        command = command.env("LC_ALL", "C");
        let mut options: Vec<String> = OPTIONS.map(str::to_owned).to_vec();
        let lfs = if self.lfs { LFS_OPTIONS } else { WITHOUT_LFS };
        options.extend(lfs.map(str::to_owned));
        if let Some(access) = self.access {
            options.extend(access.options.iter().cloned());
            if let Some(header) = &access.header {
                options.push(format!("include.path={}", header.path().display()));
            }
            command = with_helper(self.context, command, access);
        }
        options
            .iter()
            .fold(command, |command, option| command.arg("-c").arg(option))
    }

    /// Runs a command with its output on the console; failure is an error.
    pub(crate) fn run(&self, doing: &'static str, command: &Command) -> Result<(), GitError> {
        let ended = self.context.stream(command)?;
        if ended.status.success() {
            return Ok(());
        }
        let transient = ended.tail.iter().any(|line| is_transient(line));
        Err(GitError::Failed {
            doing,
            status: ended.status.to_string(),
            last_line: ended.last_line(),
            transient,
        })
    }

    /// Like [`Git::run`], but repeats what failed for want of a network. `before` runs before each repetition.
    pub(crate) fn run_patiently(
        &self,
        doing: &'static str,
        command: &Command,
        before: impl Fn() -> Result<(), FileError>,
    ) -> Result<(), GitError> {
        let mut pause = FIRST_PAUSE;
        for _ in 0..self.context.settings.git.retries {
            match self.run(doing, command) {
                Err(GitError::Failed { transient: true, .. }) => {}
                result => return result,
            }
            self.context.warn(&format!(
                "{doing} failed for want of a network; once more in {} s",
                pause.as_secs()
            ));
            self.sleep(pause)?;
            pause *= 4;
            before()?;
        }
        self.run(doing, command)
    }

    fn sleep(&self, pause: Duration) -> Result<(), GitError> {
        let until = Instant::now() + pause;
        while Instant::now() < until {
            if self.context.host.cancel().is_cancelled() {
                return Err(GitError::Cancelled);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Whether a command that prints nothing of interest succeeds.
    pub(crate) fn succeeds(&self, command: &Command) -> Result<bool, GitError> {
        Ok(command.output()?.status.success())
    }

    /// The commit that a revision names, if it is in this repository.
    pub(crate) fn resolve(&self, repository: &Path, revision: &str) -> Result<Option<String>, GitError> {
        let command = self
            .command(repository)
            .args(["rev-parse", "--verify", "--quiet"])
            .arg(format!("{revision}^{{commit}}"));
        let output = command.output()?;
        let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(Some(id).filter(|id| output.status.success() && is_full_id(id)))
    }
}

/// Lets git, also as a child of the command, ask our own program for the logins of `access`.
pub(crate) fn with_helper(context: &Context<'_>, command: Command, access: &Access) -> Command {
    let (Some(rules), Some(program)) = (&access.rules, &context.settings.git.ask_pass_program) else {
        return command;
    };
    // Seen from git, /proc/self is git.
    let program = match program.strip_prefix("/proc/self") {
        Ok(rest) => Path::new("/proc").join(std::process::id().to_string()).join(rest),
        Err(_) => program.clone(),
    };
    let command = command
        .env("GIT_ASKPASS", program)
        .env(askpass::RULES, rules.path());
    match context.var("GIT_ASKPASS") {
        Some(next) => command.env(askpass::NEXT, next),
        None => command,
    }
}

fn is_transient(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    TRANSIENT.iter().any(|phrase| line.contains(phrase))
}

/// Never ask a person for anything, and never wait for a server that has fallen silent, unless the user's
/// own environment says how.
///
/// A server that works on its answer sends a sign of life every few seconds, so silence for that long is
/// a dead connection.
pub(crate) fn with_defaults(context: &Context<'_>, mut command: Command) -> Command {
    if context.var("GIT_TERMINAL_PROMPT").is_none() {
        command = command.env("GIT_TERMINAL_PROMPT", "0");
    }
    if context.var("GIT_SSH_COMMAND").is_none() && context.var("GIT_SSH").is_none() {
        command = command.env("GIT_SSH_COMMAND", SSH);
    }
    if context.var("GIT_HTTP_LOW_SPEED_LIMIT").is_none() && context.var("GIT_HTTP_LOW_SPEED_TIME").is_none() {
        command = command
            .env("GIT_HTTP_LOW_SPEED_LIMIT", "1")
            .env("GIT_HTTP_LOW_SPEED_TIME", SILENCE_SEC);
    }
    command
}

/// Whether a text is a complete object id (SHA-1 or SHA-256).
pub(crate) fn is_full_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.chars().all(|c| c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_the_network_are_told_from_others() {
        for line in [
            "fatal: unable to access 'https://h/a/': Could not resolve host: h",
            "fatal: unable to access 'http://h/a/': The requested URL returned error: 503",
            "ssh: connect to host h port 22: Connection refused",
            "fatal: early EOF",
        ] {
            assert!(is_transient(line), "{line}");
        }
        for line in [
            "fatal: Authentication failed for 'https://h/a/'",
            "fatal: unable to access 'http://h/a/': The requested URL returned error: 403",
            "fatal: repository '/x' does not exist",
            "Permission denied (publickey).",
        ] {
            assert!(!is_transient(line), "{line}");
        }
    }
}
