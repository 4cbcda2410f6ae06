//! A run directory with a program to run, and the shim to run it.

#![expect(dead_code, reason = "each test program uses a part of this")]
#![expect(
    clippy::unwrap_used,
    reason = "a helper of tests that can not do its part shall panic"
)]

pub(crate) mod world;

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use clearml_support::process::ProcessIdentity;
use clearml_task_model::{TaskId, WorkerId};
use clearml_task_runner::console::Channel;
use clearml_task_runner::console::reader::ChannelReader;
use clearml_task_runner::console::segment::Kind;
use clearml_task_runner::record::{Launch, SCHEMA, Verdict};
use clearml_task_runner::{NewRun, RunDir, RunStore, spawn_shim};

/// The example that becomes a shim. Cargo builds examples before it runs tests.
pub(crate) fn program() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples/run_program");
    assert!(
        path.exists(),
        "{} is missing; run the tests with `cargo test`",
        path.display()
    );
    path
}

pub(crate) fn launch_of(script: &str) -> Launch {
    Launch {
        schema: SCHEMA,
        argv: vec!["sh".into(), "-c".into(), script.into()],
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        cwd: "/".into(),
        umask: 0o022,
        grace_ms: 300,
        leftover_grace_ms: 300,
        segment_bytes: 1 << 20,
        console_max_bytes: 1 << 30,
        abort_command: None,
        open_files: None,
        contained: false,
        restarts: false,
    }
}

pub(crate) struct Setup {
    state: tempfile::TempDir,
    pub(crate) run: RunDir,
    pub(crate) launch: Launch,
}

impl Setup {
    /// A run of a shell script in a folder of its own.
    pub(crate) fn new(script: &str) -> Self {
        let state = tempfile::tempdir().unwrap();
        let new = NewRun {
            task: TaskId::new("task"),
            queue: None,
            worker: WorkerId::new("worker"),
        };
        let (run, _) = RunStore::open(state.path()).unwrap().create(new).unwrap();
        let mut launch = launch_of(script);
        launch.cwd = state.path().join("work");
        std::fs::create_dir(&launch.cwd).unwrap();
        Self { state, run, launch }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.launch.cwd
    }

    pub(crate) fn spawn_only(&self) -> Child {
        spawn_shim(&program(), &self.run).unwrap()
    }

    pub(crate) fn spawn(&self) -> Child {
        self.run.write_launch(&self.launch).unwrap();
        self.spawn_only()
    }

    pub(crate) fn end_of(&self, mut shim: Child) -> Verdict {
        shim.wait().unwrap();
        let log = std::fs::read_to_string(self.run.path().join("shim.log")).unwrap_or_default();
        self.run
            .verdict()
            .unwrap()
            .unwrap_or_else(|| panic!("no verdict; the shim said: {log}"))
    }

    pub(crate) fn run_to_end(&self) -> Verdict {
        self.end_of(self.spawn())
    }

    pub(crate) fn shim(&self) -> ProcessIdentity {
        self.run
            .claim()
            .unwrap()
            .expect("the shim has claimed the run")
            .shim
    }

    pub(crate) fn wait_for_output(&self, text: &str) {
        eventually("the program prints", || {
            String::from_utf8_lossy(&kept_bytes(&self.run)).contains(text)
        });
    }
}

/// All output in the task's channel.
pub(crate) fn kept_bytes(run: &RunDir) -> Vec<u8> {
    let mut reader = ChannelReader::new(&run.console_dir(), Channel::Task, 0);
    reader.fill(usize::MAX).unwrap();
    let output = reader.window().iter().filter(|chunk| chunk.kind == Kind::Output);
    output.flat_map(|chunk| chunk.payload.iter().copied()).collect()
}

pub(crate) fn eventually(what: &str, mut test: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !test() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn is_running(pid: i32) -> bool {
    ProcessIdentity::of(pid)
        .unwrap()
        .is_some_and(|process| process.is_alive())
}

/// Processes that have this entry in their environment.
pub(crate) fn with_environment(entry: &str) -> Vec<i32> {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok())
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|bytes| bytes.split(|b| *b == 0).any(|part| part == entry.as_bytes()))
        })
        .filter(|pid| ProcessIdentity::of(*pid).unwrap().is_some_and(|p| p.is_alive()))
        .collect()
}
