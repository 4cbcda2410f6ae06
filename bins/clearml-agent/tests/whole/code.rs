//! Where the code of a task comes from, through the whole agent: logins, large changes, build scripts.

use std::fs;
use std::path::PathBuf;

use clearml_agent_config::{Settings, Sources};
use clearml_api_client::{Auth, Client, ClientOptions};
use serde_json::json;
use xtask::workbench::{AgentOptions, TaskSpec};

use crate::canary::{assert_no_file_has, watched};
use crate::scene::{Scene, finish};
use crate::web::{Site, Web, basic};

const PASS: &str = "ge$heim`4 \\2";

/// An agent whose configuration goes on with this text.
fn options(scene: &Scene, more: &str) -> AgentOptions {
    let config = scene.folder.path().join("more.conf");
    let text = fs::read_to_string(scene.server.config()).unwrap();
    fs::write(&config, format!("{text}\n{more}\n")).unwrap();
    AgentOptions {
        config,
        ..scene.options()
    }
}

fn execute(options: &AgentOptions, task: &str) -> i32 {
    let (code, output, errors) = finish(options.command(&["execute", "--id", task]));
    eprintln!("{output}\n{errors}");
    code
}

#[test]
fn a_login_goes_from_the_configuration_to_its_server_alone() {
    let scene = Scene::new();
    let (_, commit) = scene.repository("project", &[("main.py", "print('out: by login')")]);
    let web = Web::start(Site::git(scene.folder.path()).login("robot", PASS));
    let more = format!("agent {{ git_user: robot, git_pass: {} }}", json!(PASS));
    let options = options(&scene, &more);
    let spec = TaskSpec::repository(&web.url("project"), &commit, "main.py");
    let task = scene.api.create_task("by login", &spec).unwrap();
    let encoded = basic("robot", PASS).split_off("Basic ".len());
    let secrets = [PASS, encoded.as_str()];
    assert_eq!(watched(&secrets, || execute(&options, &task)), 0);
    let ended = scene.ended(&task);
    ended.assert_status("completed");
    assert_eq!(ended.output(), ["out: by login"]);
    assert!(!ended.console.contains(PASS) && !ended.console.contains(&encoded));
    let clones = find(&scene.folder.path().join("home"), "vcs-cache");
    assert_no_file_has(&secrets, &clones);
    assert!(web.logins().iter().all(|login| *login == basic("robot", PASS)));
    assert!(!web.logins().is_empty());

    // What is said on the command line stands above that.
    let wrong = self::options(&scene, "agent { git_user: robot, git_pass: outdated }");
    fs::remove_dir_all(clones).unwrap();
    let arguments = [
        "execute",
        "--id",
        &task,
        "--git-user",
        "robot",
        "--git-pass",
        PASS,
    ];
    let (code, output, errors) = finish(wrong.command(&arguments));
    assert_eq!(code, 0, "{output}{errors}");
    assert!(!output.contains(PASS) && !errors.contains(PASS));
}

#[test]
fn standalone_mode_uses_what_is_there() {
    let scene = Scene::new();
    let (_, commit) = scene.repository("project", &[("main.py", "print('out: fetched')")]);
    // Nothing answers there, and nothing has that package.
    let spec = TaskSpec::repository("https://127.0.0.1:1/team/project.git", &commit, "main.py")
        .requirements("no-such-package-at-all==1");
    let task = scene.api.create_task("standing", &spec).unwrap();
    let options = scene.options();
    let run = || finish(options.command(&["execute", "--standalone-mode", "--id", &task]));
    let (_, stdout, stderr) = run();
    let ended = scene.ended(&task);
    ended.assert_status("failed");
    assert!(
        ended.console.contains("CLEARML_AGENT_FORCE_CODE_DIR"),
        "{stdout}{stderr}"
    );

    // As an earlier build leaves it.
    let build = options.home.join(".clearml/venvs-builds/3.99");
    let copy = build.join("task_repository/project.git");
    fs::create_dir_all(&copy).unwrap();
    fs::write(
        copy.join("main.py"),
        "import os\nprint('out: left by', os.environ['BUILD'])",
    )
    .unwrap();
    fs::create_dir_all(build.join("bin")).unwrap();
    let python = build.join("bin/python");
    fs::write(&python, "#!/bin/sh\nBUILD=\"$0\" exec python3 \"$@\"\n").unwrap();
    fs::set_permissions(&python, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (code, stdout, stderr) = run();
    assert_eq!(code, 0, "{stdout}{stderr}");
    let ended = scene.ended(&task);
    ended.assert_status("completed");
    assert_eq!(
        ended.output().last().unwrap(),
        &format!("out: left by {}", python.display())
    );

    // A change that is not in the copy comes into it, once.
    let change = "diff --git a/main.py b/main.py\n--- a/main.py\n+++ b/main.py\n@@ -1,2 +1,2 @@\n import os\n\
                  -print('out: left by', os.environ['BUILD'])\n\\ No newline at end of file\n\
                  +print('out: changed')\n";
    scene
        .api
        .call(
            "tasks.edit",
            json!({"task": task, "script": {"diff": change}, "force": true}),
        )
        .unwrap();
    for _ in 0..2 {
        let (code, stdout, stderr) = run();
        assert_eq!(code, 0, "{stdout}{stderr}");
        let ended = scene.ended(&task);
        assert_eq!(ended.output().last().unwrap(), &"out: changed");
    }
}

#[test]
fn the_commit_of_a_branch_is_written_into_the_task() {
    let scene = Scene::new();
    let (url, commit) = scene.repository("project", &[("main.py", "print('out: branch')")]);
    let task = scene
        .api
        .create_task("branch", &TaskSpec::repository(&url, "", "main.py"))
        .unwrap();
    assert_eq!(execute(&scene.options(), &task), 0);
    let script = &scene.api.task(&task).unwrap()["script"];
    assert_eq!(script["version_num"], json!(commit), "{script}");
}

/// The folder of this name somewhere below another one.
fn find(folder: &std::path::Path, name: &str) -> PathBuf {
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            if entry.file_name() == name {
                return entry.path();
            }
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            }
        }
    }
    panic!("there is no {name}");
}

