//! How each figure is taken.
//!
//! * CPU time of a program that ends: the growth of our own waited-for children's time, over many runs.
//! * Memory: the proportional set size of all processes of the agent, median over the idle time.
//! * Pulled -> first line: from the moment the queue is seen empty to the moment the server has the line that
//!   the script computes and prints first; both are looked for every 10 ms.
//! * The agent's CPU time for a task: what all its processes have used, from before the task is put into the
//!   queue until only the daemon is left, minus what the user's script says it has used itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, WaitOptions, waitpid};
use serde_json::json;

use crate::workbench::{Agent, AgentKind, AgentOptions, Api, ProcessStat, TaskSpec, cpu_seconds, wait_for};

/// How long one task may take; the first one of the Python agent downloads its tools.
const LIMIT: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_millis(10);

/// What the scripts print first. It stands nowhere in their text, which an agent may show.
pub(super) const MARKER: &str = "marker-42";
const SCRIPT: &str = "import time\nprint('marker-' + str(6 * 7), flush=True)\nprint('own cpu', time.process_time(), flush=True)\n";

/// One of the agents that are compared.
pub(super) struct Contestant {
    pub(super) kind: AgentKind,
    pub(super) options: AgentOptions,
    pub(super) queue_name: String,
    pub(super) queue: String,
}

/// What one task cost, in seconds.
pub(super) struct TaskCost {
    pub(super) first_line: f64,
    pub(super) agent_cpu: f64,
    /// The whole console of the task.
    pub(super) console: String,
}

/// CPU seconds of one `--version`.
pub(super) fn version_cpu(contestant: &Contestant, runs: usize) -> Result<f64> {
    let before = own_children_cpu();
    for _ in 0..runs {
        let status = contestant
            .options
            .command(&["--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        ensure!(
            status.success(),
            "{} --version ended with {status}",
            contestant.options.executable.display()
        );
    }
    #[expect(clippy::cast_precision_loss, reason = "a small number of runs")]
    Ok((own_children_cpu() - before) / runs as f64)
}

/// Starts a daemon and waits until the server knows it.
pub(super) fn daemon(contestant: &Contestant, api: &Api) -> Result<Agent> {
    let agent = Agent::daemon(&contestant.options, &contestant.queue_name)?;
    registered(contestant, api, agent)
}

/// Waits until the server knows a daemon.
pub(super) fn registered(contestant: &Contestant, api: &Api, mut agent: Agent) -> Result<Agent> {
    wait_for(
        "the registration of the daemon",
        Duration::from_secs(120),
        Duration::from_millis(100),
        || {
            if let Some(status) = agent.ended()? {
                anyhow::bail!("the daemon ended with {status}");
            }
            let reply = api.call("workers.get_all", json!({}))?;
            let known = |id: &str| id.starts_with(&contestant.queue_name["bench-".len()..]);
            let workers = reply["workers"].as_array().cloned().unwrap_or_default();
            Ok(workers
                .iter()
                .any(|worker| worker["id"].as_str().is_some_and(known))
                .then_some(()))
        },
    )
    .with_context(|| agent.output())?;
    Ok(agent)
}

/// Memory in MiB, and CPU seconds per minute, of a daemon without work.
pub(super) fn idle(contestant: &Contestant, api: &Api, length: Duration) -> Result<(f64, f64)> {
    let mut agent = daemon(contestant, api)?;
    // The start is over when the first polls have been made.
    std::thread::sleep(Duration::from_secs(6));
    let before = agents_cpu(&agent);
    let started = Instant::now();
    let mut memory = Vec::new();
    while started.elapsed() < length {
        #[expect(
            clippy::cast_precision_loss,
            reason = "memory of a process is far below 2^52 bytes"
        )]
        memory.push(agent.mark().proportional_memory() as f64 / 1024.0 / 1024.0);
        std::thread::sleep(Duration::from_secs(3));
    }
    let cpu = (agents_cpu(&agent) - before) * 60.0 / started.elapsed().as_secs_f64();
    agent.stop()?;
    Ok((super::report::median(&memory), cpu))
}

/// The script without repository and requirements.
pub(super) fn literal() -> TaskSpec {
    TaskSpec::script(SCRIPT)
}

