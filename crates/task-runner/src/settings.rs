//! From the configuration to what its readers below this crate want: the API client, the environment
//! builder, and the runner itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clearml_agent_config::{
    AgentSettings, ConfigError, Credentials, GitCredential, HttpMethod, InitialConnect, PackageManager,
    Settings, Sources, TlsVerify, declarations,
};
use clearml_api_client as api;
use clearml_api_client::{Auth, ClientOptions, RetryLimits};
use clearml_env_builder as env;
use clearml_env_builder::EnvSettings;
use clearml_support::redact::Redactor;

use crate::console::render::RenderOptions;
use crate::owner::TOKEN_VARIABLE;
use crate::record::RunInputs;
use crate::shipper::ShipOptions;

/// The configuration that belongs to a run can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the configuration of the run: {0}")]
pub struct SettingsError(#[from] ConfigError);

/// `api.http.retries.backoff_max` where nobody has chosen it.
const PACKAGED_BACKOFF_MAX: Duration = Duration::from_secs(120);
/// Waits of zero would make a busy loop of an outage.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// Options of a client for the configured server.
///
/// # Errors
///
/// When no server or no credentials are configured; the message says where to put them.
pub fn client_options(settings: &Settings) -> Result<ClientOptions, ConfigError> {
    let auth = match settings.api.require_credentials()? {
        Credentials::Token(token) => Auth::Token(token),
        Credentials::Keys {
            access_key,
            secret_key,
        } => Auth::Keys {
            access_key,
            secret_key,
        },
    };
    let mut options = ClientOptions::new(settings.api.require_server()?, auth);
    options.verify = match &settings.api.verify {
        TlsVerify::Verify => api::TlsVerify::System,
        TlsVerify::Insecure => api::TlsVerify::Insecure,
        TlsVerify::CaBundle(path) => api::TlsVerify::CaBundle(path.clone()),
    };
    options.default_method = match settings.api.default_method {
        HttpMethod::Get => api::Method::Get,
        HttpMethod::Post => api::Method::Post,
        HttpMethod::Put => api::Method::Put,
    };
    options.token_threshold = Duration::from_secs(settings.api.token_expiration_threshold_sec);
    options.token_expiration = settings.api.request_token_expiration_sec.map(Duration::from_secs);
    options.user_agent_name = concat!("clearml-agent/", env!("CARGO_PKG_VERSION")).to_owned();
    options.worker_header = host_name();
    options.max_request_bytes = usize::try_from(settings.api.max_request_bytes).unwrap_or(usize::MAX);
    options.max_api_version = settings
        .api
        .force_max_api_version
        .as_deref()
        .and_then(|version| version.parse().ok());
    // The official client waits 0, 2, 4, … times the factor; ours has no wait of zero, and begins with half.
    options.retry.base = (settings.api.retry_backoff_factor / 2).max(SHORTEST_WAIT);
    // The packaged two minutes are for a client that gives up some day. This one does not, and its users
    // should not wait so long after a server is back.
    if settings.api.retry_backoff_max != PACKAGED_BACKOFF_MAX {
        options.retry.cap = settings.api.retry_backoff_max.max(SHORTEST_WAIT);
    }
    let counts = settings.api.retries;
    options.retry.limits = RetryLimits {
        total: counts.total,
        connect: counts.connect,
        read: counts.read,
        status: counts.status,
    };
    options.retry.wait_on_maintenance_forever = settings.api.wait_on_maintenance_forever;
    options.retry.initial_retries = match settings.api.initial_connect {
        InitialConnect::Default => options.retry.initial_retries,
        InitialConnect::Times(times) => Some(times),
        InitialConnect::AsLater => None,
    };
    Ok(options)
}

/// The name of this machine.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Settings of the environment builder, without the environment variables of its tools.
#[must_use]
pub fn env_settings(settings: &Settings) -> EnvSettings {
    let agent = &settings.agent;
    EnvSettings {
        env: BTreeMap::new(),
        caches_dir: agent.state_dir.join("caches"),
        python_binary: agent.python_binary.clone(),
        default_python: agent.default_python.clone(),
        ignore_requested_python_version: agent.ignore_requested_python_version,
        force_git_root_python_path: agent.git.root_in_python_path,
        docker_use_activated_venv: agent.docker_use_activated_venv,
        parallel_setup: agent.parallel_setup,
        time_limit: agent.env_build_timeout,
        optimization: 0,
        layout: env::Layout::Run,
        standalone: agent.standalone_mode.then(|| agent.venvs_dir.clone()),
        git: git(agent),
        hg: env::HgSettings {
            always: agent.hg.always,
            user: agent.hg.user.clone(),
            pass: agent.hg.pass.clone(),
            host: agent.hg.host.clone(),
            extra_credentials: agent.hg.extra_credentials.iter().map(credential).collect(),
        },
        custom_build_script: agent.custom_build_script.clone(),
        vcs_cache: env::VcsCacheSettings {
            enabled: agent.vcs_cache.enabled,
            path: agent.vcs_cache.path.clone(),
            always_fetch: agent.git.always_fetch,
            clone_on_pull_fail: agent.git.clone_on_pull_fail,
            copy_objects: agent.git.copy_objects,
            max_entries: agent.git.cache_max_entries,
            max_bytes: agent.git.cache_max_size_gb.saturating_mul(1 << 30),
        },
        venvs_cache: env::VenvsCacheSettings {
            path: agent.venvs_cache.path.clone(),
            max_entries: agent.venvs_cache.max_entries,
            min_free_bytes: bytes(agent.venvs_cache.free_space_threshold_gb),
            lock_timeout: agent.venvs_cache.lock_timeout,
            link_mode: agent.venvs_cache.link_mode.into(),
            allow_hardlink: agent.venvs_cache.allow_hardlink,
            unpinned_ttl: agent.venvs_cache.unpinned_ttl,
        },
        package_manager: package_manager(agent),
        torch: torch(settings),
    }
}

fn git(agent: &AgentSettings) -> env::GitSettings {
    let git = &agent.git;
    env::GitSettings {
        user: git.user.clone(),
        pass: git.pass.clone(),
        host: git.host.clone(),
        force_ssh_protocol: git.force_ssh_protocol,
        force_ssh_user: git.force_ssh_user.clone(),
        force_ssh_port: git.force_ssh_port,
        force_ssh_strict: git.force_ssh_strict,
        translate_ssh: git.translate_ssh,
        keep_ssh_port: git.keep_ssh_port,
        fetch_args: git.fetch_args.clone(),
        host_match_prefix: git.host_match_prefix,
        extra_credentials: git.extra_credentials.iter().map(credential).collect(),
        enable_ask_pass: git.enable_ask_pass,
        ask_pass_program: Some(crate::spawn::this_program()),
        replacement_scheme: git.ssl_replacement_scheme.clone(),
        use_ms_entra_token: git.use_ms_entra_token,
        use_azure_pat: git.use_azure_pat,
        clone_args: git.clone_args.clone(),
        retries: u32::try_from(git.retries).unwrap_or(u32::MAX),
        ignore_submodule_errors: git.ignore_submodule_errors,
        submodules: if git.legacy_submodules {
            env::Submodules::Legacy
        } else {
            env::Submodules::Full
        },
        lfs: git.lfs.into(),
        apply_skip_binary: git.apply_skip_binary,
    }
}

fn package_manager(agent: &AgentSettings) -> env::PackageManagerSettings {
    let packages = &agent.package_manager;
    env::PackageManagerSettings {
        kind: match packages.kind {
            PackageManager::Pip => env::PackageManagerKind::Pip,
            PackageManager::Uv => env::PackageManagerKind::Uv,
            PackageManager::Conda => env::PackageManagerKind::Conda,
            PackageManager::Poetry => env::PackageManagerKind::Poetry,
        },
        uv_binary: None,
        uv_replace_pip: packages.uv_replace_pip,
        uv_unsafe_best_match: packages.uv_unsafe_best_match,
        extra_index_url: packages.extra_index_url.clone(),
        extra_pip_install_flags: packages.extra_pip_install_flags.clone(),
        system_site_packages: packages.system_site_packages,
        force_upgrade: packages.force_upgrade,
        force_repo_requirements_txt: packages.force_repo_requirements_txt,
        force_original_requirements: packages.force_original_requirements,
        pip_legacy_resolver: packages.pip_legacy_resolver.clone(),
        pip_backend: packages.pip_backend.as_str().into(),
        pip_version: packages.pip_version.clone(),
        uv_version: packages.uv_version.clone(),
        uv_cache_dir: Some(agent.pip_download_cache.path.join("uv")),
        uv_sync_locked_if_lock_file: packages.uv_sync_locked_if_lock_file,
        uv_sync_extra_args: packages.uv_sync_extra_args.clone(),
        uv_python_meta_file: agent.uv_python_meta_file.clone(),
        uv_run_extra_args: packages.uv_run_extra_args.clone(),
        uv_files_from_repo_working_dir: packages.uv_files_from_repo_working_dir,
        poetry_version: packages.poetry_version.clone(),
        poetry_install_extra_args: packages.poetry_install_extra_args.clone(),
        poetry_files_from_repo_working_dir: packages.poetry_files_from_repo_working_dir,
        poetry_strict: packages.poetry_strict,
        conda: env::CondaSettings {
            executable: packages.conda_executable.clone(),
            channels: packages.conda_channels.clone(),
            full_env_update: packages.conda_full_env_update,
            env_as_base_docker: packages.conda_env_as_base_docker,
            use_base_env: packages.use_conda_base_env,
        },
        priority_packages: packages.priority_packages.clone(),
        priority_optional_packages: packages.priority_optional_packages.clone(),
        post_packages: packages.post_packages.clone(),
        post_optional_packages: packages.post_optional_packages.clone(),
        strip_editable: packages.strip_editable,
        pip_download_cache: Some(agent.pip_download_cache.path.clone())
            .filter(|_| agent.pip_download_cache.enabled),
    }
}

fn torch(settings: &Settings) -> env::TorchSettings {
    let torch = &settings.agent.package_manager.torch;
    env::TorchSettings {
        resolve: torch.pytorch_resolve.clone(),
        legacy: torch.pytorch_resolve_legacy,
        nightly: torch.torch_nightly,
        cuda_version: settings.agent.cuda_version.clone(),
        cpu_only: settings.agent.cpu_only,
        index_versions: torch.pytorch_index_versions.clone(),
        templates: env::TorchTemplates {
            cuda: torch.extra_index_url_template.clone(),
            nightly_cuda: torch.nightly_extra_index_url_template.clone(),
            rocm: torch.rocm_extra_index_url_template.clone(),
            nightly_rocm: torch.nightly_rocm_extra_index_url_template.clone(),
            page: torch.torch_page.clone(),
            nightly_page: torch.torch_nightly_page.clone(),
        },
    }
}

/// Gigabytes as people count them; 0 and less mean that nothing is minded.
fn bytes(gigabytes: f64) -> Option<u64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number that is too large becomes the largest one, and there is none below zero"
    )]
    let bytes = (gigabytes * f64::from(1 << 30)) as u64;
    (bytes > 0).then_some(bytes)
}

