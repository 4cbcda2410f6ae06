//! Installing with real pip and real uv.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::common::{Bench, Recorder};
use crate::fixtures::{make_wheel, self_building};
use clearml_env_builder::{PackageManagerKind, Stage};
use clearml_support::lock::FileLock;
use serde_json::{Value, json};

pub(crate) fn script(requirements: &str, diff: &str) -> Value {
    json!({"binary": "python3", "entry_point": "a.py", "diff": diff, "requirements": {"pip": requirements}})
}

fn made(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// uv from PATH, or installed once for all tests.
pub(crate) fn uv(test: &str) -> Option<PathBuf> {
    let on_path = std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|f| f.join("uv"))
        .find(|p| p.is_file());
    if on_path.is_some() {
        return on_path;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("test-venvs");
    fs::create_dir_all(&folder).unwrap();
    let _lock = FileLock::acquire(&folder.join("uv.lock"), Duration::from_secs(120)).unwrap();
    let uv = folder.join("uv/bin/uv");
    if !uv.is_file() {
        let venv = folder.join("uv");
        let installed = made(Command::new("python3").args(["-m", "venv"]).arg(&venv))
            && made(Command::new(venv.join("bin/python")).args(["-m", "pip", "install", "-q", "uv"]));
        if !installed {
            eprintln!("SKIPPED {test}: uv is not on PATH and can't be installed");
            return None;
        }
    }
    Some(uv)
}

/// Whether a package index answers: some tests are about the network.
pub(crate) fn index(test: &str) -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let found = *FOUND.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        Command::new("python3")
            .args(["-m", "pip", "--retries", "1", "download", "-q", "--no-deps", "-d"])
            .arg(folder.path())
            .arg("six==1.16.0")
            .output()
            .is_ok_and(|output| output.status.success())
    });
    if !found {
        eprintln!("SKIPPED {test}: there is no package index");
    }
    found
}

#[test]
fn a_list_is_installed_and_reported_like_pip_does() {
    let mut bench = Bench::new();
    bench.wheel("Alpha", "1.0");
    bench.wheel("beta_x", "2.0");
    bench.wheel("beta_x", "3.0");
    let list = "# Python 3.11\nbeta_x == 2.0  # pinned\nAlpha\nclearml-agent==1.9\n";
    let (prepared, host, output) = bench.build_and_run(script(
        list,
        "import Alpha, beta_x; print(Alpha.VERSION, beta_x.VERSION)",
    ));
    assert_eq!(output, "1.0 2.0\n");
    assert_eq!(host.reported(), ["Alpha==1.0", "beta_x==2.0"]);
    let freeze = Command::new(prepared.python.unwrap())
        .args(["-m", "pip", "freeze"])
        .output()
        .unwrap();
    let lines: Vec<String> = String::from_utf8(freeze.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!(host.reported(), lines);
}

#[test]
fn uv_installs_the_same() {
    let Some(uv) = uv("uv_installs_the_same") else {
        return;
    };
    let mut bench = Bench::new();
    make_wheel(&bench.path("wheels"), "gamma", "1.5");
    bench.settings.package_manager.kind = PackageManagerKind::Uv;
    bench.settings.package_manager.uv_binary = Some(uv);
    let list = format!(
        "--no-index\n--find-links {}\ngamma==1.5",
        bench.path("wheels").display()
    );
    let (prepared, host, output) = bench.build_and_run(script(&list, "import gamma; print(gamma.VERSION)"));
    assert_eq!(output, "1.5\n");
    assert_eq!(host.reported(), ["gamma==1.5"]);
    let path = prepared
        .env
        .iter()
        .find(|(name, _)| name == "PYTHONPATH")
        .unwrap()
        .1
        .clone()
        .unwrap();
    assert_eq!(
        path,
        bench.path("run/code"),
        "with uv only the folders of the code are in PYTHONPATH"
    );

    let (result, host) = bench.build(script("--no-index\nabsent==1", "1"));
    let error = result.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("Could not install task requirements: "),
        "{error}"
    );
    assert!(
        error.to_string().contains("absent was not found"),
        "{error}\n{}",
        host.console()
    );
}

