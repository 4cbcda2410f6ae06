//! The same with Podman, whose service speaks the language of the Docker Engine.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use xtask::engine::{self, IMAGE};
use xtask::workbench::{Agent, AgentOptions, TaskSpec};
use xtask::workspace;

use crate::place::LIMIT;
use crate::scene::{QUEUE, Scene, finish};

/// A service of Podman for this test. Its images stay in the build folder.
struct Podman {
    folder: tempfile::TempDir,
    service: Option<Child>,
    _lock: File,
}

impl Podman {
    /// The error says what is missing.
    fn start() -> Result<Self, String> {
        let text = |e: std::io::Error| e.to_string();
        if !Command::new("podman")
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success())
        {
            return Err("there is no podman program".to_owned());
        }
        let data = workspace::target().join("podman");
        std::fs::create_dir_all(&data).map_err(text)?;
        let lock = File::create(data.with_extension("lock")).map_err(text)?;
        lock.lock().map_err(text)?;
        let mut podman = Self {
            // Paths of sockets are short.
            folder: tempfile::Builder::new()
                .prefix("clearml-podman-")
                .tempdir()
                .map_err(text)?,
            service: None,
            _lock: lock,
        };
        podman.configure("")?;
        podman.load_image()?;
        podman.choose_runtime()?;
        let service = podman
            .command(&["system", "service", "--time=0", &podman.address()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        podman.service = Some(service.map_err(text)?);
        for _ in 0..100 {
            if podman.socket().exists() {
                return Ok(podman);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err("its service does not listen".to_owned())
    }

    fn load_image(&self) -> Result<(), String> {
        if self.says(&["image", "exists", IMAGE]).is_some() {
            return Ok(());
        }
        let mut save = engine::docker(None, &["save", IMAGE])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("docker save: {e}"))?;
        let archive = save.stdout.take().ok_or("docker save has no output")?;
        let loaded = self
            .command(&["load", "--quiet"])
            .stdin(archive)
            .stdout(Stdio::null())
            .status();
        let saved = save.wait().is_ok_and(|status| status.success());
        if saved && loaded.is_ok_and(|status| status.success()) {
            Ok(())
        } else {
            Err(format!("image {IMAGE} can't be copied from a Docker Engine"))
        }
    }

    fn configure(&self, runtime: &str) -> Result<(), String> {
        // The defaults are more than a process without CAP_SYS_RESOURCE may ask for.
        let text = format!(
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n[engine]\n{runtime}"
        );
        std::fs::write(self.folder.path().join("containers.conf"), text).map_err(|e| e.to_string())
    }

    /// Not each runtime does its work on each machine: some refuse old control groups.
    fn choose_runtime(&self) -> Result<(), String> {
        let mut words = String::new();
        for runtime in ["", "runtime = \"runc\"\n"] {
            self.configure(runtime)?;
            let tried = self
                .command(&["run", "--rm", "--network=none", IMAGE, "true"])
                .output()
                .map_err(|e| e.to_string())?;
            if tried.status.success() {
                return Ok(());
            }
            words = String::from_utf8_lossy(&tried.stderr).trim().replace('\n', " ");
        }
        Err(format!("podman can't run containers on this machine: {words}"))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command
            .arg("--root")
            .arg(workspace::target().join("podman"))
            .arg("--runroot")
            .arg(workspace::target().join("podman-run"))
            .args(arguments)
            .env("CONTAINERS_CONF", self.folder.path().join("containers.conf"))
            .stdin(Stdio::null());
        command
    }

    /// What it prints; `None` where it fails.
    fn says(&self, arguments: &[&str]) -> Option<String> {
        let output = self.command(arguments).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("podman.sock")
    }

    fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn container(&self, task: &str) -> String {
        let filter = format!("name={task}");
        let found = self.says(&["ps", "-a", "--filter", &filter, "--format", "{{.Names}}"]);
        found.unwrap()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.says(&["rm", "--all", "--force"]);
        if let Some(service) = &mut self.service {
            let _gone = service.kill();
            let _status = service.wait();
        }
        // What it has mounted would keep the folder.
        self.says(&["umount", "--all"]);
    }
}

/// A scene with a daemon that uses it.
struct Stage {
    scene: Scene,
    options: AgentOptions,
    agent: Agent,
}

impl Stage {
    fn new(podman: &Podman) -> Self {
        let scene = Scene::new();
        let options = scene
            .options()
            .variable("DOCKER_HOST", podman.address())
            .variable("CLEARML_AGENT__AGENT__ABORT_GRACE_SEC", "3");
        let arguments = ["daemon", "--queue", QUEUE, "--foreground", "--podman", IMAGE];
        let agent = Agent::start(&options, &arguments).unwrap();
        Self {
            scene,
            options,
            agent,
        }
    }

    fn submit(&self, name: &str, code: &str) -> String {
        self.submit_in(IMAGE, name, code)
    }

    fn submit_in(&self, image: &str, name: &str, code: &str) -> String {
        let task = self.scene.api.create_task(name, &TaskSpec::script(code)).unwrap();
        let container = json!({"image": image, "arguments": "--network none -e A='1 2'"});
        let body = json!({"task": task, "force": true, "container": container});
        self.scene.api.call("tasks.edit", body).unwrap();
        self.scene.api.enqueue(&task, &self.scene.queue).unwrap();
        task
    }

    #[track_caller]
    fn says(&self, task: &str, wanted: &str) {
        for _ in 0..600 {
            if self.scene.api.console(task).unwrap().contains(wanted) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("no {wanted:?} in {}", self.scene.api.console(task).unwrap());
    }
}

const STOPS: &str = "import signal, sys, time\n\
    def end(*_):\n    print('out: saved'); sys.exit(0)\n\
    signal.signal(signal.SIGTERM, end)\nprint('out: running', flush=True)\ntime.sleep(600)\n";

#[test]
fn tasks_run_in_containers_of_podman() {
    let podman = match Podman::start() {
        Ok(podman) => podman,
        Err(reason) => {
            eprintln!("SKIPPED tasks_run_in_containers_of_podman: {reason}");
            return;
        }
    };
    let mut stage = Stage::new(&podman);

    // To its end, while the agent is killed.
    let code = "import os, time\nprint('out:', os.environ['A'], os.environ['container'])\n\
                for i in range(60):\n    print('out:', i, flush=True)\n    time.sleep(0.1)\n";
    let task = stage.submit("goes on", code);
    stage.says(&task, "out: 3\n");
    let mark = stage.agent.mark().clone();
    stage.agent.kill();
    mark.kill_all();
    stage.agent.start_again().unwrap();
    let ended = stage.scene.ended_within(&task, LIMIT);
    ended.assert_status("completed");
    let numbers = (0..60).map(|number| format!("out: {number}"));
    let expected: Vec<String> = std::iter::once("out: 1 2 podman".to_owned())
        .chain(numbers)
        .collect();
    assert_eq!(ended.output(), expected);

    // A user stops it, and somebody who knows nothing of the agent stops its container.
    let task = stage.submit("stopped", STOPS);
    stage.says(&task, "out: running");
    let body = json!({"task": task, "force": false, "status_reason": "enough"});
    stage.scene.api.call("tasks.stop", body).unwrap();
    let ended = stage.scene.ended_within(&task, LIMIT);
    ended.assert_status("stopped");
    assert_eq!(ended.output(), ["out: running", "out: saved"]);
    let task = stage.submit("stopped by hand", STOPS);
    stage.says(&task, "out: running");
    let container = podman.container(&task);
    podman.says(&["stop", &container]).unwrap();
    let ended = stage.scene.ended_within(&task, LIMIT);
    ended.assert_failed_in("infrastructure", "the container was stopped by somebody else");
    assert_eq!(ended.output(), ["out: running", "out: saved"]);
    for _ in 0..100 {
        if podman.container("clearml-id-").is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(podman.container("clearml-id-"), "");

    // What it says about a pull comes after it has begun to answer.
    let task = stage.submit_in("localhost:1/clearml-test-none:1", "no such image", STOPS);
    let ended = stage.scene.ended_within(&task, LIMIT);
    ended.assert_failed_in(
        "environment: pulling image localhost:1/clearml-test-none:1",
        "connection refused",
    );
    stage.agent.stop().unwrap();

    // An image of a task.
    let spec = TaskSpec::script("print('out: from its image')\n");
    let task = stage.scene.api.create_task("to be an image", &spec).unwrap();
    let target = format!("clearml-test-built:{}", std::process::id());
    let arguments = [
        "build",
        "--id",
        &task,
        "--docker",
        IMAGE,
        "--target",
        &target,
        "--entry-point",
        "reuse_task",
    ];
    let (code, stdout, stderr) = finish(stage.options.command(&arguments));
    assert_eq!(code, 0, "{stdout}{stderr}");
    let config = stage.scene.server.config();
    let mount = format!("{}:/tmp/clearml.conf:ro", config.display());
    let run = ["run", "--rm", "--network=host", "-v", &mount, &target];
    let printed = podman.says(&run);
    podman.says(&["rmi", "--force", &target]);
    assert!(printed.unwrap_or_default().contains("out: from its image"));
}

#[test]
fn who_wants_podman_is_told_how_to_reach_it() {
    let scene = Scene::new();
    let arguments = ["daemon", "--queue", QUEUE, "--foreground", "--podman", IMAGE];
    let options = scene
        .options()
        .variable("DOCKER_HOST", "unix:///none/podman.sock");
    let (code, stdout, stderr) = finish(options.command(&arguments));
    assert!(
        code == 1 && stdout.contains("unix:///run/podman/podman.sock"),
        "{stdout}{stderr}"
    );
}
