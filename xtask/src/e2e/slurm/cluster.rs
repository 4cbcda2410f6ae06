//! A real Slurm cluster as processes of this machine: munge, MariaDB, slurmdbd, slurmctld, and a slurmd for each
//! node in a host name of its own.
//!
//! Everything lives in one folder, listens on loopback, and is stopped by pid. The configuration is in
//! `fixtures/slurm/cluster`. Needs root, and Debian's packages of Slurm.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clearml_support::process::ProcessIdentity;
use rustix::process::Signal;
use serde_json::json;

use crate::workspace;

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

#[derive(Debug)]
struct Daemon {
    name: String,
    identity: ProcessIdentity,
    /// Of our own, to be waited for.
    child: Option<Child>,
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
        cluster.prepare()?;
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

    /// Starts the controller (again).
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub fn start_controller(&mut self) -> Result<()> {
        let mut command = self.command("slurmctld");
        command.arg("-D");
        self.start("slurmctld", command)?;
        self.wait("the controller answers", |cluster| {
            let output = cluster.command("scontrol").arg("ping").output()?;
            Ok(String::from_utf8_lossy(&output.stdout).contains("UP"))
        })
    }

    /// Starts the accounting daemon (again).
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub fn start_accounting(&mut self) -> Result<()> {
        let mut command = self.command("slurmdbd");
        command.arg("-D");
        self.start("slurmdbd", command)?;
        self.wait("the accounting daemon answers", |cluster| {
            Ok(cluster
                .command("sacctmgr")
                .args(["-n", "show", "cluster"])
                .output()?
                .status
                .success())
        })
    }

