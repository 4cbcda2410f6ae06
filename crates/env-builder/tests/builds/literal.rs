//! Tasks without a repository, interpreters, and what is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use crate::common::{Bench, run};
use clearml_env_builder::{BuildError, Phase, Stage};
use serde_json::json;

const WHO: &str = "import sys, os; print(sys.prefix, sys.argv[1:], os.environ['VIRTUAL_ENV'])";

#[test]
fn a_script_runs_in_an_environment_of_its_own_with_pip() {
    let bench = Bench::new();
    let script = json!({"binary": "python3", "entry_point": "train.py --lr 0.1", "working_dir": ".", "diff":
        format!("{WHO}\nimport subprocess; print(subprocess.check_output(['pip', '--version'], text=True))")});
    let (prepared, host, output) = bench.build_and_run(script);
    let venv = bench.path("run/venv");
    let expected = format!("{0} ['--lr', '0.1'] {0}\n", venv.display());
    assert!(output.starts_with(&expected), "{output}");
    assert!(output.contains(&format!("from {}", venv.display())), "{output}");
    assert_eq!(prepared.cwd, bench.path("run/code"));
    assert_eq!(prepared.argv[1], "-u");
    assert!(prepared.commit.is_none() && prepared.repository_root.is_none());
    assert!(
        host.packages.lock().unwrap().is_none(),
        "nothing to report without requirements"
    );
    let phases = [
        (Phase::Python, false),
        (Phase::Python, true),
        (Phase::Script, false),
        (Phase::Script, true),
    ];
    assert_eq!(host.phases.lock().unwrap()[..4], phases);
    assert!(!bench.path("run/tmp").exists());
}

#[test]
fn a_second_build_in_the_same_folder_starts_clean_and_quickly() {
    let bench = Bench::new();
    let script = json!({"binary": "python3", "entry_point": "a.py", "diff": "print('one')"});
    let (first, ..) = bench.build_and_run(script.clone());
    let leftover = bench.path("run/venv/leftover");
    fs::write(&leftover, "").unwrap();
    fs::write(first.cwd.join("left.py"), "").unwrap();
    let started = Instant::now();
    let (second, ..) = bench.build_and_run(script);
    eprintln!("second build and run: {:?}", started.elapsed());
    assert_eq!(first, second);
    assert!(!leftover.exists() && !second.cwd.join("left.py").exists());
}

#[test]
fn files_in_folders_modules_and_names_are_found() {
    let bench = Bench::new();
    for (entry, folder, diff, expected) in [
        ("sub/deep/train.py", ".", "print('deep')", "deep\n"),
        (
            "-m train x",
            ".:train.py",
            "import sys; print(sys.argv[1:])",
            "['x']\n",
        ),
        ("", ".", "print('untitled')", "untitled\n"),
        ("noext", "", "print('odd')", "odd\n"),
        ("-c print(7)", ".", "x = 1", "7\n"),
        (
            "-m untitled $CLEARML_TASK_ID",
            ".",
            "import sys; print(sys.argv[1])",
            "0123abcd\n",
        ),
    ] {
        let script = json!({"binary": "python3", "entry_point": entry, "working_dir": folder, "diff": diff});
        let (_, _, output) = bench.build_and_run(script);
        assert_eq!(output, expected, "{entry:?}");
    }
}

#[test]
fn modules_next_to_a_script_in_a_folder_are_importable() {
    let bench = Bench::new();
    let diff = "import os, sys; print(os.getcwd() in sys.path, os.path.dirname(os.path.abspath(__file__)) in sys.path)";
    let (prepared, _, output) = bench.build_and_run(json!({"entry_point": "sub/a.py", "diff": diff}));
    assert_eq!(output, "True True\n");
    let path = prepared
        .env
        .iter()
        .find(|(name, _)| name == "PYTHONPATH")
        .unwrap()
        .1
        .clone()
        .unwrap();
    let path: Vec<_> = std::env::split_paths(&path).collect();
    assert_eq!(path[..2], [bench.path("run/code"), bench.path("run/code/sub")]);
}

#[test]
fn shell_tasks_start_without_python_and_keep_their_text() {
    let mut bench = Bench::new();
    bench.env("SHELL", "/bin/sh");
    let (prepared, _, output) = bench
        .build_and_run(json!({"binary": "bash", "entry_point": "-c echo \"a  b\";  echo $0", "diff": "x"}));
    assert!(output.starts_with("a  b\n"), "{output}");
    assert_eq!(
        prepared.argv[0].to_string_lossy().rsplit('/').next(),
        Some("bash")
    );
    assert!(prepared.python.is_none() && !bench.path("run/venv").exists());
    let (_, _, output) = bench
        .build_and_run(json!({"binary": "/bin/sh", "entry_point": "run.sh 1 '2 3'", "diff": "echo $# $2"}));
    assert_eq!(output, "2 2 3\n");
}

#[test]
fn another_interpreter_is_used_with_a_warning() {
    let bench = Bench::new();
    let (prepared, host, output) =
        bench.build_and_run(json!({"binary": "python3.99", "entry_point": "a.py", "diff": "print(1)"}));
    assert_eq!(output, "1\n");
    assert!(
        host.console()
            .contains("Warning: Python 3.99 was requested but not found"),
        "{}",
        host.console()
    );
    assert!(prepared.python.is_some());
}

