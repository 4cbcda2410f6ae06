//! The processes of a cluster: started, written down with pid and start time, signalled, stopped.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clearml_support::process::ProcessIdentity;
use rustix::process::Signal;
use serde_json::json;

use super::{Cluster, LIMIT};

/// One of them.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) name: String,
    pub(super) identity: ProcessIdentity,
    /// Of our own, to be waited for.
    pub(super) child: Option<Child>,
}

impl Cluster {
    /// Sends a signal to a daemon: `munged`, `mariadbd`, `slurmdbd`, `slurmctld`, `slurmd.c1`, ….
    ///
    /// # Errors
    ///
    /// When there is no such daemon.
    pub fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        let daemon = self.daemons.iter().find(|daemon| daemon.name == name);
        let daemon = daemon.with_context(|| format!("the cluster has no {name}"))?;
        daemon.identity.signal(signal)?;
        Ok(())
    }

    /// Stops a daemon with a signal and waits for its end.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn stop(&mut self, name: &str, signal: Signal) -> Result<()> {
        let index = self.daemons.iter().position(|daemon| daemon.name == name);
        let mut daemon = self
            .daemons
            .remove(index.with_context(|| format!("the cluster has no {name}"))?);
        daemon.stop(signal)?;
        self.record()
    }

    /// Kills a daemon as a crash does, without a chance to save anything.
    ///
    /// # Errors
    ///
    /// When there is no such daemon.
    pub fn crash(&mut self, name: &str) -> Result<()> {
        // Woken up first, a frozen one would do a last thing before it hears of its end.
        self.signal(name, Signal::KILL)?;
        self.stop(name, Signal::KILL)
    }

    pub(super) fn start(&mut self, name: &str, mut command: Command) -> Result<()> {
        let log = fs::File::create(self.lab.join("log").join(format!("{name}.out")))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let pid = i32::try_from(child.id())?;
        let identity = ProcessIdentity::of(pid)?.with_context(|| format!("{name} has ended at once"))?;
        self.daemons.push(Daemon {
            name: name.to_owned(),
            identity,
            child: Some(child),
        });
        self.record()
    }

    fn record(&self) -> Result<()> {
        let entries: Vec<_> = self
            .daemons
            .iter()
            .map(|daemon| json!([daemon.name, daemon.identity]))
            .collect();
        fs::write(self.lab.join("cluster.json"), json!(entries).to_string())?;
        Ok(())
    }
}

impl Daemon {
    pub(super) fn stop(&mut self, signal: Signal) -> Result<()> {
        // A frozen one would never hear it.
        self.identity.signal(Signal::CONT)?;
        self.identity.signal(signal)?;
        let begun = Instant::now();
        loop {
            if let Some(child) = &mut self.child {
                let _still_running = child.try_wait()?;
            }
            if !self.identity.is_alive() {
                return Ok(());
            }
            if begun.elapsed() > LIMIT {
                self.identity.signal(Signal::KILL)?;
                bail!("{} did not end within {LIMIT:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
