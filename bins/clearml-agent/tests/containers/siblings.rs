//! An agent that is itself in a container.

use serde_json::{Value, json};
use xtask::workbench::TaskSpec;

use crate::fixtures::make_wheel;
use crate::place::{Place, docker};
use crate::scene::QUEUE;

/// Where the container of the agent has the folder that it shares with the machine.
const HERE: &str = "/root/.clearml";

#[test]
fn an_agent_in_a_container_starts_others_beside_it() {
    let test = "an_agent_in_a_container_starts_others_beside_it";
    let Some(place) = Place::or_skip(test) else {
        return;
    };
    let engine = std::env::var("DOCKER_HOST").unwrap_or_default();
    let socket = engine
        .strip_prefix("unix://")
        .unwrap_or("/var/run/docker.sock")
        .to_owned();
    if !std::path::Path::new(&socket).exists() {
        eprintln!("SKIPPED {test}: the engine has no socket here that a container could have as well");
        return;
    }
    let folder = place.scene.folder.path();
    let wheels = folder.join("wheels");
    make_wheel(&wheels, "alpha", "1.0");
    let shared = folder.join("shared");
    std::fs::create_dir(&shared).unwrap();
    let options = place.options();
    let agent = Contained::start(
        &place,
        &[
            (
                "-v",
                format!("{}:/usr/local/bin/clearml-agent:ro", options.executable.display()),
            ),
            ("-v", format!("{0}:{0}:ro", options.config.display())),
            ("-v", format!("{socket}:/var/run/docker.sock")),
            ("-v", format!("{}:{HERE}", shared.display())),
            ("-e", format!("CLEARML_CONFIG_FILE={}", options.config.display())),
            (
                "-e",
                format!("CLEARML_AGENT_DOCKER_HOST_MOUNT={}:{HERE}", shared.display()),
            ),
            ("-e", format!("CLEARML_AGENT__AGENT__STATE_DIR={HERE}/state")),
            ("-e", "NVIDIA_VISIBLE_DEVICES=0".to_owned()),
            (
                "-e",
                "CLEARML_AGENT__AGENT__PACKAGE_MANAGER__PIP_VERSION=>=20".to_owned(),
            ),
            (
                "-e",
                "CLEARML_AGENT__AGENT__DOCKER_PIP_CACHE=/elsewhere".to_owned(),
            ),
        ],
    );
    let code = "import alpha, time\nprint('out:', alpha.VERSION, flush=True)\ntime.sleep(3)\n";
    let spec = TaskSpec::script(code).requirements("alpha==1.0");
    // Words of people name folders of the machine.
    let arguments = format!(
        "-v {}:/wheels:ro -e PIP_NO_INDEX=1 -e PIP_FIND_LINKS=/wheels",
        wheels.display()
    );
    let task = place.submit_spec("beside", &spec, place.with(&arguments, ""));
    place.says(&task, "out: 1.0");
    let found = docker(&["inspect", &Place::containers(&task)[0]]).unwrap();
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(
        found[0]["HostConfig"]["NetworkMode"],
        json!("host"),
        "that of the agent"
    );
    let variables = found[0]["Config"]["Env"].as_array().unwrap();
    assert!(
        variables.contains(&json!("NVIDIA_VISIBLE_DEVICES=0")),
        "{variables:?}"
    );
    let ended = place.ended(&task);
    ended.assert_status("completed");
    let missing = "Warning: K8S mount missing, ignoring cached folder /elsewhere";
    assert!(
        ended.console.contains(missing),
        "{}\n{}",
        ended.console,
        agent.log()
    );
    Place::is_removed(&task);
}

/// The container of an agent. It is removed in the end.
struct Contained(String);

impl Contained {
    fn start(place: &Place, options: &[(&str, String)]) -> Self {
        let name = format!("clearml-test-{}-agent", std::process::id());
        let mut words = vec!["run", "-d", "--name", &name, "--network", "host"];
        words.extend(
            options
                .iter()
                .flat_map(|(option, value)| [*option, value.as_str()]),
        );
        words.extend([
            &place.image,
            "clearml-agent",
            "daemon",
            "--queue",
            QUEUE,
            "--foreground",
            "--docker",
        ]);
        words.push(&place.image);
        docker(&words).unwrap();
        Self(name)
    }

    fn log(&self) -> String {
        docker(&["logs", &self.0]).unwrap_or_default()
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        docker(&["rm", "-f", &self.0]);
    }
}
