//! The command that runs when the task is aborted (`CLEARML_AGENT_ABORT_CALLBACK_CMD`).
//!
//! Who becomes the program notes the command together with the program's folder and environment, for nobody but its
//! own user to read. The process that runs the command is started by the agent outside, through the engine.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clearml_support::command::CommandError;
use clearml_support::fs::{read_json, write_json_atomic};
use clearml_support::redact::Redactor;
use serde::{Deserialize, Serialize};

use super::{Failed, Inside};
use crate::execute::silent::say;
use crate::record::{AbortCommand, OsText};
use crate::runner::callback::{program, take};

/// In the run directory of the shim.
const FILE: &str = "callback.json";
/// The exit code that says that the time was over.
pub(crate) const TIMED_OUT: i32 = 124;
/// And that the command could not be run.
const NOT_RUN: i32 = 126;

/// What is to be run, where and how.
#[derive(Serialize, Deserialize)]
struct Callback {
    command: AbortCommand,
    folder: PathBuf,
    environment: Vec<(OsText, OsText)>,
    umask: u32,
}

impl Inside {
    /// Takes the command out of the environment of the program. Returns how many seconds it may take.
    pub(super) fn note_callback(
        &self,
        folder: &Path,
        environment: &mut Vec<(OsText, OsText)>,
    ) -> Result<Option<u64>, Failed> {
        let taken = take(environment).unwrap_or_else(|text| {
            say(&self.run_settings.redactor, &format!("Warning: {text}"));
            None
        });
        let Some(command) = taken else {
            return Ok(None);
        };
        let limit = command.limit_sec;
        let callback = Callback {
            command,
            folder: folder.to_owned(),
            environment: environment.clone(),
            umask: self.given.umask,
        };
        write_json_atomic(&self.run.join(FILE), &callback, 0o600)
            .map_err(|e| Failed::new("infrastructure", e.to_string()))?;
        Ok(Some(limit))
    }
}

/// Runs it to its end. Returns its exit code.
pub(super) fn run(run: &Path, given: &Path, limit: Duration) -> i32 {
    let callback: Callback = match read_json(&run.join(FILE)) {
        Ok(callback) => callback,
        Err(e) => {
            say(&Redactor::new(), &format!("clearml_agent: ERROR: {e}"));
            return NOT_RUN;
        }
    };
    // Without what it takes to know the secrets nothing is shown.
    let redactor = Inside::load(run, given)
        .ok()
        .map(|inside| inside.run_settings.redactor);
    crate::umask::make_public(callback.umask);
    let command = program(&callback.command, &callback.folder, &callback.environment).timeout(limit);
    let shown = redactor.clone().unwrap_or_default();
    let ended = command.redactor(&shown).run_streamed(&mut |line| {
        if redactor.is_some() {
            say(&shown, line);
        }
    });
    match ended {
        Ok(status) => status
            .code()
            .or_else(|| status.signal().map(|signal| 128 + signal))
            .unwrap_or(NOT_RUN),
        Err(CommandError::TimedOut { .. }) => TIMED_OUT,
        Err(e) => {
            say(&shown, &format!("clearml_agent: ERROR: {e}"));
            NOT_RUN
        }
    }
}
