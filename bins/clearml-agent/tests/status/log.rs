//! The log in JSON.

use std::time::Duration;

use serde_json::Value;
use xtask::workbench::{Agent, TaskSpec, wait_for};

use crate::scene::{QUEUE, Scene, finish};

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}")))
        .collect()
}

#[test]
fn every_line_of_the_log_is_an_object_and_no_secret_is_in_it() {
    let scene = Scene::new();
    // The name of a queue is one way by which a secret could get into a message.
    let secret = "a\"quoted-secret\\of-git";
    scene.api.create_queue(&format!("queue {secret}")).unwrap();
    let options = crate::options(&scene).variable("CLEARML_AGENT_GIT_PASS", secret);
    let arguments = [
        "--log-format",
        "json",
        "daemon",
        "--foreground",
        "--queue",
        QUEUE,
        &format!("queue {secret}"),
    ];
    let mut daemon = Agent::start(&options, &arguments).unwrap();
    scene
        .run("task", &TaskSpec::script("print('out: 1')"))
        .assert_status("completed");
    wait_for(
        "the end of the task in the log",
        Duration::from_secs(10),
        Duration::from_millis(50),
        || Ok(daemon.output().contains("DONE: Running task").then_some(())),
    )
    .unwrap();
    daemon.stop().unwrap();
    let output = daemon.output();
    let records = lines(&output);
    assert!(
        !output.contains("quoted-secret") && output.contains("queue ****"),
        "{output}"
    );
    let said = |text: &str| {
        let record = records.iter().find(|record| {
            let message = record["message"].as_str().unwrap_or_default();
            message.contains(text)
        });
        record.unwrap_or_else(|| panic!("{text}:\n{output}")).clone()
    };
    let begin = said("Running task '");
    assert_eq!(
        (&begin["level"], &begin["target"]),
        (&"INFO".into(), &"announcement".into())
    );
    assert!(begin["timestamp"].as_str().unwrap().ends_with('Z'));
    said("Listening to queues");

    // The same by the variable, and for what ends a command.
    let options = options.variable("CLEARML_AGENT_LOG_FORMAT", "json");
    let (code, stdout, stderr) =
        finish(options.command(&["daemon", "--foreground", "--queue", "no-such-queue"]));
    assert_eq!((code, stdout.as_str()), (1, ""));
    let last = lines(&stderr).pop().unwrap();
    assert_eq!(last["level"], "ERROR");
    assert!(
        last["message"].as_str().unwrap().contains("no-such-queue"),
        "{last}"
    );

    let options = options.variable("CLEARML_AGENT_LOG_FORMAT", "xml");
    let (code, _, stderr) = finish(options.command(&["status"]));
    assert_eq!(code, 0);
    assert!(stderr.contains("\"xml\", neither text nor json"), "{stderr}");
}
