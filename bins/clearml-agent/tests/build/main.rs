//! `build` without a container, and `execute --standalone-mode` of what it made: the built executable, real git, pip
//! and Python, against the embedded server.

#![expect(clippy::unwrap_used, reason = "a test whose scene cannot be set has failed")]

#[path = "../../../../crates/env-builder/tests/builds/fixtures.rs"]
#[expect(dead_code, reason = "the other programs that have these use all of them")]
mod fixtures;
#[path = "../whole/scene.rs"]
#[expect(dead_code, reason = "the other program that has this scene uses all of it")]
mod scene;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use xtask::workbench::{AgentOptions, TaskSpec};

use crate::fixtures::make_wheel;
use crate::scene::{Scene, finish};

const DIFF: &str = "diff --git a/src/main.py b/src/main.py\n--- a/src/main.py\n+++ b/src/main.py\n@@ -1,2 +1,2 @@\n \
                    import alpha, sys\n-print('out: committed')\n+print('out: changed', alpha.VERSION, sys.prefix)\n";

/// An agent that finds packages in a folder alone, with more configuration.
fn options(scene: &Scene, more: &str) -> AgentOptions {
    let wheels = scene.folder.path().join("wheels");
    if !wheels.exists() {
        make_wheel(&wheels, "alpha", "1.0");
    }
    let wheels = wheels.to_str().unwrap().to_owned();
    let config = scene.folder.path().join("more.conf");
    let text = fs::read_to_string(scene.server.config()).unwrap();
    fs::write(
        &config,
        format!("{text}\nagent.package_manager.pip_version: \">=0\"\n{more}\n"),
    )
    .unwrap();
    let mut options = scene.options();
    for (name, value) in [
        ("PIP_NO_INDEX", "1"),
        ("PIP_FIND_LINKS", &wheels),
        ("UV_OFFLINE", "1"),
        ("UV_NO_INDEX", "1"),
        ("UV_FIND_LINKS", &wheels),
    ] {
        options = options.variable(name, value);
    }
    AgentOptions { config, ..options }
}

/// Runs a command that has to go well; its output.
fn well(options: &AgentOptions, arguments: &[&str]) -> String {
    let (code, output, errors) = finish(options.command(arguments));
    assert_eq!(code, 0, "{arguments:?}: {output}{errors}");
    output
}

fn told<'a>(output: &'a str, what: &str) -> &'a str {
    let line = output.lines().find_map(|line| line.strip_prefix(what));
    line.unwrap_or_else(|| panic!("no {what:?} in {output}"))
}

fn document(scene: &Scene, task: &str) -> Value {
    scene.api.call("tasks.get_by_id", json!({"task": task})).unwrap()["task"].clone()
}

/// The version of `python3`, as a part of paths.
fn python_of_machine() -> PathBuf {
    let program = "import sys; print(sys.executable, '%d.%d' % sys.version_info[:2])";
    let output = Command::new("python3")
        .args(["-I", "-c", program])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    PathBuf::from(text.split_whitespace().last().unwrap())
}

