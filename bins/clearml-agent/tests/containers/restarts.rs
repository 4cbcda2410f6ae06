//! The agent dies while containers run, and comes back.

use xtask::workbench::Agent;

use crate::place::{LABEL, Place, docker};

#[test]
fn a_killed_agent_finds_its_containers_again() {
    let Some(place) = Place::or_skip("a_killed_agent_finds_its_containers_again") else {
        return;
    };
    let mut agent = place.daemon(&place.options());
    let code = "import time\nfor i in range(120):\n    print('out:', i, flush=True)\n    time.sleep(0.1)\n";
    let task = place.submit("long", code, place.with("", ""));
    place.says(&task, "out: 3\n");
    kill_all(&mut agent);
    agent.start_again().unwrap();
    place.says(&task, "out: 60\n");
    kill_all(&mut agent);
    // It ends while nobody looks.
    std::thread::sleep(std::time::Duration::from_secs(8));
    agent.start_again().unwrap();
    let ended = place.ended(&task);
    ended.assert_status("completed");
    let expected: Vec<String> = (0..120).map(|number| format!("out: {number}")).collect();
    assert_eq!(ended.output(), expected);
    Place::is_removed(&task);
    agent.stop().unwrap();
}

#[test]
fn what_is_left_of_ended_runs_is_removed_and_nothing_else() {
    let Some(place) = Place::or_skip("what_is_left_of_ended_runs_is_removed_and_nothing_else") else {
        return;
    };
    let options = place.options();
    let mut agent = place.daemon(&options);
    let code = "import time\nprint('out: here', flush=True)\ntime.sleep(5)\n";
    let task = place.submit("ended", code, place.with("--network none", ""));
    place.says(&task, "out: here");
    let name = Place::containers(&task).remove(0);
    let run = docker(&[
        "inspect",
        "--format",
        "{{index .Config.Labels \"clearml-agent-run\"}}",
        &name,
    ])
    .unwrap();
    place.ended(&task).assert_status("completed");
    Place::is_removed(&task);
    agent.stop().unwrap();

    // The engine was away when they should have been removed.
    let left = |what: &str, run: &str, command: &str| {
        let name = format!("clearml-test-{}-{what}", std::process::id());
        let label = format!("{LABEL}={run}");
        docker(&[
            "run",
            "-d",
            "--network=none",
            "--label",
            &label,
            "--name",
            &name,
            &place.image,
            "sh",
            "-c",
            command,
        ])
        .unwrap();
        name
    };
    let ended = left("ended", &run, "exit 3");
    let running = left("running", &run, "sleep 600");
    let others = left("others", "0123456789abcdef0123456789abcdef", "exit 0");
    for name in [&ended, &others] {
        docker(&["wait", name]).unwrap();
    }
    agent.start_again().unwrap();
    let is_there = |name: &str| docker(&["inspect", "--format", "{{.Id}}", name]).is_some();
    for _ in 0..100 {
        if !is_there(&ended) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    // The daemon does its work meanwhile.
    let task = place.submit("next", "print('out: here')", place.with("--network none", ""));
    place.ended(&task).assert_status("completed");
    let seen = [&ended, &running, &others].map(|name| is_there(name));
    for name in [&ended, &running, &others] {
        docker(&["rm", "-f", name]);
    }
    assert_eq!(seen, [false, true, true]);
    agent.stop().unwrap();
}

/// SIGKILL to the daemon and its runners; what is in the container is not theirs.
fn kill_all(agent: &mut Agent) {
    let mark = agent.mark().clone();
    agent.kill();
    mark.kill_all();
}
