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

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

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
        most("end of job to status, told by the agent", "s", 2.0),
        most("end of job to status, told by the glue", "s", longest),
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
    if wants("submissions") || wants("steady") {
        bench.submissions()?;
        bench.steady()?;
    }
    if wants("memory") {
        bench.memory()?;
    }
    if wants("end") {
        bench.ends()?;
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

    fn submissions(&mut self) -> Result<()> {
        let count = self.effort.submissions;
        step(&format!("Submitting {count} jobs"));
        let template = self.template("held", "#SBATCH --hold", "")?;
        self.queue_tasks(count)?;
        let before = self.calls()?;
        let begun = Instant::now();
        let glue = self.start(&template, "state", None)?;
        self.until_logged("state", "is job", count)?;
        let took = begun.elapsed().as_secs_f64();
        let calls = difference(&before, &self.calls()?);
        glue.stop()?;
        let bare = self.bare_loop(count, &calls)?;
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let rates = (count as f64 / took, count as f64 / bare);
        note(&format!(
            "{:.1} jobs/s, a loop of bare sbatch {:.1}",
            rates.0, rates.1
        ));
        self.add(SUBMISSIONS, took / bare);
        Ok(())
    }

    /// The same calls, and sbatch with a script of the same length.
    fn bare_loop(&self, count: usize, calls: &[(String, u64)]) -> Result<f64> {
        let each: u64 = calls.iter().map(|(_, count)| count).sum();
        note(&format!(
            "{} calls of the server for each: {calls:?}",
            each / count as u64
        ));
        let spec = TaskSpec::script("print('done')");
        let mut task = self.api.create_task("bare", &spec)?;
        let bare = self.api.create_queue("bare")?;
        let parking = self.api.create_queue("parking")?;
        for _ in 0..count {
            self.api.submit("bare", &spec, &bare)?;
        }
        let script = format!(
            "#!/bin/bash\n#SBATCH --hold\n#SBATCH --output=/dev/null\n#SBATCH --mem=200\n{}exit 0\n",
            "# as long as a script of the glue\n".repeat(150)
        );
        let begun = Instant::now();
        for round in 0..count as u64 {
            for (endpoint, of) in calls {
                // Spread evenly: what is not called once for each task is called for some of them.
                let now = (round + 1) * of / count as u64 - round * of / count as u64;
                for _ in 0..now {
                    self.same_call(endpoint, &mut task, &bare, &parking)?;
                }
            }
            let mut child = self
                .cluster
                .command("sbatch")
                .args(["--parsable", "--job-name", "bare"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()?;
            child
                .stdin
                .take()
                .context("no pipe to sbatch")?
                .write_all(script.as_bytes())?;
            ensure!(child.wait()?.success(), "sbatch failed");
        }
        let took = begun.elapsed().as_secs_f64();
        self.cluster.output("scancel", &["--name", "bare"])?;
        Ok(took)
    }

    fn same_call(&self, endpoint: &str, task: &mut String, queue: &str, parking: &str) -> Result<()> {
        let one = json!({"task": task});
        let (endpoint, body): (&'static str, Value) = match endpoint {
            "queues.get_all" => (
                "queues.get_all",
                json!({"id": [queue], "only_fields": ["id", "name", "entries"], "max_task_entries": 1}),
            ),
            "queues.get_next_task" => {
                let reply = self.api.call("queues.get_next_task", json!({"queue": queue}))?;
                let popped = reply["entry"]["task"].as_str().context("the queue is empty")?;
                popped.clone_into(task);
                return Ok(());
            }
            "queues.get_by_id" => ("queues.get_by_id", json!({"queue": queue})),
            "tasks.get_all" => (
                "tasks.get_all",
                json!({"id": [task], "only_fields": ["id", "status"]}),
            ),
            "tasks.enqueue" => (
                "tasks.enqueue",
                json!({"task": task, "queue": parking, "update_execution_queue": false, "status_reason": "parked"}),
            ),
            "tasks.edit_hyper_params" => (
                "tasks.edit_hyper_params",
                json!({"task": task, "hyperparams": [
                    {"section": "properties", "name": "slurm-job-id", "value": "1"},
                    {"section": "properties", "name": "slurm-cluster", "value": "lab"},
                    {"section": "properties", "name": "slurm-queue", "value": "bench"},
                ]}),
            ),
            "tasks.edit" | "tasks.edit_runtime" | "tasks.update" => (
                "tasks.edit",
                json!({"task": task, "runtime": {"_slurm_job": "lab/1"}, "force": true}),
            ),
            "events.add_batch" | "events.add" => (
                "events.add",
                json!({"type": "log", "task": task, "level": "info", "msg": "Slurm job 1 submitted", "worker": GLUE}),
            ),
            _ => ("tasks.get_by_id", one),
        };
        self.api.call(endpoint, body).map(drop)
    }

    /// What is called while nothing changes.
    fn steady(&mut self) -> Result<()> {
        let count = self.effort.steady;
        step(&format!("Letting {count} jobs wait"));
        let template = self.template("held", "#SBATCH --hold", "")?;
        let more = count.saturating_sub(self.effort.submissions);
        self.queue_tasks(more)?;
        let bin = self.run.join("bin");
        let calls = self.run.join("commands");
        fs::create_dir(&bin)?;
        for program in ["sbatch", "squeue", "sacct", "scontrol", "scancel", "getent"] {
            let path = bin.join(program);
            let text = format!(
                "#!/bin/sh\necho {program} >> {}\nexec /usr/bin/{program} \"$@\"\n",
                calls.display()
            );
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        let glue = self.start(&template, "state", Some(&bin))?;
        self.until_logged("state", "is job", more)?;
        // Every task hears once that its job waits.
        let mut quiet = 0;
        let mut before = Value::Null;
        while quiet < 2 {
            std::thread::sleep(Duration::from_secs(PERIOD));
            let now = self.calls()?;
            let writes: Vec<_> = now
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(name, _)| {
                    name.starts_with("events.") || name.contains("edit") || name.contains("update")
                })
                .map(|(_, count)| count.clone())
                .collect();
            let now = json!(writes);
            quiet = if now == before { quiet + 1 } else { 0 };
            before = now;
        }
        File::create(&calls)?;
        let begun = Instant::now();
        std::thread::sleep(Duration::from_secs(PERIOD) * self.effort.periods);
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let periods = (begun.elapsed().as_secs_f64() / PERIOD as f64).ceil();
        let text = fs::read_to_string(&calls)?;
        glue.stop()?;
        let of = |name: &str| text.lines().filter(|line| *line == name).count();
        let (squeue, sacct, all) = (of("squeue"), of("sacct"), text.lines().count());
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let per_period = |count: usize| count as f64 / periods;
        self.add(SQUEUE, per_period(squeue));
        self.add(SACCT, per_period(sacct));
        self.add(OTHERS, per_period(all - squeue - sacct));
        self.cluster.output("scancel", &["--user", "root"])?;
        Ok(())
    }

    fn memory(&mut self) -> Result<()> {
        let count = self.effort.tracked;
        step(&format!("Having {count} jobs taken up"));
        let parking = self.parking()?;
        let script = self.run.join("bare.sh");
        fs::write(
            &script,
            "#!/bin/bash\n#SBATCH --hold\n#SBATCH --output=/dev/null\nexit 0\n",
        )?;
        for index in 0..count {
            let task = self
                .api
                .submit("bench", &TaskSpec::script("print('done')"), &parking)?;
            let comment = format!("--comment=clearml:v1 task={task} glue={GLUE} nonce={index:032x}");
            let name = format!("--job-name=clearml_task_{task}");
            let script = script.to_string_lossy();
            self.cluster
                .output("sbatch", &["--parsable", &name, &comment, &script])?;
        }
        let template = self.template("held", "#SBATCH --hold", "")?;
        let glue = self.start(&template, "adopted", None)?;
        self.until_logged("adopted", "is taken up", count)?;
        // Two complete looks, with their listings.
        std::thread::sleep(Duration::from_secs(PERIOD * 4));
        let mut most: f64 = 0.0;
        for _ in 0..20 {
            most = most.max(glue.memory()?);
            std::thread::sleep(Duration::from_millis(500));
        }
        self.add(MEMORY, most);
        glue.stop()?;
        self.cluster.output("scancel", &["--user", "root"])?;
        Ok(())
    }

    /// The id of the parking queue.
    fn parking(&self) -> Result<String> {
        let query = json!({"name": PARKING, "search_hidden": true, "only_fields": ["id"]});
        let reply = self.api.call("queues.get_all", query)?;
        match reply["queues"][0]["id"].as_str() {
            Some(id) => Ok(id.to_owned()),
            None => self.api.create_queue(PARKING),
        }
    }

    fn ends(&mut self) -> Result<()> {
        step("Ending jobs");
        for (row, state, before) in [
            (END_AGENT, "told", ": nothing"),
            (END_GLUE, "silent", "sleep 1; exit 0"),
        ] {
            let template = self.template(state, "", before)?;
            let glue = self.start(&template, state, None)?;
            for _ in 0..self.effort.ends {
                let seconds = self.end()?;
                self.add(row, seconds);
            }
            glue.stop()?;
        }
        Ok(())
    }

    /// Seconds from the end of a job to the final status of its task; 0 if that came first.
    fn end(&self) -> Result<f64> {
        let task = self
            .api
            .submit("bench", &TaskSpec::script("print('done')"), &self.queue)?;
        let name = format!("--name=clearml_task_{task}");
        let (mut job_ended, mut task_ended) = (None, None);
        let begun = Instant::now();
        while job_ended.is_none() || task_ended.is_none() {
            ensure!(
                begun.elapsed() < Duration::from_secs(180),
                "task {task} has no end"
            );
            if job_ended.is_none() {
                let listing = self
                    .cluster
                    .output("squeue", &["-h", "-t", "all", "-o", "%T", &name])?;
                let is_over = !listing.trim().is_empty()
                    && !listing.contains("PENDING")
                    && !listing.contains("RUNNING")
                    && !listing.contains("CONFIGURING");
                job_ended = is_over.then(Instant::now);
            }
            if task_ended.is_none() && matches!(&*self.api.status(&task)?, "completed" | "failed" | "stopped")
            {
                task_ended = Some(Instant::now());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let (Some(job), Some(task)) = (job_ended, task_ended) else {
            bail!("task {task} has no end");
        };
        Ok(task.saturating_duration_since(job).as_secs_f64())
    }
}

/// How often each endpoint was called between two counts.
fn difference(before: &Value, after: &Value) -> Vec<(String, u64)> {
    let count = |counts: &Value, name: &str| counts[name].as_u64().unwrap_or(0);
    let names = after.as_object().into_iter().flatten();
    names
        .map(|(name, _)| (name.clone(), count(after, name) - count(before, name)))
        .filter(|(name, count)| *count > 0 && !name.starts_with("auth.") && !name.starts_with("workers."))
        .collect()
}
