//! The cache of environments: hits, waiting, killing, damage, limits.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clearml_env_builder::{LinkMode, PreparedEnvironment};
use serde_json::{Value, json};

use crate::common::{Bench, Recorder, has, run};

/// A bench with a cache, and wheels with a console script each.
fn bench(names: &[&str]) -> Bench {
    let mut bench = Bench::new();
    bench.settings.venvs_cache.path = Some(bench.path("venvs"));
    bench.settings.venvs_cache.min_free_bytes = None;
    for name in names {
        script_wheel(&bench.path("wheels"), name, "1.0");
    }
    let wheels = bench.path("wheels").display().to_string();
    bench.env("PIP_NO_INDEX", "1");
    bench.env("PIP_FIND_LINKS", wheels);
    bench
}

/// A wheel with a package, and a console script that says which interpreter runs it.
fn script_wheel(folder: &Path, name: &str, version: &str) {
    fs::create_dir_all(folder).unwrap();
    let program = r"
import sys, zipfile
folder, name, version = sys.argv[1:]
info = f'{name}-{version}.dist-info'
text = f'import sys\nVERSION = {version!r}\ndef main():\n    print(VERSION, sys.executable)\n'
files = {
    f'{name}/__init__.py': text,
    f'{name}/data.txt': 'data',
    f'{info}/METADATA': f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n',
    f'{info}/WHEEL': 'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
    f'{info}/entry_points.txt': f'[console_scripts]\n{name}-run = {name}:main\n',
}
with zipfile.ZipFile(f'{folder}/{name}-{version}-py3-none-any.whl', 'w') as z:
    for path, text in files.items():
        z.writestr(path, text)
    z.writestr(f'{info}/RECORD', ''.join(f'{p},,\n' for p in [*files, f'{info}/RECORD']))
";
    let status = Command::new("python3")
        .args(["-I", "-c", program])
        .arg(folder)
        .args([name, version])
        .status()
        .unwrap();
    assert!(status.success());
}

fn task(requirements: &str, program: &str) -> Value {
    json!({"binary": "python3", "entry_point": "a.py", "diff": program, "requirements": {"pip": requirements}})
}

/// Builds in a folder of its own; how that went.
fn build_in(bench: &Bench, script: Value, place: &str) -> (PreparedEnvironment, Recorder) {
    let host = Recorder::default();
    let result = bench.build_with(script, place, &host);
    (result.unwrap_or_else(|e| panic!("{e}\n{}", host.console())), host)
}

fn ready(host: &Recorder) -> String {
    let console = host.console();
    let line = console
        .lines()
        .find(|line| line.contains("environment ready in "));
    let line = line.unwrap_or_else(|| panic!("no summary:\n{console}"));
    line.split_once(": ")
        .unwrap()
        .1
        .split_once(": ")
        .unwrap()
        .1
        .to_owned()
}

fn entries(bench: &Bench) -> Vec<PathBuf> {
    let Ok(found) = fs::read_dir(bench.path("venvs.v2/entries")) else {
        return Vec::new();
    };
    found.map(|entry| entry.unwrap().path()).collect()
}

/// The installer has its say only if it runs.
fn without_wheels(bench: &mut Bench) {
    fs::remove_dir_all(bench.path("wheels")).unwrap();
    fs::create_dir(bench.path("wheels")).unwrap();
}

#[test]
fn what_one_task_has_installed_the_next_one_gets_back() {
    let mut bench = bench(&["alpha", "beta"]);
    let program = "import alpha, subprocess, sys, pathlib\n\
                   print(alpha.VERSION, alpha.__file__)\n\
                   run = pathlib.Path(sys.executable).with_name('alpha-run')\n\
                   print(subprocess.run([run], capture_output=True, text=True, check=True).stdout.strip())";
    let (first, host) = build_in(&bench, task("beta==1.0\n# x\nAlpha == 1.0", program), "first");
    assert_eq!(ready(&host), "built and cached, 2 packages");
    assert_eq!(host.reported(), ["alpha==1.0", "beta==1.0"]);
    run(&first, &bench.settings);
    without_wheels(&mut bench);

    // The same, written differently; and a place with a longer path and blanks in it.
    let far = format!("a far {}/place", "x".repeat(150));
    let (second, host) = build_in(&bench, task("alpha==1.0\nbeta==1.0", program), &far);
    assert_eq!(ready(&host), "cache hit, 2 packages", "{}", host.console());
    assert_eq!(host.reported(), ["alpha==1.0", "beta==1.0"]);
    let output = run(&second, &bench.settings);
    let python = bench.path(&far).join("venv/bin/python");
    assert_eq!(output.lines().nth(1), Some(&*format!("1.0 {}", python.display())));
    assert!(
        output.starts_with(&format!("1.0 {}", bench.path(&far).display())),
        "{output}"
    );
    let old = bench.path("first").display().to_string();
    for entry in fs::read_dir(bench.path(&far).join("venv/bin")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read(&path).unwrap();
        assert!(
            !String::from_utf8_lossy(&text).contains(&old),
            "{}",
            path.display()
        );
    }
    let pip = Command::new(&python)
        .args(["-m", "pip", "freeze"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&pip.stdout), "alpha==1.0\nbeta==1.0\n");

    // A clone of the task asks for what was installed, as it was reported.
    let (_, host) = build_in(&bench, task("alpha==1.0\nbeta==1.0\n", "1"), "third");
    assert_eq!(ready(&host), "cache hit, 2 packages");
    assert_eq!(entries(&bench).len(), 1);
}

