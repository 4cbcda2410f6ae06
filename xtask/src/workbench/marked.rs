//! Finding every process that descends from one we started, also when it has detached itself.
//!
//! Agents put their runners into sessions of their own, so neither the process tree nor the process group
//! shows all of them. A variable in the environment does: it is inherited by everything.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

const VARIABLE: &str = "CLEARML_WORKBENCH_MARK";

/// A mark in the environment of a process and of everything it starts.
#[derive(Clone, Debug)]
pub struct Mark(String);

impl Mark {
    /// A mark that nobody else carries.
    #[must_use]
    pub fn new() -> Self {
        Self(clearml_support::id::hex32())
    }

    /// The variable to set for the first process.
    #[must_use]
    pub fn variable(&self) -> (&'static str, &str) {
        (VARIABLE, &self.0)
    }

    /// The living processes that carry the mark, with their command lines.
    #[must_use]
    pub fn processes(&self) -> Vec<(i32, String)> {
        let wanted = format!("{VARIABLE}={}", self.0);
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| {
                let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else {
                    return false;
                };
                environment
                    .split(|byte| *byte == 0)
                    .any(|variable| variable == wanted.as_bytes())
            })
            .map(|pid| (pid, command_line(pid)))
            .collect()
    }

    /// The proportional memory of all marked processes in bytes.
    #[must_use]
    pub fn proportional_memory(&self) -> u64 {
        self.processes()
            .iter()
            .filter_map(|(pid, _)| proportional_memory(*pid))
            .sum()
    }

    /// Kills every marked process, and again until none is left.
    pub fn kill_all(&self) {
        for _ in 0..50 {
            let processes = self.processes();
            if processes.is_empty() {
                return;
            }
            for (pid, _) in processes {
                send(pid, Signal::KILL);
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

impl Default for Mark {
    fn default() -> Self {
        Self::new()
    }
}

/// Sends a signal; a process that is gone already is fine.
pub(crate) fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _gone = kill_process(pid, signal);
    }
}

fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes)
        .replace('\0', " ")
        .trim_end()
        .to_owned()
}

pub(crate) fn proportional_memory(pid: i32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The CPU seconds of a process and of all its children that it has waited for.
///
/// The kernel shows these in ticks of 10 ms. An idle process uses less than one, so what its living threads have
/// used, which is known exactly, counts where it is more.
#[must_use]
pub fn cpu_seconds(pid: i32) -> Option<f64> {
    let stat = ProcessStat::read(&pid.to_string())?;
    Some(stat.ticks(11..13).max(threads_cpu_seconds(pid)) + stat.ticks(13..15))
}

fn threads_cpu_seconds(pid: i32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let nanoseconds = threads.filter_map(|thread| {
        let statistics = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        statistics.split(' ').next()?.parse::<u64>().ok()
    });
    std::time::Duration::from_nanos(nanoseconds.sum()).as_secs_f64()
}

/// What proc(5) `stat` says about one process.
pub(crate) struct ProcessStat {
    /// The fields after the command name; the first one is the state.
    fields: Vec<String>,
}

impl ProcessStat {
    /// Reads it for a process id or `self`; none when the process is gone.
    pub(crate) fn read(process: &str) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The command name is in parentheses and may hold blanks.
        let fields = stat[stat.rfind(')')? + 1..]
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        Some(Self { fields })
    }

    /// Whether the process has ended and waits to be collected by `parent`.
    pub(crate) fn is_zombie_of(&self, parent: u32) -> bool {
        let is = |index: usize, text: &str| self.fields.get(index).is_some_and(|field| field == text);
        is(0, "Z") && is(1, &parent.to_string())
    }

    /// CPU seconds of the children that the process has waited for.
    pub(crate) fn children_cpu_seconds(&self) -> f64 {
        self.ticks(13..15)
    }

    /// The sum of fields that count clock ticks, in seconds.
    fn ticks(&self, range: std::ops::Range<usize>) -> f64 {
        let fields = self.fields.get(range).unwrap_or_default();
        let ticks: u64 = fields.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
        #[expect(
            clippy::cast_precision_loss,
            reason = "clock ticks of a process stay far below 2^52"
        )]
        let seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        seconds
    }
}