#[test]
fn uv_in_place_of_pip_works_every_time_and_touches_no_other_environment() {
    let Some(uv) = uv("uv_in_place_of_pip_works_every_time_and_touches_no_other_environment") else {
        return;
    };
    let mut bench = Bench::new();
    make_wheel(&bench.path("wheels"), "gamma", "1.5");
    // The agent itself may live in an environment, and be started from it.
    let own = bench.path("own");
    assert!(made(Command::new("python3").args(["-m", "venv"]).arg(&own)));
    let path = format!("{}:{}", own.join("bin").display(), std::env::var("PATH").unwrap());
    bench.env("VIRTUAL_ENV", own.to_str().unwrap());
    bench.env("PATH", path);
    let freeze = || {
        let pip = Command::new(own.join("bin/python"))
            .args(["-m", "pip", "freeze", "--all"])
            .output()
            .unwrap();
        assert!(pip.status.success());
        String::from_utf8(pip.stdout).unwrap()
    };
    let before = freeze();
    bench.settings.package_manager.uv_replace_pip = true;
    bench.settings.package_manager.uv_binary = Some(uv);
    let list = format!(
        "--no-index\n--find-links {}\ngamma==1.5",
        bench.path("wheels").display()
    );
    for round in 0..2 {
        let task = script(&list, "import gamma; print(gamma.VERSION)");
        let (_, host, output) = bench.build_and_run(task);
        assert_eq!(output, "1.5\n", "round {round}: {}", host.console());
        assert_eq!(host.reported(), ["gamma==1.5"], "round {round}");
        assert_eq!(
            freeze(),
            before,
            "round {round}: the agent's own environment has changed"
        );
    }
}

#[test]
fn the_index_is_asked_by_pip_and_by_uv() {
    if !index("the_index_is_asked_by_pip_and_by_uv") {
        return;
    }
    let mut bench = Bench::new();
    let task = script("six == 1.16.0", "import six; print(six.__version__)");
    for round in 0..2 {
        let started = Instant::now();
        let (_, host, output) = bench.build_and_run(task.clone());
        eprintln!("pip, round {round}: {:?}", started.elapsed());
        assert_eq!(
            (output.as_str(), host.reported()),
            ("1.16.0\n", vec!["six==1.16.0".to_owned()])
        );
    }
    let Some(uv) = uv("the_index_is_asked_by_pip_and_by_uv (uv)") else {
        return;
    };
    bench.settings.package_manager.uv_replace_pip = true;
    bench.settings.package_manager.uv_binary = Some(uv);
    for round in 0..2 {
        let started = Instant::now();
        let (_, host, output) = bench.build_and_run(task.clone());
        eprintln!("uv, round {round}: {:?}", started.elapsed());
        assert_eq!(
            (output.as_str(), host.reported()),
            ("1.16.0\n", vec!["six==1.16.0".to_owned()])
        );
    }
}

#[test]
fn a_package_that_does_not_exist_is_named() {
    let mut bench = Bench::new();
    bench.wheel("alpha", "1.0");
    let (result, host) = bench.build(script("alpha==9.9", "1"));
    let error = result.unwrap_err();
    assert_eq!(error.stage(), Stage::Environment);
    assert!(
        error
            .to_string()
            .contains("No matching distribution found for alpha==9.9"),
        "{error}"
    );
    assert!(host.console().contains("Error: alpha==9.9"), "{}", host.console());
    assert!(host.packages.lock().unwrap().is_none());
}

#[test]
fn without_uv_pip_serves() {
    let mut bench = Bench::new();
    bench.wheel("alpha", "1.0");
    bench.settings.package_manager.kind = PackageManagerKind::Uv;
    bench.settings.package_manager.uv_binary = Some(bench.path("no/uv"));
    let (_, host, _) = bench.build_and_run(script("alpha", "import alpha"));
    assert!(
        host.console().contains("Warning: uv is configured"),
        "{}",
        host.console()
    );
}

#[test]
fn repository_files_count_only_without_a_list() {
    let mut bench = Bench::new();
    bench.wheel("alpha", "1.0");
    bench.wheel("beta", "1.0");
    bench.wheel("gamma", "1.0");
    let (repository, commit) = bench.repository(&[
        ("requirements.txt", "alpha\n-r more/extra.txt\n"),
        ("more/extra.txt", "beta\n"),
        ("sub/requirements.txt", "gamma\n"),
        ("sub/main.py", "print(1)"),
    ]);
    let task = |requirements: Value| {
        json!({"repository": repository.display().to_string(), "version_num": commit, "entry_point": "main.py",
            "working_dir": "sub", "requirements": requirements})
    };
    let reported = |requirements: Value| bench.build_and_run(task(requirements)).1.reported();
    assert_eq!(
        reported(json!({"pip": ""})),
        ["alpha==1.0", "beta==1.0", "gamma==1.0"]
    );
    assert_eq!(reported(json!({"pip": ["gamma"]})), ["gamma==1.0"]);
    assert_eq!(reported(json!({"pip": "-r more/extra.txt"})), ["beta==1.0"]);
    assert!(reported(json!({"pip": "# Python 3.10\n"})).is_empty());
    bench.settings.package_manager.force_original_requirements = true;
    let original = bench
        .build_and_run(task(json!({"pip": "gamma", "org_pip": "alpha"})))
        .1
        .reported();
    assert_eq!(original, ["alpha==1.0"]);
    bench.settings.package_manager.force_repo_requirements_txt = true;
    assert_eq!(
        bench
            .build_and_run(task(json!({"pip": "gamma"})))
            .1
            .reported()
            .len(),
        3
    );
}

