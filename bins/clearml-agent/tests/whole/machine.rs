//! What workers say about the machine. The GPU is a stand-in for the library of its driver.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use xtask::workbench::{Agent, AgentOptions, TaskSpec};

use crate::scene::{QUEUE, Scene, finish};

/// Longer than it takes to the first figures.
const CODE: &str = "import json, os, time
agent = json.load(open(os.environ['CLEARML_CONFIG_FILE']))['agent']
print('out: CUDA', agent['cuda_version'])
time.sleep(4.5)
";

/// An agent whose driver has one GPU; `None` without a C compiler.
fn with_gpu(scene: &Scene) -> Option<AgentOptions> {
    let folder = scene.folder.path().join("driver");
    std::fs::create_dir_all(&folder).unwrap();
    let library = folder.join("libnvidia-ml.so.1");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/fake-nvml/fake_nvml.c");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(source)
        .arg("-ldl");
    let Ok(status) = cc.status() else {
        eprintln!("SKIPPED machine: there is no C compiler (cc)");
        return None;
    };
    assert!(status.success());
    let says = "cuda 12040\ngpu GPU-00000000-aaaa 37 55 1024 81920\n";
    std::fs::write(library.with_extension("1.txt"), says).unwrap();
    let folder = folder.to_str().unwrap();
    Some(scene.options().variable("LD_LIBRARY_PATH", folder))
}

fn metrics(scene: &Scene, worker: &str) -> Vec<Value> {
    let keys = scene
        .api
        .call("workers.get_metric_keys", json!({"worker_ids": [worker]}));
    // A worker of which nothing is known is an error.
    let keys = keys.unwrap_or_default();
    let categories = keys["categories"].as_array().cloned().unwrap_or_default();
    categories
        .into_iter()
        .flat_map(|category| category["metric_keys"].as_array().cloned().unwrap_or_default())
        .collect()
}

#[track_caller]
fn assert_complete(metrics: &[Value]) {
    for name in [
        "cpu_usage",
        "memory_used",
        "memory_free",
        "disk_free_home",
        "gpu_usage",
        "gpu_temperature",
        "gpu_memory_used",
        "gpu_memory_free",
    ] {
        assert!(metrics.contains(&json!(name)), "no {name} in {metrics:?}");
    }
}

#[test]
fn a_daemon_and_a_single_task_report_about_machine_and_gpu() {
    let scene = Scene::new();
    let Some(options) = with_gpu(&scene) else { return };
    let named = options.clone().variable("CLEARML_WORKER_ID", "measured:0");
    let mut daemon = Agent::daemon(&named, QUEUE).unwrap();
    let task = scene.api.create_task("alone", &TaskSpec::script(CODE)).unwrap();
    let (code, stdout, stderr) = finish(options.command(&["execute", "--id", &task]));
    assert_eq!(code, 0, "{stdout}{stderr}");
    let ended = scene.ended(&task);
    assert_eq!(ended.output(), ["out: CUDA 124"]);
    assert_complete(&metrics(&scene, ended.task["last_worker"].as_str().unwrap()));

    let deadline = Instant::now() + Duration::from_secs(20);
    while metrics(&scene, "measured:0").is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_complete(&metrics(&scene, "measured:0"));
    daemon.stop().unwrap();
}
