//! What the files of a run directory contain. Pure data; reading and writing is in [`crate::run_dir`].
//!
//! Every file names its schema version. A version of the agent reads what its predecessor wrote, and
//! refuses what a newer one wrote instead of guessing.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clearml_support::process::ProcessIdentity;
use clearml_task_model::{QueueId, TaskId, WorkerId};
use serde::{Deserialize, Serialize};

pub use crate::os_text::OsText;
use crate::owner::OwnerSession;
use crate::phase::Phase;

/// The version that this program writes into every file of a run directory.
pub const SCHEMA: u32 = 1;

/// Implemented by every file of the run directory.
pub trait Versioned {
    /// The version found in the file.
    fn schema(&self) -> u32;
}

macro_rules! versioned {
    ($($name:ty),+) => { $(impl Versioned for $name { fn schema(&self) -> u32 { self.schema } })+ };
}
versioned!(
    RunRecord,
    RunInputs,
    Launch,
    Verdict,
    AbortIntent,
    Timeline,
    ShimClaim,
    ContainerRecord
);

/// What a run is about: fixed when the run is created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The task.
    pub task: TaskId,
    /// The queue it was pulled from; none when a person started it.
    pub queue: Option<QueueId>,
    /// The worker id under which the task runs.
    pub worker: WorkerId,
    /// The project, when it is known.
    #[serde(default)]
    pub project: Option<String>,
}

/// `run.json`: identity and phase of one run. The journal of the pop and of everything after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// File format.
    pub schema: u32,
    /// Name of the run, and of its folder.
    pub run_id: String,
    /// The boot in which the run was created.
    pub boot_id: String,
    /// The host on which it was created: several may share the folder.
    #[serde(default)]
    pub host: String,
    /// The version of the agent that created the run.
    pub agent_version: String,
    /// What is being run.
    pub identity: Identity,
    /// How far it has come.
    pub phase: Phase,
    /// When the run was created, in milliseconds since the epoch.
    pub created_ms: i64,
    /// The runner that looks after it, or the last one that did.
    #[serde(default)]
    pub runner: Option<ProcessIdentity>,
    /// Why user code did not run, or why nothing is known about its end.
    #[serde(default)]
    pub failure: Option<Failure>,
    /// How the run ends for the server: decided in phase [`Phase::Exited`].
    #[serde(default)]
    pub outcome: Option<Outcome>,
}

/// Why a run failed for another reason than the user's code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// `clone`, `environment`, `launch` or `infrastructure`.
    pub stage: String,
    /// What went wrong.
    pub text: String,
    /// The exit code that a program of the user has given instead of the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// It is certain that nothing of the run is alive any more.
    #[serde(default)]
    pub over: bool,
}

impl Failure {
    /// The agent or its machine is to blame. Something of the run may be alive.
    #[must_use]
    pub fn infrastructure(text: impl Into<String>) -> Self {
        Self {
            stage: "infrastructure".to_owned(),
            text: text.into(),
            exit_code: None,
            over: false,
        }
    }

    /// Somebody has removed the folder of the run under the agent's feet.
    #[must_use]
    pub fn folder_removed(folder: &Path) -> Self {
        Self::infrastructure(format!(
            "the folder of the run was removed while the task was running, so how it ended is unknown; see to it that \
             nothing, the task itself included, removes {}",
            folder.display()
        ))
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.stage, self.text)
    }
}

/// What the final status shall be. Decided once, written down, then reported until accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Which call tells the server.
    pub end: End,
    /// `status_reason` of that call.
    pub status_reason: String,
    /// The last line of the console, if there is one to write.
    #[serde(default)]
    pub line: Option<String>,
    /// The exit code of the user's program: 0–255, or minus the signal that ended it.
    #[serde(default)]
    pub exit_code: Option<i32>,
}

/// The call that ends a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// `tasks.completed`
    Completed,
    /// `tasks.failed`
    Failed,
    /// `tasks.stopped`
    Stopped,
    /// None: whoever changed the status has the last word, or there is no task any more.
    LeftAlone,
    /// The task goes back to its queue: its run has died, not its program.
    Requeued,
}