#[test]
fn local_and_editable_packages_keep_their_names() {
    let bench = Bench::new();
    let [project, backend] = self_building("local-pkg");
    let (repository, commit) = bench.repository(&[
        (&format!("pkg/{}", project.0), &project.1),
        (&format!("pkg/{}", backend.0), &backend.1),
        ("pkg/local_pkg.py", "print(__file__)\n"),
        ("main.py", "import local_pkg"),
    ]);
    let task = |list: &str| {
        json!({"repository": repository.display().to_string(), "version_num": commit, "entry_point": "main.py",
            "requirements": {"pip": list}})
    };
    let (_, host, output) = bench.build_and_run(task("./pkg"));
    assert!(output.contains("site-packages"), "{output}");
    assert_eq!(host.reported(), ["./pkg"]);
    let (_, host, output) = bench.build_and_run(task("-e ./pkg#egg=other"));
    assert!(
        output.contains("task_repository/project.git/pkg/local_pkg.py"),
        "{output}"
    );
    assert_eq!(host.reported(), ["-e ./pkg#egg=other"]);
}

#[test]
fn a_package_from_a_repository_is_reported_with_its_commit() {
    let bench = Bench::new();
    let [project, backend] = self_building("vcs-pkg");
    let (repository, commit) = bench.repository(&[(&project.0, &project.1), (&backend.0, &backend.1)]);
    let line = format!(
        "git+file://{}@{}#egg=vcs-pkg",
        repository.display(),
        &commit[..12]
    );
    let (prepared, host, output) = bench.build_and_run(script(&line, "import vcs_pkg"));
    assert!(output.contains("site-packages"), "{output}");
    let freeze = Command::new(prepared.python.unwrap())
        .args(["-m", "pip", "freeze"])
        .output()
        .unwrap();
    assert_eq!(
        host.reported().join("\n"),
        String::from_utf8(freeze.stdout).unwrap().trim()
    );
    assert!(host.reported()[0].ends_with(&commit), "{:?}", host.reported());
}

#[test]
fn index_addresses_are_not_arguments_and_stay_secret() {
    let mut bench = Bench::new();
    bench.wheel("alpha", "1.0");
    bench.settings.env.remove("PIP_NO_INDEX");
    bench.env("PIP_RETRIES", "0");
    bench.env("PIP_INDEX_URL", "http://127.0.0.1:1/simple");
    bench.settings.package_manager.extra_index_url = vec!["http://me:geheim-77@127.0.0.1:1/extra".into()];
    // The environment's pip writes down how it was called.
    let (result, host) = bench.build(script("absent==1", "1"));
    let text = format!("{}\n{}", result.unwrap_err(), host.console());
    assert!(text.contains("http://127.0.0.1:1/extra"), "{text}");
    assert!(!text.contains("geheim"), "{text}");
    assert!(!bench.path("run/tmp/requirements.txt").exists());
}

#[test]
fn a_stuck_installer_is_cancelled_with_all_its_processes() {
    let mut bench = Bench::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/simple", silent.local_addr().unwrap());
    bench.settings.env.remove("PIP_FIND_LINKS");
    bench.env("PIP_INDEX_URL", address);
    let host = Recorder::default();
    let token = host.cancel.clone();
    let started = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // It has asked: now it waits for an answer that never comes.
            let _connection = silent.accept().unwrap();
            token.cancel();
            std::thread::sleep(Duration::from_secs(1));
        });
        let error = bench.build_with(script("absent", "1"), "run", &host).unwrap_err();
        assert!(error.is_cancelled(), "{error}");
    });
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "{:?}",
        started.elapsed()
    );
    let venv = bench.path("run/venv").display().to_string();
    let left = fs::read_dir("/proc")
        .unwrap()
        .filter_map(Result::ok)
        .any(|process| {
            fs::read(process.path().join("cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&venv))
        });
    assert!(!left, "a process of the installer is still there");
}

#[test]
fn packages_of_an_earlier_task_are_gone() {
    let mut bench = Bench::new();
    bench.wheel("alpha", "1.0");
    bench.build_and_run(script("alpha", "import alpha"));
    let probe = "import importlib.util; print(importlib.util.find_spec('alpha'))";
    assert_eq!(
        bench
            .build_and_run(json!({"entry_point": "a.py", "diff": probe}))
            .2,
        "None\n"
    );
}

#[test]
fn upgrading_pip_in_one_environment_leaves_the_others_alone() {
    if !index("upgrading_pip_in_one_environment_leaves_the_others_alone") {
        return;
    }
    let bench = Bench::new();
    let version = "import pip; print(pip.__version__)";
    let (_, _, before) = bench.build_and_run(script("# none", version));
    let (_, host, changed) = bench.build_and_run(script("pip==23.3.2\nsix==1.16.0", version));
    assert_eq!(changed, "23.3.2\n");
    assert_eq!(host.reported(), ["pip==23.3.2", "six==1.16.0"]);
    let (_, _, after) = bench.build_and_run(script("# none", version));
    assert_eq!(before, after);
}
