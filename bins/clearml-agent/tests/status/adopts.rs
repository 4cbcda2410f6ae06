//! Runs that an earlier version of the agent has left are adopted: `fixtures/run-dirs`.

use std::fs;
use std::path::{Path, PathBuf};

use clearml_agent_config::{Settings, Sources};
use clearml_support::process::boot_id;
use clearml_task_runner::record::SCHEMA;
use clearml_task_runner::settings::host_name;
use serde_json::json;
use xtask::workbench::{Agent, TaskSpec};

use crate::overview::status;
use crate::scene::{AGENT, QUEUE, Scene};

/// The folder of a format version.
fn stored(version: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../fixtures/run-dirs/v{version}"))
}

/// Copies a stored run, with the words in it replaced.
fn place(from: &Path, to: &Path, words: &[(&str, &str)]) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            place(&path, &target, words);
            continue;
        }
        let mut bytes = fs::read(&path).unwrap();
        if path.extension().is_some_and(|kind| kind == "json") {
            let mut text = String::from_utf8(bytes).unwrap();
            for (word, value) in words {
                text = text.replace(word, value);
            }
            assert!(!text.contains('@'), "{text}");
            bytes = text.into_bytes();
        }
        fs::write(target, bytes).unwrap();
    }
}

#[test]
fn runs_of_this_and_the_previous_format_are_adopted() {
    assert!(
        stored(SCHEMA).is_dir(),
        "store a run directory of format {SCHEMA}: fixtures/run-dirs/README.md"
    );
    for version in SCHEMA.saturating_sub(1).max(1)..=SCHEMA {
        let scene = Scene::new();
        let options = crate::options(&scene);
        let sources = Sources {
            config_file: Some(scene.server.config()),
            ..Sources::default()
        };
        let settings = Settings::load(&sources).unwrap();
        let secret =
            |value: &Option<clearml_support::secret::Secret>| value.as_ref().unwrap().expose().to_owned();
        let task = scene
            .api
            .create_task("left", &TaskSpec::script("print('out: never again')"))
            .unwrap();
        scene
            .api
            .call("tasks.started", json!({"task": task, "force": true}))
            .unwrap();
        let scratch = scene.folder.path().to_str().unwrap();
        let words = [
            ("@TASK@", task.as_str()),
            ("@QUEUE@", &scene.queue),
            ("@API_SERVER@", settings.api.require_server().unwrap()),
            (
                "@FILES_SERVER@",
                settings.api.files_server.as_deref().unwrap_or_default(),
            ),
            ("@ACCESS_KEY@", &secret(&settings.api.access_key)),
            ("@SECRET_KEY@", &secret(&settings.api.secret_key)),
            ("@SCRATCH@", scratch),
            ("@BOOT@", &boot_id().unwrap()),
            ("@HOST@", &host_name()),
            ("@PROGRAM@", AGENT),
        ];
        let run = "572cf42f969f420f94d574944172bcfc";
        let folder = scene
            .folder
            .path()
            .join("home/.local/state/clearml-agent/runs")
            .join(run);
        place(&stored(version).join("ended-not-shipped"), &folder, &words);
        let shown = status(&options);
        assert_eq!(shown["tasks"][0]["task"], task, "{shown:#}");
        assert_eq!(shown["trouble"][0]["kind"], "orphan");

        let _daemon = Agent::daemon(&options, QUEUE).unwrap();
        let ended = scene.ended(&task);
        ended.assert_status("completed");
        // Its first five lines had been sent before, to another server.
        assert_eq!(ended.output(), ["out: 5", "out: 6", "out: 7", "out: 8", "out: 9"]);
    }
}
