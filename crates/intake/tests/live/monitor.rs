//! Figures about the machine and its GPUs, up to the server. GPUs come from a stand-in for the driver's library.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use clearml_agent_config::{Settings, Sources};
use clearml_api_client::{Call, WorkersQuery};
use clearml_gpu_alloc::VisibleDevices;
use clearml_intake::machine::cuda::{CudaSources, cuda_versions, with_cuda_versions};
use clearml_intake::{About, Activity, Monitor, MonitorOptions, Reporter};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::world::world;

/// A driver library of its own, and the file that says what it tells.
struct FakeDriver(TempDir);

impl FakeDriver {
    /// `None`, and says so, without a C compiler.
    fn build(test: &str, says: &str) -> Option<Self> {
        static BUILT: OnceLock<Option<TempDir>> = OnceLock::new();
        let built = BUILT.get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/fake-nvml/fake_nvml.c");
            let cc = std::process::Command::new("cc")
                .args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"])
                .arg(folder.path().join("lib"))
                .arg(source)
                .arg("-ldl")
                .status();
            match cc {
                Ok(status) => {
                    assert!(status.success(), "the stand-in for NVML can't be built");
                    Some(folder)
                }
                Err(_) => None,
            }
        });
        let Some(built) = built else {
            eprintln!("SKIPPED {test}: there is no C compiler (cc)");
            return None;
        };
        // The loader knows a library by its file, so that each copy is another driver.
        let own = tempfile::tempdir().unwrap();
        std::fs::copy(built.path().join("lib"), own.path().join("libnvidia-ml.so.1")).unwrap();
        let driver = Self(own);
        driver.says(says);
        Some(driver)
    }

    fn library(&self) -> PathBuf {
        self.0.path().join("libnvidia-ml.so.1")
    }

    fn says(&self, text: &str) {
        let file = self.0.path().join("libnvidia-ml.so.1.txt");
        // Never half a file.
        let new = file.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    fn monitor(&self, visible: Option<&str>) -> Monitor {
        Monitor::start(MonitorOptions {
            gpus: VisibleDevices::from_environment(visible, None),
            default_gpu_usage: Some(100.0),
            nvml: Some(self.library()),
            ..MonitorOptions::default()
        })
        .unwrap()
    }
}

