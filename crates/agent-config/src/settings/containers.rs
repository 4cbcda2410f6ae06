//! The keys of the `agent` section that concern containers.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde_json::Value;

use crate::convert;
use crate::effective::Reader;

/// Containers of tasks; each field is the key of the same name in `agent`, unless it says otherwise.
///
/// Arguments, scripts and rules may contain secrets, so none of them is shown by `Debug`.
#[derive(Clone, PartialEq)]
pub struct ContainerSettings {
    /// `default_docker.image`.
    pub image: Option<String>,
    /// `default_docker.arguments`.
    pub arguments: Vec<String>,
    /// `default_docker.update_back_task`.
    pub update_back_task: bool,
    /// `default_docker.match_rules`, as they are written.
    pub match_rules: Vec<Value>,
    /// Tasks get the default container.
    pub disable_task_docker_override: bool,
    /// Pull before each task.
    pub docker_force_pull: bool,
    /// Arguments for all tasks.
    pub extra_docker_arguments: Vec<String>,
    /// Whether those win over arguments of tasks.
    pub docker_args_extra_precedes_task: bool,
    /// What one side may protect from the other.
    pub protected_docker_extra_args: Vec<String>,
    /// Patterns of arguments that tasks may use.
    pub docker_args_filters: Vec<String>,
    /// Arguments that nobody may use.
    pub forbidden_docker_args: Vec<String>,
    /// Ports of the host that tasks may publish.
    pub docker_args_allowed_port_range: Option<RangeInclusive<u16>>,
    /// Arguments of tasks may name variables of the agent.
    pub docker_allow_host_environ: bool,
    /// Commands that run in the container first.
    pub extra_docker_shell_script: Vec<String>,
    /// Commands that prepare the container in place of the agent's own.
    pub docker_init_bash_script: Vec<String>,
    /// Commands that run before those.
    pub docker_preprocess_bash_script: Vec<String>,
    /// Install the libraries that OpenCV needs.
    pub docker_install_opencv_libs: bool,
    /// The official agent is installed and runs the task.
    pub docker_install_agent: bool,
    /// Pattern of names.
    pub docker_container_name_format: Option<String>,
    /// More fields for it: a name and a path in the task.
    pub docker_container_name_format_fields: BTreeMap<String, String>,
    /// `docker_apt_cache`.
    pub apt_cache: Option<PathBuf>,
    /// `docker_pip_cache`.
    pub pip_cache: Option<PathBuf>,
    /// `docker_poetry_cache`.
    pub poetry_cache: Option<PathBuf>,
    /// Containers get no copy of `~/.ssh`.
    pub disable_ssh_mount: bool,
    /// `docker_internal_mounts`.
    pub mounts: InternalMounts,
}

/// `agent.docker_internal_mounts`: places inside of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InternalMounts {
    /// The SDK's cache.
    pub sdk_cache: String,
    /// Packages of apt.
    pub apt_cache: String,
    /// SSH keys, as programs look for them.
    pub ssh_folder: String,
    /// SSH keys, as they are mounted.
    pub ssh_ro_folder: String,
    /// Packages of pip.
    pub pip_cache: String,
    /// Packages of Poetry.
    pub poetry_cache: String,
    /// Clones.
    pub vcs_cache: String,
    /// Environments.
    pub venvs_cache: String,
    /// Wheels.
    pub pip_download: String,
    /// New environments.
    pub venv_build: String,
}

impl ContainerSettings {
    pub(super) fn read(reader: &Reader<'_>) -> Self {
        let key = |name: &str| format!("agent.{name}");
        let flag = |name: &str| reader.flag(&key(name));
        let list = |name: &str| reader.list(&key(name));
        let text = |name: &str| reader.text(&key(name)).filter(|text| !text.trim().is_empty());
        let path = |name: &str| reader.path(&key(name));
        Self {
            image: text("default_docker.image"),
            arguments: list("default_docker.arguments"),
            update_back_task: flag("default_docker.update_back_task"),
            match_rules: match reader.raw("agent.default_docker.match_rules") {
                Some(Value::Array(rules)) => rules,
                _ => Vec::new(),
            },
            disable_task_docker_override: flag("disable_task_docker_override"),
            docker_force_pull: flag("docker_force_pull"),
            extra_docker_arguments: list("extra_docker_arguments"),
            docker_args_extra_precedes_task: flag("docker_args_extra_precedes_task"),
            protected_docker_extra_args: list("protected_docker_extra_args"),
            docker_args_filters: list("docker_args_filters"),
            forbidden_docker_args: list("forbidden_docker_args"),
            docker_args_allowed_port_range: reader
                .value(&key("docker_args_allowed_port_range"))
                .and_then(|range| convert::port_range(&range))
                .map(|(first, last)| first..=last),
            docker_allow_host_environ: flag("docker_allow_host_environ"),
            extra_docker_shell_script: list("extra_docker_shell_script"),
            docker_init_bash_script: list("docker_init_bash_script"),
            docker_preprocess_bash_script: list("docker_preprocess_bash_script"),
            docker_install_opencv_libs: flag("docker_install_opencv_libs"),
            docker_install_agent: flag("docker_install_agent"),
            docker_container_name_format: text("docker_container_name_format"),
            docker_container_name_format_fields: match reader.raw(&key("docker_container_name_format_fields"))
            {
                Some(Value::Object(fields)) => fields
                    .into_iter()
                    .filter_map(|(name, path)| Some((name, path.as_str()?.to_owned())))
                    .collect(),
                _ => BTreeMap::new(),
            },
            apt_cache: path("docker_apt_cache"),
            pip_cache: path("docker_pip_cache"),
            poetry_cache: path("docker_poetry_cache"),
            disable_ssh_mount: flag("disable_ssh_mount"),
            mounts: InternalMounts::read(reader),
        }
    }
}

impl InternalMounts {
    fn read(reader: &Reader<'_>) -> Self {
        let place = |name: &str| {
            reader
                .text(&format!("agent.docker_internal_mounts.{name}"))
                .unwrap_or_default()
        };
        Self {
            sdk_cache: place("sdk_cache"),
            apt_cache: place("apt_cache"),
            ssh_folder: place("ssh_folder"),
            ssh_ro_folder: place("ssh_ro_folder"),
            pip_cache: place("pip_cache"),
            poetry_cache: place("poetry_cache"),
            vcs_cache: place("vcs_cache"),
            venvs_cache: place("venvs_cache"),
            pip_download: place("pip_download"),
            venv_build: place("venv_build"),
        }
    }
}

impl fmt::Debug for ContainerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerSettings")
            .field("image", &self.image)
            .finish_non_exhaustive()
    }
}
