//! Builds that are killed at moments drawn by lot.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::example;

#[test]
fn builds_that_are_killed_leave_nothing_half() {
    let number = |name: &str, default: u64| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let (kills, mut seed) = (
        number("CLEARML_TEST_KILLS", 10),
        number("CLEARML_TEST_SEED", 20_250_101),
    );
    eprintln!("{kills} kills with CLEARML_TEST_SEED={seed}");
    let mut draw = move |most: u64| {
        // Numerical Recipes' generator is random enough for moments.
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % most.max(1)
    };
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path();
    let start = |run: &str, list: &str| {
        let mut command = Command::new(example("environment_cache"));
        command
            .arg(base)
            .args([run, list])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let build = |run: &str, list: &str| {
        let begun = Instant::now();
        let output = start(run, list).wait_with_output().unwrap();
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success(), "{run} {list}: {text}");
        assert!(text.contains("works"), "{text}");
        (text, begun.elapsed())
    };
    // One whole build says how long there is to kill; the cache's own part is a small piece near the end.
    let (_, whole) = build("whole", "one");
    let (_, hit) = build("hit", "one");
    let whole = u64::try_from(whole.as_micros()).unwrap();
    let hit = u64::try_from(hit.as_micros()).unwrap();
    for kill in 0..kills {
        // In turn: anywhere in a build, near its end, and anywhere in a restoration.
        let (list, delay) = match kill % 3 {
            0 => ("two", draw(whole)),
            1 => ("two", whole * 3 / 5 + draw(whole * 2 / 5)),
            _ => ("one", draw(hit)),
        };
        let mut child = start(&format!("killed{kill}"), list);
        std::thread::sleep(Duration::from_micros(delay));
        child.kill().unwrap();
        child.wait().unwrap();
        let (text, _) = build(&format!("after{kill}"), list);
        let whole_again = list == "one" && !text.contains("cache hit");
        assert!(
            !whole_again,
            "killing a restoration has damaged the entry: {text}"
        );
        if list == "two" {
            let (text, _) = build(&format!("again{kill}"), list);
            assert!(
                text.contains("cache hit") && !text.contains("can't be used"),
                "kill {kill}: {text}"
            );
        }
        let left: Vec<_> = fs::read_dir(base.join("venvs.v2/tmp")).unwrap().collect();
        assert!(left.is_empty(), "kill {kill}: {left:?}");
        if list == "two" {
            // So that the next kill meets a build and not a restoration.
            drop_entry(base);
        }
        for run in ["killed", "after", "again"] {
            fs::remove_dir_all(base.join(format!("{run}{kill}"))).ok();
        }
    }
}

/// Removes the entry that was made last.
fn drop_entry(base: &Path) {
    let mut entries: Vec<_> = fs::read_dir(base.join("venvs.v2/entries"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (
                fs::metadata(path.join("items")).unwrap().modified().unwrap(),
                path,
            )
        })
        .collect();
    entries.sort();
    fs::remove_dir_all(&entries.pop().unwrap().1).unwrap();
}
