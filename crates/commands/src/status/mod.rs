//! What the agents of this machine do at the moment, for a person; and what is stuck, and what to do about
//! it.
//!
//! Everything is read from this machine: the register of workers, the files that daemons keep about
//! themselves ([`Presence`](clearml_intake::Presence)), the run directories, and `/proc`. No server is asked,
//! because the display is wanted most when the server is away. Nothing is locked and nothing changed; what
//! is shown may be a moment old.
//!
//! A [`Collector`] makes an [`Overview`]; the explanation of what is stuck (`trouble`) and the text (`text`)
//! are pure functions of it; [`watch`] shows one after the other on a terminal.
//!
//! # The JSON form
//!
//! It is [`Overview`] as it stands. Names and meanings of fields stay; fields may be added. Times are
//! milliseconds since the epoch, sizes are bytes, what is not known is `null`.

mod collect;
mod memory;
mod screen;
mod text;
mod trouble;

use clearml_intake::{Pause, QueuePresence};
use clearml_task_model::{QueueId, TaskId, WorkerId};
use clearml_task_runner::Phase;
use clearml_task_runner::record::{AbortReason, End};
use serde::Serialize;

pub use collect::Collector;
pub use screen::watch;
pub use text::{Style, render};

/// The version of the JSON form.
pub const SCHEMA: u32 = 1;

/// All that is shown.
#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    /// The version of this form.
    pub schema: u32,
    /// When it was made.
    pub now_ms: i64,
    /// The name of this machine.
    pub host: String,
    /// Where the runs were looked for.
    pub state_dir: String,
    /// Nothing can be written there, because the disk is full.
    pub state_dir_full: bool,
    /// The agents that wait for tasks or run them.
    pub workers: Vec<Worker>,
    /// The tasks that are not done, oldest first.
    pub tasks: Vec<Task>,
    /// A few that ended last, the latest first.
    pub ended: Vec<Ended>,
    /// What does not go on by itself, or only with a delay.
    pub trouble: Vec<Trouble>,
}

/// An agent of this machine.
#[derive(Debug, Clone, Serialize)]
pub struct Worker {
    /// Its id.
    pub worker: WorkerId,
    /// Its process.
    pub pid: i32,
    /// What it says about itself; `null` for one that uses another state folder or is another program.
    pub details: Option<Details>,
}

/// What a daemon says about itself.
#[derive(Debug, Clone, Serialize)]
pub struct Details {
    /// Its version.
    pub version: String,
    /// Since when it serves.
    pub started_ms: i64,
    /// The server.
    pub server: String,
    /// Since when the server has had trouble, if it has.
    pub server_away_since_ms: Option<i64>,
    /// Its queues, the most important one first.
    pub queues: Vec<QueuePresence>,
    /// When it last looked at them.
    pub looked_ms: Option<i64>,
    /// The GPUs of its tasks.
    pub gpus: Option<String>,
    /// Why it takes no tasks for a while.
    pub paused: Option<Pause>,
    /// After how many seconds it takes over what another daemon has left.
    pub adopts_after_sec: Option<f64>,
}

/// A task that is not done.
#[derive(Debug, Clone, Serialize)]
pub struct Task {
    /// Its id.
    pub task: TaskId,
    /// The name of its run, which is that of its folder.
    pub run: String,
    /// The worker it runs under.
    pub worker: WorkerId,
    /// The queue it came from.
    pub queue: Option<QueueId>,
    /// The name of that queue, if a daemon knows it.
    pub queue_name: Option<String>,
    /// How far it has come.
    pub phase: Phase,
    /// The last station that was noted: `clone`, `environment`, `run`, …
    pub station: Option<String>,
    /// When that station was reached.
    pub station_ms: Option<i64>,
    /// When the agent took it.
    pub created_ms: i64,
    /// The machine on which it runs, if that is another one that shares the folder.
    pub elsewhere: Option<String>,
    /// It was begun before this machine was started the last time.
    pub earlier_boot: bool,
    /// The process that looks after it, if it lives.
    pub runner_pid: Option<i32>,
    /// Its program, if it lives.
    pub program_pid: Option<i32>,
    /// Its container, if it has one. Its processes and their memory are not known then.
    pub container: Option<Container>,
    /// How many processes it has.
    pub processes: usize,
    /// The memory of its processes; what they share is counted once.
    pub memory_bytes: u64,
    /// Console that the server does not have yet.
    pub console_waiting_bytes: u64,
    /// When the server last took something of it.
    pub console_taken_ms: Option<i64>,
    /// When the task last said something.
    pub console_written_ms: Option<i64>,
    /// The last line of its console: masked and cut.
    pub last_line: Option<String>,
    /// Why it is being stopped, if it is.
    pub stopping: Option<AbortReason>,
    /// Since when.
    pub stopping_since_ms: Option<i64>,
}

/// What a task runs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Container {
    /// Its name, by which the engine knows it.
    pub name: String,
    /// Its image.
    pub image: String,
}

/// A task that is done.
#[derive(Debug, Clone, Serialize)]
pub struct Ended {
    /// Its id.
    pub task: TaskId,
    /// The worker it ran under.
    pub worker: WorkerId,
    /// How; `null` for one that was given back or was never ours.
    pub end: Option<End>,
    /// What the server was told as the reason.
    pub reason: Option<String>,
    /// The exit code of the program, or minus the signal that ended it.
    pub exit_code: Option<i32>,
    /// When the program ended.
    pub ended_ms: Option<i64>,
}

/// Something that a person should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// What kind it is, for programs.
    pub kind: TroubleKind,
    /// The task, worker or file.
    pub about: String,
    /// What is the matter.
    pub what: String,
    /// What to do.
    pub advice: String,
}

/// The kinds of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TroubleKind {
    /// Nobody looks after a task.
    Orphan,
    /// The process that looks after a task has ended; its daemon lives.
    RunnerDead,
    /// The disk of the state folder is full.
    DiskFull,
    /// The server has trouble.
    ServerAway,
    /// Console of a task waits for the server.
    ConsoleWaits,
    /// A daemon takes no tasks for a while.
    Paused,
    /// A queue rests although tasks wait in it.
    QueueRests,
    /// A task does not end although it was told to.
    SlowStop,
    /// A run can't be read.
    Unreadable,
}
