//! What every step of a build shares: settings, console, redactor, and one way to start programs.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Instant;

use clearml_support::command::{Command, CommandError};
use clearml_support::redact::Redactor;

use crate::error::BuildError;
use crate::host::{Host, Level, Phase, PhaseEvent};
use crate::request::EnvSettings;

/// How many of its last lines are kept from a program that may fail.
const TAIL_LINES: usize = 40;

/// The surroundings of one build.
pub(crate) struct Context<'a> {
    pub(crate) settings: &'a EnvSettings,
    pub(crate) host: &'a dyn Host,
    pub(crate) redactor: &'a Redactor,
}

/// How a streamed program ended, and the end of what it said.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) tail: Vec<String>,
}

impl Ended {
    /// The last line that says something, for a status reason.
    pub(crate) fn last_line(&self) -> String {
        let telling =
            |line: &&String| line.to_ascii_lowercase().contains("error") || line.starts_with("fatal");
        let line = self.tail.iter().rfind(telling).or_else(|| self.tail.last());
        line.map_or_else(|| "it printed nothing".to_owned(), |line| line.trim().to_owned())
    }
}

impl<'a> Context<'a> {
    /// The same for a part of the build.
    pub(crate) fn with_host(&self, host: &'a dyn Host) -> Self {
        Self { host, ..*self }
    }
}

impl Context<'_> {
    pub(crate) fn info(&self, text: &str) {
        self.line(Level::Info, text);
    }

    pub(crate) fn warn(&self, text: &str) {
        self.line(Level::Warning, text);
    }

    pub(crate) fn error(&self, text: &str) {
        self.line(Level::Error, text);
    }

    fn line(&self, level: Level, text: &str) {
        self.host.line(level, &self.redactor.redact(text));
    }

    /// A command with exactly the configured environment, stopped when the build is cancelled.
    pub(crate) fn command(&self, program: &Path) -> Command {
        self.settings
            .env
            .iter()
            .fold(Command::new(program).env_clear(), |command, (key, value)| {
                command.env(key, value)
            })
            .cancel(self.host.cancel())
            .redactor(self.redactor)
    }

    /// Runs a command with its output on the console of the task.
    pub(crate) fn stream(&self, command: &Command) -> Result<Ended, CommandError> {
        let mut tail: Vec<String> = Vec::new();
        let status = command.run_streamed(&mut |line| {
            if tail.len() == TAIL_LINES {
                tail.remove(0);
            }
            tail.push(line.to_owned());
            self.host.line(Level::Info, line);
        })?;
        Ok(Ended { status, tail })
    }

    /// Runs a part of the build and tells the host how long it took.
    pub(crate) fn phase<T, E>(
        &self,
        phase: Phase,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, BuildError>
    where
        BuildError: From<E>,
    {
        if self.host.cancel().is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        let started = Instant::now();
        self.host.phase(phase, PhaseEvent::Started);
        let result = work()?;
        self.host.phase(phase, PhaseEvent::Finished(started.elapsed()));
        Ok(result)
    }

    /// A variable of the configured environment; empty counts as unset.
    pub(crate) fn var(&self, name: &str) -> Option<&str> {
        self.settings
            .env
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// The first regular file of that name on the configured `PATH`. A name with a slash is a path.
    pub(crate) fn find_program(&self, name: &str) -> Option<PathBuf> {
        if name.contains('/') {
            return Some(PathBuf::from(name)).filter(|path| path.is_file());
        }
        std::env::split_paths(self.var("PATH")?)
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(name))
            .find(|path| path.is_file())
    }
}

/// Reads `1`, `true`, `yes`, `on`, `y` and `t` as true.
pub(crate) fn is_true(value: &str) -> bool {
    matches!(
        value.trim().to_ascii_lowercase().as_str(),
        "1" | "true" | "yes" | "on" | "y" | "t"
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use clearml_support::command::CancelToken;

    use super::*;

    /// A host that hears nothing.
    #[derive(Default)]
    pub(crate) struct Silent(CancelToken);

    impl Host for Silent {
        fn line(&self, _: Level, _: &str) {}
        fn phase(&self, _: Phase, _: PhaseEvent) {}
        fn report_packages(&self, _: &[String]) {}
        fn report_commit(&self, _: &str) {}
        fn cancel(&self) -> &CancelToken {
            &self.0
        }
    }
}
