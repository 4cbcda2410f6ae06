//! From the pipe into the console: one buffer, used for ever.

use std::io::{self, PipeReader, Read};

use crate::console::segment::{Dropped, Kind, Limits, RECORD_HEADER, SegmentWriter};
use crate::console::{Channel, Level};
use crate::record::Launch;
use crate::run_dir::RunDir;

/// How much is taken from the pipe at once.
const READ_SIZE: usize = 256 << 10;

/// The task's channel and the buffer that output passes through on its way there. The buffer has room
/// for the record's header in front, so that nothing is copied.
pub(super) struct Sink {
    writer: SegmentWriter,
    buffer: Vec<u8>,
}

impl Sink {
    pub(super) fn open(run: &RunDir, launch: &Launch) -> io::Result<Self> {
        let limits = Limits {
            segment_bytes: launch.segment_bytes,
            max_bytes: launch.console_max_bytes,
        };
        Ok(Self {
            writer: SegmentWriter::open(&run.console_dir(), Channel::Task, limits)?,
            buffer: vec![0; RECORD_HEADER + READ_SIZE],
        })
    }

    /// Takes what the pipe has. Returns the number of bytes; 0 means that every writer has closed it.
    pub(super) fn read_from(&mut self, mut pipe: &PipeReader) -> io::Result<usize> {
        let count = pipe.read(&mut self.buffer[RECORD_HEADER..])?;
        self.writer.append(
            &mut self.buffer[..RECORD_HEADER + count],
            Kind::Output,
            0,
            Level::Debug,
        );
        Ok(count)
    }

    /// Notes what is missing at the end and brings everything to the disk as far as it lets us.
    pub(super) fn finish(mut self) -> Dropped {
        self.writer.note_missing();
        // A disk that refuses now must not keep the verdict from being written.
        let _unsynchronised = self.writer.sync();
        self.writer.dropped()
    }
}
