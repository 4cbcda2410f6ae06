//! What goes into a build and what comes out of it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clearml_support::redact::Redactor;
use clearml_support::secret::Secret;
use clearml_task_model::Task;

use crate::packages::requirements::torch::TorchSettings;

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
    /// `agent.docker_use_activated_venv`: in a container, packages go into the virtual environment that is
    /// active there.
    pub docker_use_activated_venv: bool,
    /// `-O` level of the interpreter (`execute --optimization`): 0, 1 or 2.
    pub optimization: u8,
    /// `agent.parallel_setup`: code is fetched while the environment is made.
    pub parallel_setup: bool,
    /// `agent.env_build_timeout_sec`: the longest that a build may take.
    pub time_limit: Option<Duration>,
    /// `agent.custom_build_script`: a program that prepares the environment instead of the builder.
    pub custom_build_script: Option<String>,
    /// `agent.standalone_mode`: nothing is fetched or installed, and what earlier builds have left in this folder
    /// is used.
    pub standalone: Option<PathBuf>,
    /// What the folder of the build becomes.
    pub layout: Layout,
    /// Git.
    pub git: GitSettings,
    /// Mercurial.
    pub hg: HgSettings,
    /// `agent.vcs_cache`.
    pub vcs_cache: VcsCacheSettings,
    /// `agent.venvs_cache`.
    pub venvs_cache: VenvsCacheSettings,
    /// `agent.package_manager`.
    pub package_manager: PackageManagerSettings,
    /// Which torch goes with this machine.
    pub torch: TorchSettings,
}

/// What the folder of a build becomes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Layout {
    /// The folder of one run: environment and code beside each other.
    #[default]
    Run,
    /// An environment that stays, with the code in it.
    Kept {
        /// Packages go into the interpreter, and the environment sees what that has.
        globally: bool,
    },
}

/// A login for one host.
#[derive(Debug, Clone)]
pub struct Credential {
    /// User name.
    pub user: String,
    /// Password or token.
    pub pass: Secret,
    /// The host that gets it, or with [`GitSettings::host_match_prefix`] the beginning of the addresses
    /// that get it. An entry without it is passed over with a warning.
    pub host: Option<String>,
}

/// What is done about files that are kept in Git LFS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lfs {
    /// They are fetched where git-lfs is installed; elsewhere a warning says that they are missing.
    #[default]
    Auto,
    /// They are left as pointers.
    Skip,
    /// They are fetched; without git-lfs a repository that has such files is an error.
    Pull,
}

impl From<&str> for Lfs {
    /// `skip` and `pull` as they are called, everything else is `auto`.
    fn from(text: &str) -> Self {
        match text.trim().to_ascii_lowercase().as_str() {
            "skip" => Self::Skip,
            "pull" => Self::Pull,
            _ => Self::Auto,
        }
    }
}

/// How submodules are brought along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Submodules {
    /// Those of the wanted commit, with the protocol and login of their hosts; one that is missing is an error.
    #[default]
    Full,
    /// Those that `git clone --recursive` brings, by their own addresses; later ones that are missing do not
    /// matter.
    Legacy,
}

