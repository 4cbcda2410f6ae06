//! The dialogue of `init`, from what is pasted to a file that works.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

use crate::stage::{Home, Served};

/// Everything that a person who accepts all proposals presses after the paste, for a server with ports of its
/// own: web, API, files, output, git, packages.
const ACCEPT: [&str; 6] = ["", "", "", "", "", ""];

/// The words of the whole dialogue, with what differs from run to run replaced.
const DIALOGUE: &str = "\
CLEARML-AGENT setup process

Open the web page of your ClearML server, create an access key there (Settings > Workspace > Create new \
credentials), and copy the configuration that it shows.
Paste copied configuration here:
Detected credentials key=\"<access>\" secret=\"<secret>***\"
WEB Host configured to: [<api>] API Host configured to: [<api>] File Store Host configured to: [<files>] \n\
ClearML Hosts configuration:
Web App: <api>
API: <api>
File Store: <files>

Verifying credentials ...
Credentials verified!
Default Output URI (used to automatically store models and artifacts): (N)one/ClearML (S)erver/(C)ustom [None] \
Default Output URI (used to automatically store models and artifacts): (N)one/ClearML (S)erver/(C)ustom [None] \
Default Output URI: <files>
Enter git username for repository cloning (leave blank for SSH key authentication): [] \
A token that may read repositories is enough. How to create one:
  GitHub     https://github.com/settings/tokens
  GitLab     https://gitlab.com/-/user_settings/personal_access_tokens
  Bitbucket  https://id.atlassian.com/manage-profile/security/api-tokens
Enter git personal token for user 'me': Git repository cloning will be using user=me token=****

Enter additional artifact repository (extra-index-url) to use when installing python packages (leave blank if \
not required):Another artifact repository? (enter another url or leave blank if done):\
The following artifact repositories will be added:
\t- https://u:****@pypi.example.com/simple

New configuration stored in <home>/clearml.conf
CLEARML-AGENT setup completed successfully.
";

