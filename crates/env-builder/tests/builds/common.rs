//! A host that remembers, and a bench with folders, repositories and wheels.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

use clearml_env_builder::{
    BuildError, BuildRequest, EnvSettings, Host, Level, Phase, PhaseEvent, PipBackend, PreparedEnvironment,
    build,
};
use clearml_support::command::CancelToken;
use clearml_support::redact::Redactor;
use clearml_task_model::Task;
use serde_json::{Value, json};

use crate::fixtures::{commit, git, make_wheel};

/// Remembers everything it is told.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) lines: Mutex<Vec<(Level, String)>>,
    pub(crate) phases: Mutex<Vec<(Phase, bool)>>,
    pub(crate) packages: Mutex<Option<Vec<String>>>,
    pub(crate) commit: Mutex<Option<String>>,
    /// An address and what lies there.
    pub(crate) file: Mutex<Option<(String, Vec<u8>)>>,
    pub(crate) cancel: CancelToken,
}

impl Host for Recorder {
    fn line(&self, level: Level, text: &str) {
        self.lines.lock().unwrap().push((level, text.to_owned()));
    }
    fn phase(&self, phase: Phase, event: PhaseEvent) {
        self.phases
            .lock()
            .unwrap()
            .push((phase, event != PhaseEvent::Started));
    }
    fn report_packages(&self, freeze: &[String]) {
        *self.packages.lock().unwrap() = Some(freeze.to_vec());
    }
    fn report_commit(&self, commit: &str) {
        *self.commit.lock().unwrap() = Some(commit.to_owned());
    }
    fn fetch(&self, url: &str) -> Result<Vec<u8>, String> {
        let file = self.file.lock().unwrap();
        let found = file.as_ref().filter(|(at, _)| at == url);
        found
            .map(|(_, bytes)| bytes.clone())
            .ok_or_else(|| "no such file".to_owned())
    }
    fn cancel(&self) -> &CancelToken {
        &self.cancel
    }
}

impl Recorder {
    pub(crate) fn console(&self) -> String {
        let lines = self.lines.lock().unwrap();
        lines
            .iter()
            .map(|(level, line)| format!("{level:?}: {line}\n"))
            .collect()
    }
    pub(crate) fn reported(&self) -> Vec<String> {
        self.packages
            .lock()
            .unwrap()
            .clone()
            .expect("packages were reported")
    }
}

/// Folders and settings of one test.
pub(crate) struct Bench {
    pub(crate) temp: tempfile::TempDir,
    pub(crate) settings: EnvSettings,
    pub(crate) redactor: Redactor,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let mut env: BTreeMap<String, String> = std::env::vars().collect();
        for name in ["VIRTUAL_ENV", "PYTHONPATH", "GIT_CONFIG_COUNT"] {
            env.remove(name);
        }
        let mut settings = EnvSettings {
            env,
            ..EnvSettings::default()
        };
        // Shared between tests on purpose: it is shared between agents too.
        settings.caches_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("env-builder-caches");
        settings.vcs_cache.path = temp.path().join("vcs-cache");
        settings.git.retries = 0;
        // Whether there is a uv on this machine changes nothing, unless a test is about that.
        settings.package_manager.pip_backend = PipBackend::Pip;
        settings.git.ask_pass_program = Some(example("askpass"));
        Self {
            temp,
            settings,
            redactor: Redactor::new(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    pub(crate) fn env(&mut self, name: &str, value: impl Into<String>) {
        self.settings.env.insert(name.to_owned(), value.into());
    }

    /// Builds the script section in `run` with a fresh recorder.
    pub(crate) fn build(&self, script: Value) -> (Result<PreparedEnvironment, BuildError>, Recorder) {
        let host = Recorder::default();
        let result = self.build_with(script, "run", &host);
        (result, host)
    }

    pub(crate) fn build_with(
        &self,
        script: Value,
        run: &str,
        host: &Recorder,
    ) -> Result<PreparedEnvironment, BuildError> {
        self.build_task(json!({"id": "0123abcd", "script": script}), run, host)
    }

    /// Builds a whole task.
    pub(crate) fn build_task(
        &self,
        task: Value,
        run: &str,
        host: &Recorder,
    ) -> Result<PreparedEnvironment, BuildError> {
        let task: Task = serde_json::from_value(task).unwrap();
        let request = BuildRequest {
            task: &task,
            settings: &self.settings,
            run_dir_env: self.path(run),
            redactor: &self.redactor,
        };
        build(&request, host)
    }

    /// Builds, which must succeed, and runs the result.
    pub(crate) fn build_and_run(&self, script: Value) -> (PreparedEnvironment, Recorder, String) {
        let (result, host) = self.build(script);
        let prepared = result.unwrap_or_else(|e| panic!("{e}\n{}", host.console()));
        let output = run(&prepared, &self.settings);
        (prepared, host, output)
    }

    /// A repository with these files in one commit; its path and the commit.
    pub(crate) fn repository(&self, files: &[(&str, &str)]) -> (PathBuf, String) {
        let root = self.path("origin/project.git");
        fs::create_dir_all(&root).unwrap();
        git(&root, &["init", "-q", "-b", "main"]);
        git(&root, &["config", "user.email", "someone@example.com"]);
        git(&root, &["config", "user.name", "Someone"]);
        git(&root, &["config", "uploadpack.allowAnySHA1InWant", "true"]);
        let commit = commit(&root, files);
        (root, commit)
    }

    /// A repository beside [`Bench::repository`]'s; its commit.
    pub(crate) fn module(&self, name: &str, files: &[(&str, &str)]) -> String {
        let root = self.path("origin").join(name);
        fs::create_dir_all(&root).unwrap();
        git(&root, &["init", "-q", "-b", "main"]);
        git(&root, &["config", "user.email", "someone@example.com"]);
        git(&root, &["config", "user.name", "Someone"]);
        commit(&root, files)
    }

    /// Makes `path` a submodule at `url`, without looking whether that is reachable.
    pub(crate) fn add_module(&self, repository: &Path, path: &str, url: &str, commit: &str) {
        let text = format!("[submodule \"{path}\"]\n\tpath = {path}\n\turl = {url}\n");
        fs::write(repository.join(".gitmodules"), text).unwrap();
        fs::create_dir_all(repository.join(path)).unwrap();
        let entry = format!("160000,{commit},{path}");
        git(repository, &["update-index", "--add", "--cacheinfo", &entry]);
    }

    /// A wheel in `wheels`, to be found without an index.
    pub(crate) fn wheel(&mut self, name: &str, version: &str) {
        let folder = self.path("wheels");
        make_wheel(&folder, name, version);
        self.env("PIP_NO_INDEX", "1");
        self.env("PIP_FIND_LINKS", folder.display().to_string());
    }
}

/// An example beside this test, which cargo builds with it.
pub(crate) fn example(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let program = own
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples")
        .join(name);
    assert!(
        program.is_file(),
        "{} is missing: cargo build -p clearml-env-builder --examples",
        program.display()
    );
    program
}

pub(crate) fn start(prepared: &PreparedEnvironment, settings: &EnvSettings) -> Output {
    let mut command = Command::new(&prepared.argv[0]);
    command
        .args(&prepared.argv[1..])
        .current_dir(&prepared.cwd)
        .env_clear()
        .envs(&settings.env);
    for (name, value) in &prepared.env {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.output().unwrap()
}

/// Starts what was prepared, which must end well; what it printed.
pub(crate) fn run(prepared: &PreparedEnvironment, settings: &EnvSettings) -> String {
    let output = start(prepared, settings);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{:?}\n{}{}",
        prepared.argv,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}
