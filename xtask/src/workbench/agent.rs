//! An agent as a real process, in a home of its own. This agent, or the official Python one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::{Mark, marked, wait_for};

/// How an agent is started.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The executable.
    pub executable: PathBuf,
    /// The folder that becomes its `HOME`; created if missing.
    pub home: PathBuf,
    /// The client configuration.
    pub config: PathBuf,
    /// Further environment variables.
    pub variables: Vec<(String, String)>,
}

impl AgentOptions {
    /// An agent with its home below `scratch` and the given configuration.
    #[must_use]
    pub fn new(executable: &Path, scratch: &Path, config: &Path) -> Self {
        Self {
            executable: executable.to_owned(),
            home: scratch.join("home"),
            config: config.to_owned(),
            variables: Vec::new(),
        }
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// A command of the agent, not yet started: clean of the caller's ClearML settings, in the agent's home.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.executable);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CLEARML_") || text.starts_with("TRAINS_") || text.starts_with("XDG_") {
                command.env_remove(&name);
            }
        }
        // A test or a tool that was itself started from a virtual environment must not leak it.
        command
            .env_remove("VIRTUAL_ENV")
            .env_remove("PYTHONPATH")
            .env_remove("PYTHONHOME");
        command
            .args(arguments)
            .env("HOME", &self.home)
            .env("CLEARML_CONFIG_FILE", &self.config)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }
}

/// Which agent a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentKind {
    /// The one of this repository.
    Ours,
    /// The official Python agent.
    Python,
}

impl AgentKind {
    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "clearml-agent (Rust)",
            Self::Python => "clearml-agent (Python)",
        }
    }
}

/// A running agent. When dropped, it and everything it has started are killed.
pub struct Agent {
    options: AgentOptions,
    arguments: Vec<String>,
    mark: Mark,
    child: Option<Child>,
}

impl Agent {
    /// Starts `executable ARGUMENTS…`; its output goes to `agent.log` in its home.
    ///
    /// # Errors
    ///
    /// When the process cannot be started.
    pub fn start(options: &AgentOptions, arguments: &[&str]) -> Result<Self> {
        let mut agent = Self {
            options: options.clone(),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            mark: Mark::new(),
            child: None,
        };
        agent.start_again()?;
        Ok(agent)
    }

    /// Starts a daemon in the foreground for one queue.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn daemon(options: &AgentOptions, queue: &str) -> Result<Self> {
        Self::start(options, &["daemon", "--queue", queue, "--foreground"])
    }

    /// Starts it once more with the same home, mark and arguments, after it has ended.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_again(&mut self) -> Result<()> {
        fs::create_dir_all(&self.options.home)?;
        let log = File::options().create(true).append(true).open(self.log())?;
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let (name, value) = self.mark.variable();
        let child = self
            .options
            .command(&arguments)
            .env(name, value)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.options.executable.display()))?;
        self.child = Some(child);
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.options.home.join("agent.log")
    }

    /// Everything it has printed.
    #[must_use]
    pub fn output(&self) -> String {
        let bytes = fs::read(self.log()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The processes that descend from it.
    #[must_use]
    pub fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Its process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.child
            .as_ref()
            .and_then(|child| i32::try_from(child.id()).ok())
    }

    /// The exit status, if it has ended.
    ///
    /// # Errors
    ///
    /// When the operating system cannot tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.as_mut().map(Child::try_wait).transpose()?.flatten())
    }

    /// Kills this one process with SIGKILL, not its descendants.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _gone = child.kill();
            let _status = child.wait();
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            marked::send(pid, signal);
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// When it does not end in time; it goes on running then.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let status = wait_for("the end of the agent", limit, Duration::from_millis(10), || {
            self.ended()
        })
        .with_context(|| self.output())?;
        self.child = None;
        Ok(status)
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    ///
    /// When it does not end in time.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if self.child.is_none() {
            bail!("the agent is not running");
        }
        self.signal(Signal::TERM);
        self.wait(Duration::from_secs(30))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
        self.mark.kill_all();
    }
}
