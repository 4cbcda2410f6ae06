//! The server with a certificate: the agent works with the configuration that it wrote, and nothing else.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use xtask::workbench::{AgentOptions, wait_for};

use crate::journey::configured;

const AGENT: &str = env!("CARGO_BIN_EXE_clearml-agent");

/// Ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

fn make_certificate(folder: &Path) -> bool {
    Command::new("openssl")
        .args(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
                .split(' '),
        )
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(folder)
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[test]
fn the_agent_uses_the_written_configuration_over_https() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    if !make_certificate(here) {
        eprintln!("SKIPPED the_agent_uses_the_written_configuration_over_https: no usable openssl program");
        return;
    }
    let log = File::create(here.join("server.log")).unwrap();
    let ports = ["--port", "0", "--files-port", "0", "--web-port", "0"];
    let _server = Server(
        Command::new(AGENT)
            .args([
                "server",
                "--data",
                "data",
                "--tls-cert",
                "cert.pem",
                "--tls-key",
                "key.pem",
            ])
            .args(ports)
            .current_dir(here)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap(),
    );
    let printed = || fs::read_to_string(here.join("server.log")).unwrap();
    wait_for(
        "the start of the server",
        Duration::from_secs(30),
        Duration::from_millis(20),
        || Ok(printed().contains("Ctrl-C").then_some(())),
    )
    .unwrap();
    assert!(!printed().contains("WARN"), "{}", printed());
    let config = here.join("data/clearml.conf");
    for key in ["api_server", "files_server", "web_server"] {
        let url = configured(&config, key);
        assert!(url.starts_with("https://localhost:"), "{key}: {url}");
        assert!(printed().contains(&url), "{url} in {}", printed());
    }
    assert!(!printed().contains(&configured(&config, "secret_key")));

    let list = |config: &Path| {
        let options = AgentOptions::new(Path::new(AGENT), here, config);
        options.command(&["list"]).output().unwrap()
    };
    let output = list(&config);
    assert!(output.status.success(), "{output:?}");
    // The certificate is what makes the difference.
    let distrusting = here.join("distrusting.conf");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&distrusting, text.replace("verify_certificate", "# ")).unwrap();
    assert!(!list(&distrusting).status.success());
}

#[test]
fn a_certificate_without_its_key_is_a_usage_error() {
    let output = Command::new(AGENT)
        .args(["server", "--data", "/nonexistent/data", "--tls-cert", "cert.pem"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("--tls-key"),
        "{output:?}"
    );
}
