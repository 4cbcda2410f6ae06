//! What the engine says about a container, line by line.

use serde_json::{Value, json};
use xtask::workbench::Agent;

use crate::place::{Place, docker};
use crate::scene::QUEUE;

/// With references to values that are for everybody, and to one that is not.
const ARGUMENTS: &str = "--network none --rm -it --label two=task --label project=${CLEARML_PROJECT_NAME:none} --label cache=${CLEARML_CONFIG.agent.vcs_cache.enabled} \
    --label kind=${CLEARML_TASK.type} --label queue=${CLEARML_QUEUE_NAME} --label none=${CLEARML_TASK.no.such:default} \
    --label key=${CLEARML_CONFIG.api.credentials.secret_key}";
const CODE: &str = "import json, os, time\nconfig = json.load(open(os.environ['CLEARML_CONFIG_FILE']))\n\
    agent = config['agent']\nprint('out: venvs', agent['venvs_dir'], agent['venvs_cache']['path'])\n\
    print('out: user', agent['git_user'])\nprint('out: running', flush=True)\ntime.sleep(5)\n";

#[test]
fn a_container_has_what_the_tables_say() {
    let Some(place) = Place::or_skip("a_container_has_what_the_tables_say") else {
        return;
    };
    let options = place
        .options()
        .variable(
            "CLEARML_AGENT_EXTRA_DOCKER_ARGS",
            "-e FROM_QUEUE=${CLEARML_QUEUE_NAME|capitalize}",
        )
        .variable("CLEARML_AGENT_EXTRA_DOCKER_LABELS", "one=1 'two=a b'")
        .variable("CLEARML_AGENT_SKIP_PIP_VENV_INSTALL", "/usr/bin/python3")
        .variable("CLEARML_AGENT_GIT_USER", "robot")
        .variable("CLEARML_AGENT__AGENT__VENVS_CACHE__PATH", "~/kept")
        .variable("CLEARML_AGENT__AGENT__PACKAGE_MANAGER__TYPE", "poetry")
        .variable(
            "CLEARML_AGENT__AGENT__DOCKER_CONTAINER_NAME_FORMAT",
            "\"own-{task_id}-{rand_string:.4}\"",
        )
        .variable("CLEARML_DOCKER_SKIP_GPUS_FLAG", "1")
        .variable("SSH_AUTH_SOCK", "")
        .variable("CLEARML_AGENT_DISABLE_SSH_MOUNT", "1")
        .variable("NVIDIA_VISIBLE_DEVICES", "0,1");
    std::fs::create_dir_all(options.home.join(".ssh")).unwrap();
    std::fs::write(options.home.join(".ssh/id_test"), "a key").unwrap();
    let mut agent = place.daemon(&options);
    let task = place.submit("tables", CODE, place.with(ARGUMENTS, ""));
    place.says(&task, "out: running");
    let names = docker(&["ps", "--format", "{{.Names}}"]).unwrap();
    let name = names
        .lines()
        .find(|name| name.starts_with(&format!("own-{task}-")))
        .unwrap()
        .to_owned();
    assert_eq!(name.len(), format!("own-{task}-").len() + 4);
    let found: Value = serde_json::from_str(&docker(&["inspect", &name]).unwrap()).unwrap();
    let (config, host) = (&found[0]["Config"], &found[0]["HostConfig"]);
    let labels = &config["Labels"];
    assert_eq!((&labels["one"], &labels["two"]), (&json!("1"), &json!("a b")));
    for (label, value) in [
        ("cache", "true"),
        ("kind", "training"),
        ("queue", "work"),
        ("none", "default"),
        ("project", "none"),
        ("key", "${CLEARML_CONFIG.api.credentials.secret_key}"),
    ] {
        assert_eq!(labels[label], value, "{labels:#}");
    }
    assert!(
        labels["clearml-worker-id"]
            .as_str()
            .unwrap()
            .starts_with("tester"),
        "{labels}"
    );
    assert_eq!(labels["clearml-worker-id"], labels["clearml-parent-worker-id"]);
    let worker = format!(
        "CLEARML_WORKER_ID={}",
        labels["clearml-worker-id"].as_str().unwrap()
    );
    for wanted in [
        &*worker,
        &format!("CLEARML_DOCKER_IMAGE={}", place.image),
        &format!("CLEARML_TASK_ID={task}"),
        "CLEARML_CONFIG_FILE=/tmp/clearml.conf",
        "CLEARML_AGENT_SKIP_PIP_VENV_INSTALL=/usr/bin/python3",
        "NVIDIA_VISIBLE_DEVICES=0,1",
        "FROM_QUEUE=Work",
    ] {
        assert!(
            config["Env"].as_array().unwrap().contains(&json!(wanted)),
            "{wanted}: {}",
            config["Env"]
        );
    }
    assert_eq!(
        (&config["Image"], &config["Tty"]),
        (&json!(place.image), &json!(false))
    );
    assert_eq!(
        (&host["AutoRemove"], &host["Privileged"], &host["DeviceRequests"]),
        (&json!(false), &json!(false), &Value::Null)
    );
    let home = options.home.display().to_string();
    let mounts = host["Mounts"].as_array().unwrap();
    let at = |target: &str| {
        let found = mounts.iter().find(|mount| mount["Target"] == target);
        let found = found.unwrap_or_else(|| panic!("nothing at {target} in {mounts:#?}"));
        (
            found["Source"].as_str().unwrap().to_owned(),
            found["ReadOnly"] == true,
        )
    };
    for (target, source) in [
        ("/var/cache/apt/archives", ".clearml/apt-cache"),
        ("/root/.cache/pip", ".clearml/pip-cache"),
        ("/root/.cache/pypoetry", ".clearml/poetry-cache"),
        ("/root/.clearml/pip-download-cache", ".clearml/pip-download-cache"),
        ("/clearml_agent_cache", ".clearml/cache"),
        ("/root/.clearml/vcs-cache", ".clearml/vcs-cache"),
        ("/root/.clearml/venvs-cache", "kept"),
        ("/root/.clearml/venvs-cache.v2", "kept.v2-containers"),
    ] {
        let (from, read_only) = at(target);
        // Each worker of a machine has caches of its own.
        assert!(
            from.starts_with(&format!("{home}/{source}")) && !read_only,
            "{target}: {from}"
        );
    }
    assert!(
        mounts.iter().all(|mount| mount["Target"] != "/.ssh"),
        "{mounts:#?}"
    );
    for target in [
        "/tmp/clearml.conf",
        "/.clearml-agent/in",
        "/.clearml-agent/bin/clearml-agent",
    ] {
        assert!(at(target).1, "{target} can be written to");
    }
    let ended = place.ended(&task);
    let expected = [
        "out: venvs ~/.clearml/venvs-builds /root/.clearml/venvs-cache",
        "out: user robot",
    ];
    assert_eq!(ended.output()[..2], expected);
    agent.stop().unwrap();
}

#[test]
fn a_standalone_container_runs_what_it_has() {
    let Some(place) = Place::or_skip("a_standalone_container_runs_what_it_has") else {
        return;
    };
    let arguments = [
        "daemon",
        "--queue",
        QUEUE,
        "--foreground",
        "--standalone-mode",
        "--docker",
        &place.image,
    ];
    let options = place
        .options()
        .variable("CLEARML_AGENT__AGENT__DOCKER_INSTALL_OPENCV_LIBS", "true");
    let mut agent = Agent::start(&options, &arguments).unwrap();
    let spec = xtask::workbench::TaskSpec::script("import sys\nprint('out:', sys.executable)\n")
        .requirements("no-such-package==1.0");
    let task = place.submit_spec("standalone", &spec, place.with("--network none", ""));
    let ended = place.ended(&task);
    ended.assert_status("completed");
    assert!(
        ended.output()[0].starts_with("out: /usr/bin/python3"),
        "{}",
        ended.console
    );
    assert!(!ended.console.contains("apt-get"), "{}", ended.console);
    agent.stop().unwrap();
}
