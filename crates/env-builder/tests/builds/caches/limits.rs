//! How much is kept, and what happens where there is no room.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{bench, build_in, entries, ready, task};
use crate::common::{Bench, run};
use crate::fixtures::has;

#[test]
fn no_more_are_kept_than_configured_and_none_without_a_folder() {
    let mut bench = bench(&["a1", "a2", "a3", "a4"]);
    bench.settings.venvs_cache.max_entries = 3;
    let how = |bench: &Bench, name: &str| {
        // Uses are told apart by the clock of the file system.
        std::thread::sleep(Duration::from_millis(20));
        ready(&build_in(bench, task(name, "1"), "run").1)
    };
    for name in ["a1", "a2", "a3"] {
        assert_eq!(how(&bench, name), "built and cached, 1 package");
    }
    assert_eq!(how(&bench, "a1"), "cache hit, 1 package");
    assert_eq!(how(&bench, "a4"), "built and cached, 1 package");
    assert_eq!(entries(&bench).len(), 3);
    assert_eq!(how(&bench, "a1"), "cache hit, 1 package");
    assert_eq!(how(&bench, "a3"), "cache hit, 1 package");
    assert_eq!(
        how(&bench, "a2"),
        "built and cached, 1 package",
        "it was used longest ago"
    );

    // Room that can't be made is no reason to fail.
    bench.settings.venvs_cache.min_free_bytes = Some(u64::MAX);
    let (_, host) = build_in(&bench, task("a2\na3", "1"), "run");
    assert_eq!(ready(&host), "built, 2 packages");
    assert!(host.console().contains("are free in"), "{}", host.console());
    assert_eq!(entries(&bench).len(), 0);

    bench.settings.venvs_cache.path = None;
    fs::remove_dir_all(bench.path("venvs.v2")).unwrap();
    let (_, host) = build_in(&bench, task("a1", "1"), "run");
    assert_eq!(ready(&host), "1 package");
    assert!(
        host.console().contains("agent.venvs_cache.path"),
        "{}",
        host.console()
    );
    assert!(!bench.path("venvs.v2").exists());
}

#[test]
fn a_full_disk_costs_the_entry_and_not_the_task() {
    let bench = bench(&["alpha"]);
    let folder = bench.path("small");
    fs::create_dir(&folder).unwrap();
    let mounted = has("mount", "a_full_disk_costs_the_entry_and_not_the_task")
        && Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "none"])
            .arg(&folder)
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("SKIPPED a_full_disk_costs_the_entry_and_not_the_task: mounting is not permitted");
        return;
    }
    let mut settings = bench.settings.clone();
    settings.venvs_cache.path = Some(folder.join("venvs"));
    let small = Bench { settings, ..bench };
    let (prepared, host) = build_in(&small, task("alpha", "import alpha; print(alpha.VERSION)"), "run");
    let left = fs::read_dir(folder.join("venvs.v2/tmp")).unwrap().count();
    let kept = fs::read_dir(folder.join("venvs.v2/entries")).unwrap().count();
    let unmounted = Command::new("umount").arg(&folder).status().unwrap();
    assert!(unmounted.success());
    assert_eq!(ready(&host), "built, 1 package", "{}", host.console());
    assert!(
        host.console().contains("No space left on device"),
        "{}",
        host.console()
    );
    assert_eq!(run(&prepared, &small.settings), "1.0\n");
    assert_eq!((left, kept), (0, 0));
}