/// A small repository with the script in it.
pub(super) struct Repository {
    folder: PathBuf,
    commit: String,
}

impl Repository {
    pub(super) fn make(run: &Path) -> Result<Self> {
        let folder = run.join("repository");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("main.py"), format!("import idna, six\n{SCRIPT}"))?;
        let git = |arguments: &[&str]| -> Result<String> {
            let output = Command::new("git")
                .args(arguments)
                .current_dir(&folder)
                .output()
                .context("starting git")?;
            ensure!(
                output.status.success(),
                "git {arguments:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        git(&["init", "--quiet", "--initial-branch=main"])?;
        git(&["add", "--all"])?;
        git(&[
            "-c",
            "user.name=b",
            "-c",
            "user.email=b@example.com",
            "commit",
            "--quiet",
            "--message",
            "Start",
        ])?;
        let commit = git(&["rev-parse", "HEAD"])?;
        Ok(Self { folder, commit })
    }

    /// The script at its commit, with two pinned packages.
    pub(super) fn task(&self) -> TaskSpec {
        self.with("idna==3.10\nsix==1.17.0\n")
    }

    /// The script at its commit, with these packages.
    pub(super) fn with(&self, requirements: &str) -> TaskSpec {
        let url = format!("file://{}", self.folder.display());
        TaskSpec::repository(&url, &self.commit, "main.py").requirements(requirements)
    }
}

/// Sends one task through a running daemon.
pub(super) fn task(
    contestant: &Contestant,
    agent: &mut Agent,
    api: &Api,
    spec: &TaskSpec,
) -> Result<TaskCost> {
    settle(agent)?;
    let before = agents_cpu(agent) + own_children_cpu();
    let task = api.submit("bench", spec, &contestant.queue)?;
    wait_for("the pull of the task", LIMIT, PAUSE, || {
        Ok(api.waiting(&contestant.queue)?.is_empty().then_some(()))
    })?;
    let pulled = Instant::now();
    wait_for("the first line of the task", LIMIT, PAUSE, || {
        Ok(api.console(&task)?.contains(MARKER).then_some(()))
    })
    .with_context(|| agent.output())?;
    let first_line = pulled.elapsed().as_secs_f64();
    let ended = api.wait_until_ended(&task, LIMIT)?;
    let console = api.console(&task)?;
    ensure!(
        ended["status"] == "completed",
        "the task is {}:\n{console}",
        ended["status"]
    );
    settle(agent)?;
    let used = agents_cpu(agent) + own_children_cpu() - before;
    let own = console
        .lines()
        .find_map(|line| line.split_once("own cpu "))
        .and_then(|(_, seconds)| seconds.trim().parse::<f64>().ok())
        .context("the script did not say what it has used")?;
    Ok(TaskCost {
        first_line,
        agent_cpu: used - own,
        console,
    })
}

/// Waits until the daemon is the agent's only process.
pub(super) fn settle(agent: &mut Agent) -> Result<()> {
    wait_for("the end of the agent's helpers", LIMIT, PAUSE, || {
        let alone = agent.mark().processes().len() <= 1;
        // Afterwards, so that what was seen to be gone is collected, and counted.
        reap_orphans(agent.pid());
        Ok(alone.then_some(()))
    })
}

/// CPU seconds of the living processes of an agent and of those that they have waited for.
pub(super) fn agents_cpu(agent: &Agent) -> f64 {
    agent
        .mark()
        .processes()
        .iter()
        .filter_map(|(pid, _)| cpu_seconds(*pid))
        .sum()
}

/// CPU seconds of what this process has waited for. While a task runs, that is orphans of agents only.
pub(super) fn own_children_cpu() -> f64 {
    ProcessStat::read("self").map_or(0.0, |stat| stat.children_cpu_seconds())
}

/// Collects ended processes that came to us because their parent ended before them.
fn reap_orphans(known: Option<i32>) {
    let own = std::process::id();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let zombie = ProcessStat::read(&pid.to_string()).is_some_and(|stat| stat.is_zombie_of(own));
        if zombie && Some(pid) != known {
            let _status = waitpid(Pid::from_raw(pid), WaitOptions::NOHANG);
        }
    }
}