#[test]
fn a_repository_is_built_and_run_by_standalone_mode_without_fetching_anything() {
    let scene = Scene::new();
    let files = [("src/main.py", "import alpha, sys\nprint('out: committed')\n")];
    let (url, commit) = scene.repository("project", &files);
    let spec = TaskSpec::repository(&url, &commit, "main.py")
        .with("working_dir", "src")
        .with("diff", DIFF)
        .requirements("alpha<2");
    let task = scene.api.create_task("to be built", &spec).unwrap();
    let options = options(&scene, "");
    let before = document(&scene, &task);
    let output = well(&options, &["build", "--id", "to be built", "--cpu-only"]);

    let venv = options
        .home
        .join(".clearml/venvs-builds")
        .join(python_of_machine());
    let venv = venv.canonicalize().unwrap();
    let copy = venv.join("task_repository/project");
    assert_eq!(
        Path::new(told(&output, "Virtual environment: ")),
        venv.join("bin")
    );
    assert_eq!(Path::new(told(&output, "Source code: ")), copy);
    assert_eq!(
        Path::new(told(&output, "Entry point: ")),
        copy.join("src/main.py")
    );
    let summary = output.split_once("\nPackages:\n").unwrap().1;
    assert!(summary.starts_with("  alpha==1.0\n"), "{output}");
    assert!(output.contains("clone finished in"), "{output}");

    // Nothing of it is seen on the server.
    let after = document(&scene, &task);
    for field in ["status", "script", "started", "last_worker"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert_eq!(scene.api.console(&task).unwrap(), "");
    assert_eq!(
        scene
            .api
            .call("workers.get_all", json!({"last_seen": 0}))
            .unwrap()["workers"],
        json!([])
    );

    // Neither code nor packages could come from anywhere else.
    fs::remove_dir_all(scene.folder.path().join("project")).unwrap();
    fs::remove_dir_all(scene.folder.path().join("wheels")).unwrap();
    fs::remove_dir_all(options.home.join(".clearml/vcs-cache")).unwrap();
    let expected = format!("out: changed 1.0 {}", venv.display());
    well(&options, &["execute", "--standalone-mode", "--id", &task]);
    let ended = scene.ended(&task);
    ended.assert_status("completed");
    assert_eq!(ended.output(), [expected.as_str()]);
    let output = well(
        &options,
        &["execute", "--standalone-mode", "--clone", "--id", &task],
    );
    let copy = told(&output, "Task cloned, new task id=").to_owned();
    assert_eq!(scene.ended(&copy).output(), [expected]);
}

#[test]
fn a_script_is_built_in_a_folder_of_choice_and_found_there() {
    let scene = Scene::new();
    let options = options(&scene, "");
    let program = "import alpha, sys\nprint('out:', alpha.VERSION, sys.prefix, sys.flags.optimize)\n";
    let spec = TaskSpec::script(program).requirements("alpha");
    let task = scene.api.create_task("a script", &spec).unwrap();
    let build = |target: &str, more: &[&str]| {
        let arguments = [&["build", "--id", &task, "--target", target], more].concat();
        let mut command = options.command(&arguments);
        command.current_dir(scene.folder.path());
        finish(command)
    };
    let series = python_of_machine();
    let version = ["--python-version", series.to_str().unwrap(), "--json", "-O"];
    let (code, output, errors) = build("built/here", &version);
    assert_eq!(code, 0, "{output}{errors}");
    let built: Value = serde_json::from_str(&output).unwrap();
    let target = scene.folder.path().join("built/here").canonicalize().unwrap();
    let path = |name: &str| json!(target.join(name));
    assert_eq!(built["virtual_environment"], path("bin"));
    assert_eq!(built["source_code"], path("code"));
    assert_eq!(built["entry_point"], path("code/script.py"));
    assert_eq!(built["packages"], json!(["alpha==1.0"]));
    assert!(
        built["command"].as_array().unwrap().contains(&json!("-O")),
        "{built}"
    );
    assert!(errors.contains("packages finished in"), "{errors}");
    assert_eq!(document(&scene, &task)["status"], "created");

    well(&options, &["execute", "--standalone-mode", "--id", &task]);
    let ended = scene.ended(&task);
    ended.assert_status("completed");
    assert_eq!(ended.output(), [format!("out: 1.0 {} 0", target.display())]);

    // Its own builds give way to the next; what is somebody else's doesn't.
    fs::write(target.join("left over"), "").unwrap();
    let (code, output, errors) = build("built/here", &[]);
    assert_eq!(code, 0, "{output}{errors}");
    assert!(output.contains("replacing the earlier build in"), "{output}");
    assert!(!target.join("left over").exists());
    fs::create_dir(scene.folder.path().join("mine")).unwrap();
    fs::write(scene.folder.path().join("mine/thesis.txt"), "").unwrap();
    for (target, version, what) in [
        ("mine", "3", "is not an earlier build"),
        ("more.conf", "3", "creating"),
        ("", "3", "--target is empty"),
        ("nowhere", "3.99", "there is no Python 3.99"),
    ] {
        let (code, output, _) = build(target, &["--python-version", version]);
        assert_eq!(code, 1, "{target}: {output}");
        assert!(
            output.contains("clearml_agent: ERROR: ") && output.contains(what),
            "{output}"
        );
    }
    assert!(scene.folder.path().join("mine/thesis.txt").is_file());
    assert!(!scene.folder.path().join("nowhere").exists());
    assert_eq!(build("t", &["--python-version", "three"]).0, 2);
}

#[test]
fn an_interrupted_build_leaves_nothing_that_counts() {
    let scene = Scene::new();
    let script = scene.folder.path().join("build.sh");
    fs::write(&script, "echo preparing at length\nexec sleep 60\n").unwrap();
    let slow = options(&scene, &format!("agent.custom_build_script: {}", json!(script)));
    let task = scene
        .api
        .create_task("slow", &TaskSpec::script("import sys\nprint('out:', sys.prefix)"))
        .unwrap();
    let target = scene.folder.path().join("target");
    let interrupted = |signal: Signal| {
        let mut command = slow.command(&["build", "--id", &task, "--target", target.to_str().unwrap()]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut lines = lines.lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("preparing at length")));
        kill_process(Pid::from_child(&child), signal).unwrap();
        child.wait().unwrap().code()
    };
    assert_eq!(interrupted(Signal::INT), Some(254));
    assert!(!target.exists());
    assert_eq!(interrupted(Signal::KILL), None);
    assert!(target.join("code").is_dir());

    // What is half made is not run.
    let quick = options(&scene, "");
    let prefix = |console: &str| told(console, "out: ").to_owned();
    well(&quick, &["execute", "--standalone-mode", "--id", &task]);
    assert!(!prefix(&scene.ended(&task).console).starts_with(target.to_str().unwrap()));
    let output = well(
        &quick,
        &["build", "--id", &task, "--target", target.to_str().unwrap()],
    );
    assert!(output.contains("replacing the earlier build in"), "{output}");
    let edit = json!({"task": task, "force": true});
    scene.api.call("tasks.reset", edit).unwrap();
    well(&quick, &["execute", "--standalone-mode", "--id", &task]);
    let target = target.canonicalize().unwrap();
    assert_eq!(prefix(&scene.ended(&task).console), target.to_str().unwrap());
}

