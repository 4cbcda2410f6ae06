//! `cargo xtask e2e chaos`: an embedded server, several agents and many small tasks, while processes are killed,
//! stopped and continued, connections cut and delayed, a disk filled, and tasks aborted, reset, put into the queue
//! again and deleted. Then everything calms down, and an audit says whether each task ended once, with the status
//! that its program and the history of actions demand, its console complete and in order, and nothing left behind.

mod audit;
mod dice;
mod job;
mod machine;
mod proxy;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use clearml_support::lock::FileLock;
use clearml_support::time::now_ms;

use crate::terminal::{duration, green, note, red, step};
use crate::workbench::{Api, wait_for};
use crate::workspace;
use audit::Findings;
use dice::Dice;
use job::{Action, Job, PAUSE, Program};
use machine::Machine;

/// How many agents serve the queue.
const AGENTS: usize = 3;
/// So many tasks wait at all times.
const WAITING: usize = 4;
/// How long the tasks may take to end when everything works again.
const CALM: Duration = Duration::from_secs(240);

/// What a campaign is like.
#[derive(Clone, Debug)]
pub struct Options {
    /// The executable of the agent.
    pub executable: PathBuf,
    /// Where everything is kept; emptied first, and left for people when something was wrong.
    pub scratch: PathBuf,
    /// How long the storm lasts.
    pub storm: Duration,
    /// The choices depend on it.
    pub seed: u64,
}

/// What `cargo xtask e2e chaos` does.
///
/// # Errors
///
/// When the audit finds something, or the scene can't be set.
pub fn run(minutes: f64, seed: Option<u64>, executable: Option<PathBuf>) -> Result<()> {
    let executable = match executable {
        Some(executable) => executable,
        None => {
            step("Building the agent");
            workspace::build_agent(false)?
        }
    };
    let clock = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    campaign(&Options {
        executable,
        scratch: workspace::target().join("chaos"),
        storm: Duration::from_secs_f64(minutes.max(0.1) * 60.0),
        seed: seed.unwrap_or(clock),
    })
}

/// One campaign with its audit.
///
/// # Errors
///
/// As [`run`]; the message names everything that was found.
pub fn campaign(options: &Options) -> Result<()> {
    let begun = Instant::now();
    let lock = options.scratch.with_extension("lock");
    let held = FileLock::try_acquire(&lock).with_context(|| format!("locking {}", lock.display()))?;
    ensure!(
        held.is_some(),
        "another storm uses {}; wait for its end",
        options.scratch.display()
    );
    machine::clear(&options.scratch)?;
    fs::create_dir_all(options.scratch.join("witnesses"))?;
    step(&format!(
        "Storm of {} with seed {}",
        duration(options.storm),
        options.seed
    ));
    // The build folder may change meanwhile.
    let executable = options.scratch.join("clearml-agent");
    fs::copy(&options.executable, &executable)
        .with_context(|| format!("copying {}", options.executable.display()))?;
    let machine = Machine::start(&executable, &options.scratch, AGENTS, options.seed)?;
    if machine.disk.is_none() {
        note("no disk is filled: this user may not mount a file system");
    }
    let mut storm = Storm {
        machine,
        dice: Dice::new(options.seed),
        jobs: Vec::new(),
        figures: BTreeMap::new(),
        witnesses: options.scratch.join("witnesses"),
        name: format!("{:06}", options.seed % 1_000_000),
        weather_until: None,
        disk_until: None,
    };
    let rages = storm.rage(options.storm);
    step("Calm; waiting for the tasks to end");
    storm.calm();
    rages?;
    let mut findings = Findings::default();
    storm.wait_for_ends(&mut findings)?;
    storm.look(&mut findings)?;
    storm.report(&findings, begun.elapsed());
    ensure!(
        findings.violations.is_empty(),
        "{} violations; seed {}, everything is kept in {}:\n{}",
        findings.violations.len(),
        options.seed,
        options.scratch.display(),
        findings.violations.join("\n")
    );
    Ok(())
}

struct Storm {
    machine: Machine,
    dice: Dice,
    jobs: Vec<Job>,
    figures: BTreeMap<&'static str, u64>,
    witnesses: PathBuf,
    /// Six digits, part of the names of processes.
    name: String,
    weather_until: Option<Instant>,
    disk_until: Option<Instant>,
}

