//! The `agent` section.

use std::path::PathBuf;
use std::time::Duration;

use clearml_support::secret::Secret;
use serde_json::Value;

use super::containers::ContainerSettings;
use super::package_manager::PackageManagerSettings;
use crate::convert;
use crate::effective::Reader;

/// Shortest pause between looks at the queues that the command line may ask for, and the usual one.
const QUEUE_POLL_SECONDS: f64 = 5.0;

/// What stopping the daemon does to running tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStop {
    /// They are stopped.
    Kill,
    /// They go on, and the next daemon adopts them.
    Detach,
}

/// A cache that can be switched off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSettings {
    /// Whether it is used; never without a folder.
    pub enabled: bool,
    /// Its folder.
    pub path: PathBuf,
}

/// `agent.venvs_cache`.
#[derive(Debug, Clone, PartialEq)]
pub struct VenvsCacheSettings {
    /// Folder of the kept environments; `None` keeps none.
    pub path: Option<PathBuf>,
    /// Most kept environments.
    pub max_entries: u64,
    /// Gigabytes that must stay free; 0 or less never minds.
    pub free_space_threshold_gb: f64,
    /// Longest wait for another process that uses the cache.
    pub lock_timeout: Duration,
    /// `auto`, `reflink`, `hardlink` or `copy`.
    pub link_mode: &'static str,
    /// Whether environments may share files with the cache by hard links.
    pub allow_hardlink: bool,
    /// How long an environment counts whose requirements lack exact versions; zero for ever.
    pub unpinned_ttl: Duration,
}

/// Credentials for one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitCredential {
    /// User name.
    pub user: String,
    /// Password or token.
    pub pass: Secret,
    /// The host that they are for; any host when `None`.
    pub host: Option<String>,
}

/// Version control.
#[derive(Debug, Clone)]
pub struct GitSettings {
    /// `agent.git_user`.
    pub user: Option<String>,
    /// `agent.git_pass`.
    pub pass: Option<Secret>,
    /// `agent.git_host`.
    pub host: Option<String>,
    /// `agent.git_host_match_prefix`.
    pub host_match_prefix: bool,
    /// `agent.git.extra_credentials`, the complete ones.
    pub extra_credentials: Vec<GitCredential>,
    /// `agent.enable_git_ask_pass`.
    pub enable_ask_pass: bool,
    /// `agent.force_git_ssh_protocol`.
    pub force_ssh_protocol: bool,
    /// `agent.force_git_ssh_port`.
    pub force_ssh_port: Option<u16>,
    /// `agent.force_git_ssh_user`.
    pub force_ssh_user: Option<String>,
    /// `agent.force_git_ssh_protocol_strict`.
    pub force_ssh_strict: bool,
    /// `agent.translate_ssh`.
    pub translate_ssh: bool,
    /// `agent.translate_ssh_keep_port`.
    pub keep_ssh_port: bool,
    /// `agent.translate_ssl_replacement_scheme`.
    pub ssl_replacement_scheme: String,
    /// `agent.git_use_ms_entra_token`.
    pub use_ms_entra_token: bool,
    /// `agent.git_use_azure_pat`.
    pub use_azure_pat: bool,
    /// `agent.git_fetch_args`.
    pub fetch_args: Vec<String>,
    /// `agent.git_clone_args`.
    pub clone_args: Vec<String>,
    /// `agent.git_retries`.
    pub retries: u64,
    /// `agent.git_ignore_submodule_errors`.
    pub ignore_submodule_errors: bool,
    /// `agent.git_submodules: legacy`.
    pub legacy_submodules: bool,
    /// `agent.git_lfs`: `auto`, `skip` or `pull`.
    pub lfs: &'static str,
    /// `agent.git_apply_skip_binary`.
    pub apply_skip_binary: bool,
    /// `CLEARML_AGENT_GIT_CLONE_VERBOSE`.
    pub clone_verbose: bool,
    /// `agent.vcs_cache.clone_on_pull_fail`.
    pub clone_on_pull_fail: bool,
    /// `agent.vcs_cache.always_fetch`.
    pub always_fetch: bool,
    /// `agent.vcs_cache.copy_mode: copy`.
    pub copy_objects: bool,
    /// `agent.vcs_cache.max_entries`; 0 for any number.
    pub cache_max_entries: u64,
    /// `agent.vcs_cache.max_size_gb`; 0 for any size.
    pub cache_max_size_gb: u64,
    /// `agent.force_git_root_python_path`.
    pub root_in_python_path: bool,
}

