//! `cargo xtask bench slurm`: what the glue costs a cluster and the machine that it runs on.
//!
//! On the cluster of `cargo xtask e2e slurm`, with the embedded server. Jobs are held, so that nothing but the glue
//! and Slurm works while it is measured; the last two rows run theirs.
//!
//! * Submissions: the glue takes tasks from a queue. Then a loop does the same calls of the server, endpoint by
//!   endpoint as often as the server has counted them, and a bare `sbatch` for each. The figure is the ratio of times.
//! * Steady state: programs in `agent.slurm.bin_dir` count what is called while nothing changes.
//! * Memory: jobs that carry the glue's mark are submitted, and a glue without memory takes them up.
//!
//! The result is printed, and written to `target/bench/slurm.json`.

mod ends;
mod steady;
mod submissions;
mod tracked;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::report::{self, Figure};
use crate::e2e::slurm::cluster::{Cluster, missing};
use crate::terminal::{note, step};
use crate::workbench::{AgentKind, Api, LocalServer, TaskSpec, proportional_memory, wait_for};
use crate::workspace;

const GLUE: &str = "bench:slurm";
const PARKING: &str = "slurm_scheduler";
/// Seconds between looks at jobs, and what the glue leaves to the agent, in all rows.
const PERIOD: u64 = 5;
const GRACE: u64 = 5;

/// How much.
struct Effort {
    submissions: usize,
    steady: usize,
    tracked: usize,
    periods: u32,
    ends: usize,
}

const FULL: Effort = Effort {
    submissions: 500,
    steady: 1000,
    tracked: 10_000,
    periods: 6,
    ends: 5,
};
const QUICK: Effort = Effort {
    submissions: 100,
    steady: 200,
    tracked: 1000,
    periods: 3,
    ends: 2,
};

const SUBMISSIONS: usize = 0;
const SQUEUE: usize = 1;
const SACCT: usize = 2;
const OTHERS: usize = 3;
const MEMORY: usize = 4;
const END_AGENT: usize = 5;
const END_GLUE: usize = 6;

fn figures() -> Vec<Figure> {
    #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
    let longest = (PERIOD + GRACE + 2) as f64;
    let most = |name, unit, most| Figure::new(name, unit, 1.0, Some(most));
    vec![
        most("submissions, time by that of bare sbatch", "", 1.0 / 0.8),
        most("steady state, squeue per period", "", 1.0),
        most("steady state, sacct per period", "", 1.0),
        most("steady state, other commands", "", 0.0),
        most("memory with all jobs tracked (PSS)", "MiB", 64.0),
        most("end of job to status at worst, told by the agent", "s", 2.0),
        most("end of job to status at worst, told by the glue", "s", longest),
    ]
}

struct Bench {
    effort: Effort,
    cluster: Cluster,
    server: LocalServer,
    api: Api,
    agent: PathBuf,
    glue: PathBuf,
    run: PathBuf,
    queue: String,
    figures: Vec<Figure>,
}

/// A glue that is killed when dropped.
struct Glue(Child);

impl Drop for Glue {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

impl Glue {
    fn memory(&self) -> Result<f64> {
        let pid = i32::try_from(self.0.id())?;
        let bytes = proportional_memory(pid).context("the glue has ended")?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
        Ok(bytes as f64 / 1024.0 / 1024.0)
    }

    fn stop(mut self) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.0.id())?).context("a process without a number")?;
        kill_process(pid, Signal::TERM)?;
        let status = self.0.wait()?;
        ensure!(status.success(), "the glue ended with {status}");
        Ok(())
    }
}

