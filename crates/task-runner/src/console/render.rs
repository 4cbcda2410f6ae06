//! From bytes to messages. Pure: the same stretch of a channel always gives the same messages, however
//! it was cut into records and whenever it is asked for. The shipper's read-back relies on that.
//!
//! The stream is divided into units. A unit is a line with its `\n`; or a part of a line that is too
//! long to wait for its end; or what is left where the stream is interrupted, ends, or has waited long
//! enough. How a unit is shown depends on nothing but its own bytes.

use std::borrow::Cow;
use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Level;
use super::reader::Chunk;
use super::segment::Kind;

/// Longest unit, in bytes of the stream, and longest message, in bytes of text. A message longer than
/// that is a single unit whose invalid bytes have become replacement characters.
pub const MAX_MESSAGE: usize = 64 << 10;
/// Lines further apart than this do not share a message, and so not a time stamp.
const MESSAGE_SPAN_MS: i64 = 1000;
/// What an event costs beside its text.
const EVENT_OVERHEAD: usize = 256;

/// How to show special bytes.
#[derive(Debug, Clone, Copy)]
pub struct RenderOptions {
    /// Show only what a terminal would show at the end of a line with carriage returns, instead of
    /// making each of them a line end.
    pub suppress_carriage_return: bool,
}

/// What to do with an unterminated line at the end of what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Wait for the rest.
    Hold,
    /// Show it now, if it began at this time or earlier. Characters that are not complete wait.
    Flush {
        /// Milliseconds since the epoch.
        older_than_ms: i64,
    },
    /// There will be no rest.
    End,
    /// Stop where an earlier call with the same start has stopped.
    Exact {
        /// Its [`Rendered::end`].
        end: u64,
        /// Its [`Rendered::ending`].
        ending: Ending,
    },
}

/// How a unit ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// With its line end, or where one is added.
    Line,
    /// In the middle of a line.
    Open,
}

/// A piece of console for one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The text, at most [`MAX_MESSAGE`] long.
    pub text: String,
    /// When its first byte was written.
    pub ms: i64,
    /// Severity.
    pub level: Level,
}

/// The result of [`render`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// In order.
    pub messages: Vec<Message>,
    /// Stream position behind the last unit that is shown.
    pub end: u64,
    /// How that unit ends.
    pub ending: Ending,
}

/// Renders the chunks, which follow each other without gap, until `max_bytes` of events are reached or
/// the next unit would begin with a chunk written after `until_ms`.
#[must_use]
pub fn render(
    chunks: &VecDeque<Chunk>,
    options: RenderOptions,
    tail: Tail,
    max_bytes: usize,
    until_ms: i64,
) -> Rendered {
    let start = chunks.front().map_or(0, |chunk| chunk.offset);
    let rendered = Rendered {
        messages: Vec::new(),
        end: start,
        ending: Ending::Line,
    };
    let mut packer = Packer {
        rendered,
        cost: 0,
        max_bytes,
    };
    let mut index = 0;
    while let Some(chunk) = chunks.get(index) {
        if past(tail, chunk.offset) || packer.is_full() || chunk.ms > until_ms {
            break;
        }
        if chunk.kind == Kind::Output {
            let count = chunks
                .range(index..)
                .take_while(|c| c.kind == Kind::Output)
                .count();
            let interrupted = index + count < chunks.len();
            let run = Run::new(chunks.range(index..index + count));
            if !render_run(
                &run,
                options,
                if interrupted { interrupt(tail) } else { tail },
                until_ms,
                &mut packer,
            ) {
                break;
            }
            index += count;
        } else {
            packer.push(
                own_line(chunk),
                chunk.ms,
                chunk.level,
                (chunk.end(), Ending::Line),
            );
            index += 1;
        }
    }
    packer.rendered
}

fn past(tail: Tail, position: u64) -> bool {
    matches!(tail, Tail::Exact { end, .. } if position >= end)
}

/// Output before a line of the agent's will not be continued behind it.
fn interrupt(tail: Tail) -> Tail {
    match tail {
        Tail::Exact { .. } => tail,
        _ => Tail::End,
    }
}

