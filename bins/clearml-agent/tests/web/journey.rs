//! From sign-in to an aborted task, by clicking.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use xtask::workbench::{Agent, AgentOptions, LocalServer, TaskSpec, wait_for};

use crate::browser::{Browser, PATIENCE};

const AGENT: &str = env!("CARGO_BIN_EXE_clearml-agent");

/// A string value of a configuration file.
pub(crate) fn configured(config: &Path, key: &str) -> String {
    let text = std::fs::read_to_string(config).unwrap();
    let line = text.lines().find(|line| line.contains(key)).unwrap();
    line.split('"').rfind(|part| part.len() > 2).unwrap().to_owned()
}

#[test]
fn a_task_is_enqueued_watched_and_aborted_by_clicking() {
    let test = "a_task_is_enqueued_watched_and_aborted_by_clicking";
    let folder = tempfile::Builder::new()
        .prefix("clearml-agent-web-")
        .tempdir()
        .unwrap();
    let Some(browser) = Browser::start_or_skip(test, folder.path()) else {
        return;
    };
    let server = LocalServer::start(Path::new(AGENT), &folder.path().join("server")).unwrap();
    let api = server.api().unwrap();
    api.create_queue("work").unwrap();
    let code = "import time\nfor i in range(10000):\n    print('out: <b>line</b>', i, flush=True)\n    time.sleep(0.2)\n";
    let task = api.create_task("watch me", &TaskSpec::script(code)).unwrap();
    let options = AgentOptions::new(Path::new(AGENT), folder.path(), &server.config())
        .variable("CLEARML_AGENT_QUEUE_POLL_FREQ_SEC", "0.2")
        .variable("CLEARML_WORKER_NAME", "tester");
    let daemon = Agent::daemon(&options, "work").unwrap();

    let config = server.config();
    browser.open(&configured(&config, "web_server"));
    browser.write("#access_key", &configured(&config, "access_key"));
    browser.write("#secret_key", &configured(&config, "secret_key"));
    browser.click("button[type=submit]");
    browser.wait_for_text("#queues", "work");
    browser.wait_for_text("#workers", "tester:");
    browser.click(&format!("a[href='/tasks/{task}']"));
    browser.wait_for_text("#summary", "created");
    browser.write("#queue", "work");
    browser.click("#enqueue");

    // From here on the page must stay fresh by itself.
    browser.wait_for_text("h1", "watch me");
    browser.run("window.untouched = true", json!([]));
    browser.wait_for_text("#console", "out: <b>line</b> 5\n");
    browser.wait_for_text("#summary", "in progress");
    let scalar = |iteration: i32| {
        let event = json!({"type": "training_stats_scalar", "task": task, "metric": "loss", "variant": "train",
            "iter": iteration, "value": 1.0 / f64::from(iteration)});
        api.call("events.add", event).unwrap();
    };
    scalar(1);
    scalar(2);
    browser.wait_for_text("#scalars", "train: 0.5");
    assert_eq!(browser.run("return window.untouched", json!([])), true);

    browser.click("#abort");
    browser.wait_for_text("#summary", "stopped");
    browser.wait_for_text("#actions", "Reset");
    wait_for("the end of the run", PATIENCE, Duration::from_millis(100), || {
        let running = daemon
            .mark()
            .processes()
            .iter()
            .any(|(_, line)| line.contains("script.py"));
        Ok((!running).then_some(()))
    })
    .unwrap();
    let ended = api.task(&task).unwrap();
    assert_eq!(ended["status"], "stopped", "{ended}");
    assert_eq!(browser.complaints(), Vec::<serde_json::Value>::new());
}