#[test]
fn globally_packages_go_into_the_interpreter_and_the_environment_sees_them() {
    let scene = Scene::new();
    let base = scene.folder.path().join("base");
    let made = Command::new("python3")
        .args(["-m", "venv"])
        .arg(&base)
        .status()
        .unwrap();
    assert!(made.success());
    let python = base.join("bin/python");
    let options = options(&scene, &format!("agent.python_binary: {}", json!(python)));
    let program = "import alpha, sys\nprint('out:', alpha.__file__, sys.prefix)\n";
    let spec = TaskSpec::script(program).with("binary", "").requirements("alpha");
    let task = scene.api.create_task("global", &spec).unwrap();
    let target = scene.folder.path().join("env");
    let folder = target.to_str().unwrap();
    well(
        &options,
        &["build", "--id", &task, "--install-globally", "--target", folder],
    );
    well(&options, &["execute", "--standalone-mode", "--id", &task]);
    let ended = scene.ended(&task);
    ended.assert_status("completed");
    let lib = format!(
        "lib/python{}/site-packages/alpha.py",
        python_of_machine().display()
    );
    let target = target.canonicalize().unwrap();
    let base = base.canonicalize().unwrap();
    let expected = format!("out: {} {}", base.join(lib).display(), target.display());
    assert_eq!(ended.output(), [expected]);
}

#[test]
fn a_build_that_fails_says_so_and_leaves_nothing() {
    let scene = Scene::new();
    let script = scene.folder.path().join("build.sh");
    fs::write(&script, "exit 17\n").unwrap();
    let custom = options(&scene, &format!("agent.custom_build_script: {}", json!(script)));
    let spec = TaskSpec::script("print()").requirements("no-such-package");
    let task = scene.api.create_task("broken", &spec).unwrap();
    let target = scene.folder.path().join("target");
    let arguments = ["build", "--id", &task, "--target", target.to_str().unwrap()];
    let (code, output, _) = finish(custom.command(&arguments));
    assert_eq!(code, 17, "{output}");
    assert!(!target.exists());
    let (code, output, _) = finish(options(&scene, "").command(&arguments));
    assert_eq!(code, 1, "{output}");
    assert!(
        output.contains("clearml_agent: ERROR: environment: ") && output.contains("no-such-package"),
        "{output}"
    );
    assert!(!target.exists());
    let (code, output, _) = finish(options(&scene, "").command(&["build", "--id", "nobody"]));
    assert_eq!(code, 1, "{output}");
    assert!(output.contains("Could not find task id=nobody"), "{output}");
    assert_eq!(document(&scene, &task)["status"], "created");
}
