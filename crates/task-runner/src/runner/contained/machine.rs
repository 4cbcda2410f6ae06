//! What this machine has for a container: GPUs, ports, an address.

use std::path::Path;

use clearml_container::engine::EngineFacts;
use clearml_container::gpus::{Gpus, Vendor};
use clearml_container::ports::{Mapped, mapping_text};
use serde_json::Value;

use super::super::Runner;
use super::given;
use crate::console::Level;

/// In the task's `runtime`: which ports of this machine lead into the container.
const PORTS_KEY: &str = "_external_host_tcp_port_mapping";

impl Runner {
    /// By which address others reach the ports of the container.
    pub(super) fn host_ip(&self, towards: &str) -> String {
        let forced = given::variable(&self.inputs, "CLEARML_AGENT_FORCE_HOST_MACHINE_IP");
        let own = || {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
            // Nothing is sent: the system says which way it would take.
            socket.connect((towards, 80)).ok()?;
            Some(socket.local_addr().ok()?.ip().to_string())
        };
        forced
            .filter(|ip| !ip.is_empty())
            .or_else(own)
            .unwrap_or_else(|| "127.0.0.1".to_owned())
    }

    pub(super) async fn tell_ports(&self, ports: &Mapped) {
        for missing in &ports.missing {
            let text = format!(
                "Warning: no port of this machine is free for {} (asked for {})",
                missing.container, missing.host
            );
            self.console.line(Level::Warning, &text);
        }
        if ports.mapping.is_empty() {
            return;
        }
        let entry = (PORTS_KEY.to_owned(), Value::from(mapping_text(&ports.mapping)));
        let id = &self.identity.task;
        let told = self
            .client
            .tasks_edit_runtime(id, std::iter::once(entry).collect(), &[]);
        if let Err(e) = told.await {
            tracing::warn!("noting the ports of task {id}: {e}");
        }
    }
}

/// Variables that name the GPUs of an agent; the first that is set counts.
const VISIBLE: [&str; 4] = [
    "NVIDIA_VISIBLE_DEVICES",
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
];

/// Which GPUs the daemon gives its tasks.
pub(super) fn wanted_gpus(cpu_only: bool, variable: &dyn Fn(&str) -> Option<String>) -> Gpus {
    let value = VISIBLE.into_iter().find_map(variable);
    match value.as_deref().map(str::trim) {
        _ if cpu_only => Gpus::None,
        None | Some("all") => Gpus::All,
        Some("none" | "void") => Gpus::None,
        Some("") => Gpus::Unmentioned,
        Some(list) => Gpus::Some(list.split(',').map(|gpu| gpu.trim().replace('.', ":")).collect()),
    }
}

/// Whether something else than a request for devices decides about them.
pub(super) fn skips_gpus(variable: &dyn Fn(&str) -> Option<String>) -> bool {
    ["CLEARML_DOCKER_SKIP_GPUS_FLAG", "TRAINS_DOCKER_SKIP_GPUS_FLAG"]
        .into_iter()
        .any(|name| variable(name).is_some_and(|flag| !flag.is_empty()))
}

/// How this machine hands out GPUs. An agent in a container need not see them itself.
pub(super) fn vendor(engine: &EngineFacts, contained: bool) -> Vendor {
    let there = |path: &str| Path::new(path).exists();
    if contained && engine.nvidia_runtime || there("/dev/nvidiactl") || there("/proc/driver/nvidia/version") {
        let described = ["/etc/cdi/nvidia.yaml", "/var/run/cdi/nvidia.yaml"]
            .into_iter()
            .any(there);
        // Podman knows no other way.
        let by_name = engine.podman.is_some() || !engine.nvidia_runtime && engine.cdi && described;
        return if by_name {
            Vendor::NvidiaCdi
        } else {
            Vendor::Nvidia
        };
    }
    if there("/dev/kfd") {
        let mut nodes: Vec<u32> = std::fs::read_dir("/dev/dri")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("renderD")?.parse().ok())
            .collect();
        nodes.sort_unstable();
        return Vendor::Amd(nodes);
    }
    Vendor::Absent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gpus_of_the_daemon_are_those_of_the_container() {
        let of = |value: Option<&str>| {
            wanted_gpus(false, &|name| {
                (name == "NVIDIA_VISIBLE_DEVICES").then(|| value.map(str::to_owned))?
            })
        };
        assert_eq!(of(None), Gpus::All);
        assert_eq!(of(Some("all")), Gpus::All);
        assert_eq!(of(Some("none")), Gpus::None);
        assert_eq!(of(Some("")), Gpus::Unmentioned);
        assert_eq!(
            of(Some("0, 1.2")),
            Gpus::Some(vec!["0".to_owned(), "1:2".to_owned()])
        );
        assert_eq!(wanted_gpus(true, &|_| Some("0".to_owned())), Gpus::None);
        let amd = |name: &str| (name == "ROCR_VISIBLE_DEVICES").then(|| "1".to_owned());
        assert_eq!(wanted_gpus(false, &amd), Gpus::Some(vec!["1".to_owned()]));
    }

    #[test]
    fn either_name_of_the_flag_keeps_gpus_from_being_asked_for() {
        for (name, value, skips) in [
            ("CLEARML_DOCKER_SKIP_GPUS_FLAG", "1", true),
            ("TRAINS_DOCKER_SKIP_GPUS_FLAG", "yes", true),
            ("TRAINS_DOCKER_SKIP_GPUS_FLAG", "", false),
            ("DOCKER_SKIP_GPUS_FLAG", "1", false),
        ] {
            let set = |wanted: &str| (wanted == name).then(|| value.to_owned());
            assert_eq!(skips_gpus(&set), skips, "{name}={value}");
        }
    }
}
