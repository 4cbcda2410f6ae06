//! `--status`: the tasks that are tracked, from the journal alone.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Result;
use clearml_slurm_glue::journal::{Journal, Phase, Record};
use clearml_support::time::now_ms;
use clearml_task_model::WorkerId;

use crate::background;

pub(crate) fn show(state: &Path, worker: &WorkerId) -> Result<u8> {
    let mut records = if state.is_dir() {
        Journal::open(state, worker)?.all()
    } else {
        Vec::new()
    };
    records.sort_by_key(|record| record.since);
    let mut out = io::stdout().lock();
    let glue = background::running(state).map_or("No glue works", |_| "A glue works");
    let (count, folder) = (records.len(), state.display());
    writeln!(out, "{glue} in {folder}; {count} task(s) are tracked.")?;
    if count > 0 {
        let (task, job, state, user) = ("TASK", "JOB", "STATE", "USER");
        writeln!(out, "{task:32}  {job:>10}  {state:24}  {user:12}  SUBMITTED")?;
    }
    for record in records {
        let task = record.task().as_str();
        let job = record.job().map_or_else(|| "-".to_owned(), |job| job.to_string());
        let (state, user) = (state_of(&record), record.user.as_deref().unwrap_or("-"));
        let submitted = match record.since {
            0 => "-".to_owned(),
            since => ago(now_ms() / 1000 - since),
        };
        writeln!(out, "{task:32}  {job:>10}  {state:24}  {user:12}  {submitted}")?;
    }
    Ok(0)
}

fn state_of(record: &Record) -> &'static str {
    match record.phase {
        Phase::Popping => "being taken",
        Phase::Popped | Phase::Claimed => "taken, not submitted",
        Phase::Submitting => "submitted, no answer yet",
        Phase::Submitted(_) if record.cancelled => "cancelled",
        Phase::Submitted(_) if record.was_active => "running",
        Phase::Submitted(_) => "waiting",
    }
}

fn ago(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{} s ago", seconds.max(0)),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}
