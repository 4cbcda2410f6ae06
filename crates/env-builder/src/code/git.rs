//! Starting git: which arguments and variables every call has, and what its failures mean.
//!
//! Nothing is written to the user's configuration and no secret is in an argument: a login travels in
//! `GIT_CONFIG_KEY_n`/`GIT_CONFIG_VALUE_n` (git 2.31 or newer) as an HTTP header for one host.

use std::path::{Path, PathBuf};

use base64::Engine;
use clearml_support::command::{Command, CommandError};
use clearml_support::secret::Secret;

use crate::code::repo_url::Access;
use crate::error::FileError;
use crate::tools::Context;

/// Options of every call: no hooks, no transport that runs a command, no background jobs, no
/// submodules on the way, and no complaint about caches that another user owns.
const OPTIONS: [&str; 8] = [
    "safe.directory=*",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "protocol.ext.allow=never",
    "advice.detachedHead=false",
    "submodule.recurse=false",
    "gc.auto=0",
    "maintenance.auto=false",
];

/// Seconds without a byte after which an HTTP server is given up.
const SILENCE_SEC: &str = "300";
/// ssh, which asks nobody and gives a silent server up after five minutes.
const SSH: &str = "ssh -oBatchMode=yes -oConnectTimeout=60 -oServerAliveInterval=30 -oServerAliveCountMax=10";

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
    },
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
    header: Option<(String, String)>,
}

impl<'a> Git<'a> {
    /// Finds git. The login of `access` goes along with every call.
    pub(crate) fn new(context: &'a Context<'a>, access: Option<&Access>) -> Result<Self, GitError> {
        let program = context.find_program("git").ok_or(GitError::NotInstalled)?;
        let header = access.and_then(|access| {
            let (user, pass) = access.login.as_ref()?;
            let pair = format!("{user}:{}", pass.expose());
            let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
            context.redactor.add(pass);
            if pass.is_empty() {
                context.redactor.add(&Secret::new(user.clone()));
            }
            context.redactor.add(&Secret::new(encoded.clone()));
            Some((
                format!("http.{}.extraHeader", access.header_scope),
                format!("Authorization: Basic {encoded}"),
            ))
        });
        Ok(Self {
            context,
            program,
            header,
        })
    }

    /// A git command in a folder, with everything that each call has.
    pub(crate) fn command(&self, folder: &Path) -> Command {
        let mut command = with_defaults(self.context, self.context.command(&self.program)).cwd(folder);
        for name in FOREIGN {
            command = command.env_remove(name);
        }
        if let Some((key, value)) = &self.header {
            let count = self
                .context
                .var("GIT_CONFIG_COUNT")
                .and_then(|n| n.parse().ok())
                .unwrap_or(0_usize);
            command = command
                .env("GIT_CONFIG_COUNT", (count + 1).to_string())
                .env(format!("GIT_CONFIG_KEY_{count}"), key)
                .env(format!("GIT_CONFIG_VALUE_{count}"), value);
        }
        // Messages are searched for known phrases.
        command = command.env("LC_ALL", "C");
        OPTIONS
            .iter()
            .fold(command, |command, option| command.arg("-c").arg(option))
    }

    /// Runs a command with its output on the console; failure is an error.
    pub(crate) fn run(&self, doing: &'static str, command: &Command) -> Result<(), GitError> {
        let ended = self.context.stream(command)?;
        if ended.status.success() {
            return Ok(());
        }
        Err(GitError::Failed {
            doing,
            status: ended.status.to_string(),
            last_line: ended.last_line(),
        })
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