#[test]
fn changes_of_600_kilobytes_come_from_the_file_server() {
    let scene = Scene::new();
    let (url, commit) = scene.repository("project", &[("main.py", "print('out: committed')\n")]);
    let lines: String = (0..60_000).map(|number| format!("+# {number}\n")).collect();
    let diff = format!(
        "diff --git a/main.py b/main.py\n--- a/main.py\n+++ b/main.py\n@@ -1 +1,60001 @@\n-print('out: committed')\n+print('out: changed')\n{lines}"
    );
    assert!(diff.len() > 500_000);
    let uri = upload(&scene, "project.1/artifacts/auxiliary_git_diff/größe 1.txt", diff);
    let spec = TaskSpec::repository(&url, &commit, "main.py").with(
        "diff",
        "# WARNING! git diff too large to store\n# (600kb), skipping uncommitted changes\n#",
    );
    let task = scene.api.create_task("large changes", &spec).unwrap();
    let artifact = |uri: &str| {
        let artifacts =
            json!([{"key": "auxiliary_git_diff", "type": "custom", "uri": uri, "mode": "output"}]);
        let edit = json!({"task": task, "force": true, "execution": {"artifacts": artifacts}});
        scene.api.call("tasks.edit", edit).unwrap();
    };
    artifact(&uri);
    assert_eq!(execute(&scene.options(), &task), 0);
    assert_eq!(scene.ended(&task).output(), ["out: changed"]);
    // Elsewhere, our token would go to whoever the task names.
    let web = Web::start(Site::git(scene.folder.path()));
    scene
        .api
        .call("tasks.reset", json!({"task": task, "force": true}))
        .unwrap();
    artifact(&web.url("diff.txt"));
    assert_ne!(execute(&scene.options(), &task), 0);
    scene
        .ended(&task)
        .assert_failed_in("clone: ", "it is not on the file server");
    assert_eq!(web.requests(), 0);
}

/// Stores a file on the file server of a scene; its address.
fn upload(scene: &Scene, path: &str, content: String) -> String {
    let sources = Sources {
        config_file: Some(scene.server.config()),
        ..Sources::default()
    };
    let api = Settings::load(&sources).unwrap().api;
    let auth = Auth::Keys {
        access_key: api.access_key.clone().unwrap(),
        secret_key: api.secret_key.clone().unwrap(),
    };
    let client = Client::new(ClientOptions::new(api.require_server().unwrap(), auth)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        client.login().await.unwrap();
        let files = client.files(api.files_server.as_deref().unwrap()).unwrap();
        files.upload(path, content.into_bytes()).await.unwrap();
        files.url(path).unwrap()
    })
}

#[test]
fn the_exit_code_of_a_custom_build_script_is_that_of_the_agent() {
    let scene = Scene::new();
    let script = scene.folder.path().join("build.sh");
    fs::write(&script, "echo telling why\nexit 17\n").unwrap();
    let options = options(&scene, &format!("agent.custom_build_script: {}", json!(script)));
    let spec = TaskSpec::script("print('out: never')");
    for command in [
        &["execute", "--id"][..],
        &["execute", "--disable-monitoring", "--id"],
    ] {
        let task = scene.api.create_task("custom", &spec).unwrap();
        let arguments: Vec<&str> = command.iter().copied().chain([task.as_str()]).collect();
        let (code, output, errors) = finish(options.command(&arguments));
        assert_eq!(code, 17, "{command:?}: {output}{errors}");
        if command.len() > 2 {
            let told = "clearml_agent: ERROR: Custom build script failed with return code 17";
            assert!(output.contains(told), "{output}");
            continue;
        }
        let what = "Custom build script failed with return code 17";
        let ended = scene.ended(&task);
        ended.assert_failed_in("environment: ", what);
        assert!(ended.console.contains("telling why"));
    }
}