#[test]
fn what_was_installed_is_found_under_its_exact_versions_too() {
    let mut bench = bench(&["alpha", "beta"]);
    let (_, host) = build_in(&bench, task("beta\nalpha>=0.5", "1"), "first");
    without_wheels(&mut bench);
    let frozen = host.reported().join("\n");
    assert_eq!(frozen, "alpha==1.0\nbeta==1.0");
    let (_, host) = build_in(&bench, task(&frozen, "1"), "second");
    assert_eq!(ready(&host), "cache hit, 2 packages");
    // Everything that decides what is installed makes another environment.
    for change in [
        |bench: &mut Bench| bench.settings.package_manager.force_upgrade = true,
        |bench: &mut Bench| bench.settings.package_manager.system_site_packages = true,
        |bench: &mut Bench| bench.env("PIP_PRE", "1"),
    ] {
        let before = bench.settings.clone();
        change(&mut bench);
        let host = Recorder::default();
        bench.build_with(task(&frozen, "1"), "other", &host).unwrap_err();
        assert!(!host.console().contains("restored"), "{}", host.console());
        bench.settings = before;
    }
}

#[test]
fn a_task_can_do_what_it_wants_with_its_own() {
    for mode in [LinkMode::Auto, LinkMode::HardLink, LinkMode::Copy] {
        let mut bench = bench(&["alpha"]);
        bench.settings.venvs_cache.link_mode = mode;
        // It changes one file as editors do, removes another, adds one, and installs over a third.
        let program = "import alpha, os\nhere = os.path.dirname(alpha.__file__)\n\
                       os.replace(__file__, here + '/__init__.py'); os.remove(here + '/data.txt')\n\
                       open(here + '/more.py', 'w').write('1')";
        let (first, _) = build_in(&bench, task("alpha", program), "first");
        run(&first, &bench.settings);
        without_wheels(&mut bench);
        let check =
            "import alpha, os\nprint(alpha.VERSION, sorted(os.listdir(os.path.dirname(alpha.__file__))))";
        for place in ["second", "third"] {
            let (next, host) = build_in(&bench, task("alpha", check), place);
            assert_eq!(
                ready(&host),
                "cache hit, 1 package",
                "{mode:?} {}",
                host.console()
            );
            let output = run(&next, &bench.settings);
            assert_eq!(
                output, "1.0 ['__init__.py', '__pycache__', 'data.txt']\n",
                "{mode:?}"
            );
        }
        let file = |root: PathBuf| fs::metadata(find(&root, "data.txt")).unwrap();
        let (kept, used) = (file(bench.path("venvs.v2")), file(bench.path("third")));
        if mode == LinkMode::HardLink {
            assert_eq!(kept.ino(), used.ino());
            assert_eq!(kept.mode() & 0o222, 0, "shared files are protected");
        }
        if mode == LinkMode::Copy {
            assert_ne!(kept.ino(), used.ino());
        }
    }
}

fn find(root: &Path, name: &str) -> PathBuf {
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            if entry.file_name() == name {
                return entry.path();
            }
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            }
        }
    }
    panic!("there is no {name} below {}", root.display());
}

