//! The program in an image that holds glibc, and nothing else.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::scene::AGENT;
use crate::stage::Stage;

const BARE: &str = "clearml-bare:1";

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _ended = self.0.wait();
    }
}

#[test]
fn names_and_certificates_need_nothing_of_the_image() {
    let test = "names_and_certificates_need_nothing_of_the_image";
    let Some(stage) = Stage::or_skip(test) else {
        return;
    };
    let here = stage.scene.folder.path().join("https");
    fs::create_dir_all(&here).unwrap();
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args(["-nodes", "-days", "2", "-subj", "/CN=test"])
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(&here)
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        eprintln!("SKIPPED {test}: no usable openssl program");
        return;
    }
    let log = File::create(here.join("log")).unwrap();
    let _server = Server(
        Command::new(AGENT)
            .args([
                "server",
                "--data",
                "data",
                "--no-web",
                "--port",
                "0",
                "--files-port",
                "0",
            ])
            .args(["--tls-cert", "cert.pem", "--tls-key", "key.pem"])
            .current_dir(&here)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap(),
    );
    stage.until("the server", || {
        fs::read_to_string(here.join("log")).unwrap().contains("Ctrl-C")
    });
    import_glibc(&stage);
    let config = here.join("data/clearml.conf");
    let distrusting = here.join("distrusting.conf");
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains("https://localhost:"), "{text}");
    fs::write(&distrusting, text.replace("verify_certificate", "# ")).unwrap();
    let list = |config: &Path| {
        let (agent, here) = (
            format!("{AGENT}:/agent:ro"),
            format!("{0}:{0}:ro", here.display()),
        );
        let config = format!("CLEARML_CONFIG_FILE={}", config.display());
        let mut command = stage
            .engine
            .docker(&["run", "--rm", "--network=host", "-v", &agent]);
        command.args(["-v", &here, "-e", &config, BARE, "/agent", "list"]);
        let output = command.output().unwrap();
        let text = format!("{output:?}");
        (output.status.success(), text)
    };
    let (listed, text) = list(&config);
    assert!(listed, "{text}");
    // Against those that are built in.
    let (listed, text) = list(&distrusting);
    assert!(!listed && text.contains("certificate: UnknownIssuer"), "{text}");
    stage.docker(&["rmi", BARE]);
}

/// An image of the libraries that the program needs to be started.
fn import_glibc(stage: &Stage) {
    let needed = Command::new("ldd").arg(AGENT).output().unwrap();
    let needed = String::from_utf8_lossy(&needed.stdout).into_owned();
    let paths = needed
        .split_whitespace()
        .filter_map(|word| word.strip_prefix('/'));
    let mut tar = Command::new("tar")
        .args(["--dereference", "-c", "-C", "/"])
        .args(paths)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let archive = tar.stdout.take().unwrap();
    let imported = stage
        .engine
        .docker(&["import", "-", BARE])
        .stdin(archive)
        .output();
    assert!(imported.unwrap().status.success() && tar.wait().unwrap().success());
}
