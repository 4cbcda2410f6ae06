//! The agent's own channel: lines with a severity, some of which may be written only once.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use clearml_support::redact::Redactor;
use tokio::sync::Notify;

use super::reader::ChannelReader;
use super::segment::{Kind, Limits, RECORD_HEADER, SegmentWriter};
use super::{Channel, Level};

/// Lines that must not appear twice, whoever writes them: a replaced runner finds the name of the line
/// in the channel and does not repeat it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    /// From which queue the task came.
    Pulled = 1,
    /// Why the task is being aborted.
    Abort = 2,
    /// How much output is missing.
    Missing = 3,
    /// How the task could not be set up.
    SetupError = 4,
    /// How the task ended.
    End = 5,
}

/// Writer of the agent's lines. Clones write to the same channel.
#[derive(Debug, Clone)]
pub struct AgentConsole {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    redactor: Redactor,
    written: Notify,
}

#[derive(Debug)]
struct State {
    writer: SegmentWriter,
    seen: HashSet<u8>,
    buffer: Vec<u8>,
}

impl AgentConsole {
    /// Continues the agent's channel in `folder`.
    ///
    /// # Errors
    ///
    /// When the channel can't be read.
    pub fn open(folder: &Path, limits: Limits, redactor: Redactor) -> io::Result<Self> {
        let writer = SegmentWriter::open(folder, Channel::Agent, limits)?;
        let mut seen = HashSet::new();
        let mut reader = ChannelReader::new(folder, Channel::Agent, 0);
        while reader.fill(1 << 20)? {
            seen.extend(reader.window().iter().map(|chunk| chunk.tag));
            let end = reader.window().back().map_or(0, super::reader::Chunk::end);
            reader.consume(end);
        }
        let state = Mutex::new(State {
            writer,
            seen,
            buffer: Vec::new(),
        });
        Ok(Self {
            inner: Arc::new(Inner {
                state,
                redactor,
                written: Notify::new(),
            }),
        })
    }

    /// Writes one or more lines, without known secrets.
    pub fn line(&self, level: Level, text: &str) {
        self.write(0, level, text);
    }

    /// Writes a line unless one with this name is there already.
    pub fn line_once(&self, tag: Tag, level: Level, text: &str) {
        self.write(tag as u8, level, text);
    }

    fn write(&self, tag: u8, level: Level, text: &str) {
        let text = self.inner.redactor.redact(text);
        let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        if tag != 0 && !state.seen.insert(tag) {
            return;
        }
        let State { writer, buffer, .. } = &mut *state;
        buffer.clear();
        buffer.resize(RECORD_HEADER, 0);
        buffer.extend_from_slice(text.as_bytes());
        if !text.ends_with('\n') {
            buffer.push(b'\n');
        }
        writer.append(buffer, Kind::Line, tag, level);
        drop(state);
        self.inner.written.notify_one();
    }

    /// Brings all lines to the disk.
    ///
    /// # Errors
    ///
    /// When the disk refuses.
    pub fn sync(&self) -> io::Result<()> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .writer
            .sync()
    }
}
