//! `cargo xtask bench worker`: what the daemon makes of many tasks, much output, a server in trouble, and aborts.
//!
//! With `--against-python`, the official Python agent does the same on the same server, where it can. The result
//! is printed, and written to `target/bench/worker.json`.

mod aborts;
mod console;
mod outage;
mod processes;
mod proxy;
mod services;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::measure::{self, Contestant};
use super::report::{self, Figure};
use super::{PYTHON_AGENT, contestant};
use crate::terminal::{note, step};
use crate::workbench::{Agent, AgentKind, Api, LocalServer, PythonEnvironment};
use console::Manner;

/// Status poll and grace period as packaged, and what is permitted beyond them.
const LONGEST_ABORT: f64 = 2.0 + 10.0 + 1.0;

/// How often and how long.
struct Effort {
    tasks: usize,
    services: usize,
    watched: Duration,
    bursts: usize,
    lines: usize,
    steady: Duration,
    outage: Duration,
    aborts: usize,
    last_processes: usize,
    idle: Duration,
}

const FULL: Effort = Effort {
    tasks: 20,
    services: 1000,
    watched: Duration::from_secs(60),
    bursts: 5,
    lines: 200_000,
    steady: Duration::from_secs(30),
    outage: Duration::from_secs(60),
    aborts: 200,
    last_processes: 3,
    idle: Duration::from_secs(60),
};
const QUICK: Effort = Effort {
    tasks: 5,
    services: 100,
    watched: Duration::from_secs(15),
    bursts: 1,
    lines: 50_000,
    steady: Duration::from_secs(10),
    outage: Duration::from_secs(20),
    aborts: 20,
    last_processes: 1,
    idle: Duration::from_secs(20),
};

const TASKS: usize = 0;
const SERVICES_MEMORY: usize = 1;
const SERVICES_LATE: usize = 2;
const SERVICES_CPU: usize = 3;
const BURST_TIME: usize = 4;
const BURST_STORED: usize = 5;
const BURST_LINES: usize = 6;
const BURST_BEHIND: usize = 7;
const BURST_CPU: usize = 8;
const BURST_MEMORY: usize = 9;
const STEADY_MEDIAN: usize = 10;
const STEADY_MOST: usize = 11;
const OUTAGE_REQUESTS: usize = 12;
const OUTAGE_CPU: usize = 13;
const ABORTS: usize = 14;
const LAST_PROCESS: usize = 15;
const IDLE: usize = 16;

fn figures(effort: &Effort) -> Vec<Figure> {
    let most = |name, unit, most| Figure::new(name, unit, 1.0, Some(most));
    let parts = |of: usize, of_full: usize, most: f64| {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let part = of as f64 / of_full as f64;
        most * part
    };
    vec![
        Figure::new("trivial tasks in a row, total", "s", 1.0 / 10.0, None),
        most(
            "services, memory (PSS)",
            "MiB",
            parts(effort.services, FULL.services, 1024.0),
        ),
        most("services, looks later than 1 s", "%", 1.0),
        most("services, CPU time per minute", "s", 60.0),
        Figure::new("burst at once, first print to last stored", "s", 1.0 / 4.0, None),
        Figure::noted("burst at once, first stored to last stored", "s"),
        Figure::noted("burst line by line, first print to last stored", "s"),
        Figure::new(
            "burst line by line, last print to last stored",
            "s",
            1.0 / 4.0,
            None,
        ),
        Figure::new("burst line by line, CPU per line", "us", 1.0 / 4.0, None),
        most("burst in either way, memory (PSS)", "MiB", 64.0),
        most("200 lines/s, delay, median", "s", 1.0),
        most("200 lines/s, delay, 95 %", "s", 1.5),
        most(
            "503 for a while, requests",
            "",
            parts(effort.outage.as_secs() as usize, 60, 60.0),
        ),
        most("503 for a while, CPU time", "s", 0.2),
        most("aborts that ended wrongly", "", 0.0),
        most("abort to last process gone", "s", LONGEST_ABORT),
        Figure::new("requests per idle minute, 10 queues", "", 1.0, None),
    ]
}

struct Bench {
    effort: Effort,
    server: LocalServer,
    api: Api,
    figures: Vec<Figure>,
    run: PathBuf,
    only: Option<String>,
}

/// What is measured.
#[derive(Debug, Default)]
pub struct Choice {
    /// Only rows with this text in their names.
    pub only: Option<String>,
    /// An agent that is built already; this workspace's otherwise.
    pub executable: Option<PathBuf>,
}

