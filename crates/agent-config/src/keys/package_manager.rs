//! Keys of `agent.package_manager`.

use super::DefaultValue::{Internal, Packaged, Unset};
use super::{Declaration, Kind};

const fn key(key: &'static str, kind: Kind, default: super::DefaultValue, doc: &'static str) -> Declaration {
    Declaration::new(key, kind, default, doc)
}

/// The table.
pub(super) const KEYS: &[Declaration] = &[
    key(
        "agent.package_manager.type",
        Kind::Choice(&["pip", "conda", "poetry", "uv"]),
        Packaged("\"pip\""),
        "Package manager.",
    ),
    key(
        "agent.package_manager.pip_version",
        Kind::List,
        Packaged(
            "[\"<20.2 ; python_version < '3.10'\", \"<22.3 ; python_version >= '3.10' and python_version <= '3.11'\", \">=23,<26 ; python_version >= '3.12'\"]",
        ),
        "Versions of pip, with conditions; empty takes the latest.",
    ),
    key(
        "agent.package_manager.uv_version",
        Kind::Text,
        Unset,
        "Version of uv.",
    ),
    key(
        "agent.package_manager.uv_replace_pip",
        Kind::Flag,
        Internal("false"),
        "Use uv in place of pip for tasks without a lock file.",
    ),
    key(
        "agent.package_manager.uv_sync_locked_if_lock_file",
        Kind::Flag,
        Packaged("true"),
        "Insist on the lock file, if there is one.",
    ),
    key(
        "agent.package_manager.uv_sync_extra_args",
        Kind::List,
        Unset,
        "More arguments of uv sync.",
    ),
    key(
        "agent.package_manager.uv_run_extra_args",
        Kind::List,
        Unset,
        "More arguments of uv run.",
    ),
    key(
        "agent.package_manager.uv_unsafe_best_match",
        Kind::Flag,
        Internal("false"),
        "Let uv take the best version of all indexes instead of the first index.",
    ),
    key(
        "agent.package_manager.system_site_packages",
        Kind::Flag,
        Packaged("false"),
        "Virtual environments see the packages of the interpreter.",
    ),
    key(
        "agent.package_manager.force_upgrade",
        Kind::Flag,
        Packaged("false"),
        "Upgrade packages that are there already.",
    ),
    key(
        "agent.package_manager.extra_index_url",
        Kind::List,
        Unset,
        "More package indexes, asked in this order.",
    ),
    key(
        "agent.package_manager.extra_pip_install_flags",
        Kind::List,
        Unset,
        "More arguments of pip install.",
    )
    .variables(&["CLEARML_EXTRA_PIP_INSTALL_FLAGS"])
    .strict(),
    key(
        "agent.package_manager.pip_legacy_resolver",
        Kind::List,
        Packaged("[\">=20.3,<24.3\"]"),
        "Versions of pip that are told to use their old resolver.",
    ),
    key(
        "agent.package_manager.force_repo_requirements_txt",
        Kind::Flag,
        Internal("false"),
        "Install what the repository lists instead of what the task lists.",
    ),
    key(
        "agent.package_manager.force_original_requirements",
        Kind::Flag,
        Internal("false"),
        "Install the packages that the task listed first.",
    ),
    key(
        "agent.package_manager.priority_packages",
        Kind::List,
        Internal("[\"cython\", \"numpy\", \"setuptools\", \"pip\", \"uv\"]"),
        "Packages that are installed before the others.",
    ),
    key(
        "agent.package_manager.priority_optional_packages",
        Kind::List,
        Packaged("[\"pygobject\"]"),
        "Packages that are installed before the others and may fail.",
    ),
    key(
        "agent.package_manager.post_packages",
        Kind::List,
        Internal("[\"horovod\"]"),
        "Packages that are installed after the others.",
    ),
    key(
        "agent.package_manager.post_optional_packages",
        Kind::List,
        Unset,
        "Packages that are installed after the others and may fail.",
    ),
];
