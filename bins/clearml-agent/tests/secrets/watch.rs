//! Looks, while the agent works, at what everybody on the machine can look at.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::canaries::Canaries;
use crate::scene::Scene;

struct Shared {
    folder: PathBuf,
    canaries: Canaries,
    stop: AtomicBool,
    leaks: Mutex<BTreeSet<String>>,
    shims: Mutex<BTreeSet<String>>,
    agent: Mutex<Option<String>>,
}

/// Looks until it is finished.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn start(scene: &Scene) -> Self {
        let shared = Arc::new(Shared {
            folder: scene.folder.path().to_owned(),
            canaries: scene.canaries.clone(),
            stop: AtomicBool::new(false),
            leaks: Mutex::default(),
            shims: Mutex::default(),
            agent: Mutex::default(),
        });
        let (own, other) = (shared.clone(), shared.clone());
        // Files take their time; processes must not wait for them.
        let processes = std::thread::spawn(move || {
            while !own.stop.load(Ordering::Relaxed) {
                own.look_at_processes();
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let files = std::thread::spawn(move || {
            while !other.stop.load(Ordering::Relaxed) {
                let leaks = open_files(&other.folder, &other.canaries);
                other.leaks.lock().unwrap().extend(leaks);
                std::thread::sleep(Duration::from_millis(500));
            }
        });
        Self {
            shared,
            threads: vec![processes, files],
        }
    }

    /// The agent that a test has started: its command line is the test's own, also where a child shows it that has not
    /// become another program yet. A task must have run under it.
    pub(crate) fn spare(&self, pid: Option<i32>) {
        *self.shared.agent.lock().unwrap() = pid.map(|pid| {
            // Right after its start a process has no command line yet.
            let deadline = Instant::now() + Duration::from_secs(10);
            loop {
                let line = command_line(&pid.to_string());
                if !line.is_empty() || Instant::now() > deadline {
                    return line;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
    }

    /// Ends the watch and fails when something was seen.
    #[track_caller]
    pub(crate) fn finish(mut self) {
        self.end();
        let agent = self.shared.agent.lock().unwrap();
        let own = agent.as_ref().map(|line| format!("command line {line:?}: "));
        let mut leaks = self.shared.leaks.lock().unwrap();
        leaks.retain(|leak| !own.as_ref().is_some_and(|own| leak.starts_with(own)));
        assert!(leaks.is_empty(), "seen by everybody: {leaks:#?}");
        let expected = agent.is_some();
        assert!(
            !expected || !self.shared.shims.lock().unwrap().is_empty(),
            "no shim was seen"
        );
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn look_at_processes(&self) {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let numbers = processes.filter_map(|entry| entry.file_name().into_string().ok());
        for pid in numbers.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) {
            let text = command_line(&pid);
            self.note(&format!("command line {text:?}"), text.as_bytes());
            if text.contains(" shim --run ") && text.contains(&*self.folder.to_string_lossy()) {
                self.shims.lock().unwrap().insert(pid.clone());
                let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                self.note("the environment of the shim", &environment);
            }
        }
    }

    fn note(&self, what: &str, bytes: &[u8]) {
        for place in self.canaries.found(bytes) {
            self.leaks.lock().unwrap().insert(format!("{what}: {place}"));
        }
    }
}

/// A process may end between two looks.
fn command_line(pid: &str) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ")
}

/// The files below a folder that hold a secret and that someone else could read.
pub(crate) fn open_files(folder: &Path, canaries: &Canaries) -> Vec<String> {
    let mut leaks = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(path) = waiting.pop() {
        // Much is temporary: what is gone meanwhile is fine.
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        if metadata.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            waiting.extend(entries.map(|entry| entry.path()));
        } else if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 && metadata.len() < 1 << 24
        {
            for place in canaries.found(&fs::read(&path).unwrap_or_default()) {
                let mode = metadata.permissions().mode() & 0o777;
                leaks.push(format!("{} with mode {mode:o}: {place}", path.display()));
            }
        }
    }
    leaks
}
