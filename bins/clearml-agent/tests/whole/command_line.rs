//! What a user sees who gives wrong arguments, a wrong configuration, or has no server.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::scene::{AGENT, Scene, finish};
use tempfile::TempDir;
use xtask::workbench::AgentOptions;

fn alone(folder: &TempDir, config: &str) -> AgentOptions {
    let file = folder.path().join("clearml.conf");
    fs::write(&file, config).unwrap();
    AgentOptions::new(Path::new(AGENT), folder.path(), &file)
}

#[test]
fn usage_errors_go_to_stderr_with_exit_code_2() {
    for arguments in [
        &["daemon", "--no-such-flag"][..],
        &["no-such-command"],
        &["execute"],
        &["list", "--debug"],
    ] {
        let mut command = Command::new(AGENT);
        command.args(arguments);
        let (code, stdout, stderr) = finish(command);
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(stderr.contains("error:"), "{arguments:?}: {stderr}");
    }
}

#[test]
fn without_a_command_the_help_is_shown() {
    let (code, stdout, _) = finish(Command::new(AGENT));
    assert_eq!(code, 0);
    assert!(
        stdout.contains("daemon") && stdout.contains("execute"),
        "{stdout}"
    );
    assert!(!stdout.contains("shim"), "private commands are shown: {stdout}");
}

#[test]
fn an_unknown_queue_is_named_with_near_misses() {
    let scene = Scene::new();
    scene.api.create_queue("gpu_large").unwrap();
    let (code, stdout, stderr) =
        finish(
            scene
                .options()
                .command(&["daemon", "--queue", "gpu-large", "--foreground"]),
        );
    assert_eq!(code, 1, "{stdout}{stderr}");
    assert!(stderr.contains("gpu-large"), "{stderr}");
    assert!(stderr.contains("gpu_large"), "no suggestion: {stderr}");
}

#[test]
fn a_missing_queue_is_created_when_asked_for() {
    let scene = Scene::new();
    let _daemon = xtask::workbench::Agent::start(
        &scene.options(),
        &["daemon", "--queue", "brand new", "--create-queue", "--foreground"],
    )
    .unwrap();
    xtask::workbench::wait_for(
        "the queue",
        crate::scene::LIMIT,
        Duration::from_millis(50),
        || {
            let reply = scene
                .api
                .call("queues.get_all", serde_json::json!({"name": "^brand new$"}))?;
            Ok(reply["queues"]
                .as_array()
                .is_some_and(|queues| queues.len() == 1)
                .then_some(()))
        },
    )
    .unwrap();
}

#[test]
fn a_malformed_configuration_is_shown_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let config = "api {\n  api_server: \"http://127.0.0.1:1\"\n  files_server: \"http://unfinished\n}\n";
    let options = alone(&folder, config);
    let (code, _, stderr) = finish(options.command(&["daemon", "--queue", "q"]));
    assert_eq!(code, 1, "{stderr}");
    for wanted in ["clearml.conf", "line:3", "col:17", "http://unfinished"] {
        assert!(stderr.contains(wanted), "no {wanted:?}: {stderr}");
    }
}

#[test]
fn a_configuration_file_that_does_not_exist_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let options = alone(&folder, "");
    let (code, _, stderr) = finish(options.command(&["--config-file", "/nowhere/clearml.conf", "config"]));
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("/nowhere/clearml.conf"), "{stderr}");
}

#[test]
fn missing_credentials_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let options = alone(&folder, "api { api_server: \"http://127.0.0.1:1\" }\n");
    let (code, _, stderr) = finish(options.command(&["daemon", "--queue", "q"]));
    assert_eq!(code, 1, "{stderr}");
    assert!(
        stderr.contains("credentials") || stderr.contains("access_key"),
        "{stderr}"
    );
}

#[test]
fn refused_credentials_are_explained_and_not_shown() {
    let scene = Scene::new();
    let options = scene
        .options()
        .variable("CLEARML_API_ACCESS_KEY", "SOMEBODY")
        .variable("CLEARML_API_SECRET_KEY", "very-secret-text");
    let (code, stdout, stderr) = finish(options.command(&["daemon", "--queue", "work"]));
    assert_eq!(code, 1, "{stdout}{stderr}");
    assert!(stderr.contains("credentials"), "{stderr}");
    assert!(
        !stdout.contains("very-secret-text") && !stderr.contains("very-secret-text"),
        "{stdout}{stderr}"
    );
}

#[test]
fn a_server_that_is_away_at_the_start_ends_a_command_that_shall_not_wait() {
    let folder = tempfile::tempdir().unwrap();
    let config = "api { api_server: \"http://127.0.0.1:1\", credentials { access_key: a, secret_key: b } }\n";
    let started = Instant::now();
    let hasty = alone(&folder, config).variable("CLEARML_AGENT_INITIAL_CONNECT_RETRY_OVERRIDE", "1");
    for arguments in [&["daemon", "--queue", "q"][..], &["list"]] {
        let (code, _, stderr) = finish(hasty.command(arguments));
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains("http://127.0.0.1:1"), "{stderr}");
    }
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
fn the_effective_configuration_is_shown_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let config = "api { api_server: \"http://127.0.0.1:1\", credentials { access_key: a, secret_key: hidden-text } }\n\
                  agent { worker_name: somebody, git_pass: hidden-text }\n";
    let options = alone(&folder, config);
    for arguments in [&["config"][..], &["config", "--json"], &["config", "--origins"]] {
        let (code, stdout, stderr) = finish(options.command(arguments));
        assert_eq!(code, 0, "{stderr}");
        assert!(stdout.contains("somebody"), "{stdout}");
        assert!(
            !stdout.contains("hidden-text") && !stderr.contains("hidden-text"),
            "{stdout}{stderr}"
        );
    }
    let (_, json, _) = finish(options.command(&["config", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["agent"]["worker_name"], "somebody");
    let (_, origins, _) = finish(options.command(&["config", "--origins"]));
    let line = origins
        .lines()
        .find(|line| line.starts_with("agent.worker_name = "))
        .unwrap();
    assert!(line.contains("clearml.conf"), "{line}");
}

#[test]
fn workers_are_listed_as_data() {
    let scene = Scene::new();
    scene
        .api
        .call(
            "workers.register",
            serde_json::json!({"worker": "a:0", "queues": [scene.queue]}),
        )
        .unwrap();
    let (code, stdout, stderr) = finish(scene.options().command(&["list", "--json"]));
    assert_eq!(code, 0, "{stderr}");
    let workers: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(workers[0]["id"], "a:0");
    let (code, stdout, _) = finish(scene.options().command(&["list"]));
    assert_eq!(code, 0);
    assert!(
        stdout.starts_with("workers:\n- ") && stdout.contains("id: \"a:0\""),
        "{stdout}"
    );
}

#[test]
fn the_server_refuses_to_be_reachable_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(AGENT);
    command
        .args(["server", "--host", "0.0.0.0", "--port", "0", "--data"])
        .arg(folder.path());
    let (code, _, stderr) = finish(command);
    assert_eq!(code, 1);
    assert!(stderr.contains("--allow-remote"), "{stderr}");
}
