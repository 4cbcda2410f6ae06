//! What the commands show, word for word: who changes it sees what changes for people and their scripts.

use std::process::Command;

use serde_json::json;
use xtask::workbench::AgentOptions;

use crate::command_line::alone;
use crate::scene::{AGENT, Scene, finish};

/// What differs from run to run, replaced.
fn plain(text: &str, options: &AgentOptions, more: &[(&str, &str)]) -> String {
    let folder = options.config.parent().unwrap().display().to_string();
    let mut text = text
        .replace(options.home.to_str().unwrap(), "<home>")
        .replace(&folder, "<folder>")
        .replace(env!("CARGO_PKG_VERSION"), "<version>");
    for (from, to) in more {
        text = text.replace(from, to);
    }
    text
}

fn without_times_and_ids(line: &str) -> String {
    let is_id = |word: &str| word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    line.split_inclusive(|c: char| !c.is_ascii_alphanumeric())
        .map(|piece| {
            let word = piece.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            match line {
                _ if is_id(word) => piece.replace(word, "<id>"),
                _ if line.contains("_time") => piece.replace(|c: char| c.is_ascii_digit(), "9"),
                _ => piece.to_owned(),
            }
        })
        .collect()
}

/// A command, its exit code, and what it printed where.
fn record(options: &AgentOptions, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = finish(options.command(arguments));
    // The log begins its lines with the time.
    let timeless = |line: &str| match line.split_once("  WARN ") {
        Some((_, said)) => format!("<time>  WARN {said}\n"),
        None => format!("{line}\n"),
    };
    let stderr: String = stderr.lines().map(timeless).collect();
    let record = format!(
        "$ clearml-agent {}\n--- stdout\n{stdout}--- stderr\n{stderr}--- exit code {code}\n",
        arguments.join(" ")
    );
    plain(&record, options, &[])
}

const CONFIG: &str = "\
api {
  api_server: \"http://127.0.0.1:1\"
  web_server: http://127.0.0.1:2/#/x
  credentials { access_key: AKEY, secret_key: hidden-text }
}
agent {
  worker_name: somebody
  default_python: \"3.11\"
  git_user: me
  git_pass: hidden-text
  no_such_key: 1
  package_manager.extra_index_url: [\"https://u:hidden-text@pypi.example.com/simple\"]
  extra_docker_arguments: [\"-e\", \"TOKEN=hidden-text\", \"--ipc=host\"]
}
environment { OTHER: hidden-text }
sdk.development.default_output_uri = \"s3://bucket/a b!\"
";

#[test]
fn the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let options = alone(&folder, CONFIG).variable("CLEARML_FILES_HOST", "http://127.0.0.1:3");
    let mut shown = String::new();
    for arguments in [&["config"][..], &["config", "--origins"]] {
        shown.push_str(&record(&options, arguments));
    }
    assert!(!shown.contains("hidden-text"), "{shown}");
    insta::assert_snapshot!("configuration", shown);
}

#[test]
fn the_workers() {
    let scene = Scene::new();
    let registered = json!({"worker": "a:0", "queues": [scene.queue], "tags": ["x", "true"]});
    scene.api.call("workers.register", registered).unwrap();
    let options = scene.options();
    let mut shown = String::new();
    for arguments in [&["list"][..], &["list", "--json"]] {
        shown.push_str(&record(&options, arguments));
    }
    let ids = [(scene.queue.as_str(), "<queue>")];
    let shown = plain(&shown, &options, &ids);
    let shown: Vec<String> = shown.lines().map(without_times_and_ids).collect();
    let shown = shown.join("\n");
    insta::assert_snapshot!("workers", shown);
}

#[test]
fn failures() {
    let folder = tempfile::tempdir().unwrap();
    let hasty = |text: &str| {
        alone(&folder, text)
            .variable("CLEARML_AGENT_INITIAL_CONNECT_RETRY_OVERRIDE", "1")
            .variable("CLEARML_WORKER_NAME", "somebody")
    };
    let empty = hasty("");
    let mut shown = String::new();
    for arguments in [
        &["--config-file", "", "list"][..],
        &["--config-file", "$HOME/none.conf", "list"],
        &["daemon", "--gpus"],
        &["daemon", "--uptime", "8-12"],
        &["daemon", "--gpus", "3-1"],
        &["daemon", "--do"],
        &["execute"],
        &["lst"],
        &["list"],
        &["daemon", "--stop", "nobody"],
        &["completions", "csh"],
    ] {
        shown.push_str(&record(&empty, arguments));
        shown.push('\n');
    }
    for (text, arguments) in [
        ("api { api_server: http://127.0.0.1:1 }\n", &["list"][..]),
        (CONFIG, &["list"]),
        ("agent {\n  git_user: \"x\n}\n", &["config"]),
        ("agent.venvs_cache.max_entries: many\n", &["config"]),
        ("agent.git_pass: [ \"hidden-text\" ]\n", &["config", "--json"]),
    ] {
        shown.push_str(&record(&hasty(text), arguments));
        shown.push('\n');
    }
    assert!(!shown.contains("hidden-text"), "{shown}");
    insta::assert_snapshot!("failures", shown);
}

#[test]
fn the_help_of_every_command() {
    let mut shown = String::new();
    for command in ["", "config", "init", "doctor", "status", "server", "completions"] {
        let mut program = Command::new(AGENT);
        program.args([command, "--help"].iter().filter(|word| !word.is_empty()));
        let (code, stdout, stderr) = finish(program);
        assert_eq!((code, stderr.as_str()), (0, ""), "{command}");
        shown.push_str(&format!("$ clearml-agent {command}\n{stdout}\n"));
    }
    insta::assert_snapshot!("help", shown);
}
