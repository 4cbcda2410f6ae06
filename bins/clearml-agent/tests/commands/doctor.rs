//! `doctor` on this very machine, with and without a server.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::init::{read_until, terminal};
use crate::stage::{Ended, Home, Served, finish};

/// The finding about something.
#[track_caller]
fn finding<'r>(report: &'r Value, section: &str, name: &str) -> &'r Value {
    report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|check| check["section"] == section && check["name"] == name)
        .unwrap_or_else(|| panic!("no {section}/{name}: {report:#}"))
}

fn level<'r>(report: &'r Value, section: &str, name: &str) -> &'r str {
    finding(report, section, name)["level"].as_str().unwrap()
}

/// The exit code follows from the problems.
#[track_caller]
fn report(ended: &Ended) -> Value {
    let report = ended.json();
    let problems = report["problems"].as_u64().unwrap();
    assert_eq!(ended.code, i32::from(problems > 0), "{report:#}");
    report
}

#[test]
fn without_any_configuration_everything_is_examined_and_the_way_on_is_shown() {
    let home = Home::new();
    let mut command = home.options().command(&["doctor"]);
    command.env_remove("CLEARML_CONFIG_FILE");
    let ended = finish(command, "");
    assert_eq!(ended.code, 1, "{}{}", ended.stdout, ended.stderr);
    for section in [
        "Configuration",
        "Server",
        "Python",
        "Code",
        "Containers",
        "GPUs",
        "Slurm",
        "Machine",
    ] {
        let heading = format!("{section}\n");
        assert!(
            ended.stdout.starts_with(&heading) || ended.stdout.contains(&format!("\n{heading}")),
            "no {section}: {}",
            ended.stdout
        );
    }
    assert!(
        ended.stdout.contains("-> run `clearml-agent init`"),
        "{}",
        ended.stdout
    );
    assert!(
        !ended.stdout.contains('\u{1b}'),
        "colours without a terminal: {}",
        ended.stdout
    );
    // Looking leaves nothing behind.
    assert!(!home.path(".clearml").exists());
}

#[test]
fn a_server_that_is_away_and_an_open_file_are_told() {
    let home = Home::new();
    let config = home.path("clearml.conf");
    let text = "api { api_server: \"http://127.0.0.1:1\", files_server: \"http://127.0.0.1:1\", \
                credentials { access_key: a, secret_key: hidden-text } }\nagent { git_user: me }\n";
    fs::write(&config, text).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
    let ended = home.run(&["doctor", "--json"]);
    let report = report(&ended);
    assert_eq!(level(&report, "Server", "connection"), "problem");
    let connection = finding(&report, "Server", "connection");
    assert!(
        connection["message"]
            .as_str()
            .unwrap()
            .contains("http://127.0.0.1:1"),
        "{connection}"
    );
    assert_eq!(level(&report, "Server", "file server"), "warning");
    let permissions = finding(&report, "Configuration", "permissions");
    assert_eq!(permissions["level"], "warning");
    assert_eq!(
        permissions["advice"].as_str().unwrap(),
        format!("chmod 600 '{}'", config.display())
    );
    assert_eq!(level(&report, "Configuration", "agent.git_user"), "warning");
    ended.never_shows("hidden-text");

    // A configuration that can't be read is a finding as well.
    fs::write(&config, "api {").unwrap();
    let ended = home.run(&["doctor", "--json"]);
    assert_eq!(level(&ended.json(), "Configuration", "configuration"), "problem");
    assert_eq!(level(&ended.json(), "Machine", "locks"), "ok");
}

#[test]
fn a_good_server_is_recognised_with_its_queues_and_a_repository() {
    let (home, served) = (Home::new(), Served::start());
    let config = fs::read_to_string(served.server.config()).unwrap();
    fs::write(home.path("clearml.conf"), config).unwrap();
    fs::set_permissions(home.path("clearml.conf"), fs::Permissions::from_mode(0o600)).unwrap();
    served.server.api().unwrap().create_queue("gpu_large").unwrap();
    let repository = home.path("repository");
    let made = Command::new("git")
        .args(["init", "--quiet"])
        .arg(&repository)
        .status()
        .unwrap();
    assert!(made.success());
    let url = format!("file://{}", repository.display());
    let ended = home.run(&[
        "doctor",
        "--json",
        "--queue",
        "gpu_large",
        "gpu-large",
        "--repository",
        &url,
    ]);
    let good = report(&ended);
    for (section, name) in [
        ("Configuration", "permissions"),
        ("Configuration", "server"),
        ("Server", "connection"),
        ("Server", "credentials"),
        ("Server", "clock"),
        ("Server", "API version"),
        ("Server", "queue gpu_large"),
        ("Server", "file server"),
        ("Python", "interpreter"),
        ("Python", "virtual environment"),
        ("Code", "git"),
        ("Code", "repository"),
        ("Machine", "locks"),
    ] {
        assert_eq!(level(&good, section, name), "ok", "{section}/{name}: {good:#}");
    }
    let missing = finding(&good, "Server", "queue gpu-large");
    assert_eq!(missing["level"], "problem");
    assert!(
        missing["message"].as_str().unwrap().contains("gpu_large"),
        "no suggestion: {missing}"
    );
    ended.never_shows(&served.secret);

    // The same server with another key, and a repository that is not there.
    let mut command =
        home.options()
            .command(&["doctor", "--json", "--repository", "file:///no/such/repository"]);
    command
        .env("CLEARML_API_ACCESS_KEY", "SOMEBODY")
        .env("CLEARML_API_SECRET_KEY", "very-secret-text");
    let ended = finish(command, "");
    let refused = report(&ended);
    assert_eq!(level(&refused, "Server", "connection"), "ok");
    assert_eq!(level(&refused, "Server", "credentials"), "problem");
    assert_eq!(level(&refused, "Code", "repository"), "problem");
    ended.never_shows("very-secret-text");
}

