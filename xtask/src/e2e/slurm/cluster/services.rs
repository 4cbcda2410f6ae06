//! What runs in a cluster: munge, the database and the daemons of Slurm, each until it answers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use anyhow::Result;

use super::{Cluster, run};

impl Cluster {
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

    /// Makes a key, and starts munge with it.
    pub(super) fn munge(&mut self) -> Result<()> {
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

    /// Starts the database, the accounting daemon, and makes the accounts.
    pub(super) fn accounting(&mut self) -> Result<()> {
        self.start_database()?;
        self.start_accounting()?;
        self.output("sacctmgr", &["-i", "add", "cluster", "lab"])?;
        let account = [
            "-i",
            "add",
            "account",
            "lab",
            "Description=lab",
            "Organization=lab",
        ];
        self.output("sacctmgr", &account)?;
        let users = ["-i", "add", "user", "root,alice,bob", "Account=lab"];
        self.output("sacctmgr", &users)?;
        Ok(())
    }

    fn start_database(&mut self) -> Result<()> {
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
            .args(["-e", sql]))
    }
}
