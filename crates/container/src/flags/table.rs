//! Every option of `docker run` (Docker 29 and older), and what becomes of it here.

use super::draft::Draft;
use super::fields as f;

/// What becomes of an option, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It does what it does for docker.
    Supported,
    /// It is accepted, says nothing to an agent, and a message says so.
    NoEffect(&'static str),
    /// It is an error, for this reason.
    Refused(&'static str),
}

/// What becomes of an option.
#[derive(Clone, Copy)]
pub(super) enum Effect {
    /// It is set in the request.
    Set(Setter),
    /// It is accepted, says nothing to an agent, and a message says so.
    Pointless(&'static str),
    /// It is an error, for this reason.
    Refused(&'static str),
}

/// Sets one option; an error says what is wrong with the value.
pub(super) type Setter = fn(&mut Draft<'_>, &str) -> Result<(), String>;

/// One option.
pub struct Flag {
    /// Its name, without dashes.
    pub long: &'static str,
    /// Other names for it.
    pub aliases: &'static [&'static str],
    /// Its single letter.
    pub short: Option<char>,
    /// Whether it stands alone.
    pub switch: bool,
    pub(super) effect: Effect,
}

const fn value(long: &'static str, set: Setter) -> Flag {
    flag(long, false, Effect::Set(set))
}

const fn switch(long: &'static str, set: Setter) -> Flag {
    flag(long, true, Effect::Set(set))
}

const fn flag(long: &'static str, switch: bool, effect: Effect) -> Flag {
    Flag {
        long,
        aliases: &[],
        short: None,
        switch,
        effect,
    }
}

impl Flag {
    /// What becomes of it.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self.effect {
            Effect::Set(_) => Outcome::Supported,
            Effect::Pointless(reason) => Outcome::NoEffect(reason),
            Effect::Refused(reason) => Outcome::Refused(reason),
        }
    }

    const fn short(mut self, letter: char) -> Self {
        self.short = Some(letter);
        self
    }

    const fn also(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }
}

const OWN_OUTPUT: &str = "the agent follows the console by itself";
const WINDOWS: &str = "it exists on Windows only; leave it away";

static FLAGS: &[Flag] = &[
    value("add-host", f::add_host),
    value("annotation", f::annotation),
    flag("attach", false, Effect::Pointless(OWN_OUTPUT)).short('a'),
    value("blkio-weight", f::blkio_weight),
    value("blkio-weight-device", f::blkio_weight_device),
    value("cap-add", f::cap_add),
    value("cap-drop", f::cap_drop),
    value("cgroup-parent", f::cgroup_parent),
    value("cgroupns", f::cgroupns),
    flag(
        "cidfile",
        false,
        Effect::Refused(
            "it would let a task write files of this machine; containers carry the label clearml-worker-id",
        ),
    ),
    flag("cpu-count", false, Effect::Refused(WINDOWS)),
    flag("cpu-percent", false, Effect::Refused(WINDOWS)),
    value("cpu-period", f::cpu_period),
    value("cpu-quota", f::cpu_quota),
    value("cpu-rt-period", f::cpu_rt_period),
    value("cpu-rt-runtime", f::cpu_rt_runtime),
    value("cpu-shares", f::cpu_shares).short('c'),
    value("cpus", f::cpus),
    value("cpuset-cpus", f::cpuset_cpus),
    value("cpuset-mems", f::cpuset_mems),
    flag("detach", true, Effect::Pointless("the agent waits for the task")).short('d'),
    flag("detach-keys", false, Effect::Pointless("no terminal is attached")),
    value("device", f::device),
    value("device-cgroup-rule", f::device_cgroup_rule),
    value("device-read-bps", f::device_read_bps),
    value("device-read-iops", f::device_read_iops),
    value("device-write-bps", f::device_write_bps),
    value("device-write-iops", f::device_write_iops),
    flag(
        "disable-content-trust",
        true,
        Effect::Pointless("signatures of images are not checked by the Engine API"),
    ),
    value("dns", f::dns),
    value("dns-option", f::dns_option).also(&["dns-opt"]),
    value("dns-search", f::dns_search),
    value("domainname", f::domainname),
    value("entrypoint", f::entrypoint),
    value("env", f::env).short('e'),
    value("env-file", f::env_file),
    value("expose", f::expose),
    value("gpus", f::gpus),
    value("group-add", f::group_add),
    value("health-cmd", f::health_cmd),
    value("health-interval", f::health_interval),
    value("health-retries", f::health_retries),
    value("health-start-interval", f::health_start_interval),
    value("health-start-period", f::health_start_period),
    value("health-timeout", f::health_timeout),
    flag("help", true, Effect::Refused("it starts nothing; leave it away")),
    value("hostname", f::hostname).short('h'),
    switch("init", f::init),
    switch("interactive", f::interactive).short('i'),
    flag("io-maxbandwidth", false, Effect::Refused(WINDOWS)),
    flag("io-maxiops", false, Effect::Refused(WINDOWS)),
    value("ip", f::ip),
    value("ip6", f::ip6),
    value("ipc", f::ipc),
    value("isolation", f::isolation),
    flag(
        "kernel-memory",
        false,
        Effect::Refused("engines have given it up; --memory limits the memory of the kernel as well"),
    ),
    value("label", f::label).short('l'),
    value("label-file", f::label_file),
    value("link", f::link),
    value("link-local-ip", f::link_local_ip),
    value("log-driver", f::log_driver),
    value("log-opt", f::log_opt),
    value("mac-address", f::mac_address),
    value("memory", f::memory).short('m'),
    value("memory-reservation", f::memory_reservation),
    value("memory-swap", f::memory_swap),
    value("memory-swappiness", f::memory_swappiness),
    value("mount", f::mount),
    value("name", f::name),
    value("network", f::network).also(&["net"]),
    value("network-alias", f::network_alias).also(&["net-alias"]),
    switch("no-healthcheck", f::no_healthcheck),
    switch("oom-kill-disable", f::oom_kill_disable),
    value("oom-score-adj", f::oom_score_adj),
    value("pid", f::pid),
    value("pids-limit", f::pids_limit),
    value("platform", f::platform),
    switch("privileged", f::privileged),
    value("publish", f::publish).short('p'),
    switch("publish-all", f::publish_all).short('P'),
    value("pull", f::pull),
    flag(
        "quiet",
        true,
        Effect::Pointless("the agent decides what it prints"),
    )
    .short('q'),
    switch("read-only", f::read_only),
    value("restart", f::restart),
    flag(
        "rm",
        true,
        Effect::Pointless("the agent removes every container whose end it has recorded"),
    ),
    value("runtime", f::runtime),
    value("security-opt", f::security_opt),
    value("shm-size", f::shm_size),
    flag(
        "sig-proxy",
        true,
        Effect::Pointless("the agent stops containers by itself"),
    ),
    value("stop-signal", f::stop_signal),
    value("stop-timeout", f::stop_timeout),
    value("storage-opt", f::storage_opt),
    value("sysctl", f::sysctl),
    value("tmpfs", f::tmpfs),
    switch("tty", f::tty).short('t'),
    value("ulimit", f::ulimit),
    flag(
        "use-api-socket",
        true,
        Effect::Refused(
            "it would hand the Docker Engine of this machine to the task; mount the socket if that is meant",
        ),
    ),
    value("user", f::user).short('u'),
    value("userns", f::userns),
    value("uts", f::uts),
    value("volume", f::volume).short('v'),
    value("volume-driver", f::volume_driver),
    value("volumes-from", f::volumes_from),
    value("workdir", f::workdir).short('w'),
];

/// Every option, in the order of its name.
#[must_use]
pub fn flags() -> &'static [Flag] {
    FLAGS
}

pub(super) fn by_name(name: &str) -> Option<&'static Flag> {
    FLAGS
        .iter()
        .find(|flag| flag.long == name || flag.aliases.contains(&name))
}

pub(super) fn by_letter(letter: char) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.short == Some(letter))
}
