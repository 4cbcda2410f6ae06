//! The shipper's memory: how far it has come, and what it was about to send.
//!
//! Before a batch goes out, its stretch of the channel is written down. Rendering is pure, so the
//! stretch and the last time stamp before it are enough to make exactly the same events again and to
//! look for them on the server.

use std::collections::{HashSet, VecDeque};
use std::path::Path;

use clearml_api_client::LogEvent;
use clearml_support::fs::{self, JsonFileError};
use clearml_task_model::TaskId;
use serde::{Deserialize, Serialize};

use super::batch::Batch;
use crate::console::Channel;
use crate::console::reader::Chunk;
use crate::console::render::{Ending, Message, RenderOptions, Rendered, Tail, render};
use crate::record::SCHEMA;

/// `cursor.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    schema: u32,
    /// Everything before these stream positions is on the server, or will never be.
    pub agent: u64,
    /// As [`Self::agent`], of the program's output.
    pub task: u64,
    /// The highest time stamp used.
    pub last_ts: i64,
    /// A batch that may or may not have arrived. The positions above stand at its beginning.
    pub pending: Option<Pending>,
    /// Why the server takes nothing any more.
    #[serde(default)]
    pub refused: Option<String>,
}

/// A batch, by its place in the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The channel.
    pub channel: Channel,
    /// Where the batch begins.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
    /// How its last unit ends.
    pub ending: Ending,
    /// Time stamps of its first and last event, and how many there are: for people who look into the
    /// file, and as a check.
    pub first_ts: i64,
    /// See there.
    pub last_ts: i64,
    /// See there.
    pub count: usize,
}

impl Default for Cursor {
    fn default() -> Self {
        Self {
            schema: SCHEMA,
            agent: 0,
            task: 0,
            last_ts: 0,
            pending: None,
            refused: None,
        }
    }
}

impl Cursor {
    /// Reads the cursor; a run that has never shipped anything starts at the beginning.
    pub(crate) fn load(path: &Path) -> Result<Self, JsonFileError> {
        match fs::read_json(path) {
            Err(e) if e.is_not_found() => Ok(Self::default()),
            other => other,
        }
    }

    pub(crate) fn save(&self, path: &Path) -> Result<(), JsonFileError> {
        fs::write_json_atomic(path, self, 0o600)
    }

    /// How far the channel is on the server.
    #[must_use]
    pub fn position(&self, channel: Channel) -> u64 {
        match channel {
            Channel::Agent => self.agent,
            Channel::Task => self.task,
        }
    }

    /// A batch that ends there is about to be sent. Returns whether there is anything to send, and so to write
    /// down before.
    pub fn begin(&mut self, channel: Channel, (end, ending): (u64, Ending), events: &[LogEvent]) -> bool {
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return false;
        };
        self.pending = Some(Pending {
            channel,
            start: self.position(channel),
            end,
            ending,
            first_ts: first.timestamp,
            last_ts: last.timestamp,
            count: events.len(),
        });
        true
    }

    /// Everything of the channel up to there is on the server, or will never be.
    pub fn end(&mut self, channel: Channel, end: u64) {
        if let Some(pending) = self.pending.take() {
            self.last_ts = pending.last_ts;
        }
        match channel {
            Channel::Agent => self.agent = end,
            Channel::Task => self.task = end,
        }
    }
}

impl Pending {
    /// The very same batch, from what the channel holds from its start on.
    #[must_use]
    pub fn again(&self, window: &VecDeque<Chunk>, options: RenderOptions) -> Batch {
        let tail = Tail::Exact {
            end: self.end,
            ending: self.ending,
        };
        let rendered = Rendered {
            end: self.end,
            ..render(window, options, tail, usize::MAX, i64::MAX)
        };
        Batch {
            channel: self.channel,
            rendered,
        }
    }
}

/// Makes events of messages. Time stamps follow the messages' own times but are unique and increasing:
/// the server orders by them and knows no other order.
pub fn to_events(
    messages: Vec<Message>,
    task: &TaskId,
    worker: &str,
    previous_ts: i64,
    clean: impl Fn(String) -> String,
) -> Vec<LogEvent> {
    let mut last = previous_ts;
    messages
        .into_iter()
        .map(|message| {
            last = message.ms.max(last + 1);
            LogEvent::new(task, message.level.as_str(), worker, clean(message.text), last)
        })
        .collect()
}

/// Those of the batch's events that the server does not have.
pub fn missing(batch: Vec<LogEvent>, on_server: &[LogEvent]) -> Vec<LogEvent> {
    let known: HashSet<(i64, &str)> = on_server.iter().map(|e| (e.timestamp, e.msg.as_str())).collect();
    batch
        .into_iter()
        .filter(|e| !known.contains(&(e.timestamp, e.msg.as_str())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Level;

    fn message(ms: i64, text: &str) -> Message {
        Message {
            text: text.to_owned(),
            ms,
            level: Level::Debug,
        }
    }

    #[test]
    fn time_stamps_are_unique_and_increase_even_if_the_clock_does_not() {
        let task = TaskId::new("t");
        let messages = vec![
            message(10, "a"),
            message(10, "b"),
            message(5, "c"),
            message(50, "d"),
        ];
        let events = to_events(messages, &task, "w", 10, |text| text);
        let stamps: Vec<i64> = events.iter().map(|e| e.timestamp).collect();
        assert_eq!(stamps, [11, 12, 13, 50]);
    }

    #[test]
    fn only_what_the_server_lacks_is_missing() {
        let task = TaskId::new("t");
        let batch = to_events(
            vec![message(1, "a"), message(2, "b"), message(3, "b")],
            &task,
            "w",
            0,
            |t| t,
        );
        // The same text at another time, and another text at the same time, are other events.
        let mut other = batch[0].clone();
        other.msg = "x".into();
        let server = [other, batch[1].clone()];
        let left: Vec<i64> = missing(batch, &server).iter().map(|e| e.timestamp).collect();
        assert_eq!(left, [1, 3]);
    }
}
