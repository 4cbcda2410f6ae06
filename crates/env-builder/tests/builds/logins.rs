//! Repositories that want a login, over real HTTP: who gets it, and who never sees it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use clearml_env_builder::{Credential, Stage};
use clearml_support::secret::Secret;
use serde_json::{Value, json};

use crate::canary::{assert_no_file_has, watched};
use crate::common::Bench;
use crate::fixtures::{commit, git};
use crate::web::{Site, Web, basic};

/// Characters that a shell, a URL or git's configuration would take for something else.
const PASS: &str = r#"ge$heim`4"2\ :@/%41'x"#;
const MAIN: &str = "print('from the web')\n";

fn script(url: &str, commit: &str) -> Value {
    json!({"binary": "python3", "repository": url, "version_num": commit, "entry_point": "main.py", "working_dir": "."})
}

fn with_login(bench: &mut Bench) {
    bench.settings.git.user = Some("robot".into());
    bench.settings.git.pass = Some(Secret::new(PASS));
}

fn encoded() -> String {
    basic("robot", PASS).split_off("Basic ".len())
}

#[test]
fn a_login_reaches_its_server_and_nothing_else() {
    let mut bench = Bench::new();
    let (_, first) = bench.repository(&[("main.py", MAIN)]);
    let web = Web::start(Site::git(&bench.path("origin")).login("robot", PASS));
    with_login(&mut bench);
    let encoded = encoded();
    let secrets = [PASS, &encoded, "ge%24heim"];
    let url = web.url("project.git");
    let with_name = url.replace("://", "://somebody@");
    for url in [&url, &with_name] {
        let (_, host, output) = watched(&secrets, || bench.build_and_run(script(url, &first)));
        assert_eq!(output, "from the web\n");
        for secret in secrets {
            assert!(!host.console().contains(secret), "{}", host.console());
        }
        // git asks first and shows the login only when it is told to.
        assert!(web.seen.lock().unwrap().contains(&None));
    }
    assert_no_file_has(&secrets, bench.temp.path());
    let root = bench.path("run/task_repository/project.git");
    assert_eq!(git(&root, &["remote", "get-url", "origin"]), url);
    // Complete logins in addresses win, and stay out of everything as well.
    bench.settings.git.pass = Some(Secret::new("wrong"));
    let complete = web
        .url("project.git")
        .replace("://", "://robot:ge%24heim%604%222%5C%20%3A%40%2F%2541'x@");
    let (prepared, host, _) = watched(&secrets, || bench.build_and_run(script(&complete, "")));
    assert_eq!(prepared.commit.as_deref(), Some(first.as_str()));
    assert!(!host.console().contains("ge%24heim"), "{}", host.console());
    assert!(
        host.console().contains("url: http://robot@127.0.0.1"),
        "{}",
        host.console()
    );
    assert_no_file_has(&secrets, bench.temp.path());
}

#[test]
fn another_host_gets_no_login() {
    let mut bench = Bench::new();
    let (_, first) = bench.repository(&[("main.py", MAIN)]);
    let web = Web::start(Site::git(&bench.path("origin")).login("robot", PASS));
    with_login(&mut bench);
    bench.settings.git.host = Some("git.example.com".into());
    let error = bench
        .build(script(&web.url("project.git"), &first))
        .0
        .unwrap_err();
    assert_eq!(error.stage(), Stage::Clone);
    assert_eq!(web.logins(), [""; 0]);
    // Extra logins are for hosts of their own; the first that fits is used.
    let extra = |user: &str, pass: &str, host: Option<&str>| Credential {
        user: user.into(),
        pass: Secret::new(pass),
        host: host.map(str::to_owned),
    };
    bench.settings.git.extra_credentials = vec![
        extra("x", "y", None),
        extra("x", "y", Some("elsewhere")),
        extra("robot", PASS, Some("127.0.0.1")),
    ];
    let (_, host, output) = bench.build_and_run(script(&web.url("project.git"), &first));
    assert_eq!(output, "from the web\n");
    assert!(host.console().contains("1 of the entries"), "{}", host.console());
}

