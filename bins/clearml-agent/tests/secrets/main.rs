//! Canaries: a different secret in every place where one can stand, and nobody else may ever see one of them.
//!
//! Looked at are all outputs, the console and the task on the server, files that others can read, the command
//! lines of all processes while the agent works, and the environment of the shim, which lives longest.

#![expect(clippy::unwrap_used, reason = "a test whose scene cannot be set has failed")]

mod canaries;
mod scene;
mod trap;
mod watch;

use std::time::Duration;

use scene::{QUEUE, Scene, finish};
use serde_json::json;
use watch::Watch;
use xtask::workbench::{Agent, TaskSpec, wait_for};

/// Prints a variable backwards: proof that it arrived, in a form that nothing masks.
const BACKWARDS: &str = "import os, time\nprint('out:', os.environ['SECTION_TOKEN'][::-1], flush=True)\n\
                         time.sleep(1)\n";

#[test]
fn a_daemon_and_its_tasks_keep_every_secret() {
    let scene = Scene::new();
    for debug in [false, true] {
        let watch = Watch::start(&scene);
        let mut arguments = vec!["daemon", "--queue", QUEUE, "--foreground"];
        let pass = scene.canaries.get("--git-pass");
        if debug {
            arguments.insert(0, "--debug");
            // Visible in the daemon's own command line by the will of its user, and in no other.
            arguments.extend(["--git-pass", &pass]);
        }
        // Once with the configured login, once with that of the address.
        let host = if debug { "git.example.com" } else { "127.0.0.1" };
        let options = scene.options().variable("CLEARML_AGENT_GIT_HOST", host);
        let mut daemon = Agent::start(&options, &arguments).unwrap();
        watch.spare(daemon.pid());

        let good = scene.run(&TaskSpec::script(BACKWARDS));
        let arrived: String = scene.canaries.get("SECTION_TOKEN").chars().rev().collect();
        scene.assert_status(&good, "completed");
        assert!(
            scene.console(&good).contains(&arrived),
            "{}",
            scene.console(&good)
        );

        let url = scene.trap.url(&scene.canaries.get("repository"), "project.git");
        let clone = scene.run(&TaskSpec::repository(&url, &"0".repeat(40), "main.py"));
        scene.assert_status(&clone, "failed");
        let private = scene.trap.url("", "private.git");
        let clone_with_pass = scene.run(&TaskSpec::repository(&private, &"0".repeat(40), "main.py"));
        scene.assert_status(&clone_with_pass, "failed");

        // pip chooses a login by the path.
        let index = scene
            .trap
            .url(&scene.canaries.get("requirement"), "required/simple");
        let requirements = format!("--extra-index-url {index}\nclearml-canary-of-nobody==1.0\n");
        let install = scene.run(&TaskSpec::script("print(1)").requirements(&requirements));
        scene.assert_status(&install, "failed");

        // Packages that are themselves behind a login: a repository, and a file.
        let address = |place: &str, path: &str| scene.trap.url(&scene.canaries.get(place), path);
        let direct = [
            format!("git+{}", address("git requirement", "package.git")),
            address("file requirement", "clearml_canary-1.0-py3-none-any.whl"),
        ]
        .map(|target| {
            let line = format!("clearml-canary @ {target}\n");
            let task = scene.run(&TaskSpec::script("print(1)").requirements(&line));
            scene.assert_status(&task, "failed");
            task
        });

        for task in [&good, &clone, &clone_with_pass, &install]
            .into_iter()
            .chain(&direct)
        {
            scene.check_task(task);
        }
        assert!(
            daemon.output().contains("vault of the canaries"),
            "{}",
            daemon.output()
        );
        let status = daemon.stop().unwrap();
        assert_eq!(status.code(), Some(254), "{}", daemon.output());
        scene
            .canaries
            .check("the daemon's output", daemon.output().as_bytes());
        watch.finish();
    }
    scene.check_files();
    // Without these the places above would not have been reached.
    for place in [
        "repository",
        "requirement",
        "index",
        "agent.git_pass",
        "pip flag",
        "pip flag with =",
        "git requirement",
        "file requirement",
    ] {
        assert!(
            scene.trap.saw(&scene.canaries.get(place)),
            "the secret of {place} was never used"
        );
    }
}

#[test]
fn commands_show_no_secret() {
    let scene = Scene::new();
    let watch = Watch::start(&scene);
    let commands: &[&[&str]] = &[
        &["config"],
        &["config", "--json"],
        &["config", "--origins"],
        &["list"],
        &["list", "--json"],
        &["doctor"],
        &["doctor", "--json"],
        &["init"],
        &["daemon", "--queue", QUEUE, "--status"],
        &["daemon", "--stop"],
        &["daemon", "--queue", "no such queue"],
        &["execute", "--id", "no-such-task"],
    ];
    for command in commands {
        for debug in [&[][..], &["--debug"][..]] {
            let arguments = [debug, command].concat();
            let (_, stdout, stderr) = finish(scene.options().command(&arguments));
            scene.canaries.check(&format!("{arguments:?}"), stdout.as_bytes());
            scene.canaries.check(&format!("{arguments:?}"), stderr.as_bytes());
        }
    }
    let (code, stdout, _) = finish(scene.options().command(&["config"]));
    assert_eq!(code, 0);
    assert!(
        stdout.contains("SECTION_TOKEN") && stdout.contains("****"),
        "{stdout}"
    );
    watch.finish();
    scene.check_files();
}

