//! Every way to end has its status and its reason.

use std::process::Command;

use serde_json::json;

use crate::place::{Place, docker};

#[test]
fn each_failure_is_told_by_its_cause() {
    let Some(place) = Place::or_skip("each_failure_is_told_by_its_cause") else {
        return;
    };
    let mut agent = place.daemon(&place.options());
    let print = "print('out: it ran')";
    let memory = "x = []\nwhile True:\n    x.append(bytearray(10_000_000))\n";
    let musl = musl_like();
    let bare = without_python(&place.image);
    let cases = [
        (
            "exit code",
            "import sys; sys.exit(7)",
            place.with("", ""),
            "worker execution exit code 7",
        ),
        (
            "memory",
            memory,
            place.with("--memory 200m --memory-swap 200m", ""),
            "process: out of memory",
        ),
        (
            "no such image",
            print,
            json!({"image": "localhost:1/clearml-test-none:1"}),
            "environment: pulling image localhost:1/clearml-test-none:1",
        ),
        (
            "not an image",
            print,
            json!({"image": "no image; rm -rf /"}),
            "environment: the image of the task",
        ),
        (
            "an option that is none",
            print,
            place.with("--privileges --network none", ""),
            "environment: container argument \"--privileges\" is not an option",
        ),
        (
            "an open quote",
            print,
            place.with("-e 'A=1", ""),
            "environment: the container arguments of the task have a quote without end",
        ),
        (
            "a place that is not there",
            print,
            place.with("--mount type=bind,source=/none/here,target=/x", ""),
            "launch: creating container",
        ),
        (
            "GPUs that the engine does not know",
            print,
            place.with("--gpus driver=none,count=1", ""),
            "install the NVIDIA Container Toolkit",
        ),
        (
            "a setup script that gives up",
            print,
            place.with("", "echo out: giving up\nexit 5\n"),
            "environment: the preparation in the container ended with exit code 5",
        ),
        ("musl", print, json!({"image": musl}), "has no GNU C library"),
        (
            "without Python",
            print,
            json!({"image": bare, "arguments": "--network none"}),
            "environment: the image has no Python, and it could not be installed",
        ),
    ];
    let tasks: Vec<String> = cases
        .iter()
        .map(|(name, code, container, _)| place.submit(name, code, container.clone()))
        .collect();
    let hostile = place.submit(
        "hostile",
        "import os\nprint('out: value', repr(os.environ['A']))",
        place.with(
            "--entrypoint /bin/false -e \"A=x\n; touch /tmp/pwned $(id) '\"",
            "",
        ),
    );
    for ((name, _, _, reason), task) in cases.iter().zip(&tasks) {
        let ended = place.ended(task);
        ended.assert_status("failed");
        assert!(ended.reason().contains(reason), "{name}: {}", ended.reason());
        assert!(!ended.console.contains("out: it ran"), "{name}");
        Place::is_removed(task);
    }
    let ended = place.ended(&hostile);
    ended.assert_status("completed");
    assert_eq!(ended.output(), [r#"out: value "x\n; touch /tmp/pwned $(id) '""#]);
    assert!(
        ended.console.contains("ignoring docker argument(s) --entrypoint"),
        "{}",
        ended.console
    );
    agent.stop().unwrap();
}

/// The image without its interpreters.
fn without_python(image: &str) -> String {
    let (name, made) = (
        format!("clearml-test-{}", std::process::id()),
        "clearml-test-bare:1".to_owned(),
    );
    let remove = "rm -f /usr/bin/python* /usr/local/bin/python*";
    docker(&["run", "--name", &name, image, "/bin/sh", "-c", remove]).unwrap();
    docker(&["commit", &name, &made]).unwrap();
    docker(&["rm", "-f", &name]).unwrap();
    made
}

/// An image without glibc, of a static program.
fn musl_like() -> &'static str {
    let image = "clearml-test-busybox:1";
    if docker(&["image", "inspect", image]).is_none() {
        let script = "d=$(mktemp -d) && mkdir $d/bin && cp $(command -v busybox) $d/bin/busybox && ln -s busybox $d/bin/sh \
            && tar c -C $d . | docker import - \"$0\"; s=$?; rm -r $d; exit $s";
        let made = Command::new("sh").args(["-c", script, image]).status().unwrap();
        assert!(made.success(), "the image needs busybox");
    }
    image
}

#[test]
fn a_user_who_stops_a_task_stops_its_container() {
    let Some(place) = Place::or_skip("a_user_who_stops_a_task_stops_its_container") else {
        return;
    };
    let mut agent = place.daemon(
        &place
            .options()
            .variable("CLEARML_AGENT__AGENT__ABORT_GRACE_SEC", "5"),
    );
    let code = "import signal, sys, time\n\
                def end(*_):\n    print('out: saved'); sys.exit(0)\n\
                signal.signal(signal.SIGTERM, end)\nprint('out: running')\ntime.sleep(600)\n";
    let task = place.submit("to be stopped", code, place.with("", ""));
    place.says(&task, "out: running");
    let body = json!({"task": task, "force": false, "status_reason": "enough"});
    place.scene.api.call("tasks.stop", body).unwrap();
    let ended = place.ended(&task);
    ended.assert_status("stopped");
    assert_eq!(ended.output(), ["out: running", "out: saved"]);
    Place::is_removed(&task);

    // Somebody who knows nothing of the agent kills the container.
    let code = "import time\nprint('out: running', flush=True)\ntime.sleep(600)\n";
    let task = place.submit("to be killed", code, place.with("", ""));
    place.says(&task, "out: running");
    docker(&["kill", "-s", "KILL", &Place::containers(&task)[0]]).unwrap();
    let ended = place.ended(&task);
    ended.assert_failed_in("infrastructure", "the container ended (exit code 137)");
    let task = place.submit("to be stopped by the engine", code, place.with("", ""));
    place.says(&task, "out: running");
    docker(&["stop", &Place::containers(&task)[0]]).unwrap();
    place
        .ended(&task)
        .assert_failed_in("infrastructure", "the container was stopped by somebody else");
    agent.stop().unwrap();
}

#[test]
fn the_command_for_aborts_runs_in_the_container_before_the_program_is_stopped() {
    let Some(place) =
        Place::or_skip("the_command_for_aborts_runs_in_the_container_before_the_program_is_stopped")
    else {
        return;
    };
    let mut agent = place.daemon(
        &place
            .options()
            .variable("CLEARML_AGENT__AGENT__ABORT_CALLBACK_MAX_TIMEOUT", "4")
            .variable("CLEARML_AGENT__AGENT__ABORT_GRACE_SEC", "5"),
    );
    let code = "import os, signal, sys, time\n\
                def end(*_):\n    print('out: end'); sys.exit(0)\n\
                signal.signal(signal.SIGTERM, end)\n\
                print('out: at', os.getcwd(), 'CLEARML_AGENT_ABORT_CALLBACK_CMD' in os.environ)\n\
                print('out: running', flush=True)\ntime.sleep(600)\n";
    let stopped = |command: &str| {
        let arguments = format!(
            "--network none -e MINE=1 -e CLEARML_AGENT_ABORT_CALLBACK_TIMEOUT=20 \
             -e \"CLEARML_AGENT_ABORT_CALLBACK_CMD={command}\""
        );
        let task = place.submit("has a command", code, place.with(&arguments, ""));
        place.says(&task, "out: running");
        // Others are told of it.
        for _ in 0..50 {
            if place.scene.api.task(&task).unwrap()["runtime"]["_abort_callback_timeout"] == 20 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        let body = json!({"task": task, "force": false, "status_reason": "enough"});
        place.scene.api.call("tasks.stop", body).unwrap();
        let ended = place.ended(&task);
        ended.assert_status("stopped");
        assert_eq!(ended.task["runtime"]["_abort_callback_timeout"], 20);
        assert_eq!(ended.task["runtime"]["_abort_callback_completed"], 1);
        Place::is_removed(&task);
        (task, ended)
    };
    let (task, ended) = stopped("sh -c 'echo out: saves $CLEARML_TASK_ID $MINE; echo out: in $PWD; exit 3'");
    let output = ended.output();
    let at = output[0]
        .strip_prefix("out: at ")
        .and_then(|at| at.strip_suffix(" False"));
    let folder = format!("out: in {}", at.unwrap_or_else(|| panic!("{output:?}")));
    let saves = format!("out: saves {task} 1");
    assert_eq!(
        output[1..],
        ["out: running", &saves, &folder, "out: end"],
        "{}",
        ended.console
    );
    for line in [
        "INFO: registering bash callback, timeout 20 seconds",
        "callback failed (exit status: 3)",
    ] {
        assert!(ended.console.contains(line), "no {line:?} in {}", ended.console);
    }
    let (_, ended) = stopped("sh -c 'echo out: saves; exec sleep 600'");
    assert_eq!(ended.output()[1..], ["out: running", "out: saves", "out: end"]);
    let over = "callback timed out [timeout: 4,";
    assert!(ended.console.contains(over), "{}", ended.console);
    agent.stop().unwrap();
}