/// Figures with something in them about GPUs, or those after two seconds.
fn gpu_stats(monitor: &Monitor) -> Value {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let stats = monitor.stats().unwrap_or_default();
        if stats.get("gpu_memory_used").is_some() || Instant::now() > deadline {
            return stats;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Twelve GPUs, the third of which fell off the bus, and the last in slices with a hole between them.
fn large_machine() -> String {
    let mut lines = String::from("cuda 12060\n");
    for index in 0..11 {
        let line = match index {
            2 => "lost\n".to_owned(),
            _ => format!(
                "gpu GPU-{index:08}-aaaa {index} {} {} 81920\n",
                30 + index,
                1000 + index
            ),
        };
        lines.push_str(&line);
    }
    lines
        + "gpu GPU-00000011-aaaa - 66 20 81920\nmig MIG-00000000-bbbb 11 9856\nhole\nmig MIG-00000002-bbbb 12 19968\n"
}

#[test]
fn gpus_are_listed_by_number_and_slices_are_gpus_of_their_own() {
    let Some(driver) = FakeDriver::build("gpus_are_listed_by_number", &large_machine()) else {
        return;
    };
    let stats = gpu_stats(&driver.monitor(None));
    assert_eq!(
        stats["gpu_usage"],
        json!([0.0, 1.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 100.0, 100.0]),
        "{stats}"
    );
    assert_eq!(stats["gpu_temperature"][9], 40.0);
    assert_eq!(stats["gpu_temperature"][10], 66.0, "a slice is as hot as its GPU");
    assert_eq!(stats["gpu_memory_used"][10], 11.0);
    assert_eq!(stats["gpu_memory_free"][11], 19968.0 - 12.0);
    for key in ["gpu_temperature", "gpu_memory_used", "gpu_memory_free"] {
        assert_eq!(stats[key].as_array().unwrap().len(), 12, "{key}");
    }
}

#[test]
fn only_visible_gpus_are_reported() {
    let Some(driver) = FakeDriver::build("only_visible_gpus_are_reported", &large_machine()) else {
        return;
    };
    let used = |visible: &str| gpu_stats(&driver.monitor(Some(visible)))["gpu_memory_used"].clone();
    assert_eq!(used("10,1"), json!([1001.0, 1010.0]));
    assert_eq!(used("GPU-00000004-aaaa,11:2"), json!([1004.0, 12.0]));
    assert_eq!(used("MIG-00000000-bbbb"), json!([11.0]));
    // A list that fits nothing, as container runtimes set it.
    assert_eq!(used("void").as_array().unwrap().len(), 12);
    let none = gpu_stats(&driver.monitor(Some("none")));
    assert!(
        none.as_object()
            .unwrap()
            .keys()
            .all(|key| !key.starts_with("gpu")),
        "{none}"
    );
}

#[test]
fn a_driver_that_fails_or_is_absent_costs_the_gpu_figures_only() {
    let text = "gpu GPU-00000000-aaaa 50 40 100 1000\n";
    let Some(driver) = FakeDriver::build("a_driver_that_fails_or_is_absent", text) else {
        return;
    };
    let without_gpus = |monitor: &Monitor| {
        let stats = monitor.stats().unwrap();
        assert!(stats.get("gpu_usage").is_none(), "{stats}");
        assert!(
            stats.get("cpu_usage").is_some() || stats.get("memory_used").is_some(),
            "{stats}"
        );
    };
    let monitor = driver.monitor(None);
    assert_eq!(gpu_stats(&monitor)["gpu_usage"], json!([50.0]));
    // Three failures switch it off, so that what it says afterwards is not asked for.
    driver.says("fail 999\n");
    std::thread::sleep(Duration::from_millis(2200));
    driver.says(text);
    let _until_now = monitor.stats();
    monitor.accepted();
    std::thread::sleep(Duration::from_millis(1100));
    without_gpus(&monitor);

    driver.says("init 9\n");
    let not_loaded = driver.monitor(None);
    std::thread::sleep(Duration::from_millis(600));
    without_gpus(&not_loaded);

    let absent = MonitorOptions {
        nvml: Some("/nowhere/libnvidia-ml.so.1".into()),
        ..MonitorOptions::default()
    };
    let absent = Monitor::start(absent).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    without_gpus(&absent);
}

#[test]
fn figures_stay_until_they_have_arrived() {
    let Some(driver) = FakeDriver::build("figures_stay", "gpu GPU-00000000-aaaa 20 40 100 1000\n") else {
        return;
    };
    let monitor = driver.monitor(None);
    assert_eq!(gpu_stats(&monitor)["gpu_usage"], json!([20.0]));
    driver.says("gpu GPU-00000000-aaaa 80 40 100 1000\n");
    std::thread::sleep(Duration::from_millis(1200));
    // The first was not delivered, so its samples still count.
    let mixed = monitor.stats().unwrap()["gpu_usage"][0].as_f64().unwrap();
    assert!(mixed > 20.0 && mixed < 80.0, "{mixed}");
    monitor.accepted();
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(monitor.stats().unwrap()["gpu_usage"], json!([80.0]));
}

/// The machine against itself: a busy thread and a written file show.
#[test]
fn figures_are_those_of_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let options = MonitorOptions {
        disk: Some(folder.path().into()),
        gpus: Some(VisibleDevices::Nothing),
        ..MonitorOptions::default()
    };
    let monitor = Monitor::start(options).unwrap();
    let end = Instant::now() + Duration::from_millis(1200);
    let mut spun = 0_u64;
    while Instant::now() < end {
        spun = std::hint::black_box(spun.wrapping_add(1));
    }
    let stats = monitor.stats().unwrap();
    let cores = std::thread::available_parallelism().unwrap().get();
    let cpu = stats["cpu_usage"][0].as_f64().unwrap();
    let all_cores = std::fs::read_to_string("/proc/stat").unwrap();
    let all_cores = all_cores.lines().filter(|line| line.starts_with("cpu")).count() - 1;
    #[expect(clippy::cast_precision_loss, reason = "a number of processors")]
    let least = 50.0 / all_cores.max(cores) as f64;
    assert!(cpu > least && cpu <= 100.0, "{stats}");
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let kib: f64 = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok())
        .unwrap();
    let sum = stats["memory_used"].as_f64().unwrap() + stats["memory_free"].as_f64().unwrap();
    assert!((sum - kib / 1024.0).abs() < 0.01, "{stats} {kib}");
    let df = std::process::Command::new("df")
        .args(["--output=used,avail"])
        .arg(folder.path())
        .output()
        .unwrap();
    let df = String::from_utf8(df.stdout).unwrap();
    let blocks: Vec<f64> = df
        .lines()
        .nth(1)
        .unwrap()
        .split_ascii_whitespace()
        .map(|number| number.parse().unwrap())
        .collect();
    let free = stats["disk_free_home"].as_f64().unwrap();
    assert!(
        (free - blocks[1] * 100.0 / (blocks[0] + blocks[1])).abs() < 2.0,
        "{free} {df}"
    );
    for key in ["disk_read", "disk_write", "network_tx", "network_rx"] {
        assert!(stats[key].as_f64().unwrap() >= 0.0, "{key} {stats}");
    }
}

