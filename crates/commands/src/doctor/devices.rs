//! Containers, GPUs and Slurm: there or not, and if there, whether they answer.

use std::path::Path;

use serde_json::Value;

use super::report::Section;
use super::{Answer, Scene};

/// Where the kernel module of the NVIDIA driver shows itself.
const DRIVER: &str = "/proc/driver/nvidia/version";
/// The device of AMD's driver.
const AMD_DEVICE: &str = "/dev/kfd";

pub(super) fn containers(scene: &Scene, section: &Section) {
    match scene.ask("docker", &["version", "--format", "{{json .}}"]) {
        Answer::Missing => section.ok("Docker", "not installed; only `daemon --docker` needs it"),
        Answer::Failed(reason) => section.warning(
            "Docker",
            format!("installed, but its engine does not answer: {reason}"),
            "start the engine, and put the user of the agent into the group docker (or set DOCKER_HOST)",
        ),
        Answer::Said(text) => {
            let reply: Value = serde_json::from_str(&text).unwrap_or_default();
            match reply["Server"]["Version"].as_str() {
                Some(version) => {
                    section.ok("Docker", format!("the engine answers, version {version}"));
                    nvidia_runtime(scene, section);
                }
                None => section.warning(
                    "Docker",
                    "installed, but no engine answers",
                    "start the engine, and put the user of the agent into the group docker (or set DOCKER_HOST)",
                ),
            }
        }
    }
}

/// Only of interest where there is a GPU to be given to containers.
fn nvidia_runtime(scene: &Scene, section: &Section) {
    if !Path::new(DRIVER).exists() {
        return;
    }
    let known = match scene.ask("docker", &["info", "--format", "{{json .Runtimes}}"]) {
        Answer::Said(text) => {
            serde_json::from_str::<Value>(&text).is_ok_and(|runtimes| runtimes.get("nvidia").is_some())
        }
        Answer::Missing | Answer::Failed(_) => false,
    };
    if known || scene.find("nvidia-container-runtime").is_some() {
        section.ok("NVIDIA runtime", "installed");
    } else {
        section.warning(
            "NVIDIA runtime",
            "this machine has NVIDIA GPUs, but containers can't use them",
            "install nvidia-container-toolkit and run `nvidia-ctk runtime configure`",
        );
    }
}

pub(super) fn gpus(scene: &Scene, section: &Section) {
    let query = [
        "--query-gpu=index,name,memory.total,driver_version",
        "--format=csv,noheader",
    ];
    let driver = std::fs::read_to_string(DRIVER).ok();
    match (scene.ask("nvidia-smi", &query), driver) {
        (Answer::Said(list), _) => {
            for line in list.lines() {
                let mut fields = line.split(", ");
                let index = fields.next().unwrap_or_default();
                let rest: Vec<&str> = fields.collect();
                section.ok(format!("GPU {index}"), rest.join(", "));
            }
        }
        (Answer::Failed(reason), _) => section.problem(
            "nvidia-smi",
            format!("the NVIDIA driver does not answer: {reason}"),
            "reinstall the driver or restart the machine: after an update, kernel module and library differ until then",
        ),
        (Answer::Missing, Some(version)) => section.warning(
            "driver",
            format!(
                "{}, but there is no nvidia-smi",
                version.lines().next().unwrap_or_default().trim()
            ),
            "install the tools of the driver; GPUs are not counted and not reported without them",
        ),
        (Answer::Missing, None) if Path::new(AMD_DEVICE).exists() => {
            section.ok("driver", "AMD GPUs, by /dev/kfd");
        }
        (Answer::Missing, None) => section.ok("driver", "no GPU found; tasks run on the CPU"),
    }
}

pub(super) fn slurm(scene: &Scene, section: &Section) {
    let needed = ["sbatch", "squeue", "scancel", "sinfo", "scontrol"];
    let missing: Vec<&str> = needed
        .into_iter()
        .filter(|tool| scene.find(tool).is_none())
        .collect();
    if missing.len() == needed.len() {
        section.ok("commands", "not installed; only `clearml-agent-slurm` needs them");
        return;
    }
    if !missing.is_empty() {
        section.warning(
            "commands",
            format!("not on PATH: {}", missing.join(", ")),
            "install the client tools of Slurm completely",
        );
    }
    match scene.ask("scontrol", &["ping"]) {
        Answer::Said(text) if text.contains("UP") => {
            let version = match scene.ask("sinfo", &["--version"]) {
                Answer::Said(version) => format!(" ({version})"),
                _ => String::new(),
            };
            section.ok("controller", format!("answers{version}"));
        }
        Answer::Said(text) | Answer::Failed(text) => section.warning(
            "controller",
            format!("does not answer: {}", text.lines().next().unwrap_or_default()),
            "check slurm.conf, munge, and that slurmctld runs",
        ),
        Answer::Missing => {}
    }
}
