//! The official agent in the container, where it is wanted.

use std::path::Path;

use serde_json::{Value, json};
use xtask::workbench::Agent;

use crate::fixtures::make_module_wheel;
use crate::place::{Place, docker};
use crate::scene::QUEUE;

/// Container arguments with which pip reaches its index as it does on this machine.
fn network() -> String {
    let passed = [
        "PIP_INDEX_URL",
        "PIP_EXTRA_INDEX_URL",
        "PIP_TRUSTED_HOST",
        "HTTPS_PROXY",
        "https_proxy",
    ];
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let mut arguments = "--network host".to_owned();
    for name in passed {
        if let Some(value) = set(name) {
            arguments += &format!(" -e {name}={value}");
        }
    }
    let certificates = ["PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"]
        .into_iter()
        .find_map(set)
        .filter(|file| Path::new(file).is_file());
    if let Some(file) = certificates {
        arguments += &format!(" -v {file}:/certificates.pem:ro -e PIP_CERT=/certificates.pem");
    }
    arguments
}

#[test]
fn the_official_agent_runs_a_task() {
    const TEST: &str = "the_official_agent_runs_a_task";
    let Some(place) = Place::or_skip(TEST) else {
        return;
    };
    let network = network();
    let mut asks: Vec<&str> = ["run", "--rm"].to_vec();
    asks.extend(network.split(' '));
    asks.extend([
        &*place.image,
        "python3",
        "-m",
        "pip",
        "download",
        "--no-deps",
        "-d",
        "/tmp",
    ]);
    asks.push("clearml-agent==3.0.3");
    if docker(&asks).is_none() {
        eprintln!("SKIPPED {TEST}: a container reaches no package index with clearml-agent");
        return;
    }
    let options = place
        .options()
        .variable("CLEARML_AGENT__AGENT__DOCKER_INSTALL_AGENT", "true");
    let arguments = [
        "daemon",
        "--queue",
        QUEUE,
        "--foreground",
        "--force-current-version",
        "--docker",
        &place.image,
    ];
    let mut agent = Agent::start(&options, &arguments).unwrap();
    let code = "import importlib.metadata, sys\n\
                print('out: agent', importlib.metadata.version('clearml-agent'))\n\
                print('out: in an environment', sys.prefix != sys.base_prefix)\nsys.exit(3)\n";
    let task = place.submit("official", code, place.with(&network, ""));
    let ended = place.ended(&task);
    ended.assert_status("failed");
    assert_eq!(
        ended.reason(),
        "worker execution exit code 3",
        "{}",
        ended.console
    );
    assert_eq!(
        ended.output(),
        ["out: agent 3.0.3", "out: in an environment True"]
    );
    let command = format!("-u -m clearml_agent execute --disable-monitoring --id {task}");
    assert!(ended.console.contains(&command), "{}", ended.console);
    Place::is_removed(&task);
    agent.stop().unwrap();
}

/// Stands for the official agent: shows how it was called, and goes on for a while.
const STAND_IN: &str = "import os, sys, time\n\
    if __name__ == '__main__':\n\
    \x20   print('out:', *sys.argv[1:])\n\
    \x20   print('out:', os.environ['NVIDIA_VISIBLE_DEVICES'], os.environ['CLEARML_CONFIG_FILE'], flush=True)\n\
    \x20   time.sleep(0 if '--standalone-mode' in sys.argv else 300)\n\
    \x20   sys.exit(7)\n";

#[test]
fn a_wheel_comes_first_and_a_package_that_is_not_there_is_named() {
    let Some(place) = Place::or_skip("a_wheel_comes_first_and_a_package_that_is_not_there_is_named") else {
        return;
    };
    let folder = place.scene.folder.path().join("wheels");
    make_module_wheel(&folder, "clearml_agent", "99.0", STAND_IN);
    let name = "clearml_agent-99.0-py3-none-any.whl";
    let repo = "https://robot:canary-4711@127.0.0.1:9/no-such-agent.zip";
    let options = place.options().variable("FORCE_CLEARML_AGENT_REPO", repo);
    let nothing = "--network none -e PIP_NO_INDEX=1 -e PIP_RETRIES=0";
    let with_wheel = options.clone().variable(
        "FORCE_LOCAL_CLEARML_AGENT_WHEEL",
        folder.join(name).display().to_string(),
    );
    let mut agent = place.daemon(&with_wheel);
    let setup = "python3 -c 'import clearml_agent; print(\"out: there before\")'\n";
    let task = place.submit("wheel", "print('out: never')", place.with(nothing, setup));
    place.says(&task, "/tmp/clearml.conf\n");
    let [container] = &Place::containers(&task)[..] else {
        panic!("{:?}", Place::containers(&task));
    };
    let found: Value = serde_json::from_str(&docker(&["inspect", container]).unwrap()).unwrap();
    let mounts = found[0]["HostConfig"]["Mounts"].as_array().unwrap();
    let target = format!("/tmp/{name}");
    let mount = mounts.iter().find(|mount| mount["Target"] == target.as_str());
    assert_eq!(mount.unwrap_or_else(|| panic!("{mounts:#?}"))["ReadOnly"], true);
    let stop = json!({"task": task, "status_message": "enough", "status_reason": ""});
    place.scene.api.call("tasks.stop", stop).unwrap();
    let ended = place.ended(&task);
    ended.assert_status("stopped");
    let called = format!("out: execute --disable-monitoring --id {task}");
    assert_eq!(
        ended.output(),
        ["out: there before", &*called, "out: all /tmp/clearml.conf"],
        "{}",
        ended.console
    );
    Place::is_removed(&task);
    agent.stop().unwrap();

    // Nobody falls back to another agent than the one that is named.
    let mut agent = place.daemon(&options);
    let task = place.submit("none", "print('out: never')", place.with(nothing, ""));
    let ended = place.ended(&task);
    ended.assert_failed_in("environment", "the official agent could not be installed");
    assert!(!ended.console.contains("canary-4711"), "{}", ended.console);
    assert!(ended.output().is_empty(), "{}", ended.console);
    agent.stop().unwrap();
}

#[test]
fn a_standalone_container_runs_the_agent_of_its_image() {
    let Some(place) = Place::or_skip("a_standalone_container_runs_the_agent_of_its_image") else {
        return;
    };
    let module = place.scene.folder.path().join("module");
    std::fs::create_dir(&module).unwrap();
    std::fs::write(module.join("clearml_agent.py"), STAND_IN).unwrap();
    let options = place
        .options()
        .variable("FORCE_CLEARML_AGENT_REPO", "no-such-agent")
        .variable("CLEARML_AGENT__AGENT__DOCKER_INSTALL_AGENT", "true");
    let arguments = [
        "daemon",
        "--queue",
        QUEUE,
        "--foreground",
        "--standalone-mode",
        "--cpu-only",
        "--docker",
        &place.image,
    ];
    let mut agent = Agent::start(&options, &arguments).unwrap();
    let image = format!(
        "--network none -e PYTHONPATH=/module -v {}:/module:ro",
        module.display()
    );
    let task = place.submit("standalone", "print('out: never')", place.with(&image, ""));
    let ended = place.ended(&task);
    ended.assert_status("failed");
    assert_eq!(
        ended.reason(),
        "worker execution exit code 7",
        "{}",
        ended.console
    );
    let called = format!("out: execute --disable-monitoring --standalone-mode --id {task}");
    assert_eq!(ended.output(), [&*called, "out: none /tmp/clearml.conf"]);
    agent.stop().unwrap();
}
