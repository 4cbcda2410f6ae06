//! Keys of the `agent` section that concern Python environments, `agent.package_manager` included.

use super::keys;

keys! { KEYS:
    "agent.python_binary", Path, Packaged(r#""""#), "The Python interpreter to use.";
    "agent.default_python", Text, Computed("version of the first python3"),
        "Python version for tasks that name none; quote it, 3.10 is otherwise 3.1.";
    "agent.ignore_requested_python_version", Flag, Internal("false"),
        "Use the default interpreter whatever version the task asks for.";
    "agent.docker_use_activated_venv", Flag, Internal("true"),
        "In a container, install into the virtual environment that is active there.";
    "agent.custom_build_script", Text, Packaged(r#""""#), "Script that prepares the environment instead of the agent.";
    "agent.venvs_dir", Path, Packaged(r#""~/.clearml/venvs-builds""#), "Folder in which virtual environments are built.";
    "agent.venvs_cache.path", Path, Packaged(r#""~/.clearml/venvs-cache""#),
        "Folder of kept virtual environments; empty keeps none.", .variables(&["CLEARML_AGENT_VENV_CACHE_PATH"]);
    "agent.venvs_cache.max_entries", Integer(0), Packaged("10"), "Most kept virtual environments.";
    "agent.venvs_cache.free_space_threshold_gb", Number(f64::MIN), Packaged("2.0"),
        "Keep none when less space is free, in gigabytes; 0 or less never minds.";
    "agent.venvs_cache.lock_timeout", Number(0.0), Internal("30"), "Seconds to wait for another process that uses the cache.";
    "agent.venvs_cache.link_mode", Choice(&["auto", "reflink", "hardlink", "copy"]), Internal(r#""auto""#),
        "How files come from the cache; auto takes reflinks, else hard links, else copies.";
    "agent.venvs_cache.allow_hardlink", Flag, Internal("true"), "Let environments share files with the cache by hard links.";
    "agent.venvs_cache.unpinned_ttl_hours", Number(0.0), Internal("0"),
        "Hours that an environment counts whose requirements lack exact versions; 0 for ever.";
    "agent.pip_download_cache.enabled", Flag, Packaged("true"), "Keep downloaded packages.";
    "agent.pip_download_cache.path", Path, Packaged(r#""~/.clearml/pip-download-cache""#), "Folder of the kept packages.";
    "agent.parallel_setup", Flag, Internal("true"), "Fetch the code while the environment is made.";
    "agent.env_build_timeout_sec", Number(0.0), Internal("0"), "Seconds that preparing a task may take; 0 for any time.";
    "agent.venv_update.enabled", Flag, Internal("false"), "Nothing; the tool that it switched on is gone.",
        .ignored("no version of the agent reads it any more");
}

keys! { PACKAGE_MANAGER:
    "agent.package_manager.type", Choice(&["pip", "conda", "poetry", "uv"]), Packaged(r#""pip""#), "Package manager.";
    "agent.package_manager.pip_backend", Choice(&["auto", "pip", "uv"]), Internal(r#""auto""#),
        "What installs for the package manager pip: pip, uv, or auto: uv where it installs the same packages.",
        .lenient(r#""auto""#);
    "agent.package_manager.pip_version", List,
        Packaged(r#"["<20.2 ; python_version < '3.10'", "<22.3 ; python_version >= '3.10' and python_version <= '3.11'", ">=23,<26 ; python_version >= '3.12'"]"#),
        "Versions of pip, with conditions; empty takes the latest.";
    "agent.package_manager.pip_version_policy", Choice(&["packaged", "modern"]), Internal(r#""packaged""#),
        "With modern, >=23 takes the place of the packaged list of agent.package_manager.pip_version.";
    "agent.package_manager.poetry_version", Text, Unset, "Version of Poetry; empty takes the latest, unset the one that is there.";
    "agent.package_manager.poetry_install_extra_args", List, Unset, "More arguments of poetry install.";
    "agent.package_manager.poetry_strict", Flag, Internal("false"),
        "Fail where Poetry can't install the project, instead of installing the task's list.";
    "agent.package_manager.uv_version", Text, Unset, "Version of uv.";
    "agent.package_manager.uv_replace_pip", Flag, Internal("false"), "Use uv in place of pip for tasks without a lock file.";
    "agent.package_manager.uv_sync_locked_if_lock_file", Flag, Packaged("true"), "Insist on the lock file, if there is one.";
    "agent.package_manager.uv_sync_extra_args", List, Unset, "More arguments of uv sync.";
    "agent.package_manager.uv_run_extra_args", List, Unset, "More arguments of uv run.";
    "agent.package_manager.uv_unsafe_best_match", Flag, Internal("false"),
        "Let uv take the best version of all indexes instead of the first index.";
    "agent.package_manager.uv_apply_environment", Flag, Unset, "Nothing; it stands in sample files only.",
        .ignored("no version of the agent reads it");
    "agent.package_manager.uv_files_from_repo_working_dir", Flag, Packaged("false"),
        "Look for uv's lock file in the task's working folder instead of the root of the repository.";
    "agent.package_manager.poetry_files_from_repo_working_dir", Flag, Packaged("false"),
        "Look for Poetry's lock file in the task's working folder instead of the root of the repository.";
    "agent.package_manager.system_site_packages", Flag, Packaged("false"),
        "Virtual environments see the packages of the interpreter.";
    "agent.package_manager.force_upgrade", Flag, Packaged("false"), "Upgrade packages that are there already.";
    "agent.package_manager.extra_index_url", List, Unset, "More package indexes, asked in this order.";
    "agent.package_manager.extra_pip_install_flags", List, Unset, "More arguments of pip install.",
        .variables(&["CLEARML_EXTRA_PIP_INSTALL_FLAGS"]).strict();
    "agent.package_manager.pip_legacy_resolver", List, Packaged(r#"[">=20.3,<24.3"]"#),
        "Versions of pip that are told to use their old resolver.";
    "agent.package_manager.pytorch_resolve", Choice(&["pip", "direct", "none"]), Internal(r#""pip""#),
        "How builds of PyTorch for the CUDA version are found: through pip, by looking at the pages, or not at all.",
        .variables(&["CLEARML_AGENT_PACKAGE_PYTORCH_RESOLVE"]).lenient(r#""pip""#);
    "agent.package_manager.reuse_dirty_venv", Flag, Internal("false"), "Go on with the environment of the task before.",
        .ignored("every run has an environment of its own; agent.venvs_cache makes it quickly");
    "agent.package_manager.pytorch_resolve_legacy", Flag, Internal("false"),
        "Look for the index of PyTorch by asking for one after the other, and fail where none is found.";
    "agent.package_manager.torch_nightly", Flag, Packaged("false"), "Take nightly builds of PyTorch.";
    "agent.package_manager.extra_index_url_template", Text, Internal(r#""https://download.pytorch.org/whl/cu{}/""#),
        "Index of PyTorch builds; {} is the CUDA version.";
    "agent.package_manager.nightly_extra_index_url_template", Text,
        Internal(r#""https://download.pytorch.org/whl/nightly/cu{}/""#),
        "Index of nightly PyTorch builds; {} is the CUDA version.";
    "agent.package_manager.rocm_extra_index_url_template", Text, Internal(r#""https://download.pytorch.org/whl/rocm{}.{}/""#),
        "Index of PyTorch builds for AMD; the two {} are the ROCm version.";
    "agent.package_manager.nightly_rocm_extra_index_url_template", Text,
        Internal(r#""https://download.pytorch.org/whl/nightly/rocm{}.{}/""#),
        "Index of nightly PyTorch builds for AMD; the two {} are the ROCm version.";
    "agent.package_manager.pytorch_index_versions", List, Unset,
        "Versions of CUDA for which there are indexes of PyTorch, as in 118; unset is the built-in list.";
    "agent.package_manager.torch_page", Text, Internal(r#""https://download.pytorch.org/whl/cu{}/torch_stable.html""#),
        "Page of wheels for the direct way; {} is the CUDA version.";
    "agent.package_manager.torch_nightly_page", Text,
        Internal(r#""https://download.pytorch.org/whl/nightly/cu{}/torch_nightly.html""#),
        "Page of nightly wheels for the direct way; {} is the CUDA version.";
    "agent.package_manager.torch_url_template_prefix", Text, Internal(r#""http://download.pytorch.org/whl/""#),
        "What the addresses of wheels begin with.", .ignored("wheels are taken from pages only, whose addresses have keys of their own");
    "agent.package_manager.torch_url_template", Text, Computed("the name pattern of PyTorch's wheels"),
        "Name pattern of wheels for the direct way.", .ignored("wheels are taken from pages only, whose addresses have keys of their own");
    "agent.package_manager.conda_executable", Text, Unset, "Program with conda's arguments, for example mamba.";
    "agent.package_manager.conda_channels", List, Packaged(r#"["pytorch", "conda-forge", "nvidia", "defaults"]"#),
        "Channels of conda, in order.";
    "agent.package_manager.conda_full_env_update", Flag, Internal("false"),
        "Record the task's packages again after conda has run.";
    "agent.package_manager.conda_env_as_base_docker", Flag, Internal("false"),
        "Run in a conda environment that is there already, without changing it.";
    "agent.package_manager.use_conda_base_env", Flag, Internal("false"), "Install into conda's base environment.",
        .variables(&["CLEARML_USE_CONDA_BASE_ENV"]);
    "agent.package_manager.force_repo_requirements_txt", Flag, Internal("false"),
        "Install what the repository lists instead of what the task lists.";
    "agent.package_manager.force_original_requirements", Flag, Internal("false"),
        "Install the packages that the task listed first.";
    "agent.package_manager.priority_packages", List, Internal(r#"["cython", "numpy", "setuptools", "pip", "uv"]"#),
        "Packages that are installed before the others.";
    "agent.package_manager.priority_optional_packages", List, Packaged(r#"["pygobject"]"#),
        "Packages that are installed before the others and may fail.";
    "agent.package_manager.post_packages", List, Internal(r#"["horovod"]"#), "Packages that are installed after the others.";
    "agent.package_manager.post_optional_packages", List, Unset,
        "Packages that are installed after the others and may fail.";
    "agent.package_manager.strip_editable", Flag, Internal("false"), "Install editable packages like all others.";
}
