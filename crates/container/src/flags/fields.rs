//! What each option sets.

use std::collections::HashMap;

use bollard::models::{
    EndpointSettings, HostConfigCgroupnsModeEnum, HostConfigIsolationEnum, HostConfigLogConfig,
    ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};

use super::draft::{Draft, PullPolicy};
use super::values::{
    bytes, bytes_or_unlimited, comma_separated, integer, nanoseconds, pair, switch as boolean,
};
use super::variables::lines;

pub(super) use super::devices::{
    blkio_weight_device, device, device_read_bps, device_read_iops, device_write_bps, device_write_iops, gpus,
};
pub(super) use super::mounts::{mount, volume};
pub(super) use super::ports::{expose, publish};
pub(super) use super::variables::{env, env_file, label, label_file};

pub(super) type Set = Result<(), String>;

/// Options whose value is taken as it is.
macro_rules! text {
    ($($name:ident: $($field:ident).+;)+) => {$(
        pub(super) fn $name(draft: &mut Draft<'_>, value: &str) -> Set {
            draft.$($field).+ = Some(value.to_owned());
            Ok(())
        }
    )+};
}

/// Options that can be given several times.
macro_rules! list {
    ($($name:ident: $($field:ident).+;)+) => {$(
        pub(super) fn $name(draft: &mut Draft<'_>, value: &str) -> Set {
            draft.$($field).+.get_or_insert_default().push(value.to_owned());
            Ok(())
        }
    )+};
}

/// Options with a value that is read by a function.
macro_rules! read {
    ($($name:ident: $($field:ident).+ = $read:expr;)+) => {$(
        pub(super) fn $name(draft: &mut Draft<'_>, value: &str) -> Set {
            draft.$($field).+ = Some($read(value)?);
            Ok(())
        }
    )+};
}

text! {
    cgroup_parent: host.cgroup_parent;
    cpuset_cpus: host.cpuset_cpus;
    cpuset_mems: host.cpuset_mems;
    domainname: body.domainname;
    hostname: body.hostname;
    ipc: host.ipc_mode;
    name: name;
    platform: platform;
    runtime: host.runtime;
    stop_signal: body.stop_signal;
    user: body.user;
    userns: host.userns_mode;
    volume_driver: host.volume_driver;
    workdir: body.working_dir;
}

list! {
    add_host_line: host.extra_hosts;
    device_cgroup_rule: host.device_cgroup_rules;
    dns_option: host.dns_options;
    dns_search: host.dns_search;
    group_add: host.group_add;
    network_alias: endpoint.aliases;
    volumes_from: host.volumes_from;
}

read! {
    mac_address: endpoint.mac_address = mac;
    pid: host.pid_mode = of_machine_or_container;
    uts: host.uts_mode = of_machine;
    blkio_weight: host.blkio_weight = integer;
    cpu_period: host.cpu_period = integer;
    cpu_quota: host.cpu_quota = integer;
    cpu_rt_period: host.cpu_realtime_period = integer;
    cpu_rt_runtime: host.cpu_realtime_runtime = integer;
    cpu_shares: host.cpu_shares = integer;
    cpus: host.nano_cpus = nano_cpus;
    init: host.init = boolean;
    interactive: body.open_stdin = boolean;
    isolation: host.isolation = isolation_of;
    memory: host.memory = bytes;
    memory_reservation: host.memory_reservation = bytes;
    memory_swap: host.memory_swap = bytes_or_unlimited;
    memory_swappiness: host.memory_swappiness = integer;
    oom_kill_disable: host.oom_kill_disable = boolean;
    oom_score_adj: host.oom_score_adj = integer;
    pids_limit: host.pids_limit = integer;
    privileged: host.privileged = boolean;
    publish_all: host.publish_all_ports = boolean;
    read_only: host.readonly_rootfs = boolean;
    restart: host.restart_policy = restart_policy;
    shm_size: host.shm_size = bytes;
    stop_timeout: body.stop_timeout = integer;
    tty: body.tty = boolean;
    health_interval: health.interval = nanoseconds;
    health_retries: health.retries = integer;
    health_start_interval: health.start_interval = nanoseconds;
    health_start_period: health.start_period = nanoseconds;
    health_timeout: health.timeout = nanoseconds;
    cgroupns: host.cgroupns_mode = cgroup_namespace;
}

