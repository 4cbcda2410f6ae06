//! `agent.package_manager`.

use std::fmt;

use crate::effective::Reader;

/// Which program installs packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackageManager {
    /// pip.
    Pip,
    /// conda.
    Conda,
    /// Poetry.
    Poetry,
    /// uv.
    Uv,
}

/// `agent.package_manager`; each field is the key of the same name unless it says otherwise.
#[derive(Clone, PartialEq, Eq)]
pub struct PackageManagerSettings {
    /// `type`.
    pub kind: PackageManager,
    /// `pip_version`: versions with conditions; empty takes the latest.
    pub pip_version: Vec<String>,
    /// Version of uv.
    pub uv_version: Option<String>,
    /// Use uv in place of pip.
    pub uv_replace_pip: bool,
    /// Insist on uv's lock file, if there is one.
    pub uv_sync_locked_if_lock_file: bool,
    /// More arguments of `uv sync`.
    pub uv_sync_extra_args: Vec<String>,
    /// More arguments of `uv run`.
    pub uv_run_extra_args: Vec<String>,
    /// Let uv take the best version of all indexes.
    pub uv_unsafe_best_match: bool,
    /// Virtual environments see the packages of the interpreter.
    pub system_site_packages: bool,
    /// Upgrade packages that are there already.
    pub force_upgrade: bool,
    /// More package indexes; may contain passwords.
    pub extra_index_url: Vec<String>,
    /// More arguments of `pip install`.
    pub extra_pip_install_flags: Vec<String>,
    /// Versions of pip that need their old resolver.
    pub pip_legacy_resolver: Vec<String>,
    /// Install what the repository lists.
    pub force_repo_requirements_txt: bool,
    /// Install what the task listed first.
    pub force_original_requirements: bool,
    /// Installed before the others.
    pub priority_packages: Vec<String>,
    /// Installed before the others, may fail.
    pub priority_optional_packages: Vec<String>,
    /// Installed after the others.
    pub post_packages: Vec<String>,
    /// Installed after the others, may fail.
    pub post_optional_packages: Vec<String>,
}

impl PackageManagerSettings {
    pub(super) fn read(reader: &Reader<'_>) -> Self {
        let key = |name: &str| format!("agent.package_manager.{name}");
        let flag = |name: &str| reader.flag(&key(name));
        let list = |name: &str| {
            reader
                .list(&key(name))
                .into_iter()
                .filter(|item| !item.trim().is_empty())
                .collect()
        };
        Self {
            kind: match reader.choice(&key("type")) {
                "conda" => PackageManager::Conda,
                "poetry" => PackageManager::Poetry,
                "uv" => PackageManager::Uv,
                _ => PackageManager::Pip,
            },
            pip_version: list("pip_version"),
            uv_version: reader.text(&key("uv_version")),
            uv_replace_pip: flag("uv_replace_pip"),
            uv_sync_locked_if_lock_file: flag("uv_sync_locked_if_lock_file"),
            uv_sync_extra_args: list("uv_sync_extra_args"),
            uv_run_extra_args: list("uv_run_extra_args"),
            uv_unsafe_best_match: flag("uv_unsafe_best_match"),
            system_site_packages: flag("system_site_packages"),
            force_upgrade: flag("force_upgrade"),
            extra_index_url: list("extra_index_url"),
            extra_pip_install_flags: list("extra_pip_install_flags"),
            pip_legacy_resolver: list("pip_legacy_resolver"),
            force_repo_requirements_txt: flag("force_repo_requirements_txt"),
            force_original_requirements: flag("force_original_requirements"),
            priority_packages: list("priority_packages"),
            priority_optional_packages: list("priority_optional_packages"),
            post_packages: list("post_packages"),
            post_optional_packages: list("post_optional_packages"),
        }
    }
}

impl fmt::Debug for PackageManagerSettings {
    /// Leaves out the lists: indexes and arguments may contain passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackageManagerSettings")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}