fn own_line(chunk: &Chunk) -> Cow<'_, str> {
    if chunk.kind != Kind::Dropped {
        return String::from_utf8_lossy(&chunk.payload);
    }
    let number = |range: std::ops::Range<usize>| {
        chunk
            .payload
            .get(range)
            .and_then(|b| <[u8; 8]>::try_from(b).ok())
            .map_or(0, u64::from_le_bytes)
    };
    Cow::Owned(format!(
        "### {} lines ({} bytes) of output are missing here: the disk or the console limit was full ###\n",
        number(8..16),
        number(0..8)
    ))
}

/// Consecutive output as one piece of memory.
struct Run {
    bytes: Vec<u8>,
    base: u64,
    /// Where, in `bytes`, the output of each time begins.
    times: Vec<(usize, i64)>,
}

impl Run {
    fn new<'a>(chunks: impl Iterator<Item = &'a Chunk>) -> Self {
        let mut run = Self {
            bytes: Vec::new(),
            base: 0,
            times: Vec::new(),
        };
        for chunk in chunks {
            if run.times.is_empty() {
                run.base = chunk.offset;
            }
            run.times.push((run.bytes.len(), chunk.ms));
            run.bytes.extend_from_slice(&chunk.payload);
        }
        run
    }

    fn ms_at(&self, position: usize) -> i64 {
        let index = self.times.partition_point(|(start, _)| *start <= position);
        self.times.get(index.saturating_sub(1)).map_or(0, |(_, ms)| *ms)
    }
}

/// Renders a run. Returns whether it was rendered to its end.
fn render_run(run: &Run, options: RenderOptions, tail: Tail, until_ms: i64, packer: &mut Packer) -> bool {
    let mut at = 0;
    while at < run.bytes.len() {
        let ms = run.ms_at(at);
        let position = run.base + at as u64;
        if past(tail, position) || packer.is_full() || ms > until_ms {
            return false;
        }
        let rest = &run.bytes[at..];
        let regular = next_unit(rest, options);
        let unit = match (regular, tail) {
            // An earlier call has stopped inside this unit, when it was not complete yet.
            (unit, Tail::Exact { end, ending })
                if unit.is_none_or(|(length, _)| position + length as u64 > end) =>
            {
                let length = usize::try_from(end - position)
                    .unwrap_or(usize::MAX)
                    .min(rest.len());
                Some((length, ending))
            }
            (None, Tail::End) => Some((rest.len(), Ending::Line)),
            (None, Tail::Flush { older_than_ms }) if ms <= older_than_ms => flush_unit(rest),
            (unit, _) => unit,
        };
        let Some((length, ending)) = unit else {
            return false;
        };
        packer.push(
            show(&rest[..length], ending, options),
            ms,
            Level::Debug,
            (position + length as u64, ending),
        );
        at += length;
        // Only the oldest unit has waited long enough.
        if regular.is_none() && matches!(tail, Tail::Flush { .. }) {
            return false;
        }
    }
    true
}

/// The unit at the start of `rest`, if it is decided already. More bytes never change a decision.
fn next_unit(rest: &[u8], options: RenderOptions) -> Option<(usize, Ending)> {
    let window = &rest[..rest.len().min(MAX_MESSAGE)];
    if let Some(end) = memchr::memchr(b'\n', window) {
        return Some((end + 1, Ending::Line));
    }
    if window.len() < MAX_MESSAGE {
        return None;
    }
    // A progress display that never ends its line: up to the last state that is complete. A carriage
    // return at the very end may belong to a line end.
    if options.suppress_carriage_return
        && let Some(end) = memchr::memrchr(b'\r', &window[..MAX_MESSAGE - 1])
    {
        return Some((end + 1, Ending::Line));
    }
    let length = if window.ends_with(b"\r") {
        MAX_MESSAGE - 1
    } else {
        MAX_MESSAGE
    };
    Some((length - incomplete_character(&window[..length]), Ending::Open))
}

