//! The complete request for the container of a task: what options ask for, and what the agent adds. Pure, but for
//! the question which ports of this machine are in use.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, HostConfig, Mount, MountType, RestartPolicy, RestartPolicyNameEnum,
};

use crate::engine::{EngineFacts, ImageFacts};
use crate::flags::RunSpec;
use crate::gpus::{Gpus, Vendor, add_gpus};
use crate::ports::{Mapped, remap};

/// Images that limit the memory of a GPU; what limits it has to see the processes of the machine.
const FRACTIONAL: &str = "clearml/fractional-gpu";

/// A file or folder of this machine in a container. It must exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Where it is here.
    pub source: PathBuf,
    /// Where it is there.
    pub target: String,
    /// Nobody can change it there.
    pub read_only: bool,
    /// It is left out where the options put something else at its place.
    pub optional: bool,
}

/// When the engine starts a container again that has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Restart {
    /// Never.
    #[default]
    Never,
    /// Whenever it ends.
    Always,
    /// The same, but not after the engine's own start where it was stopped before.
    UnlessStopped,
    /// After a failure, so many times at most; 0 = as often as that happens.
    OnFailure(u32),
}

impl Restart {
    /// Reads a policy as `docker run --restart` takes it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            Some(("on-failure", times)) => times.parse().ok().map(Self::OnFailure),
            Some(_) => None,
            None => match text {
                "no" => Some(Self::Never),
                "always" => Some(Self::Always),
                "unless-stopped" => Some(Self::UnlessStopped),
                "on-failure" => Some(Self::OnFailure(0)),
                _ => None,
            },
        }
    }

    fn policy(self) -> RestartPolicy {
        let (name, times) = match self {
            Self::Never => return RestartPolicy::default(),
            Self::Always => (RestartPolicyNameEnum::ALWAYS, None),
            Self::UnlessStopped => (RestartPolicyNameEnum::UNLESS_STOPPED, None),
            Self::OnFailure(times) => (RestartPolicyNameEnum::ON_FAILURE, Some(i64::from(times))),
        };
        RestartPolicy {
            name: Some(name),
            maximum_retry_count: times,
        }
    }
}

/// What the agent adds.
#[derive(Debug, Clone, Default)]
pub struct Additions {
    /// The image.
    pub image: String,
    /// The first process.
    pub command: Vec<String>,
    /// `NAME=VALUE`; they win over those of options.
    pub env: Vec<String>,
    /// Names and values; they win over those of options.
    pub labels: Vec<(String, String)>,
    /// Files and folders.
    pub binds: Vec<Bind>,
    /// When the engine starts it again.
    pub restart: Restart,
    /// How long its processes have to end when somebody stops it who says nothing about that, or the engine ends.
    /// `None` for what the engine thinks is right; an image of the container would keep it.
    pub stop_timeout: Option<Duration>,
    /// GPUs and how this machine hands them out.
    pub gpus: Option<(Vendor, Gpus)>,
}

/// What the image or the options would start: the beginning of every command.
#[must_use]
pub fn entry_point(spec: &RunSpec, image: &ImageFacts) -> Vec<String> {
    spec.body
        .entrypoint
        .clone()
        .unwrap_or_else(|| image.entrypoint.clone())
}

/// Moves published ports that are in use here, or not allowed. `None` where nothing is published, or the container
/// uses the network of this machine.
#[must_use]
pub fn publish(spec: &mut RunSpec, allowed: Option<RangeInclusive<u16>>) -> Option<Mapped> {
    let host = spec.body.host_config.as_mut()?;
    if host.network_mode.as_deref() == Some("host") {
        return None;
    }
    let ports = host.port_bindings.as_mut().filter(|ports| !ports.is_empty())?;
    let in_use = |port: u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_err();
    Some(remap(ports, allowed, &in_use))
}

