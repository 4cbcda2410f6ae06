//! What a user sees who gives wrong arguments, a wrong configuration, or has no server.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::scene::{AGENT, Scene, finish};
use tempfile::TempDir;
use xtask::workbench::AgentOptions;

pub(crate) fn alone(folder: &TempDir, config: &str) -> AgentOptions {
    let file = folder.path().join("clearml.conf");
    fs::write(&file, config).unwrap();
    AgentOptions::new(Path::new(AGENT), folder.path(), &file)
}

#[test]
fn usage_errors_go_to_stderr_with_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = folder.path().join("arguments");
    fs::write(&arguments, "daemon\n--queue\nwith blank\n--no-such\n").unwrap();
    let file = format!("@{}", arguments.display());
    let required = "the following arguments are required: --id";
    let levels = "(choose from 'DEBUG', 'INFO', 'WARN', 'WARNING', 'ERROR', 'CRITICAL')";
    for (arguments, command, message) in [
        (
            &["daemon", "--no-such-flag"][..],
            " daemon",
            "unrecognized arguments: --no-such-flag",
        ),
        (
            &["daemon", "--foregruond"],
            " daemon",
            "unrecognized arguments: --foregruond; did you mean --foreground?",
        ),
        (&["deamon"], "", "; did you mean daemon?"),
        (&["daemon", "stray"], " daemon", "unrecognized arguments: stray"),
        (
            &["daemon", "--gpus", "0", "1"],
            " daemon",
            "unrecognized arguments: 1",
        ),
        (
            &["daemon", "--docker", "img", "-e", "A=B"],
            " daemon",
            "unrecognized arguments: -e",
        ),
        // Global options stand before the command, all others after it.
        (&["list", "--debug"], " list", "unrecognized arguments: --debug"),
        (
            &["daemon", "--config-file", "x"],
            " daemon",
            "unrecognized arguments: --config-file",
        ),
        (
            &["daemon", "--version"],
            " daemon",
            "unrecognized arguments: --version",
        ),
        (
            &["--detached", "daemon"],
            " daemon",
            "unrecognized arguments: --detached",
        ),
        (
            &["daemon", "--do"],
            " daemon",
            "ambiguous option: --do could match --docker, --downtime",
        ),
        (
            &["daemo"],
            "",
            "argument command: invalid choice: 'daemo' (choose from 'execute', 'build', 'daemon'",
        ),
        (&["execute"], " execute", required),
        (&["build"], " build", required),
        (
            &["daemon", "--queue"],
            " daemon",
            "argument --queue: expected at least one argument",
        ),
        (
            &["daemon", "--child-report-tags", "--stop"],
            " daemon",
            "argument --child-report-tags: expected at least",
        ),
        (
            &["daemon", "--gpus"],
            " daemon",
            "argument --gpus: expected one argument",
        ),
        (&["daemon", "--log-level", "loud"], " daemon", levels),
        (
            &["daemon", "--polling-interval", "x"],
            " daemon",
            "argument --polling-interval: invalid value: 'x': expected whole seconds",
        ),
        (
            &["daemon", "--metrics-address", "9101"],
            " daemon",
            "invalid value: '9101': expected an IP address and a port, such as 127.0.0.1:9101",
        ),
        (
            &["server", "--data", "x", "--host", "localhost"],
            " server",
            "invalid value: 'localhost': expected an IP address, such as 127.0.0.1",
        ),
        (
            &["daemon", "--services-mode", "x"],
            " daemon",
            "argument --services-mode: invalid value: 'x': expected a whole number",
        ),
        (
            &["build", "--id", "x", "--entry-point", "reuse"],
            " build",
            "(choose from 'reuse_task', 'clone_task')",
        ),
        (
            &[
                "execute",
                "--id",
                "x",
                "--disable-monitoring",
                "--full-monitoring",
            ],
            " execute",
            "not allowed with",
        ),
        (
            &["--config-file", "", "daemon"],
            "",
            "argument --config-file: expected one argument",
        ),
        (&["daemon", "@/no/such/file"], "", "@/no/such/file"),
        (&[&file], " daemon", "unrecognized arguments: --no-such"),
    ] {
        let mut command_line = Command::new(AGENT);
        command_line.args(arguments);
        let (code, stdout, stderr) = finish(command_line);
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(
            stderr.starts_with(&format!("Usage: clearml-agent{command} ")),
            "{arguments:?}: {stderr}"
        );
        let error = format!("\nclearml-agent{command}: error: ");
        assert!(
            stderr.contains(&error) && stderr.contains(message),
            "{arguments:?}: {stderr}"
        );
    }
}

