//! Reading a channel while it is being written.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::segment::{Kind, RECORD_HEADER, RecordHeader, SEGMENT_HEADER, list, open_to_read, read_base};
use super::{Channel, Level};

/// How much is read from a file at once.
const READ_SIZE: usize = 64 << 10;

/// A record, or the rest of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Stream position of the first payload byte.
    pub offset: u64,
    /// When it was written, in milliseconds since the epoch.
    pub ms: i64,
    /// What it holds.
    pub kind: Kind,
    /// What the agent calls this line, if it has a name.
    pub tag: u8,
    /// Severity.
    pub level: Level,
    /// The bytes.
    pub payload: Vec<u8>,
}

impl Chunk {
    /// Stream position behind the last payload byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + self.payload.len() as u64
    }
}

/// The unread part of a channel that is in memory: chunks in order without gaps between their bytes.
#[derive(Debug)]
pub struct ChannelReader {
    folder: PathBuf,
    channel: Channel,
    open: Option<Open>,
    /// Where the next chunk must begin.
    next: u64,
    window: VecDeque<Chunk>,
    window_bytes: usize,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Open {
    file: File,
    sequence: u64,
    /// File position of the next record, and its stream position.
    position: u64,
    offset: u64,
}

impl ChannelReader {
    /// A reader that will begin at stream position `offset`. The channel need not exist yet.
    #[must_use]
    pub fn new(folder: &Path, channel: Channel, offset: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            channel,
            open: None,
            next: offset,
            window: VecDeque::new(),
            window_bytes: 0,
            buffer: Vec::new(),
        }
    }

    /// Reads on until the window holds `target` bytes or nothing more has been written. Returns whether
    /// something was added. A torn record is left alone: it may still become whole; whether its writer
    /// is dead, only the caller knows.
    ///
    /// # Errors
    ///
    /// When a segment can't be read or is not one.
    pub fn fill(&mut self, target: usize) -> io::Result<bool> {
        // There only while it is used: a thousand readers may be waiting in one process.
        self.buffer = vec![0; READ_SIZE];
        let added = self.read_on(target);
        self.buffer = Vec::new();
        added
    }

    fn read_on(&mut self, target: usize) -> io::Result<bool> {
        let before = self.next;
        while self.window_bytes < target {
            if self.open.is_none() && !self.locate()? {
                break;
            }
            if self.read_some()? {
                continue;
            }
            // The segment has nothing more. If there is a next one, this one is closed: but what was
            // written between the last look and the closing must be read first.
            let Some(next) = self.following()? else { break };
            if self.read_some()? {
                continue;
            }
            self.open = Some(next);
        }
        Ok(self.next != before)
    }

    /// Finds the segment that holds the next position.
    fn locate(&mut self) -> io::Result<bool> {
        let mut best = None;
        for (sequence, path) in list(&self.folder, self.channel)? {
            let file = open_to_read(&path)?;
            let Some(base) = read_base(&file)? else { continue };
            if best.is_some() && base > self.next {
                break;
            }
            best = Some(Open {
                file,
                sequence,
                position: SEGMENT_HEADER as u64,
                offset: base,
            });
        }
        self.open = best;
        Ok(self.open.is_some())
    }

    fn following(&self) -> io::Result<Option<Open>> {
        let Some(current) = &self.open else {
            return Ok(None);
        };
        let path = self.folder.join(self.channel.file_name(current.sequence + 1));
        let file = match open_to_read(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let sequence = current.sequence + 1;
        Ok(read_base(&file)?.map(|offset| Open {
            file,
            sequence,
            position: SEGMENT_HEADER as u64,
            offset,
        }))
    }

    /// Reads the records that are complete in the next stretch of the open segment.
    fn read_some(&mut self) -> io::Result<bool> {
        let Some(open) = &mut self.open else {
            return Ok(false);
        };
        let buffer = &mut self.buffer;
        let mut filled = read_up_to(&open.file, buffer, open.position)?;
        if let Some(header) = RecordHeader::decode(&buffer[..filled])
            && RECORD_HEADER + header.length > buffer.len()
        {
            buffer.resize(RECORD_HEADER + header.length, 0);
            filled = read_up_to(&open.file, buffer, open.position)?;
        }
        let mut rest = &buffer[..filled];
        let mut progress = false;
        while let Some(header) = RecordHeader::decode(rest)
            && let Some(payload) = rest.get(RECORD_HEADER..RECORD_HEADER + header.length)
        {
            let (start, end) = (open.offset, open.offset + header.length as u64);
            if end > self.next {
                // Begin inside the record when the cursor stands there.
                let skip = usize::try_from(self.next.saturating_sub(start)).unwrap_or(0);
                self.window_bytes += header.length - skip;
                self.window.push_back(Chunk {
                    offset: start + skip as u64,
                    ms: header.ms,
                    kind: header.kind,
                    tag: header.tag,
                    level: header.level,
                    payload: payload[skip..].to_vec(),
                });
                self.next = end;
            }
            open.position += (RECORD_HEADER + header.length) as u64;
            open.offset = end;
            rest = &rest[RECORD_HEADER + header.length..];
            progress = true;
        }
        Ok(progress)
    }

    /// What has been read and not consumed.
    #[must_use]
    pub fn window(&self) -> &VecDeque<Chunk> {
        &self.window
    }

    /// Forgets everything before stream position `offset`, also what has not been read yet.
    pub fn consume(&mut self, offset: u64) {
        self.next = self.next.max(offset);
        while let Some(first) = self.window.front_mut() {
            if first.end() <= offset {
                self.window_bytes -= first.payload.len();
                self.window.pop_front();
                continue;
            }
            if first.offset < offset {
                let count = usize::try_from(offset - first.offset).unwrap_or(0);
                first.payload.drain(..count);
                first.offset = offset;
                self.window_bytes -= count;
            }
            break;
        }
    }

    /// Stream position of the first byte that is not consumed.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.window.front().map_or(self.next, |chunk| chunk.offset)
    }

    /// Deletes the segments that lie completely before `offset` and are closed.
    ///
    /// # Errors
    ///
    /// When the folder can't be read or a file can't be removed.
    pub fn delete_before(&self, offset: u64) -> io::Result<()> {
        let segments = list(&self.folder, self.channel)?;
        for pair in segments.windows(2) {
            match read_base(&open_to_read(&pair[1].1)?)? {
                Some(base) if base <= offset => std::fs::remove_file(&pair[0].1)?,
                _ => break,
            }
        }
        Ok(())
    }
}

/// Fills the buffer from this position on, as far as the file reaches.
pub(crate) fn read_up_to(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], position + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}
