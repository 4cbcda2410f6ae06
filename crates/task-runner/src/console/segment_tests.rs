//! Writing and reading back, with interruptions.

use proptest::prelude::*;

use super::*;
use crate::console::reader::ChannelReader;

const UNLIMITED: Limits = Limits {
    segment_bytes: 300,
    max_bytes: u64::MAX,
};

fn append(writer: &mut SegmentWriter, payload: &[u8]) {
    let mut buffer = [&[0; RECORD_HEADER], payload].concat();
    writer.append(&mut buffer, Kind::Output, 0, Level::Debug);
}

fn read_from(folder: &Path, offset: u64) -> Vec<u8> {
    let mut reader = ChannelReader::new(folder, Channel::Task, offset);
    reader.fill(usize::MAX).unwrap();
    assert!(
        reader
            .window()
            .iter()
            .zip(reader.window().iter().skip(1))
            .all(|(a, b)| a.end() == b.offset)
    );
    reader
        .window()
        .iter()
        .flat_map(|chunk| chunk.payload.clone())
        .collect()
}

fn newest(folder: &Path) -> PathBuf {
    list(folder, Channel::Task).unwrap().pop().unwrap().1
}

fn open(folder: &Path) -> SegmentWriter {
    SegmentWriter::open(folder, Channel::Task, UNLIMITED).unwrap()
}

#[test]
fn a_torn_record_is_waited_for_by_readers_and_cut_off_by_the_next_writer() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = open(folder.path());
    append(&mut writer, b"whole");
    append(&mut writer, b"torn");
    drop(writer);
    let path = newest(folder.path());
    let size = path.metadata().unwrap().len();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(size - 1)
        .unwrap();
    assert_eq!(read_from(folder.path(), 0), b"whole");
    let mut writer = open(folder.path());
    append(&mut writer, b"next");
    assert_eq!(read_from(folder.path(), 0), b"wholenext");
}

#[test]
fn zeros_left_by_a_power_failure_are_no_records() {
    let folder = tempfile::tempdir().unwrap();
    append(&mut open(folder.path()), b"whole");
    let path = newest(folder.path());
    let size = path.metadata().unwrap().len();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(size + 100)
        .unwrap();
    assert_eq!(read_from(folder.path(), 0), b"whole");
    append(&mut open(folder.path()), b"next");
    assert_eq!(read_from(folder.path(), 0), b"wholenext");
}

#[test]
fn a_segment_that_was_just_begun_when_its_writer_died_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    append(&mut open(folder.path()), b"first");
    std::fs::write(folder.path().join(Channel::Task.file_name(1)), b"CLM").unwrap();
    assert_eq!(read_from(folder.path(), 0), b"first");
    append(&mut open(folder.path()), b"second");
    assert_eq!(read_from(folder.path(), 0), b"firstsecond");
}

#[test]
fn a_reader_sees_what_comes_while_it_reads_across_segments() {
    let folder = tempfile::tempdir().unwrap();
    let mut reader = ChannelReader::new(folder.path(), Channel::Task, 0);
    assert!(!reader.fill(usize::MAX).unwrap(), "there is nothing yet");
    let mut writer = open(folder.path());
    let mut seen = Vec::new();
    for n in 0..100u8 {
        append(&mut writer, &[n; 20]);
        assert!(reader.fill(usize::MAX).unwrap());
        let end = reader.window().back().unwrap().end();
        seen.extend(reader.window().iter().flat_map(|c| c.payload.clone()));
        reader.consume(end);
        reader.delete_before(end).unwrap();
    }
    assert_eq!(seen, (0..100u8).flat_map(|n| [n; 20]).collect::<Vec<u8>>());
    assert!(
        list(folder.path(), Channel::Task).unwrap().len() <= 2,
        "shipped segments are deleted"
    );
}

#[test]
fn times_never_go_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = open(folder.path());
    writer.last_ms = now_ms() + 1_000_000;
    append(&mut writer, b"a");
    let future = writer.last_ms;
    drop(writer);
    append(&mut open(folder.path()), b"b");
    let mut reader = ChannelReader::new(folder.path(), Channel::Task, 0);
    reader.fill(usize::MAX).unwrap();
    assert!(reader.window().iter().all(|chunk| chunk.ms == future));
}

/// A few cases, unless the environment wants another number.
fn campaign() -> ProptestConfig {
    if std::env::var_os("PROPTEST_CASES").is_some() {
        ProptestConfig::default()
    } else {
        ProptestConfig::with_cases(24)
    }
}

proptest! {
    #![proptest_config(campaign())]

    #[test]
    fn what_is_written_is_read_from_any_position(
        payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..200), 1..40),
        reopen in proptest::collection::vec(any::<bool>(), 40),
        from in any::<usize>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = open(folder.path());
        for (payload, reopen) in payloads.iter().zip(reopen) {
            append(&mut writer, payload);
            if reopen {
                drop(writer);
                writer = open(folder.path());
            }
        }
        let all = payloads.concat();
        let from = from % (all.len() + 1);
        prop_assert_eq!(read_from(folder.path(), from as u64), &all[from..]);
    }

    /// Nothing but the newest output is lost, and the count is right, whatever the limit.
    #[test]
    fn with_a_limit_the_newest_output_is_dropped_and_counted(
        payloads in proptest::collection::vec("[a\n]{1,100}", 1..40),
        max_bytes in 100u64..3000,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits { max_bytes, ..UNLIMITED };
        let mut writer = SegmentWriter::open(folder.path(), Channel::Task, limits).unwrap();
        payloads.iter().for_each(|payload| append(&mut writer, payload.as_bytes()));
        let mut reader = ChannelReader::new(folder.path(), Channel::Task, 0);
        reader.fill(usize::MAX).unwrap();
        let outputs = reader.window().iter().filter(|chunk| chunk.kind == Kind::Output);
        let kept: Vec<u8> = outputs.flat_map(|chunk| chunk.payload.clone()).collect();
        let all = payloads.concat();
        prop_assert_eq!(kept.len() as u64 + writer.dropped().bytes, all.len() as u64);
        let lines = |bytes: &[u8]| bytes.iter().filter(|b| **b == b'\n').count() as u64;
        prop_assert_eq!(lines(&kept) + writer.dropped().lines, lines(all.as_bytes()));
        let size: u64 = list(folder.path(), Channel::Task).unwrap().iter().map(|(_, p)| p.metadata().unwrap().len()).sum();
        prop_assert!(size <= max_bytes + 32, "{size} bytes on disk");
    }
}

#[test]
fn a_segment_that_the_machine_left_unfilled_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = open(folder.path());
    append(&mut writer, b"whole");
    drop(writer);
    let unfilled = folder.path().join(Channel::Task.file_name(1));
    std::fs::write(&unfilled, [0; 4096]).unwrap();
    assert_eq!(read_from(folder.path(), 0), b"whole");
    let mut writer = open(folder.path());
    append(&mut writer, b"next");
    assert_eq!(read_from(folder.path(), 0), b"wholenext");
}
