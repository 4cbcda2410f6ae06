//! Several builds that want the same, and locks that stay.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use super::{bench, build_in, entries, ready, task};
use crate::common::Recorder;

#[test]
fn of_tasks_that_want_the_same_at_once_one_builds() {
    let bench = bench(&["alpha", "beta"]);
    let hosts: Vec<Recorder> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let bench = &bench;
                scope.spawn(move || build_in(bench, task("alpha\nbeta", "1"), &format!("run{number}")).1)
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut how: BTreeMap<String, usize> = BTreeMap::new();
    for host in &hosts {
        *how.entry(ready(host)).or_default() += 1;
    }
    let expected = [
        ("built and cached, 2 packages".to_owned(), 1),
        ("cache hit, 2 packages".to_owned(), 3),
    ];
    assert_eq!(how, expected.into());
    let waiting = "another task builds the same environment: waiting for it";
    assert!(hosts.iter().any(|host| host.console().contains(waiting)));
    assert_eq!(entries(&bench).len(), 1);
}

#[test]
fn waiting_ends_with_the_build_that_is_waited_for_and_with_the_task() {
    let bench = bench(&["alpha"]);
    let (list, place) = ("alpha", |name: &str| format!("{name}-run"));
    build_in(&bench, task(list, "1"), &place("first"));
    let lock = fs::read_dir(bench.path("venvs.v2/builds"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    fs::remove_dir_all(&entries(&bench)[0]).unwrap();
    let held = fs::File::options().read(true).write(true).open(&lock).unwrap();
    held.lock().unwrap();
    let wait = |act: &(dyn Fn(&Recorder) + Sync)| {
        let host = Recorder::default();
        let result = std::thread::scope(|scope| {
            let building = scope.spawn(|| bench.build_with(task(list, "1"), &place("second"), &host));
            let begun = Instant::now();
            while !host.console().contains("waiting for it") {
                assert!(begun.elapsed() < Duration::from_secs(20), "{}", host.console());
                std::thread::sleep(Duration::from_millis(20));
            }
            act(&host);
            building.join().unwrap()
        });
        (result, host)
    };
    let begun = Instant::now();
    let (result, _) = wait(&|host| host.cancel.cancel());
    assert!(result.unwrap_err().is_cancelled());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    // The other build was killed: its lock is free, and there is nothing to restore.
    let (result, host) = wait(&|_| held.unlock().unwrap());
    result.unwrap();
    assert_eq!(ready(&host), "built and cached, 1 package");
}

#[test]
fn an_entry_that_stays_locked_costs_time_but_not_the_task() {
    let mut bench = bench(&["alpha"]);
    build_in(&bench, task("alpha", "1"), "first");
    bench.settings.venvs_cache.lock_timeout = Duration::from_millis(200);
    let id = entries(&bench)[0].file_name().unwrap().to_owned();
    let lock = fs::File::open(bench.path("venvs.v2/locks").join(id)).unwrap();
    lock.lock().unwrap();
    let (_, host) = build_in(&bench, task("alpha", "1"), "second");
    assert!(ready(&host).starts_with("built"), "{}", host.console());
    assert!(
        host.console().contains("is still locked by another process"),
        "{}",
        host.console()
    );
    drop(lock);
    assert_eq!(
        ready(&build_in(&bench, task("alpha", "1"), "third").1),
        "cache hit, 1 package"
    );
}
