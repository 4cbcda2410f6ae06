//! The segment format and its writer.
//!
//! A segment starts with 32 bytes: magic, sequence number, and the stream position at which it begins.
//! Records follow: 16 bytes of length, kind, tag, level and time, then the payload. All numbers are
//! little-endian. A record is appended by one write. If that fails half-way the file is cut back, so a
//! torn record exists only where the machine, or the writer itself, died in the middle.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clearml_support::time::now_ms;
use rustix::fs::OFlags;

use super::{Channel, Level};

const MAGIC: [u8; 8] = *b"CLMSEG01";
pub(crate) const SEGMENT_HEADER: usize = 32;
/// Bytes in front of each payload. A buffer given to [`SegmentWriter::append`] leaves room for them.
pub const RECORD_HEADER: usize = 16;
/// Longer payloads are a sign of damage.
pub(super) const MAX_PAYLOAD: usize = 16 << 20;
/// No console is that long.
const MAX_POSITION: u64 = 1 << 60;
/// No time is that late.
const MAX_MS: i64 = 1 << 50;
/// When output is being dropped, how often the folder is asked whether there is room again.
const RESCAN: Duration = Duration::from_millis(200);

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Bytes that a process wrote, cut anywhere.
    Output = 1,
    /// Whole lines of the agent.
    Line = 2,
    /// Output is missing here: two numbers, bytes and lines.
    Dropped = 3,
}

/// The 16 bytes in front of a payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordHeader {
    pub(crate) length: usize,
    pub(crate) kind: Kind,
    pub(crate) tag: u8,
    pub(crate) level: Level,
    pub(crate) ms: i64,
}

impl RecordHeader {
    fn encode(&self, target: &mut [u8]) {
        let length = u32::try_from(self.length).unwrap_or(u32::MAX);
        target[0..4].copy_from_slice(&length.to_le_bytes());
        target[4..8].copy_from_slice(&[self.kind as u8, self.tag, self.level as u8, 0]);
        target[8..16].copy_from_slice(&self.ms.to_le_bytes());
    }

    /// `None` for bytes that no writer of ours produces, such as the zeros of a file that was extended
    /// but not filled when the machine stopped.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let length = u32::from_le_bytes(bytes.get(0..4)?.try_into().ok()?) as usize;
        let kind = match bytes.get(4)? {
            1 => Kind::Output,
            2 => Kind::Line,
            3 => Kind::Dropped,
            _ => return None,
        };
        if length == 0 || length > MAX_PAYLOAD {
            return None;
        }
        Some(Self {
            length,
            kind,
            tag: *bytes.get(5)?,
            level: Level::from_byte(*bytes.get(6)?),
            ms: i64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?).clamp(0, MAX_MS),
        })
    }
}

/// The position at which a segment begins, or `None` while its header is incomplete.
pub(crate) fn read_base(file: &File) -> io::Result<Option<u64>> {
    let mut header = [0; SEGMENT_HEADER];
    match file.read_exact_at(&mut header, 0) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    }
    // The file was extended but not filled when the machine stopped.
    if header == [0; SEGMENT_HEADER] {
        return Ok(None);
    }
    if header[..8] != MAGIC {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not a console segment",
        ));
    }
    let base = u64::from_le_bytes(header[16..24].try_into().unwrap_or_default());
    // The number of a container may be any.
    if base > MAX_POSITION {
        let text = "a console segment begins where none can";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(Some(base))
}

/// Opens a segment for reading. In a container it may have become a link, or something that is no file.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    if !file.metadata()?.is_file() {
        let text = "not a file";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(file)
}

