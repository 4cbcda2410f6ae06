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
    let venvs = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .unwrap()
        .join("test-venvs");
    std::fs::create_dir_all(&venvs).unwrap();
    let venv = venvs.join(format!("sdk-{:016x}", hasher.finish()));
    let _lock = FileLock::acquire(&venv.with_extension("lock"), INSTALL_LIMIT).unwrap();
    let complete = venv.join("complete");
    if !complete.exists() {
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&venv)
            .timeout(INSTALL_LIMIT)
            .check()
            .unwrap();
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

/// Everything a script needs to know.
struct Sdk {
    server: TestServer,
    python: PathBuf,
    home: tempfile::TempDir,
}

impl Sdk {
    fn start(test: &str) -> Option<Self> {
        let python = sdk_python(test)?;
        let server = TestServer::start();
        let home = tempfile::tempdir_in(server.folder.path()).unwrap();
        Some(Self { server, python, home })
    }

    fn run(&self, script: &str, arguments: &[&str]) -> String {
        self.run_with(script, arguments, &[])
    }

    /// Runs a script to its end and returns what it printed, after checking that the SDK did not complain.
    fn run_with(&self, script: &str, arguments: &[&str], environment: &[(&str, &str)]) -> String {
        let home = self.home.path();
        // Away from this repository, which the SDK would otherwise record with all its changes.
        let copy = home.join(script);
        std::fs::copy(fixtures().join(script), &copy).unwrap();
        let command = Command::new(&self.python)
            .arg(&copy)
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home)
            .env("TMPDIR", home)
            .env("PYTHONUNBUFFERED", "1")
            .env("CLEARML_CONFIG_FILE", self.server.server.config_path())
            .cwd(home)
            .timeout(SCRIPT_LIMIT);
        let command = environment
            .iter()
            .fold(command, |command, (name, value)| command.env(name, value));
        let output = command.output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let text = format!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
        assert!(
            output.status.success(),
            "{script} ended with {}:\n{text}",
            output.status
        );
        for complaint in COMPLAINTS {
            assert!(
                !text.contains(complaint),
                "{script} complained ({complaint}):\n{text}"
            );
        }
        stdout
    }
}

/// The JSON object on the last line that a script printed.
fn result(stdout: &str) -> Value {
    let last = stdout.lines().rfind(|line| line.starts_with('{'));
    serde_json::from_str(last.unwrap_or_else(|| panic!("no result in {stdout}"))).unwrap()
}

#[test]
fn an_experiment_reports_and_is_read_back() {
    let Some(sdk) = Sdk::start("an_experiment_reports_and_is_read_back") else {
        return;
    };
    let result = result(&sdk.run("train.py", &[]));
    sdk.run("read_back.py", &[result["task"].as_str().unwrap()]);
    sdk.server.stop();
}

#[test]
fn a_script_sends_itself_to_a_queue_and_runs_there_with_changed_parameters() {
    let Some(sdk) = Sdk::start("a_script_sends_itself_to_a_queue_and_runs_there_with_changed_parameters")
    else {
        return;
    };
    let server = &sdk.server;
    let queue = server.ok("queues.create", json!({"name": "work"}))["id"].clone();
    let output = sdk.run("remote.py", &["work"]);
    let task = output
        .lines()
        .find_map(|line| line.strip_prefix("task "))
        .unwrap();
    let stored = server.ok("tasks.get_by_id", json!({"task": task}))["task"].clone();
    assert_eq!(
        (&stored["status"], &stored["execution"]["queue"]),
        (&json!("queued"), &queue)
    );
    assert_eq!(stored["hyperparams"]["General"]["steps"]["value"], "10");
    let script = stored["script"]["diff"].as_str().unwrap();
    assert!(
        script.contains("execute_remotely"),
        "the script itself travels: {script}"
    );
    let popped = server.ok("queues.get_next_task", json!({"queue": queue}));
    assert_eq!(popped["entry"]["task"], json!(task));

    let changed = json!([{"section": "General", "name": "steps", "value": "77"}]);
    server.ok(
        "tasks.edit_hyper_params",
        json!({"task": task, "hyperparams": changed, "force": true}),
    );
    server.ok("tasks.started", json!({"task": task, "force": true}));
    let output = sdk.run_with("remote.py", &["work"], &[("CLEARML_TASK_ID", task)]);
    assert!(output.lines().any(|line| line == "steps 77"), "{output}");
    let curves = server.ok("events.scalar_metrics_iter_histogram", json!({"task": task}));
    assert_eq!(curves["progress"]["steps"]["y"], json!([77.0]));
    sdk.server.stop();
}

#[test]
fn tasks_are_managed_from_outside() {
    let Some(sdk) = Sdk::start("tasks_are_managed_from_outside") else {
        return;
    };
    sdk.server.ok("queues.create", json!({"name": "work"}));
    let result = result(&sdk.run("manage.py", &["work"]));
    let base = sdk.server.ok("tasks.get_by_id", json!({"task": result["base"]}))["task"].clone();
    assert!(
        base["system_tags"]
            .as_array()
            .unwrap()
            .contains(&json!("archived")),
        "{}",
        base["system_tags"]
    );
    assert_eq!(base["container"]["image"], "python:3.12");
    sdk.server.stop();
}

#[test]
fn a_second_run_takes_over_the_task_of_the_first() {
    let Some(sdk) = Sdk::start("a_second_run_takes_over_the_task_of_the_first") else {
        return;
    };
    let first = result(&sdk.run("again.py", &["1"]));
    let second = result(&sdk.run("again.py", &["2"]));
    assert_eq!(first, second);
    let curves = sdk.server.ok(
        "events.scalar_metrics_iter_histogram",
        json!({"task": first["task"]}),
    );
    assert_eq!(
        curves["value"]["now"]["x"],
        json!([2]),
        "what the first run reported is gone"
    );
    sdk.server.stop();
}

#[test]
fn files_work_on_the_port_of_the_api() {
    let Some(sdk) = Sdk::start("files_work_on_the_port_of_the_api") else {
        return;
    };
    let files = format!("{}/files", sdk.server.server.api_url());
    let output = sdk.run_with("one_port.py", &[&files], &[("CLEARML_FILES_HOST", &files)]);
    assert!(result(&output)["url"].as_str().unwrap().starts_with(&files));
    sdk.server.stop();
}
