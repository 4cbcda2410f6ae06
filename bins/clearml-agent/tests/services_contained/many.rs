//! Several at the same time.

use serde_json::{Value, json};

use crate::place::{Place, docker};
use crate::scene::finish;
use crate::stand::{Stand, inspect, until};

#[test]
fn services_in_containers_run_at_once_and_none_waits_for_the_environment_of_another() {
    let name = "services_in_containers_run_at_once_and_none_waits_for_the_environment_of_another";
    let Some(mut stand) = Stand::or_skip(name) else {
        return;
    };
    let slow = stand.service("slow", "sleep 600");
    let (one, two, waiting) = (
        stand.service("one", ""),
        stand.service("two", ""),
        stand.service("waiting", ""),
    );
    let options = "--services-mode 3 --foreground --gpus 0 --child-report-tags fast --force-current-version";
    let options: Vec<&str> = options.split(' ').collect();
    let mut daemon = stand.daemon("--docker", &options, &[]);
    for task in [&one, &two] {
        stand.place.says(task, "out: 3\n");
        let parent = inspect(task, "{{index .Config.Labels \"clearml-parent-worker-id\"}}");
        assert_eq!(parent, "tester:cpu:0");
        let own = inspect(task, "{{index .Config.Labels \"clearml-worker-id\"}}");
        assert_eq!(own, format!("tester:cpu:0:service:{task}"));
        assert_eq!(inspect(task, "{{.HostConfig.DeviceRequests}}"), "[]");
        // In containers it is always this version.
        let program = [
            "exec",
            &Place::containers(task)[0],
            "/.clearml-agent/bin/clearml-agent",
            "--version",
        ];
        let (_, version, _) = finish(stand.place.options().command(&["--version"]));
        assert_eq!(docker(&program).as_deref(), Some(version.trim()));
    }
    assert!(!daemon.output().contains("has no effect"), "{}", daemon.output());
    // The limit holds, and the slow one counts.
    assert_eq!(stand.place.scene.api.status(&slow).unwrap(), "in_progress");
    assert_eq!(stand.place.scene.api.status(&waiting).unwrap(), "queued");
    let mut expected = vec![("tester:cpu:0".to_owned(), json!([]))];
    expected
        .extend([&one, &two, &slow].map(|task| (format!("tester:cpu:0:service:{task}"), json!(["fast"]))));
    expected[1..].sort_by(|a, b| a.0.cmp(&b.0));
    let mut listed = stand.workers();
    if !listed[0].1.is_array() {
        listed[0].1 = json!([]);
    }
    assert_eq!(listed, expected);
    // The daemon and one that looks after all; nothing for a single container.
    let processes = daemon.mark().processes();
    assert_eq!(processes.len(), 2, "{processes:?}");

    shown(&stand, &one);

    // What a user stops makes room, wherever it stands.
    let body = json!({"task": slow, "status_reason": "enough"});
    stand.call("tasks.stop", body);
    stand.place.ended(&slow).assert_status("stopped");
    Place::is_removed(&slow);
    stand.place.says(&waiting, "out: 3\n");
    stand.go();
    for task in [&one, &two, &waiting] {
        stand.has_counted(task, &format!("tester:cpu:0:service:{task} fast 1 none"));
        assert!(
            daemon.output().contains(&format!("Running task '{task}'\n")),
            "{}",
            daemon.output()
        );
    }
    until("the workers of the services to go", || stand.workers().len() == 1);
    assert!(daemon.output().contains("ClearML-Agent running in services mode"));
    daemon.stop().unwrap();
}

/// What people see of a task in a container.
#[track_caller]
fn shown(stand: &Stand, task: &str) {
    let status = |words: &[&str]| {
        let (code, stdout, stderr) = finish(stand.place.options().command(words));
        assert_eq!(code, 0, "{stdout}{stderr}");
        stdout
    };
    let overview: Value = serde_json::from_str(&status(&["status", "--json"])).unwrap();
    let tasks = overview["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 3, "{overview:#}");
    let container = &tasks.iter().find(|entry| entry["task"] == task).unwrap()["container"];
    let (name, image) = (&Place::containers(task)[0], &stand.place.image);
    assert_eq!(*container, json!({"name": name, "image": image}));
    let text = status(&["status"]);
    assert!(text.contains(&format!("container {name} of {image}")), "{text}");
    assert_eq!(overview["trouble"], json!([]), "{text}");
}
