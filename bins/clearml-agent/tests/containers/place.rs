//! The engine, the image, and a daemon that uses them.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use xtask::workbench::{Agent, AgentOptions, TaskSpec};

use crate::scene::{Ended, QUEUE, Scene};

/// How long a task in a container may take on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);
/// By which label the agent knows its containers.
pub(crate) const LABEL: &str = "clearml-agent-run";

pub(crate) struct Place {
    pub(crate) scene: Scene,
    pub(crate) image: String,
}

/// What the engine's own program prints; `None` where it fails, or is not there.
pub(crate) fn docker(arguments: &[&str]) -> Option<String> {
    let output = Command::new("docker").args(arguments).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl Place {
    pub(crate) fn or_skip(test: &str) -> Option<Self> {
        if docker(&["version", "--format", "{{.Server.Version}}"]).is_none() {
            eprintln!(
                "SKIPPED {test}: no container engine answers (DOCKER_HOST), or there is no docker program"
            );
            return None;
        }
        let image = std::env::var("CLEARML_TEST_IMAGE").unwrap_or_else(|_| "clearml-base:python".to_owned());
        if docker(&["image", "inspect", &image]).is_none() {
            eprintln!(
                "SKIPPED {test}: the engine has no image {image}; name one with Python in CLEARML_TEST_IMAGE"
            );
            return None;
        }
        Some(Self {
            scene: Scene::new(),
            image,
        })
    }

    pub(crate) fn options(&self) -> AgentOptions {
        self.scene
            .options()
            .variable("CLEARML_AGENT__AGENT__PACKAGE_MANAGER__PIP_VERSION", ">=20")
    }

    pub(crate) fn daemon(&self, options: &AgentOptions) -> Agent {
        let arguments = [
            "daemon",
            "--queue",
            QUEUE,
            "--foreground",
            "--docker",
            &self.image,
        ];
        Agent::start(options, &arguments).unwrap()
    }

    /// Puts a task with this container into the queue.
    pub(crate) fn submit(&self, name: &str, code: &str, container: Value) -> String {
        self.submit_spec(name, &TaskSpec::script(code), container)
    }

    pub(crate) fn submit_spec(&self, name: &str, spec: &TaskSpec, container: Value) -> String {
        let task = self.scene.api.create_task(name, spec).unwrap();
        let body = json!({"task": task, "force": true, "container": container});
        self.scene.api.call("tasks.edit", body).unwrap();
        self.scene.api.enqueue(&task, &self.scene.queue).unwrap();
        task
    }

    pub(crate) fn with(&self, arguments: &str, setup: &str) -> Value {
        json!({"image": self.image, "arguments": arguments, "setup_shell_script": setup})
    }

    pub(crate) fn ended(&self, task: &str) -> Ended {
        self.scene.ended_within(task, LIMIT)
    }

    /// Waits until the task has printed this.
    #[track_caller]
    pub(crate) fn says(&self, task: &str, wanted: &str) {
        for _ in 0..600 {
            if self.scene.api.console(task).unwrap().contains(wanted) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("no {wanted:?} in {}", self.scene.api.console(task).unwrap());
    }

    /// Waits until nothing is left of a task, which is a moment after its end.
    #[track_caller]
    pub(crate) fn is_removed(task: &str) {
        for _ in 0..200 {
            if Self::containers(task).is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{:?} is still there", Self::containers(task));
    }

    /// The containers of a task, by their names.
    pub(crate) fn containers(task: &str) -> Vec<String> {
        let filter = format!("name=clearml-id-{task}");
        let names = docker(&["ps", "-a", "--filter", &filter, "--format", "{{.Names}}"]).unwrap();
        names.lines().map(str::to_owned).collect()
    }
}