/// The request. Notices are for people: what of the options had to give way.
#[must_use]
pub fn complete(spec: RunSpec, additions: Additions) -> (ContainerCreateBody, Vec<String>) {
    let mut notices = Vec::new();
    let mut body = spec.body;
    let mut host = body.host_config.take().unwrap_or_default();
    let mut env = body.env.take().unwrap_or_default();
    if let Some((vendor, gpus)) = &additions.gpus {
        // A person who asks for certain GPUs by an option gets those.
        if host.device_requests.as_ref().is_none_or(Vec::is_empty) {
            env.extend(add_gpus(&mut host, vendor, gpus));
        }
    }
    env.extend(additions.env);
    body.env = Some(env);
    let labels = body.labels.get_or_insert_default();
    labels.extend(additions.labels);
    add_binds(&mut host, additions.binds);
    if additions.image.starts_with(FRACTIONAL) {
        host.pid_mode.get_or_insert_with(|| "host".to_owned());
        host.ipc_mode.get_or_insert_with(|| "host".to_owned());
    }
    // The agent removes it when it knows how it has ended.
    host.auto_remove = None;
    let by_options = host
        .restart_policy
        .as_ref()
        .and_then(|policy| policy.name)
        .is_some_and(|name| !matches!(name, RestartPolicyNameEnum::NO | RestartPolicyNameEnum::EMPTY));
    if by_options {
        notices.push(
            "container argument --restart has no effect: a task runs once, and services are restarted where \
             CLEARML_AGENT_SERVICES_DOCKER_RESTART says so"
                .to_owned(),
        );
    }
    if by_options || additions.restart != Restart::Never {
        host.restart_policy = Some(additions.restart.policy());
    }
    body.image = Some(additions.image);
    let mut words = additions.command.into_iter();
    body.entrypoint = words.next().map(|program| vec![program]);
    body.cmd = Some(words.collect());
    body.tty = Some(false);
    // What the first process understands, whatever the image's programs do.
    body.stop_signal = Some("SIGTERM".to_owned());
    if let Some(time) = additions.stop_timeout {
        let seconds = time.as_secs().try_into().unwrap_or(i64::MAX);
        body.stop_timeout.get_or_insert(seconds);
    }
    body.host_config = Some(host);
    (body, notices)
}

/// What of the request this engine leaves aside without a word: Podman that of GPUs.
#[must_use]
pub fn unheeded(engine: &EngineFacts, body: &ContainerCreateBody) -> Option<String> {
    let version = engine.podman.as_ref()?;
    let mut requests = body.host_config.as_ref()?.device_requests.iter().flatten();
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    if requests
        .clone()
        .any(|request| request.driver.as_deref() != Some("cdi"))
    {
        return Some(format!(
            "container argument --gpus has no effect: Podman {version} does not follow it over its socket; use --device \
             nvidia.com/gpu=all"
        ));
    }
    (requests.next().is_some() && major.is_some_and(|major| major < 5)).then(|| {
        format!(
            "the task has no GPU: Podman {version} gives containers none over its socket; use Podman 5, or Docker, or \
             say --cpu-only"
        )
    })
}

fn add_binds(host: &mut HostConfig, binds: Vec<Bind>) {
    let taken = targets(host);
    let mounts = host.mounts.get_or_insert_default();
    let bare = |target: &str| target.trim_end_matches('/').to_owned();
    for bind in binds {
        if bind.optional && taken.contains(&bare(&bind.target)) {
            continue;
        }
        mounts.push(Mount {
            target: Some(bind.target),
            source: Some(bind.source.to_string_lossy().into_owned()),
            typ: Some(MountType::BIND),
            read_only: Some(bind.read_only),
            ..Mount::default()
        });
    }
}

