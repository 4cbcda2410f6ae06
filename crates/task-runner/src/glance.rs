//! A look at a run from outside, for status displays and metrics: what its console holds that the server
//! does not have, and its last line.
//!
//! Looking takes no lock and changes nothing, so it can't disturb whoever has the run in hand; what is seen
//! may be a moment old.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use clearml_agent_config::Settings;
use clearml_support::redact::Redactor;

use crate::console::Channel;
use crate::console::reader::read_up_to;
use crate::console::segment::{RECORD_HEADER, RecordHeader, SEGMENT_HEADER, list, open_to_read, read_base};
use crate::record::RunRecord;
use crate::run_dir::{RunDir, RunDirError};
use crate::settings::sources;
use crate::shipper::pending::Cursor;

/// Read from the end of the console in search of its last line; a longer line is not shown, because half
/// of a secret would not be recognised.
const TAIL: usize = 64 << 10;
/// So many characters of the last line are given.
const SHOWN: usize = 500;
/// How much of a segment is read at once.
const PIECE: usize = 256 << 10;

/// The runs of a state folder.
#[derive(Debug, Default)]
pub struct Runs {
    /// Those that can be read, oldest first.
    pub readable: Vec<(RunDir, RunRecord)>,
    /// What is wrong with the others.
    pub unreadable: Vec<RunDirError>,
}

impl Runs {
    /// All runs of this state folder, which need not exist.
    ///
    /// # Errors
    ///
    /// When the folder can't be listed.
    pub fn of(state_dir: &Path) -> io::Result<Self> {
        let mut runs = Self::default();
        let entries = match std::fs::read_dir(state_dir.join("runs")) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(runs),
            Err(e) => return Err(e),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            match RunDir::open(&entry.path()).and_then(|run| Ok((run.record()?, run))) {
                Ok((record, run)) => runs.readable.push((run, record)),
                // Removed in this moment.
                Err(RunDirError::File(e)) if e.is_not_found() => {}
                Err(e) => runs.unreadable.push(e),
            }
        }
        runs.readable
            .sort_by(|(_, a), (_, b)| (a.created_ms, &a.run_id).cmp(&(b.created_ms, &b.run_id)));
        Ok(runs)
    }

    /// Those that are not done.
    pub fn unfinished(&self) -> impl Iterator<Item = &(RunDir, RunRecord)> {
        self.readable
            .iter()
            .filter(|(_, record)| !record.phase.is_final())
    }
}

/// What the console of a run looks like from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsoleGlance {
    /// Bytes that the server does not have yet.
    pub waiting_bytes: u64,
    /// When the server took something last, in milliseconds since the epoch; `None` before the first time.
    pub taken_ms: Option<i64>,
    /// When something was written last, in milliseconds since the epoch.
    pub written_ms: Option<i64>,
    /// The last line: masked, without control characters, cut. `None` also where the secrets of the run are
    /// not known.
    pub last_line: Option<String>,
}

impl ConsoleGlance {
    /// Looks at the console of a run. `masks` are those of [`masks`]; without them no text is given.
    ///
    /// # Errors
    ///
    /// When the console or the shipper's position can't be read.
    pub fn of(run: &RunDir, masks: Option<&Redactor>) -> io::Result<Self> {
        let cursor = Cursor::load(&run.cursor_path()).map_err(io::Error::other)?;
        let mut glance = Self {
            taken_ms: modified_ms(&run.cursor_path()),
            ..Self::default()
        };
        for channel in Channel::ALL {
            let folder = match channel {
                Channel::Agent => run.console_dir(),
                Channel::Task => run.task_console_dir(),
            };
            let Some(end) = End::of(&folder, channel)? else {
                continue;
            };
            if cursor.refused.is_none() {
                glance.waiting_bytes += end.offset.saturating_sub(cursor.position(channel));
            }
            // Of equal times, what the task says is later.
            if end.ms.is_some() && end.ms >= glance.written_ms {
                glance.written_ms = end.ms;
                glance.last_line = masks.and_then(|masks| last_line(&end.tail, end.cut, masks));
            }
        }
        Ok(glance)
    }
}

