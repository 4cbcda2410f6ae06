//! Repositories over ssh, with a real server.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::{Bench, has};

const SSHD: &str = "/usr/sbin/sshd";

struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An sshd for the user of this test; `None` where it can't run.
fn start(folder: &Path) -> Option<Server> {
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
    let mut server = Server { child, port };
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if server.child.try_wait().unwrap().is_some() || Instant::now() > deadline {
            eprintln!("SKIPPED a_repository_over_ssh: sshd does not run here");
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(server)
}

#[test]
fn a_repository_over_ssh() {
    if !has(SSHD, "a_repository_over_ssh") || !has("ssh", "a_repository_over_ssh") {
        return;
    }
    let mut bench = Bench::new();
    let Some(server) = start(&bench.path("ssh")) else {
        return;
    };
    let (repository, first) = bench.repository(&[("main.py", "print('by ssh')")]);
    let ssh = format!(
        "ssh -oBatchMode=yes -oStrictHostKeyChecking=no -oUserKnownHostsFile=/dev/null -oIdentitiesOnly=yes -i {}",
        bench.path("ssh/user").display()
    );
    bench.env("GIT_SSH_COMMAND", ssh);
    let whoami = Command::new("id").arg("-un").output().unwrap();
    let user = String::from_utf8(whoami.stdout).unwrap().trim().to_owned();
    let path = repository.display();
    let script = |url: String| json!({"repository": url, "version_num": first, "entry_point": "main.py", "working_dir": "."});
    let direct = format!("ssh://{user}@127.0.0.1:{}{path}", server.port);
    assert_eq!(bench.build_and_run(script(direct)).2, "by ssh\n");
    // An https address that the configuration turns into ssh.
    bench.settings.git.force_ssh_protocol = true;
    bench.settings.git.force_ssh_user = Some(user.clone());
    bench.settings.git.force_ssh_port = Some(server.port);
    let (_, host, output) = bench.build_and_run(script(format!("https://127.0.0.1{path}")));
    assert_eq!(output, "by ssh\n");
    let told = format!(
        "using ssh://{user}@127.0.0.1:{}{path} instead of https://",
        server.port
    );
    assert!(host.console().contains(&told), "{}", host.console());
}