/// The segments of a channel, in order.
pub(crate) fn list(folder: &Path, channel: Channel) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if let Some(sequence) = entry
            .file_name()
            .to_str()
            .and_then(|name| channel.sequence_of(name))
        {
            found.push((sequence, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// How much a channel may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Size at which the next segment is begun.
    pub segment_bytes: u64,
    /// Size of all segments on disk together at which output is dropped.
    pub max_bytes: u64,
}

/// Output that found no room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Bytes.
    pub bytes: u64,
    /// Line ends among them.
    pub lines: u64,
}

/// Appends to one channel. There is one writer per channel.
#[derive(Debug)]
pub struct SegmentWriter {
    folder: PathBuf,
    channel: Channel,
    limits: Limits,
    current: Option<Current>,
    next_sequence: u64,
    /// Stream position of the next payload byte.
    offset: u64,
    /// Size of the other segments on disk, as last seen.
    others: u64,
    scanned: Instant,
    last_ms: i64,
    missing: Dropped,
    total: Dropped,
}

#[derive(Debug)]
struct Current {
    file: File,
    size: u64,
    /// A failed write could not be cut back yet.
    torn: bool,
}

impl SegmentWriter {
    /// Continues a channel, or begins it with the first append. A torn record at the end, left by a
    /// writer that died, is cut off.
    ///
    /// # Errors
    ///
    /// When the folder or the newest segment can't be read.
    pub fn open(folder: &Path, channel: Channel, limits: Limits) -> io::Result<Self> {
        let mut writer = Self {
            folder: folder.to_owned(),
            channel,
            limits,
            current: None,
            next_sequence: 0,
            offset: 0,
            others: 0,
            scanned: Instant::now(),
            last_ms: 0,
            missing: Dropped::default(),
            total: Dropped::default(),
        };
        if let Some((sequence, path)) = list(folder, channel)?.pop() {
            let file = OpenOptions::new().read(true).write(true).open(path)?;
            writer.next_sequence = sequence + 1;
            writer.resume(file)?;
        }
        writer.others = writer.size_of_others()?;
        Ok(writer)
    }

    fn resume(&mut self, file: File) -> io::Result<()> {
        let Some(base) = read_base(&file)? else {
            // The writer died while it began this segment; what came before is closed. Begin anew.
            self.next_sequence -= 1;
            std::fs::remove_file(self.folder.join(self.channel.file_name(self.next_sequence)))?;
            if let Some((_, path)) = list(&self.folder, self.channel)?.pop() {
                self.resume(OpenOptions::new().read(true).write(true).open(path)?)?;
            }
            return Ok(());
        };
        let (mut position, mut offset) = (SEGMENT_HEADER as u64, base);
        let size = file.metadata()?.len();
        let mut header = [0; RECORD_HEADER];
        while position + RECORD_HEADER as u64 <= size {
            file.read_exact_at(&mut header, position)?;
            let Some(record) = RecordHeader::decode(&header) else {
                break;
            };
            let end = position + (RECORD_HEADER + record.length) as u64;
            if end > size {
                break;
            }
            (position, offset) = (end, offset + record.length as u64);
            self.last_ms = self.last_ms.max(record.ms);
        }
        file.set_len(position)?;
        self.offset = offset;
        self.current = Some(Current {
            file,
            size: position,
            torn: false,
        });
        Ok(())
    }

    /// Appends one record. `buffer` holds [`RECORD_HEADER`] unused bytes and then the payload. Its time
    /// is now, or that of the record before if the clock was set back.
    ///
    /// Output that finds no room, because of the limit or because the disk refuses, is counted and
    /// forgotten: a full disk must not stop the user's program. As soon as there is room a record says
    /// how much is missing.
    pub fn append(&mut self, buffer: &mut [u8], kind: Kind, tag: u8, level: Level) {
        if buffer.len() <= RECORD_HEADER {
            return;
        }
        if self.try_append(buffer, kind, tag, level).is_err() {
            let payload = &buffer[RECORD_HEADER..];
            let lines = memchr::memchr_iter(b'\n', payload).count() as u64;
            for count in [&mut self.missing, &mut self.total] {
                count.bytes += payload.len() as u64;
                count.lines += lines;
            }
        }
    }

    fn try_append(&mut self, buffer: &mut [u8], kind: Kind, tag: u8, level: Level) -> io::Result<()> {
        if self.missing.bytes > 0 {
            let mut marker = [0; RECORD_HEADER + 16];
            marker[RECORD_HEADER..RECORD_HEADER + 8].copy_from_slice(&self.missing.bytes.to_le_bytes());
            marker[RECORD_HEADER + 8..].copy_from_slice(&self.missing.lines.to_le_bytes());
            // Only with room for what follows, so that markers don't fill the disk one by one.
            self.make_room(marker.len() + buffer.len())?;
            self.write_record(&mut marker, Kind::Dropped, 0, Level::Warning)?;
            self.missing = Dropped::default();
        }
        self.make_room(buffer.len())?;
        self.write_record(buffer, kind, tag, level)
    }

    /// Tries to leave a note about output that is still missing, for the end of the stream.
    pub fn note_missing(&mut self) {
        if self.missing.bytes > 0 {
            self.scanned = Instant::now().checked_sub(RESCAN).unwrap_or(self.scanned);
            let mut nothing = [0; RECORD_HEADER];
            // Writes the marker; the empty record itself is refused below without harm.
            let _refused = self.try_append(&mut nothing, Kind::Output, 0, Level::Debug);
        }
    }

    fn make_room(&mut self, bytes: usize) -> io::Result<()> {
        if let Some(current) = &mut self.current
            && current.torn
        {
            current.file.set_len(current.size)?;
            current.torn = false;
        }
        let used = self.others + self.current.as_ref().map_or(0, |c| c.size);
        if used + bytes as u64 > self.limits.max_bytes {
            if self.scanned.elapsed() < RESCAN && self.missing.bytes > 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.scanned = Instant::now();
            self.others = self.size_of_others()?;
            let used = self.others + self.current.as_ref().map_or(0, |c| c.size);
            if used + bytes as u64 > self.limits.max_bytes {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let full =
            |c: &Current| c.size > SEGMENT_HEADER as u64 && c.size + bytes as u64 > self.limits.segment_bytes;
        if self.current.as_ref().is_none_or(full) {
            self.begin_segment()?;
        }
        Ok(())
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        let path = self.folder.join(self.channel.file_name(self.next_sequence));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(crate::umask::file_mode())
            .open(&path)?;
        let mut header = [0; SEGMENT_HEADER];
        header[..8].copy_from_slice(&MAGIC);
        header[8..16].copy_from_slice(&self.next_sequence.to_le_bytes());
        header[16..24].copy_from_slice(&self.offset.to_le_bytes());
        if let Err(e) = file.write_all(&header) {
            std::fs::remove_file(&path)?;
            return Err(e);
        }
        self.next_sequence += 1;
        if let Some(old) = self.current.replace(Current {
            file,
            size: SEGMENT_HEADER as u64,
            torn: false,
        }) {
            self.others += old.size;
        }
        Ok(())
    }

    fn write_record(&mut self, buffer: &mut [u8], kind: Kind, tag: u8, level: Level) -> io::Result<()> {
        let length = buffer.len() - RECORD_HEADER;
        if length == 0 || length > MAX_PAYLOAD {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let Some(current) = &mut self.current else {
            return Err(io::ErrorKind::NotFound.into());
        };
        self.last_ms = self.last_ms.max(now_ms());
        RecordHeader {
            length,
            kind,
            tag,
            level,
            ms: self.last_ms,
        }
        .encode(buffer);
        // A position, not the file's own: after a failed write the next one begins where it should.
        if let Err(e) = current.file.write_all_at(buffer, current.size) {
            current.torn = current.file.set_len(current.size).is_err();
            return Err(e);
        }
        current.size += buffer.len() as u64;
        self.offset += length as u64;
        Ok(())
    }

    fn size_of_others(&self) -> io::Result<u64> {
        let mut sum = 0;
        for (sequence, path) in list(&self.folder, self.channel)? {
            if self.current.is_some() && sequence + 1 == self.next_sequence {
                continue;
            }
            // A segment that the shipper deletes meanwhile counts nothing.
            sum += path.metadata().map_or(0, |m| m.len());
        }
        Ok(sum)
    }

    /// Brings everything appended so far to the disk.
    ///
    /// # Errors
    ///
    /// When the disk refuses.
    pub fn sync(&self) -> io::Result<()> {
        self.current
            .as_ref()
            .map_or(Ok(()), |current| current.file.sync_all())
    }

    /// All output dropped so far.
    #[must_use]
    pub fn dropped(&self) -> Dropped {
        self.total
    }
}

#[cfg(test)]
#[path = "segment_tests.rs"]
mod tests;
