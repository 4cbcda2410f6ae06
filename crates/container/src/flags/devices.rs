//! Devices, GPUs among them, and limits of devices.

use std::collections::HashMap;

use bollard::models::{DeviceMapping, DeviceRequest, HostConfig, ResourcesBlkioWeightDevice, ThrottleDevice};

use super::draft::Draft;
use super::fields::Set;
use super::values::{bytes, comma_separated, integer, pair, path_and};

/// Limits of devices.
macro_rules! throttle {
    ($($name:ident: $field:ident = $read:expr;)+) => {$(
        pub(super) fn $name(draft: &mut Draft<'_>, value: &str) -> Set {
            let (path, rate) = path_and(value)?;
            let entry = ThrottleDevice { path: Some(path.to_owned()), rate: Some($read(rate)?) };
            draft.host.$field.get_or_insert_default().push(entry);
            Ok(())
        }
    )+};
}

throttle! {
    device_read_bps: blkio_device_read_bps = bytes;
    device_read_iops: blkio_device_read_iops = integer;
    device_write_bps: blkio_device_write_bps = bytes;
    device_write_iops: blkio_device_write_iops = integer;
}

pub(super) fn blkio_weight_device(draft: &mut Draft<'_>, value: &str) -> Set {
    let (path, weight) = path_and(value)?;
    let entry = ResourcesBlkioWeightDevice {
        path: Some(path.to_owned()),
        weight: Some(integer(weight)?),
    };
    draft.host.blkio_weight_device.get_or_insert_default().push(entry);
    Ok(())
}

/// `HOST[:CONTAINER[:PERMISSIONS]]`, or a device by its CDI name (`vendor/class=name`).
pub(super) fn device(draft: &mut Draft<'_>, value: &str) -> Set {
    if is_cdi(value) {
        cdi_device(&mut draft.host, value);
        return Ok(());
    }
    let parts: Vec<&str> = value.split(':').collect();
    let permissions =
        |text: &str| !text.is_empty() && text.len() <= 3 && text.chars().all(|c| "rwm".contains(c));
    let (host, container, allowed) = match parts[..] {
        [host] => (host, host, "rwm"),
        [host, allowed] if permissions(allowed) => (host, host, allowed),
        [host, container] => (host, container, "rwm"),
        [host, container, allowed] if permissions(allowed) => (host, container, allowed),
        _ => {
            return Err(
                "HOST[:CONTAINER[:PERMISSIONS]] is expected, permissions out of r, w and m".to_owned(),
            );
        }
    };
    if !host.starts_with('/') || !container.starts_with('/') {
        return Err("it is neither an absolute path nor the CDI name of a device".to_owned());
    }
    draft.host.devices.get_or_insert_default().push(DeviceMapping {
        path_on_host: Some(host.to_owned()),
        path_in_container: Some(container.to_owned()),
        cgroup_permissions: Some(allowed.to_owned()),
    });
    Ok(())
}

/// Whether this is the name of a device as the Container Device Interface writes it.
fn is_cdi(value: &str) -> bool {
    value.split_once('=').is_some_and(|(kind, name)| {
        let word = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "._-:".contains(c))
        };
        kind.split_once('/')
            .is_some_and(|(vendor, class)| word(vendor) && word(class))
            && word(name)
    })
}

/// All CDI names go into one request, as the docker program sends them.
pub(crate) fn cdi_device(host: &mut HostConfig, name: &str) {
    let requests = host.device_requests.get_or_insert_default();
    let cdi = requests
        .iter()
        .position(|request| request.driver.as_deref() == Some("cdi"));
    let at = cdi.unwrap_or_else(|| {
        requests.push(DeviceRequest {
            driver: Some("cdi".to_owned()),
            ..DeviceRequest::default()
        });
        requests.len() - 1
    });
    requests[at]
        .device_ids
        .get_or_insert_default()
        .push(name.to_owned());
}

pub(super) fn gpus(draft: &mut Draft<'_>, value: &str) -> Set {
    let request = gpu_request(value)?;
    draft.host.device_requests.get_or_insert_default().push(request);
    Ok(())
}

/// `all`, a number, or fields such as `"device=0,1"`, `count=2`, `capabilities=…`.
fn gpu_request(value: &str) -> Result<DeviceRequest, String> {
    let mut request = DeviceRequest {
        driver: Some(String::new()),
        ..DeviceRequest::default()
    };
    let mut seen = Vec::new();
    for field in comma_separated(value)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => ("count".to_owned(), field),
        };
        if seen.contains(&key) {
            return Err(format!("{key:?} is given twice"));
        }
        let list = || value.split(',').map(str::to_owned).collect::<Vec<_>>();
        match key.as_str() {
            "count" if value == "all" => request.count = Some(-1),
            "count" => request.count = Some(integer(&value)?),
            "driver" => request.driver = Some(value.clone()),
            "device" => request.device_ids = Some(list()),
            "capabilities" => {
                let mut capabilities = list();
                capabilities.push("gpu".to_owned());
                request.capabilities = Some(vec![capabilities]);
            }
            "options" => {
                let options = comma_separated(&value)?;
                let options: Result<HashMap<_, _>, _> = options.iter().map(|option| pair(option)).collect();
                request.options = Some(options?);
            }
            _ => {
                return Err(format!(
                    "{key:?} is not known; use count, device, driver, capabilities or options"
                ));
            }
        }
        seen.push(key);
    }
    if request.count.is_some() && request.device_ids.is_some() {
        let text =
            "count and device exclude each other; a list of devices stands in quotes: '\"device=0,1\"'";
        return Err(text.to_owned());
    }
    if request.count.is_none() {
        request.count = Some(i64::from(request.device_ids.is_none()));
    }
    request.options.get_or_insert_with(HashMap::new);
    request
        .capabilities
        .get_or_insert_with(|| vec![vec!["gpu".to_owned()]]);
    Ok(request)
}