#[test]
fn what_is_measured_follows_the_configuration() {
    let options = |hocon: &str, environment: &[(&str, &str)]| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("clearml.conf");
        std::fs::write(&file, hocon).unwrap();
        let sources = Sources {
            config_file: Some(file),
            ..Sources::default()
        };
        let settings = Settings::load(&sources).unwrap();
        let environment: Vec<(String, String)> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        MonitorOptions::new(&settings, |name| {
            environment
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.clone())
        })
    };
    let plain = options(
        "",
        &[
            ("HOME", "/home/ada"),
            ("NVIDIA_VISIBLE_DEVICES", ""),
            ("CUDA_VISIBLE_DEVICES", "1:0"),
        ],
    );
    assert_eq!(plain.disk.as_deref(), Some(Path::new("/home/ada")));
    assert_eq!(plain.default_gpu_usage, Some(100.0));
    assert_eq!(plain.gpus, Some(VisibleDevices::Listed(vec!["1.0".into()])));
    let monitoring = |text: &str| {
        let hocon = format!("agent.resource_monitoring {{ {text} }}");
        options(
            &hocon,
            &[("HOME", "/home/ada"), ("NVIDIA_VISIBLE_DEVICES", "none")],
        )
    };
    let set = monitoring("default_gpu_utilization: 7, disk_use_path: /data");
    assert_eq!(set.disk.as_deref(), Some(Path::new("/data")));
    assert_eq!(set.default_gpu_usage, Some(7.0));
    assert_eq!(set.gpus, Some(VisibleDevices::Nothing));
    let none = monitoring("default_gpu_utilization: null, disk_use_path: \"~/data\"");
    assert_eq!(none.default_gpu_usage, None);
    assert_eq!(none.disk.as_deref(), Some(Path::new("/home/ada/data")));
}