#[test]
fn help_is_as_agreed() {
    let help = |arguments: &[&str]| {
        let mut command = Command::new(AGENT);
        command.args(arguments).env_remove("COLUMNS");
        let (code, stdout, stderr) = finish(command);
        assert_eq!((code, stderr.as_str()), (0, ""), "{arguments:?}");
        stdout
    };
    let top = help(&[]);
    assert!(
        top.starts_with("CLEARML-AGENT AI Orchestration DevOps\n\n"),
        "{top}"
    );
    assert!(
        !top.contains("shim") && !top.contains("runner"),
        "private commands are shown: {top}"
    );
    assert_eq!((help(&["-h"]), help(&["--help"])), (top.clone(), top));
    for command in ["daemon", "execute", "build", "list", "install-bootstrap"] {
        let text = help(&[command, "--help"]);
        assert_eq!(text, help(&[command, "-h"]));
        assert!(!text.contains("in-background"), "{text}");
        insta::assert_snapshot!(format!("help_{command}"), text);
    }
}

#[test]
fn failures_are_one_line_on_stdout_and_with_debug_a_trace_on_stderr() {
    let folder = tempfile::tempdir().unwrap();
    let options = alone(&folder, "");
    let missing = ["--config-file", "$HOME/none.conf", "list"];
    let (code, stdout, stderr) = finish(options.command(&missing));
    assert_eq!((code, stderr.as_str()), (1, ""));
    let path = options.home.join("none.conf");
    let expected = format!(
        "\nclearml_agent: ERROR: Could not open configuration file: {}; check --config-file\n\n",
        path.display()
    );
    assert_eq!(stdout, expected);
    let (code, stdout, stderr) = finish(options.command(&[&["--debug"], &missing[..]].concat()));
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("Could not open configuration file"), "{stderr}");
    // Warnings as well, where the output is for people.
    let options = alone(&folder, "agent { no_such_key: 1 }\n");
    let (_, stdout, _) = finish(options.command(&["build", "--id", "x"]));
    assert!(
        stdout.contains("clearml_agent: Warning: ") && stdout.contains("no_such_key"),
        "{stdout}"
    );
}

