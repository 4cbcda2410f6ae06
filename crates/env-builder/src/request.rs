//! What goes into a build and what comes out of it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clearml_support::redact::Redactor;
use clearml_support::secret::Secret;
use clearml_task_model::Task;

/// One build.
#[derive(Debug)]
pub struct BuildRequest<'a> {
    /// The task; only its id and its `script` section are read.
    pub task: &'a Task,
    /// Configuration.
    pub settings: &'a EnvSettings,
    /// A folder that belongs to this run alone. What an earlier, interrupted build has left in it is
    /// removed. Environment, code and temporary files go below it, and nothing else of the run may.
    pub run_dir_env: PathBuf,
    /// Secrets found on the way are added to it; all text that leaves the builder passes it.
    pub redactor: &'a Redactor,
}

/// The configuration that the builder reads. Names follow the keys of `clearml.conf`.
#[derive(Debug, Clone, Default)]
pub struct EnvSettings {
    /// The environment of everything that the builder starts (git, pip, uv, interpreters), and the
    /// source of variables in entry points. `PATH` in it decides which tools are found.
    pub env: BTreeMap<String, String>,
    /// Folder for the agent's own caches (interpreters, pip), shared by all runs of this user.
    pub caches_dir: PathBuf,
    /// `agent.python_binary`.
    pub python_binary: Option<PathBuf>,
    /// `agent.default_python`, for example `3.11`.
    pub default_python: Option<String>,
    /// `agent.ignore_requested_python_version`.
    pub ignore_requested_python_version: bool,
    /// `agent.force_git_root_python_path`.
    pub force_git_root_python_path: bool,
    /// `-O` level of the interpreter (`execute --optimization`): 0, 1 or 2.
    pub optimization: u8,
    /// Git.
    pub git: GitSettings,
    /// `agent.vcs_cache`.
    pub vcs_cache: VcsCacheSettings,
    /// `agent.package_manager`.
    pub package_manager: PackageManagerSettings,
}

/// How repositories are reached.
#[derive(Debug, Clone)]
pub struct GitSettings {
    /// `agent.git_user`, or the variable or option that replaces it.
    pub user: Option<String>,
    /// `agent.git_pass`, likewise.
    pub pass: Option<Secret>,
    /// `agent.git_host`: the only host that gets user and password; without it, the host of the
    /// task's repository does.
    pub host: Option<String>,
    /// `agent.force_git_ssh_protocol`.
    pub force_ssh_protocol: bool,
    /// `agent.force_git_ssh_user`.
    pub force_ssh_user: Option<String>,
    /// `agent.force_git_ssh_port`.
    pub force_ssh_port: Option<u16>,
    /// `agent.translate_ssh`: use https for ssh addresses when user and password are known.
    pub translate_ssh: bool,
    /// `agent.git_fetch_args`.
    pub fetch_args: Vec<String>,
}

impl Default for GitSettings {
    fn default() -> Self {
        Self {
            user: None,
            pass: None,
            host: None,
            force_ssh_protocol: false,
            force_ssh_user: None,
            force_ssh_port: None,
            translate_ssh: true,
            fetch_args: ["--all", "--tags", "--recurse-submodules"]
                .map(String::from)
                .to_vec(),
        }
    }
}

/// The cache of clones.
#[derive(Debug, Clone)]
pub struct VcsCacheSettings {
    /// `agent.vcs_cache.enabled`; when off, every build clones anew.
    pub enabled: bool,
    /// `agent.vcs_cache.path`; may be shared with other agents of this machine.
    pub path: PathBuf,
    /// `agent.vcs_cache.always_fetch`: ask the server even if the commit is already here.
    pub always_fetch: bool,
    /// `agent.vcs_cache.clone_on_pull_fail`: clone anew when fetching fails.
    pub clone_on_pull_fail: bool,
}

impl Default for VcsCacheSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            path: PathBuf::from("/var/tmp/clearml-vcs-cache"),
            always_fetch: false,
            clone_on_pull_fail: false,
        }
    }
}

/// Which tool installs packages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PackageManagerKind {
    /// pip.
    #[default]
    Pip,
    /// uv; pip when there is no uv on this machine.
    Uv,
    /// A type that is not built yet (`conda`, `poetry`): a build with it is refused.
    Other(String),
}

impl From<&str> for PackageManagerKind {
    /// Unknown names mean pip, as in the Python agent.
    fn from(name: &str) -> Self {
        match name {
            "uv" => Self::Uv,
            "conda" | "poetry" => Self::Other(name.to_owned()),
            _ => Self::Pip,
        }
    }
}

/// How packages are installed.
#[derive(Debug, Clone)]
pub struct PackageManagerSettings {
    /// `type`.
    pub kind: PackageManagerKind,
    /// The uv to use; without it, the one on `PATH`.
    pub uv_binary: Option<PathBuf>,
    /// `uv_replace_pip`: let uv install what pip would.
    pub uv_replace_pip: bool,
    /// `uv_unsafe_best_match`: uv looks at all indexes for the best version, as pip does.
    pub uv_unsafe_best_match: bool,
    /// `extra_index_url`, in order.
    pub extra_index_url: Vec<String>,
    /// `extra_pip_install_flags`.
    pub extra_pip_install_flags: Vec<String>,
    /// `system_site_packages`.
    pub system_site_packages: bool,
    /// `force_upgrade`.
    pub force_upgrade: bool,
    /// `force_repo_requirements_txt`: ignore the list of the task.
    pub force_repo_requirements_txt: bool,
    /// `force_original_requirements`: install what the user wrote, not what a run has frozen.
    pub force_original_requirements: bool,
    /// `pip_legacy_resolver`: ranges of pip versions that get the legacy resolver.
    pub pip_legacy_resolver: Vec<String>,
}

impl Default for PackageManagerSettings {
    fn default() -> Self {
        Self {
            kind: PackageManagerKind::Pip,
            uv_binary: None,
            uv_replace_pip: false,
            uv_unsafe_best_match: false,
            extra_index_url: Vec::new(),
            extra_pip_install_flags: Vec::new(),
            system_site_packages: false,
            force_upgrade: false,
            force_repo_requirements_txt: false,
            force_original_requirements: false,
            pip_legacy_resolver: vec![">=20.3,<24.3".to_owned()],
        }
    }
}

/// Everything that is needed to start the user's code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedEnvironment {
    /// Program and arguments; the program is an absolute path.
    pub argv: Vec<OsString>,
    /// The folder to start it in.
    pub cwd: PathBuf,
    /// Variables to set (`Some`) or remove (`None`) in the environment of the task.
    pub env: Vec<(OsString, Option<OsString>)>,
    /// The interpreter of the environment; `None` for a shell task without one.
    pub python: Option<PathBuf>,
    /// The commit that is checked out.
    pub commit: Option<String>,
    /// The root of the working copy.
    pub repository_root: Option<PathBuf>,
    /// One line for people.
    pub summary: String,
}