/// Options of the form NAME=VALUE that go into a map.
macro_rules! map {
    ($($name:ident: $field:ident;)+) => {$(
        pub(super) fn $name(draft: &mut Draft<'_>, value: &str) -> Set {
            let (key, value) = pair(value)?;
            draft.host.$field.get_or_insert_with(HashMap::new).insert(key, value);
            Ok(())
        }
    )+};
}

map! {
    storage_opt: storage_opt;
    sysctl: sysctls;
}

pub(super) fn add_host(draft: &mut Draft<'_>, value: &str) -> Set {
    let line = match value.split_once(['=', ':']) {
        Some((name, address)) if !name.is_empty() && !address.is_empty() => {
            let address = address
                .strip_prefix('[')
                .and_then(|a| a.strip_suffix(']'))
                .unwrap_or(address);
            format!("{name}:{address}")
        }
        _ => return Err("HOST:ADDRESS is expected".to_owned()),
    };
    add_host_line(draft, &line)
}

#[expect(clippy::unnecessary_wraps, reason = "one of many setters")]
pub(super) fn cap_add(draft: &mut Draft<'_>, value: &str) -> Set {
    draft.host.cap_add.get_or_insert_default().push(capability(value));
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "one of many setters")]
pub(super) fn cap_drop(draft: &mut Draft<'_>, value: &str) -> Set {
    draft
        .host
        .cap_drop
        .get_or_insert_default()
        .push(capability(value));
    Ok(())
}

/// The name as the kernel has it; newer versions of the docker program write it that way, too.
fn capability(value: &str) -> String {
    let name = value.trim().to_ascii_uppercase();
    if name == "ALL" || name.starts_with("CAP_") {
        name
    } else {
        format!("CAP_{name}")
    }
}

pub(super) fn annotation(draft: &mut Draft<'_>, value: &str) -> Set {
    let (key, value) = value.split_once('=').unwrap_or((value, ""));
    draft
        .host
        .annotations
        .get_or_insert_with(HashMap::new)
        .insert(key.to_owned(), value.to_owned());
    Ok(())
}

pub(super) fn dns(draft: &mut Draft<'_>, value: &str) -> Set {
    value
        .parse::<std::net::IpAddr>()
        .map_err(|_| "an IP address is expected".to_owned())?;
    draft.host.dns.get_or_insert_default().push(value.to_owned());
    Ok(())
}

/// An empty one takes the entry point of the image away.
#[expect(clippy::unnecessary_wraps, reason = "one of many setters")]
pub(super) fn entrypoint(draft: &mut Draft<'_>, value: &str) -> Set {
    draft.body.entrypoint = Some(vec![value.to_owned()]);
    Ok(())
}

/// A namespace of this machine, or the usual one of a container, which Podman has a name for.
fn of_machine(value: &str) -> Result<String, String> {
    match value {
        "" | "host" | "private" => Ok(value.to_owned()),
        _ => Err("host is expected".to_owned()),
    }
}

fn of_machine_or_container(value: &str) -> Result<String, String> {
    let named = value
        .strip_prefix("container:")
        .is_some_and(|name| !name.is_empty());
    if named {
        return Ok(value.to_owned());
    }
    of_machine(value).map_err(|_| "host or container:NAME is expected".to_owned())
}

fn mac(value: &str) -> Result<String, String> {
    let octet = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let octets = value.split([':', '-']);
    let wrong = || "an address such as 02:42:ac:11:00:02 is expected".to_owned();
    let right = octets.clone().count() == 6 && octets.clone().all(octet);
    right.then(|| value.to_owned()).ok_or_else(wrong)
}

#[expect(clippy::unnecessary_wraps, reason = "one of many setters")]
pub(super) fn health_cmd(draft: &mut Draft<'_>, value: &str) -> Set {
    if value.is_empty() {
        return Ok(());
    }
    draft.health.test = Some(vec!["CMD-SHELL".to_owned(), value.to_owned()]);
    Ok(())
}

pub(super) fn no_healthcheck(draft: &mut Draft<'_>, value: &str) -> Set {
    draft.no_healthcheck = boolean(value)?;
    Ok(())
}

pub(super) fn ip(draft: &mut Draft<'_>, value: &str) -> Set {
    value
        .parse::<std::net::Ipv4Addr>()
        .map_err(|_| "an IPv4 address is expected".to_owned())?;
    draft.ipam().ipv4_address = Some(value.to_owned());
    Ok(())
}

