//! Keys of the `agent` section that concern containers, and those of features that this agent leaves out.

use super::keys;

keys! { KEYS:
    "agent.default_docker.image", Text, Packaged(r#""nvidia/cuda:12.6.3-cudnn-runtime-ubuntu20.04""#),
        "Image for tasks that name none.";
    "agent.default_docker.arguments", Words, Unset, "Container arguments for tasks that name none.";
    "agent.default_docker.update_back_task", Flag, Packaged("true"), "Write the chosen container into the task.";
    "agent.default_docker.match_rules", Entries, Packaged(MATCH_RULES),
        "Containers for certain tasks: objects with image, arguments and match; the first that matches is used.";
    "agent.disable_task_docker_override", Flag, Packaged("false"),
        "Do not let tasks choose their image and container arguments.";
    "agent.docker_force_pull", Flag, Packaged("false"), "Pull the image before each task.";
    "agent.extra_docker_arguments", Words, Unset, "Container arguments for all tasks.",
        .variables(&["CLEARML_AGENT_EXTRA_DOCKER_ARGS"]).strict();
    "agent.docker_args_extra_precedes_task", Flag, Internal("true"),
        "Of protected arguments that stand in both, take agent.extra_docker_arguments instead of the task's.";
    "agent.protected_docker_extra_args", List, Internal(r#"["privileged", "security-opt", "network", "ipc"]"#),
        "Container arguments, without dashes, that one side may protect from the other.";
    "agent.docker_args_filters", List, Unset, "Patterns of the only container arguments that tasks may use.",
        .variables(&["CLEARML_AGENT_DOCKER_ARGS_FILTERS"]);
    "agent.forbidden_docker_args", List, Packaged(r#"["entrypoint"]"#), "Container arguments, without dashes, that are dropped.";
    "agent.docker_args_allowed_port_range", PortRange, Unset, "Ports of the host that tasks may publish.";
    "agent.docker_allow_host_environ", Flag, Internal("false"),
        "Let container arguments of tasks refer to the agent's own environment variables.";
    "agent.extra_docker_shell_script", List, Unset, "Shell commands that run in the container first.";
    "agent.docker_init_bash_script", List, Unset, "Shell commands that prepare the container, instead of the agent's own.";
    "agent.docker_preprocess_bash_script", List, Unset, "Shell commands that run before those.";
    "agent.docker_install_opencv_libs", Flag, Internal("false"), "Install the libraries that OpenCV needs.";
    "agent.docker_install_agent", Flag, Internal("false"),
        "Install the official agent in containers and let it run the tasks, instead of this program.";
    "agent.docker_container_name_format", Text, Unset,
        "Pattern of container names: {task_id}, {worker_id}, {rand_string} and the fields below.";
    "agent.docker_container_name_format_fields", Map, Unset, "More fields for container names: a name and a path in the task.";
    "agent.docker_apt_cache", Path, Packaged(r#""~/.clearml/apt-cache""#), "Folder of the host that keeps packages of apt.";
    "agent.docker_pip_cache", Path, Packaged(r#""~/.clearml/pip-cache""#), "Folder of the host that keeps packages of pip.";
    "agent.docker_poetry_cache", Path, Internal(r#""~/.clearml/poetry-cache""#),
        "Folder of the host that keeps packages of Poetry.";
    "agent.disable_ssh_mount", Flag, Internal("false"), "Do not give containers a copy of ~/.ssh.",
        .variables(&["CLEARML_AGENT_DISABLE_SSH_MOUNT"]).only_true();
    "agent.docker_apply_environment_from_vault", Flag, Packaged("true"),
        "Give the variables of the configuration and of the owner's vaults to scripts in the container.";
    "agent.docker_internal_mounts.bootstrap_folder", Text, Packaged(r#""/.clearml.bootstrap""#),
        "Place in the container of the bootstrap package.", .ignored("there is no bootstrap package");
    "agent.docker_internal_mounts.bootstrap_cache", Text, Packaged(r#""/.clearml.bootstrap.cache""#),
        "Place in the container of the bootstrap package's cache.", .ignored("there is no bootstrap package");
    "agent.docker_internal_mounts.sdk_cache", Text, Packaged(r#""/clearml_agent_cache""#),
        "Place in the container of the SDK's cache.";
    "agent.docker_internal_mounts.apt_cache", Text, Packaged(r#""/var/cache/apt/archives""#),
        "Place in the container of agent.docker_apt_cache.";
    "agent.docker_internal_mounts.ssh_folder", Text, Packaged(r#""~/.ssh""#), "Place in the container of the SSH keys.";
    "agent.docker_internal_mounts.ssh_ro_folder", Text, Packaged(r#""/.ssh""#),
        "Place in the container where the SSH keys are mounted read-only.";
    "agent.docker_internal_mounts.pip_cache", Text, Packaged(r#""/root/.cache/pip""#),
        "Place in the container of agent.docker_pip_cache.";
    "agent.docker_internal_mounts.poetry_cache", Text, Packaged(r#""/root/.cache/pypoetry""#),
        "Place in the container of agent.docker_poetry_cache.";
    "agent.docker_internal_mounts.vcs_cache", Text, Packaged(r#""/root/.clearml/vcs-cache""#),
        "Place in the container of agent.vcs_cache.path.";
    "agent.docker_internal_mounts.venvs_cache", Text, Packaged(r#""/root/.clearml/venvs-cache""#),
        "Place in the container of agent.venvs_cache.path.";
    "agent.docker_internal_mounts.pip_download", Text, Packaged(r#""/root/.clearml/pip-download-cache""#),
        "Place in the container of agent.pip_download_cache.path.";
    "agent.docker_internal_mounts.venv_build", Text, Packaged(r#""~/.clearml/venvs-builds""#),
        "Place in the container of agent.venvs_dir.";
}

/// One rule for each version of Python that has an official image.
pub(super) const MATCH_RULES: &str = r#"[
    {"image": "python:3.6-bullseye", "arguments": "--ipc=host", "update_back_task": true, "match": {"script": {"binary": "python3.6$"}}},
    {"image": "python:3.7-bullseye", "arguments": "--ipc=host", "update_back_task": true, "match": {"script": {"binary": "python3.7$"}}},
    {"image": "python:3.8-bullseye", "arguments": "--ipc=host", "match": {"script": {"binary": "python3.8$"}}},
    {"image": "python:3.9-bullseye", "arguments": "--ipc=host", "match": {"script": {"binary": "python3.9$"}}},
    {"image": "python:3.10-bullseye", "arguments": "--ipc=host", "match": {"script": {"binary": "python3.10$"}}},
    {"image": "python:3.11-bullseye", "arguments": "--ipc=host", "match": {"script": {"binary": "python3.11$"}}},
    {"image": "python:3.12-bullseye", "arguments": "--ipc=host", "match": {"script": {"binary": "python3.12$"}}},
    {"image": "python:3.13-bullseye", "arguments": "--ipc=host", "match": {"script": {"binary": "python3.13$"}}}
]"#;