#[test]
fn prefixes_of_addresses_choose_logins() {
    let mut bench = Bench::new();
    let (_, first) = bench.repository(&[("main.py", MAIN)]);
    let web = Web::start(Site::git(bench.temp.path()).login("robot", PASS));
    with_login(&mut bench);
    bench.settings.git.host_match_prefix = true;
    bench.settings.git.host = Some(web.url("other"));
    assert!(
        bench
            .build(script(&web.url("origin/project.git"), &first))
            .0
            .is_err()
    );
    assert_eq!(web.logins(), [""; 0]);
    bench.settings.git.host = Some(web.url("origin"));
    bench
        .build(script(&web.url("origin/project.git"), &first))
        .0
        .unwrap();
}

#[test]
fn a_redirection_to_another_server_gets_no_login() {
    let mut bench = Bench::new();
    let (_, first) = bench.repository(&[("main.py", MAIN)]);
    let site = Site::git(&bench.path("origin"));
    let elsewhere = Web::start(site.clone().login("robot", PASS));
    let target = elsewhere.url("").trim_end_matches('/').to_owned();
    let entrance = Web::start(Site {
        redirect: Some(target),
        ..site.login("robot", PASS)
    });
    with_login(&mut bench);
    for helper in [true, false] {
        bench.settings.git.enable_ask_pass = helper;
        let (result, _) = bench.build(script(&entrance.url("project.git"), &first));
        assert_eq!(result.unwrap_err().stage(), Stage::Clone);
        assert_eq!(elsewhere.logins(), [""; 0], "helper: {helper}");
    }
    assert!(elsewhere.requests() > 0);
}

#[test]
fn a_submodule_on_another_server_gets_no_login() {
    let mut bench = Bench::new();
    let (repository, _) = bench.repository(&[("main.py", "print(open('sub/x.txt').read())")]);
    let site = Site::git(&bench.path("origin"));
    let main = Web::start(site.clone().login("robot", PASS));
    let closed = Web::start(site.clone().login("robot", PASS));
    let open = Web::start(site);
    let module = bench.module("module.git", &[("x.txt", "of the module")]);
    with_login(&mut bench);
    // By its full name, the second server would get a login that is meant for the host.
    let foreign = [
        (closed.url("module.git"), None),
        (
            closed.url("module.git").replace("127.0.0.1", "localhost"),
            Some("127.0.0.1"),
        ),
        // A user that looks like the host that has a login.
        (
            closed
                .url("module.git")
                .replace("://", &format!("://127.0.0.1:{}%2f@", main.port)),
            None,
        ),
    ];
    for (url, host) in foreign {
        bench.settings.git.host = host.map(str::to_owned);
        bench.add_module(&repository, "sub", &url, &module);
        let commit = commit(&repository, &[]);
        let error = bench
            .build(script(&main.url("project.git"), &commit))
            .0
            .unwrap_err();
        assert_eq!(error.stage(), Stage::Clone);
        assert!(error.to_string().contains("submodule sub: "), "{error}");
        assert!(closed.requests() > 0);
        let seen = closed.logins().join(" ");
        assert!(!seen.contains(&encoded()), "{url}: {seen}");
        assert!(!decoded(&seen).contains(PASS), "{url}: {seen}");
    }
    bench.settings.git.host = None;
    bench.add_module(&repository, "sub", &open.url("module.git"), &module);
    let commit = commit(&repository, &[]);
    let encoded = encoded();
    let secrets = [PASS, encoded.as_str()];
    let (_, _, output) = watched(&secrets, || {
        bench.build_and_run(script(&main.url("project.git"), &commit))
    });
    assert_eq!(output, "of the module\n");
    assert_eq!(open.logins(), [""; 0]);
    assert_no_file_has(&secrets, &bench.path("vcs-cache"));
}

