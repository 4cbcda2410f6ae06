//! The console of a run on disk: two channels of append-only segments, and the way from their bytes to
//! lines for people.
//!
//! * `agent`: what the agent says about the task. Written by the runner.
//! * `task`: what the task prints. Written by the shim.
//!
//! A channel is one long stream of payload bytes, cut into records and those into segment files. A
//! position in it is the number of payload bytes before it; it stays valid when old segments are
//! deleted, because each segment says at which position it begins.

mod agent;
pub mod reader;
pub mod render;
pub mod segment;

pub use agent::{AgentConsole, Tag};

use serde::{Deserialize, Serialize};

/// Which of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// The agent's own lines.
    Agent,
    /// Output of the user's process.
    Task,
}

impl Channel {
    /// Both, in the order in which equal times are merged.
    pub const ALL: [Self; 2] = [Self::Agent, Self::Task];

    pub(crate) fn file_name(self, sequence: u64) -> String {
        let name = match self {
            Self::Agent => "agent",
            Self::Task => "task",
        };
        format!("{name}-{sequence:08}.seg")
    }

    /// The sequence number in a file name of this channel.
    pub(crate) fn sequence_of(self, file_name: &str) -> Option<u64> {
        let (name, rest) = file_name.split_once('-')?;
        let sequence = rest.strip_suffix(".seg")?.parse().ok()?;
        (self.file_name(sequence) == file_name && !name.is_empty()).then_some(sequence)
    }
}

/// Severity of a console event, as the ClearML API names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Level {
    /// Output of the task, and the closing line.
    Debug = 0,
    /// The agent's account of what it does.
    Info = 1,
    /// Something that may surprise.
    Warning = 2,
    /// Why the task ends.
    Error = 3,
}

impl Level {
    fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Info,
            2 => Self::Warning,
            3 => Self::Error,
            _ => Self::Debug,
        }
    }

    /// The API's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
        }
    }
}
