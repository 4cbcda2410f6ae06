//! `init` without a dialogue, as installation scripts use it.

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use crate::stage::{Home, Served, finish};

#[test]
fn options_and_environment_are_enough() {
    let (home, served) = (Home::new(), Served::start());
    let secret_file = home.path("secret");
    fs::write(&secret_file, format!("{}\n", served.secret)).unwrap();
    fs::write(home.path("git"), "git-token-9876\n").unwrap();
    let arguments = [
        "--non-interactive",
        "--json",
        "--api-server",
        &served.api,
        "--files-server",
        &served.files,
        "--access-key",
        &served.access,
        "--secret-key-file",
        secret_file.to_str().unwrap(),
        "--git-user",
        "me",
        "--git-pass-file",
        home.path("git").to_str().unwrap(),
        "--extra-index-url",
        "https://one",
        "https://two",
    ]
    .map(str::to_owned);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = home.init(&arguments, &[]);
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.json()["result"], "written");
    let text = fs::read_to_string(home.path("clearml.conf")).unwrap();
    let read = clearml_agent_config::parse(&text, &secret_file).unwrap();
    assert_eq!(read["api"]["credentials"]["secret_key"], served.secret.as_str());
    assert_eq!(read["agent"]["git_pass"], "git-token-9876");
    assert_eq!(
        read["agent"]["package_manager"]["extra_index_url"][1],
        "https://two"
    );
    ended.never_shows(&served.secret);
    ended.never_shows("git-token-9876");

    // A second run finds the file of the first.
    let ended = home.init(&arguments, &[]);
    assert_eq!((ended.code, ended.json()["result"].as_str()), (1, Some("exists")));

    // The same from variables and standard input.
    let home = Home::new();
    let mut command = home
        .options()
        .command(&["init", "--non-interactive", "--secret-key-stdin"]);
    command
        .env_remove("CLEARML_CONFIG_FILE")
        .env("CLEARML_API_HOST", &served.api)
        .env("CLEARML_API_ACCESS_KEY", &served.access);
    let ended = finish(command, &served.secret);
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(home.run(&["list"]).code, 0);
}

#[test]
fn a_secret_may_come_over_a_socket() {
    // As from a service manager: one that can't be opened by a path.
    let (home, served) = (Home::new(), Served::start());
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    writeln!(ours, "{}", served.secret).unwrap();
    drop(ours);
    let mut command = home
        .options()
        .command(&["init", "--non-interactive", "--secret-key-stdin"]);
    command
        .env_remove("CLEARML_CONFIG_FILE")
        .env("CLEARML_API_HOST", &served.api)
        .env("CLEARML_API_ACCESS_KEY", &served.access)
        .stdin(OwnedFd::from(theirs));
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn a_script_notices_what_is_wrong() {
    let (home, served) = (Home::new(), Served::start());
    let run = |arguments: &[&str], secret: &str| {
        let mut command = home
            .options()
            .command(&[&["init", "--non-interactive"], arguments].concat());
        command
            .env_remove("CLEARML_CONFIG_FILE")
            .env("CLEARML_API_SECRET_KEY", secret);
        finish(command, "")
    };
    let api = ["--api-server", &served.api];
    let all = ["--api-server", &served.api, "--access-key", &served.access];
    for (arguments, secret, wanted) in [
        (&[][..], "s", "--api-server"),
        (&api, "s", "--access-key"),
        (&all, "", "--secret-key-file"),
        (&["--api-server", "ftp://h"], "s", "https://api.clear.ml"),
        (&["--web-server", "http://h:1"], "s", "--api-server"),
        (&all, "wrong-secret-text", "refused the credentials"),
        (&["--output", "/no/such/folder/x"], "s", "/no/such/folder"),
        (&["--secret-key-file", "/no/such/file"], "s", "/no/such/file"),
    ] {
        let ended = run(arguments, secret);
        assert_eq!(ended.code, 1, "{arguments:?}: {}{}", ended.stdout, ended.stderr);
        assert!(
            ended.text().contains(wanted),
            "{arguments:?}: no {wanted:?}: {}",
            ended.text()
        );
        ended.never_shows("wrong-secret-text");
        assert!(!home.path("clearml.conf").exists());
    }
    // Programs get JSON then as well, and nothing else.
    for (arguments, wanted) in [
        (
            &["--json", "--secret-key-file", "/no/such/file"][..],
            "/no/such/file",
        ),
        (&["--json", "--output", "/no/such/folder/x"], "/no/such/folder"),
        (&["--json"], "--api-server"),
    ] {
        let ended = run(arguments, "s");
        let json = ended.json();
        assert_eq!(
            (ended.code, json["result"].as_str()),
            (1, Some("error")),
            "{json}"
        );
        assert!(json["reason"].as_str().unwrap().contains(wanted), "{json}");
        assert_eq!(ended.stderr, "");
    }
    // A server that is not there is told once, where the result is.
    let nowhere = [
        "--json",
        "--api-server",
        "http://127.0.0.1:1",
        "--access-key",
        "a",
    ];
    let ended = run(&nowhere, "s");
    assert_eq!(
        (ended.code, ended.json()["result"].as_str()),
        (1, Some("not verified"))
    );
    assert_eq!(ended.stderr, "");
    // Options that a dialogue would not look at are not accepted with it.
    let ended = home.init(&["--access-key", "x"], &[]);
    assert_eq!(ended.code, 2, "{}{}", ended.stdout, ended.stderr);
}
