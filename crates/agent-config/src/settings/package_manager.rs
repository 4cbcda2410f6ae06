//! `agent.package_manager`.

use std::fmt;

use crate::effective::Reader;

/// What `pip_version_policy: modern` stands for.
const MODERN_PIP: &str = ">=23";

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
    /// `pip_backend`: `auto`, `pip` or `uv`.
    pub pip_backend: String,
    /// Version of Poetry; empty for the latest.
    pub poetry_version: Option<String>,
    /// More arguments of `poetry install`.
    pub poetry_install_extra_args: Vec<String>,
    /// Poetry's files are in the task's working folder.
    pub poetry_files_from_repo_working_dir: bool,
    /// Projects that Poetry can't install fail.
    pub poetry_strict: bool,
    /// `conda_executable`: what is called in place of conda.
    pub conda_executable: Option<String>,
    /// Channels of conda, in order.
    pub conda_channels: Vec<String>,
    /// Report what is in the conda environment.
    pub conda_full_env_update: bool,
    /// The image of a task names a conda environment.
    pub conda_env_as_base_docker: bool,
    /// Install into conda's own environment.
    pub use_conda_base_env: bool,
    /// uv's files are in the task's working folder.
    pub uv_files_from_repo_working_dir: bool,
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
    /// Install editable packages like all others.
    pub strip_editable: bool,
    /// Which builds of PyTorch are taken.
    pub torch: TorchSettings,
}

/// The keys of PyTorch; each field is the key of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TorchSettings {
    /// `pip`, `direct` or `none`.
    pub pytorch_resolve: String,
    /// Ask for one index after the other, and fail without one.
    pub pytorch_resolve_legacy: bool,
    /// Take nightly builds.
    pub torch_nightly: bool,
    /// Versions of CUDA with an index; empty for the built-in list.
    pub pytorch_index_versions: Vec<u32>,
    /// Address of an index, with `{}` for the version.
    pub extra_index_url_template: String,
    /// The same for nightly builds.
    pub nightly_extra_index_url_template: String,
    /// The same for ROCm, with two `{}`.
    pub rocm_extra_index_url_template: String,
    /// The same for nightly builds for ROCm.
    pub nightly_rocm_extra_index_url_template: String,
    /// Address of a page with links to wheels.
    pub torch_page: String,
    /// The same for nightly builds.
    pub torch_nightly_page: String,
}

impl TorchSettings {
    fn read(reader: &Reader<'_>) -> Self {
        let key = |name: &str| format!("agent.package_manager.{name}");
        let text = |name: &str| reader.text(&key(name)).unwrap_or_default();
        let versions = reader.list(&key("pytorch_index_versions"));
        Self {
            pytorch_resolve: reader.choice(&key("pytorch_resolve")).to_owned(),
            pytorch_resolve_legacy: reader.flag(&key("pytorch_resolve_legacy")),
            torch_nightly: reader.flag(&key("torch_nightly")),
            pytorch_index_versions: versions
                .iter()
                .filter_map(|text| text.trim().parse().ok())
                .collect(),
            extra_index_url_template: text("extra_index_url_template"),
            nightly_extra_index_url_template: text("nightly_extra_index_url_template"),
            rocm_extra_index_url_template: text("rocm_extra_index_url_template"),
            nightly_rocm_extra_index_url_template: text("nightly_rocm_extra_index_url_template"),
            torch_page: text("torch_page"),
            torch_nightly_page: text("torch_nightly_page"),
        }
    }
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
            pip_version: match reader.choice(&key("pip_version_policy")) {
                "modern" if reader.has_default(&key("pip_version")) => vec![MODERN_PIP.to_owned()],
                _ => list("pip_version"),
            },
            pip_backend: reader.choice(&key("pip_backend")).to_owned(),
            poetry_version: reader
                .value(&key("poetry_version"))
                .map(|_| reader.text(&key("poetry_version")).unwrap_or_default()),
            poetry_install_extra_args: list("poetry_install_extra_args"),
            poetry_files_from_repo_working_dir: flag("poetry_files_from_repo_working_dir"),
            poetry_strict: flag("poetry_strict"),
            conda_executable: reader.text(&key("conda_executable")),
            conda_channels: list("conda_channels"),
            conda_full_env_update: flag("conda_full_env_update"),
            conda_env_as_base_docker: flag("conda_env_as_base_docker"),
            use_conda_base_env: flag("use_conda_base_env"),
            uv_files_from_repo_working_dir: flag("uv_files_from_repo_working_dir"),
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
            strip_editable: flag("strip_editable"),
            torch: TorchSettings::read(reader),
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{Settings, Sources};

    #[test]
    fn a_modern_pip_replaces_the_packaged_list_and_no_other() {
        let pip = |overrides: &[(&str, serde_json::Value)]| {
            let sources = Sources {
                overrides: overrides
                    .iter()
                    .map(|(name, value)| {
                        let key = format!("agent.package_manager.{name}");
                        (key, value.clone(), "a test".to_owned())
                    })
                    .collect(),
                ..Sources::default()
            };
            let settings = Settings::load(&sources).unwrap();
            settings.agent.package_manager.pip_version.clone()
        };
        assert_eq!(pip(&[]).len(), 3);
        let modern = ("pip_version_policy", json!("modern"));
        assert_eq!(pip(std::slice::from_ref(&modern)), [">=23"]);
        assert_eq!(pip(&[modern, ("pip_version", json!(["==22.3"]))]), ["==22.3"]);
    }
}
