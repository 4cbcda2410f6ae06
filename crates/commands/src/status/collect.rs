//! Reading what there is to see.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use clearml_agent_config::Settings;
use clearml_intake::{Presence, Register};
use clearml_support::process::{ProcessIdentity, Processes, boot_id};
use clearml_support::redact::Redactor;
use clearml_support::time::now_ms;
use clearml_task_runner::glance::{ConsoleGlance, Runs, masks};
use clearml_task_runner::settings::host_name;
use clearml_task_runner::{RunDir, RunRecord};

use super::{
    Container, Details, Ended, Overview, SCHEMA, Task, Trouble, TroubleKind, Worker, memory, trouble,
};

/// So many ended tasks are shown.
const MOST_ENDED: usize = 3;

/// Makes overviews, one after the other.
#[derive(Debug)]
pub struct Collector {
    state_dir: PathBuf,
    register: Register,
    host: String,
    boot: Option<String>,
    /// The secrets of each run; reading them means reading a configuration.
    masks: HashMap<String, Redactor>,
}

impl Collector {
    /// For the agents of this machine that use the state folder of this configuration.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self::at(&settings.agent.state_dir, Register::of_machine())
    }

    /// For this state folder and this register of workers.
    #[must_use]
    pub fn at(state_dir: &Path, register: Register) -> Self {
        Self {
            state_dir: state_dir.to_owned(),
            register,
            host: host_name(),
            boot: boot_id().ok(),
            masks: HashMap::new(),
        }
    }

    /// Looks around.
    pub fn overview(&mut self) -> Overview {
        let mut unreadable = Vec::new();
        let workers = self.workers(&mut unreadable);
        let runs = Runs::of(&self.state_dir).unwrap_or_else(|e| {
            let folder = self.state_dir.join("runs");
            unreadable.push((folder.display().to_string(), e.to_string()));
            Runs::default()
        });
        let processes = Processes::now();
        let tasks: Vec<Task> = runs
            .unfinished()
            .map(|(run, record)| self.task(run, record, &workers, &processes))
            .collect();
        self.masks
            .retain(|run, _| tasks.iter().any(|task| task.run == *run));
        for error in runs.unreadable.iter().map(ToString::to_string) {
            unreadable.push((self.state_dir.join("runs").display().to_string(), error));
        }
        let mut overview = Overview {
            schema: SCHEMA,
            now_ms: now_ms(),
            host: self.host.clone(),
            state_dir: self.state_dir.display().to_string(),
            state_dir_full: is_full(&self.state_dir),
            ended: ended(&runs),
            workers,
            tasks,
            trouble: Vec::new(),
        };
        overview.trouble = trouble::find(&overview);
        overview
            .trouble
            .extend(unreadable.into_iter().map(|(about, what)| Trouble {
                kind: TroubleKind::Unreadable,
                about,
                what,
                advice: "What is shown here may be incomplete.".to_owned(),
            }));
        overview
    }

    /// The daemons that tell about themselves, and those that are only in the register.
    fn workers(&self, unreadable: &mut Vec<(String, String)>) -> Vec<Worker> {
        let mut workers: Vec<Worker> = Presence::living(&self.state_dir)
            .into_iter()
            .map(|presence| Worker {
                pid: presence.process.pid,
                worker: presence.worker,
                details: Some(Details {
                    version: presence.version,
                    started_ms: presence.started_ms,
                    server: presence.server,
                    server_away_since_ms: presence.server_away_since_ms,
                    queues: presence.queues,
                    looked_ms: presence.looked_ms,
                    gpus: presence.gpus,
                    paused: presence.paused,
                    adopts_after_sec: presence.adopts_after_sec,
                }),
            })
            .collect();
        let registered = self.register.instances().unwrap_or_else(|e| {
            unreadable.push((self.register.folder().display().to_string(), e.to_string()));
            Vec::new()
        });
        for instance in registered {
            let known = workers.iter().any(|worker| worker.worker == instance.worker);
            if !known && instance.process().is_some() {
                workers.push(Worker {
                    worker: instance.worker,
                    pid: instance.pid,
                    details: None,
                });
            }
        }
        workers.sort_by(|a, b| a.worker.cmp(&b.worker));
        workers
    }

    fn task(&mut self, run: &RunDir, record: &RunRecord, workers: &[Worker], processes: &Processes) -> Task {
        let here = record.host == self.host || record.host.is_empty();
        let living = |process: &ProcessIdentity| here && process.is_alive();
        let runner = record.runner.as_ref().filter(|runner| living(runner));
        let claim = run.claim().ok().flatten();
        let shim = claim
            .as_ref()
            .map(|claim| &claim.shim)
            .filter(|shim| living(shim));
        let container = run.container().ok().flatten().map(|container| Container {
            name: container.name,
            image: container.image,
        });
        let members = match (shim, runner) {
            // A runner of many has processes of others.
            _ if container.is_some() => Vec::new(),
            (Some(process), _) | (None, Some(process)) => processes.below(process.pid),
            (None, None) => Vec::new(),
        };
        let console = self.console(run, record);
        let abort = run.abort().ok().flatten();
        let station = run
            .timeline()
            .ok()
            .and_then(|timeline| timeline.marks.into_iter().next_back());
        Task {
            task: record.identity.task.clone(),
            run: record.run_id.clone(),
            worker: record.identity.worker.clone(),
            queue: record.identity.queue.clone(),
            queue_name: record.identity.queue.as_ref().and_then(|id| {
                let mut queues = workers
                    .iter()
                    .flat_map(|worker| &worker.details)
                    .flat_map(|details| &details.queues);
                Some(queues.find(|queue| queue.id == *id)?.name.clone())
            }),
            phase: record.phase,
            station_ms: station.as_ref().map(|mark| mark.ms),
            station: station.map(|mark| mark.name),
            created_ms: record.created_ms,
            elsewhere: (!here).then(|| record.host.clone()),
            earlier_boot: here && self.boot.as_ref().is_some_and(|boot| *boot != record.boot_id),
            runner_pid: runner.map(|runner| runner.pid),
            program_pid: shim.and(members.first().copied()),
            container,
            processes: members.len(),
            memory_bytes: memory::of(&members),
            console_waiting_bytes: console.waiting_bytes,
            console_taken_ms: console.taken_ms,
            console_written_ms: console.written_ms,
            last_line: console.last_line,
            stopping: abort.as_ref().map(|abort| abort.reason),
            stopping_since_ms: abort.map(|abort| abort.decided_ms),
        }
    }

    /// A console that can't be read just now is one of which nothing is known.
    fn console(&mut self, run: &RunDir, record: &RunRecord) -> ConsoleGlance {
        if !self.masks.contains_key(&record.run_id)
            && let Some(known) = masks(run)
        {
            self.masks.insert(record.run_id.clone(), known);
        }
        ConsoleGlance::of(run, self.masks.get(&record.run_id)).unwrap_or_default()
    }
}

