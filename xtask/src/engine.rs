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
/// An image with Python and git for tests that run tasks.
pub(crate) const IMAGE: &str = "clearml-base:python";
/// What is in it, beside the smallest Debian.
const PACKAGES: &str = "python3,python3-pip,python3-venv,git,ca-certificates";
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

    /// Makes the image of the tests, if there is none: images can't be pulled everywhere. It stays in the build
    /// folder, for the next time.
    ///
    /// # Errors
    ///
    /// Why it could not be made; tests that need it are skipped then.
    pub fn make_image(&self) -> Result<()> {
        let docker = |arguments: &[&str]| {
            let mut command = Command::new("docker");
            command
                .args(arguments)
                .env("DOCKER_HOST", self.address())
                .stdout(Stdio::null());
            command
        };
        if docker(&["image", "inspect", IMAGE])
            .stderr(Stdio::null())
            .status()?
            .success()
        {
            return Ok(());
        }
        let root = TempDir::with_prefix("clearml-image-")?;
        let made = Command::new("/usr/sbin/debootstrap")
            .args(["--variant=minbase", &format!("--include={PACKAGES}"), "bookworm"])
            .arg(root.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .context("starting debootstrap")?;
        ensure!(made.success(), "debootstrap failed ({made})");
        let mut tar = Command::new("tar")
            .args(["--exclude=./var/cache/apt/archives/*.deb", "-c", "-C"])
            .arg(root.path())
            .arg(".")
            .stdout(Stdio::piped())
            .spawn()
            .context("starting tar")?;
        let archive = tar.stdout.take().context("tar has no output")?;
        let imported = docker(&["import", "-", IMAGE]).stdin(archive).status()?;
        ensure!(
            tar.wait()?.success() && imported.success(),
            "importing the image failed"
        );
        Ok(())
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
