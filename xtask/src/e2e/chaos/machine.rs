//! The machine under the storm: server, proxy, agents, a small disk, and the processes of runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clearml_task_runner::RunDir;

use super::proxy::Proxy;
use crate::workbench::{Agent, AgentOptions, Api, LocalServer};

/// The queue that all agents serve.
pub(super) const QUEUE: &str = "chaos";
/// Where the small disk is mounted.
const SMALL_DISK: &str = "small-disk";

/// Everything that runs.
pub(super) struct Machine {
    pub(super) agents: Vec<Agent>,
    pub(super) states: Vec<PathBuf>,
    pub(super) server: LocalServer,
    pub(super) proxy: Proxy,
    pub(super) api: Api,
    pub(super) queue: String,
    pub(super) disk: Option<SmallDisk>,
}

impl Machine {
    pub(super) fn start(executable: &Path, scratch: &Path, agents: usize, seed: u64) -> Result<Self> {
        let server = LocalServer::start(executable, &scratch.join("server"))?;
        let api = server.api()?;
        let queue = api.create_queue(QUEUE)?;
        let direct = fs::read_to_string(server.config())?;
        let port = port(&direct).context("the server's configuration names no API server")?;
        let proxy = Proxy::start(port, seed)?;
        // The later entry of a key wins.
        let config = scratch.join("clearml.conf");
        let through = format!(
            "{direct}\napi.api_server: \"http://127.0.0.1:{}\"\nagent.status_poll_interval_sec: 1\n\
             agent.abort_grace_sec: 1\nagent.polling_interval: 0.5\n",
            proxy.port
        );
        fs::write(&config, through)?;
        let disk = SmallDisk::mount(&scratch.join(SMALL_DISK));
        let mut machine = Self {
            agents: Vec::new(),
            states: Vec::new(),
            server,
            proxy,
            api,
            queue,
            disk,
        };
        for number in 0..agents {
            let home = scratch.join(format!("agent-{number}"));
            let state = match &machine.disk {
                Some(disk) if number == 0 => disk.folder.join("state"),
                _ => home.join("state"),
            };
            let options = AgentOptions::new(executable, &home, &config)
                .variable("CLEARML_AGENT_STATE_DIR", state.to_string_lossy())
                .variable("CLEARML_AGENT_QUEUE_POLL_FREQ_SEC", "0.5")
                .variable("CLEARML_WORKER_NAME", format!("chaos-{number}"));
            machine.agents.push(Agent::daemon(&options, QUEUE)?);
            machine.states.push(state);
        }
        Ok(machine)
    }

    /// The runners or supervisors of this machine's runs: process and task.
    pub(super) fn processes(&self, role: &str) -> Vec<(i32, String)> {
        let wanted = format!(" {role} --run ");
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let commands = entries.filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let bytes = fs::read(entry.path().join("cmdline")).ok()?;
            Some((pid, String::from_utf8_lossy(&bytes).replace('\0', " ")))
        });
        commands
            .filter_map(|(pid, command)| {
                let folder = Path::new(command.split_once(&wanted)?.1.trim_end());
                self.states.iter().find(|state| folder.starts_with(state))?;
                let task = RunDir::open(folder).ok()?.record().ok()?.identity.task;
                Some((pid, task.to_string()))
            })
            .collect()
    }
}

fn port(config: &str) -> Option<u16> {
    let line = config.lines().find(|line| line.contains("api_server"))?;
    let digits = line.trim_end_matches(['"', '/', ',', ' ']).rsplit(':').next()?;
    digits.parse().ok()
}

/// A file system that is filled within an instant.
pub(super) struct SmallDisk {
    pub(super) folder: PathBuf,
}

impl SmallDisk {
    /// `None` where this user may not mount anything.
    fn mount(folder: &Path) -> Option<Self> {
        fs::create_dir_all(folder).ok()?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m", "clearml-chaos"])
            .arg(folder)
            .output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self {
            folder: folder.to_owned(),
        })
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }

    /// Leaves not a byte free.
    pub(super) fn fill(&self) -> Result<()> {
        // The error is the purpose.
        let full = fs::write(self.ballast(), vec![0; 64 << 20]);
        ensure!(full.is_err(), "{} can't be filled", self.folder.display());
        Ok(())
    }

    pub(super) fn free(&self) {
        // Not there when it was never filled.
        let _absent = fs::remove_file(self.ballast());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if !unmount(&self.folder) {
            eprintln!("{} could not be unmounted", self.folder.display());
        }
    }
}

fn unmount(folder: &Path) -> bool {
    let unmount = |lazily: &[&str]| {
        let output = Command::new("umount").args(lazily).arg(folder).output();
        output.is_ok_and(|output| output.status.success())
    };
    unmount(&[]) || unmount(&["--lazy"])
}

/// Removes what an earlier storm has left, also one that was killed.
pub(super) fn clear(scratch: &Path) -> Result<()> {
    let disk = scratch.join(SMALL_DISK);
    while disk.is_dir() && unmount(&disk) {}
    match fs::remove_dir_all(scratch) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("clearing {}", scratch.display()))
        }
        _ => Ok(()),
    }
}
