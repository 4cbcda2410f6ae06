//! The tasks that run meanwhile, and what each of them does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::dice::Dice;
use crate::workbench::TaskSpec;

/// What a program does besides printing numbered lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Prints everything at once.
    Burst,
    /// Prints now and then.
    Steady,
    /// Leaves processes behind that have changed session and environment.
    Orphans,
    /// Ignores SIGTERM.
    Stubborn,
    /// Ends by a signal of its own.
    Signal,
}

/// What a person did to a task. What the server said about it was "done".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Abort,
    Reset,
    /// Reset, given another program, and put into a queue again.
    Again,
    Delete,
    /// Something that the server has not confirmed: it was done, or not.
    Tried,
}

/// One task of the campaign.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) id: String,
    pub(super) program: Program,
    /// What came later, oldest first.
    pub(super) actions: Vec<Action>,
    /// When they came, in milliseconds since 1970, and what the server said before and to them.
    pub(super) story: Vec<String>,
    /// The program that it was given with [`Action::Again`].
    pub(super) second: Option<Program>,
    /// Its process supervisor was killed, so nobody knows how the program ended.
    pub(super) supervisor_killed: bool,
}

impl Job {
    /// Whether somebody has deleted it, or may have.
    pub(super) fn may_be_gone(&self) -> bool {
        matches!(self.actions.last(), Some(Action::Delete | Action::Tried))
    }
}

/// What a task runs.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) kind: Kind,
    pub(super) lines: u64,
    pub(super) code: u64,
    /// Gets an `s` when the program begins and an `e` when it ends by itself.
    pub(super) witness: PathBuf,
    /// An argument by which processes that were left behind are found.
    pub(super) tag: String,
}

impl Program {
    pub(super) fn roll(dice: &mut Dice, folder: &Path, campaign: &str, number: usize) -> Self {
        let kinds = [
            Kind::Burst,
            Kind::Steady,
            Kind::Steady,
            Kind::Orphans,
            Kind::Stubborn,
            Kind::Signal,
        ];
        let kind = *dice.pick(&kinds).unwrap_or(&Kind::Burst);
        Self {
            kind,
            lines: match kind {
                Kind::Burst => 200 + dice.below(3000),
                _ => 10 + dice.below(120),
            },
            code: if dice.below(2) == 0 { 0 } else { 1 + dice.below(9) },
            witness: folder.join(format!("{number}.witness")),
            // Seconds, with a fraction that nobody else uses.
            tag: format!("86400.{campaign}{number:05}"),
        }
    }

    /// The task as the server gets it: a script for a shell, so that no environment has to be built.
    pub(super) fn spec(&self) -> TaskSpec {
        let witness = self.witness.display();
        let (lines, code, tag) = (self.lines, self.code, &self.tag);
        let print = match self.kind {
            Kind::Burst => {
                format!("i=0; while [ $i -lt {lines} ]; do printf 'out: %05d .\\n' $i; i=$((i+1)); done")
            }
            _ => format!(
                "i=0; while [ $i -lt {lines} ]; do printf 'out: %05d .\\n' $i; i=$((i+1)); sleep 0.05; done"
            ),
        };
        let before = match self.kind {
            Kind::Orphans => format!(
                "(setsid env -i /bin/sleep {tag} &) \n setsid sh -c 'trap \"\" TERM; (/bin/sleep {tag} &) ; exec env -i /bin/sleep {tag}' &"
            ),
            Kind::Stubborn => "trap '' TERM INT HUP".to_owned(),
            _ => String::new(),
        };
        let after = match self.kind {
            Kind::Signal => "kill -KILL $$".to_owned(),
            _ => format!("exit {code}"),
        };
        let script =
            format!("printf s >> '{witness}'\n{before}\n{print}\nprintf e >> '{witness}'\n{after}\n");
        TaskSpec {
            script: json!({
                "repository": "", "entry_point": "task.sh", "working_dir": ".", "binary": "/bin/bash",
                "diff": script, "requirements": {},
            }),
            hyperparams: None,
        }
    }

    /// Status and reason of a task that runs this to its end.
    pub(super) fn natural_end(&self) -> (&'static str, String) {
        match (self.kind, self.code) {
            (Kind::Signal, _) => ("failed", "worker execution exit code -9".to_owned()),
            (_, 0) => ("completed", "worker execution done".to_owned()),
            (_, code) => ("failed", format!("worker execution exit code {code}")),
        }
    }

    /// What was witnessed: how often it began, and how often it came to its end.
    pub(super) fn witnessed(&self) -> (usize, usize) {
        let text = std::fs::read_to_string(&self.witness).unwrap_or_default();
        (text.matches('s').count(), text.matches('e').count())
    }
}

/// How long a person waits at most between two actions of the campaign.
pub(super) const PAUSE: Duration = Duration::from_millis(400);