#[tokio::test]
async fn the_server_has_the_figures_of_worker_and_task_after_three_seconds() {
    let world = world().await;
    let task = world.enqueued("busy").await;
    let monitor = Monitor::start(MonitorOptions {
        disk: Some("/".into()),
        gpus: Some(VisibleDevices::Nothing),
        ..MonitorOptions::default()
    })
    .unwrap();
    let begun = Instant::now();
    let about = About {
        worker: "w:0".into(),
        queues: vec![world.queue.clone()],
        tags: vec![],
        is_daemon: true,
    };
    let reporter = Reporter::start(
        world.client.clone(),
        about,
        Duration::from_secs(30),
        Some(monitor),
    );
    reporter.set(Activity {
        task: Some(task.clone()),
        queue: Some(world.queue.clone()),
    });
    let ask = |endpoint: &'static str, body: Value| {
        let client = world.client.clone();
        async move { client.call::<Value>(Call::new(endpoint).body(body)).await }
    };
    let keys = loop {
        assert!(begun.elapsed() < Duration::from_secs(10), "no figures arrive");
        if let Ok(keys) = ask("workers.get_metric_keys", json!({"worker_ids": ["w:0"]})).await {
            break keys;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(
        begun.elapsed() > Duration::from_millis(2900),
        "{:?}",
        begun.elapsed()
    );
    let categories = keys["categories"].as_array().unwrap();
    let names: Vec<&str> = categories
        .iter()
        .filter_map(|entry| entry["name"].as_str())
        .collect();
    assert!(
        ["cpu", "disk", "memory"].iter().all(|name| names.contains(name)),
        "{keys}"
    );

    let workers = world
        .client
        .workers_get_all(&WorkersQuery::default())
        .await
        .unwrap();
    assert_eq!(workers[0].id.as_str(), "w:0");
    assert_eq!(
        workers[0].task.as_ref().unwrap().id.as_deref(),
        Some(task.as_str())
    );
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let query = json!({
        "items": [{"key": "memory_free"}], "from_date": now - 120, "to_date": now + 60,
        "interval": 60, "worker_ids": ["w:0"],
    });
    let stats = ask("workers.get_stats", query).await.unwrap();
    let values = &stats["workers"][0]["metrics"][0]["stats"][0]["values"];
    let free = values
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_f64)
        .fold(0.0, f64::max);
    assert!(free > 1.0, "{stats}");
    reporter.stop(Duration::from_secs(5)).await;
}

#[test]
fn the_version_of_cuda_is_that_of_driver_then_compiler_then_tool() {
    let test = "the_version_of_cuda_is_that_of_driver_then_compiler_then_tool";
    let Some(driver) = FakeDriver::build(test, "cuda 12060\n") else {
        return;
    };
    let toolkit = tempfile::tempdir().unwrap();
    let program = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt;
        let bin = toolkit.path().join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        let path = bin.join(name);
        std::fs::write(&path, format!("#!/bin/sh\necho '{text}'\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let versions = |nvml: PathBuf| {
        let path = toolkit.path().join("bin").into_os_string();
        let found = cuda_versions(&CudaSources {
            nvml: Some(nvml),
            path: Some(path),
        });
        (found.cuda, found.cudnn)
    };
    let absent = || PathBuf::from("/nowhere/libnvidia-ml.so.1");
    let both = |cuda: &str, cudnn: &str| (cuda.to_owned(), cudnn.to_owned());
    assert_eq!(versions(absent()), both("0", "0"));
    program(
        "nvidia-smi",
        "| NVIDIA-SMI 1  Driver Version: 2  CUDA Version: 11.2 |",
    );
    assert_eq!(versions(absent()), both("112", "0"));
    program("nvcc", "Cuda compilation tools, release 11.8, V11.8.89");
    std::fs::create_dir_all(toolkit.path().join("include")).unwrap();
    let header = "#ifndef A\n#define CUDNN_MAJOR 8\n#define CUDNN_MINOR 9\n#define CUDNN_PATCHLEVEL 1\n";
    std::fs::write(toolkit.path().join("include/cudnn_version.h"), header).unwrap();
    assert_eq!(versions(absent()), both("118", "89"));
    assert_eq!(versions(driver.library()), both("126", "89"));
    driver.says("init 18\ncuda 12060\n");
    assert_eq!(versions(driver.library()), both("118", "89"));
}

#[tokio::test]
async fn a_configured_version_of_cuda_stands_and_another_is_filled_in() {
    let settings = |environment: &[(&str, &str)]| {
        let sources = Sources {
            env: environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Sources::default()
        };
        Settings::load(&sources).unwrap()
    };
    let set = with_cuda_versions(settings(&[("CUDA_VERSION", "11.8.0")]))
        .await
        .unwrap();
    assert_eq!(set.agent.cuda_version.as_deref(), Some("118"));
    let found = set.agent.cudnn_version.clone().unwrap();
    assert!(found.parse::<u32>().is_ok(), "{found}");
    assert_eq!(set.effective_json()["agent"]["cudnn_version"], Value::from(found));
    let cpu_only = with_cuda_versions(settings(&[("CPU_ONLY", "1")])).await.unwrap();
    assert_eq!(cpu_only.agent.cuda_version.as_deref(), Some("0"));
}