/// Measures and reports. `executable`: an agent that is built already, with the glue beside it.
///
/// # Errors
///
/// When Slurm is not installed, something cannot be built or started, or a job does not end as it should.
pub fn run(quick: bool, only: Option<&str>, executable: Option<&Path>) -> Result<()> {
    if let Some(reason) = missing() {
        bail!("no cluster can be started here: {reason}");
    }
    let scratch = workspace::target().join("bench");
    let run = scratch.join("slurm");
    if run.exists() {
        fs::remove_dir_all(&run)?;
    }
    fs::create_dir_all(run.join("shared"))?;
    let agent = match executable {
        Some(built) => built
            .canonicalize()
            .with_context(|| format!("finding {}", built.display()))?,
        None => build()?,
    };
    let glue = agent.with_file_name("clearml-agent-slurm");
    ensure!(glue.is_file(), "there is no {}", glue.display());
    step("Starting cluster and server");
    let cluster = Cluster::up(&run.join("cluster"))?;
    let server = LocalServer::start(&agent, &run.join("server"))?;
    let api = server.api()?;
    let queue = api.create_queue("bench")?;
    let effort = if quick { QUICK } else { FULL };
    let mut bench = Bench {
        effort,
        cluster,
        server,
        api,
        agent,
        glue,
        run,
        queue,
        figures: figures(),
    };
    let wants = |row: &str| only.is_none_or(|only| row.contains(only));
    // First, for the others leave tasks in the parking queue, which a glue without memory puts back.
    if wants("end") {
        bench.ends()?;
    }
    if wants("submissions") || wants("steady") {
        bench.submissions()?;
    }
    if wants("steady") {
        bench.steady()?;
    }
    if wants("memory") {
        bench.memory()?;
    }
    bench.figures.retain(Figure::is_measured);
    report::print(&bench.figures);
    let file = scratch.join("slurm.json");
    report::write(&bench.figures, quick, &file)?;
    println!("written to {}", file.display());
    Ok(())
}

fn build() -> Result<PathBuf> {
    step("Building agent and glue with optimisations");
    let status = workspace::cargo()
        .args(["build", "--release", "--package", "clearml-agent-slurm"])
        .status()?;
    ensure!(status.success(), "building clearml-agent-slurm failed ({status})");
    workspace::build_agent(true)
}

impl Bench {
    fn add(&mut self, row: usize, value: f64) {
        note(&format!("{}: {value:.3}", self.figures[row].name()));
        self.figures[row].add(AgentKind::Ours, value);
    }

    /// A template whose jobs have these directives and lines.
    fn template(&self, name: &str, directives: &str, before: &str) -> Result<PathBuf> {
        let path = self.run.join(format!("{name}.sh"));
        let text = format!(
            "#!/bin/bash\n#SBATCH --job-name=clearml_task_${{CLEARML_TASK.id}}\n#SBATCH --output={}/%j.log\n\
             #SBATCH --open-mode=append\n#SBATCH --mem=200\n{directives}\n${{CLEARML_PRE_SETUP}}\n\
             export CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL=1\n{before}\n${{CLEARML_AGENT_EXECUTE}}\n${{CLEARML_POST_SETUP}}\n",
            self.run.display()
        );
        fs::write(&path, text)?;
        Ok(path)
    }

    fn start(&self, template: &Path, state: &str, bin: Option<&Path>) -> Result<Glue> {
        let log = File::create(self.log(state))?;
        let mut command = Command::new(&self.glue);
        command
            .args(["--queue", "bench", "--template-files"])
            .arg(template);
        let mut set = vec![
            "credentials=inline".to_owned(),
            format!("agent_binary={}", self.agent.display()),
            format!("shared_dir={}", self.run.join("shared").display()),
            format!("poll_interval={PERIOD}"),
            "queue_poll_interval=0.2".to_owned(),
            "submission_spacing=0".to_owned(),
            format!("end_grace={GRACE}"),
        ];
        set.extend(bin.map(|bin| format!("bin_dir={}", bin.display())));
        for value in set {
            command.args(["--set", &format!("agent.slurm.{value}")]);
        }
        let child = command
            .arg("--state-dir")
            .arg(self.run.join(state))
            .env("SLURM_CONF", self.cluster.configuration())
            .env("CLEARML_CONFIG_FILE", self.server.config())
            .env("CLEARML_WORKER_NAME", "bench")
            .env("HOME", &self.run)
            .current_dir(&self.run)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting the glue")?;
        Ok(Glue(child))
    }

    fn log(&self, state: &str) -> PathBuf {
        self.run.join(format!("{state}.log"))
    }

    /// Waits until the glue has written so many lines with this text.
    fn until_logged(&self, state: &str, text: &str, count: usize) -> Result<()> {
        wait_for(
            &format!("{count} x {text:?} in the glue's log"),
            Duration::from_secs(1800),
            Duration::from_millis(50),
            || {
                let log = fs::read_to_string(self.log(state))?;
                Ok((log.matches(text).count() >= count).then_some(()))
            },
        )
    }

    fn calls(&self) -> Result<Value> {
        Ok(self.server.calls()?["counts"].take())
    }

    fn queue_tasks(&self, count: usize) -> Result<()> {
        for _ in 0..count {
            self.api
                .submit("bench", &TaskSpec::script("print('done')"), &self.queue)?;
        }
        Ok(())
    }
}
