//! A Docker Engine for the tests: the one that answers already, or one of their own while they run.
//!
//! One of their own has its data below the build folder, so that the image is made once, and everything else in a
//! folder that goes with it. It may be stopped, killed and started again, which nobody does to an engine that
//! others use. What a process that was killed has left running is stopped by the next one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clearml_support::process::ProcessIdentity;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::workspace;

/// An image with Python and git for tests that run tasks.
pub const IMAGE: &str = "clearml-base:python";
/// Where Debian puts the engine; not every user's PATH has it.
const PROGRAMS: [&str; 2] = ["/usr/sbin/dockerd", "/usr/bin/dockerd"];
/// What is in the image, beside the smallest Debian.
const PACKAGES: &str = "python3,python3-pip,python3-venv,git,ca-certificates";
/// How long an engine may take to answer, or to end.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);
/// The data of the engine that all tests share.
const SHARED: &str = "engine";
/// The data of engines that are treated badly.
const OWN: &str = "engine-own";
/// Such an engine has a bridge of its own, which leads nowhere: one without any bridge removes that of the machine's
/// engine, and rules of the firewall are shared as well.
const BRIDGE: &str = "clearml-own0";
const WITHOUT_NETWORK: [&str; 5] = [
    "--bridge=clearml-own0",
    "--iptables=false",
    "--ip6tables=false",
    "--ip-forward=false",
    "--ip-masq=false",
];

/// An engine that was started here, and ends with this value, unless it is left.
#[derive(Debug)]
pub struct Engine {
    program: &'static Path,
    child: Option<Child>,
    /// Sockets and what belongs to containers that run.
    folder: PathBuf,
    data: PathBuf,
    options: &'static [&'static str],
    left: bool,
    /// Nobody else uses the data meanwhile.
    _lock: File,
}

/// Why no engine can be started on this machine.
#[must_use]
pub fn missing() -> Option<&'static str> {
    if program().is_none() {
        return Some("no Docker Engine is installed (Debian: docker.io)");
    }
    (!rustix::process::geteuid().is_root()).then_some("only root can start a Docker Engine")
}