    /// Starts the daemon of a node (again), in a host name of its own.
    ///
    /// # Errors
    ///
    /// When it can't be started.
    pub fn start_node(&mut self, node: usize) -> Result<()> {
        let mut command = self.command("unshare");
        let script = r#"hostname "$1" && mount --bind "$2" /etc/hosts && exec slurmd -D -N "$1""#;
        let name = format!("c{node}");
        command.args(["--uts", "--mount", "sh", "-c", script, "sh", &name]);
        command.arg(self.lab.join("etc/hosts"));
        self.start(&format!("slurmd.c{node}"), command)
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

    fn start(&mut self, name: &str, mut command: Command) -> Result<()> {
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

    fn prepare(&self) -> Result<()> {
        let lab = &self.lab;
        for folder in [
            "etc",
            "run/munge",
            "log/munge",
            "spool",
            "state",
            "mysql",
            "dev",
            "jobs",
        ] {
            fs::create_dir_all(lab.join(folder))?;
        }
        for node in 1..=NODES {
            fs::create_dir_all(lab.join(format!("spool/c{node}")))?;
        }
        fs::set_permissions(lab.join("jobs"), fs::Permissions::from_mode(0o1777))?;
        for gpu in 0..2 {
            let path = lab.join(format!("dev/gpu{gpu}"));
            run(Command::new("mknod")
                .args(["-m", "666"])
                .arg(path)
                .args(["c", "1", "3"]))?;
        }
        let ports = free_ports(NODES + 3)?;
        let host = host_name()?;
        let nodes: Vec<String> = (1..=NODES)
            .map(|node| {
                format!(
                    "NodeName=c{node} NodeHostname=c{node} NodeAddr=127.0.0.1 Port={} CPUs=4 Boards=1 SocketsPerBoard=1 \
                     CoresPerSocket=4 ThreadsPerCore=1 RealMemory=4000 Gres=gpu:2 State=UNKNOWN",
                    ports[2 + node]
                )
            })
            .collect();
        // The files of Slurm 22.05 are for the first kind of control groups.
        let cgroups =
            Path::new("/sys/fs/cgroup/memory").is_dir() && Path::new("/sys/fs/cgroup/freezer").is_dir();
        let (proctrack, task_plugin) = if cgroups {
            ("proctrack/cgroup", "task/cgroup")
        } else {
            ("proctrack/linuxproc", "task/none")
        };
        for file in [
            "slurm.conf",
            "slurmdbd.conf",
            "cgroup.conf",
            "gres.conf",
            "job_submit.lua",
        ] {
            let source = workspace::root().join("fixtures/slurm/cluster").join(file);
            let text =
                fs::read_to_string(&source).with_context(|| format!("reading {}", source.display()))?;
            let text = text
                .replace("<LAB>", &lab.to_string_lossy())
                .replace("<HOST>", &host)
                .replace("<CONTROLLER_PORT>", &ports[0].to_string())
                .replace("<ACCOUNTING_PORT>", &ports[1].to_string())
                .replace("<DATABASE_PORT>", &ports[2].to_string())
                .replace("<PROCTRACK>", proctrack)
                .replace("<TASK_PLUGIN>", task_plugin)
                .replace("<NODES>", &nodes.join("\n"));
            fs::write(lab.join("etc").join(file), text)?;
        }
        fs::set_permissions(lab.join("etc/slurmdbd.conf"), fs::Permissions::from_mode(0o600))?;
        fs::write(lab.join("etc/plugstack.conf"), "")?;
        let names: Vec<String> = (1..=NODES).map(|node| format!("c{node}")).collect();
        fs::write(
            lab.join("etc/hosts"),
            format!("127.0.0.1 localhost {host} {}\n", names.join(" ")),
        )?;
        fs::write(lab.join("database-port"), ports[2].to_string())?;
        Ok(())
    }

    fn munge(&mut self) -> Result<()> {
        let lab = self.lab.clone();
        let key = lab.join("etc/munge.key");
        let mut random = vec![0; 1024];
        std::io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut random)?;
        fs::write(&key, random)?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o400))?;
        fs::set_permissions(lab.join("log/munge"), fs::Permissions::from_mode(0o700))?;
        fs::set_permissions(lab.join("run/munge"), fs::Permissions::from_mode(0o755))?;
        run(Command::new("chown").arg("-R").arg("munge:munge").args([
            key.clone(),
            lab.join("log/munge"),
            lab.join("run/munge"),
        ]))?;
        self.start_munge()
    }

    /// Starts munge (again).
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub fn start_munge(&mut self) -> Result<()> {
        let lab = self.lab.clone();
        let key = lab.join("etc/munge.key");
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", "munge", "--regid", "munge", "--clear-groups", "munged", "--foreground", "--num-threads=4"])
            // The folders above belong to whoever works here, which munged does not trust by itself.
            .arg("--force")
            .arg(format!("--key-file={}", key.display()))
            .arg(format!("--socket={}", lab.join("run/munge/munge.socket").display()))
            .arg(format!("--pid-file={}", lab.join("run/munge/munged.pid").display()))
            .arg(format!("--log-file={}", lab.join("log/munge/munged.log").display()))
            .arg(format!("--seed-file={}", lab.join("log/munge/seed").display()));
        self.start("munged", command)?;
        let socket = lab.join("run/munge/munge.socket");
        self.wait("munge answers", |_| {
            let status = Command::new("munge")
                .arg("-n")
                .arg("-S")
                .arg(&socket)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()?;
            Ok(status.success())
        })
    }

    fn accounting(&mut self) -> Result<()> {
        let data = self.lab.join("mysql");
        let socket = data.join("mysql.sock");
        let port = fs::read_to_string(self.lab.join("database-port"))?;
        run(Command::new("chown").arg("mysql:mysql").arg(&data))?;
        run(Command::new("mariadb-install-db")
            .args([
                "--no-defaults",
                "--user=mysql",
                "--auth-root-authentication-method=socket",
                "--skip-test-db",
            ])
            .arg(format!("--datadir={}", data.display()))
            .stdout(Stdio::null()))?;
        let mut command = Command::new("mariadbd");
        command
            .args([
                "--no-defaults",
                "--user=mysql",
                "--bind-address=127.0.0.1",
                "--innodb-buffer-pool-size=64M",
            ])
            .args([
                "--innodb-log-file-size=16M",
                "--innodb-lock-wait-timeout=900",
                "--skip-log-bin",
            ])
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", socket.display()))
            .arg(format!("--pid-file={}", data.join("mysqld.pid").display()))
            .arg(format!("--port={port}"));
        self.start("mariadbd", command)?;
        self.wait("the database answers", |_| {
            let ping = Command::new("mariadb-admin")
                .args(["--no-defaults", "-S"])
                .arg(&socket)
                .arg("ping")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()?;
            Ok(ping.success())
        })?;
        let sql = "CREATE DATABASE IF NOT EXISTS slurm_acct_db; \
                   CREATE USER IF NOT EXISTS slurm@127.0.0.1 IDENTIFIED BY 'labpass'; \
                   CREATE USER IF NOT EXISTS slurm@localhost IDENTIFIED BY 'labpass'; \
                   GRANT ALL ON slurm_acct_db.* TO slurm@127.0.0.1; GRANT ALL ON slurm_acct_db.* TO slurm@localhost;";
        run(Command::new("mariadb")
            .args(["--no-defaults", "-S"])
            .arg(&socket)
            .args(["-e", sql]))?;
        self.start_accounting()?;
        self.output("sacctmgr", &["-i", "add", "cluster", "lab"])?;
        self.output(
            "sacctmgr",
            &[
                "-i",
                "add",
                "account",
                "lab",
                "Description=lab",
                "Organization=lab",
            ],
        )?;
        self.output(
            "sacctmgr",
            &["-i", "add", "user", "root,alice,bob", "Account=lab"],
        )?;
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

impl Daemon {
    fn stop(&mut self, signal: Signal) -> Result<()> {
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

fn run(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("starting {command:?}"))?;
    ensure!(status.success(), "{command:?} failed ({status})");
    Ok(())
}

fn host_name() -> Result<String> {
    let name = rustix::system::uname().nodename().to_str()?.to_owned();
    Ok(name.split('.').next().unwrap_or(&name).to_owned())
}

/// Ports that nobody uses now. They are held together, so that they differ.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let held = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<std::io::Result<Vec<_>>>()?;
    held.iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect()
}
