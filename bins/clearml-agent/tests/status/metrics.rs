//! Metrics for Prometheus, as a collector reads them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use xtask::workbench::{Agent, TaskSpec, wait_for};

use crate::scene::{LIMIT, QUEUE, Scene, finish};

fn ask(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

fn get(address: &str) -> String {
    let reply = ask(
        address,
        &format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n"),
    );
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200 OK") && head.contains("text/plain; version=0.0.4"),
        "{head}"
    );
    body.to_owned()
}

fn value(metrics: &str, name: &str) -> f64 {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name}:\n{metrics}"))
        .parse()
        .unwrap()
}

#[test]
fn a_collector_sees_queues_tasks_console_server_and_requests() {
    let scene = Scene::new();
    let options = crate::options(&scene);
    let arguments = [
        "daemon",
        "--foreground",
        "--queue",
        QUEUE,
        "--metrics-address",
        "127.0.0.1:0",
    ];
    let daemon = Agent::start(&options, &arguments).unwrap();
    let address = wait_for(
        "the address of the metrics",
        LIMIT,
        Duration::from_millis(50),
        || {
            let output = daemon.output();
            let url = output
                .lines()
                .find_map(|line| line.strip_prefix("Metrics: http://"));
            Ok(url.and_then(|url| Some(url.strip_suffix("/metrics")?.to_owned())))
        },
    )
    .unwrap();

    scene
        .run("good", &TaskSpec::script("print('out: 1')"))
        .assert_status("completed");
    scene
        .run("bad", &TaskSpec::script("raise SystemExit(3)"))
        .assert_status("failed");
    let aborted = scene.submit("aborted", &TaskSpec::script("import time\ntime.sleep(300)"));
    let running = r#"clearml_agent_tasks{phase="running"}"#;
    wait_for("a running task", LIMIT, Duration::from_millis(50), || {
        Ok((value(&get(&address), running) == 1.0).then_some(()))
    })
    .unwrap();
    assert!(value(&get(&address), "clearml_agent_oldest_task_age_seconds") > 0.0);
    scene
        .api
        .call("tasks.stop", serde_json::json!({"task": aborted}))
        .unwrap();
    let waiting = format!("clearml_agent_queue_waiting_tasks{{queue=\"{QUEUE}\"}}");
    let metrics = wait_for("the end of three tasks", LIMIT, Duration::from_millis(50), || {
        let metrics = get(&address);
        let ended = |end: &str| {
            value(
                &metrics,
                &format!("clearml_agent_tasks_ended_total{{end=\"{end}\"}}"),
            )
        };
        let ends = ["completed", "failed", "aborted", "infrastructure", "other"].map(ended);
        // What waits in the queue is what the daemon has seen last; it looks again after the end of a task.
        let waiting = value(&metrics, &waiting);
        Ok((ends == [1.0, 1.0, 1.0, 0.0, 0.0] && waiting == 0.0).then(|| metrics.clone()))
    })
    .unwrap();
    assert_eq!(value(&metrics, "clearml_agent_tasks_started_total"), 3.0);
    assert_eq!(value(&metrics, running), 0.0);
    assert_eq!(value(&metrics, "clearml_agent_console_waiting_bytes"), 0.0);
    assert_eq!(value(&metrics, "clearml_agent_server_away_seconds"), 0.0);
    assert!(value(&metrics, r#"clearml_agent_requests_total{service="queues"}"#) >= 3.0);
    // Each family has one type, and no label names a task.
    let types: Vec<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("# TYPE"))
        .collect();
    let mut unique = types.clone();
    unique.dedup();
    assert!(types.len() > 10 && types == unique);
    assert!(!metrics.contains(&aborted));

    for (request, status) in [
        (
            "GET /metrics HTTP/1.1\r\nHost: attacker.example\r\n\r\n".to_owned(),
            "421",
        ),
        ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), "404"),
        (
            "POST /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
            "405",
        ),
        (format!("GET /{}", "x".repeat(10_000)), "431"),
    ] {
        let reply = ask(&address, &request);
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{reply}");
    }
    // Who says nothing holds nobody up, and is sent away.
    let mut silent: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(&address).unwrap()).collect();
    get(&address);
    let mut nothing = Vec::new();
    silent[0].set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(silent[0].read_to_end(&mut nothing).unwrap(), 0);

    let busy = [
        "daemon",
        "--foreground",
        "--queue",
        QUEUE,
        "--metrics-address",
        &address,
    ];
    let (code, stdout, _) = finish(options.command(&busy));
    assert_eq!(code, 1);
    assert!(stdout.contains("choose another --metrics-address"), "{stdout}");
}
