//! Keys of two features that this agent does not have: metering of language models and the bootstrap package. They
//! are checked like all others, so that a file can go back and forth between agents, and then ignored. Only the list
//! of Python downloads has a use without the package.

use super::keys;

keys! { BOOTSTRAP:
    "agent.bootstrap.use_bootstrap", Flag, Packaged("true"), "Prepare containers with the bootstrap package, if it is installed.", .no_bootstrap();
    "agent.bootstrap.check_for_latest", Flag, Packaged("false"), "Look for a newer bootstrap package at the start.", .no_bootstrap();
    "agent.bootstrap.check_for_latest_timeout", Number(0.0), Packaged("5"), "Seconds to wait for that.", .no_bootstrap();
    "agent.bootstrap.always_update", Flag, Unset, "Unpack the package every time.", .no_bootstrap();
    "agent.bootstrap.host_bootstrap_dir", Path, Packaged(r#""~/.clearml.bootstrap""#), "Folder of the unpacked package.", .no_bootstrap();
    "agent.bootstrap.host_bootstrap_cache_dir", Path, Packaged(r#""~/.clearml.bootstrap.cache""#), "Folder of its cache.", .no_bootstrap();
    "agent.bootstrap.skip_git_installation", Flag, Packaged("true"), "Do not install git in the container.", .no_bootstrap();
    "agent.bootstrap.always_use_static_git", Flag, Packaged("false"), "Use the git of the package.", .no_bootstrap();
    "agent.bootstrap.always_install_ca_cert", Flag, Packaged("true"), "Install certificate authorities in the container.", .no_bootstrap();
    "agent.bootstrap.map_external_ssl_cert", Path, Unset, "Certificate file to bring into the container.", .no_bootstrap();
    "agent.bootstrap.uv_python_meta_file", Text, Unset, "List of Python downloads for uv, a path or URL.";
    "agent.bootstrap.uv_def_python_ver", Text, Unset, "Python version for tasks that name none.", .no_bootstrap();
    "agent.bootstrap.auto_update_uv_bin", Text, Unset, "Update uv first.", .no_bootstrap();
    "agent.bootstrap.auto_update_uv_url_gh", Text, Unset, "Where uv is updated from.", .no_bootstrap();
    "agent.bootstrap.auto_update_uv_url_ghe", Text, Unset, "Where uv is updated from, for a GitHub of one's own.", .no_bootstrap();
    "agent.bootstrap.uv_default_index_url", Text, Unset, "Package index for uv.", .no_bootstrap();
    "agent.bootstrap.uv_index_url", Text, Unset, "More package indexes for uv.", .no_bootstrap();
    "agent.bootstrap.uv_use_builtin_tls", Text, Unset, "Which certificate authorities uv trusts.", .no_bootstrap();
    "agent.bootstrap.uv_insecure", Text, Unset, "Hosts whose certificate uv does not check.", .no_bootstrap();
    "agent.bootstrap.git_insecure", Text, Unset, "Let git check no certificates.", .no_bootstrap();
}

keys! { METERING:
    "agent.snug.enabled", Flag, Internal("false"), "Meter the traffic of tasks with language models.",
        .variables(&["CLEARML_AGENT_SNUG_ENABLED"]).strict().no_metering();
    "agent.snug.app_mode", Text, Internal(r#""""#), "Application whose traffic is metered.",
        .variables(&["CLEARML_AGENT_SNUG_APP_MODE"]).no_metering();
    "agent.snug.report_usage_events", Flag, Internal("false"), "Report every metered call.",
        .variables(&["CLEARML_AGENT_SNUG_REPORT_USAGE_EVENTS"]).strict().no_metering();
    "agent.snug.report_task_metrics", Flag, Internal("false"), "Report sums as metrics of the task.",
        .variables(&["CLEARML_AGENT_SNUG_REPORT_TASK_METRICS"]).strict().no_metering();
    "agent.snug.whitelist.version", Integer(1), Internal("1"), "Version of the rules' format.", .no_metering();
    "agent.snug.whitelist.default_action", Choice(&["meter", "ignore"]), Internal(r#""meter""#),
        "What happens to traffic without a rule.", .no_metering();
    "agent.snug.whitelist.rules", Entries, Unset, "Which hosts are metered and how.", .no_metering();
    "agent.snug.call_history", Choice(&["off", "collect", "dump", "continuous"]), Internal(r#""off""#),
        "What is kept of single calls.", .variables(&["CLEARML_AGENT_SNUG_CALL_HISTORY"]).no_metering();
    "agent.snug.call_history_buffer", Integer(0), Internal("50"), "How many calls are kept.", .no_metering();
    "agent.snug.call_history_cap_bytes", Integer(0), Internal("262144"), "How much of a call is kept.", .no_metering();
    "agent.snug.poll_interval_sec", Number(0.0), Internal("10"), "Seconds between looks at the task's properties.", .no_metering();
    "agent.snug.default_tokenizer", Choice(&["claude", "cl100k", "approx"]), Internal(r#""approx""#),
        "How tokens are counted.", .no_metering();
    "agent.snug.debug_log", Flag, Internal("false"), "Log what is metered.", .no_metering();
    "agent.snug.aggregator_url", Text, Unset, "Where sums are sent.", .no_metering();
    "agent.snug.task_metrics_fields", List,
        Internal(r#"["tokens_in", "tokens_out", "cache_read_tokens", "cache_write_tokens", "requests", "latency_ms", "bytes_tx", "bytes_rx", "tool_calls", "tool_call_errors"]"#),
        "Which sums are reported.", .variables(&["CLEARML_AGENT_SNUG_TASK_METRICS_FIELDS"]).no_metering();
}