#[test]
fn an_interpreter_that_does_not_run_is_passed_over() {
    let mut bench = Bench::new();
    let bin = bench.path("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("python3.98"), "#!/bin/sh\necho broken >&2\nexit 9\n").unwrap();
    fs::set_permissions(bin.join("python3.98"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), bench.settings.env["PATH"]);
    bench.env("PATH", path);
    let (_, host, _) = bench.build_and_run(
        json!({"binary": "python3.98", "entry_point": "a.py", "diff": ""  , "repository": null})
            .as_object()
            .map(|o| {
                let mut o = o.clone();
                o.insert("diff".into(), "print(1)".into());
                o.into()
            })
            .unwrap(),
    );
    assert!(host.console().contains("is skipped"), "{}", host.console());
}

#[test]
fn without_any_interpreter_the_names_are_told() {
    let mut bench = Bench::new();
    bench.env("PATH", bench.path("none").display().to_string());
    let (result, _) = bench.build(json!({"binary": "python3.9", "entry_point": "a.py", "diff": "print(1)"}));
    let error = result.unwrap_err();
    assert_eq!(error.stage(), Stage::Environment);
    assert!(
        error.to_string().contains("python3.9, python3, python"),
        "{error}"
    );
}

#[test]
fn a_python_of_a_virtual_environment_leads_to_its_base() {
    let mut bench = Bench::new();
    let script = json!({"entry_point": "a.py", "diff": "import sys; print(sys.base_prefix)"});
    let (first, _, base) = bench.build_and_run(script.clone());
    // The configured interpreter is itself in an environment, whose packages must not leak in.
    let outer = bench.path("outer");
    fs::rename(bench.path("run/venv"), &outer).unwrap();
    bench.settings.python_binary = Some(outer.join("bin/python"));
    bench.settings.ignore_requested_python_version = true;
    let (second, _, again) = bench.build_and_run(script);
    assert_eq!(base, again);
    assert_eq!(first.argv[0], second.argv[0]);
}

#[test]
fn what_can_not_be_started_is_an_error_with_its_stage() {
    let bench = Bench::new();
    for (script, stage, text) in [
        (
            json!({"entry_point": "none.py", "diff": ""}),
            Stage::Launch,
            "\"none.py\" does not exist",
        ),
        (
            json!({"entry_point": "", "diff": ""}),
            Stage::Launch,
            "no entry point",
        ),
        (
            json!({"entry_point": "nb.ipynb", "diff": "", "binary": "python3"}),
            Stage::Launch,
            "\"nb.ipynb\" does not exist",
        ),
    ] {
        let (result, host) = bench.build(script);
        let error = result.unwrap_err();
        assert_eq!(error.stage(), stage, "{error}");
        assert!(error.to_string().contains(text), "{error}\n{}", host.console());
    }
    let (result, _) = bench.build(json!(null));
    assert!(matches!(result, Err(BuildError::NoScript)));
}

#[test]
fn without_an_environment_the_first_interpreter_on_path_runs() {
    let mut bench = Bench::new();
    bench.env("CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL", "1");
    let script = json!({"binary": "python3", "entry_point": "a.py", "diff": "import sys; print(sys.prefix == sys.base_prefix)"});
    let (prepared, host, output) = bench.build_and_run(script);
    assert_eq!(output, "True\n");
    assert!(!prepared.env.iter().any(|(name, _)| name == "VIRTUAL_ENV"));
    assert!(host.packages.lock().unwrap().is_none());
    // As in an image with an activated environment.
    let outer = bench.path("outer");
    let made = std::process::Command::new("python3")
        .args(["-m", "venv", "--without-pip"])
        .arg(&outer)
        .status();
    assert!(made.unwrap().success());
    let path = format!("{}:{}", outer.join("bin").display(), bench.settings.env["PATH"]);
    bench.env("PATH", path);
    let prefix = json!({"binary": "python3", "entry_point": "a.py", "diff": "import sys; print(sys.prefix)"});
    assert_eq!(bench.build_and_run(prefix).2.trim(), outer.display().to_string());
}

#[test]
fn a_cancelled_build_says_so() {
    let bench = Bench::new();
    let host = crate::common::Recorder::default();
    host.cancel.cancel();
    let result = bench.build_with(json!({"entry_point": "a.py", "diff": "print(1)"}), "run", &host);
    assert!(result.unwrap_err().is_cancelled());
}

#[test]
fn system_packages_are_visible_only_when_asked_for() {
    let mut bench = Bench::new();
    let script = json!({"entry_point": "a.py", "diff": "import site, sys\nprint(sum('site-packages' in p for p in dict.fromkeys(sys.path)))"});
    let (_, _, alone) = bench.build_and_run(script.clone());
    bench.settings.package_manager.system_site_packages = true;
    let (prepared, ..) = bench.build_and_run(script);
    assert_eq!(alone, "1\n");
    let seen = run(&prepared, &bench.settings);
    assert!(seen.trim().parse::<u32>().unwrap() >= 2, "{seen}");
}
