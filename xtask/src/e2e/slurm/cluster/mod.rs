//! A real Slurm cluster as processes of this machine: munge, MariaDB, slurmdbd, slurmctld, and a slurmd for each
//! node in a host name of its own.
//!
//! Everything lives in one folder, listens on loopback, and is stopped by pid. The configuration is in
//! `fixtures/slurm/cluster`. Needs root, and Debian's packages of Slurm.

mod daemon;
mod files;
mod services;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clearml_support::process::ProcessIdentity;
use rustix::process::Signal;

use daemon::Daemon;

/// How many nodes a cluster has.
const NODES: usize = 4;

/// How long any step of the start may take.
const LIMIT: Duration = Duration::from_secs(60);

/// What has to be installed.
const PROGRAMS: [&str; 10] = [
    "slurmctld",
    "slurmd",
    "slurmdbd",
    "sbatch",
    "squeue",
    "sacctmgr",
    "munged",
    "mariadbd",
    "mariadb-install-db",
    "unshare",
];

/// A running cluster. Torn down when dropped, unless it is left.
#[derive(Debug)]
pub struct Cluster {
    lab: PathBuf,
    daemons: Vec<Daemon>,
    left: bool,
}

/// Why no cluster can be started on this machine.
#[must_use]
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it takes root".to_owned());
    }
    let path = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin";
    PROGRAMS
        .iter()
        .find(|program| !path.split(':').any(|folder| Path::new(folder).join(program).exists()))
        .map(|program| {
            format!("{program} is not installed (Debian: slurmctld slurmd slurm-client slurmdbd munge mariadb-server bc)")
        })
}

impl Cluster {
    /// Starts a cluster in this folder, which is emptied.
    ///
    /// # Errors
    ///
    /// When a daemon does not come up; what was started is stopped.
    pub fn up(lab: &Path) -> Result<Self> {
        if lab.join("cluster.json").exists() {
            Self::attach(lab)?.down()?;
        }
        if lab.exists() {
            fs::remove_dir_all(lab).with_context(|| format!("clearing {}", lab.display()))?;
        }
        let mut cluster = Self {
            lab: lab.to_owned(),
            daemons: Vec::new(),
            left: false,
        };
        files::prepare(lab)?;
        cluster.munge()?;
        cluster.accounting()?;
        cluster.start_controller()?;
        for node in 1..=NODES {
            cluster.start_node(node)?;
        }
        cluster.wait("all nodes are idle", |cluster| {
            let output = cluster
                .command("sinfo")
                .args(["-h", "-N", "-p", "debug", "-o", "%N %T"])
                .output()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            Ok(text.lines().filter(|line| line.ends_with(" idle")).count() == NODES)
        })?;
        Ok(cluster)
    }

    /// Takes over a cluster that was left in this folder.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn attach(lab: &Path) -> Result<Self> {
        let path = lab.join("cluster.json");
        let text = fs::read_to_string(&path)
            .with_context(|| format!("reading {}; is a cluster up?", path.display()))?;
        let entries: Vec<(String, ProcessIdentity)> = serde_json::from_str(&text)?;
        let daemons = entries
            .into_iter()
            .map(|(name, identity)| Daemon {
                name,
                identity,
                child: None,
            })
            .collect();
        Ok(Self {
            lab: lab.to_owned(),
            daemons,
            left: false,
        })
    }

    /// Leaves the cluster running.
    pub fn leave(mut self) {
        self.left = true;
    }

    /// The folder of the cluster.
    #[must_use]
    pub fn lab(&self) -> &Path {
        &self.lab
    }

    /// `slurm.conf`, for `SLURM_CONF`.
    #[must_use]
    pub fn configuration(&self) -> PathBuf {
        self.lab.join("etc/slurm.conf")
    }

    /// A command of Slurm on this cluster.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("SLURM_CONF", self.configuration())
            .current_dir(self.lab.join("jobs"));
        command
    }

    /// What a command of Slurm prints.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.command(program).args(arguments).output()?;
        ensure!(
            output.status.success(),
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Stops everything, the last first.
    ///
    /// # Errors
    ///
    /// When a daemon does not end.
    pub fn down(mut self) -> Result<()> {
        self.tear_down()
    }

    fn tear_down(&mut self) -> Result<()> {
        if self
            .daemons
            .iter()
            .any(|daemon| daemon.name == "slurmctld" && daemon.identity.is_alive())
        {
            // What jobs have started would outlive the daemons.
            let _unreachable = self.command("scancel").args(["--quiet", "--user=root"]).output();
            let _unreachable = self.wait("no job runs", |cluster| {
                Ok(cluster.output("squeue", &["-h", "-t", "R,CG"])?.trim().is_empty())
            });
        }
        let mut outcome = Ok(());
        // The controller saves its state, and the nodes clean up, before what they need is gone.
        for mut daemon in std::mem::take(&mut self.daemons).into_iter().rev() {
            let stopped = daemon.stop(Signal::TERM);
            outcome = outcome.and(stopped);
        }
        let _absent = fs::remove_file(self.lab.join("cluster.json"));
        self.left = true;
        outcome
    }

    fn wait(&self, what: &str, mut ready: impl FnMut(&Self) -> Result<bool>) -> Result<()> {
        let begun = Instant::now();
        while !ready(self)? {
            for daemon in &self.daemons {
                ensure!(
                    daemon.identity.is_alive(),
                    "{} has ended: see {}",
                    daemon.name,
                    self.lab.join("log").display()
                );
            }
            if begun.elapsed() > LIMIT {
                bail!(
                    "waited {LIMIT:?} in vain until {what}; see {}",
                    self.lab.join("log").display()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.left
            && let Err(error) = self.tear_down()
        {
            eprintln!("stopping the cluster: {error:#}");
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("starting {command:?}"))?;
    ensure!(status.success(), "{command:?} failed ({status})");
    Ok(())
}
