//! `doctor`: what would stop tasks on this machine, and what to do about it.

mod code;
mod configuration;
mod devices;
mod machine;
mod python;
mod report;
mod server;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clearml_agent_config::{Settings, Sources};
use clearml_env_builder::{EnvSettings, Host, Level as LineLevel, Phase, PhaseEvent};
use clearml_support::command::{CancelToken, Command, CommandError};
use clearml_support::redact::Redactor;

pub use report::{Finding, Level, Report};

use report::Section;

/// How long one group of checks may take.
const LIMIT: Duration = Duration::from_secs(45);
/// How long a tool may take to say its version.
const TOOL_LIMIT: Duration = Duration::from_secs(10);

/// What to look at beyond the usual.
#[derive(Debug, Clone, Default)]
pub struct DoctorOptions {
    /// Names or ids of queues that shall be there; none means the server's default queue.
    pub queues: Vec<String>,
    /// A repository that shall be reachable.
    pub repository: Option<String>,
}

/// What the checks know.
struct Scene {
    options: DoctorOptions,
    settings: Option<Settings>,
    /// The environment of this process, of which tasks get a copy.
    env: BTreeMap<String, String>,
    home: Option<PathBuf>,
    redactor: Redactor,
    cancel: CancelToken,
}

/// Examines this machine and the way from it to the server. Never fails: what can't be examined is a
/// finding.
pub async fn run(options: &DoctorOptions, sources: &Sources) -> Report {
    let redactor = Redactor::new();
    let loaded = Settings::load(sources);
    if let Ok(settings) = &loaded {
        settings.register_secrets(&redactor);
    }
    let configuration = Section::new("Configuration", &redactor);
    configuration::check(&configuration, sources, &loaded);
    let scene = Arc::new(Scene {
        options: options.clone(),
        settings: loaded.ok(),
        env: sources.env.clone(),
        home: sources.home.clone(),
        redactor,
        cancel: CancelToken::new(),
    });
    let section = |name| Section::new(name, &scene.redactor);
    let (server, python, code) = (section("Server"), section("Python"), section("Code"));
    let (containers, gpus, slurm) = (section("Containers"), section("GPUs"), section("Slurm"));
    let machine = section("Machine");
    tokio::join!(
        in_time(&server, server::check(&scene, &server)),
        in_time(&python, beside(&scene, &python, python::check)),
        in_time(&code, beside(&scene, &code, code::check)),
        in_time(&containers, beside(&scene, &containers, devices::containers)),
        in_time(&gpus, beside(&scene, &gpus, devices::gpus)),
        in_time(&slurm, beside(&scene, &slurm, devices::slurm)),
        in_time(&machine, beside(&scene, &machine, machine::check)),
    );
    // Whatever still runs is not waited for.
    scene.cancel.cancel();
    let sections = [
        configuration,
        server,
        python,
        code,
        containers,
        gpus,
        slurm,
        machine,
    ];
    Report {
        findings: sections.iter().flat_map(Section::take).collect(),
    }
}

async fn in_time(section: &Section, checks: impl Future<Output = ()>) {
    if tokio::time::timeout(LIMIT, checks).await.is_err() {
        section.problem(
            "time",
            format!("these checks did not end within {} seconds", LIMIT.as_secs()),
            "see what they wait for: a network file system that is away, or a tool that hangs?",
        );
    }
}

/// Runs checks that block on a thread of their own.
async fn beside(scene: &Arc<Scene>, section: &Section, check: fn(&Scene, &Section)) {
    let (scene, own) = (Arc::clone(scene), section.clone());
    if let Err(error) = tokio::task::spawn_blocking(move || check(&scene, &own)).await {
        section.problem(
            "doctor",
            format!("a check of {} failed: {error}", section.name()),
            "this is an error of the agent; please report it with the output of `clearml-agent doctor --json`",
        );
    }
}

/// What became of a tool that was asked something.
enum Answer {
    /// It is not installed.
    Missing,
    /// It answered.
    Said(String),
    /// It could not answer.
    Failed(String),
}

impl Scene {
    /// Asks a tool on `PATH`.
    fn ask(&self, program: &str, args: &[&str]) -> Answer {
        if self.find(program).is_none() {
            return Answer::Missing;
        }
        let command = Command::new(program)
            .args(args)
            .timeout(TOOL_LIMIT)
            .cancel(&self.cancel)
            .redactor(&self.redactor);
        match command.check() {
            Ok(output) => {
                let text = match output.stdout.is_empty() {
                    true => output.stderr,
                    false => output.stdout,
                };
                Answer::Said(String::from_utf8_lossy(&text).trim().to_owned())
            }
            Err(CommandError::Failed {
                status, last_lines, ..
            }) if last_lines.is_empty() => Answer::Failed(format!("it ended with {status}")),
            Err(CommandError::Failed { last_lines, .. }) => {
                Answer::Failed(last_lines.lines().next_back().unwrap_or_default().to_owned())
            }
            Err(error) => Answer::Failed(error.to_string()),
        }
    }

    /// The first executable file of that name on `PATH`.
    fn find(&self, program: &str) -> Option<PathBuf> {
        let path = self.env.get("PATH")?;
        std::env::split_paths(path)
            .map(|folder| folder.join(program))
            .find(|file| file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok())
    }

    /// The settings of the environment builder, with the environment that tasks get.
    fn env_settings(&self, scratch: &Path) -> EnvSettings {
        let mut settings = match &self.settings {
            Some(settings) => clearml_task_runner::settings::env_settings(settings),
            None => EnvSettings::default(),
        };
        // Caches that are there are used, but none are begun here.
        if !settings.caches_dir.is_dir() {
            settings.caches_dir = scratch.join("caches");
        }
        settings.env = self.env.clone();
        settings
    }

    fn host(&self) -> Quiet {
        Quiet {
            cancel: self.cancel.clone(),
        }
    }
}

/// A host of the environment builder that keeps nothing: what counts comes back as a result.
struct Quiet {
    cancel: CancelToken,
}

impl Host for Quiet {
    fn line(&self, _: LineLevel, _: &str) {}
    fn phase(&self, _: Phase, _: PhaseEvent) {}
    fn report_packages(&self, _: &[String]) {}
    fn report_commit(&self, _: &str) {}
    fn cancel(&self) -> &CancelToken {
        &self.cancel
    }
}
