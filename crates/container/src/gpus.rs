//! GPUs for a container.

use std::collections::HashMap;

use bollard::models::{DeviceMapping, DeviceRequest, HostConfig};

/// Which GPUs, as `CLEARML`'s visible devices say it: indices, ids, or slices (`0:1`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gpus {
    /// The container gets none, and nothing is said about them.
    Unmentioned,
    /// The container gets none.
    None,
    /// All of the machine.
    All,
    /// These.
    Some(Vec<String>),
}

/// How a machine hands GPUs to containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vendor {
    /// No GPU is there: nothing is asked for, so that images run on machines without one.
    Absent,
    /// The engine has NVIDIA's runtime.
    Nvidia,
    /// The engine knows NVIDIA's devices by their CDI names.
    NvidiaCdi,
    /// Device nodes of AMD: the numbers of `/dev/dri/renderD…`, in the order of the GPUs.
    Amd(Vec<u32>),
}

/// What a container gets: written into its request. Returns variables for its environment.
///
/// `NVIDIA_VISIBLE_DEVICES` is always among them on machines with NVIDIA's runtime: it decides inside, where all
/// devices of the container are numbered anew.
pub fn add_gpus(host: &mut HostConfig, vendor: &Vendor, gpus: &Gpus) -> Vec<String> {
    let inside = |value: &str| vec![format!("NVIDIA_VISIBLE_DEVICES={value}")];
    match (vendor, gpus) {
        (_, Gpus::None) => inside("none"),
        (Vendor::Absent, _) | (_, Gpus::Unmentioned) => Vec::new(),
        (Vendor::Nvidia, gpus) => {
            let request = nvidia_request(gpus);
            host.device_requests.get_or_insert_default().push(request);
            inside("all")
        }
        (Vendor::NvidiaCdi, gpus) => {
            let names = match gpus {
                Gpus::Some(devices) => devices.clone(),
                _ => vec!["all".to_owned()],
            };
            for name in names {
                crate::flags::cdi_device(host, &format!("nvidia.com/gpu={name}"));
            }
            // The names decide; the variable would make NVIDIA's runtime decide a second time.
            inside("void")
        }
        (Vendor::Amd(nodes), gpus) => amd(host, nodes, gpus),
    }
}

fn nvidia_request(gpus: &Gpus) -> DeviceRequest {
    let (count, device_ids) = match gpus {
        Gpus::Some(devices) => (0, Some(devices.clone())),
        _ => (-1, None),
    };
    DeviceRequest {
        driver: Some(String::new()),
        count: Some(count),
        device_ids,
        capabilities: Some(vec![vec!["gpu".to_owned()]]),
        options: Some(HashMap::new()),
    }
}

fn amd(host: &mut HostConfig, nodes: &[u32], gpus: &Gpus) -> Vec<String> {
    let (wanted, variables) = match gpus {
        Gpus::Some(devices) => {
            let list = devices.join(",");
            // The official rule: the first GPU is renderD128.
            let wanted: Vec<u32> = devices
                .iter()
                .filter_map(|device| device.parse::<u32>().ok()?.checked_add(128))
                .collect();
            (
                wanted,
                vec![
                    format!("HIP_VISIBLE_DEVICES={list}"),
                    format!("ROCR_VISIBLE_DEVICES={list}"),
                ],
            )
        }
        _ => (nodes.to_vec(), Vec::new()),
    };
    let paths = wanted.iter().map(|node| format!("/dev/dri/renderD{node}"));
    for path in std::iter::once("/dev/kfd".to_owned()).chain(paths) {
        host.devices.get_or_insert_default().push(DeviceMapping {
            path_on_host: Some(path.clone()),
            path_in_container: Some(path),
            cgroup_permissions: Some("rwm".to_owned()),
        });
    }
    host.group_add.get_or_insert_default().push("video".to_owned());
    variables
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_vendor_and_each_choice() {
        let some = Gpus::Some(vec!["0".to_owned(), "2:1".to_owned()]);
        let of = |vendor: &Vendor, gpus: &Gpus| {
            let mut host = HostConfig::default();
            let variables = add_gpus(&mut host, vendor, gpus);
            (serde_json::to_value(&host).unwrap(), variables.join(" "))
        };
        let nvidia = |count: i64, ids: serde_json::Value| {
            let mut request = json!({"Driver": "", "Count": count, "Capabilities": [["gpu"]], "Options": {}});
            if ids.is_array() {
                request["DeviceIDs"] = ids;
            }
            json!({"DeviceRequests": [request]})
        };
        let all = "NVIDIA_VISIBLE_DEVICES=all".to_owned();
        assert_eq!(
            of(&Vendor::Nvidia, &Gpus::All),
            (nvidia(-1, json!(null)), all.clone())
        );
        assert_eq!(of(&Vendor::Nvidia, &some), (nvidia(0, json!(["0", "2:1"])), all));
        let (host, _) = of(&Vendor::NvidiaCdi, &some);
        assert_eq!(
            host["DeviceRequests"][0]["DeviceIDs"],
            json!(["nvidia.com/gpu=0", "nvidia.com/gpu=2:1"])
        );
        assert_eq!(
            of(&Vendor::Nvidia, &Gpus::None),
            (json!({}), "NVIDIA_VISIBLE_DEVICES=none".to_owned())
        );
        assert_eq!(
            of(&Vendor::Nvidia, &Gpus::Unmentioned),
            (json!({}), String::new())
        );
        assert_eq!(of(&Vendor::Absent, &Gpus::All), (json!({}), String::new()));
        let (host, variables) = of(&Vendor::Amd(vec![128, 129]), &Gpus::Some(vec!["1".to_owned()]));
        assert_eq!(variables, "HIP_VISIBLE_DEVICES=1 ROCR_VISIBLE_DEVICES=1");
        let paths = |host: &serde_json::Value| -> Vec<String> {
            let devices = host["Devices"].as_array().cloned().unwrap_or_default();
            devices
                .iter()
                .map(|device| device["PathOnHost"].as_str().unwrap_or_default().to_owned())
                .collect()
        };
        assert_eq!(paths(&host), ["/dev/kfd", "/dev/dri/renderD129"]);
        let (host, variables) = of(&Vendor::Amd(vec![128, 130]), &Gpus::All);
        assert_eq!((paths(&host).len(), variables), (3, String::new()));
        assert_eq!(host["GroupAdd"], json!(["video"]));
    }
}