fn program() -> Option<&'static Path> {
    PROGRAMS.iter().map(Path::new).find(|path| path.is_file())
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
        Self::start(SHARED, &[]).map(Some)
    }

    /// Starts one that others don't use, with the image in it. The network of its containers ends at this machine.
    /// Whoever wants a second one waits for the end of the first.
    ///
    /// # Errors
    ///
    /// When it does not start, or has no image.
    pub fn own() -> Result<Self> {
        let engine = Self::start(OWN, &WITHOUT_NETWORK)?;
        if !has_image(Some(&engine.address())) && has_image(None) {
            let mut save = docker(None, &["save", IMAGE])
                .stdout(Stdio::piped())
                .spawn()
                .context("starting docker save")?;
            let archive = save.stdout.take().context("docker save has no output")?;
            let loaded = engine.docker(&["load", "--quiet"]).stdin(archive).output()?;
            ensure!(
                save.wait()?.success() && loaded.status.success(),
                "copying image {IMAGE} failed: {}",
                String::from_utf8_lossy(&loaded.stderr).trim()
            );
        }
        engine.make_image()?;
        Ok(engine)
    }

    fn start(name: &str, options: &'static [&'static str]) -> Result<Self> {
        let program = program().filter(|_| missing().is_none());
        let program = program.with_context(|| missing().unwrap_or_default())?;
        let data = workspace::target().join(name);
        fs::create_dir_all(&data)?;
        let lock = File::create(data.with_extension("lock"))?;
        lock.lock().context("waiting for the data of the Docker Engine")?;
        stop_recorded(&data, false)?;
        if options == WITHOUT_NETWORK {
            ip(&["link", "delete", BRIDGE]);
            let made = ip(&["link", "add", BRIDGE, "type", "bridge"]);
            ensure!(made, "the bridge {BRIDGE} can't be made (Debian: iproute2)");
        }
        // Paths of sockets are short, so not below the build folder.
        let mut engine = Self {
            program,
            child: None,
            folder: TempDir::with_prefix("clearml-engine-")?.keep(),
            data,
            options,
            left: false,
            _lock: lock,
        };
        engine.start_again(false)?;
        Ok(engine)
    }

    /// Starts it once more, after it was stopped or killed. With live restore, containers live on without it.
    ///
    /// # Errors
    ///
    /// When it does not answer; its last words are in it.
    pub fn start_again(&mut self, live_restore: bool) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))?;
        let child = Command::new(self.program)
            .args(self.options)
            .arg(format!("--live-restore={live_restore}"))
            .arg("--data-root")
            .arg(&self.data)
            .arg("--exec-root")
            .arg(self.folder.join("exec"))
            .arg("--pidfile")
            .arg(self.folder.join("pid"))
            .arg("--host")
            .arg(self.address())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))?;
        let child = self.child.insert(child);
        let identity = ProcessIdentity::of(i32::try_from(child.id())?)?;
        let record = json!({"engine": identity, "folder": self.folder, "left": self.left});
        fs::write(self.data.with_extension("json"), record.to_string())?;
        let begin = Instant::now();
        while !answers(Some(&self.address())) {
            let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            ensure!(
                ended.is_none() && begin.elapsed() < LIMIT,
                "the Docker Engine does not start: {}",
                self.last_words()
            );
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().context("the engine does not run")?;
        let identity = ProcessIdentity::of(i32::try_from(child.id())?)?;
        identity.context("the engine has ended")?.signal(signal)?;
        Ok(())
    }

    /// Ends it with a signal: SIGTERM, after which it says good-bye to its containers, or SIGKILL. The containerd
    /// that it has started ends with it.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn end(&mut self, signal: Signal) -> Result<()> {
        let record = self.folder.join("exec/containerd/containerd.pid");
        let containerd = fs::read_to_string(&record)?.trim().parse().ok();
        let containerd = containerd.map(ProcessIdentity::of).transpose()?.flatten();
        self.signal(signal)?;
        let mut child = self.child.take().context("the engine does not run")?;
        let begin = Instant::now();
        while child.try_wait()?.is_none() {
            if begin.elapsed() > LIMIT {
                child.kill()?;
                child.wait()?;
                bail!("the Docker Engine has not ended within {} s", LIMIT.as_secs());
            }
            std::thread::sleep(PAUSE);
        }
        while containerd.as_ref().is_some_and(ProcessIdentity::is_alive) && begin.elapsed() < LIMIT {
            std::thread::sleep(PAUSE);
        }
        // The next engine takes one that nobody has waited for yet for one that runs.
        let _absent = fs::remove_file(record);
        Ok(())
    }

    /// Makes the image of the tests, if there is none: images can't be pulled everywhere. It stays in the build
    /// folder, for the next time.
    ///
    /// # Errors
    ///
    /// Why it could not be made; tests that need it are skipped then.
    pub fn make_image(&self) -> Result<()> {
        make_image(Some(&self.address()))
    }

    /// A command of the docker program on this engine.
    #[must_use]
    pub fn docker(&self, arguments: &[&str]) -> Command {
        docker(Some(&self.address()), arguments)
    }

    /// What `DOCKER_HOST` has to be.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix://{}", self.folder.join("docker.sock").display())
    }

    /// Leaves it running; `stop_left` ends it.
    ///
    /// # Errors
    ///
    /// When this can't be noted.
    pub fn leave(mut self) -> Result<()> {
        let path = self.data.with_extension("json");
        let mut record: Value = serde_json::from_slice(&fs::read(&path)?)?;
        record["left"] = true.into();
        fs::write(path, record.to_string())?;
        self.left = true;
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        log.lines().last().unwrap_or_default().to_owned()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        // Containers may have outlived an engine that was killed. It also unmounts what it has mounted.
        if self.child.is_some() || self.start_again(false).is_ok() {
            let _frozen = self.signal(Signal::CONT);
            remove_containers(&self.address());
            let _gone = self.end(Signal::TERM);
        }
        let _absent = fs::remove_file(self.data.with_extension("json"));
        remove_folder(&self.folder);
        if self.options == WITHOUT_NETWORK {
            ip(&["link", "delete", BRIDGE]);
        }
    }
}

