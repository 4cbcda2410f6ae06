//! A Compose project in a folder: somebody's slurm-docker-cluster, or a cluster that is written there.

use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::engine;
use crate::terminal::step;
use crate::workspace;

/// The service that plays the login node.
pub(super) const LOGIN: &str = "slurmctld";
/// The service that the compute nodes are of.
pub(super) const NODE: &str = "cpu-worker";
/// The smallest Debian that has Slurm as well as Apptainer.
const BASE: &str = "clearml-debian:sid";
/// What all services of a cluster of our own are made of.
const IMAGE: &str = "clearml-slurm-cluster:local";
/// Where Debian puts the program in the image.
const PLUGIN: &str = "/usr/libexec/docker/cli-plugins/docker-compose";
/// By which programs mount file systems.
pub(super) const FUSE: &str = "/dev/fuse";
/// The names that Compose looks for, and the one that we give.
const FILES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
];

/// The project.
#[derive(Debug)]
pub(super) struct Compose {
    folder: PathBuf,
    /// Of the engine, if it is not where the docker program looks by itself.
    address: Option<String>,
    program: Vec<OsString>,
    /// The image is of today.
    built: bool,
    /// It was written here, rather than found.
    pub(super) ours: bool,
}

impl Compose {
    /// The project in this folder, or one that is to be.
    ///
    /// # Errors
    ///
    /// When the folder can't be made or there is no `docker compose`.
    pub(super) fn open(folder: &Path, address: Option<String>) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        let folder = folder.canonicalize()?;
        let found = FILES
            .iter()
            .map(|name| folder.join(name))
            .find(|path| path.is_file());
        let ours = match found {
            Some(path) => fs::read_to_string(&path)
                .with_context(|| format!("reading {}", path.display()))?
                .starts_with(mark(&template()?)),
            None => true,
        };
        let mut compose = Self {
            folder,
            address,
            program: Vec::new(),
            built: false,
            ours,
        };
        compose.find_program()?;
        Ok(compose)
    }

    /// Builds the image, writes the project, and starts it.
    ///
    /// # Errors
    ///
    /// When the image can't be built or a service does not get healthy.
    pub(super) fn up(&self) -> Result<()> {
        ensure!(
            self.ours,
            "{} holds a project of somebody else; start it as its documentation says",
            self.folder.display()
        );
        if !self.built {
            self.build()?;
        }
        let text = template()?
            .replace("<PROJECT>", &self.project())
            .replace(
                "<DEVICES>",
                if Path::new(FUSE).exists() {
                    "[/dev/fuse]"
                } else {
                    "[]"
                },
            )
            .replace("<IMAGE>", IMAGE);
        fs::write(self.folder.join(FILES[0]), text)?;
        step("Starting the cluster in containers");
        run(self.command(&["up", "-d", "--wait", "--wait-timeout", "120"]))?;
        Ok(())
    }

    /// Stops the project, with its volumes, and takes away what was written.
    ///
    /// # Errors
    ///
    /// When a container stays.
    pub(super) fn down(&self) -> Result<()> {
        ensure!(
            self.ours,
            "{} holds a project of somebody else, which is not stopped here",
            self.folder.display()
        );
        if self.folder.join(FILES[0]).is_file() {
            run(self.command(&["down", "--volumes", "--remove-orphans", "--timeout", "3"]))?;
        }
        for file in [FILES[0], "docker-compose"] {
            let _absent = fs::remove_file(self.folder.join(file));
        }
        // Stays when something else is in it.
        let _used = fs::remove_dir(&self.folder);
        Ok(())
    }

    /// Whether the services that are needed run.
    ///
    /// # Errors
    ///
    /// When Compose can't say.
    pub(super) fn runs(&self) -> Result<bool> {
        if !FILES.iter().any(|name| self.folder.join(name).is_file()) {
            return Ok(false);
        }
        let text = run(self.command(&["ps", "--services", "--status", "running"]))?;
        Ok([LOGIN, NODE]
            .iter()
            .all(|service| text.lines().any(|line| line == *service)))
    }

    /// A command in the first container of a service.
    pub(super) fn exec(&self, service: &str, arguments: &[&str]) -> Command {
        self.command(&[&["exec", "-T", service], arguments].concat())
    }

    /// What a command in the first container of a service prints.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub(super) fn output(&self, service: &str, arguments: &[&str]) -> Result<String> {
        run(self.exec(service, arguments))
    }

    /// Starts a command there and leaves it.
    ///
    /// # Errors
    ///
    /// When it can't be started.
    pub(super) fn spawn(&self, service: &str, arguments: &[&str]) -> Result<()> {
        run(self.command(&[&["exec", "-T", "-d", service], arguments].concat())).map(drop)
    }

    /// Copies a file or folder of this machine to the login node.
    ///
    /// # Errors
    ///
    /// When it can't be copied.
    pub(super) fn copy(&self, from: &Path, to: &str) -> Result<()> {
        let mut command = self.command(&["cp"]);
        command.arg(from).arg(format!("{LOGIN}:{to}"));
        run(command).map(drop)
    }

    /// Unpacks an image of the engine into a folder of the login node.
    ///
    /// # Errors
    ///
    /// When the engine has no such image, or it can't be unpacked.
    pub(super) fn unpack(&self, image: &str, to: &str) -> Result<()> {
        let container = run(self.docker(&["create", image, "true"]))?;
        let export = self.docker(&["export", container.trim()]);
        let unpacked = self.send(export, &["tar", "-x", "-C", to]);
        run(self.docker(&["rm", container.trim()]))?;
        unpacked
    }

    /// Copies an image of the engine into an archive on the login node.
    ///
    /// # Errors
    ///
    /// When the engine has no such image, or it can't be written.
    pub(super) fn save(&self, image: &str, to: &str) -> Result<()> {
        let save = self.docker(&["save", image]);
        self.send(save, &["dd", "bs=1M", &format!("of={to}")])
    }

    /// Gives what a command prints to one on the login node.
    fn send(&self, mut from: Command, to: &[&str]) -> Result<()> {
        let mut sender = from.stdout(Stdio::piped()).spawn().context("starting docker")?;
        let text = sender.stdout.take().context("docker has no output")?;
        let mut receiver = self.exec(LOGIN, to);
        receiver.stdin(text);
        let received = run(receiver);
        drop(from);
        let sent = sender.wait()?;
        received?;
        ensure!(sent.success(), "copying from docker failed ({sent})");
        Ok(())
    }

    /// The engine, if it is not where the docker program looks by itself.
    pub(super) fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }

    /// How people call Compose here.
    pub(super) fn called(&self) -> String {
        let words: Vec<_> = self.program.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }

    fn docker(&self, arguments: &[&str]) -> Command {
        engine::docker(self.address.as_deref(), arguments)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut words = self.program.iter();
        let mut command = Command::new(words.next().map_or("docker".as_ref(), OsString::as_os_str));
        command
            .args(words)
            .args(arguments)
            .current_dir(&self.folder)
            .stdin(Stdio::null());
        if let Some(address) = &self.address {
            command.env("DOCKER_HOST", address);
        }
        command
    }

    /// Compose as a plugin of docker, as a program, or the one that is in the image.
    fn find_program(&mut self) -> Result<()> {
        let local = self.folder.join("docker-compose");
        let known: [Vec<OsString>; 3] = [
            vec!["docker".into(), "compose".into()],
            vec!["docker-compose".into()],
            vec![local.clone().into()],
        ];
        for program in known {
            self.program = program;
            // The first generation speaks another dialect.
            if run(self.command(&["version", "--short"])).is_ok_and(|text| !text.starts_with("1.")) {
                return Ok(());
            }
        }
        ensure!(
            self.ours,
            "docker compose is not installed (Debian: docker-compose, of trixie or later)"
        );
        self.build()?;
        self.built = true;
        let container = run(self.docker(&["create", IMAGE, "true"]))?;
        let source = format!("{}:{PLUGIN}", container.trim());
        let copied = run(self.docker(&["cp", &source, &local.to_string_lossy()]));
        run(self.docker(&["rm", container.trim()]))?;
        copied?;
        self.program = vec![local.into()];
        run(self.command(&["version"])).context("starting the docker compose of the image")?;
        Ok(())
    }

    fn build(&self) -> Result<()> {
        if run(self.docker(&["image", "inspect", BASE])).is_err() {
            step("Making a smallest Debian as an image");
            engine::make_debian(self.address.as_deref(), BASE, "sid", &[])?;
        }
        step("Building the image of the cluster (some minutes, the first time)");
        let source = workspace::root().join("fixtures/slurm/docker");
        let mut command = self.docker(&["build", "--network", "host", "--tag", IMAGE, "--build-arg"]);
        // The builder of old engines does.
        command
            .arg(format!("BASE={BASE}"))
            .arg(source)
            .env("DOCKER_BUILDKIT", "0");
        run(command).map(drop)
    }

    /// A name that no other folder has.
    fn project(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.folder.hash(&mut hasher);
        format!("clearml-slurm-{:08x}", hasher.finish() >> 32)
    }
}

fn template() -> Result<String> {
    let path = workspace::root().join("fixtures/slurm/docker").join(FILES[0]);
    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// The first line, by which a project of our own is known.
fn mark(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Runs a command to its end; gives what it prints.
fn run(mut command: Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let last: Vec<&str> = said.trim().lines().rev().take(12).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        bail!("{command:?} failed ({}): {}", output.status, last.join("\n"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
