//! A place with services in containers, of which none is left when it goes.

use std::time::Duration;

use serde_json::{Value, json};
use xtask::workbench::{Agent, TaskSpec, wait_for};

use crate::place::{LIMIT, Place, docker};
use crate::scene::QUEUE;

/// Counts until it is told to go on, and then says who it is.
const CODE: &str = "import itertools, os, time\n\
    names = ['CLEARML_WORKER_ID', 'CLEARML_WORKER_TAGS', 'CLEARML_AGENT_SERVICE_TASK', 'NVIDIA_VISIBLE_DEVICES']\n\
    print('out: i am', *[os.environ.get(name) for name in names], flush=True)\n\
    for i in itertools.count():\n    print('out:', i, flush=True)\n    time.sleep(0.1)\n    \
    if os.path.exists('/flags/go'): break\nprint('out: end', i)\n";

pub(crate) struct Stand {
    pub(crate) place: Place,
    pub(crate) tasks: Vec<String>,
}

impl Stand {
    pub(crate) fn or_skip(test: &str) -> Option<Self> {
        let place = Place::or_skip(test)?;
        std::fs::create_dir(place.scene.folder.path().join("flags")).unwrap();
        Some(Self {
            place,
            tasks: Vec::new(),
        })
    }

    /// A daemon with a register of its own, so that no other daemon of this machine takes the first slot.
    pub(crate) fn daemon(&self, containers: &str, mode: &[&str], variables: &[(&str, &str)]) -> Agent {
        let folder = self.place.scene.folder.path().to_str().unwrap();
        let mut options = self.place.options().variable("TMPDIR", folder);
        for (name, value) in variables {
            options = options.variable(name, *value);
        }
        Agent::start(&options, &self.arguments(containers, mode)).unwrap()
    }

    /// `containers` is `--docker` or `--podman`.
    pub(crate) fn arguments<'a>(&'a self, containers: &'a str, mode: &[&'a str]) -> Vec<&'a str> {
        let first = ["daemon", "--queue", QUEUE, containers, &self.place.image];
        [&first[..], mode].concat()
    }

    /// A service that counts; its setup script comes first.
    pub(crate) fn service(&mut self, name: &str, setup: &str) -> String {
        self.service_with(name, setup, "")
    }

    /// One that asks for packages.
    pub(crate) fn service_with(&mut self, name: &str, setup: &str, requirements: &str) -> String {
        let flags = self.place.scene.folder.path().join("flags");
        let arguments = format!("--network none -v {}:/flags", flags.display());
        let container = self.place.with(&arguments, setup);
        let spec = TaskSpec::script(CODE).requirements(requirements);
        let task = self.place.submit_spec(name, &spec, container);
        self.tasks.push(task.clone());
        task
    }

    pub(crate) fn go(&self) {
        std::fs::write(self.place.scene.folder.path().join("flags/go"), "").unwrap();
    }

    /// A service that has counted without a gap until it was told to go on.
    #[track_caller]
    pub(crate) fn has_counted(&self, task: &str, worker: &str) {
        let ended = self.place.ended(task);
        ended.assert_status("completed");
        // Other ClearML tools know by this line that the program has begun.
        let mark = format!("Running task id [{task}]:\n");
        assert!(ended.console.contains(&mark), "{}", ended.console);
        let output = ended.output();
        let last = output.len() - 3;
        assert_eq!(output[0], format!("out: i am {worker}"), "{}", ended.console);
        for (number, line) in output[1..=last + 1].iter().enumerate() {
            assert_eq!(*line, format!("out: {number}"), "{}", ended.console);
        }
        assert_eq!(output[last + 2], format!("out: end {last}"), "{}", ended.console);
        Place::is_removed(task);
    }

    pub(crate) fn call(&self, name: &'static str, body: Value) -> Value {
        self.place.scene.api.call(name, body).unwrap()
    }

    /// The workers that the server lists, with their tags.
    pub(crate) fn workers(&self) -> Vec<(String, Value)> {
        let reply = self.call("workers.get_all", json!({}));
        let workers = reply["workers"].as_array().unwrap().iter();
        let mut workers: Vec<(String, Value)> = workers
            .map(|worker| (worker["id"].as_str().unwrap().to_owned(), worker["tags"].clone()))
            .collect();
        workers.sort_by(|a, b| a.0.cmp(&b.0));
        workers
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        for task in &self.tasks {
            for name in Place::containers(task) {
                let _gone = docker(&["rm", "-f", &name]);
            }
        }
    }
}

#[track_caller]
pub(crate) fn until(what: &str, mut check: impl FnMut() -> bool) {
    wait_for(what, LIMIT, Duration::from_millis(100), || {
        Ok(check().then_some(()))
    })
    .unwrap();
}

/// One field of a container, as the engine's own program prints it.
pub(crate) fn inspect(task: &str, format: &str) -> String {
    let [name] = &Place::containers(task)[..] else {
        panic!("{:?}", Place::containers(task));
    };
    docker(&["inspect", "--format", format, name]).unwrap()
}
