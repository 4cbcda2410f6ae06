//! A scene for one journey: an embedded server and an agent as real processes in a scratch folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use xtask::workbench::{Agent, AgentOptions, Api, LocalServer, TaskSpec};

/// The executable under test.
pub(crate) const AGENT: &str = env!("CARGO_BIN_EXE_clearml-agent");

/// The name of the queue that every scene has.
pub(crate) const QUEUE: &str = "work";

/// How long a task without packages may take on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// How long a task may take that installs packages.
pub(crate) const LONG_LIMIT: Duration = Duration::from_secs(300);

pub(crate) struct Scene {
    pub(crate) server: LocalServer,
    pub(crate) api: Api,
    pub(crate) queue: String,
    pub(crate) folder: TempDir,
}

/// A task that has ended.
pub(crate) struct Ended {
    pub(crate) task: Value,
    pub(crate) console: String,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("clearml-agent-test-")
            .tempdir()
            .unwrap();
        let server = LocalServer::start(Path::new(AGENT), &folder.path().join("server")).unwrap();
        let api = server.api().unwrap();
        let queue = api.create_queue(QUEUE).unwrap();
        Self {
            server,
            api,
            queue,
            folder,
        }
    }

    /// An agent that polls quickly and keeps everything inside the scene.
    pub(crate) fn options(&self) -> AgentOptions {
        AgentOptions::new(Path::new(AGENT), self.folder.path(), &self.server.config())
            .variable("CLEARML_AGENT_QUEUE_POLL_FREQ_SEC", "0.2")
            .variable("CLEARML_WORKER_NAME", "tester")
            .variable("PIP_CACHE_DIR", shared_folder("pip-cache").to_str().unwrap())
            .variable("UV_CACHE_DIR", shared_folder("uv-cache").to_str().unwrap())
    }

    pub(crate) fn daemon(&self) -> Agent {
        Agent::daemon(&self.options(), QUEUE).unwrap()
    }

    pub(crate) fn submit(&self, name: &str, spec: &TaskSpec) -> String {
        self.api.submit(name, spec, &self.queue).unwrap()
    }

    pub(crate) fn ended(&self, task: &str) -> Ended {
        self.ended_within(task, LIMIT)
    }

    pub(crate) fn ended_within(&self, task: &str, limit: Duration) -> Ended {
        let document = self.api.wait_until_ended(task, limit).unwrap();
        Ended {
            task: document,
            console: self.api.console(task).unwrap(),
        }
    }

    /// Submits a task and waits for its end.
    pub(crate) fn run(&self, name: &str, spec: &TaskSpec) -> Ended {
        let task = self.submit(name, spec);
        self.ended(&task)
    }

    /// Proves that the agent still works.
    pub(crate) fn good_task_completes(&self) {
        let ended = self.run("afterwards", &TaskSpec::script("print('out: still here')"));
        ended.assert_status("completed");
        assert_eq!(ended.output(), ["out: still here"]);
    }

    /// A git repository with the given files on branch `main`; returns its URL and commit.
    pub(crate) fn repository(&self, name: &str, files: &[(&str, &str)]) -> (String, String) {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        git(&folder, &["init", "--quiet", "--initial-branch=main"]);
        for (path, content) in files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        git(&folder, &["add", "--all"]);
        git(
            &folder,
            &[
                "-c",
                "user.name=t",
                "-c",
                "user.email=t@example.com",
                "commit",
                "--quiet",
                "-m",
                "Start",
            ],
        );
        let commit = git(&folder, &["rev-parse", "HEAD"]);
        (format!("file://{}", folder.display()), commit)
    }

    /// The same as a bare repository, the way that git servers keep one.
    pub(crate) fn bare_repository(&self, name: &str, files: &[(&str, &str)]) -> (String, String) {
        let (url, commit) = self.repository(name, files);
        let bare = self.folder.path().join(format!("{name}.git"));
        let bare = bare.to_str().unwrap();
        git(self.folder.path(), &["clone", "--quiet", "--bare", &url, bare]);
        (format!("file://{bare}"), commit)
    }
}

impl Ended {
    pub(crate) fn status(&self) -> &str {
        self.task["status"].as_str().unwrap_or_default()
    }

    pub(crate) fn reason(&self) -> &str {
        self.task["status_reason"].as_str().unwrap_or_default()
    }

    #[track_caller]
    pub(crate) fn assert_status(&self, status: &str) {
        assert_eq!(
            self.status(),
            status,
            "reason {:?}, console:\n{}",
            self.reason(),
            self.console
        );
    }

    /// The task failed in set-up: the reason names the stage, and both it and the console say `what`.
    #[track_caller]
    pub(crate) fn assert_failed_in(&self, stage: &str, what: &str) {
        self.assert_status("failed");
        assert!(
            self.reason().starts_with(stage),
            "reason {:?}, console:\n{}",
            self.reason(),
            self.console
        );
        assert!(
            self.console.contains(what),
            "no {what:?} in the console:\n{}",
            self.console
        );
    }

    /// The lines that the user's code printed, which the scripts of the tests mark with `out: `.
    pub(crate) fn output(&self) -> Vec<&str> {
        self.console
            .lines()
            .filter(|line| line.starts_with("out: "))
            .collect()
    }
}

/// Runs a command of the agent to its end: exit code, standard output, standard error.
pub(crate) fn finish(mut command: Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// A folder below the build folder that all tests share.
pub(crate) fn shared_folder(name: &str) -> PathBuf {
    let folder = xtask::workspace::target().join("python").join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Whether packages can be installed on this machine; says so loudly when not.
pub(crate) fn environment_or_skip(
    test: &str,
    name: &str,
    packages: &[&str],
) -> Option<xtask::workbench::PythonEnvironment> {
    match xtask::workbench::PythonEnvironment::get(name, packages) {
        Ok(environment) => Some(environment),
        Err(error) => {
            eprintln!("SKIPPED {test}: {}", format!("{error:#}").replace('\n', " "));
            None
        }
    }
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
