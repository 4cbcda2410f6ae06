//! After the storm: whether everything is as it has to be.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clearml_task_runner::{Phase, RunStore};
use serde_json::Value;

use super::job::{Action, Job, Program};
use crate::workbench::Api;

/// How many finished runs a daemon keeps for people.
const KEPT_RUNS: usize = 20;

/// How long a run that was being made when its daemon died may be left.
const MAKING: Duration = Duration::from_secs(240);

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) violations: Vec<String>,
    /// Tasks by status.
    pub(super) statuses: BTreeMap<String, usize>,
    /// Console lines of the programs that the server has.
    pub(super) lines: usize,
    /// Console lines that a full disk has swallowed, as the consoles say.
    pub(super) dropped: u64,
}

impl Findings {
    fn wrong(&mut self, job: &Job, what: &str) {
        self.violations.push(format!(
            "task {} ({:?}, {:?}): {what}",
            job.id, job.program.kind, job.story
        ));
    }
}

/// One task as the server has it at the end.
struct Seen {
    status: String,
    reason: String,
    console: String,
}

/// Looks at every task. `disk` says that an agent's disk was full for some time.
pub(super) fn tasks(api: &Api, jobs: &[Job], disk: bool, findings: &mut Findings) -> Result<()> {
    for job in jobs {
        let seen = match api.task(&job.id) {
            Ok(task) => Some(Seen {
                status: text(&task, "status"),
                reason: text(&task, "status_reason"),
                console: api.console(&job.id)?,
            }),
            Err(_) if job.may_be_gone() => None,
            Err(e) => return Err(e),
        };
        let status = seen.as_ref().map_or("deleted", |seen| seen.status.as_str());
        *findings.statuses.entry(status.to_owned()).or_default() += 1;
        let (starts, _) = job.program.witnessed();
        if starts > 1 {
            findings.wrong(job, &format!("its program was started {starts} times"));
        }
        let Some(seen) = seen else { continue };
        if job.actions.last() == Some(&Action::Delete) {
            findings.wrong(job, "it was deleted and is there");
        }
        ended(job, &seen, disk, findings);
        console(job, &seen, disk, findings);
    }
    Ok(())
}

fn text(task: &Value, field: &str) -> String {
    task[field].as_str().unwrap_or_default().to_owned()
}

/// Whether status and reason are those that the program and the history of actions demand.
fn ended(job: &Job, seen: &Seen, disk: bool, findings: &mut Findings) {
    let program = job.second.as_ref().unwrap_or(&job.program);
    let (starts, ends) = program.witnessed();
    let (status, reason) = program.natural_end();
    let natural = seen.status == status && seen.reason == reason && starts == 1 && ends == 1;
    let lost =
        job.supervisor_killed && seen.status == "failed" && seen.reason.starts_with("infrastructure: ");
    // What can't be written can't be set up; then nothing was begun, and the reason says why.
    let no_space =
        disk && seen.status == "failed" && starts == 0 && seen.reason.contains("No space left on device");
    let lost = lost || no_space;
    let right = match job.actions.last() {
        None => natural || lost,
        // Whichever came first: the wish to stop, or the end of the program.
        Some(Action::Abort) => natural || lost || (seen.status == "stopped" && starts <= 1),
        Some(Action::Again) => natural || lost,
        Some(Action::Reset) => seen.status == "created",
        Some(Action::Delete) => true,
        Some(Action::Tried) => natural || lost || matches!(seen.status.as_str(), "created" | "stopped"),
    };
    if !right {
        findings.wrong(
            job,
            &format!(
                "status {:?}, reason {:?}; wanted {status:?}, {reason:?} after {:?}; begun {starts} times, ended \
                 {ends} times, supervisor killed: {}; console:\n{}",
                seen.status,
                seen.reason,
                job.actions,
                job.supervisor_killed,
                tail(&seen.console)
            ),
        );
    }
}

/// Whether the console has the lines of the program, in order, none twice, none lost.
fn console(job: &Job, seen: &Seen, disk: bool, findings: &mut Findings) {
    // The lines of a run that was reset go with it, and what it prints before it is stopped comes after.
    if job
        .actions
        .iter()
        .any(|action| matches!(action, Action::Reset | Action::Again | Action::Tried))
    {
        return;
    }
    let numbers: Vec<u64> = seen.console.lines().filter_map(number).collect();
    findings.lines += numbers.len();
    if !numbers.windows(2).all(|pair| pair[0] < pair[1]) {
        findings.wrong(job, &format!("lines are doubled or out of order: {numbers:?}"));
    }
    let printed = match job.program.witnessed() {
        (1, 1) if !job.supervisor_killed => job.program.lines,
        // Stopped somewhere: what came before that is there without a gap.
        _ => numbers.last().map_or(0, |last| last + 1),
    };
    let missing = printed.saturating_sub(numbers.len() as u64);
    if missing == 0 {
        return;
    }
    let told = dropped(&seen.console);
    findings.dropped += told;
    if !disk || told == 0 {
        let last = tail(&seen.console);
        findings.wrong(
            job,
            &format!("{missing} of {printed} lines are missing and {told} are told to be; console:\n{last}"),
        );
    }
}

fn number(line: &str) -> Option<u64> {
    let digits = line.strip_prefix("out: ")?.strip_suffix(" .")?;
    (digits.len() == 5).then(|| digits.parse().ok())?
}

