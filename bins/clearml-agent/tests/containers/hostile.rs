//! Arguments by which a task wants more than it may have.

use serde_json::{Value, json};
use xtask::workbench::Agent;

use crate::place::{Place, docker};

/// Everything by which a container gets hold of its machine.
const WISHES: &str = "--privileged --privileged=true -v /:/host --volume=/etc:/etc2 -v=/root:/root2 \
    --mount type=bind,source=/,target=/host2 --pid=host --pid host --ipc host --network host --net=host --uts=host \
    --userns=host --cap-add SYS_ADMIN --cap-add=ALL --device /dev/kmsg --device=/dev/mem \
    --security-opt apparmor=unconfined --cgroupns=host --group-add 0 --sysctl net.ipv4.ip_forward=1 \
    --volumes-from other --runtime runc -itv /root:/root3 --entrypoint /bin/sh";
const CODE: &str = "import time\nprint('out: running', flush=True)\ntime.sleep(600)\n";

#[test]
fn a_task_gets_only_the_arguments_that_it_may_use() {
    let Some(place) = Place::or_skip("a_task_gets_only_the_arguments_that_it_may_use") else {
        return;
    };
    // By a list of what is allowed.
    let options = place.options().variable(
        "CLEARML_AGENT_DOCKER_ARGS_FILTERS",
        "'^-e$' '^--env(=|$)' '^--shm-size(=|$)'",
    );
    let arguments = format!("{WISHES} -e A=1 --shm-size=64m");
    let (host, console) = inspected(&place, &options, &arguments);
    let told = "agent.docker_args_filters does not let through: --privileged --privileged=true -v /:/host";
    assert!(console.contains(told), "{console}");
    assert_eq!(host["ShmSize"], json!(64 << 20));
    nothing_was_granted(&host);

    // By a list of what is forbidden, however it is spelled.
    let forbidden = "[privileged, volume, v, mount, pid, ipc, network, net, uts, userns, cap-add, device, security-opt, \
                     cgroupns, group-add, sysctl, volumes-from, runtime, entrypoint]";
    let options = place
        .options()
        .variable("CLEARML_AGENT__AGENT__FORBIDDEN_DOCKER_ARGS", forbidden);
    let (host, _) = inspected(&place, &options, &format!("{WISHES} --shm-size 64m"));
    assert_eq!(host["ShmSize"], json!(64 << 20));
    nothing_was_granted(&host);
}

/// What the engine says about the container of a task with these arguments, and what the task's console says.
fn inspected(place: &Place, options: &xtask::workbench::AgentOptions, arguments: &str) -> (Value, String) {
    let mut agent: Agent = place.daemon(options);
    let task = place.submit("hostile", CODE, place.with(arguments, ""));
    place.says(&task, "out: running");
    let text = docker(&["inspect", &Place::containers(&task)[0]]).unwrap();
    let found: Value = serde_json::from_str(&text).unwrap();
    let body = json!({"task": task, "force": false, "status_reason": "enough"});
    place.scene.api.call("tasks.stop", body).unwrap();
    let ended = place.ended(&task);
    ended.assert_status("stopped");
    agent.stop().unwrap();
    (found[0]["HostConfig"].clone(), ended.console)
}

#[track_caller]
fn nothing_was_granted(host: &Value) {
    let is_empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => ["", "default", "private", "runc", "bridge"].contains(&text.as_str()),
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        _ => false,
    };
    for field in [
        "Privileged",
        "Binds",
        "PidMode",
        "UTSMode",
        "UsernsMode",
        "CapAdd",
        "Devices",
        "SecurityOpt",
        "IpcMode",
        "GroupAdd",
        "Sysctls",
        "VolumesFrom",
        "Runtime",
        "NetworkMode",
    ] {
        assert!(is_empty(&host[field]), "{field}: {}", host[field]);
    }
    let mounts = host["Mounts"].as_array().unwrap();
    let own = |mount: &&Value| {
        mount["Source"]
            .as_str()
            .is_some_and(|source| source.contains("/home"))
    };
    assert_eq!(mounts.iter().filter(own).count(), mounts.len(), "{mounts:#?}");
}
