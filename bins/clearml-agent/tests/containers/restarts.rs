//! The agent dies while containers run, and comes back.

use xtask::workbench::Agent;

use crate::place::Place;

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

/// SIGKILL to the daemon and its runners; what is in the container is not theirs.
fn kill_all(agent: &mut Agent) {
    let mark = agent.mark().clone();
    agent.kill();
    mark.kill_all();
}
