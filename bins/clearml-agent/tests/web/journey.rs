//! From sign-in to an aborted task, its reset and its copy, by clicking.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use xtask::workbench::{Agent, AgentOptions, Api, LocalServer, TaskSpec, wait_for};

use crate::browser::{Browser, PATIENCE};

const AGENT: &str = env!("CARGO_BIN_EXE_clearml-agent");

/// A string value of a configuration file.
pub(crate) fn configured(config: &Path, key: &str) -> String {
    let text = std::fs::read_to_string(config).unwrap();
    let line = text.lines().find(|line| line.contains(key)).unwrap();
    line.split('"').rfind(|part| part.len() > 2).unwrap().to_owned()
}

/// They arrive by themselves, as text; an address that is a script is no link.
fn hostile_artifacts_and_plots(api: &Api, browser: &Browser, task: &str) {
    let name = "<img src=x onerror='window.untouched = false'>";
    let script = "javascript:window.untouched=false";
    let artifacts = json!([
        {"key": name, "type": "file", "uri": script, "type_data": {"preview": name}},
        {"key": "away", "type": "file", "uri": "http://files.invalid/x"},
    ]);
    let body = json!({"task": task, "artifacts": artifacts});
    api.call("tasks.add_or_update_artifacts", body).unwrap();
    let figure = r#"{"data": [{"y": [1, 2]}]}"#;
    let plot =
        json!({"type": "plot", "task": task, "metric": name, "variant": "v", "iter": 7, "plot_str": figure});
    api.call("events.add", plot).unwrap();
    browser.wait_for_text("#artifacts", name);
    browser.wait_for_text("#artifacts", script);
    browser.wait_for_text("#plots", name);
    let links = browser.run(
        "return [...document.querySelectorAll('#artifacts a')].map((link) => link.href)",
        json!([]),
    );
    assert_eq!(links, json!(["http://files.invalid/x"]));
    let read = "const request = new XMLHttpRequest();
        request.open('GET', document.querySelector('#plots a').href, false);
        request.send();
        return request.responseText";
    assert_eq!(browser.run(read, json!([])), figure);
}

#[test]
fn a_task_is_enqueued_watched_aborted_reset_and_cloned_by_clicking() {
    let test = "a_task_is_enqueued_watched_aborted_reset_and_cloned_by_clicking";
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
    browser.click_for_new_page("#enqueue");

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
    hostile_artifacts_and_plots(&api, &browser, &task);
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

    browser.click("#reset-open");
    browser.click("#reset");
    browser.wait_for_text("#summary", "created");
    assert_eq!(browser.text("#console"), "", "the console of the run before");
    browser.click("#clone-open");
    browser.click("#clone");
    browser.wait_for_text("h1", "Clone of watch me");
    browser.wait_for_text("#summary", "created");
    assert_eq!(browser.complaints(), Vec::<serde_json::Value>::new());
}