fn credential(entry: &GitCredential) -> env::Credential {
    env::Credential {
        user: entry.user.clone(),
        pass: entry.pass.clone(),
        host: entry.host.clone(),
    }
}

/// The part of the configuration that the runner itself uses.
#[derive(Debug, Clone)]
pub(crate) struct RunSettings {
    pub(crate) client: ClientOptions,
    pub(crate) environment: EnvSettings,
    /// `api.files_server`.
    pub(crate) files_server: Option<String>,
    pub(crate) ship: ShipOptions,
    pub(crate) redactor: Redactor,
    pub(crate) host_name: String,
    /// The number of this node when several run one task.
    pub(crate) rank: u32,
    /// Another node reports the task alone.
    pub(crate) is_silent: bool,
    pub(crate) status_poll: Duration,
    pub(crate) ping: Option<Duration>,
    pub(crate) abort_grace: Duration,
    /// How often a task is put back whose run has died.
    pub(crate) requeue_limit: u32,
    pub(crate) abort_callback_max: Duration,
    pub(crate) console_max_bytes: u64,
    pub(crate) segment_bytes: u64,
    /// Variables of the section `environment`; empty if it does not apply.
    pub(crate) configured_environment: BTreeMap<String, String>,
    /// Whether the task's own section `Environment` applies.
    pub(crate) enable_task_env: bool,
}

