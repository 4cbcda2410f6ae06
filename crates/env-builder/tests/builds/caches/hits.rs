//! What one task leaves for the next one, and what a task or a fault may do to it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use clearml_env_builder::LinkMode;
use serde_json::{Value, json};

use super::{bench, build_in, entries, find, ready, task, without_wheels};
use crate::common::{Bench, Recorder, run};

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
