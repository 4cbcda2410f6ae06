//! Files with anything in them: decided in time, within bounds, without a panic.
//!
//! `PROPTEST_CASES` makes the campaign as long as one likes; without it, it is short.

use std::time::{Duration, Instant};

use clearml_agent_config::{Settings, Sources};
use proptest::prelude::*;

/// Nothing that a file may hold takes longer, on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);
/// Nothing that a file may hold becomes larger.
const MAX_BYTES: usize = 64 << 20;

/// A file as people write it, to be damaged.
const VALID: &str = include_str!("valid.conf");

/// So many cases, unless the environment wants another number.
pub(crate) fn campaign(cases: u32) -> ProptestConfig {
    if std::env::var_os("PROPTEST_CASES").is_some() {
        ProptestConfig::default()
    } else {
        ProptestConfig::with_cases(cases)
    }
}

fn read(bytes: &[u8]) -> Result<(), TestCaseError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clearml.conf");
    std::fs::write(&path, bytes).unwrap();
    let sources = Sources {
        config_file: Some(path),
        home: Some(folder.path().to_path_buf()),
        ..Sources::default()
    };
    let started = Instant::now();
    match Settings::load(&sources) {
        Ok(settings) => {
            prop_assert!(settings.effective_json().to_string().len() < MAX_BYTES);
            prop_assert!(settings.masked_json().is_object());
        }
        Err(error) => prop_assert!(error.to_string().len() < 1 << 16),
    }
    prop_assert!(started.elapsed() < LIMIT, "{:?}", started.elapsed());
    Ok(())
}

#[test]
fn the_file_to_damage_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clearml.conf");
    std::fs::write(&path, VALID).unwrap();
    let sources = Sources {
        config_file: Some(path),
        ..Sources::default()
    };
    assert_eq!(Settings::load(&sources).unwrap().warnings(), []);
}

proptest! {
    #![proptest_config(campaign(96))]

    #[test]
    fn arbitrary_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        read(&bytes)?;
    }

    #[test]
    fn damaged_files_are_read_or_refused(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..4, any::<u8>(), 0_usize..200), 1..12),
    ) {
        let mut bytes = VALID.as_bytes().to_vec();
        for (place, edit, byte, length) in edits {
            let at = place.index(bytes.len() + 1);
            let end = (at + length).min(bytes.len());
            match edit {
                0 => bytes.insert(at, byte),
                1 => drop(bytes.drain(at..end)),
                // The characters that mean something.
                2 => bytes.insert(at, b"{}[]:=,\"$+#\\\n./?&"[usize::from(byte) % 17]),
                _ => {
                    let copied = bytes[at..end].to_vec();
                    bytes.splice(at..at, copied);
                }
            }
            bytes.push(b'\n');
        }
        read(&bytes)?;
    }
}