/// How git repositories are reached.
#[derive(Debug, Clone)]
pub struct GitSettings {
    /// `agent.git_user`, or the variable or option that replaces it.
    pub user: Option<String>,
    /// `agent.git_pass`, likewise.
    pub pass: Option<Secret>,
    /// `agent.git_host`: the only host that gets user and password; without it, the host of the
    /// task's repository does.
    pub host: Option<String>,
    /// `agent.git_host_match_prefix`: hosts of logins are beginnings of addresses.
    pub host_match_prefix: bool,
    /// `agent.git.extra_credentials`: logins for more hosts; the first that fits wins over the above.
    pub extra_credentials: Vec<Credential>,
    /// `agent.enable_git_ask_pass`; when off, the login of the task's repository is a header of its host.
    pub enable_ask_pass: bool,
    /// A program that begins with [`askpass::intercept`](crate::askpass::intercept) and is called by git
    /// when a server wants a login. Without one, it is as if `enable_ask_pass` were off.
    pub ask_pass_program: Option<PathBuf>,
    /// `agent.git_use_ms_entra_token`: the password is a bearer token.
    pub use_ms_entra_token: bool,
    /// `agent.git_use_azure_pat`: the password is a personal access token of Azure DevOps.
    pub use_azure_pat: bool,
    /// `agent.force_git_ssh_protocol`.
    pub force_ssh_protocol: bool,
    /// `agent.force_git_ssh_user`.
    pub force_ssh_user: Option<String>,
    /// `agent.force_git_ssh_port`.
    pub force_ssh_port: Option<u16>,
    /// `agent.force_git_ssh_protocol_strict`: what is forced to ssh stays ssh also for `host:path` with a login.
    pub force_ssh_strict: bool,
    /// `agent.translate_ssh`: use https for ssh addresses when user and password are known.
    pub translate_ssh: bool,
    /// `agent.translate_ssh_keep_port`: the https address keeps the port of ssh.
    pub keep_ssh_port: bool,
    /// `agent.translate_ssl_replacement_scheme`.
    pub replacement_scheme: String,
    /// `agent.git_fetch_args`. What they say about submodules counts only for [`Submodules::Legacy`].
    pub fetch_args: Vec<String>,
    /// `agent.git_clone_args`, for example `--filter=blob:none`.
    pub clone_args: Vec<String>,
    /// `agent.git_retries`: how often a clone or fetch is repeated after a fault of the network.
    pub retries: u32,
    /// `agent.git_ignore_submodule_errors`.
    pub ignore_submodule_errors: bool,
    /// `agent.git_submodules`.
    pub submodules: Submodules,
    /// `agent.git_lfs`.
    pub lfs: Lfs,
    /// `agent.git_apply_skip_binary`: leave out changes of binary files whose content the task lacks.
    pub apply_skip_binary: bool,
}

impl Default for GitSettings {
    fn default() -> Self {
        Self {
            user: None,
            pass: None,
            host: None,
            host_match_prefix: false,
            extra_credentials: Vec::new(),
            enable_ask_pass: true,
            ask_pass_program: None,
            use_ms_entra_token: false,
            use_azure_pat: false,
            force_ssh_protocol: false,
            force_ssh_user: None,
            force_ssh_port: None,
            force_ssh_strict: false,
            translate_ssh: true,
            keep_ssh_port: false,
            replacement_scheme: "https".to_owned(),
            fetch_args: ["--all", "--tags"].map(String::from).to_vec(),
            clone_args: Vec::new(),
            retries: 2,
            ignore_submodule_errors: false,
            submodules: Submodules::Full,
            lfs: Lfs::Auto,
            apply_skip_binary: false,
        }
    }
}

/// How Mercurial repositories are reached: those whose address begins with `hg+`, or all.
#[derive(Debug, Clone, Default)]
pub struct HgSettings {
    /// `agent.vcs_type: hg`: every repository is one of Mercurial.
    pub always: bool,
    /// `agent.hg_user`.
    pub user: Option<String>,
    /// `agent.hg_pass`.
    pub pass: Option<Secret>,
    /// `agent.hg_host`: the only host that gets them; without it, the host of the repository does.
    pub host: Option<String>,
    /// `agent.hg.extra_credentials`.
    pub extra_credentials: Vec<Credential>,
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
    /// `agent.vcs_cache.copy_mode: copy`: working copies get objects of their own instead of hard links.
    pub copy_objects: bool,
    /// `agent.vcs_cache.max_entries`: most clones that are kept; 0 for any number.
    pub max_entries: u64,
    /// `agent.vcs_cache.max_size_gb`, in bytes: most that all clones together take; 0 for any size.
    pub max_bytes: u64,
}

impl Default for VcsCacheSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            path: PathBuf::from("/var/tmp/clearml-vcs-cache"),
            always_fetch: false,
            clone_on_pull_fail: false,
            copy_objects: false,
            max_entries: 200,
            max_bytes: 100 << 30,
        }
    }
}