/// Everything from outside that a run depends on, so that a replaced runner, whatever its own
/// surroundings are, continues with the same. Holds secrets; mode 0600.
#[derive(Clone, Serialize, Deserialize)]
pub struct RunInputs {
    /// File format.
    pub schema: u32,
    /// The environment variables that the user's process inherits.
    pub environment: Vec<(OsText, OsText)>,
    /// The file mode mask that the user's process gets back.
    pub umask: u32,
    /// Command-line options that matter to the run.
    #[serde(default)]
    pub options: RunOptions,
    /// The session of the task's owner, if the run works in the owner's name. It has a file of its own.
    #[serde(skip)]
    pub owner: Option<OwnerSession>,
}

impl std::fmt::Debug for RunInputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunInputs")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl RunInputs {
    /// The surroundings of the calling process, with [`crate::umask::original`] as mask.
    #[must_use]
    pub fn from_process(options: RunOptions) -> Self {
        Self {
            schema: SCHEMA,
            environment: options.environment(std::env::vars_os()),
            umask: crate::umask::original(),
            options,
            owner: None,
        }
    }
}

/// Command-line options that a run carries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunOptions {
    /// How many `-O` the Python interpreter gets.
    pub optimization: u8,
    /// `CLEARML_LOG_LEVEL` of the user's process; `INFO` when unset.
    pub log_level: Option<String>,
    /// Tags for `CLEARML_WORKER_TAGS`.
    pub worker_tags: Vec<String>,
    /// Variables that the task gets, or does not get where the value is `None`, whatever the environment of
    /// the agent has.
    pub variables: Vec<(String, Option<String>)>,
    /// The task is one of many that its daemon runs at the same time; it is a worker of its own then.
    pub service: bool,
    /// The limit of open files that the task gets back, where the agent has raised its own.
    pub open_files: Option<u64>,
    /// The task runs in a container.
    pub container: Option<ContainerOptions>,
}

/// What `--docker` or `--podman` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerOptions {
    /// Image and arguments; the configured ones where there are none.
    pub words: Vec<String>,
    /// Where the official agent is installed: the version that this one stands for, not the latest.
    pub current_version: bool,
}

/// The worker that a service is, on a daemon with this id.
#[must_use]
pub fn service_worker(daemon: &WorkerId, task: &TaskId) -> WorkerId {
    format!("{daemon}:service:{task}").into()
}

impl RunOptions {
    fn environment(&self, process: impl Iterator<Item = (OsString, OsString)>) -> Vec<(OsText, OsText)> {
        let named = |name: &OsString| self.variables.iter().any(|(own, _)| OsStr::new(own) == name);
        let own = self
            .variables
            .iter()
            .filter_map(|(name, value)| Some((name.into(), value.as_ref()?.into())));
        process
            .filter(|(name, _)| !named(name))
            .chain(own)
            .map(|(name, value)| (OsText(name), OsText(value)))
            .collect()
    }
}

/// `launch.json`: everything the shim needs. Holds secrets; mode 0600.
#[derive(Clone, Serialize, Deserialize)]
pub struct Launch {
    /// File format.
    pub schema: u32,
    /// Program and arguments.
    pub argv: Vec<OsText>,
    /// The complete environment.
    pub env: Vec<(OsText, OsText)>,
    /// Working folder.
    pub cwd: PathBuf,
    /// File mode mask of the user's process.
    pub umask: u32,
    /// Time between SIGTERM and SIGKILL when the task is aborted.
    pub grace_ms: u64,
    /// Time that processes get which outlive the main one.
    pub leftover_grace_ms: u64,
    /// Size at which a console segment is closed and the next one begun.
    pub segment_bytes: u64,
    /// Size of the unshipped console at which output is dropped.
    pub console_max_bytes: u64,
    /// What to run when the task is aborted, before its program is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort_command: Option<AbortCommand>,
    /// The limit of open files that the user's process gets; that of the shim when `None`.
    #[serde(default)]
    pub open_files: Option<u64>,
    /// The shim is the first process of a container. The program inherits its variables, and without `cwd` its
    /// folder; what it writes is for a user outside to read.
    #[serde(default)]
    pub contained: bool,
    /// The container is started again when it ends, so that there may have been shims before.
    #[serde(default)]
    pub restarts: bool,
}

/// A command that saves the work of a task that is aborted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbortCommand {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// How long it may take.
    pub limit_sec: u64,
}