/// Mercurial.
#[derive(Debug, Clone)]
pub struct HgSettings {
    /// `agent.vcs_type: hg`: repositories are Mercurial's also where their URL does not say so.
    pub always: bool,
    /// `agent.hg_user`.
    pub user: Option<String>,
    /// `agent.hg_pass`.
    pub pass: Option<Secret>,
    /// `agent.hg_host`.
    pub host: Option<String>,
    /// `agent.hg.extra_credentials`, the complete ones.
    pub extra_credentials: Vec<GitCredential>,
}

/// `agent.console`.
#[derive(Debug, Clone, PartialEq)]
pub struct ConsoleSettings {
    /// Most bytes that are kept on disk for one task.
    pub max_bytes: u64,
    /// Size at which a new file is begun.
    pub segment_bytes: u64,
    /// Seconds between deliveries to the server.
    pub flush_interval_sec: f64,
    /// Seconds after which text without a line end is delivered.
    pub partial_line_max_age_sec: f64,
}

/// How often the server is asked and told.
#[derive(Debug, Clone, PartialEq)]
pub struct PollSettings {
    /// `CLEARML_AGENT_QUEUE_POLL_FREQ_SEC`.
    pub queue_override_sec: Option<f64>,
    /// `agent.status_poll_interval_sec`.
    pub status_poll_interval_sec: f64,
    /// `agent.status_report_sec`.
    pub status_report_sec: f64,
}

impl PollSettings {
    /// The pause between looks at the queues: the variable, else the option of the command line but at
    /// least five seconds, else five seconds.
    #[must_use]
    pub fn queue_interval(&self, option_sec: Option<f64>) -> Duration {
        let by_option = || {
            option_sec
                .filter(|seconds| seconds.is_finite())
                .unwrap_or(0.0)
                .clamp(QUEUE_POLL_SECONDS, 1e9)
        };
        Duration::from_secs_f64(self.queue_override_sec.unwrap_or_else(by_option))
    }
}

/// Variables that replace a part of the preparation of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvironmentOverrides {
    /// `CLEARML_AGENT_SKIP_PIP_VENV_INSTALL`: a boolean word, or an interpreter.
    pub skip_pip_venv_install: Option<String>,
    /// `CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL`.
    pub skip_python_env_install: bool,
    /// `CLEARML_AGENT_FORCE_CODE_DIR`.
    pub force_code_dir: Option<PathBuf>,
    /// `CLEARML_AGENT_FORCE_EXEC_SCRIPT`.
    pub force_exec_script: Option<String>,
    /// `CLEARML_AGENT_EXTRA_PYTHON_PATH`.
    pub extra_python_path: Option<String>,
}

