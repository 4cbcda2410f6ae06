//! A task from the queue to its end.

use serde_json::json;
use xtask::workbench::TaskSpec;

use crate::fixtures::make_wheel;
use crate::place::{LABEL, Place, docker};
use crate::scene::finish;

const CANARY: &str = "canary-of-git-4711";

#[test]
fn a_task_runs_without_any_network_and_nothing_shows_its_secrets() {
    let Some(place) = Place::or_skip("a_task_runs_without_any_network_and_nothing_shows_its_secrets") else {
        return;
    };
    let wheels = place.scene.folder.path().join("wheels");
    make_wheel(&wheels, "alpha", "1.0");
    let options = place
        .options()
        .variable("CLEARML_AGENT_GIT_USER", "robot")
        .variable("CLEARML_AGENT_GIT_PASS", CANARY)
        .variable(
            "CLEARML_AGENT_EXTRA_DOCKER_ARGS",
            format!(
                "-v {}:/wheels:ro -e PIP_NO_INDEX=1 -e PIP_FIND_LINKS=/wheels",
                wheels.display()
            ),
        );
    let mut agent = place.daemon(&options);
    let code = "import alpha, os, time\nprint('out: alpha', alpha.VERSION)\n\
                print('out: exported', os.environ['EXPORTED'], os.environ['BLOCK'])\n\
                print('out: config', open(os.environ['CLEARML_CONFIG_FILE']).read().count('secret_key'))\n\
                time.sleep(4)\nprint('out: done')\n";
    let setup = "#!/bin/bash\n# a comment\nif true; then\n  BLOCK=inner\nelse\n  BLOCK=outer\nfi\n\
                 export BLOCK\nexport EXPORTED=\"two words\"\nfalse\ncat <<END > /dev/null\nnothing ' \" $(\nEND\n";
    let spec = TaskSpec::script(code).requirements("alpha==1.0");
    let task = place.submit_spec("in a container", &spec, place.with("--network none", setup));
    place.says(&task, "out: alpha 1.0");
    let [name] = &Place::containers(&task)[..] else {
        panic!("{:?}", Place::containers(&task));
    };
    let seen = docker(&["inspect", name]).unwrap() + &docker(&["top", name]).unwrap();
    let secret = std::fs::read_to_string(place.scene.server.config()).unwrap();
    let secret = secret.split("secret_key").nth(1).unwrap();
    let secret = secret.split('"').find(|part| part.len() > 10).unwrap();
    for hidden in [CANARY, secret] {
        assert!(!seen.contains(hidden), "{hidden} in {seen}");
    }
    for shown in [
        LABEL,
        "clearml-worker-id",
        "CLEARML_TASK_ID=",
        "\"NetworkMode\": \"none\"",
    ] {
        assert!(seen.contains(shown), "no {shown} in {seen}");
    }
    let ended = place.ended(&task);
    ended.assert_status("completed");
    let output = ended.output();
    assert_eq!(output[..2], ["out: alpha 1.0", "out: exported two words inner"]);
    assert_eq!(output.last(), Some(&"out: done"));
    let written = ended.task["script"]["requirements"].to_string();
    assert!(written.contains("alpha==1.0"), "{written}");
    Place::is_removed(&task);

    // The environment comes from the mounted cache, and a task without an image gets the default one.
    let again =
        TaskSpec::script("import alpha\nprint('out: again', alpha.VERSION)").requirements("alpha==1.0");
    let task = place.submit_spec("again", &again, json!({}));
    let ended = place.ended(&task);
    ended.assert_status("completed");
    assert_eq!(ended.task["container"]["image"], json!(place.image));
    agent.stop().unwrap();
}

#[test]
fn execute_runs_one_task_in_a_container() {
    let Some(place) = Place::or_skip("execute_runs_one_task_in_a_container") else {
        return;
    };
    let code = "import sys\nprint('out: here')\nsys.exit(3)\n";
    let task = place
        .scene
        .api
        .create_task("alone", &TaskSpec::script(code))
        .unwrap();
    let arguments = ["execute", "--id", &task, "--docker", &place.image];
    let options = place.options();
    let (code, stdout, stderr) = finish(options.command(&arguments));
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(stdout.contains("out: here"), "{stdout}");
    let ended = place.ended(&task);
    ended.assert_status("failed");
    assert_eq!(ended.reason(), "worker execution exit code 3");
    place
        .scene
        .api
        .call("tasks.reset", json!({"task": task, "force": true}))
        .unwrap();
    let options = options.variable("CLEARML_AGENT_PROPAGATE_EXITCODE", "1");
    let (code, stdout, stderr) = finish(options.command(&arguments));
    assert_eq!(code, 3, "{stdout}{stderr}");
}