/// A server makes new events findable with this delay, by default once a second.
const READBACK_DELAY: Duration = Duration::from_secs(2);

impl RunSettings {
    /// Reads the effective configuration that was stored with the run.
    pub(crate) fn load(config: &Path, inputs: &RunInputs) -> Result<Self, SettingsError> {
        let settings = Settings::load(&sources(config, inputs))?;
        Ok(Self::new(&settings, inputs)?)
    }

    pub(crate) fn new(settings: &Settings, inputs: &RunInputs) -> Result<Self, ConfigError> {
        let agent = &settings.agent;
        let redactor = Redactor::new();
        settings.register_secrets(&redactor);
        let mut secrets = settings.secrets();
        if let Some(given) = inputs.owner.as_ref().and_then(|owner| owner.given.clone()) {
            redactor.add(&given);
            secrets.push(given);
        }
        let mut client = client_options(settings)?;
        // The run is there, so its server is worth waiting for, however often a call of others is repeated.
        client.retry.initial_retries = None;
        client.retry.limits = RetryLimits::default();
        let voice = voice(inputs);
        Ok(Self {
            client,
            environment: env_settings(settings),
            files_server: settings.api.files_server.clone(),
            ship: ShipOptions {
                render: RenderOptions {
                    suppress_carriage_return: agent.suppress_carriage_return,
                },
                flush_interval: seconds(agent.console.flush_interval_sec),
                partial_max_age: seconds(agent.console.partial_line_max_age_sec),
                readback_delay: READBACK_DELAY,
                secrets: Arc::new(Mutex::new(secrets)),
                heading: match &voice {
                    Voice::Headed(heading) => Some(heading.clone()),
                    Voice::Own | Voice::Silent => None,
                },
                reader: None,
            },
            redactor,
            host_name: host_name(),
            rank: rank(inputs),
            is_silent: voice == Voice::Silent,
            status_poll: seconds(agent.poll.status_poll_interval_sec),
            ping: agent.task_ping_interval_sec.map(seconds),
            abort_grace: seconds(agent.abort_grace_sec),
            requeue_limit: u32::try_from(agent.requeue_on_infrastructure_failure).unwrap_or(u32::MAX),
            abort_callback_max: seconds(agent.abort_callback_max_timeout),
            console_max_bytes: agent.console.max_bytes,
            segment_bytes: agent.console.segment_bytes,
            configured_environment: settings.environment().into_iter().collect(),
            enable_task_env: agent.enable_task_env,
        })
    }
}

