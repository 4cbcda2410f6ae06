//! Builds a task whose code is in a git repository: `repository [URL COMMIT FOLDER]`. Caches and run go below
//! the folder. Without arguments, a repository is made up in a temporary folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use clearml_env_builder::{
    BuildRequest, EnvSettings, Host, Level, Phase, PhaseEvent, VcsCacheSettings, build,
};
use clearml_support::command::CancelToken;
use clearml_support::redact::Redactor;
use clearml_task_model::{Script, Task};

#[derive(Default)]
struct Terminal(CancelToken);

impl Host for Terminal {
    fn line(&self, level: Level, text: &str) {
        println!("[{level:?}] {text}");
    }
    fn phase(&self, _: Phase, _: PhaseEvent) {}
    fn report_packages(&self, _: &[String]) {}
    fn report_commit(&self, commit: &str) {
        println!("commit: {commit}");
    }
    fn cancel(&self) -> &CancelToken {
        &self.0
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let temp = tempfile::tempdir()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (url, commit, folder) = match &arguments[..] {
        [url, commit, folder] => (url.clone(), commit.clone(), PathBuf::from(folder)),
        _ => (made_up(temp.path())?, String::new(), temp.path().to_owned()),
    };
    let settings = EnvSettings {
        env: std::env::vars().collect(),
        caches_dir: folder.join("caches"),
        vcs_cache: VcsCacheSettings {
            path: folder.join("vcs-cache"),
            ..VcsCacheSettings::default()
        },
        ..EnvSettings::default()
    };
    let task = Task {
        script: Some(Script {
            repository: Some(url),
            version_num: Some(commit),
            entry_point: Some("main.py".to_owned()),
            ..Script::default()
        }),
        ..Task::default()
    };
    let redactor = Redactor::new();
    let request = BuildRequest {
        task: &task,
        settings: &settings,
        run_dir_env: folder.join("run-of-example"),
        redactor: &redactor,
    };
    let prepared = build(&request, &Terminal::default())?;
    println!("{}: {:?}", prepared.summary, prepared.argv);
    Ok(())
}

/// A repository with one file; its path.
fn made_up(folder: &Path) -> std::io::Result<String> {
    let root = folder.join("origin");
    std::fs::create_dir(&root)?;
    std::fs::write(root.join("main.py"), "print('hello')\n")?;
    for arguments in [
        "init --quiet --initial-branch=main",
        "add main.py",
        "-c user.name=me -c user.email=me@example.com commit --quiet --message=Start",
    ] {
        let words = arguments.split(' ');
        Command::new("git").current_dir(&root).args(words).status()?;
    }
    Ok(root.display().to_string())
}