/// The secrets that the run was given, for masking what it prints; `None` where its configuration can't be
/// read, as that of a run that is done.
#[must_use]
pub fn masks(run: &RunDir) -> Option<Redactor> {
    let inputs = run.inputs().ok()?;
    let settings = Settings::load(&sources(&run.config_path(), &inputs)).ok()?;
    let redactor = Redactor::new();
    settings.register_secrets(&redactor);
    Some(redactor)
}

fn modified_ms(path: &Path) -> Option<i64> {
    let modified = path.metadata().ok()?.modified().ok()?;
    let since = modified.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

/// The end of a channel.
#[derive(Debug, Default)]
struct End {
    /// Stream position behind the last byte.
    offset: u64,
    ms: Option<i64>,
    /// The last bytes, and whether there was something before them.
    tail: Vec<u8>,
    cut: bool,
}

impl End {
    fn of(folder: &Path, channel: Channel) -> io::Result<Option<Self>> {
        let mut segments = match list(folder, channel) {
            Ok(segments) => segments,
            // Cleaned away meanwhile, or not begun.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        while let Some((_, path)) = segments.pop() {
            let file = match open_to_read(&path) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            // A segment that has just been begun says nothing yet.
            if let Some(base) = read_base(&file)?
                && let Some(mut end) = Self::of_segment(&file, base)?
            {
                end.cut |= !segments.is_empty() || base > 0;
                return Ok(Some(end));
            }
        }
        Ok(None)
    }

    fn of_segment(file: &File, base: u64) -> io::Result<Option<Self>> {
        let mut end = Self {
            offset: base,
            ..Self::default()
        };
        let mut position = SEGMENT_HEADER as u64;
        let mut buffer = vec![0; PIECE];
        loop {
            let count = read_up_to(file, &mut buffer, position)?;
            let used = end.take(&buffer[..count]);
            if used == 0 {
                // One record that is larger than the piece, or the end.
                match RecordHeader::decode(&buffer[..count]) {
                    Some(header) if RECORD_HEADER + header.length > buffer.len() => {
                        buffer.resize(RECORD_HEADER + header.length, 0);
                        continue;
                    }
                    _ => break,
                }
            }
            position += used as u64;
        }
        Ok(end.ms.is_some().then_some(end))
    }

    /// Takes in the whole records at the beginning of `bytes`; returns how many bytes those were.
    fn take(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while let Some(header) = RecordHeader::decode(rest)
            && let Some(payload) = rest.get(RECORD_HEADER..RECORD_HEADER + header.length)
        {
            self.offset += header.length as u64;
            self.ms = self.ms.max(Some(header.ms));
            if header.kind != crate::console::segment::Kind::Dropped {
                self.tail.extend_from_slice(payload);
            }
            rest = &rest[RECORD_HEADER + header.length..];
            if self.tail.len() > 4 * TAIL {
                self.trim();
            }
        }
        self.trim();
        bytes.len() - rest.len()
    }

    fn trim(&mut self) {
        if let Some(surplus) = self.tail.len().checked_sub(TAIL).filter(|surplus| *surplus > 0) {
            self.tail.drain(..surplus);
            self.cut = true;
        }
    }
}

/// The last line that has something on it. What a carriage return has overwritten does not count.
fn last_line(tail: &[u8], cut: bool, masks: &Redactor) -> Option<String> {
    let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
    let mut found: Option<(String, bool)> = None;
    let mut first = true;
    for line in tail.split(is_end) {
        let text = plain(&masks.redact(&String::from_utf8_lossy(line)));
        if !text.trim().is_empty() {
            found = Some((text, first && cut));
        }
        first = false;
    }
    let (text, is_rest) = found?;
    if is_rest {
        return Some(format!("(a line of more than {} kB)", TAIL >> 10));
    }
    let text = text.trim_end();
    Some(match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    })
}

/// The text without escape sequences and other control characters, for showing it on somebody's terminal.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => skip_escape(&mut rest),
            '\t' => out.push(' '),
            c if c.is_control() || is_direction(c) => {}
            c => out.push(c),
        }
    }
    out
}