/// Places in the container that options have put something at.
fn targets(host: &HostConfig) -> BTreeSet<String> {
    let binds = host.binds.iter().flatten().filter_map(|bind| {
        let mut parts = bind.split(':');
        let first = parts.next()?;
        Some(parts.next().unwrap_or(first).to_owned())
    });
    let mounts = host
        .mounts
        .iter()
        .flatten()
        .filter_map(|mount| mount.target.clone());
    let tmpfs = host.tmpfs.iter().flat_map(|tmpfs| tmpfs.keys().cloned());
    binds
        .chain(mounts)
        .chain(tmpfs)
        .map(|target| target.trim_end_matches('/').to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_agent_needs_stands_whatever_options_say() {
        let line = "--entrypoint /bin/x -e CLEARML_TASK_ID=other -e A=1 -v /mine:/root/.cache/pip/ --rm \
                    --restart=always --stop-signal SIGUSR1 --label clearml-worker-id=other";
        let words = shlex::split(line).unwrap();
        let spec = crate::flags::parse(&words, &|_| None).unwrap();
        assert_eq!(entry_point(&spec, &ImageFacts::default()), ["/bin/x"]);
        let bind = |target: &str, optional| Bind {
            source: "/here".into(),
            target: target.to_owned(),
            read_only: true,
            optional,
        };
        let (body, notices) = complete(
            spec,
            Additions {
                image: "clearml/fractional-gpu:u22-cu12.3-8gb".to_owned(),
                command: ["/agent", "shim"].map(str::to_owned).to_vec(),
                env: vec!["CLEARML_TASK_ID=t".to_owned()],
                labels: vec![("clearml-worker-id".to_owned(), "w".to_owned())],
                binds: vec![bind("/root/.cache/pip", true), bind("/.clearml-agent/in", false)],
                gpus: Some((Vendor::Absent, Gpus::All)),
                restart: Restart::Never,
                stop_timeout: Some(Duration::from_secs(20)),
            },
        );
        let body = serde_json::to_value(body).unwrap();
        assert_eq!(
            (&body["Entrypoint"], &body["Cmd"]),
            (&json!(["/agent"]), &json!(["shim"]))
        );
        assert_eq!(
            body["Env"].as_array().unwrap().last(),
            Some(&json!("CLEARML_TASK_ID=t"))
        );
        assert_eq!(body["Labels"], json!({"clearml-worker-id": "w"}));
        assert_eq!(body["StopSignal"], json!("SIGTERM"));
        assert_eq!(body["StopTimeout"], json!(20));
        let host = &body["HostConfig"];
        assert_eq!(
            host["Mounts"],
            json!([{"Target": "/.clearml-agent/in", "Source": "/here", "Type": "bind", "ReadOnly": true}])
        );
        assert_eq!(
            (&host["PidMode"], &host["IpcMode"]),
            (&json!("host"), &json!("host"))
        );
        assert_eq!(host.get("AutoRemove"), None);
        assert_eq!(host["RestartPolicy"], json!({}));
        assert_eq!(notices.len(), 1, "{notices:?}");
    }

    #[test]
    fn what_podman_leaves_aside_is_told() {
        let of = |version: &str, words: &[&str], gpus: Option<(Vendor, Gpus)>| {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            let spec = crate::flags::parse(&words, &|_| None).unwrap();
            let (body, _) = complete(
                spec,
                Additions {
                    gpus,
                    ..Additions::default()
                },
            );
            let engine = EngineFacts {
                podman: (!version.is_empty()).then(|| version.to_owned()),
                ..EngineFacts::default()
            };
            unheeded(&engine, &body).unwrap_or_default()
        };
        let all = || Some((Vendor::NvidiaCdi, Gpus::All));
        assert!(of("4.9.3", &[], all()).contains("has no GPU"));
        assert!(of("5.4.0", &["--gpus", "all"], all()).contains("--device nvidia.com/gpu=all"));
        for quiet in [
            of("5.4.0", &[], all()),
            of("4.9.3", &[], Some((Vendor::NvidiaCdi, Gpus::None))),
            of("", &["--gpus", "all"], all()),
        ] {
            assert_eq!(quiet, "");
        }
        // Who stops a container by hand has a say in how long that may take.
        let words = ["--stop-timeout", "3"].map(str::to_owned);
        let spec = crate::flags::parse(&words, &|_| None).unwrap();
        let additions = Additions {
            stop_timeout: Some(Duration::from_secs(20)),
            ..Additions::default()
        };
        assert_eq!(complete(spec, additions).0.stop_timeout, Some(3));
    }

    #[test]
    fn ports_of_this_machine_that_are_taken_are_not_published() {
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let words = ["-p".to_owned(), format!("{port}:80")];
        let mut spec = crate::flags::parse(&words, &|_| None).unwrap();
        let mapped = publish(&mut spec, None).unwrap();
        assert!(
            matches!(mapped.mapping[..], [(moved, 80)] if moved != port),
            "{mapped:?}"
        );
        let words = [&words[..], &["--network=host".to_owned()]].concat();
        let mut spec = crate::flags::parse(&words, &|_| None).unwrap();
        assert_eq!(publish(&mut spec, None), None);
    }
}
