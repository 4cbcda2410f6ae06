//! The official Python SDK, unmodified, from its package index, against this server.
//!
//! It is installed once into a virtual environment below the build folder. Every script runs with a home folder of
//! its own and knows nothing of the server but the configuration file that the server wrote.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clearml_support::command::Command;
use clearml_support::lock::FileLock;
use serde_json::{Value, json};

use crate::raw::TestServer;

const INSTALL_LIMIT: Duration = Duration::from_secs(600);
const SCRIPT_LIMIT: Duration = Duration::from_secs(180);
/// What shows in the output when the SDK is not content with the server.
const COMPLAINTS: [&str; 6] = ["Traceback", "WARNING", "ERROR", "Error:", "Retrying", "Failed"];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/sdk")
}

/// The interpreter of an environment that has the SDK; nothing when this machine has no Python at all.
fn sdk_python(test: &str) -> Option<PathBuf> {
    let works = |arguments: &[&str]| Command::new("python3").args(arguments).check().is_ok();
    if !works(&["--version"]) || !works(&["-m", "ensurepip", "--version"]) {
        eprintln!("SKIPPED {test}: python3 with venv and pip is not installed");
        return None;
    }
    let requirements = fixtures().join("requirements.txt");
    let mut hasher = DefaultHasher::new();
    std::fs::read(&requirements).unwrap().hash(&mut hasher);
    let venvs = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("test-venvs");
    std::fs::create_dir_all(&venvs).unwrap();
    let venv = venvs.join(format!("sdk-{:016x}", hasher.finish()));
    let _lock = FileLock::acquire(&venv.with_extension("lock"), INSTALL_LIMIT).unwrap();
    let complete = venv.join("complete");
    if !complete.exists() {
        Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv).timeout(INSTALL_LIMIT).check().unwrap();
        Command::new(venv.join("bin/python"))
            .args(["-m", "pip", "install", "--disable-pip-version-check", "-q", "-r"])
            .arg(&requirements)
            .timeout(INSTALL_LIMIT)
            .check()
            .unwrap();
        std::fs::write(&complete, b"").unwrap();
    }
    Some(venv.join("bin/python"))
}

/// Runs a script to its end and returns what it printed, after checking that the SDK had nothing to complain about.
fn run(server: &TestServer, python: &Path, script: &str, arguments: &[&str]) -> String {
    let home = tempfile::tempdir_in(server.folder.path()).unwrap();
    // Away from this repository, which the SDK would otherwise record with all its changes.
    let copy = home.path().join(script);
    std::fs::copy(fixtures().join(script), &copy).unwrap();
    let output = Command::new(python)
        .arg(&copy)
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home.path())
        .env("TMPDIR", home.path())
        .env("PYTHONUNBUFFERED", "1")
        .env("CLEARML_CONFIG_FILE", server.server.config_path())
        .cwd(home.path())
        .timeout(SCRIPT_LIMIT)
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script} ended with {}:\n{text}", output.status);
    for complaint in COMPLAINTS {
        assert!(!text.contains(complaint), "{script} complained ({complaint}):\n{text}");
    }
    String::from_utf8(output.stdout).unwrap()
}

/// The JSON object on the last line that a script printed.
fn result(stdout: &str) -> Value {
    let last = stdout.lines().rfind(|line| line.starts_with('{'));
    serde_json::from_str(last.unwrap_or_else(|| panic!("no result in {stdout}"))).unwrap()
}

#[test]
fn an_experiment_reports_and_is_read_back() {
    let Some(python) = sdk_python("an_experiment_reports_and_is_read_back") else { return };
    let server = TestServer::start();
    let result = result(&run(&server, &python, "train.py", &[]));
    let task = result["task"].as_str().unwrap();
    run(&server, &python, "read_back.py", &[task]);
    server.stop();
}

#[test]
fn a_script_sends_itself_to_a_queue() {
    let Some(python) = sdk_python("a_script_sends_itself_to_a_queue") else { return };
    let server = TestServer::start();
    let queue = server.ok("queues.create", json!({"name": "work"}))["id"].clone();
    let output = run(&server, &python, "remote.py", &["work"]);
    let task = output.lines().find_map(|line| line.strip_prefix("task ")).unwrap();
    let stored = server.ok("tasks.get_by_id", json!({"task": task}))["task"].clone();
    assert_eq!((&stored["status"], &stored["execution"]["queue"]), (&json!("queued"), &queue));
    assert_eq!(stored["hyperparams"]["General"]["steps"]["value"], "10");
    let script = stored["script"]["diff"].as_str().unwrap();
    assert!(script.contains("execute_remotely"), "the script itself travels: {script}");
    let popped = server.ok("queues.get_next_task", json!({"queue": queue}));
    assert_eq!(popped["entry"]["task"], json!(task));
    server.stop();
}

#[test]
fn tasks_are_managed_from_outside() {
    let Some(python) = sdk_python("tasks_are_managed_from_outside") else { return };
    let server = TestServer::start();
    server.ok("queues.create", json!({"name": "work"}));
    let result = result(&run(&server, &python, "manage.py", &["work"]));
    let base = server.ok("tasks.get_by_id", json!({"task": result["base"]}))["task"].clone();
    assert_eq!(base["system_tags"], json!(["archived"]));
    assert_eq!(base["container"]["image"], "python:3.12");
    server.stop();
}
