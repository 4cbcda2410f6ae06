//! A real server for ssh.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) const SSHD: &str = "/usr/sbin/sshd";

/// It ends when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    /// What git is to call, with the only key that is let in.
    pub(crate) command: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An sshd for the user of this test; `None` where it can't run.
pub(crate) fn start(folder: &Path, test: &str) -> Option<Server> {
    fs::create_dir_all(folder).unwrap();
    for name in ["host", "user"] {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(folder.join(name))
            .status()
            .unwrap();
        assert!(made.success());
    }
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let path = folder.display();
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {path}/host\nAuthorizedKeysFile {path}/user.pub\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\nPermitRootLogin yes\n"
    );
    fs::write(folder.join("config"), config).unwrap();
    if rustix::process::geteuid().is_root() {
        fs::create_dir_all("/run/sshd").unwrap();
    }
    let child = Command::new(SSHD)
        .args(["-D", "-e", "-f"])
        .arg(folder.join("config"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let command = format!(
        "ssh -oBatchMode=yes -oStrictHostKeyChecking=no -oUserKnownHostsFile=/dev/null -oIdentitiesOnly=yes -i {path}/user"
    );
    let mut server = Server { child, port, command };
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if server.child.try_wait().unwrap().is_some() || Instant::now() > deadline {
            eprintln!("SKIPPED {test}: sshd does not run here");
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(server)
}

/// Who is let in: whoever runs this test.
pub(crate) fn user() -> String {
    let whoami = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(whoami.stdout).unwrap().trim().to_owned()
}
