//! `status`: everything from this machine, also when nobody else is there to ask.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use xtask::workbench::{Agent, AgentOptions, TaskSpec, wait_for};

use crate::scene::{LIMIT, QUEUE, Scene, finish};

const EVERY: Duration = Duration::from_millis(100);

pub(crate) fn status(options: &AgentOptions) -> Value {
    let (code, stdout, stderr) = finish(options.command(&["status", "--json"]));
    assert_eq!(code, 0, "{stdout}{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// Waits until the overview is as wanted, and returns it.
#[track_caller]
fn status_when(options: &AgentOptions, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let found = wait_for(what, LIMIT, EVERY, || {
        last = status(options);
        Ok(wanted(&last).then(|| last.clone()))
    });
    found.unwrap_or_else(|e| panic!("{e:#}\n{last:#}"))
}

fn text(options: &AgentOptions) -> String {
    let (code, stdout, stderr) = finish(options.command(&["status"]));
    assert_eq!(code, 0, "{stderr}");
    stdout
}

fn has_trouble(overview: &Value, kind: &str) -> bool {
    overview["trouble"]
        .as_array()
        .unwrap()
        .iter()
        .any(|trouble| trouble["kind"] == kind)
}

#[test]
fn what_the_agents_do_is_shown_also_without_server_daemon_and_runner() {
    let mut scene = Scene::new();
    let options = crate::options(&scene).variable("CLEARML_AGENT__AGENT__STATUS_REPORT_SEC", "1");
    let secret = std::fs::read_to_string(scene.server.config()).unwrap();
    let secret = secret
        .lines()
        .find_map(|line| {
            Some(
                line.split_once("secret_key")?
                    .1
                    .trim_matches([' ', ':', '=', '"']),
            )
        })
        .unwrap()
        .to_owned();
    let nothing = status(&options);
    assert_eq!(
        (&nothing["workers"], &nothing["tasks"]),
        (&Value::Array(vec![]), &Value::Array(vec![]))
    );
    assert!(text(&options).contains("No agent waits for tasks here"));

    let mut daemon = Agent::daemon(&options, QUEUE).unwrap();
    let code = format!(
        "import time\nblock = bytearray(30_000_000)\nprint('\\x1b[31mkey {secret}\\x1b[0m done', flush=True)\n\
         time.sleep(300)"
    );
    let task = scene.submit("long", &TaskSpec::script(&code));
    let shown = status_when(&options, "a task that runs", |overview| {
        overview["tasks"][0]["last_line"] == "key **** done"
    });
    let worker = &shown["workers"][0];
    assert_eq!(worker["worker"], "tester:0");
    assert_eq!(worker["pid"], daemon.pid().unwrap());
    assert_eq!(worker["details"]["queues"][0]["name"], QUEUE);
    let running = &shown["tasks"][0];
    assert_eq!(
        (&running["task"], &running["phase"], &running["queue_name"]),
        (&task.clone().into(), &"running".into(), &QUEUE.into())
    );
    assert!(
        running["memory_bytes"].as_u64().unwrap() > 30_000_000,
        "{running:#}"
    );
    let program = i32::try_from(running["program_pid"].as_i64().unwrap()).unwrap();
    let page = text(&options);
    for part in ["tester:0", QUEUE, &task, "running", "key **** done"] {
        assert!(page.contains(part), "{part}:\n{page}");
    }
    assert!(!page.contains('\u{1b}') && !page.contains(&secret), "{page}");
    assert_eq!(shown["trouble"], Value::Array(vec![]));

    // The server goes away.
    scene.server.kill();
    let shown = status_when(&options, "trouble with the server", |overview| {
        has_trouble(overview, "server_away")
    });
    assert_eq!(shown["tasks"][0]["phase"], "running");
    assert!(text(&options).contains("trouble since"));

    // So do the daemon and the runner; the program goes on.
    let runner = i32::try_from(shown["tasks"][0]["runner_pid"].as_i64().unwrap()).unwrap();
    daemon.kill();
    rustix::process::kill_process(rustix::process::Pid::from_raw(runner).unwrap(), Signal::KILL).unwrap();
    let shown = status_when(&options, "a task without runner", |overview| {
        has_trouble(overview, "orphan")
    });
    assert_eq!(shown["workers"], Value::Array(vec![]));
    let page = text(&options);
    assert!(
        page.contains(&format!("its program goes on as process {program}")),
        "{page}"
    );
    assert!(page.contains("Start the daemon of tester:0 again"), "{page}");
}