/// Measures and reports.
///
/// # Errors
///
/// When something cannot be built, installed or started, or a task does not end as it should.
pub fn run(against_python: bool, quick: bool, choice: Choice) -> Result<()> {
    let (scratch, run, executable) = super::begin("worker", choice.executable.as_deref())?;
    let server = LocalServer::start(&executable, &run.join("server"))?;
    let api = server.api()?;
    let mut contestants = vec![contestant(AgentKind::Ours, executable, &run, &server)];
    if against_python {
        let python = PythonEnvironment::get("agent", PYTHON_AGENT)?;
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
    let effort = if quick { QUICK } else { FULL };
    let mut bench = Bench {
        figures: figures(&effort),
        effort,
        server,
        api,
        run,
        only: choice.only,
    };
    for contestant in &contestants {
        step(contestant.kind.name());
        bench.rows(contestant)?;
    }
    bench.figures.retain(Figure::is_measured);
    report::print(&bench.figures);
    let file = scratch.join("worker.json");
    report::write(&bench.figures, quick, &file)?;
    println!("written to {}", file.display());
    Ok(())
}

impl Bench {
    fn wants(&self, row: usize) -> bool {
        let name = self.figures[row].name();
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }

    fn add(&mut self, row: usize, kind: AgentKind, value: f64) {
        note(&format!("{}: {value:.3}", self.figures[row].name()));
        self.figures[row].add(kind, value);
    }

    fn rows(&mut self, contestant: &Contestant) -> Result<()> {
        let kind = contestant.kind;
        if self.wants(TASKS) {
            let seconds = trivial(contestant, &self.api, self.effort.tasks)?;
            self.add(TASKS, kind, seconds);
        }
        if self.wants(IDLE) {
            let requests = outage::idle(contestant, &self.api, &self.server, self.effort.idle)?;
            self.add(IDLE, kind, requests);
        }
        let daemon_rows = [BURST_TIME, STEADY_MEDIAN, OUTAGE_REQUESTS, LAST_PROCESS];
        if daemon_rows.iter().any(|row| self.wants(*row)) {
            let mut agent = measure::daemon(contestant, &self.api)?;
            self.on_one_daemon(contestant, &mut agent)?;
            agent.stop()?;
        }
        // The official agent has services in containers only, and is known to lose aborts.
        if kind == AgentKind::Ours {
            self.own_rows(contestant)?;
        }
        Ok(())
    }

    fn on_one_daemon(&mut self, contestant: &Contestant, agent: &mut Agent) -> Result<()> {
        let kind = contestant.kind;
        if self.wants(BURST_TIME) {
            // What an agent does once for all tasks of a machine is no part of what lines cost.
            measure::task(contestant, agent, &self.api, &measure::literal())?;
            for _ in 0..self.effort.bursts {
                let effort = (self.effort.lines, Manner::AtOnce);
                let burst = console::burst(contestant, agent, &self.api, effort)?;
                self.add(BURST_TIME, kind, burst.seconds);
                self.add(BURST_STORED, kind, burst.stored);
                let at_once = burst.memory;
                let effort = (self.effort.lines, Manner::LineByLine);
                let burst = console::burst(contestant, agent, &self.api, effort)?;
                self.add(BURST_LINES, kind, burst.seconds);
                self.add(BURST_BEHIND, kind, burst.behind);
                self.add(BURST_CPU, kind, burst.cpu);
                self.add(BURST_MEMORY, kind, burst.memory.max(at_once));
            }
        }
        if self.wants(STEADY_MEDIAN) {
            let delays = console::steady(contestant, agent, &self.api, self.effort.steady)?;
            self.add(STEADY_MEDIAN, kind, console::percentile(&delays, 50));
            self.add(STEADY_MOST, kind, console::percentile(&delays, 95));
        }
        if self.wants(OUTAGE_REQUESTS) {
            let (requests, cpu) =
                outage::unavailable(contestant, agent, &self.api, &self.server, self.effort.outage)?;
            self.add(OUTAGE_REQUESTS, kind, requests);
            self.add(OUTAGE_CPU, kind, cpu);
        }
        // A process that has left its parent survives an abort of the official agent.
        if self.wants(LAST_PROCESS) && kind == AgentKind::Ours {
            for _ in 0..self.effort.last_processes {
                let seconds = aborts::last_process(contestant, agent, &self.api)?;
                self.add(LAST_PROCESS, kind, seconds);
            }
        }
        Ok(())
    }

    fn own_rows(&mut self, contestant: &Contestant) -> Result<()> {
        let kind = contestant.kind;
        if self.wants(ABORTS) {
            let seed = u64::from(std::process::id());
            note(&format!("seed {seed}"));
            let run: &Path = &self.run;
            let wrong = aborts::campaign(contestant, &self.api, (self.effort.aborts, seed), run)?;
            #[expect(clippy::cast_precision_loss, reason = "a small number")]
            self.add(ABORTS, kind, wrong as f64);
        }
        if self.wants(SERVICES_MEMORY) {
            let extent = (self.effort.services, self.effort.watched);
            let services = services::measure(
                contestant,
                &self.api,
                self.api_address(contestant)?.as_str(),
                extent,
            )?;
            self.add(SERVICES_MEMORY, kind, services.memory);
            self.add(SERVICES_LATE, kind, 100.0 - services.punctual);
            self.add(SERVICES_CPU, kind, services.cpu);
        }
        Ok(())
    }

    fn api_address(&self, contestant: &Contestant) -> Result<String> {
        let sources = clearml_agent_config::Sources {
            config_file: Some(contestant.options.config.clone()),
            ..clearml_agent_config::Sources::default()
        };
        Ok(clearml_agent_config::Settings::load(&sources)?
            .api
            .require_server()?
            .to_owned())
    }
}

/// Seconds from the start of the daemon to the end of the last task that was in its queue.
fn trivial(contestant: &Contestant, api: &Api, count: usize) -> Result<f64> {
    let mut tasks = Vec::new();
    for _ in 0..count {
        tasks.push(api.submit("trivial", &measure::literal(), &contestant.queue)?);
    }
    let begun = Instant::now();
    let mut agent = Agent::daemon(&contestant.options, &contestant.queue_name)?;
    for task in &tasks {
        let ended = api
            .wait_until_ended(task, Duration::from_secs(900))
            .with_context(|| agent.output())?;
        ensure!(ended["status"] == "completed", "a task is {}", ended["status"]);
    }
    let seconds = begun.elapsed().as_secs_f64();
    agent.stop()?;
    Ok(seconds)
}