/// Whether the `ip` program has done it.
fn ip(arguments: &[&str]) -> bool {
    let mut command = Command::new("ip");
    let status = command.args(arguments).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Removes the folder of an engine that has ended. Its helpers end a moment later, and are still cleaning up; names of
/// networks stay mounted.
fn remove_folder(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    for place in places.filter(|place| Path::new(place).starts_with(folder)) {
        let _gone = Command::new("umount").args(["--lazy", place]).status();
    }
    for _ in 0..50 {
        if fs::remove_dir_all(folder).is_ok() || !folder.exists() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Ends the engine that was left running. `false` if there is none.
///
/// # Errors
///
/// When it does not end.
pub fn stop_left() -> Result<bool> {
    stop_recorded(&workspace::target().join(SHARED), true)
}

/// Ends an engine whose record was left: by somebody who was killed, or, where that is meant, on purpose.
fn stop_recorded(data: &Path, also_left: bool) -> Result<bool> {
    let path = data.with_extension("json");
    let Ok(text) = fs::read(&path) else {
        return Ok(false);
    };
    let record: Value = serde_json::from_slice(&text).unwrap_or_default();
    let engine: Option<ProcessIdentity> = serde_json::from_value(record["engine"].clone())?;
    let folder = PathBuf::from(record["folder"].as_str().unwrap_or_default());
    let address = format!("unix://{}", folder.join("docker.sock").display());
    let mut ended = false;
    if let Some(engine) = engine.filter(ProcessIdentity::is_alive) {
        ensure!(
            also_left || record["left"] != true,
            "an engine was left running: export DOCKER_HOST={address}, or cargo xtask e2e docker down"
        );
        engine.signal(Signal::CONT)?;
        remove_containers(&address);
        engine.signal(Signal::TERM)?;
        let begin = Instant::now();
        while engine.is_alive() {
            ensure!(
                begin.elapsed() < LIMIT,
                "the Docker Engine with pid {} does not end",
                engine.pid
            );
            std::thread::sleep(PAUSE);
        }
        ended = true;
    }
    let _absent = fs::remove_file(path);
    if folder.file_name().is_some() {
        remove_folder(&folder);
    }
    Ok(ended)
}

fn remove_containers(address: &str) {
    let Ok(listed) = docker(Some(address), &["ps", "-aq"]).output() else {
        return;
    };
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let ids: Vec<&str> = listed.lines().collect();
    if !ids.is_empty() {
        let _outcome = docker(Some(address), &["rm", "-f"]).args(ids).output();
    }
}

/// Makes the image on the engine that answers there, or where the docker program looks by itself.
///
/// # Errors
///
/// Why it could not be made.
pub fn make_image(address: Option<&str>) -> Result<()> {
    if has_image(address) {
        return Ok(());
    }
    make_debian(address, IMAGE, "bookworm", &[&format!("--include={PACKAGES}")])
}

/// Makes an image that is a smallest Debian, of this suite and with these further options of debootstrap.
///
/// # Errors
///
/// Why it could not be made.
pub fn make_debian(address: Option<&str>, image: &str, suite: &str, options: &[&str]) -> Result<()> {
    let root = TempDir::with_prefix("clearml-image-")?;
    let made = Command::new("/usr/sbin/debootstrap")
        .arg("--variant=minbase")
        .args(options)
        .arg(suite)
        .arg(root.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("starting debootstrap (Debian: debootstrap)")?;
    ensure!(made.success(), "debootstrap failed ({made})");
    let mut tar = Command::new("tar")
        .args(["--exclude=./var/cache/apt/archives/*.deb", "-c", "-C"])
        .arg(root.path())
        .arg(".")
        .stdout(Stdio::piped())
        .spawn()
        .context("starting tar")?;
    let archive = tar.stdout.take().context("tar has no output")?;
    let imported = docker(address, &["import", "-", image])
        .stdin(archive)
        .stdout(Stdio::null())
        .status()?;
    ensure!(
        tar.wait()?.success() && imported.success(),
        "importing the image failed"
    );
    Ok(())
}

/// A command of the docker program on the engine that answers there, or where the program looks by itself.
#[must_use]
pub fn docker(address: Option<&str>, arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.args(arguments).stdin(Stdio::null());
    if let Some(address) = address {
        command.env("DOCKER_HOST", address);
    }
    command
}

fn succeeds(mut command: Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Whether an engine answers there, or where the docker program looks by itself.
fn answers(address: Option<&str>) -> bool {
    succeeds(docker(address, &["version", "--format", "{{.Server.Version}}"]))
}

fn has_image(address: Option<&str>) -> bool {
    succeeds(docker(address, &["image", "inspect", IMAGE]))
}
