//! One row of the table: a task, how the agent is configured for it, and what has to come of it.

use std::collections::VecDeque;
use std::fs;
use std::sync::Mutex;

use serde_json::Value;
use xtask::workbench::{AgentOptions, TaskSpec};

use crate::scene::{Ended, LONG_LIMIT, Scene, finish};

/// A task and what has to come of it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) spec: TaskSpec,
    /// HOCON that the agent's configuration goes on with.
    pub(crate) config: String,
    pub(crate) variables: Vec<(&'static str, String)>,
    /// The lines that the script prints after `out: `.
    pub(crate) expected: Vec<String>,
    /// What the server is told to be installed, if that matters.
    pub(crate) packages: Option<Vec<String>>,
}

impl Case {
    pub(crate) fn new(name: &'static str, spec: TaskSpec, expected: &[&str]) -> Self {
        Self {
            name,
            spec,
            config: String::new(),
            variables: Vec::new(),
            expected: expected.iter().map(|&line| line.to_owned()).collect(),
            packages: None,
        }
    }

    pub(crate) fn config(mut self, text: impl Into<String>) -> Self {
        self.config = text.into();
        self
    }

    pub(crate) fn variable(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    pub(crate) fn packages(mut self, lines: &[&str]) -> Self {
        self.packages = Some(lines.iter().map(|&line| line.to_owned()).collect());
        self
    }
}

/// Runs all cases to their ends, two at a time in one home, and tells what went wrong.
pub(crate) fn run_all(scene: &Scene, options: &AgentOptions, cases: Vec<Case>, secrets: &[&str]) {
    let waiting = Mutex::new(VecDeque::from(cases));
    let failures = Mutex::new(Vec::new());
    let work = |thread: usize| {
        loop {
            let Some(case) = waiting.lock().unwrap().pop_front() else {
                return;
            };
            let begun = std::time::Instant::now();
            let problems = run(scene, options, &case, secrets, thread);
            eprintln!("{}: {:.1} s", case.name, begun.elapsed().as_secs_f64());
            let mut failures = failures.lock().unwrap();
            failures.extend(problems.into_iter().map(|text| format!("{}: {text}", case.name)));
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let work = &work;
            scope.spawn(move || work(thread));
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// What is wrong with how a case went.
fn run(scene: &Scene, options: &AgentOptions, case: &Case, secrets: &[&str], thread: usize) -> Vec<String> {
    let mut options = configured(scene, options, &case.config, &format!("thread{thread}"));
    for (name, value) in &case.variables {
        options = options.variable(name, &**value);
    }
    let task = scene.api.create_task(case.name, &case.spec).unwrap();
    let (code, output, errors) = finish(options.command(&["execute", "--id", &task]));
    let ended = scene.ended_within(&task, LONG_LIMIT);
    let mut problems = Vec::new();
    let context = || format!("console:\n{}\n{output}{errors}", ended.console);
    if code != 0 || ended.status() != "completed" {
        problems.push(format!("ended with {code} as {}, {}", ended.status(), context()));
    }
    let expected: Vec<String> = case.expected.iter().map(|line| format!("out: {line}")).collect();
    if ended.output() != expected {
        problems.push(format!("printed {:?}, {}", ended.output(), context()));
    }
    if let Some(packages) = &case.packages
        && reported(&ended) != *packages
    {
        problems.push(format!("reported {:?}, {}", reported(&ended), context()));
    }
    for secret in secrets {
        for (place, text) in [
            ("the console", &ended.console),
            ("the output", &output),
            ("the errors", &errors),
        ] {
            if text.contains(secret) {
                problems.push(format!("{place} tells {secret}: {text}"));
            }
        }
    }
    problems
}

/// An agent whose configuration goes on with this text.
pub(crate) fn configured(scene: &Scene, options: &AgentOptions, more: &str, name: &str) -> AgentOptions {
    let config = scene.folder.path().join(format!("{name}.conf"));
    let text = fs::read_to_string(&options.config).unwrap();
    fs::write(&config, format!("{text}\n{more}\n")).unwrap();
    AgentOptions {
        config,
        ..options.clone()
    }
}

/// The requirements that the server has of a task.
pub(crate) fn reported(ended: &Ended) -> Vec<String> {
    match &ended.task["script"]["requirements"]["pip"] {
        Value::String(text) => text.lines().map(str::to_owned).collect(),
        Value::Array(lines) => lines
            .iter()
            .filter_map(|line| line.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    }
}