/// How many lines the console says to be missing.
fn dropped(console: &str) -> u64 {
    console
        .lines()
        .filter(|line| line.contains(" of output are missing"))
        .filter_map(|line| line.strip_prefix("### ")?.split(' ').next()?.parse::<u64>().ok())
        // A piece of a line counts as none.
        .map(|lines| lines.max(1))
        .sum()
}

fn tail(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// Whether one of these folders of agents has a run that has not come to its end.
pub(super) fn has_open_runs(states: &[PathBuf]) -> Result<bool> {
    for state in states {
        for run in RunStore::open(state)?.list()? {
            // One that is removed at this moment is not open.
            if run.record().is_ok_and(|record| is_open(record.phase)) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn is_open(phase: Phase) -> bool {
    !matches!(phase, Phase::Done | Phase::Abandoned)
}

/// Whether the folders of an agent hold nothing but the records of finished runs.
pub(super) fn folders(state: &Path, findings: &mut Findings) -> Result<()> {
    let runs = RunStore::open(state)?.list()?;
    if runs.len() > KEPT_RUNS + 1 {
        findings
            .violations
            .push(format!("{} runs are kept in {}", runs.len(), state.display()));
    }
    for run in runs {
        let record = run.record()?;
        let open = is_open(record.phase);
        let left: Vec<_> = ["console", "env", "config.json", "inputs.json", "launch.json"]
            .into_iter()
            .filter(|name| run.path().join(name).exists())
            .collect();
        if open || !left.is_empty() {
            findings.violations.push(format!(
                "run {} of task {} is {:?} and has {left:?}",
                run.path().display(),
                record.identity.task,
                record.phase
            ));
        }
    }
    for entry in fs::read_dir(state.join("runs"))?.flatten() {
        // One that somebody died over goes when a run has ended after that.
        let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
        let name = entry.file_name();
        let dying = name.as_encoded_bytes().starts_with(b".new-") && age < MAKING;
        if name.as_encoded_bytes().starts_with(b".") && !dying {
            findings
                .violations
                .push(format!("{} was left", entry.path().display()));
        }
    }
    Ok(())
}

/// Processes of programs that should be gone.
pub(super) fn processes<'a>(programs: impl Iterator<Item = &'a Program>, findings: &mut Findings) {
    let tags: Vec<&str> = programs.map(|program| program.tag.as_str()).collect();
    for (pid, command) in running() {
        if tags.iter().any(|tag| command.contains(tag)) {
            findings
                .violations
                .push(format!("process {pid} of a task is left: {command}"));
        }
    }
}

fn running() -> Vec<(i32, String)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let bytes = fs::read(entry.path().join("cmdline")).ok()?;
            Some((pid, String::from_utf8_lossy(&bytes).replace('\0', " ")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::job::Kind;
    use super::*;

    fn job(folder: &Path, witness: &str, actions: &[Action]) -> Job {
        let path = folder.join("witness");
        fs::write(&path, witness).unwrap();
        Job {
            id: "t".into(),
            program: program(path),
            actions: actions.to_vec(),
            story: Vec::new(),
            second: None,
            supervisor_killed: false,
        }
    }

    fn program(witness: PathBuf) -> Program {
        Program {
            kind: Kind::Steady,
            lines: 3,
            code: 0,
            witness,
            tag: "86400.1".into(),
        }
    }

    fn violations(job: &Job, status: &str, reason: &str, lines: &[u64]) -> usize {
        let mut findings = Findings::default();
        let seen = Seen {
            status: status.into(),
            reason: reason.into(),
            console: lines.iter().map(|n| format!("out: {n:05} .\n")).collect(),
        };
        ended(job, &seen, false, &mut findings);
        console(job, &seen, false, &mut findings);
        findings.violations.len()
    }

    #[test]
    fn the_audit_sees_what_is_lost_doubled_reordered_or_ended_wrongly() {
        let folder = tempfile::tempdir().unwrap();
        let done = "worker execution done";
        let plain = job(folder.path(), "se", &[]);
        assert_eq!(violations(&plain, "completed", done, &[0, 1, 2]), 0);
        for lines in [&[0, 1][..], &[0, 0, 1, 2], &[0, 2, 1], &[]] {
            assert_eq!(violations(&plain, "completed", done, lines), 1, "{lines:?}");
        }
        assert_eq!(violations(&plain, "stopped", "", &[0, 1, 2]), 1);
        assert_eq!(violations(&plain, "failed", "infrastructure: x", &[0, 1, 2]), 1);
        let killed = Job {
            supervisor_killed: true,
            ..plain
        };
        assert_eq!(violations(&killed, "failed", "infrastructure: x", &[0]), 0);

        let aborted = job(folder.path(), "s", &[Action::Abort]);
        assert_eq!(violations(&aborted, "stopped", "", &[0, 1]), 0);
        assert_eq!(violations(&aborted, "stopped", "", &[0, 2]), 1);
        assert_eq!(violations(&aborted, "completed", done, &[0, 1]), 1);
        let reset = job(folder.path(), "se", &[Action::Reset]);
        assert_eq!(violations(&reset, "created", "", &[]), 0);
        assert_eq!(violations(&reset, "completed", done, &[0, 1, 2]), 1);
        let twice = job(folder.path(), "sese", &[]);
        assert_eq!(violations(&twice, "completed", done, &[0, 1, 2]), 1);
    }
}