pub(super) fn ip6(draft: &mut Draft<'_>, value: &str) -> Set {
    value
        .parse::<std::net::Ipv6Addr>()
        .map_err(|_| "an IPv6 address is expected".to_owned())?;
    draft.ipam().ipv6_address = Some(value.to_owned());
    Ok(())
}

pub(super) fn link_local_ip(draft: &mut Draft<'_>, value: &str) -> Set {
    value
        .parse::<std::net::IpAddr>()
        .map_err(|_| "an IP address is expected".to_owned())?;
    draft
        .ipam()
        .link_local_ips
        .get_or_insert_default()
        .push(value.to_owned());
    Ok(())
}

fn isolation_of(value: &str) -> Result<HostConfigIsolationEnum, String> {
    match value {
        "" | "default" => Ok(HostConfigIsolationEnum::DEFAULT),
        _ => Err("only \"default\" exists on Linux".to_owned()),
    }
}

/// Containers of the default network get links as a list of the host's part.
pub(super) fn link(draft: &mut Draft<'_>, value: &str) -> Set {
    let parts: Vec<&str> = value.split(':').collect();
    let line = match parts[..] {
        [name] if !name.is_empty() => format!("{name}:{name}"),
        [name, alias] if !name.is_empty() && !alias.is_empty() => format!("{name}:{alias}"),
        _ => return Err("CONTAINER or CONTAINER:ALIAS is expected".to_owned()),
    };
    draft.host.links.get_or_insert_default().push(line);
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "one of many setters")]
pub(super) fn log_driver(draft: &mut Draft<'_>, value: &str) -> Set {
    log(draft).typ = Some(value.to_owned());
    Ok(())
}

pub(super) fn log_opt(draft: &mut Draft<'_>, value: &str) -> Set {
    let (key, value) = pair(value)?;
    log(draft)
        .config
        .get_or_insert_with(HashMap::new)
        .insert(key, value);
    Ok(())
}

fn log<'a>(draft: &'a mut Draft<'_>) -> &'a mut HostConfigLogConfig {
    draft.host.log_config.get_or_insert_default()
}

/// A name, or fields: `name=…,alias=…,ip=…,ip6=…,mac-address=…,driver-opt=…`.
pub(super) fn network(draft: &mut Draft<'_>, value: &str) -> Set {
    if value.is_empty() {
        return Err("the name of a network is expected".to_owned());
    }
    if !value.contains('=') {
        draft
            .networks
            .push((value.to_owned(), EndpointSettings::default()));
        return Ok(());
    }
    let (mut name, mut settings) = (None, EndpointSettings::default());
    for field in comma_separated(value)? {
        let (key, value) = pair(&field)?;
        let ipam = settings.ipam_config.get_or_insert_default();
        match key.to_ascii_lowercase().as_str() {
            "name" => name = Some(value),
            "alias" => settings.aliases.get_or_insert_default().push(value),
            "ip" => ipam.ipv4_address = Some(value),
            "ip6" => ipam.ipv6_address = Some(value),
            "link-local-ip" => ipam.link_local_ips.get_or_insert_default().push(value),
            "mac-address" => settings.mac_address = Some(mac(&value)?),
            "gw-priority" => settings.gw_priority = Some(integer(&value)?),
            "driver-opt" => {
                let (key, value) = pair(&value)?;
                settings
                    .driver_opts
                    .get_or_insert_with(HashMap::new)
                    .insert(key, value);
            }
            _ => return Err(format!("{key:?} is not known in it")),
        }
    }
    if settings.ipam_config == Some(bollard::models::EndpointIpamConfig::default()) {
        settings.ipam_config = None;
    }
    let name = name
        .filter(|name| !name.is_empty())
        .ok_or_else(|| "name=NETWORK is missing in it".to_owned())?;
    draft.networks.push((name, settings));
    Ok(())
}

/// CPUs as a decimal number, in billionths.
fn nano_cpus(value: &str) -> Result<i64, String> {
    let wrong = || "a number of CPUs is expected, such as 1.5".to_owned();
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return Err(wrong());
    }
    if fraction.len() > 9 {
        return Err("it has more than nine decimal places".to_owned());
    }
    let whole: i64 = if whole.is_empty() {
        0
    } else {
        whole.parse().map_err(|_| wrong())?
    };
    let fraction: i64 = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
    whole
        .checked_mul(1_000_000_000)
        .and_then(|n| n.checked_add(fraction))
        .ok_or_else(wrong)
}