/// Marks that make a terminal show text in another order than it has.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// After ESC: a control sequence up to its final byte, a string up to its end, or one character.
fn skip_escape(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match rest.next() {
        Some('[') => {
            let _final = rest.find(|c| ('\u{40}'..='\u{7e}').contains(c));
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            while let Some(c) = rest.next() {
                if c == '\u{7}' || (c == '\u{1b}' && rest.next_if_eq(&'\\').is_some()) {
                    break;
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use clearml_support::secret::Secret;

    use super::*;
    use crate::console::Level;
    use crate::console::segment::{Kind, Limits, SegmentWriter};
    use crate::run_dir::{NewRun, RunStore};

    fn line(tail: &[u8], cut: bool) -> Option<String> {
        let masks = Redactor::new();
        masks.add(&Secret::new("s3cret-value"));
        last_line(tail, cut, &masks)
    }

    #[test]
    fn the_last_line_is_what_a_person_would_have_seen() {
        let text = |tail: &[u8]| line(tail, false);
        assert_eq!(text(b"one\ntwo\n").as_deref(), Some("two"));
        assert_eq!(text(b"one\n 10%\r 20%\r").as_deref(), Some(" 20%"));
        assert_eq!(text(b"one\n\n  \n").as_deref(), Some("one"));
        assert_eq!(text(b"\n"), None);
        assert_eq!(text(b"key s3cret-value!").as_deref(), Some("key ****!"));
        assert_eq!(
            text(b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07\xff\x08end\x1b]52;c;x\x1b\\.").as_deref(),
            Some("red \u{fffd}end.")
        );
        assert_eq!(text("abc\u{202e}def".as_bytes()).as_deref(), Some("abcdef"));
        assert_eq!(
            text("é".repeat(SHOWN + 1).as_bytes()).map(|text| text.chars().count()),
            Some(SHOWN + 1)
        );
    }

    #[test]
    fn a_line_whose_beginning_is_not_there_is_not_shown() {
        assert_eq!(
            line(b"rest-of-secret", true).as_deref(),
            Some("(a line of more than 64 kB)")
        );
        assert_eq!(line(b"rest\nwhole", true).as_deref(), Some("whole"));
    }

    #[test]
    fn what_the_server_lacks_is_counted_across_segments_and_records() {
        let state = tempfile::tempdir().unwrap();
        let new = NewRun {
            task: "t".into(),
            queue: None,
            worker: "w".into(),
        };
        let (run, _keeper) = RunStore::open(state.path()).unwrap().create(new).unwrap();
        let glance = |masks: Option<&Redactor>| ConsoleGlance::of(&run, masks).unwrap();
        assert_eq!(glance(None), ConsoleGlance::default());

        let limits = Limits {
            segment_bytes: 400_000,
            max_bytes: 1 << 30,
        };
        let mut writer = SegmentWriter::open(&run.console_dir(), Channel::Task, limits).unwrap();
        let mut written = 0;
        for number in 0..100 {
            let text = format!("line {number} {}\n", "x".repeat(9_000));
            let mut record = [&[0; RECORD_HEADER], text.as_bytes()].concat();
            writer.append(&mut record, Kind::Output, 0, Level::Debug);
            written += text.len() as u64;
        }
        let mut record = [&[0; RECORD_HEADER][..], b"the end"].concat();
        writer.append(&mut record, Kind::Output, 0, Level::Debug);
        written += 7;
        assert_eq!(glance(None).waiting_bytes, written);
        assert_eq!(glance(None).last_line, None, "secrets are not known");
        assert_eq!(
            glance(Some(&Redactor::new())).last_line.as_deref(),
            Some("the end")
        );

        let mut cursor = Cursor::load(&run.cursor_path()).unwrap();
        cursor.end(Channel::Task, written - 3);
        cursor.save(&run.cursor_path()).unwrap();
        let glance = glance(None);
        assert_eq!(glance.waiting_bytes, 3);
        assert!(glance.taken_ms.is_some() && glance.written_ms.is_some());
    }
}