/// The `agent` section.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    /// `agent.worker_id`: the complete id, if it is given.
    pub worker_id: Option<String>,
    /// `agent.worker_name`, else the host name.
    pub worker_name: String,
    /// `CLEARML_WORKER_TAGS`.
    pub worker_tags: Vec<String>,
    /// `agent.debug`.
    pub debug: bool,
    /// `agent.reload_config`.
    pub reload_config: bool,
    /// `agent.uptime`: hours in which tasks are taken.
    pub uptime: Vec<String>,
    /// `agent.downtime`: hours in which no tasks are taken.
    pub downtime: Vec<String>,
    /// `agent.cpu_only`.
    pub cpu_only: bool,
    /// `agent.cuda_version` as ten times the major plus the minor version; `None` when it is not set.
    pub cuda_version: Option<String>,
    /// `agent.cudnn_version`, in the same notation.
    pub cudnn_version: Option<String>,
    /// `agent.python_binary`.
    pub python_binary: Option<PathBuf>,
    /// `agent.default_python`.
    pub default_python: Option<String>,
    /// `agent.ignore_requested_python_version`.
    pub ignore_requested_python_version: bool,
    /// `agent.docker_use_activated_venv`.
    pub docker_use_activated_venv: bool,
    /// `agent.standalone_mode`.
    pub standalone_mode: bool,
    /// `agent.venvs_dir`.
    pub venvs_dir: PathBuf,
    /// `agent.parallel_setup`.
    pub parallel_setup: bool,
    /// `agent.env_build_timeout_sec`; `None` for any time.
    pub env_build_timeout: Option<Duration>,
    /// `agent.bootstrap.uv_python_meta_file`.
    pub uv_python_meta_file: Option<String>,
    /// `agent.venvs_cache`.
    pub venvs_cache: VenvsCacheSettings,
    /// `agent.vcs_cache`.
    pub vcs_cache: CacheSettings,
    /// `agent.pip_download_cache`.
    pub pip_download_cache: CacheSettings,
    /// What concerns containers.
    pub containers: ContainerSettings,
    /// `agent.package_manager`.
    pub package_manager: PackageManagerSettings,
    /// Version control.
    pub git: GitSettings,
    /// Mercurial.
    pub hg: HgSettings,
    /// `agent.custom_build_script`, before variables in it are expanded.
    pub custom_build_script: Option<String>,
    /// `agent.task_ping_interval_sec`; `None` sends no life signs.
    pub task_ping_interval_sec: Option<f64>,
    /// `agent.suppress_carriage_return`.
    pub suppress_carriage_return: bool,
    /// `agent.abort_callback_max_timeout`, in seconds.
    pub abort_callback_max_timeout: f64,
    /// `agent.abort_grace_sec`.
    pub abort_grace_sec: f64,
    /// `agent.requeue_on_infrastructure_failure`.
    pub requeue_on_infrastructure_failure: u64,
    /// `agent.adopt_after_sec`.
    pub adopt_after_sec: f64,
    /// `agent.enable_task_env`.
    pub enable_task_env: bool,
    /// `agent.apply_environment`.
    pub apply_environment: bool,
    /// `agent.apply_files`.
    pub apply_files: bool,
    /// `agent.on_stop`.
    pub on_stop: OnStop,
    /// `agent.state_dir`.
    pub state_dir: PathBuf,
    /// `CLEARML_AGENT_TEMP_STDOUT_FILE_DIR`, else the folder for temporary files.
    pub temp_dir: PathBuf,
    /// `agent.console`.
    pub console: ConsoleSettings,
    /// How often the server is asked and told.
    pub poll: PollSettings,
    /// Variables that replace a part of the preparation of a task.
    pub environment_overrides: EnvironmentOverrides,
}