#[test]
fn keys_are_there_and_ports_are_told() {
    let Some(place) = Place::or_skip("keys_are_there_and_ports_are_told") else {
        return;
    };
    let home = place.options().home;
    std::fs::create_dir_all(home.join(".ssh")).unwrap();
    std::fs::write(home.join(".ssh/id_test"), "a key").unwrap();
    std::fs::write(home.join(".gitconfig"), "[user]\n name = robot\n").unwrap();
    let code = "import os\nkey = os.path.expanduser('~/.ssh/id_test')\n\
                print('out:', open(key).read(), oct(os.stat(key).st_mode & 0o777))\n\
                print('out:', 'robot' in open(os.path.expanduser('~/.gitconfig')).read())\n\
                print('out:', os.environ['CLEARML_AGENT_HOST_IP'])\n";
    // A port that somebody has already.
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let options = place
        .options()
        .variable("CLEARML_AGENT_FORCE_HOST_MACHINE_IP", "192.0.2.7")
        .variable("SSH_AUTH_SOCK", "");
    let mut agent = place.daemon(&options);
    let task = place.submit("keys", code, place.with(&format!("-p {port}:22"), ""));
    let ended = place.ended(&task);
    ended.assert_status("completed");
    assert_eq!(
        ended.output(),
        ["out: a key 0o600", "out: True", "out: 192.0.2.7"]
    );
    let told = ended.task["runtime"]["_external_host_tcp_port_mapping"]
        .as_str()
        .unwrap();
    let (host, inside) = told.split_once(':').unwrap();
    assert!(inside == "22" && host != port.to_string(), "{told}");
    agent.stop().unwrap();
}

#[test]
fn the_socket_of_an_agent_for_keys_takes_their_place() {
    let Some(place) = Place::or_skip("the_socket_of_an_agent_for_keys_takes_their_place") else {
        return;
    };
    let home = place.options().home;
    std::fs::create_dir_all(home.join(".ssh")).unwrap();
    std::fs::write(home.join(".ssh/id_test"), "a key").unwrap();
    let socket = place.scene.folder.path().join("agent.socket");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let answers = std::thread::spawn(move || {
        use std::io::Write as _;
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"answered").unwrap();
    });
    let options = place
        .options()
        .variable("SSH_AUTH_SOCK", socket.to_str().unwrap());
    let mut agent = place.daemon(&options);
    let code = "import os, socket\ns = socket.socket(socket.AF_UNIX)\ns.connect(os.environ['SSH_AUTH_SOCK'])\n\
                print('out:', s.recv(100).decode())\nprint('out:', os.path.exists(os.path.expanduser('~/.ssh/id_test')))\n";
    let task = place.submit("socket", code, place.with("--network none", ""));
    let ended = place.ended(&task);
    ended.assert_status("completed");
    assert_eq!(ended.output(), ["out: answered", "out: False"]);
    answers.join().unwrap();
    agent.stop().unwrap();
}

#[test]
fn scripts_get_variables_and_files_of_the_configuration() {
    let Some(place) = Place::or_skip("scripts_get_variables_and_files_of_the_configuration") else {
        return;
    };
    let mut options = place.options();
    let config = place.scene.folder.path().join("clearml.conf");
    let own = std::fs::read_to_string(&options.config).unwrap();
    let more = "environment { OWN_NAME: \"a 'quoted' $(one)\" }\n\
                files { one { path: \"/tmp/made/file\", contents: \"its contents\" } }\n";
    std::fs::write(&config, format!("{own}\n{more}")).unwrap();
    options.config = config;
    let setup = "echo \"out: script $OWN_NAME\"\ncat /tmp/made/file | sed 's/^/out: /'\necho\n";
    let mut agent = place.daemon(&options);
    let code = "import os\nprint('out: program', os.environ['OWN_NAME'])\n";
    let task = place.submit("configured", code, place.with("--network none", setup));
    place.says(&task, "out: program");
    let ended = place.ended(&task);
    ended.assert_status("completed");
    let expected = [
        "out: script a 'quoted' $(one)",
        "out: its contents",
        "out: program a 'quoted' $(one)",
    ];
    assert_eq!(ended.output(), expected);
    agent.stop().unwrap();

    let options = options.variable(
        "CLEARML_AGENT__AGENT__DOCKER_APPLY_ENVIRONMENT_FROM_VAULT",
        "false",
    );
    let mut agent = place.daemon(&options);
    let task = place.submit("configured", code, place.with("--network none", setup));
    let ended = place.ended(&task);
    assert_eq!(ended.output(), ["out: script ", expected[1], expected[2]]);
    agent.stop().unwrap();
}

#[test]
fn an_execution_in_a_container_is_stopped_as_that_of_a_daemon() {
    let Some(place) = Place::or_skip("an_execution_in_a_container_is_stopped_as_that_of_a_daemon") else {
        return;
    };
    let code = "import signal, sys, time\ndef end(*_):\n    print('out: saved'); sys.exit(0)\n\
                signal.signal(signal.SIGTERM, end)\nprint('out: running', flush=True)\ntime.sleep(600)\n";
    let spec = TaskSpec::script(code);
    let task = place.scene.api.create_task("stopped", &spec).unwrap();
    let container = place.with("--network none", "echo out: set up\n");
    let body = json!({"task": task, "force": true, "container": container});
    place.scene.api.call("tasks.edit", body).unwrap();
    let mut command = place
        .options()
        .command(&["execute", "--id", &task, "--docker", "--full-monitoring"]);
    let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    place.says(&task, "out: running");
    let body = json!({"task": task, "force": false, "status_reason": "enough"});
    place.scene.api.call("tasks.stop", body).unwrap();
    let ended = place.ended(&task);
    ended.assert_status("stopped");
    assert_eq!(ended.output(), ["out: set up", "out: running", "out: saved"]);
    Place::is_removed(&task);
    assert!(child.wait().unwrap().success());
}