pub(super) fn pull(draft: &mut Draft<'_>, value: &str) -> Set {
    draft.pull = match value {
        "always" => PullPolicy::Always,
        "missing" => PullPolicy::Missing,
        "never" => PullPolicy::Never,
        _ => return Err("always, missing or never is expected".to_owned()),
    };
    Ok(())
}

/// Reads a policy as `--restart` takes it.
///
/// # Errors
///
/// What is wrong with the text.
pub fn restart_policy(value: &str) -> Result<RestartPolicy, String> {
    use RestartPolicyNameEnum as Name;
    let (name, count) = match value.split_once(':') {
        Some((name, count)) => (name, Some(count)),
        None => (value, None),
    };
    let name = match (name, count) {
        ("no", None) => Name::NO,
        ("always", None) => Name::ALWAYS,
        ("unless-stopped", None) => Name::UNLESS_STOPPED,
        ("on-failure", _) => Name::ON_FAILURE,
        _ => return Err("no, always, unless-stopped or on-failure[:COUNT] is expected".to_owned()),
    };
    let maximum_retry_count = count.map(integer).transpose()?;
    Ok(RestartPolicy {
        name: Some(name),
        maximum_retry_count,
    })
}

fn cgroup_namespace(value: &str) -> Result<HostConfigCgroupnsModeEnum, String> {
    match value {
        "" => Ok(HostConfigCgroupnsModeEnum::EMPTY),
        "host" => Ok(HostConfigCgroupnsModeEnum::HOST),
        "private" => Ok(HostConfigCgroupnsModeEnum::PRIVATE),
        _ => Err("host or private is expected".to_owned()),
    }
}

/// Profiles of seccomp are files of this machine that the engine wants as text.
pub(super) fn security_opt(draft: &mut Draft<'_>, value: &str) -> Set {
    if value == "systempaths=unconfined" {
        draft.host.masked_paths = Some(Vec::new());
        draft.host.readonly_paths = Some(Vec::new());
        return Ok(());
    }
    let line = match value.split_once(['=', ':']) {
        Some(("seccomp", profile)) if !["unconfined", "builtin"].contains(&profile) => {
            let text = lines(profile)?.join("\n");
            let profile: serde_json::Value =
                serde_json::from_str(&text).map_err(|e| format!("the profile is not JSON: {e}"))?;
            format!("seccomp={profile}")
        }
        Some(_) => value.to_owned(),
        None if value == "no-new-privileges" => value.to_owned(),
        None => return Err("NAME=VALUE or no-new-privileges is expected".to_owned()),
    };
    draft.host.security_opt.get_or_insert_default().push(line);
    Ok(())
}

pub(super) fn tmpfs(draft: &mut Draft<'_>, value: &str) -> Set {
    let (path, options) = value.split_once(':').unwrap_or((value, ""));
    if !path.starts_with('/') {
        return Err("an absolute path is expected".to_owned());
    }
    draft
        .host
        .tmpfs
        .get_or_insert_with(HashMap::new)
        .insert(path.to_owned(), options.to_owned());
    Ok(())
}

pub(super) fn ulimit(draft: &mut Draft<'_>, value: &str) -> Set {
    const NAMES: [&str; 16] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
        "as",
    ];
    let (name, limits) = pair(value)?;
    if !NAMES.contains(&name.as_str()) {
        return Err(format!("{name:?} is not a limit; there are {}", NAMES.join(", ")));
    }
    let limit = |text: &str| {
        if text == "unlimited" {
            Ok(-1)
        } else {
            integer::<i64>(text)
        }
    };
    let (soft, hard) = limits.split_once(':').unwrap_or((&limits, &limits));
    let (soft, hard) = (limit(soft)?, limit(hard)?);
    if hard != -1 && (soft > hard || soft == -1) {
        return Err("its soft limit is above its hard limit".to_owned());
    }
    let entry = ResourcesUlimits {
        name: Some(name),
        soft: Some(soft),
        hard: Some(hard),
    };
    draft.host.ulimits.get_or_insert_default().push(entry);
    Ok(())
}