impl Storm {
    fn rage(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.submit()?;
            let pause = self.dice.millis(u64::try_from(PAUSE.as_millis())?);
            sleep(pause);
            self.clear_up();
            match self.dice.below(20) {
                0 | 1 => self.kill_daemon()?,
                2..=5 => self.kill("runner"),
                6 => self.kill("shim"),
                7 => self.kill_server()?,
                8..=11 => self.stop_for_a_while(),
                12..=14 => self.change_weather(),
                15 => self.fill_disk()?,
                _ => self.act()?,
            }
        }
        Ok(())
    }

    fn count(&mut self, what: &'static str) {
        *self.figures.entry(what).or_default() += 1;
    }

    fn submit(&mut self) -> Result<()> {
        while self.machine.api.waiting(&self.machine.queue)?.len() < WAITING {
            let program = self.program();
            let name = format!("chaos {}", self.jobs.len());
            let id = self
                .machine
                .api
                .submit(&name, &program.spec(), &self.machine.queue)?;
            self.jobs.push(Job {
                id,
                program,
                actions: Vec::new(),
                story: Vec::new(),
                second: None,
                supervisor_killed: false,
            });
        }
        Ok(())
    }

    fn program(&mut self) -> Program {
        let number = 2 * self.jobs.len();
        Program::roll(&mut self.dice, &self.witnesses, &self.name, number)
    }

    fn kill_daemon(&mut self) -> Result<()> {
        let index = usize::try_from(self.dice.below(AGENTS as u64))?;
        self.count("daemons killed");
        self.machine.agents[index].kill();
        sleep(self.dice.millis(500));
        self.machine.agents[index].start_again()
    }

    fn kill_server(&mut self) -> Result<()> {
        self.count("servers killed");
        self.machine.server.kill();
        sleep(self.dice.millis(1500));
        self.machine.server.start_again()
    }

    fn kill(&mut self, role: &'static str) {
        let found = self.machine.processes(role);
        let Some((pid, task)) = self.dice.pick(&found).cloned() else {
            return;
        };
        if role == "shim" {
            // Noted first: it is what the audit has to allow for.
            for job in self.jobs.iter_mut().filter(|job| job.id == task) {
                job.supervisor_killed = true;
            }
            self.count("supervisors killed");
        } else {
            self.count("runners killed");
        }
        send(pid, Signal::KILL);
    }

    /// Stops one process with SIGSTOP, and continues it.
    fn stop_for_a_while(&mut self) {
        let mut pids: Vec<i32> = self
            .machine
            .agents
            .iter()
            .filter_map(|agent| agent.pid())
            .collect();
        pids.extend(self.machine.server.pid());
        for role in ["runner", "shim"] {
            pids.extend(self.machine.processes(role).into_iter().map(|(pid, _)| pid));
        }
        let Some(pid) = self.dice.pick(&pids).copied() else {
            return;
        };
        self.count("processes stopped and continued");
        send(pid, Signal::STOP);
        sleep(self.dice.millis(1500));
        send(pid, Signal::CONT);
    }

    fn change_weather(&mut self) {
        self.count("changes of weather");
        let weather = &self.machine.proxy.weather;
        let millis = match self.dice.below(3) {
            0 => {
                weather.set(0, 0, true);
                1500
            }
            1 => {
                weather.set(250, 0, false);
                3000
            }
            _ => {
                weather.set(20, 12, false);
                3000
            }
        };
        self.weather_until = Some(Instant::now() + self.dice.millis(millis));
    }

    fn fill_disk(&mut self) -> Result<()> {
        let Some(disk) = &self.machine.disk else {
            return Ok(());
        };
        disk.fill()?;
        self.disk_until = Some(Instant::now() + self.dice.millis(3000));
        self.count("times the disk was full");
        Ok(())
    }

    fn clear_up(&mut self) {
        let over = |until: &mut Option<Instant>| {
            let over = until.is_some_and(|until| Instant::now() >= until);
            if over {
                *until = None;
            }
            over
        };
        if over(&mut self.weather_until) {
            self.machine.proxy.weather.set(0, 0, false);
        }
        if over(&mut self.disk_until)
            && let Some(disk) = &self.machine.disk
        {
            disk.free();
        }
    }

    /// A person does something to one of the latest tasks that has not ended.
    fn act(&mut self) -> Result<()> {
        let first = self.jobs.len().saturating_sub(10);
        let candidates: Vec<usize> = (first..self.jobs.len())
            .filter(|index| self.jobs[*index].actions.is_empty())
            .collect();
        let Some(&index) = self.dice.pick(&candidates) else {
            return Ok(());
        };
        let id = self.jobs[index].id.clone();
        let api = &self.machine.api;
        let status = api.status(&id)?;
        if !matches!(status.as_str(), "queued" | "in_progress") {
            return Ok(());
        }
        let (action, what) = match self.dice.below(8) {
            0..=3 => (Action::Abort, "tasks aborted"),
            4 => (Action::Reset, "tasks reset"),
            5 | 6 => (Action::Again, "tasks put into the queue again"),
            _ => (Action::Delete, "tasks deleted"),
        };
        let asked = now_ms();
        let (action, answer) = ask(api, &id, action)?;
        let story = format!("{asked} to {}: {status}, {what}: {answer}, {action:?}", now_ms());
        self.jobs[index].story.push(story);
        if action == Action::Again {
            let number = 2 * index + 1;
            let program = Program::roll(&mut self.dice, &self.witnesses, &self.name, number);
            let edit = json!({"task": id, "force": true, "script": program.spec().script});
            api.call("tasks.edit", edit)?;
            if api.enqueue(&id, &self.machine.queue).is_err() {
                ensure!(
                    api.status(&id)? != "created",
                    "task {id} can't be put into the queue"
                );
            }
            self.jobs[index].second = Some(program);
        }
        self.jobs[index].actions.push(action);
        self.count(match action {
            Action::Tried => "wishes refused, or their answers lost",
            _ => what,
        });
        Ok(())
    }

    fn calm(&mut self) {
        self.machine.proxy.weather.set(0, 0, false);
        if let Some(disk) = &self.machine.disk {
            disk.free();
        }
    }

    fn wait_for_ends(&mut self, findings: &mut Findings) -> Result<()> {
        let api = &self.machine.api;
        let deadline = Instant::now() + CALM;
        for job in &self.jobs {
            let left = deadline.saturating_duration_since(Instant::now());
            let ended = wait_for("its end", left, Duration::from_millis(100), || {
                let status = match api.status(&job.id) {
                    Err(_) if job.may_be_gone() => return Ok(Some(())),
                    status => status?,
                };
                let open = matches!(status.as_str(), "queued" | "in_progress");
                Ok((!open).then_some(()))
            });
            if let Err(e) = ended {
                let status = api.status(&job.id)?;
                findings
                    .violations
                    .push(format!("task {} ({:?}) is {status}: {e:#}", job.id, job.actions));
            }
        }
        // The server knows the end of a task before its run is cleaned up. A pop whose answer got lost right before
        // its daemon died is looked at by another one after a time, which then waits for a late arrival.
        let idle = wait_for(
            "the end of all runs",
            Duration::from_secs(120),
            Duration::from_millis(200),
            || {
                let busy = ["runner", "shim"]
                    .iter()
                    .any(|role| !self.machine.processes(role).is_empty());
                Ok((!busy && !audit::has_open_runs(&self.machine.states)?).then_some(()))
            },
        );
        if let Err(e) = idle {
            findings.violations.push(format!("{e:#}"));
        }
        Ok(())
    }

    fn look(&mut self, findings: &mut Findings) -> Result<()> {
        for agent in &mut self.machine.agents {
            if let Err(e) = agent.stop() {
                findings.violations.push(format!("a daemon does not end: {e:#}"));
            }
            for (pid, command) in agent.mark().processes() {
                findings
                    .violations
                    .push(format!("process {pid} is left: {command}"));
            }
        }
        audit::processes(
            self.jobs
                .iter()
                .flat_map(|job| [&job.program].into_iter().chain(&job.second)),
            findings,
        );
        audit::tasks(
            &self.machine.api,
            &self.jobs,
            self.machine.disk.is_some(),
            findings,
        )?;
        for state in &self.machine.states {
            audit::folders(state, findings)?;
        }
        Ok(())
    }

    fn report(&self, findings: &Findings, time: Duration) {
        for violation in &findings.violations {
            println!("{} {violation}", red("violation:"));
        }
        step("Figures");
        note(&format!("{} tasks in {}", self.jobs.len(), duration(time)));
        for (status, count) in &findings.statuses {
            note(&format!("{count} ended {status}"));
        }
        for (what, count) in &self.figures {
            note(&format!("{count} {what}"));
        }
        note(&format!(
            "{} connections cut or refused",
            self.machine.proxy.weather.broken()
        ));
        note(&format!(
            "{} console lines looked at; {} dropped while the disk was full, and told",
            findings.lines, findings.dropped
        ));
        let verdict = format!("{} violations", findings.violations.len());
        note(&if findings.violations.is_empty() {
            green(&verdict)
        } else {
            red(&verdict)
        });
    }
}

/// Asks the server for that, and says what it counts as, and what the server has answered.
fn ask(api: &Api, id: &str, action: Action) -> Result<(Action, String)> {
    let body = json!({"task": id, "force": true});
    let answer = match action {
        Action::Abort => api.call("tasks.stop", json!({"task": id})),
        Action::Delete => api.call("tasks.delete", body),
        _ => api.call("tasks.reset", body),
    };
    let action = match (action, &answer) {
        (Action::Abort, _) => Action::Abort,
        // Since the look it may have got a status from which the server does not do that.
        (_, Err(_)) => Action::Tried,
        // The audit says so when it is none in the end.
        (Action::Again, Ok(_)) if api.status(id)? != "created" => Action::Reset,
        (action, Ok(_)) => action,
    };
    Ok((
        action,
        answer.map_or_else(|e| format!("{e:#}"), |_| "done".to_owned()),
    ))
}

fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended by itself meanwhile.
        let _gone = kill_process(pid, signal);
    }
}