/// What can be shown of a line that has waited long enough.
fn flush_unit(rest: &[u8]) -> Option<(usize, Ending)> {
    if let Some(end) = memchr::memrchr(b'\r', rest) {
        return Some((end + 1, Ending::Line));
    }
    let length = rest.len() - incomplete_character(rest);
    (length > 0).then_some((length, Ending::Open))
}

/// The number of bytes at the end that begin a UTF-8 character without completing it.
fn incomplete_character(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let byte = bytes[bytes.len() - back];
        let needed = match byte {
            0x80..=0xBF => continue,
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => return 0,
        };
        // Only what a decoder would still accept: an impossible sequence is shown at once.
        let open = needed > back
            && std::str::from_utf8(&bytes[bytes.len() - back..]).is_err_and(|e| e.error_len().is_none());
        return if open { back } else { 0 };
    }
    0
}

fn show(unit: &[u8], ending: Ending, options: RenderOptions) -> Cow<'_, str> {
    let body = unit.strip_suffix(b"\n").unwrap_or(unit);
    let mut text = if !options.suppress_carriage_return {
        let body = body
            .strip_suffix(b"\r")
            .filter(|_| ending == Ending::Line)
            .unwrap_or(body);
        let text = String::from_utf8_lossy(body);
        if text.contains('\r') {
            Cow::Owned(text.replace('\r', "\n"))
        } else {
            text
        }
    } else if ending == Ending::Line {
        String::from_utf8_lossy(last_state(body))
    } else {
        String::from_utf8_lossy(body)
    };
    if text.contains('\x08') {
        text = Cow::Owned(text.replace('\x08', ""));
    }
    // A bare reset, and a progress display that has shown nothing yet, are no lines.
    if text == "\x1b[0m" || (text.is_empty() && !unit.ends_with(b"\n")) {
        return Cow::Borrowed("");
    }
    if ending == Ending::Line {
        // The common case borrows the line together with its end.
        return match text {
            Cow::Borrowed(text) if unit.len() == body.len() + 1 && text.len() == body.len() => {
                std::str::from_utf8(unit).map_or_else(|_| Cow::Owned(format!("{text}\n")), Cow::Borrowed)
            }
            text => Cow::Owned(format!("{text}\n")),
        };
    }
    text
}

/// What follows the last carriage return; if nothing does, what stands before it.
fn last_state(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    memchr::memrchr(b'\r', line).map_or(line, |at| &line[at + 1..])
}

/// The last boundary between characters at or before `at`.
pub(crate) fn char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0)
}

/// Packs units into messages.
struct Packer {
    rendered: Rendered,
    cost: usize,
    max_bytes: usize,
}

impl Packer {
    fn is_full(&self) -> bool {
        self.cost >= self.max_bytes
    }

    fn push(&mut self, text: Cow<'_, str>, ms: i64, level: Level, end: (u64, Ending)) {
        (self.rendered.end, self.rendered.ending) = end;
        let mut rest = text.as_ref();
        while !rest.is_empty() {
            // A unit fits; only a long line of the agent's is cut here.
            let mut cut = rest.len();
            if cut > 3 * MAX_MESSAGE {
                cut = char_boundary(rest, MAX_MESSAGE);
            }
            let (piece, remainder) = rest.split_at(cut);
            self.push_piece(piece, ms, level);
            rest = remainder;
        }
    }

    fn push_piece(&mut self, text: &str, ms: i64, level: Level) {
        // JSON writes most control characters as six bytes.
        self.cost += text.len() + 5 * text.bytes().filter(|b| *b < 0x20 && *b != b'\n').count();
        if let Some(last) = self.rendered.messages.last_mut()
            && last.level == level
            && last.text.len() + text.len() <= MAX_MESSAGE
            && ms - last.ms <= MESSAGE_SPAN_MS
        {
            last.text.push_str(text);
            return;
        }
        self.cost += EVENT_OVERHEAD;
        self.rendered.messages.push(Message {
            text: text.to_owned(),
            ms,
            level,
        });
    }
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
