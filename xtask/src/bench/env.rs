//! `cargo xtask bench env`: how long the environment of a task takes.
//!
//! Every figure is the time from the moment the queue is seen empty to the moment the server has the first line
//! of the script, as in `measure.rs`: what a user waits for. Each repetition begins in homes where nothing was
//! ever cached; then the same homes are used with what the earlier tasks have left:
//!
//! * cold: the first task of its kind in a new home;
//! * package caches hot: kept and built environments are removed, downloads and repositories stay;
//! * environment cache hot: the same task once more.
//!
//! With `CLEARML_BENCH_CONSOLE` set, the consoles of the tasks are printed too.
//!
//! Both agents get this machine's settings of the package managers (variables and files), and the packages come
//! from the index that these name: two small ones, and `env_packages.txt`, pinned, as a notebook server with
//! some tools needs them. uv is on the `PATH` of both; what each makes of it is its own business.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::PYTHON_AGENT;
use super::measure::{self, Contestant, MARKER, Repository};
use super::report::{self, Figure};
use crate::terminal::{note, step};
use crate::workbench::{
    Agent, AgentKind, AgentOptions, Api, LocalServer, PythonEnvironment, TaskSpec, wait_for,
};
use crate::workspace;

/// About a hundred packages with exact versions.
const PACKAGES: &str = include_str!("env_packages.txt");
/// How many tasks want the same environment at once.
const AT_ONCE: usize = 4;
/// How many of the packages that environment has.
const AT_ONCE_PACKAGES: usize = 30;
const LIMIT: Duration = Duration::from_secs(900);

const LITERAL_COLD: usize = 0;
const LITERAL_HOT: usize = 1;
const SMALL_COLD: usize = 2;
const SMALL_PACKAGES: usize = 3;
const SMALL_HOT: usize = 4;
const LARGE_PACKAGES: usize = 5;
const LARGE_HOT: usize = 6;
const ONCE_TIME: usize = 7;
const ONCE_BUILT: usize = 8;

fn figures() -> Vec<Figure> {
    let ratio = |name, parts: f64| Figure::new(name, "s", 1.0 / parts, None);
    vec![
        ratio("literal script, cold", 3.0),
        ratio("literal script, hot", 10.0),
        ratio("git + 2 packages, cold", 2.0),
        ratio("git + 2 packages, package caches hot", 5.0),
        ratio("git + 2 packages, environment cache hot", 10.0),
        ratio("git + 110 packages, package caches hot", 5.0),
        ratio("git + 110 packages, env. cache hot", 5.0),
        ratio("4 tasks at once, new env.: last first line", 1.0),
        Figure::new("4 tasks at once, new env.: built", "", 1.0, Some(1.0)),
    ]
}

/// Measures and reports.
///
/// # Errors
///
/// When something cannot be built, installed or started, or a task does not complete.
pub fn run(against_python: bool, quick: bool) -> Result<()> {
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1))
        .context("becoming a subreaper")?;
    let scratch = workspace::target().join("bench");
    let run = scratch.join("env");
    if run.exists() {
        fs::remove_dir_all(&run)?;
    }
    fs::create_dir_all(&run)?;
    step("Building the agent with optimisations");
    let executable = workspace::build_agent(true)?;
    let server = LocalServer::start(&executable, &run.join("server"))?;
    let mut agents = vec![(AgentKind::Ours, executable)];
    if against_python {
        step("Installing the official Python agent (the first time takes a minute)");
        let python = PythonEnvironment::get("agent", PYTHON_AGENT)?;
        note(&PYTHON_AGENT.join(", "));
        agents.push((AgentKind::Python, python.program("clearml-agent")));
    }
    step("Installing uv, which both agents find on PATH");
    let uv = PythonEnvironment::get("uv", &["uv"])?.program("uv");
    let count = PACKAGES.lines().count();
    note(&format!(
        "{count} pinned packages from the index that this machine is set up for"
    ));
    let bench = Bench {
        api: server.api()?,
        server: &server,
        repository: Repository::make(&run)?,
        run: &run,
        path: with_uv(&uv, &run)?,
    };
    let mut figures = figures();
    let rounds = if quick { 1 } else { 3 };
    for round in 0..rounds {
        for (kind, executable) in &agents {
            step(&format!("{}, round {} of {rounds}", kind.name(), round + 1));
            let large = round < 2;
            bench.round(*kind, executable, round, large, &mut figures)?;
        }
    }
    report::print(&figures);
    let file = scratch.join("environments.json");
    report::write(&figures, quick, &file)?;
    println!("written to {}", file.display());
    Ok(())
}