/// Whether there is no room for even a few small files. What can't be asked is not known to be full.
fn is_full(folder: &Path) -> bool {
    const LEAST: u64 = 256 << 10;
    rustix::fs::statvfs(folder).is_ok_and(|space| {
        let blocks = if rustix::process::geteuid().is_root() {
            space.f_bfree
        } else {
            space.f_bavail
        };
        blocks.saturating_mul(space.f_frsize) < LEAST || (space.f_files > 0 && space.f_ffree == 0)
    })
}

fn ended(runs: &Runs) -> Vec<Ended> {
    let mut ended: Vec<Ended> = runs
        .readable
        .iter()
        .filter(|(_, record)| record.phase.is_final())
        .map(|(run, record)| {
            let outcome = record.outcome.as_ref();
            Ended {
                task: record.identity.task.clone(),
                worker: record.identity.worker.clone(),
                end: outcome.map(|outcome| outcome.end),
                reason: outcome
                    .map(|outcome| outcome.status_reason.clone())
                    .filter(|reason| !reason.is_empty()),
                exit_code: outcome.and_then(|outcome| outcome.exit_code),
                ended_ms: run.verdict().ok().flatten().map(|verdict| verdict.finished_ms),
            }
        })
        .collect();
    ended.reverse();
    ended.truncate(MOST_ENDED);
    ended
}
