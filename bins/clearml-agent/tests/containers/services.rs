//! Services that the engine starts again.

use xtask::workbench::Agent;

use crate::place::Place;
use crate::scene::QUEUE;

#[test]
fn a_service_is_started_again_after_a_failure() {
    let Some(place) = Place::or_skip("a_service_is_started_again_after_a_failure") else {
        return;
    };
    let options = place
        .options()
        .variable("TMPDIR", place.scene.folder.path().to_str().unwrap())
        .variable(
            "CLEARML_AGENT_SERVICES_DOCKER_RESTART",
            "on-failure:5;type=service",
        );
    let mode = [
        "daemon",
        "--queue",
        QUEUE,
        "--foreground",
        "--services-mode",
        "--docker",
        &place.image,
    ];
    let mut agent = Agent::start(&options, &mode).unwrap();
    // What a container has written is still there when it is started again.
    let code = "import os, sys\nwith open('/root/starts', 'a+') as f:\n    f.write('x')\n    f.seek(0)\n    \
                starts = len(f.read())\nprint('out: start', starts, flush=True)\nsys.exit(0 if starts == 3 else 4)\n";
    let service = |kind: &str| {
        let task = place
            .scene
            .api
            .create_task(kind, &xtask::workbench::TaskSpec::script(code))
            .unwrap();
        let body = serde_json::json!({"task": task, "force": true, "type": kind,
            "container": place.with("--network none", "")});
        place.scene.api.call("tasks.edit", body).unwrap();
        place.scene.api.enqueue(&task, &place.scene.queue).unwrap();
        task
    };
    let (chosen, other) = (service("service"), service("training"));
    let ended = place.ended(&chosen);
    ended.assert_status("completed");
    assert_eq!(ended.output(), ["out: start 1", "out: start 2", "out: start 3"]);
    Place::is_removed(&chosen);
    let ended = place.ended(&other);
    ended.assert_status("failed");
    assert_eq!(ended.output(), ["out: start 1"]);
    agent.stop().unwrap();
}