struct Bench<'a> {
    api: Api,
    server: &'a LocalServer,
    repository: Repository,
    run: &'a Path,
    /// What both agents get as `PATH`.
    path: String,
}

/// `PATH` with uv, and nothing else from its folder, in front.
fn with_uv(uv: &Path, run: &Path) -> Result<String> {
    let folder = run.join("uv");
    fs::create_dir_all(&folder)?;
    std::os::unix::fs::symlink(uv, folder.join("uv"))?;
    let own = std::env::var("PATH").unwrap_or_default();
    Ok(format!("{}:{own}", folder.display()))
}

/// The interpreter, as the SDK writes it into tasks. Where the version is missing, the official agent takes it
/// for an old one and installs Cython first, which tasks of users don't wait for.
fn binary() -> Result<String> {
    let program = "import sys; print('python%d.%d' % sys.version_info[:2], end='')";
    let output = Command::new("python3")
        .args(["-c", program])
        .output()
        .context("starting python3")?;
    ensure!(output.status.success(), "python3 ended with {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

impl Bench<'_> {
    /// All cases with one agent, in new homes.
    fn round(
        &self,
        kind: AgentKind,
        executable: &Path,
        round: usize,
        large: bool,
        figures: &mut [Figure],
    ) -> Result<()> {
        let name = if kind == AgentKind::Ours { "ours" } else { "python" };
        let contestant = |part: &str| self.contestant(kind, executable, &format!("{name}-{round}-{part}"));
        let mut add = |figure: usize, (seconds, said): (f64, String)| {
            note(&format!("{:<44} {seconds:.3} s{said}", figures[figure].name()));
            figures[figure].add(kind, seconds);
        };

        let binary = binary()?;
        let literal = contestant("literal")?;
        let mut daemon = measure::daemon(&literal, &self.api)?;
        for figure in [LITERAL_COLD, LITERAL_HOT] {
            add(
                figure,
                self.task(
                    &literal,
                    &mut daemon,
                    &measure::literal().with("binary", &*binary),
                )?,
            );
        }
        daemon.stop()?;

        let packaged = contestant("packaged")?;
        let mut daemon = measure::daemon(&packaged, &self.api)?;
        let small = self.repository.task().with("binary", &*binary);
        add(SMALL_COLD, self.task(&packaged, &mut daemon, &small)?);
        forget_environments(&packaged)?;
        add(SMALL_PACKAGES, self.task(&packaged, &mut daemon, &small)?);
        add(SMALL_HOT, self.task(&packaged, &mut daemon, &small)?);
        if large {
            let task = self.repository.with(PACKAGES).with("binary", &*binary);
            note("the packages are downloaded (not counted)");
            self.task(&packaged, &mut daemon, &task)?;
            forget_environments(&packaged)?;
            add(LARGE_PACKAGES, self.task(&packaged, &mut daemon, &task)?);
            add(LARGE_HOT, self.task(&packaged, &mut daemon, &task)?);
        }
        daemon.stop()?;
        if large {
            let (seconds, built) = self.at_once(&packaged)?;
            add(ONCE_TIME, (seconds, String::new()));
            add(ONCE_BUILT, (built, String::new()));
        }
        // Some gigabytes.
        for home in [&literal.options.home, &packaged.options.home] {
            fs::remove_dir_all(home).with_context(|| format!("removing {}", home.display()))?;
        }
        Ok(())
    }

    /// Seconds to the first line, and what the agent itself says about its part.
    fn task(&self, contestant: &Contestant, daemon: &mut Agent, spec: &TaskSpec) -> Result<(f64, String)> {
        let cost = measure::task(contestant, daemon, &self.api, spec)?;
        let mut lines = cost.console.lines();
        let said = lines.find_map(|line| line.split_once("environment ready in "));
        let said = said.map_or_else(String::new, |(_, said)| {
            format!(", of which the environment {said}")
        });
        if std::env::var_os("CLEARML_BENCH_CONSOLE").is_some() {
            println!("{}", cost.console);
        }
        Ok((cost.first_line, said))
    }

    fn contestant(&self, kind: AgentKind, executable: &Path, name: &str) -> Result<Contestant> {
        let queue_name = format!("bench-{name}");
        Ok(Contestant {
            kind,
            options: AgentOptions::new(executable, &self.run.join(name), &self.server.config())
                .variable("CLEARML_WORKER_NAME", name)
                .variable("PATH", &*self.path),
            queue: self.api.create_queue(&queue_name)?,
            queue_name,
        })
    }

    /// Several daemons in one home get tasks with the same new environment: seconds from the first pull to the
    /// last first line, and how many environments were built.
    fn at_once(&self, packaged: &Contestant) -> Result<(f64, f64)> {
        let list: String = PACKAGES
            .lines()
            .take(AT_ONCE_PACKAGES)
            .fold(String::new(), |text, line| text + line + "\n");
        // What the script imports.
        let spec = self
            .repository
            .with(&format!("{list}idna==3.10\nsix==1.17.0\n"))
            .with("binary", binary()?);
        let mut daemons = Vec::new();
        for number in 0..AT_ONCE {
            let name = format!("{}-{number}", &packaged.queue_name["bench-".len()..]);
            let options = packaged.options.clone().variable("CLEARML_WORKER_NAME", &*name);
            let contestant = Contestant {
                kind: packaged.kind,
                options,
                queue: self.api.create_queue(&format!("bench-{name}"))?,
                queue_name: format!("bench-{name}"),
            };
            daemons.push((measure::daemon(&contestant, &self.api)?, contestant));
        }
        let mut tasks = Vec::new();
        let started = Instant::now();
        for (_, contestant) in &daemons {
            tasks.push(self.api.submit("bench", &spec, &contestant.queue)?);
        }
        let mut consoles = Vec::new();
        for task in &tasks {
            wait_for(
                "the first line of the task",
                LIMIT,
                Duration::from_millis(20),
                || Ok(self.api.console(task)?.contains(MARKER).then_some(())),
            )?;
        }
        let seconds = started.elapsed().as_secs_f64();
        for task in &tasks {
            let ended = self.api.wait_until_ended(task, LIMIT)?;
            let console = self.api.console(task)?;
            ensure!(
                ended["status"] == "completed",
                "the task is {}:\n{console}",
                ended["status"]
            );
            consoles.push(console);
        }
        for (daemon, _) in &mut daemons {
            daemon.stop()?;
        }
        // Each agent says in its own way that it has installed something.
        let sign = match packaged.kind {
            AgentKind::Ours => ": built",
            AgentKind::Python => "Successfully installed",
        };
        let built = consoles.iter().filter(|console| console.contains(sign)).count();
        #[expect(clippy::cast_precision_loss, reason = "four at most")]
        Ok((seconds, built as f64))
    }
}

/// Removes environments, kept and built ones, so that the next task has only the caches of its package manager.
fn forget_environments(contestant: &Contestant) -> Result<()> {
    let folder = contestant.options.home.join(".clearml");
    let names = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let paths: Vec<PathBuf> = names
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("venvs-"))
        .map(|entry| entry.path())
        .collect();
    for path in paths {
        fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}