/// What is wrong, the variables that make it so, and the command that meets it.
type Wrong<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);

#[test]
fn errors_about_the_environment_show_no_secret() {
    let scene = Scene::new();
    let refused = scene.canaries.get("refused");
    let away = format!("http://somebody:{refused}@127.0.0.1:1");
    let wrong: &[Wrong<'_>] = &[
        (
            "wrong keys",
            &[
                ("CLEARML_API_ACCESS_KEY", "SOMEBODY"),
                ("CLEARML_API_SECRET_KEY", &refused),
            ],
            &["list"],
        ),
        (
            "half of the keys",
            &[("CLEARML_API_SECRET_KEY", &refused)],
            &["daemon", "--queue", QUEUE],
        ),
        ("a wrong token", &[("CLEARML_AUTH_TOKEN", &refused)], &["list"]),
        (
            "a server that is away",
            &[("CLEARML_API_HOST", &away)],
            &["daemon", "--queue", QUEUE],
        ),
        (
            "a host that is none",
            &[("CLEARML_API_HOST", &away[..away.len() - 12])],
            &["list"],
        ),
        (
            "a proxy that is away",
            &[
                ("HTTP_PROXY", &away),
                ("http_proxy", &away),
                ("NO_PROXY", ""),
                ("no_proxy", ""),
            ],
            &["list"],
        ),
        (
            "a wrong type",
            &[("CLEARML_AGENT__AGENT__GIT_PASS", &format!("[\"{refused}\"]"))],
            &["list"],
        ),
    ];
    for (what, variables, arguments) in wrong {
        for debug in [&[][..], &["--debug"][..]] {
            let mut options = scene.options();
            for (name, value) in *variables {
                options = options.variable(name, *value);
            }
            let (_, stdout, stderr) = finish(scene.limited(&options, &[debug, arguments].concat()));
            scene.canaries.check(what, stdout.as_bytes());
            scene.canaries.check(what, stderr.as_bytes());
        }
    }
}

#[test]
fn errors_in_files_show_no_secret() {
    let scene = Scene::new();
    let refused = scene.canaries.get("refused");
    let broken = [
        (
            "an open quote",
            format!("api.credentials.secret_key: \"{refused}\n"),
        ),
        (
            "an open brace",
            format!("environment {{ SOME_TOKEN: \"{refused}\"\n agent {{ git_pass: {refused}\n"),
        ),
        ("a wrong sign", format!("agent.git_pass: {refused} ] }}\n")),
        (
            "a wrong type",
            format!("agent.git_pass: [{{ x: \"{refused}\" }}]\nagent.translate_ssh: \"{refused}\"\n"),
        ),
        (
            "a substitution",
            format!("agent.git_pass: ${{nothing}}{refused}\n"),
        ),
    ];
    for (what, text) in broken {
        let (_, stdout, stderr) = finish(scene.with_config(&text).command(&["--debug", "config"]));
        scene.canaries.check(what, stdout.as_bytes());
        scene.canaries.check(what, stderr.as_bytes());
    }
}

/// A session token of the server stands in for keys; it is as secret as they are.
#[test]
fn a_session_token_is_a_secret() {
    let scene = Scene::new();
    let token = scene.api.call("auth.login", json!({})).unwrap()["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let options = scene.options().variable("CLEARML_AUTH_TOKEN", &token);
    let watch = Watch::start(&scene);
    let (code, stdout, stderr) = finish(options.command(&["--debug", "list"]));
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(
        !stdout.contains(&token) && !stderr.contains(&token),
        "{stdout}{stderr}"
    );
    let daemon = Agent::start(&options, &["--debug", "daemon", "--queue", QUEUE, "--foreground"]).unwrap();
    wait_for(
        "the worker",
        Duration::from_secs(30),
        Duration::from_millis(50),
        || {
            let reply = scene.api.call("workers.get_all", json!({}))?;
            Ok(reply["workers"]
                .as_array()
                .is_some_and(|workers| !workers.is_empty())
                .then_some(()))
        },
    )
    .unwrap();
    let good = scene.run(&TaskSpec::script("print('out: hello')"));
    scene.assert_status(&good, "completed");
    assert!(!daemon.output().contains(&token), "{}", daemon.output());
    assert!(!scene.console(&good).contains(&token));
    watch.finish();
}