fn mode(path: &std::path::Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn a_pasted_configuration_becomes_a_verified_file() {
    let (home, served) = (Home::new(), Served::start());
    let paste = served.paste();
    let answers = [
        paste.as_str(),
        "",
        "yes",
        "Y",
        "what?",
        "s",
        "me",
        "git-token-9876",
        "https://u:pypi-pass@pypi.example.com/simple",
        "",
    ];
    let ended = home.init(&[], &answers);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{}", ended.stdout);
    let place = home.path("").display().to_string();
    let dialogue = ended
        .stdout
        .replace(place.trim_end_matches('/'), "<home>")
        .replace(&served.files, "<files>")
        .replace(&served.api, "<api>")
        .replace(&served.access, "<access>")
        .replace(&format!("\"{}***", &served.secret[..4]), "\"<secret>***");
    assert_eq!(dialogue, DIALOGUE);
    for secret in [served.secret.as_str(), "git-token-9876", "pypi-pass"] {
        ended.never_shows(secret);
    }
    assert_eq!(mode(&home.path("clearml.conf")), 0o600);

    // The file is one that works, and has every answer.
    let listed = home.run(&["list"]);
    assert_eq!(listed.code, 0, "{}", listed.stderr);
    let warned = ["WARN", "Warning"]
        .iter()
        .any(|word| listed.text().contains(word));
    assert!(!warned, "{}", listed.text());
    let text = fs::read_to_string(home.path("clearml.conf")).unwrap();
    let read = clearml_agent_config::parse(&text, &home.path("clearml.conf")).unwrap();
    for (value, expected) in [
        (&read["api"]["credentials"]["secret_key"], served.secret.as_str()),
        (&read["agent"]["git_pass"], "git-token-9876"),
        (&read["sdk"]["development"]["default_output_uri"], &served.files),
        (
            &read["agent"]["package_manager"]["extra_index_url"][0],
            "https://u:pypi-pass@pypi.example.com/simple",
        ),
    ] {
        assert_eq!(value, expected);
    }
    let documented = clearml_agent_config::declaration("agent.vcs_cache.path").unwrap();
    assert!(
        text.contains(documented.doc),
        "no comments over the defaults: {text}"
    );
}

#[test]
fn the_older_form_is_understood_and_credentials_can_be_typed() {
    let (home, served) = (Home::new(), Served::start());
    let paste = served.older_paste();
    // API host accepted; web and files have no proposal, so an empty answer is asked again.
    let answers = [
        paste.as_str(),
        "",
        "",
        "no scheme",
        "web.example.com/x",
        &served.files,
    ];
    let ended = home.init(&[], &[&answers[..], &["c", "s3://bucket", "", ""]].concat());
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    for wanted in [
        &format!("API Host configured to: [{}]", served.api),
        "Web Application Host configured to: [] Web Application Host configured to: [] That is not the address",
        "Web App: https://web.example.com/x",
        "Default Output URI: s3://bucket",
    ] {
        assert!(ended.stdout.contains(wanted), "no {wanted:?}: {}", ended.stdout);
    }

    let home = Home::new();
    let typed = [
        "not { a configuration",
        "",
        "",
        "",
        &served.access,
        &served.secret,
    ];
    let servers = [served.api.as_str(), &served.api, &served.files];
    let ended = home.init(&[], &[&typed[..], &servers, &ACCEPT[3..]].concat());
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    assert!(
        ended.stdout.contains("Could not parse credentials"),
        "{}",
        ended.stdout
    );
    assert!(ended.stdout.contains("https://app.clear.ml"), "{}", ended.stdout);
    ended.never_shows(&served.secret);
}

#[test]
fn a_host_without_port_leads_to_the_question_for_ports() {
    let paste = "api { web_server: http://127.0.0.1, credentials { access_key: A, secret_key: B } }\n";
    for (answers, expected) in [
        (
            &["", "", "", ""][..],
            [
                "http://127.0.0.1:8080",
                "http://127.0.0.1:8008",
                "http://127.0.0.1:8081",
            ],
        ),
        (
            &["", "n", "1234", "x", "5678", "", "", ""],
            [
                "http://127.0.0.1:1234",
                "http://127.0.0.1:5678",
                "http://127.0.0.1",
            ],
        ),
        (
            &["", "perhaps", "", "http://127.0.0.1:1", "http://127.0.0.1:2"],
            ["http://127.0.0.1", "http://127.0.0.1:1", "http://127.0.0.1:2"],
        ),
    ] {
        // The dialogue ends at the verification; what it has concluded is shown before.
        let ended = Home::new().init(&[], &[&[paste], answers].concat());
        let [web, api, files] = expected;
        let wanted = format!("Web App: {web}\nAPI: {api}\nFile Store: {files}\n");
        assert!(ended.stdout.contains(&wanted), "no {wanted:?}: {}", ended.stdout);
        assert!(
            ended.stdout.contains("default 8080 port n/[y]?"),
            "{}",
            ended.stdout
        );
    }
}

#[test]
fn wrong_credentials_may_be_corrected_once() {
    let served = Served::start();
    let paste = served.paste_with("a-wrong-secret-0123456789");
    let home = Home::new();
    let again = [served.access.as_str(), "another-wrong-secret"];
    let ended = home.init(&[], &[&[paste.as_str(), "", "", ""][..], &again].concat());
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    let refused = format!(
        "Error: could not verify credentials: key={} secret=****",
        served.access
    );
    assert_eq!(ended.stdout.matches(&refused).count(), 2, "{}", ended.stdout);
    assert!(
        ended
            .stdout
            .ends_with("Exiting setup without creating configuration file\n"),
        "{}",
        ended.stdout
    );
    ended.never_shows("a-wrong-secret");
    ended.never_shows("another-wrong-secret");
    assert!(!home.path("clearml.conf").exists());

    let again = [served.access.as_str(), &served.secret];
    let ended = home.init(
        &[],
        &[&[paste.as_str(), "", "", ""][..], &again, &["", "", ""]].concat(),
    );
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    assert!(home.path("clearml.conf").exists(), "{}", ended.stdout);
}

#[test]
fn a_file_that_is_there_is_never_overwritten() {
    let served = Served::start();
    let paste = served.paste();
    let all = [&[paste.as_str()][..], &ACCEPT].concat();
    for name in ["clearml.conf", "trains.conf"] {
        let home = Home::new();
        fs::write(home.path(name), "agent { worker_name: mine }\n").unwrap();
        let ended = home.init(&[], &all);
        assert_eq!(ended.code, 0);
        let wanted = format!("Configuration file already exists: {}", home.path(name).display());
        assert!(ended.stdout.contains(&wanted), "{}", ended.stdout);
        assert_eq!(
            fs::read_to_string(home.path(name)).unwrap(),
            "agent { worker_name: mine }\n"
        );
        assert_eq!(
            fs::read_dir(home.path(""))
                .unwrap()
                .flatten()
                .filter(|e| e.file_name() != "tmp")
                .count(),
            1
        );
    }
    // An empty one is nobody's work; a link to it stays a link.
    let home = Home::new();
    fs::write(home.path("real"), "").unwrap();
    std::os::unix::fs::symlink(home.path("real"), home.path("clearml.conf")).unwrap();
    let ended = home.init(&[], &all);
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    assert!(home.path("clearml.conf").is_symlink() && mode(&home.path("real")) == 0o600);
    // What is no file is left alone, too.
    let ended = home.init(&["--output", "/dev/null"], &all);
    assert_eq!(ended.code, 1);
    assert!(ended.text().contains("not a regular file"), "{}", ended.text());
}

#[test]
fn the_end_of_the_input_is_an_error_and_leaves_nothing() {
    let served = Served::start();
    let paste = served.paste();
    for lines in [
        &[][..],
        &["api {"],
        &[paste.as_str(), ""],
        &[paste.as_str(), "", "", "", ""],
    ] {
        let home = Home::new();
        let ended = home.init(&[], lines);
        assert_eq!(ended.code, 1, "{}{}", ended.stdout, ended.stderr);
        assert!(ended.text().contains("input ended"), "{}", ended.text());
        assert!(!home.path("clearml.conf").exists());
    }
}

/// Both ends of a new terminal.
pub(crate) fn terminal() -> (File, File) {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap();
    let user = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    (File::from(controller), user)
}

/// Reads the terminal until it shows `wanted`; returns all that was shown.
pub(crate) fn read_until(screen: &mut File, shown: &mut String, wanted: &str) {
    let started = Instant::now();
    let mut bytes = [0; 4096];
    while !shown.contains(wanted) {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "no {wanted:?}: {shown}"
        );
        let count = screen.read(&mut bytes).unwrap_or(0);
        shown.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
}

#[test]
fn a_terminal_shows_no_secret_and_is_given_back_by_ctrl_c() {
    let home = Home::new();
    let (mut screen, user) = terminal();
    let mut command = home.options().command(&["init"]);
    command
        .stdin(Stdio::from(user.try_clone().unwrap()))
        .stdout(Stdio::from(user.try_clone().unwrap()))
        .stderr(Stdio::from(user.try_clone().unwrap()));
    let mut child = command.spawn().unwrap();
    let mut shown = String::new();
    read_until(&mut screen, &mut shown, "Paste copied configuration here:");
    write!(
        screen,
        "api {{ credentials {{ access_key: pasted-access, secret_key: short }}, api_server: h:1 }}\n\n"
    )
    .unwrap();
    read_until(&mut screen, &mut shown, "API Host configured to: [http://h:1]");
    // What is typed otherwise is shown, but no secret was, nor a part of one that is too short.
    writeln!(screen, "typed-visibly.example.com:2").unwrap();
    read_until(&mut screen, &mut shown, "typed-visibly");
    assert!(shown.contains("secret=\"***\""), "{shown}");
    assert!(
        !shown.contains("secret_key") && !shown.contains("short"),
        "{shown}"
    );

    let echo = || {
        let modes = rustix::termios::tcgetattr(&user).unwrap();
        modes.local_modes.contains(rustix::termios::LocalModes::ECHO)
    };
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(254));
    assert!(echo());
    assert!(!home.path("clearml.conf").exists());

    // In the middle of a secret, too.
    let mut command = home.options().command(&["init"]);
    command
        .stdin(Stdio::from(user.try_clone().unwrap()))
        .stdout(Stdio::from(user.try_clone().unwrap()));
    let mut child = command.spawn().unwrap();
    let mut shown = String::new();
    read_until(&mut screen, &mut shown, "Paste copied configuration here:");
    assert!(!echo());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(254));
    assert!(echo());
}

#[test]
fn the_result_can_be_read_by_machines() {
    let (home, served) = (Home::new(), Served::start());
    let paste = served.paste();
    let ended = home.init(&["--json"], &[&[paste.as_str()][..], &ACCEPT].concat());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let json = ended.json();
    assert_eq!(json["result"], "written");
    assert_eq!(
        json["path"],
        Value::from(home.path("clearml.conf").display().to_string())
    );
    assert_eq!(json["api_server"], Value::from(served.api.as_str()));
    assert!(
        ended.stderr.contains("CLEARML-AGENT setup process"),
        "{}",
        ended.stderr
    );
    ended.never_shows(&served.secret);
}
