//! `cargo xtask bench docker`: what it costs to run tasks in containers.
//!
//! * Launch: from the moment the queue is seen empty to the moment the server has the first line of a script without
//!   packages, as in `measure.rs`, in a container of an image that has Python, pip and git. With `--against-python`
//!   the official agent does the same in turn, on the same engine; it is spared what an image can spare it: nothing
//!   of it needs apt, and its libraries for OpenCV are switched off.
//!
//! The engine is the one that answers, or one that is started for this. Both agents' containers use this machine's
//! network and its certificates, so that the official agent can install itself from the index that this machine is
//! set up for. The result is printed, and written to `target/bench/docker.json`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::measure::{self, Contestant};
use super::report::{self, Figure};
use super::{PYTHON_AGENT, contestant, services_contained};
use crate::engine::{self, Engine};
use crate::terminal::{note, step};
use crate::workbench::{Agent, AgentKind, LocalServer, PythonEnvironment};

const LAUNCH: usize = 0;
const SERVICES_LATE: usize = 1;
const SERVICES_MEMORY: usize = 2;
const SERVICES_CPU: usize = 3;
/// As many services as the permitted memory is for.
const SERVICES: usize = 50;

/// What both agents add to every container.
const ARGUMENTS: &str = "--network host -v /etc/ssl/certs:/etc/ssl/certs:ro -e SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
     -e PIP_CERT=/etc/ssl/certs/ca-certificates.crt";

fn figures() -> Vec<Figure> {
    let most = |name, unit, most| Figure::new(name, unit, 1.0, Some(most));
    vec![
        Figure::new("launch: pulled -> first line", "s", 1.0 / 10.0, None),
        most("services, launches later than 1 s", "%", 5.0),
        most("services, memory (PSS)", "MiB", 128.0),
        most("services, CPU time per minute", "s", 6.0),
    ]
}

/// What is measured.
#[derive(Debug, Default)]
pub struct Choice {
    /// Only figures with this text in their names.
    pub only: Option<String>,
    /// An agent that is built already; this workspace's otherwise.
    pub executable: Option<PathBuf>,
}

impl Choice {
    fn wants(&self, part: &str) -> bool {
        self.only.as_deref().is_none_or(|only| part.contains(only))
    }
}

/// Measures and reports.
///
/// # Errors
///
/// When something cannot be built, installed or started, or a task does not complete.
pub fn run(against_python: bool, quick: bool, choice: &Choice) -> Result<()> {
    let (scratch, run, executable) = super::begin("docker", choice.executable.as_deref())?;
    step("Looking for an engine and the image");
    let engine = Engine::start_if_needed()?;
    if let Some(engine) = &engine {
        engine.make_image()?;
    }
    let address = engine.as_ref().map(Engine::address);
    let mut figures = figures();
    if choice.wants("launch") {
        let rounds = if quick { 1 } else { 5 };
        let place = Place {
            run: &run,
            executable: &executable,
            address: address.as_deref(),
        };
        place.launches(against_python, rounds, &mut figures[LAUNCH])?;
    }
    if choice.wants("services") {
        let place = Place {
            run: &run,
            executable: &executable,
            address: address.as_deref(),
        };
        place.services(if quick { SERVICES / 5 } else { SERVICES }, &mut figures)?;
    }
    figures.retain(Figure::is_measured);
    report::print(&figures);
    let file = scratch.join("docker.json");
    report::write(&figures, quick, &file)?;
    println!("written to {}", file.display());
    Ok(())
}

struct Place<'a> {
    run: &'a Path,
    executable: &'a Path,
    /// Of an engine that was started for this.
    address: Option<&'a str>,
}

impl Place<'_> {
    fn launches(&self, against_python: bool, rounds: usize, figure: &mut Figure) -> Result<()> {
        let server = LocalServer::start(self.executable, &self.run.join("server"))?;
        let api = server.api()?;
        let mut contestants = vec![self.contestant(AgentKind::Ours, self.executable.to_owned(), &server)];
        if against_python {
            step("Installing the official Python agent (the first time takes a minute)");
            let python = PythonEnvironment::get("agent", PYTHON_AGENT)?.program("clearml-agent");
            note(&PYTHON_AGENT.join(", "));
            contestants.push(self.contestant(AgentKind::Python, python, &server));
        }
        step(&format!(
            "Running tasks in containers: once to warm up, then {rounds} counted time(s) in turn"
        ));
        let spec = measure::literal().with("binary", self.interpreter()?);
        let mut daemons = Vec::new();
        for contestant in &mut contestants {
            contestant.queue = api.create_queue(&contestant.queue_name)?;
            let arguments = [
                "daemon",
                "--queue",
                &contestant.queue_name,
                "--foreground",
                "--cpu-only",
                "--docker",
                engine::IMAGE,
            ];
            let agent = Agent::start(&contestant.options, &arguments)?;
            daemons.push(measure::registered(contestant, &api, agent)?);
        }
        for round in 0..=rounds {
            for (contestant, daemon) in contestants.iter().zip(&mut daemons) {
                let cost = measure::task(contestant, daemon, &api, &spec)?;
                let counted = if round == 0 { " (not counted)" } else { "" };
                note(&format!(
                    "{:<22} {:.3} s{counted}",
                    contestant.kind.name(),
                    cost.first_line
                ));
                if std::env::var_os("CLEARML_BENCH_CONSOLE").is_some() {
                    println!("{}", cost.console);
                }
                if round > 0 {
                    figure.add(contestant.kind, cost.first_line);
                }
            }
        }
        daemons.iter_mut().try_for_each(|daemon| daemon.stop().map(drop))
    }

    fn services(&self, count: usize, figures: &mut [Figure]) -> Result<()> {
        step(&format!("Starting {count} services in containers"));
        let server = LocalServer::start(self.executable, &self.run.join("server of services"))?;
        let api = server.api()?;
        let mut contestant = self.contestant(AgentKind::Ours, self.executable.to_owned(), &server);
        contestant.queue = api.create_queue(&contestant.queue_name)?;
        let services = services_contained::measure(&contestant, &api, count)?;
        figures[SERVICES_LATE].add(contestant.kind, services.late);
        figures[SERVICES_MEMORY].add(contestant.kind, services.memory);
        figures[SERVICES_CPU].add(contestant.kind, services.cpu);
        Ok(())
    }

    fn contestant(&self, kind: AgentKind, executable: PathBuf, server: &LocalServer) -> Contestant {
        let mut contestant = contestant(kind, executable, self.run, server);
        let mut options = contestant
            .options
            .variable("CLEARML_AGENT_EXTRA_DOCKER_ARGS", ARGUMENTS)
            .variable("CLEARML_AGENT__AGENT__DOCKER_INSTALL_OPENCV_LIBS", "false");
        if let Some(address) = self.address {
            options = options.variable("DOCKER_HOST", address);
        }
        contestant.options = options;
        contestant
    }

    /// The interpreter of the image, as the SDK writes it into tasks; without it the official agent installs more.
    fn interpreter(&self) -> Result<String> {
        let program = "import sys; print('python%d.%d' % sys.version_info[:2], end='')";
        let mut command = Command::new("docker");
        command.args([
            "run",
            "--rm",
            "--network=none",
            engine::IMAGE,
            "python3",
            "-c",
            program,
        ]);
        if let Some(address) = self.address {
            command.env("DOCKER_HOST", address);
        }
        let output = command.output().context("starting docker")?;
        ensure!(
            output.status.success(),
            "no Python runs in {}: {}",
            engine::IMAGE,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }
}
