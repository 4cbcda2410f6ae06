//! Keys of the `agent` section that concern the worker itself, and the printout of the configuration.

use super::keys;

keys! { WORKER:
    "agent.worker_id", Text, Packaged(r#""""#), "Complete worker id; nothing is added to it.",
        .variables(&["CLEARML_WORKER_ID", "TRAINS_WORKER_ID"]);
    "agent.worker_name", Text, Computed("host name"), "First part of a generated worker id.",
        .variables(&["CLEARML_WORKER_NAME", "TRAINS_WORKER_NAME"]);
    "agent.debug", Flag, Internal("false"), "Show debugging messages; --debug sets it.";
    "agent.reload_config", Flag, Packaged("false"), "Read the configuration anew after each round of polling.";
    "agent.crash_on_exception", Flag, Internal("false"), "End the daemon on an unexpected error of its loop.",
        .variables(&["CLEARML_AGENT_CRASH_ON_EXCEPTION"]).strict()
        .ignored("every error of the loop is dealt with where it happens, and none is unexpected");
    "agent.uptime", List, Unset, "Hours in which tasks are taken; --uptime sets it.";
    "agent.downtime", List, Unset, "Hours in which no tasks are taken; --downtime sets it.";
    "agent.disable_agent_update_check", Flag, Internal("false"), "Do not look for a newer agent; this one never does.",
        .ignored("nothing but the ClearML server is ever contacted");
    "agent.log_files_buffering", Integer(-1), Internal("1"),
        "Buffer of the daemon's own log in bytes; 1 writes every line at once, 0 every byte.",
        .ignored("every line is written at once");
    "agent.truncate_task_output_files", Flag, Internal("false"), "Remove console text from the disk once it was delivered.",
        .ignored("the kept console has a limit instead, agent.console.max_bytes");
    "agent.suppress_carriage_return", Flag, Internal("true"),
        "Of text overwritten by carriage returns, show only the last state.";
    "agent.task_ping_interval_sec", Number(f64::MIN), Internal("60"),
        "Seconds between life signs of a running task; 0 or less sends none.", .lenient("0");
    "agent.abort_callback_max_timeout", Number(0.0), Packaged("1800"),
        "Most seconds that a task's own abort callback may take.";
    "agent.dynamic_gpus_reservation_timeout_sec", Number(0.0), Internal("600"),
        "Seconds for which GPUs stay reserved for a task that was taken but has not begun.", .later("dynamic GPUs");
    "agent.resource_monitoring.default_gpu_utilization", Integer(0), Internal("100"),
        "GPU utilisation to report where it cannot be measured; null reports none.";
    "agent.resource_monitoring.disk_use_path", Path, Computed("home folder"),
        "Folder whose file system is reported as the worker's disk.";
    "agent.resource_monitoring.cluster_report_interval_sec", Integer(1), Internal("60"),
        "Seconds between reports about the cluster.", .later("cluster reports");
    "agent.resource_dashboard.default_cluster_name", Text, Internal(r#""onprem""#),
        "Cluster to which workers with a plain id are counted.", .later("cluster reports");
    "agent.cuda_version", Text, Computed("what the driver or nvcc says, else 0"),
        "CUDA version of this machine; quote it, 11.10 is otherwise 11.1.",
        .variables(&["CLEARML_CUDA_VERSION", "TRAINS_CUDA_VERSION", "CUDA_VERSION"]);
    "agent.cudnn_version", Text, Computed("what the header file beside nvcc says, else 0"), "cuDNN version of this machine.",
        .variables(&["CLEARML_CUDNN_VERSION", "TRAINS_CUDNN_VERSION", "CUDNN_VERSION"]);
    "agent.cpu_only", Flag, Internal("false"), "Behave as if there were no GPU.",
        .variables(&["CLEARML_CPU_ONLY", "TRAINS_CPU_ONLY", "CPU_ONLY"]);
    "agent.enable_task_env", Flag, Packaged("false"),
        "Give the hyperparameter section Environment to the task as environment variables.";
    "agent.apply_environment", Flag, Packaged("true"), "Set the variables of the top-level section environment.",
        .variables(&["CLEARML_AGENT_ENABLE_ENV_CONFIG_SECTION"]);
    "agent.apply_files", Flag, Packaged("true"), "Write the files of the top-level section files.",
        .variables(&["CLEARML_AGENT_ENABLE_FILES_CONFIG_SECTION"]);
    "agent.standalone_mode", Flag, Internal("false"), "Fetch and install nothing; use what earlier builds have left in agent.venvs_dir. --standalone-mode sets it.";
    "agent.status_report_sec", Number(1.0), Internal("30"), "Seconds between status reports of the worker.",
        .variables(&["CLEARML_AGENT_STATUS_REPORT_FREQ_SEC"]).strict();
    "agent.status_poll_interval_sec", Number(0.1), Internal("2.0"),
        "Seconds between looks whether a running task was aborted.";
    "agent.on_stop", Choice(&["kill", "detach"]), Internal(r#""kill""#),
        "What stopping the daemon does to running tasks: stop them, or leave them to be adopted by the next daemon. \
         Services in containers are left alone unless it is set.";
    "agent.adopt_after_sec", Number(0.0), Internal("30"),
        "Seconds for which nobody has looked after a task of this machine, because its daemon has died, until another daemon does.";
    "agent.requeue_on_infrastructure_failure", Integer(0), Internal("0"),
        "How often a task is put back at the head of its queue because its runner or its machine has died.";
    "agent.abort_grace_sec", Number(0.0), Internal("10"), "Seconds between asking an aborted task to end and killing it.";
    "agent.state_dir", Path, Computed("$XDG_STATE_HOME/clearml-agent, else ~/.local/state/clearml-agent"),
        "Folder of the agent's own records: runs, journals, locks.", .variables(&["CLEARML_AGENT_STATE_DIR"]);
    "agent.console.max_bytes", Integer(1 << 20), Internal("4294967296"),
        "Most bytes of console output that are kept on disk for one task.";
    "agent.console.segment_bytes", Integer(1 << 12), Internal("8388608"), "Size at which a new console file is begun.";
    "agent.console.flush_interval_sec", Number(0.05), Internal("1.0"),
        "Seconds between deliveries of console lines to the server.";
    "agent.console.partial_line_max_age_sec", Number(0.1), Internal("5.0"),
        "Seconds after which text without a line end is delivered.";
}

keys! { PRINTOUT:
    "agent.sanitize_config_printout.hide_secrets", List,
        Packaged(r#"["^sanitize_config_printout$", "secret", "pass", "token", "account_key", "contents"]"#),
        "Patterns of keys whose value is not shown.";
    "agent.sanitize_config_printout.hide_secrets_recursive", List, Packaged(r#"["^environment$"]"#),
        "Patterns of keys below which no value is shown.";
    "agent.sanitize_config_printout.dont_hide_secrets", List, Packaged(r#"["^enable_git_ask_pass$"]"#),
        "Patterns of keys that are shown although they match the others.";
    "agent.sanitize_config_printout.docker_commands", List, Packaged(r#"["^extra_docker_arguments$"]"#),
        "Patterns of keys with container arguments, of which secret variables are not shown.";
    "agent.sanitize_config_printout.urls", List, Packaged(r#"["^extra_index_url$"]"#),
        "Patterns of keys with URLs, of which passwords are not shown.";
    "agent.hide_docker_command_env_vars.enabled", Flag, Packaged("true"), "Do not show secret variables of container commands.";
    "agent.hide_docker_command_env_vars.extra_keys", List, Packaged("[]"), "More variables that are not shown.";
    "agent.hide_docker_command_env_vars.parse_embedded_urls", Flag, Packaged("true"),
        "Do not show passwords of URLs in container commands.";
}
