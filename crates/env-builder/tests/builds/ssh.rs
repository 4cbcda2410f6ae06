//! Repositories over ssh, with a real server.

use serde_json::json;

use crate::common::Bench;
use crate::fixtures::has;
use crate::sshd::{SSHD, start, user};

#[test]
fn a_repository_over_ssh() {
    if !has(SSHD, "a_repository_over_ssh") || !has("ssh", "a_repository_over_ssh") {
        return;
    }
    let mut bench = Bench::new();
    let Some(server) = start(&bench.path("ssh"), "a_repository_over_ssh") else {
        return;
    };
    let (repository, first) = bench.repository(&[("main.py", "print('by ssh')")]);
    bench.env("GIT_SSH_COMMAND", &*server.command);
    let user = user();
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