/// The stored configuration has everything that variables and the command line have said, so variables
/// that set a key must not be heard again: they would win over the command line.
pub(crate) fn sources(config: &Path, inputs: &RunInputs) -> Sources {
    let heard: BTreeSet<&str> = declarations()
        .flat_map(|declaration| declaration.variables)
        .copied()
        .collect();
    let mut env: BTreeMap<String, String> = inputs
        .environment
        .iter()
        .filter_map(|(name, value)| Some((name.0.to_str()?.to_owned(), value.0.to_str()?.to_owned())))
        .filter(|(name, _)| !heard.contains(name.as_str()) && !name.starts_with("CLEARML_AGENT__"))
        .collect();
    // The configuration of such a run has no credentials.
    if let Some(owner) = &inputs.owner {
        env.insert(TOKEN_VARIABLE.to_owned(), owner.token.expose().to_owned());
    }
    let home = env.get("HOME").filter(|home| !home.is_empty()).map(Into::into);
    Sources {
        config_file: Some(config.to_owned()),
        env,
        home,
        ..Sources::default()
    }
}

/// Which of several nodes this is, by the variables of MPI-like launchers and of Slurm.
pub(crate) fn rank(inputs: &RunInputs) -> u32 {
    number(inputs, "RANK")
        .or_else(|| number(inputs, "SLURM_PROCID"))
        .unwrap_or(0)
}