impl AgentSettings {
    pub(crate) fn read(reader: &Reader<'_>) -> Self {
        let cache = |name: &str| {
            let path = reader.path(&format!("agent.{name}.path"));
            let enabled = reader.flag(&format!("agent.{name}.enabled")) && path.is_some();
            CacheSettings {
                enabled,
                path: path.unwrap_or_default(),
            }
        };
        Self {
            worker_id: reader.text("agent.worker_id"),
            worker_name: reader
                .text("agent.worker_name")
                .unwrap_or_else(|| host_name(reader)),
            worker_tags: reader
                .variable("CLEARML_WORKER_TAGS")
                .as_ref()
                .and_then(convert::list)
                .unwrap_or_default(),
            debug: reader.flag("agent.debug"),
            reload_config: reader.flag("agent.reload_config"),
            uptime: reader.list("agent.uptime"),
            downtime: reader.list("agent.downtime"),
            cpu_only: reader.flag("agent.cpu_only"),
            cuda_version: device_version(reader, "agent.cuda_version"),
            cudnn_version: device_version(reader, "agent.cudnn_version"),
            python_binary: reader.path("agent.python_binary"),
            default_python: reader.text("agent.default_python"),
            ignore_requested_python_version: reader.flag("agent.ignore_requested_python_version"),
            docker_use_activated_venv: reader.flag("agent.docker_use_activated_venv"),
            standalone_mode: reader.flag("agent.standalone_mode"),
            venvs_dir: reader
                .path("agent.venvs_dir")
                .unwrap_or_else(|| reader.sources.path("~/.clearml/venvs-builds")),
            parallel_setup: reader.flag("agent.parallel_setup"),
            env_build_timeout: Some(reader.number("agent.env_build_timeout_sec"))
                .filter(|seconds| *seconds > 0.0)
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            uv_python_meta_file: reader.text("agent.bootstrap.uv_python_meta_file"),
            venvs_cache: VenvsCacheSettings {
                path: reader.path("agent.venvs_cache.path"),
                max_entries: reader.count("agent.venvs_cache.max_entries"),
                free_space_threshold_gb: reader.number("agent.venvs_cache.free_space_threshold_gb"),
                lock_timeout: Duration::from_secs_f64(reader.number("agent.venvs_cache.lock_timeout")),
                link_mode: reader.choice("agent.venvs_cache.link_mode"),
                allow_hardlink: reader.flag("agent.venvs_cache.allow_hardlink"),
                unpinned_ttl: {
                    let hours = reader.number("agent.venvs_cache.unpinned_ttl_hours");
                    Duration::try_from_secs_f64(hours * 3600.0).unwrap_or(Duration::MAX)
                },
            },
            vcs_cache: cache("vcs_cache"),
            pip_download_cache: cache("pip_download_cache"),
            containers: ContainerSettings::read(reader),
            package_manager: PackageManagerSettings::read(reader),
            git: GitSettings::read(reader),
            hg: HgSettings::read(reader),
            custom_build_script: reader
                .text("agent.custom_build_script")
                .filter(|script| !script.trim().is_empty()),
            task_ping_interval_sec: Some(reader.number("agent.task_ping_interval_sec"))
                .filter(|seconds| *seconds > 0.0),
            suppress_carriage_return: reader.flag("agent.suppress_carriage_return"),
            abort_callback_max_timeout: reader.number("agent.abort_callback_max_timeout"),
            abort_grace_sec: reader.number("agent.abort_grace_sec"),
            adopt_after_sec: reader.number("agent.adopt_after_sec"),
            requeue_on_infrastructure_failure: reader.count("agent.requeue_on_infrastructure_failure"),
            enable_task_env: reader.flag("agent.enable_task_env"),
            apply_environment: reader.flag("agent.apply_environment"),
            apply_files: reader.flag("agent.apply_files"),
            on_stop: match reader.choice("agent.on_stop") {
                "detach" => OnStop::Detach,
                _ => OnStop::Kill,
            },
            state_dir: state_dir(reader),
            temp_dir: temp_dir(reader),
            console: ConsoleSettings {
                max_bytes: reader.count("agent.console.max_bytes"),
                segment_bytes: reader.count("agent.console.segment_bytes"),
                flush_interval_sec: reader.number("agent.console.flush_interval_sec"),
                partial_line_max_age_sec: reader.number("agent.console.partial_line_max_age_sec"),
            },
            poll: PollSettings {
                queue_override_sec: reader
                    .variable("CLEARML_AGENT_QUEUE_POLL_FREQ_SEC")
                    .as_ref()
                    .and_then(convert::number),
                status_poll_interval_sec: reader.number("agent.status_poll_interval_sec"),
                status_report_sec: reader.number("agent.status_report_sec"),
            },
            environment_overrides: EnvironmentOverrides::read(reader),
        }
    }
}

impl GitSettings {
    fn read(reader: &Reader<'_>) -> Self {
        let verbose = reader.variable("CLEARML_AGENT_GIT_CLONE_VERBOSE");
        Self {
            user: reader.text("agent.git_user"),
            pass: reader.text("agent.git_pass").map(Secret::new),
            host: reader.text("agent.git_host"),
            host_match_prefix: reader.flag("agent.git_host_match_prefix"),
            extra_credentials: extra_credentials(reader, "agent.git.extra_credentials"),
            enable_ask_pass: reader.flag("agent.enable_git_ask_pass"),
            force_ssh_protocol: reader.flag("agent.force_git_ssh_protocol"),
            force_ssh_port: reader
                .integer("agent.force_git_ssh_port")
                .and_then(|port| u16::try_from(port).ok()),
            force_ssh_user: reader.text("agent.force_git_ssh_user"),
            force_ssh_strict: reader.flag("agent.force_git_ssh_protocol_strict"),
            translate_ssh: reader.flag("agent.translate_ssh"),
            keep_ssh_port: reader.flag("agent.translate_ssh_keep_port"),
            ssl_replacement_scheme: reader
                .text("agent.translate_ssl_replacement_scheme")
                .unwrap_or_default(),
            use_ms_entra_token: reader.flag("agent.git_use_ms_entra_token"),
            use_azure_pat: reader.flag("agent.git_use_azure_pat"),
            fetch_args: reader.list("agent.git_fetch_args"),
            clone_args: reader.list("agent.git_clone_args"),
            retries: reader.count("agent.git_retries"),
            ignore_submodule_errors: reader.flag("agent.git_ignore_submodule_errors"),
            legacy_submodules: reader.choice("agent.git_submodules") == "legacy",
            lfs: reader.choice("agent.git_lfs"),
            apply_skip_binary: reader.flag("agent.git_apply_skip_binary"),
            clone_verbose: verbose.as_ref().and_then(convert::flag).unwrap_or(false),
            clone_on_pull_fail: reader.flag("agent.vcs_cache.clone_on_pull_fail"),
            always_fetch: reader.flag("agent.vcs_cache.always_fetch"),
            copy_objects: reader.choice("agent.vcs_cache.copy_mode") == "copy",
            cache_max_entries: reader.count("agent.vcs_cache.max_entries"),
            cache_max_size_gb: reader.count("agent.vcs_cache.max_size_gb"),
            root_in_python_path: reader.flag("agent.force_git_root_python_path"),
        }
    }
}

