//! Keys of the `agent` section, without the package manager.

use super::DefaultValue::{Computed, Internal, Packaged, Unset};
use super::{Declaration, Kind};

const fn key(key: &'static str, kind: Kind, default: super::DefaultValue, doc: &'static str) -> Declaration {
    Declaration::new(key, kind, default, doc)
}

/// The table.
pub(super) const KEYS: &[Declaration] = &[
    // Identity.
    key(
        "agent.worker_id",
        Kind::Text,
        Packaged("\"\""),
        "Complete worker id; nothing is added to it.",
    )
    .variables(&["CLEARML_WORKER_ID", "TRAINS_WORKER_ID"]),
    key(
        "agent.worker_name",
        Kind::Text,
        Computed("host name"),
        "First part of a generated worker id.",
    )
    .variables(&["CLEARML_WORKER_NAME", "TRAINS_WORKER_NAME"]),
    key(
        "agent.debug",
        Kind::Flag,
        Internal("false"),
        "Show debugging messages.",
    ),
    // Daemon.
    key(
        "agent.crash_on_exception",
        Kind::Flag,
        Internal("false"),
        "End the daemon on an unexpected error of its loop.",
    )
    .variables(&["CLEARML_AGENT_CRASH_ON_EXCEPTION"])
    .strict(),
    key(
        "agent.task_ping_interval_sec",
        Kind::Number(f64::MIN),
        Internal("60"),
        "Seconds between life signs of a running task; 0 or less sends none.",
    ),
    key(
        "agent.suppress_carriage_return",
        Kind::Flag,
        Internal("true"),
        "Of text overwritten by carriage returns, show only the last state.",
    ),
    key(
        "agent.abort_callback_max_timeout",
        Kind::Number(0.0),
        Packaged("1800"),
        "Most seconds that a task's own abort callback may take.",
    ),
    key(
        "agent.enable_task_env",
        Kind::Flag,
        Packaged("false"),
        "Give the hyperparameter section Environment to the task as environment variables.",
    ),
    key(
        "agent.apply_environment",
        Kind::Flag,
        Packaged("true"),
        "Set the variables of the top-level section environment.",
    )
    .variables(&["CLEARML_AGENT_ENABLE_ENV_CONFIG_SECTION"]),
    key(
        "agent.apply_files",
        Kind::Flag,
        Packaged("true"),
        "Write the files of the top-level section files.",
    )
    .variables(&["CLEARML_AGENT_ENABLE_FILES_CONFIG_SECTION"]),
    key(
        "agent.status_report_sec",
        Kind::Number(1.0),
        Internal("30"),
        "Seconds between status reports of the worker.",
    )
    .variables(&["CLEARML_AGENT_STATUS_REPORT_FREQ_SEC"])
    .strict(),
    key(
        "agent.status_poll_interval_sec",
        Kind::Number(0.1),
        Internal("2.0"),
        "Seconds between looks whether a running task was aborted.",
    ),
    key(
        "agent.on_stop",
        Kind::Choice(&["kill", "detach"]),
        Internal("\"kill\""),
        "What stopping the daemon does to running tasks: stop them, or leave them to be adopted by the next daemon.",
    ),
    key(
        "agent.adopt_after_sec",
        Kind::Number(0.0),
        Internal("30"),
        "Seconds for which nobody has looked after a task of this machine, because its daemon has died, until another daemon does.",
    ),
    key(
        "agent.abort_grace_sec",
        Kind::Number(0.0),
        Internal("10"),
        "Seconds between asking an aborted task to end and killing it.",
    ),
    key(
        "agent.state_dir",
        Kind::Path,
        Computed("$XDG_STATE_HOME/clearml-agent, else ~/.local/state/clearml-agent"),
        "Folder of the agent's own records: runs, journals, locks.",
    )
    .variables(&["CLEARML_AGENT_STATE_DIR"]),
    key(
        "agent.console.max_bytes",
        Kind::Integer(1 << 20),
        Internal("4294967296"),
        "Most bytes of console output that are kept on disk for one task.",
    ),
    key(
        "agent.console.segment_bytes",
        Kind::Integer(1 << 12),
        Internal("8388608"),
        "Size at which a new console file is begun.",
    ),
    key(
        "agent.console.flush_interval_sec",
        Kind::Number(0.05),
        Internal("1.0"),
        "Seconds between deliveries of console lines to the server.",
    ),
    key(
        "agent.console.partial_line_max_age_sec",
        Kind::Number(0.1),
        Internal("5.0"),
        "Seconds after which text without a line end is delivered.",
    ),
    // Version control.
    key(
        "agent.git_user",
        Kind::Text,
        Unset,
        "User for repositories over HTTPS; needs agent.git_pass.",
    )
    .variables(&["CLEARML_AGENT_GIT_USER", "TRAINS_AGENT_GIT_USER"]),
    key(
        "agent.git_pass",
        Kind::Text,
        Unset,
        "Password or token for repositories over HTTPS; needs agent.git_user.",
    )
    .variables(&["CLEARML_AGENT_GIT_PASS", "TRAINS_AGENT_GIT_PASS"])
    .secret(),
    key(
        "agent.git_host",
        Kind::Text,
        Unset,
        "The only host that gets these credentials.",
    )
    .variables(&["CLEARML_AGENT_GIT_HOST", "TRAINS_AGENT_GIT_HOST"]),
    key(
        "agent.git_host_match_prefix",
        Kind::Flag,
        Internal("false"),
        "Compare agent.git_host with the beginning of the URL instead of its host.",
    ),
    key(
        "agent.git.extra_credentials",
        Kind::Structure,
        Unset,
        "More credentials: a list of objects with user, pass and host.",
    )
    .secret(),
    key(
        "agent.enable_git_ask_pass",
        Kind::Flag,
        Internal("true"),
        "Hand credentials to git through GIT_ASKPASS instead of the URL.",
    ),
    key(
        "agent.force_git_ssh_protocol",
        Kind::Flag,
        Packaged("false"),
        "Use SSH for repositories that are named by an HTTPS URL.",
    ),
    key("agent.force_git_ssh_port", Kind::Port, Unset, "Port for SSH."),
    key(
        "agent.force_git_ssh_user",
        Kind::Text,
        Unset,
        "User for SSH; git when unset.",
    ),
    key(
        "agent.translate_ssh",
        Kind::Flag,
        Packaged("true"),
        "Use HTTPS for repositories named by an SSH URL when credentials match.",
    ),
    key(
        "agent.translate_ssl_replacement_scheme",
        Kind::Text,
        Internal("\"https\""),
        "Scheme of the URLs made by agent.translate_ssh.",
    )
    .variables(&["CLEARML_AGENT_SSH_URL_REPLACEMENT_SCHEME"]),
    key(
        "agent.git_fetch_args",
        Kind::List,
        Packaged("[\"--all\", \"--tags\", \"--recurse-submodules\"]"),
        "Arguments of git fetch.",
    ),
    key(
        "agent.vcs_cache.enabled",
        Kind::Flag,
        Packaged("true"),
        "Keep clones for the next task.",
    ),
    key(
        "agent.vcs_cache.path",
        Kind::Path,
        Packaged("\"~/.clearml/vcs-cache\""),
        "Folder of the kept clones.",
    ),
    key(
        "agent.vcs_cache.clone_on_pull_fail",
        Kind::Flag,
        Internal("false"),
        "Clone anew when a kept clone cannot be updated.",
    ),
    key(
        "agent.force_git_root_python_path",
        Kind::Flag,
        Internal("false"),
        "Put the root of the repository instead of the working folder in PYTHONPATH.",
    ),
    // Python.
    key(
        "agent.python_binary",
        Kind::Path,
        Packaged("\"\""),
        "The Python interpreter to use.",
    ),
    key(
        "agent.default_python",
        Kind::Text,
        Unset,
        "Python version for tasks that name none; quote it, 3.10 is otherwise 3.1.",
    ),
    key(
        "agent.ignore_requested_python_version",
        Kind::Flag,
        Internal("false"),
        "Use the default interpreter whatever version the task asks for.",
    ),
    key(
        "agent.venvs_dir",
        Kind::Path,
        Packaged("\"~/.clearml/venvs-builds\""),
        "Folder in which virtual environments are built.",
    ),
    key(
        "agent.venvs_cache.path",
        Kind::Path,
        Packaged("\"~/.clearml/venvs-cache\""),
        "Folder of kept virtual environments; empty keeps none.",
    )
    .variables(&["CLEARML_AGENT_VENV_CACHE_PATH"]),
    key(
        "agent.venvs_cache.max_entries",
        Kind::Integer(0),
        Packaged("10"),
        "Most kept virtual environments.",
    ),
    key(
        "agent.venvs_cache.free_space_threshold_gb",
        Kind::Number(f64::MIN),
        Packaged("2.0"),
        "Keep none when less space is free, in gigabytes; 0 or less never minds.",
    ),
    key(
        "agent.venvs_cache.lock_timeout",
        Kind::Number(0.0),
        Internal("30"),
        "Seconds to wait for another process that uses the cache.",
    ),
    key(
        "agent.pip_download_cache.enabled",
        Kind::Flag,
        Packaged("true"),
        "Keep downloaded packages.",
    ),
    key(
        "agent.pip_download_cache.path",
        Kind::Path,
        Packaged("\"~/.clearml/pip-download-cache\""),
        "Folder of the kept packages.",
    ),
    // How the configuration is shown.
    key(
        "agent.sanitize_config_printout.hide_secrets",
        Kind::List,
        Packaged(
            "[\"^sanitize_config_printout$\", \"secret\", \"pass\", \"token\", \"account_key\", \"contents\"]",
        ),
        "Patterns of keys whose value is not shown.",
    ),
    key(
        "agent.sanitize_config_printout.hide_secrets_recursive",
        Kind::List,
        Packaged("[\"^environment$\"]"),
        "Patterns of keys below which no value is shown.",
    ),
    key(
        "agent.sanitize_config_printout.dont_hide_secrets",
        Kind::List,
        Packaged("[\"^enable_git_ask_pass$\"]"),
        "Patterns of keys that are shown although they match the others.",
    ),
    key(
        "agent.sanitize_config_printout.docker_commands",
        Kind::List,
        Packaged("[\"^extra_docker_arguments$\"]"),
        "Patterns of keys with container arguments, of which variables are not shown.",
    ),
    key(
        "agent.sanitize_config_printout.urls",
        Kind::List,
        Packaged("[\"^extra_index_url$\"]"),
        "Patterns of keys with URLs, of which passwords are not shown.",
    ),
    key(
        "agent.hide_docker_command_env_vars.enabled",
        Kind::Flag,
        Packaged("true"),
        "Do not show secret variables of container commands.",
    ),
    key(
        "agent.hide_docker_command_env_vars.extra_keys",
        Kind::List,
        Packaged("[]"),
        "More variables that are not shown.",
    )
    .variables(&["CLEARML_AGENT_DOCKER_ARGS_HIDE_ENV"]),
];