fn number<T: std::str::FromStr>(inputs: &RunInputs, wanted: &str) -> Option<T> {
    let (_, value) = inputs.environment.iter().find(|(name, _)| name.0 == wanted)?;
    value.0.to_str()?.trim().parse().ok()
}

/// How several nodes that run one task share its console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Voice {
    /// The task is that of this node alone, or this is the first node.
    Own,
    /// Each batch of lines stands below this line.
    Headed(String),
    /// Only the first node is to be heard.
    Silent,
}

/// Whether this process, as one node of several, is to be heard about its task: with
/// `CLEARML_MULTI_NODE_SINGLE_TASK=-1` only the first one is.
#[must_use]
pub fn is_heard() -> bool {
    voice(&RunInputs::from_process(crate::record::RunOptions::default())) != Voice::Silent
}

pub(crate) fn voice(inputs: &RunInputs) -> Voice {
    let rank = rank(inputs);
    match number::<i64>(inputs, "CLEARML_MULTI_NODE_SINGLE_TASK").unwrap_or(0) {
        _ if rank == 0 => Voice::Own,
        ..0 => Voice::Silent,
        0 => Voice::Own,
        1.. => Voice::Headed(format!("\u{1b}[38;5;{}mRANK {rank}:\u{1b}[0m", 20 + rank % 210)),
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::record::{RunOptions, SCHEMA};

    fn inputs(environment: &[(&str, &str)]) -> RunInputs {
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        RunInputs {
            schema: SCHEMA,
            environment,
            umask: 0o22,
            options: RunOptions::default(),
            owner: None,
        }
    }

    #[test]
    fn nodes_beside_the_first_are_heard_as_wanted() {
        let of = |rank: &str, shared: &str| {
            voice(&inputs(&[
                ("SLURM_PROCID", rank),
                ("CLEARML_MULTI_NODE_SINGLE_TASK", shared),
            ]))
        };
        for shared in ["", "0", "1", "2", "-1"] {
            assert_eq!(of("0", shared), Voice::Own, "{shared:?}");
        }
        assert_eq!(of("3", ""), Voice::Own);
        assert_eq!(of("3", "-1"), Voice::Silent);
        let heading = "\u{1b}[38;5;23mRANK 3:\u{1b}[0m";
        assert_eq!(of("3", "2"), Voice::Headed(heading.to_owned()));
        assert!(matches!(of("215", "1"), Voice::Headed(text) if text.contains("38;5;25m")));
    }

    #[test]
    fn the_stored_configuration_gives_what_the_daemon_had() {
        let folder = tempfile::tempdir().unwrap();
        let env = [
            ("CLEARML_API_HOST", "http://localhost:8008"),
            ("CLEARML_API_ACCESS_KEY", "key"),
            ("CLEARML_API_SECRET_KEY", "secret-of-api"),
            ("CLEARML_AGENT_GIT_USER", "from-env"),
        ];
        let sources = Sources {
            env: env
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            home: Some(folder.path().to_owned()),
            overrides: vec![
                ("agent.git_user".into(), json!("from-option"), "--git-user".into()),
                ("agent.abort_grace_sec".into(), json!(0.5), "test".into()),
            ],
            ..Sources::default()
        };
        let settings = Settings::load(&sources).unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, settings.effective_json().to_string()).unwrap();

        // Another daemon, with another environment, would start the runner.
        let run = RunSettings::load(&path, &inputs(&[&env[..], &[("RANK", "2")]].concat())).unwrap();
        assert_eq!(run.environment.git.user.as_deref(), Some("from-option"));
        assert_eq!(run.abort_grace, Duration::from_millis(500));
        assert_eq!(run.client.api_server, "http://localhost:8008");
        assert_eq!(run.rank, 2);
        assert_eq!(run.redactor.redact("a secret-of-api b"), "a **** b");
        assert!(!format!("{run:?}").contains("secret-of-api"));
    }
}
