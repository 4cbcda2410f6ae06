//! Arguments that nobody would write: the executable refuses them, and does nothing else.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use proptest::prelude::*;
use tempfile::TempDir;
use xtask::workbench::AgentOptions;

use crate::scene::AGENT;

/// More than any refusal needs, in KiB.
const MEMORY: &str = "4000000";

/// Far more than any refusal takes, in seconds.
const TIME: &str = "20";

/// Runs the agent, without credentials, with little memory and time.
fn run(folder: &TempDir, arguments: &[OsString]) -> Output {
    let config = folder.path().join("clearml.conf");
    std::fs::write(&config, "api { api_server: \"http://127.0.0.1:1\" }\n").unwrap();
    let plain = AgentOptions::new(Path::new(AGENT), folder.path(), &config).command(&[]);
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            "ulimit -v \"$0\"; exec timeout --kill-after=1 \"$@\"",
            MEMORY,
            TIME,
            AGENT,
        ])
        .args(arguments);
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.output().unwrap()
}

/// What the grammars know, and any bytes that an argument can hold.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => "[0-9,:.=-]{1,6}".prop_map(String::into_bytes),
        2 => "(SUN-TUE|mon|GPU-|all|none|q=|0-4294967295|1-| )".prop_map(String::into_bytes),
        1 => proptest::collection::vec(1u8.., 0..6),
    ];
    proptest::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

fn option(name: &str, value: &[u8]) -> OsString {
    OsString::from_vec([name.as_bytes(), b"=", value].concat())
}

/// Few, because each is a process; `PROPTEST_CASES` raises their number.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse::<u32>().ok())
        .map_or(24, |cases| cases / 20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn queues_gpus_and_hours_of_any_bytes_are_refused_or_read(
        gpus in value(), queue in value(), hours in value(), dynamic in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut arguments = vec!["daemon".into(), "--foreground".into()];
        arguments.extend(dynamic.then(|| "--dynamic-gpus".into()));
        arguments.extend([option("--gpus", &gpus), option("--queue", &queue), option("--uptime", &hours)]);
        let output = run(&folder, &arguments);
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        // Without credentials it ends in any case: by itself, as an error of usage or a handled one.
        prop_assert_eq!(output.status.signal(), None);
        prop_assert!(matches!(output.status.code(), Some(1 | 2)), "{:?}: {text}", output.status);
        prop_assert!(!text.contains("panicked") && !text.is_empty(), "{text}");
        prop_assert!(text.len() < 20_000, "{} bytes", text.len());
    }
}

#[test]
fn a_file_of_arguments_without_an_end_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(&folder, &["@/dev/zero".into()]);
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        matches!(output.status.code(), Some(1 | 2)),
        "{:?}: {text}",
        output.status
    );
    assert!(text.contains("/dev/zero"), "{text}");
}