impl std::fmt::Debug for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launch")
            .field("argv", &self.argv)
            .field("cwd", &self.cwd)
            .finish_non_exhaustive()
    }
}

/// `shim.json`: the claim of the one shim that runs the user's code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimClaim {
    /// File format.
    pub schema: u32,
    /// The shim. Its pid is also the session id of everything below it.
    pub shim: ProcessIdentity,
    /// When it claimed the run, in milliseconds since the epoch.
    pub claimed_ms: i64,
    /// The control group of everything below it, where it could have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<PathBuf>,
}

/// `container.json`: the container of the run. Written before it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// File format.
    pub schema: u32,
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
}

/// `verdict.json`: how the user's code ended. Written by the shim, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// File format.
    pub schema: u32,
    /// Exit code, when the program exited.
    pub exit_code: Option<i32>,
    /// Signal number, when a signal ended it.
    pub signal: Option<i32>,
    /// Why the program could not be started; then there is neither code nor signal.
    pub launch_error: Option<String>,
    /// When the program was started, in milliseconds since the epoch.
    pub started_ms: i64,
    /// When it ended.
    pub finished_ms: i64,
    /// Whether the shim was told to stop it.
    pub aborted: bool,
    /// Lines of output that did not fit on the disk.
    pub dropped_lines: u64,
    /// Bytes of output that did not fit on the disk.
    pub dropped_bytes: u64,
    /// Processes that were still there after SIGKILL and the last waiting time.
    pub survivors: u32,
}

impl Verdict {
    /// A program that has ended with this code, as [`Self::code`] shows it; `None` while its end is not known.
    /// Everything else is nothing yet.
    #[must_use]
    pub fn of(code: Option<i32>) -> Self {
        Self {
            schema: SCHEMA,
            exit_code: code.filter(|code| *code >= 0),
            signal: code.filter(|code| *code < 0).map(|code| -code),
            launch_error: None,
            started_ms: 0,
            finished_ms: 0,
            aborted: false,
            dropped_lines: 0,
            dropped_bytes: 0,
            survivors: 0,
        }
    }

    /// The exit code as reports show it: 0–255, or minus the signal.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.exit_code.or(self.signal.map(|signal| -signal))
    }
}

/// Why a task has to end before its program does. Numbers and names are those of the console line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AbortReason {
    /// A person asked the server to stop the task.
    Stopped,
    /// The task was reset while it ran.
    Reset,
    /// Somebody gave the task another status.
    StatusChanged,
    /// The task was marked failed.
    Exception,
    /// The task is not on the server any more.
    NotFound,
    /// The agent itself was told to end.
    AgentStopped,
}

impl AbortReason {
    /// Number and name for `User aborted: stopping task (1) stopped`; none for our own stop.
    #[must_use]
    pub fn label(self) -> Option<(u8, &'static str)> {
        match self {
            Self::Stopped => Some((1, "stopped")),
            Self::Reset => Some((2, "reset")),
            Self::StatusChanged => Some((3, "status_changed")),
            Self::Exception => Some((4, "exception")),
            Self::NotFound => Some((5, "not_found")),
            Self::AgentStopped => None,
        }
    }
}

/// `abort.json`: the decision to abort, written before it is acted upon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbortIntent {
    /// File format.
    pub schema: u32,
    /// Why.
    pub reason: AbortReason,
    /// When it was decided, in milliseconds since the epoch.
    pub decided_ms: i64,
}

/// `timeline.json`: when the stations of the journey were reached and how long they took.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// File format.
    pub schema: u32,
    /// In order of their start.
    pub marks: Vec<Mark>,
}

/// One station.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// `pulled`, `clone`, `environment`, `launch`, `run` or `end`.
    pub name: String,
    /// When it began, in milliseconds since the epoch.
    pub ms: i64,
    /// How long it took, for stations that take time.
    pub duration_ms: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_with_secrets_do_not_show_them_in_debug() {
        let inputs = RunInputs {
            schema: SCHEMA,
            environment: vec![("KEY".into(), "hidden-value".into())],
            umask: 0o22,
            options: RunOptions::default(),
            owner: None,
        };
        assert!(!format!("{inputs:?}").contains("hidden-value"));
    }
}