fn decoded(headers: &str) -> String {
    use base64::Engine;
    headers
        .split_whitespace()
        .filter_map(|word| base64::engine::general_purpose::STANDARD.decode(word).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .collect()
}

#[test]
fn a_submodule_on_the_same_server_gets_the_login() {
    let mut bench = Bench::new();
    let (repository, _) = bench.repository(&[("main.py", "print(open('libs/a b/x.txt').read())")]);
    let web = Web::start(Site::git(&bench.path("origin")).login("robot", PASS));
    let module = bench.module("module.git", &[("x.txt", "of the module")]);
    with_login(&mut bench);
    for url in ["../module.git".to_owned(), web.url("module.git")] {
        bench.add_module(&repository, "libs/a b", &url, &module);
        let commit = commit(&repository, &[]);
        let (_, _, output) = bench.build_and_run(script(&web.url("project.git"), &commit));
        assert_eq!(output, "of the module\n", "{url}");
    }
}

#[test]
fn a_helper_of_the_user_is_asked_for_other_hosts() {
    let mut bench = Bench::new();
    let (_, first) = bench.repository(&[("main.py", MAIN)]);
    let web = Web::start(Site::git(&bench.path("origin")).login("mine", "own-word"));
    with_login(&mut bench);
    bench.settings.git.host = Some("git.example.com".into());
    let helper = bench.path("helper");
    fs::write(
        &helper,
        "#!/bin/sh\ncase \"$1\" in U*) echo mine;; *) echo own-word;; esac\n",
    )
    .unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    bench.env("GIT_ASKPASS", helper.display().to_string());
    bench.build(script(&web.url("project.git"), &first)).0.unwrap();
}

#[test]
fn tokens_of_azure_are_headers_for_one_server() {
    for (entra, expected) in [
        (true, "Bearer to\"k\\en".to_owned()),
        (false, basic("", "to\"k\\en")),
    ] {
        let mut bench = Bench::new();
        let (_, first) = bench.repository(&[("main.py", MAIN)]);
        let web = Web::start(Site {
            wanted: Some(expected.clone()),
            ..Site::git(&bench.path("origin"))
        });
        bench.settings.git.user = Some("anybody".into());
        bench.settings.git.pass = Some(Secret::new("to\"k\\en"));
        bench.settings.git.use_ms_entra_token = entra;
        bench.settings.git.use_azure_pat = !entra;
        let word = expected.split(' ').next_back().unwrap().to_owned();
        let secrets = ["to\"k\\en", word.as_str()];
        watched(&secrets, || {
            bench.build(script(&web.url("project.git"), &first)).0
        })
        .unwrap();
        assert!(web.logins().iter().all(|login| *login == expected));
        assert_no_file_has(&secrets, bench.temp.path());
    }
}

#[test]
fn without_the_helper_a_login_is_a_header() {
    let mut bench = Bench::new();
    let (_, first) = bench.repository(&[("main.py", MAIN)]);
    let web = Web::start(Site::git(&bench.path("origin")).login("robot", PASS));
    with_login(&mut bench);
    bench.settings.git.enable_ask_pass = false;
    let encoded = encoded();
    let secrets = [PASS, encoded.as_str()];
    watched(&secrets, || {
        bench.build(script(&web.url("project.git"), &first)).0
    })
    .unwrap();
    assert_no_file_has(&secrets, bench.temp.path());
}

#[test]
fn a_server_that_is_busy_is_asked_again() {
    let mut bench = Bench::new();
    let (_, first) = bench.repository(&[("main.py", MAIN)]);
    let site = Site {
        busy: 1,
        ..Site::git(&bench.path("origin"))
    };
    let web = Web::start(site.clone());
    let error = bench
        .build(script(&web.url("project.git"), &first))
        .0
        .unwrap_err();
    assert!(error.to_string().contains("503"), "{error}");
    let web = Web::start(site);
    bench.settings.git.retries = 1;
    let (result, host) = bench.build(script(&web.url("project.git"), &first));
    result.unwrap();
    assert!(host.console().contains("once more in 2 s"), "{}", host.console());
}