#[test]
fn a_damaged_entry_is_noticed_and_built_anew() {
    type Damage = (&'static str, fn(&Bench));
    let damage: [Damage; 4] = [
        ("a file was written to", |bench| {
            let file = find(&bench.path("venvs.v2/entries"), "data.txt");
            // Whoever is root can, whatever the mode says.
            fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
            fs::write(file, "DATA").unwrap();
        }),
        ("a file is gone", |bench| {
            fs::remove_file(find(&bench.path("venvs.v2/entries"), "data.txt")).unwrap();
        }),
        ("the list is cut off", |bench| {
            let file = find(&bench.path("venvs.v2/entries"), "items");
            let bytes = fs::read(&file).unwrap();
            fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("it is of another time", |bench| {
            let file = find(&bench.path("venvs.v2/entries"), "meta.json");
            let mut meta: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
            meta["schema"] = json!(0);
            fs::write(file, meta.to_string()).unwrap();
        }),
    ];
    let bench = bench(&["alpha"]);
    let check = "import alpha, os\nprint(open(os.path.dirname(alpha.__file__) + '/data.txt').read())";
    build_in(&bench, task("alpha", check), "first");
    for (name, damage) in damage {
        damage(&bench);
        let (next, host) = build_in(&bench, task("alpha", check), "next");
        assert_eq!(
            ready(&host),
            "built and cached, 1 package",
            "{name}: {}",
            host.console()
        );
        assert!(
            host.console()
                .contains("Warning: the cached environment can't be used"),
            "{name}"
        );
        assert_eq!(run(&next, &bench.settings), "data\n", "{name}");
        assert_eq!(entries(&bench).len(), 1, "{name}");
        let (_, host) = build_in(&bench, task("alpha", check), "next");
        assert_eq!(ready(&host), "cache hit, 1 package", "{name}: {}", host.console());
    }
}

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
fn what_may_be_another_package_tomorrow_is_installed_each_time() {
    let bench = bench(&["alpha"]);
    let origin = bench.path("origin/pkg");
    let write = |version: &str| {
        let [project, backend] = crate::packages::self_building("moving-pkg");
        let backend = (backend.0, backend.1.replace("'0.1'", &format!("'{version}'")));
        let files: Vec<(&str, &str)> = [&project, &backend]
            .map(|(name, text)| (&**name, &**text))
            .to_vec();
        crate::common::commit(&origin, &files)
    };
    bench.module("pkg", &[]);
    let first_commit = write("1");
    let list = format!("alpha\ngit+file://{}@main#egg=moving-pkg", origin.display());
    let (_, host) = build_in(&bench, task(&list, "1"), "first");
    assert_eq!(ready(&host), "built and cached, 2 packages");
    assert!(
        host.reported()[1].ends_with(&first_commit),
        "{:?}",
        host.reported()
    );
    let second_commit = write("2");
    let program =
        "import moving_pkg, alpha, importlib.metadata as m; print(m.version('moving-pkg'), alpha.VERSION)";
    let (next, host) = build_in(&bench, task(&list, program), "second");
    assert_eq!(ready(&host), "cache hit, 2 packages");
    assert!(
        host.reported()[1].ends_with(&second_commit),
        "{:?}",
        host.reported()
    );
    assert_eq!(run(&next, &bench.settings).lines().last(), Some("2 1.0"));

    // The same commit, by its full name, is the same package, and needs no repository.
    let list = format!(
        "alpha\ngit+file://{}@{second_commit}#egg=moving-pkg",
        origin.display()
    );
    build_in(&bench, task(&list, "1"), "third");
    fs::remove_dir_all(&origin).unwrap();
    let (next, host) = build_in(&bench, task(&list, program), "fourth");
    assert_eq!(ready(&host), "cache hit, 2 packages", "{}", host.console());
    assert_eq!(run(&next, &bench.settings).lines().last(), Some("2 1.0"));
}

#[test]
fn packages_of_the_working_copy_are_those_of_the_task() {
    let bench = bench(&["alpha"]);
    let [project, backend] = crate::packages::self_building("local-pkg");
    let (repository, commit) = bench.repository(&[
        (&format!("pkg/{}", project.0), &project.1),
        (&format!("pkg/{}", backend.0), &backend.1),
        ("pkg/local_pkg.py", "VALUE = 1\n"),
        (
            "main.py",
            "import local_pkg, alpha; print(local_pkg.VALUE, local_pkg.__file__)",
        ),
    ]);
    let task = |commit: &str| {
        json!({"repository": repository.display().to_string(), "version_num": commit, "entry_point": "main.py",
            "requirements": {"pip": "alpha\n-e ./pkg"}})
    };
    let (first, host) = build_in(&bench, task(&commit), "first");
    assert_eq!(ready(&host), "built and cached, 2 packages", "{}", host.console());
    let file = |place: &str| {
        bench
            .path(place)
            .join("task_repository/project.git/pkg/local_pkg.py")
    };
    assert_eq!(
        run(&first, &bench.settings),
        format!("1 {}\n", file("first").display())
    );
    let commit = crate::common::commit(&repository, &[("pkg/local_pkg.py", "VALUE = 2\n")]);
    let (second, host) = build_in(&bench, task(&commit), "second");
    assert_eq!(ready(&host), "cache hit, 2 packages", "{}", host.console());
    assert_eq!(
        run(&second, &bench.settings),
        format!("2 {}\n", file("second").display())
    );
    assert_eq!(host.reported(), ["alpha==1.0", "-e ./pkg"]);
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

/// The example of this crate, which cargo builds with the test.
fn builder() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let program = own
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples/environment_cache");
    assert!(
        program.is_file(),
        "{} is missing: cargo build -p clearml-env-builder --examples",
        program.display()
    );
    program
}

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
        let mut command = Command::new(builder());
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