#[test]
fn the_address_of_another_server_is_told_from_wrong_credentials() {
    let home = Home::new();
    let served = Served::start();
    let config = home.path("clearml.conf");
    for address in [served.files.clone(), served.api.replace("http://", "https://")] {
        let text =
            format!("api {{ api_server: \"{address}\", credentials {{ access_key: a, secret_key: b }} }}");
        fs::write(&config, text).unwrap();
        let report = report(&home.run(&["doctor", "--json"]));
        let found = finding(&report, "Server", "address");
        assert_eq!(found["level"], "problem", "{address}: {found}");
        let advice = found["advice"].as_str().unwrap();
        assert!(
            advice.contains("api.api_server must be the API server"),
            "{address}: {advice}"
        );
    }
}

#[test]
fn a_terminal_gets_colours_unless_it_has_none_or_they_are_refused() {
    for (variable, coloured) in [
        (("TERM", "xterm"), true),
        (("TERM", "dumb"), false),
        (("NO_COLOR", "1"), false),
    ] {
        let home = Home::new();
        let (mut screen, user) = terminal();
        let mut command = home.options().command(&["status"]);
        command
            .env_remove("NO_COLOR")
            .env("TERM", "xterm")
            .env(variable.0, variable.1)
            .stdout(user);
        let mut child = command.spawn().unwrap();
        let mut shown = String::new();
        read_until(&mut screen, &mut shown, "No task runs.");
        child.wait().unwrap();
        assert_eq!(shown.contains('\u{1b}'), coloured, "{variable:?}: {shown}");
    }
}

#[test]
fn agents_on_this_machine_and_folders_that_cannot_be_written_are_told() {
    let home = Home::new();
    let register = home.register();
    let me = std::process::id();
    fs::write(
        register.join(format!(".clearmlagent_{me}_abcd1234.tmp")),
        "somebody:0\n0",
    )
    .unwrap();
    // A file in the place of a folder stops the privileged, too.
    fs::write(home.path("occupied"), "").unwrap();
    let config = format!(
        "agent {{ state_dir: \"{}/state\" }}\n",
        home.path("occupied").display()
    );
    fs::write(home.path("clearml.conf"), config).unwrap();
    let ended = home.run(&["doctor", "--json"]);
    let report = report(&ended);
    let agents = finding(&report, "Machine", "agents")["message"].as_str().unwrap();
    assert!(
        agents.contains("somebody:0") && agents.contains(&me.to_string()),
        "{agents}"
    );
    assert_eq!(level(&report, "Machine", "state (agent.state_dir)"), "problem");
}

#[test]
fn a_tool_that_hangs_holds_up_nothing_for_long() {
    let home = Home::new();
    let tools = home.path("tools");
    fs::create_dir(&tools).unwrap();
    for tool in ["hg", "docker"] {
        fs::write(tools.join(tool), "#!/bin/sh\nsleep 300\n").unwrap();
        fs::set_permissions(tools.join(tool), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = std::env::var("PATH").unwrap();
    let mut command = home.options().command(&["doctor", "--json"]);
    command.env("PATH", format!("{}:{path}", tools.display()));
    let started = Instant::now();
    let report = report(&finish(command, ""));
    assert!(
        started.elapsed() < Duration::from_secs(60),
        "{:?}",
        started.elapsed()
    );
    for (section, name) in [("Code", "hg"), ("Containers", "Docker")] {
        let hangs = finding(&report, section, name);
        assert_eq!(hangs["level"], "warning");
        assert!(
            hangs["message"].as_str().unwrap().contains("longer than 10s"),
            "{hangs}"
        );
    }
    assert_eq!(level(&report, "Code", "git"), "ok");
}