/// The cache of whole environments.
#[derive(Debug, Clone)]
pub struct VenvsCacheSettings {
    /// `agent.venvs_cache.path`; without it, nothing is kept. The folder itself is that of the Python agent,
    /// ours is the one beside it whose name ends in `.v2`.
    pub path: Option<PathBuf>,
    /// `agent.venvs_cache.max_entries`: most environments that are kept; 0 for any number.
    pub max_entries: u64,
    /// `agent.venvs_cache.free_space_threshold_gb`, in bytes: what must stay free.
    pub min_free_bytes: Option<u64>,
    /// `agent.venvs_cache.lock_timeout`: longest wait for an entry that another process removes.
    pub lock_timeout: Duration,
    /// `agent.venvs_cache.link_mode`.
    pub link_mode: LinkMode,
    /// `agent.venvs_cache.allow_hardlink`: environments may share files with the cache.
    pub allow_hardlink: bool,
    /// `agent.venvs_cache.unpinned_ttl_hours`: how long an environment counts whose requirements lack exact
    /// versions; zero for ever.
    pub unpinned_ttl: Duration,
}

impl Default for VenvsCacheSettings {
    fn default() -> Self {
        Self {
            path: None,
            max_entries: 10,
            min_free_bytes: Some(2 << 30),
            lock_timeout: Duration::from_secs(30),
            link_mode: LinkMode::Auto,
            allow_hardlink: true,
            unpinned_ttl: Duration::ZERO,
        }
    }
}

/// How files of a cached environment come into that of a task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LinkMode {
    /// Reflinks where the file system has them, else hard links, else copies.
    #[default]
    Auto,
    /// Reflinks, else copies.
    Reflink,
    /// Hard links, else copies.
    HardLink,
    /// Copies.
    Copy,
}

impl From<&str> for LinkMode {
    /// Unknown names are `auto`.
    fn from(name: &str) -> Self {
        match name {
            "reflink" => Self::Reflink,
            "hardlink" => Self::HardLink,
            "copy" => Self::Copy,
            _ => Self::Auto,
        }
    }
}

/// Which tool installs packages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PackageManagerKind {
    /// pip, or uv in its place where [`PipBackend`] allows it.
    #[default]
    Pip,
    /// conda, and pip for what conda does not have.
    Conda,
    /// Poetry for repositories that are Poetry projects, otherwise as pip.
    Poetry,
    /// uv; pip when there is no uv on this machine and none can be installed.
    Uv,
}

impl From<&str> for PackageManagerKind {
    /// Unknown names mean pip, as in the Python agent.
    fn from(name: &str) -> Self {
        match name {
            "conda" => Self::Conda,
            "poetry" => Self::Poetry,
            "uv" => Self::Uv,
            _ => Self::Pip,
        }
    }
}

/// What installs the packages of a task whose package manager is pip.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PipBackend {
    /// uv where it installs the same packages as pip would, else pip.
    #[default]
    Auto,
    /// pip.
    Pip,
    /// uv, as long as there is one.
    Uv,
}

impl From<&str> for PipBackend {
    /// Unknown names are `auto`.
    fn from(name: &str) -> Self {
        match name {
            "pip" => Self::Pip,
            "uv" => Self::Uv,
            _ => Self::Auto,
        }
    }
}

