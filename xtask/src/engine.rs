//! A Docker Engine for the tests: the one that answers already, or one of their own while they run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::workspace;

/// Where Debian puts the engine; not every user's PATH has it.
const PROGRAMS: [&str; 2] = ["/usr/sbin/dockerd", "/usr/bin/dockerd"];
/// How long an engine may take to answer.
const START: Duration = Duration::from_secs(60);

/// An engine that was started here, and ends with this value.
#[derive(Debug)]
pub struct Engine {
    child: Child,
    folder: TempDir,
}

impl Engine {
    /// Starts one, if none answers and one is installed. `None` if one answers already.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub fn start_if_needed() -> Result<Option<Self>> {
        if answers(None) {
            return Ok(None);
        }
        let program = PROGRAMS.iter().map(Path::new).find(|path| path.is_file());
        let Some(program) = program else {
            bail!("no Docker Engine is installed (Debian: docker.io)")
        };
        ensure!(
            rustix::process::geteuid().is_root(),
            "no Docker Engine runs, and only root can start one"
        );
        Self::start(program).map(Some)
    }

    fn start(program: &Path) -> Result<Self> {
        // Paths of sockets are short, so not below the build folder.
        let folder = TempDir::with_prefix("clearml-engine-")?;
        let data = workspace::target().join("engine");
        fs::create_dir_all(&data)?;
        let log = File::create(folder.path().join("log"))?;
        let child = Command::new(program)
            .arg("--data-root")
            .arg(&data)
            .arg("--exec-root")
            .arg(folder.path().join("exec"))
            .arg("--pidfile")
            .arg(folder.path().join("pid"))
            .arg("--host")
            .arg(format!("unix://{}", folder.path().join("docker.sock").display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut engine = Self { child, folder };
        let begin = Instant::now();
        while !answers(Some(&engine.address())) {
            let ended = engine.child.try_wait()?;
            ensure!(
                ended.is_none() && begin.elapsed() < START,
                "the Docker Engine does not start: {}",
                engine.last_words()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(engine)
    }

    /// What `DOCKER_HOST` has to be.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        log.lines().last().unwrap_or_default().to_owned()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It stops its containers and unmounts what it has mounted.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _gone = kill_process(pid, Signal::TERM);
        }
        let _ended = self.child.wait();
    }
}

/// Whether an engine answers there, or where the docker program looks by itself.
fn answers(address: Option<&str>) -> bool {
    let mut command = Command::new("docker");
    command
        .args(["version", "--format", "{{.Server.Version}}"])
        .stdin(Stdio::null());
    if let Some(address) = address {
        command.env("DOCKER_HOST", address);
    }
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
