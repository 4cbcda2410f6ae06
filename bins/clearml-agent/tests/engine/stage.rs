//! An engine of our own, and daemons whose tasks it runs.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use xtask::engine::{self, Engine, IMAGE};
use xtask::workbench::{Agent, AgentOptions, TaskSpec};

use crate::scene::{Ended, QUEUE, Scene};

/// How long a task in a container may take on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);
/// Counts until it is told to end, and notes beside the console how far it is.
const COUNTS: &str = "import os, time\n\
    i = 0\n\
    while not os.path.exists('/seen/end') and i < 3000:\n\
    \x20   print('out:', i, flush=True)\n\
    \x20   with open('/seen/new', 'w') as file: file.write(str(i))\n\
    \x20   os.replace('/seen/new', '/seen/count')\n\
    \x20   i += 1\n\
    \x20   time.sleep(0.1)\n\
    print('out: end', flush=True)\n";

/// One engine after the other.
static TURN: Mutex<()> = Mutex::new(());

pub(crate) struct Stage {
    pub(crate) scene: Scene,
    pub(crate) engine: Engine,
    _turn: MutexGuard<'static, ()>,
}

/// A task that counts.
pub(crate) struct Counting {
    pub(crate) task: String,
    seen: PathBuf,
}

impl Stage {
    pub(crate) fn or_skip(test: &str) -> Option<Self> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let engine = match engine::missing() {
            Some(reason) => Err(reason.to_owned()),
            None => Engine::own().map_err(|e| format!("{e:#}")),
        };
        match engine {
            Ok(engine) => Some(Self {
                scene: Scene::new(),
                engine,
                _turn: turn,
            }),
            Err(reason) => {
                eprintln!("SKIPPED {test}: {}", reason.replace('\n', " "));
                None
            }
        }
    }

    /// An agent with an id that no other agent of this machine has: who comes back under another one waits before it
    /// takes over.
    pub(crate) fn options(&self, worker: &str) -> AgentOptions {
        self.scene
            .options()
            .variable("CLEARML_WORKER_ID", format!("{}-{worker}", std::process::id()))
            .variable("DOCKER_HOST", self.engine.address())
            .variable("CLEARML_AGENT__AGENT__PACKAGE_MANAGER__PIP_VERSION", ">=20")
    }

    pub(crate) fn daemon(options: &AgentOptions) -> Agent {
        let arguments = ["daemon", "--queue", QUEUE, "--foreground", "--docker", IMAGE];
        Agent::start(options, &arguments).unwrap()
    }

    /// As many daemons, each of which runs one task at a time.
    pub(crate) fn daemons(&self, number: usize) -> Vec<Agent> {
        let one = |number| Self::daemon(&self.options(&format!("tester:{number}")));
        (0..number).map(one).collect()
    }

    /// Puts a task into the queue.
    pub(crate) fn submit(&self, name: &str, code: &str, image: &str, arguments: &str) -> String {
        let task = self.scene.api.create_task(name, &TaskSpec::script(code)).unwrap();
        let container = json!({"image": image, "arguments": format!("--network none {arguments}")});
        let body = json!({"task": task, "force": true, "container": container});
        self.scene.api.call("tasks.edit", body).unwrap();
        self.scene.api.enqueue(&task, &self.scene.queue).unwrap();
        task
    }

    pub(crate) fn submit_counting(&self, name: &str) -> Counting {
        self.submit_counting_in(name, IMAGE)
    }

    pub(crate) fn submit_counting_in(&self, name: &str, image: &str) -> Counting {
        let seen = self.scene.folder.path().join("seen").join(name);
        fs::create_dir_all(&seen).unwrap();
        let task = self.submit(name, COUNTS, image, &format!("-v {}:/seen", seen.display()));
        Counting { task, seen }
    }

    /// Puts counting tasks into the queue, and waits until all of them count.
    pub(crate) fn counting(&self, name: &str, number: usize) -> Vec<Counting> {
        let tasks: Vec<_> = (0..number)
            .map(|number| self.submit_counting(&format!("{name}-{number}")))
            .collect();
        for task in &tasks {
            self.goes_on(task);
        }
        tasks
    }

    /// Waits until the task has counted for a while from now on, and its console says so.
    #[track_caller]
    pub(crate) fn goes_on(&self, task: &Counting) {
        let wanted = format!("out: {}\n", task.count().map_or(3, |count| count + 3));
        self.says(&task.task, &wanted);
    }

    /// Waits until the task has printed this.
    #[track_caller]
    pub(crate) fn says(&self, task: &str, wanted: &str) {
        self.until(&format!("{wanted:?} in the console of {task}"), || {
            self.scene.api.console(task).unwrap().contains(wanted)
        });
    }

    #[track_caller]
    pub(crate) fn until(&self, what: &str, ready: impl Fn() -> bool) {
        let begin = Instant::now();
        while !ready() {
            if begin.elapsed() > LIMIT {
                panic!("in vain for {what}; the agents:\n{}", self.logs());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What the agents and their runners have said.
    fn logs(&self) -> String {
        let home = self.options("any:0").home;
        let text = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
        let mut logs: Vec<String> = text(home.join("agent.log"))
            .lines()
            .filter(|line| !line.starts_with("No tasks in"))
            .map(str::to_owned)
            .collect();
        let runs = fs::read_dir(home.join(".local/state/clearml-agent/runs"));
        for run in runs.into_iter().flatten().flatten() {
            logs.push(format!("{}:", run.path().display()));
            logs.extend(["run.json", "runner.log", "verdict.json"].map(|name| text(run.path().join(name))));
        }
        logs.join("\n")
    }

    pub(crate) fn ended(&self, task: &str) -> Ended {
        self.scene.ended_within(task, LIMIT)
    }

    /// What the docker program prints.
    #[track_caller]
    pub(crate) fn docker(&self, arguments: &[&str]) -> String {
        let output = self.engine.docker(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "docker {arguments:?}: {error}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The container of a task, by its name.
    #[track_caller]
    pub(crate) fn container(&self, task: &str) -> String {
        let names = self.docker(&["ps", "-a", "--filter", &named(task), "--format", "{{.Names}}"]);
        assert_eq!(names.lines().count(), 1, "{names}");
        names
    }

    /// Waits until no container of these tasks is left.
    #[track_caller]
    pub(crate) fn are_removed<'a>(&self, tasks: impl IntoIterator<Item = &'a str>) {
        for task in tasks {
            self.until(&format!("the removal of the container of {task}"), || {
                self.docker(&["ps", "-aq", "--filter", &named(task)]).is_empty()
            });
        }
    }

    /// Stops a task as a user does.
    pub(crate) fn abort(&self, task: &str) -> Value {
        let body = json!({"task": task, "force": false, "status_reason": "enough"});
        self.scene.api.call("tasks.stop", body).unwrap()
    }
}

fn named(task: &str) -> String {
    format!("name=clearml-id-{task}")
}

impl Counting {
    /// How far it was last seen; `None` before it has begun.
    pub(crate) fn count(&self) -> Option<usize> {
        fs::read_to_string(self.seen.join("count")).ok()?.parse().ok()
    }

    pub(crate) fn finish(&self) {
        fs::write(self.seen.join("end"), "").unwrap();
    }

    /// Everything that it has printed is in the console, once and in order.
    #[track_caller]
    pub(crate) fn assert_complete(&self, ended: &Ended) {
        self.assert_lines(ended, 0);
    }

    /// The same where all processes of the container were killed at once: the last line may have been on its way.
    #[track_caller]
    pub(crate) fn assert_complete_to_the_kill(&self, ended: &Ended) {
        self.assert_lines(ended, 1);
    }

    #[track_caller]
    fn assert_lines(&self, ended: &Ended, on_their_way: usize) {
        let output = ended.output();
        let (end, numbers) = match output.split_last() {
            Some((&"out: end", numbers)) => (true, numbers),
            _ => (false, &output[..]),
        };
        let expected: Vec<String> = (0..numbers.len())
            .map(|number| format!("out: {number}"))
            .collect();
        assert_eq!(numbers, expected);
        let count = self.count().unwrap();
        assert!(
            numbers.len() + on_their_way > count,
            "it has counted to {count}:\n{}",
            ended.console
        );
        assert_eq!(end, ended.status() == "completed");
    }
}
