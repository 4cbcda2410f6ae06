//! Many services in containers: how soon each is launched after the one before while one of them is being prepared
//! for a minute, and the memory of what looks after them on this machine.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use serde_json::json;

use super::measure::Contestant;
use crate::engine::IMAGE;
use crate::terminal::note;
use crate::workbench::{Agent, Api, TaskSpec, cpu_seconds, wait_for};

/// How long the slow environment takes.
const SLOW: &str = "sleep 60";
/// A launch that comes this long after the one before is one that has waited for something.
const SOON: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(300);
/// How long the processor time of all together is watched.
const WATCHED: Duration = Duration::from_secs(30);

/// What it costs to have many services in containers.
#[derive(Debug)]
pub(super) struct ServicesInContainers {
    /// Percentage of launches that came more than a second after the one before.
    pub(super) late: f64,
    /// All our processes outside of the containers, in MiB.
    pub(super) memory: f64,
    /// Their CPU seconds in a minute while nothing happens.
    pub(super) cpu: f64,
}

/// Starts `count` services from the contestant's queue; the environment of the third one sleeps for a minute.
///
/// # Errors
///
/// When the daemon ends, or not all services run in time.
pub(super) fn measure(contestant: &Contestant, api: &Api, count: usize) -> Result<ServicesInContainers> {
    let mut tasks = Vec::new();
    for number in 0..count {
        let spec = TaskSpec::script("echo out: up\nexec sleep 86396")
            .with("binary", "/bin/sh")
            .with("entry_point", "service.sh");
        let task = api.create_task(&format!("service {number}"), &spec)?;
        let setup = if number == 2 { SLOW } else { "" };
        let container = json!({"image": IMAGE, "setup_shell_script": setup});
        let body = json!({"task": task, "force": true, "container": container});
        api.call("tasks.edit", body)?;
        api.enqueue(&task, &contestant.queue)?;
        tasks.push(task);
    }
    let containers = Containers {
        address: variable(contestant, "DOCKER_HOST"),
        worker: format!("{}:cpu:0", contestant.queue_name),
    };
    let options = contestant.options.clone();
    let options = options.variable("CLEARML_WORKER_ID", &containers.worker);
    let arguments = [
        "daemon",
        "--queue",
        &contestant.queue_name,
        "--foreground",
        "--services-mode",
        "--docker",
        IMAGE,
    ];
    let begun = Instant::now();
    let mut agent = Agent::start(&options, &arguments)?;
    wait_for("all services to run", LIMIT, Duration::from_secs(1), || {
        if let Some(status) = agent.ended()? {
            bail!("the daemon ended with {status}");
        }
        Ok((containers.started()?.len() >= count).then_some(()))
    })
    .with_context(|| agent.output())?;
    let mut started = containers.started()?;
    started.sort_unstable();
    let gaps: Vec<Duration> = started
        .windows(2)
        .map(|pair| pair[1].duration_since(pair[0]).unsigned_abs())
        .collect();
    let late = gaps.iter().filter(|gap| **gap > SOON).count();
    note(&format!(
        "{count} containers run after {:.0} s; {late} launches came late, the latest {:.2} s after the one before",
        begun.elapsed().as_secs_f64(),
        gaps.iter().max().copied().unwrap_or_default().as_secs_f64()
    ));
    wait_for("all programs to run", LIMIT, Duration::from_secs(1), || {
        let silent = tasks
            .iter()
            .map(|task| Ok(!api.console(task)?.contains("out: up")))
            .collect::<Result<Vec<bool>>>()?;
        Ok((!silent.contains(&true)).then_some(()))
    })
    .with_context(|| agent.output())?;
    note(&format!(
        "all programs run after {:.0} s",
        begun.elapsed().as_secs_f64()
    ));
    std::thread::sleep(Duration::from_secs(5));
    let processes = agent.mark().processes();
    let cpu = || -> f64 { processes.iter().filter_map(|(pid, _)| cpu_seconds(*pid)).sum() };
    let before = cpu();
    std::thread::sleep(WATCHED);
    let used = (cpu() - before) * 60.0 / WATCHED.as_secs_f64();
    let memory = agent.mark().proportional_memory();
    note(&format!(
        "{} processes outside of the containers",
        processes.len()
    ));
    agent.stop()?;
    containers.remove()?;
    #[expect(clippy::cast_precision_loss, reason = "bytes and counts far below 2^52")]
    let (memory, late) = (
        memory as f64 / 1024.0 / 1024.0,
        100.0 * late as f64 / gaps.len().max(1) as f64,
    );
    Ok(ServicesInContainers {
        late,
        memory,
        cpu: used,
    })
}

fn variable(contestant: &Contestant, name: &str) -> Option<String> {
    let own = contestant.options.variables.iter();
    own.rev()
        .find_map(|(own, value)| (own == name).then(|| value.clone()))
}

/// The containers of one daemon.
struct Containers {
    /// Of the engine, where the environment does not name it.
    address: Option<String>,
    worker: String,
}

impl Containers {
    fn docker(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("docker");
        command.args(arguments);
        if let Some(address) = &self.address {
            command.env("DOCKER_HOST", address);
        }
        let output = command.output().context("starting docker")?;
        ensure!(
            output.status.success(),
            "docker {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    fn ids(&self, all: &str) -> Result<Vec<String>> {
        let filter = format!("label=clearml-parent-worker-id={}", self.worker);
        let list = self.docker(&["ps", all, "--quiet", "--filter", &filter])?;
        Ok(list.split_whitespace().map(str::to_owned).collect())
    }

    /// When those were started that run.
    fn started(&self) -> Result<Vec<Timestamp>> {
        let ids = self.ids("--no-trunc")?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut arguments = vec!["inspect", "--format", "{{.State.StartedAt}}"];
        arguments.extend(ids.iter().map(String::as_str));
        let times = self.docker(&arguments)?;
        let read = |line: &str| line.parse().with_context(|| format!("the time {line}"));
        times.lines().map(read).collect()
    }

    fn remove(&self) -> Result<()> {
        let ids = self.ids("--all")?;
        let mut arguments = vec!["rm", "--force"];
        arguments.extend(ids.iter().map(String::as_str));
        self.docker(&arguments).map(drop)
    }
}