/// How packages are installed.
#[derive(Debug, Clone)]
pub struct PackageManagerSettings {
    /// `type`.
    pub kind: PackageManagerKind,
    /// `pip_backend`.
    pub pip_backend: PipBackend,
    /// `pip_version`: versions with conditions, as in `<22.3 ; python_version < '3.12'`. Empty takes the
    /// latest; a range that the interpreter's own pip satisfies takes that.
    pub pip_version: Vec<String>,
    /// The uv to use; without it, the one on `PATH`.
    pub uv_binary: Option<PathBuf>,
    /// `uv_version`: the version that uv has to have.
    pub uv_version: Option<String>,
    /// The cache of uv; without it, uv's own choice. A variable `UV_CACHE_DIR` wins.
    pub uv_cache_dir: Option<PathBuf>,
    /// `uv_replace_pip`: let uv install what pip would.
    pub uv_replace_pip: bool,
    /// `uv_unsafe_best_match`: uv looks at all indexes for the best version, as pip does.
    pub uv_unsafe_best_match: bool,
    /// `uv_sync_locked_if_lock_file`: insist on `uv.lock` at first.
    pub uv_sync_locked_if_lock_file: bool,
    /// `uv_sync_extra_args`.
    pub uv_sync_extra_args: Vec<String>,
    /// `agent.bootstrap.uv_python_meta_file`: where uv finds interpreters to download, a path or address.
    pub uv_python_meta_file: Option<String>,
    /// `uv_run_extra_args`: with any, `uv run` starts the task.
    pub uv_run_extra_args: Vec<String>,
    /// `uv_files_from_repo_working_dir`: the project is in the working folder of the task.
    pub uv_files_from_repo_working_dir: bool,
    /// `poetry_version`: the version to install; without it, the Poetry on `PATH`.
    pub poetry_version: Option<String>,
    /// `poetry_install_extra_args`.
    pub poetry_install_extra_args: Vec<String>,
    /// `poetry_files_from_repo_working_dir`: the project is in the working folder of the task.
    pub poetry_files_from_repo_working_dir: bool,
    /// `poetry_strict`: a project that Poetry can't install is an error.
    pub poetry_strict: bool,
    /// Settings of conda.
    pub conda: CondaSettings,
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
    /// `priority_packages`: installed before the others, as these need them to be built.
    pub priority_packages: Vec<String>,
    /// `priority_optional_packages`: likewise, and left out when that fails.
    pub priority_optional_packages: Vec<String>,
    /// `post_packages`: installed after the others.
    pub post_packages: Vec<String>,
    /// `post_optional_packages`: likewise, and it does not matter if that fails.
    pub post_optional_packages: Vec<String>,
    /// `strip_editable`: install editable packages like all others.
    pub strip_editable: bool,
    /// `agent.pip_download_cache.path`: where pip keeps archives that are named by their address.
    pub pip_download_cache: Option<PathBuf>,
}

impl Default for PackageManagerSettings {
    fn default() -> Self {
        Self {
            kind: PackageManagerKind::Pip,
            pip_backend: PipBackend::Auto,
            // Whatever the interpreter brings.
            pip_version: vec![">=0".to_owned()],
            uv_binary: None,
            uv_version: None,
            uv_cache_dir: None,
            uv_replace_pip: false,
            uv_unsafe_best_match: false,
            uv_sync_locked_if_lock_file: true,
            uv_sync_extra_args: Vec::new(),
            uv_python_meta_file: None,
            uv_run_extra_args: Vec::new(),
            uv_files_from_repo_working_dir: false,
            poetry_version: None,
            poetry_install_extra_args: Vec::new(),
            poetry_files_from_repo_working_dir: false,
            poetry_strict: false,
            conda: CondaSettings::default(),
            extra_index_url: Vec::new(),
            extra_pip_install_flags: Vec::new(),
            system_site_packages: false,
            force_upgrade: false,
            force_repo_requirements_txt: false,
            force_original_requirements: false,
            pip_legacy_resolver: vec![">=20.3,<24.3".to_owned()],
            priority_packages: ["cython", "numpy", "setuptools", "pip", "uv"]
                .map(str::to_owned)
                .to_vec(),
            priority_optional_packages: vec!["pygobject".to_owned()],
            post_packages: vec!["horovod".to_owned()],
            post_optional_packages: Vec::new(),
            strip_editable: false,
            pip_download_cache: None,
        }
    }
}

/// How conda is used.
#[derive(Debug, Clone)]
pub struct CondaSettings {
    /// `conda_executable`: another program with conda's arguments, for example `mamba`.
    pub executable: Option<String>,
    /// `conda_channels`, in order.
    pub channels: Vec<String>,
    /// `conda_full_env_update`: report what is installed, with conda's own list.
    pub full_env_update: bool,
    /// `conda_env_as_base_docker`: the image of the task is such a folder or archive.
    pub env_as_base_docker: bool,
    /// `use_conda_base_env`: install into conda's own environment.
    pub use_base_env: bool,
}

impl Default for CondaSettings {
    fn default() -> Self {
        Self {
            executable: None,
            channels: ["pytorch", "conda-forge", "nvidia", "defaults"]
                .map(String::from)
                .to_vec(),
            full_env_update: false,
            env_as_base_docker: false,
            use_base_env: false,
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
