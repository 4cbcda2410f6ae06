//! `cargo xtask bench`: what a user pays for the agent, measured on whole processes.
//!
//! With `--against-python`, the official Python agent runs beside this one, on the same embedded server, with the
//! same configuration and the defaults of both; the repetitions alternate. `measure.rs` says how each figure is
//! taken. The result is printed, and written to `target/bench/agents.json`.

pub mod docker;
pub mod env;
mod measure;
mod report;
mod services_contained;
pub mod slurm;
pub mod worker;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::terminal::{note, step};
use crate::workbench::{AgentKind, AgentOptions, LocalServer, PythonEnvironment};
use crate::workspace;
use measure::Contestant;
use report::Figure;

/// The official agent that is measured against.
const PYTHON_AGENT: &[&str] = &["clearml-agent==3.0.3"];

/// How often and how long.
struct Effort {
    version_runs: usize,
    idle: Duration,
    tasks: usize,
}

/// Measures and reports.
///
/// # Errors
///
/// When something cannot be built, installed or started, or a task does not complete.
pub fn run(against_python: bool, quick: bool) -> Result<()> {
    let effort = if quick {
        Effort {
            version_runs: 50,
            idle: Duration::from_secs(15),
            tasks: 1,
        }
    } else {
        Effort {
            version_runs: 200,
            idle: Duration::from_secs(60),
            tasks: 5,
        }
    };
    // Orphans of the agents come to us, so that their CPU time is counted.
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1))
        .context("becoming a subreaper")?;
    let scratch = workspace::target().join("bench");
    if scratch.join("run").exists() {
        fs::remove_dir_all(scratch.join("run"))?;
    }
    let run = scratch.join("run");
    fs::create_dir_all(&run)?;

    step("Building the agent with optimisations");
    let executable = workspace::build_agent(true)?;
    let server = LocalServer::start(&executable, &run.join("server"))?;
    let api = server.api()?;
    let mut contestants = vec![contestant(AgentKind::Ours, executable, &run, &server)];
    if against_python {
        step("Installing the official Python agent (the first time takes a minute)");
        let python = PythonEnvironment::get("agent", PYTHON_AGENT)?;
        note(&PYTHON_AGENT.join(", "));
        contestants.push(contestant(
            AgentKind::Python,
            python.program("clearml-agent"),
            &run,
            &server,
        ));
    }
    for contestant in &mut contestants {
        contestant.queue = api.create_queue(&contestant.queue_name)?;
    }

    let mut figures = vec![
        Figure::new("`--version`, CPU time", "s", 1.0 / 50.0, None),
        Figure::new("idle daemon, memory (PSS)", "MiB", 1.0 / 5.0, None),
        Figure::new("idle daemon, CPU time per minute", "s", 1.0 / 10.0, None),
        Figure::new("pulled -> first line, literal script", "s", 1.0 / 10.0, Some(0.5)),
        Figure::new("pulled -> first line, git and two packages", "s", 1.0 / 2.0, None),
        Figure::new("agent's CPU time for one trivial task", "s", 1.0 / 10.0, None),
    ];
    step("Starting each program for its version");
    for contestant in &contestants {
        let runs = if contestant.kind == AgentKind::Ours {
            effort.version_runs
        } else {
            effort.version_runs / 10
        };
        for _ in 0..3 {
            figures[0].add(contestant.kind, measure::version_cpu(contestant, runs)?);
        }
    }
    step(&format!(
        "Letting each daemon idle for {} s",
        effort.idle.as_secs()
    ));
    for contestant in &contestants {
        let (memory, cpu) = measure::idle(contestant, &api, effort.idle)?;
        figures[1].add(contestant.kind, memory);
        figures[2].add(contestant.kind, cpu);
    }
    step(&format!(
        "Running tasks: once to warm up, then {} counted time(s) in turn",
        effort.tasks
    ));
    let mut daemons = Vec::new();
    for contestant in &contestants {
        daemons.push(measure::daemon(contestant, &api)?);
    }
    let repository = measure::Repository::make(&run)?;
    for round in 0..=effort.tasks {
        for (contestant, daemon) in contestants.iter().zip(&mut daemons) {
            let literal = measure::task(contestant, daemon, &api, &measure::literal())?;
            let packaged = measure::task(contestant, daemon, &api, &repository.task())?;
            note(&format!(
                "{:<22} literal {:.3} s, with packages {:.3} s, CPU {:.3} s{}",
                contestant.kind.name(),
                literal.first_line,
                packaged.first_line,
                literal.agent_cpu,
                if round == 0 { " (not counted)" } else { "" }
            ));
            if round > 0 {
                figures[3].add(contestant.kind, literal.first_line);
                figures[4].add(contestant.kind, packaged.first_line);
                figures[5].add(contestant.kind, literal.agent_cpu);
            }
        }
    }
    for daemon in &mut daemons {
        daemon.stop()?;
    }
    report::print(&figures);
    let file = scratch.join("agents.json");
    report::write(&figures, quick, &file)?;
    println!("written to {}", file.display());
    Ok(())
}

fn contestant(kind: AgentKind, executable: PathBuf, run: &Path, server: &LocalServer) -> Contestant {
    let name = if kind == AgentKind::Ours { "ours" } else { "python" };
    Contestant {
        kind,
        options: AgentOptions::new(&executable, &run.join(name), &server.config())
            .variable("CLEARML_WORKER_NAME", name),
        queue_name: format!("bench-{name}"),
        queue: String::new(),
    }
}

/// An empty folder below that of all measurements, and the agent that is measured: the given one, or this workspace's.
fn begin(name: &str, executable: Option<&Path>) -> Result<(PathBuf, PathBuf, PathBuf)> {
    // Orphans of the agents come to us, so that their CPU time is counted.
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1))
        .context("becoming a subreaper")?;
    let scratch = workspace::target().join("bench");
    let run = scratch.join(name);
    if run.exists() {
        fs::remove_dir_all(&run)?;
    }
    fs::create_dir_all(&run)?;
    let executable = if let Some(built) = executable {
        built
            .canonicalize()
            .with_context(|| format!("finding {}", built.display()))?
    } else {
        step("Building the agent with optimisations");
        workspace::build_agent(true)?
    };
    Ok((scratch, run, executable))
}