#[test]
fn what_is_not_there_yet_is_checked_and_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let options = alone(&folder, "api { api_server: \"http://127.0.0.1:1\" }\n");
    let programs = folder.path().join("bin");
    fs::create_dir(&programs).unwrap();
    fs::write(programs.join("docker"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(
        programs.join("docker"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let run = |arguments: &str, docker: bool| {
        let words: Vec<&str> = arguments.split(' ').collect();
        let mut command = options.command(&words);
        command.env("DOCKER_HOST", "unix:///none/docker.sock");
        command.env("PATH", if docker { programs.as_path() } else { folder.path() });
        let (code, stdout, stderr) = finish(command);
        assert_eq!(code, 1, "{arguments}: {stdout}{stderr}");
        assert!(
            stdout.contains("\nclearml_agent: ERROR: "),
            "{arguments}: {stdout}"
        );
        stdout
    };
    for (arguments, wanted) in [
        ("daemon --docker a --podman b", "different containers provided"),
        (
            "daemon --dynamic-gpus --gpus 0-3 --queue a=1 b=2-4",
            "--dynamic-gpus) is not supported",
        ),
        (
            "daemon --dynamic-gpus --gpus 0-3 --queue a=0.5 --docker",
            "--dynamic-gpus) is not supported",
        ),
        (
            "daemon --dynamic-gpus --gpus 0-3 --queue a=0.5",
            "Fractional GPUs are only supported in docker-mode",
        ),
        (
            "daemon --dynamic-gpus --gpus 0-3 --queue a",
            "queue must be in format <queue_name>=<num_gpus>",
        ),
        (
            "daemon --dynamic-gpus --queue a=1",
            "--dynamic-gpus needs explicit --gpus",
        ),
        (
            "daemon --dynamic-gpus --services-mode --queue a=1",
            "--services-mode is not supported",
        ),
        ("daemon --gpus 3-1", "Failed parsing --gpus"),
        ("daemon --uptime nonsense", "nonsense"),
        (
            "build --id x --entry-point reuse_task",
            "--entry-point needs --docker",
        ),
        ("build --id x --force-docker", "--force-docker needs --docker"),
    ] {
        let stdout = run(arguments, true);
        assert!(stdout.contains(wanted), "{arguments}: {stdout}");
    }
    for arguments in [
        "daemon --docker img",
        "daemon --podman img --services-mode",
        "execute --id x --docker",
        "build --id x --docker --entry-point clone_task --force-docker",
    ] {
        assert!(run(arguments, false).contains("can't be reached"), "{arguments}");
    }
    // Without containers these mean nothing, and the official agent goes on.
    let stdout = run(
        "daemon --force-current-version --standalone-mode --services-mode 0",
        false,
    );
    for option in ["--force-current-version", "--standalone-mode"] {
        assert!(
            stdout.contains(&format!("Warning: {option} has no effect")),
            "{stdout}"
        );
    }
    assert!(!stdout.contains("not supported"), "{stdout}");
}

#[test]
fn the_bootstrap_package_is_not_needed() {
    let folder = tempfile::tempdir().unwrap();
    let wheel = folder.path().join("x.whl");
    fs::write(&wheel, "").unwrap();
    let wheel = wheel.to_str().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(AGENT);
        command.arg("install-bootstrap").args(arguments);
        finish(command)
    };
    for (arguments, ignored) in [
        (&[][..], ""),
        (&["--check"], "--check"),
        (&["--force", "--version", "v1.0"], "--force, --version"),
        (&["--from-file", wheel], "--from-file"),
    ] {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, stderr.as_str()), (0, ""), "{arguments:?}");
        assert_eq!(stdout.matches("no bootstrap package").count(), 1, "{stdout}");
        assert_eq!(stdout.contains("without effect"), !ignored.is_empty());
        assert!(stdout.contains(ignored), "{stdout}");
    }
    for (path, wanted) in [("/none/x.whl", "no such file"), ("/etc/hostname", ".whl")] {
        let (code, stdout, _) = run(&["--from-file", path]);
        assert_eq!(code, 1, "{path}");
        assert!(stdout.contains(wanted), "{stdout}");
    }
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
    assert!(stdout.contains("gpu-large"), "{stdout}");
    assert!(stdout.contains("gpu_large"), "no suggestion: {stdout}");
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
    let (code, stdout, _) = finish(options.command(&["daemon", "--queue", "q"]));
    assert_eq!(code, 1, "{stdout}");
    for wanted in ["clearml.conf", "line:3", "col:17", "http://unfinished"] {
        assert!(stdout.contains(wanted), "no {wanted:?}: {stdout}");
    }
}

#[test]
fn missing_credentials_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let options = alone(&folder, "api { api_server: \"http://127.0.0.1:1\" }\n");
    let (code, stdout, _) = finish(options.command(&["daemon", "--queue", "q"]));
    assert_eq!(code, 1, "{stdout}");
    assert!(
        stdout.contains("credentials") || stdout.contains("access_key"),
        "{stdout}"
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
    assert!(stdout.contains("credentials"), "{stdout}");
    // Where they come from is said, as the official agent does, but not on standard output.
    for line in [
        "Using environment access key CLEARML_API_ACCESS_KEY=SOMEBODY\n",
        "Using environment secret key CLEARML_API_SECRET_KEY=********\n",
    ] {
        assert!(stderr.contains(line), "{stderr}");
    }
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
        let (code, stdout, _) = finish(hasty.command(arguments));
        assert_eq!(code, 1, "{stdout}");
        assert!(stdout.contains("http://127.0.0.1:1"), "{stdout}");
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
        stdout.starts_with("workers:\n- ") && stdout.contains("\n  id: a:0\n") && stdout.ends_with("\n\n"),
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
    let (code, stdout, stderr) = finish(command);
    assert_eq!(code, 1, "{stderr}");
    assert!(stdout.contains("--allow-remote"), "{stdout}");
}
