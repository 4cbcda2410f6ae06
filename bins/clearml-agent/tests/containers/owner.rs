//! Tasks that work in the name of their owner.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use clearml_local_server::{Server, ServerOptions};
use serde_json::{Value, json};
use xtask::workbench::{Agent, AgentOptions, Api, TaskSpec};

use crate::place::{LIMIT, Place, docker};
use crate::scene::{AGENT, QUEUE};

const CODE: &str = "import json, os, time\ntoken = os.environ['CLEARML_AUTH_TOKEN']\n\
    open('/scratch/made', 'w').write(token)\nos.rename('/scratch/made', '/scratch/token')\n\
    config = json.load(open(os.environ['CLEARML_CONFIG_FILE']))\n\
    print('out: keys', 'credentials' in config['api'])\nprint('out: vault', os.environ['FROM_THE_VAULT'])\n\
    print('the token is', token)\n\
    while not os.path.exists('/scratch/enough'):\n    time.sleep(0.1)\n";

#[test]
fn the_token_and_the_vault_of_the_owner_are_for_the_task_alone() {
    let Some(place) = Place::or_skip("the_token_and_the_vault_of_the_owner_are_for_the_task_alone") else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let options = ServerOptions {
        feature_set: "advanced".to_owned(),
        ..ServerOptions::new(data.path())
    };
    let (ready, is_ready) = mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let server = Server::start(options).await.unwrap();
            ready.send(server.config_path().to_owned()).unwrap();
            let _dropped = stopped.await;
            server.shutdown().await;
        });
    });
    let config = is_ready.recv().unwrap();
    let folder = place.scene.folder.path();
    let scratch = folder.join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let options = AgentOptions::new(Path::new(AGENT), folder, &config)
        .variable("CLEARML_AGENT_QUEUE_POLL_FREQ_SEC", "0.2")
        .variable("CLEARML_WORKER_NAME", "tester");
    let api = Api::connect(&config).unwrap();
    let queue = api.create_queue(QUEUE).unwrap();
    let data = "environment { FROM_THE_VAULT: \"of the owner\" }";
    let vault = json!({"description": "mine", "data": data, "enabled": true, "type": "config"});
    api.call("users.create_vault", vault).unwrap();
    let task = api.create_task("owned", &TaskSpec::script(CODE)).unwrap();
    let mount = format!("--network none -v {}:/scratch", scratch.display());
    let body = json!({"task": task, "force": true, "container": place.with(&mount, "")});
    api.call("tasks.edit", body).unwrap();
    api.enqueue(&task, &queue).unwrap();
    let arguments = ["daemon", "--queue", QUEUE, "--foreground", "--use-owner-token"];
    let mut agent = Agent::start(&options, &[&arguments[..], &["--docker", &place.image]].concat()).unwrap();
    let mut token = String::new();
    for _ in 0..600 {
        token = std::fs::read_to_string(scratch.join("token")).unwrap_or_default();
        if !token.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(token.len() > 20, "{}", api.console(&task).unwrap());
    let [name] = &Place::containers(&task)[..] else {
        panic!("{:?}", Place::containers(&task));
    };
    let inspected = docker(&["inspect", name]).unwrap();
    let seen = docker(&["top", name, "-eo", "pid,args"]).unwrap();
    assert!(
        !inspected.contains(&token) && !seen.contains(&token),
        "{inspected}{seen}"
    );
    let found: Value = serde_json::from_str(&inspected).unwrap();
    let mounts = found[0]["HostConfig"]["Mounts"].as_array().unwrap();
    let given = mounts
        .iter()
        .find(|mount| mount["Target"] == "/.clearml-agent/in");
    let given = Path::new(given.unwrap()["Source"].as_str().unwrap());
    let inputs = std::fs::read_to_string(given.join("inputs.json")).unwrap();
    assert!(inputs.contains(&token), "{}", given.display());
    std::fs::write(scratch.join("enough"), "").unwrap();
    let ended = api.wait_until_ended(&task, LIMIT).unwrap();
    let console = api.console(&task).unwrap();
    assert_eq!(ended["status"], "completed", "{console}");
    for line in [
        "out: keys False\n",
        "out: vault of the owner\n",
        "the token is ****\n",
    ] {
        assert!(console.contains(line), "no {line:?} in {console}");
    }
    agent.stop().unwrap();
    drop(stop);
    serving.join().unwrap();
}