impl HgSettings {
    fn read(reader: &Reader<'_>) -> Self {
        Self {
            always: reader.choice("agent.vcs_type") == "hg",
            user: reader.text("agent.hg_user"),
            pass: reader.text("agent.hg_pass").map(Secret::new),
            host: reader.text("agent.hg_host"),
            extra_credentials: extra_credentials(reader, "agent.hg.extra_credentials"),
        }
    }
}

impl EnvironmentOverrides {
    fn read(reader: &Reader<'_>) -> Self {
        let text = |name: &str| reader.variable(name).as_ref().and_then(convert::text);
        let skip = reader.variable("CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL");
        Self {
            skip_pip_venv_install: text("CLEARML_AGENT_SKIP_PIP_VENV_INSTALL"),
            skip_python_env_install: skip.as_ref().and_then(convert::flag).unwrap_or(false),
            force_code_dir: reader.sources.variable_path("CLEARML_AGENT_FORCE_CODE_DIR"),
            force_exec_script: text("CLEARML_AGENT_FORCE_EXEC_SCRIPT"),
            extra_python_path: text("CLEARML_AGENT_EXTRA_PYTHON_PATH"),
        }
    }
}

/// The entries that have a user and a password, under either of the names that the reference accepts.
fn extra_credentials(reader: &Reader<'_>, key: &str) -> Vec<GitCredential> {
    let Some(Value::Array(entries)) = reader.raw(key) else {
        return Vec::new();
    };
    let entry = |entry: &Value| {
        let text = |names: &[&str]| {
            names
                .iter()
                .find_map(|name| convert::text(entry.get(name)?).filter(|text| !text.is_empty()))
        };
        Some(GitCredential {
            user: text(&["user", "username"])?,
            pass: Secret::new(text(&["pass", "password"])?),
            host: text(&["host"]),
        })
    };
    entries.iter().filter_map(entry).collect()
}

/// A version of CUDA or cuDNN as a whole number: `11.8.0` and `118` are `118`, `10` stays `10`. Without
/// devices it is `0`.
fn device_version(reader: &Reader<'_>, key: &str) -> Option<String> {
    if reader.flag("agent.cpu_only") {
        return Some("0".to_owned());
    }
    let text = reader.text(key)?;
    let mut parts = text.trim().split('.').map(|part| part.parse::<u32>().ok());
    match (parts.next().flatten(), parts.next()) {
        (Some(major), Some(Some(minor))) => {
            Some((major.saturating_mul(10).saturating_add(minor)).to_string())
        }
        (Some(whole), None) => Some(whole.to_string()),
        _ => None,
    }
}

fn host_name(reader: &Reader<'_>) -> String {
    reader
        .sources
        .host_name
        .clone()
        .unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}

/// By the XDG base directory specification.
fn state_dir(reader: &Reader<'_>) -> PathBuf {
    let absolute = |text: &String| PathBuf::from(text).is_absolute();
    reader.path("agent.state_dir").unwrap_or_else(|| {
        match reader
            .sources
            .env
            .get("XDG_STATE_HOME")
            .filter(|text| absolute(text))
        {
            Some(base) => PathBuf::from(base).join("clearml-agent"),
            None => reader.sources.path("~/.local/state/clearml-agent"),
        }
    })
}

fn temp_dir(reader: &Reader<'_>) -> PathBuf {
    let given = reader.variable("CLEARML_AGENT_TEMP_STDOUT_FILE_DIR");
    let text = given
        .as_ref()
        .and_then(convert::text)
        .or_else(|| reader.sources.env.get("TMPDIR").cloned());
    text.filter(|text| !text.is_empty())
        .map_or_else(|| PathBuf::from("/tmp"), |text| reader.sources.path(&text))
}
