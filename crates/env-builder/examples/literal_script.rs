//! Builds an environment for a one-line script in a temporary folder and prints the command.

use std::time::Duration;

use clearml_env_builder::{
    BuildRequest, EnvSettings, Host, Level, Phase, PhaseEvent, VcsCacheSettings, build,
};
use clearml_support::command::CancelToken;
use clearml_support::redact::Redactor;
use clearml_task_model::{Script, Task, TaskId};

/// Prints what a real host would send to the server.
#[derive(Default)]
struct Terminal(CancelToken);

impl Host for Terminal {
    fn line(&self, level: Level, text: &str) {
        println!("[{level:?}] {text}");
    }
    fn phase(&self, phase: Phase, event: PhaseEvent) {
        if let PhaseEvent::Finished(took) = event {
            println!("[{}] {} ms", phase.as_str(), Duration::as_millis(&took));
        }
    }
    fn report_packages(&self, freeze: &[String]) {
        println!("installed: {freeze:?}");
    }
    fn report_commit(&self, commit: &str) {
        println!("commit: {commit}");
    }
    fn cancel(&self) -> &CancelToken {
        &self.0
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let temp = tempfile::tempdir()?;
    let settings = EnvSettings {
        env: std::env::vars().collect(),
        caches_dir: temp.path().join("caches"),
        vcs_cache: VcsCacheSettings {
            path: temp.path().join("vcs-cache"),
            ..VcsCacheSettings::default()
        },
        ..EnvSettings::default()
    };
    let task = Task {
        id: Some(TaskId::new("0123456789abcdef0123456789abcdef")),
        script: Some(Script {
            binary: Some("python3".to_owned()),
            entry_point: Some("hello.py --name world".to_owned()),
            diff: Some("import sys; print('hello', sys.argv[-1])".to_owned()),
            ..Script::default()
        }),
        ..Task::default()
    };
    let redactor = Redactor::new();
    let request = BuildRequest {
        task: &task,
        settings: &settings,
        run_dir_env: temp.path().join("run"),
        redactor: &redactor,
    };
    let prepared = build(&request, &Terminal::default())?;
    println!(
        "{}: {:?} in {}",
        prepared.summary,
        prepared.argv,
        prepared.cwd.display()
    );
    Ok(())
}
