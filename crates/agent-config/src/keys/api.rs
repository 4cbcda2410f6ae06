//! Keys of the `api` section, and of the sections that the agent hands on to tasks.

use super::keys;

keys! { KEYS:
    "api.api_server", Text, Unset, "URL of the API server.", .variables(&["CLEARML_API_HOST", "TRAINS_API_HOST"]);
    "api.host", Text, Computed("api.api_server"), "Old name of api.api_server, used where that is unset.";
    "api.web_server", Text, Computed("api.api_server with port 8080 for 8008, app. for api."), "URL of the web pages.",
        .variables(&["CLEARML_WEB_HOST", "TRAINS_WEB_HOST"]);
    "api.files_server", Text, Computed("api.api_server with port 8081 for 8008, files. for api."), "URL of the file server.",
        .variables(&["CLEARML_FILES_HOST", "TRAINS_FILES_HOST"]);
    "api.credentials.access_key", Text, Unset, "Access key of the agent's user.",
        .variables(&["CLEARML_API_ACCESS_KEY", "TRAINS_API_ACCESS_KEY"]);
    "api.credentials.secret_key", Text, Unset, "Secret that belongs to the access key.",
        .variables(&["CLEARML_API_SECRET_KEY", "TRAINS_API_SECRET_KEY"]).secret();
    "api.version", Number(0.0), Packaged("1.5"), "API version of old clients.", .ignored("the version is negotiated");
    "api.default_version", Number(0.0), Packaged("1.5"), "API version of old clients.", .ignored("the version is negotiated");
    "api.verify_certificate", Verify, Packaged("true"),
        "Check the server's certificate, against the given file if it is a path.",
        .variables(&["CLEARML_API_HOST_VERIFY_CERT", "TRAINS_API_HOST_VERIFY_CERT"]);
    "api.http.max_req_size", Integer(1), Packaged("15728640"), "Most bytes of one request; larger batches are divided.";
    "api.http.retries.total", Integer(0), Packaged("240"), "Most repetitions of one call; 240, as packaged, stands for no limit, here and below.";
    "api.http.retries.connect", Integer(0), Packaged("240"), "Most repetitions because no connection could be made.";
    "api.http.retries.read", Integer(0), Packaged("240"), "Most repetitions because no usable answer came.";
    "api.http.retries.redirect", Integer(0), Packaged("240"), "Most redirections of one call.", .ignored("redirections are not followed");
    "api.http.retries.status", Integer(0), Packaged("240"), "Most repetitions because the server said that it could not at the moment.";
    "api.http.retries.backoff_factor", Number(0.0), Packaged("1.0"), "Seconds that the pauses between attempts grow from.";
    "api.http.retries.backoff_max", Number(0.0), Packaged("120.0"), "Longest pause between attempts, in seconds.";
    "api.http.wait_on_maintenance_forever", Flag, Packaged("true"), "Go on trying while the server says that it is unavailable.";
    "api.http.pool_maxsize", Integer(1), Packaged("512"), "Connections that the Python client keeps open.",
        .ignored("this client keeps as many as it needs");
    "api.http.pool_connections", Integer(1), Packaged("512"), "Hosts for which the Python client keeps connections open.",
        .ignored("this client keeps as many as it needs");
    "api.http.default_method", Choice(&["get", "post", "put"]), Internal(r#""post""#), "HTTP method of API calls.",
        .variables(&["CLEARML_API_DEFAULT_REQ_METHOD", "TRAINS_API_DEFAULT_REQ_METHOD"]).strict();
    "api.auth.token_expiration_threshold_sec", Integer(0), Packaged("43200"),
        "Renew the session token when it has less than this many seconds left.";
    "api.auth.request_token_expiration_sec", Integer(1), Unset, "Seconds of life to ask for in a session token.";
    "api.public_ip_ping", Text, Internal(r#""8.8.8.8""#), "Host towards which the machine's own address is looked up.";
    "api.public_ip_service_urls", List, Internal(r#"["https://api.ipify.org", "https://ident.me"]"#),
        "Services that tell the machine's public address.", .ignored("nothing but the ClearML server is ever contacted");
}

keys! { SDK:
    "sdk.storage.cache.default_base_dir", Path, Packaged(r#""~/.clearml/cache""#), "Folder of downloaded artifacts.", .sdk();
    "sdk.storage.cache.size.min_free_bytes", Text, Packaged(r#""10GB""#), "Disk space that the cache leaves free.", .sdk();
    "sdk.storage.direct_access", Entries, Packaged(r#"[{"url": "file://*"}]"#), "Objects that are used in place.", .sdk();
    "sdk.metrics.file_history_size", Integer(0), Packaged("100"), "Most files kept of one series.", .sdk();
    "sdk.metrics.matplotlib_untitled_history_size", Integer(0), Packaged("100"), "Most plots kept without a title.", .sdk();
    "sdk.metrics.images.format", Text, Packaged(r#""JPEG""#), "Format of reported images.", .sdk();
    "sdk.metrics.images.quality", Integer(0), Packaged("87"), "Quality of reported images.", .sdk();
    "sdk.metrics.images.subsampling", Integer(0), Packaged("0"), "Colour subsampling of reported images.", .sdk();
    "sdk.metrics.tensorboard_single_series_per_graph", Flag, Packaged("false"), "One graph for each TensorBoard series.", .sdk();
    "sdk.network.metrics.file_upload_threads", Integer(1), Packaged("4"), "Files uploaded at the same time.", .sdk();
    "sdk.network.metrics.file_upload_starvation_warning_sec", Number(0.0), Packaged("120"),
        "Seconds without progress of uploads until there is a warning.", .sdk();
    "sdk.network.iteration.max_retries_on_server_error", Integer(0), Packaged("5"), "Attempts after errors of the server.", .sdk();
    "sdk.network.iteration.retry_backoff_factor_sec", Number(0.0), Packaged("10"), "Seconds that pauses grow from.", .sdk();
    "sdk.aws.s3.key", Text, Packaged(r#""""#), "Access key for S3.", .variables(&["AWS_ACCESS_KEY_ID"]).sdk();
    "sdk.aws.s3.secret", Text, Packaged(r#""""#), "Secret key for S3.", .variables(&["AWS_SECRET_ACCESS_KEY"]).secret().sdk();
    "sdk.aws.s3.region", Text, Packaged(r#""""#), "Region for S3.", .variables(&["AWS_DEFAULT_REGION"]).sdk();
    "sdk.aws.s3.credentials", Entries, Packaged("[]"), "Keys for single buckets of S3.", .sdk();
    "sdk.aws.boto3.pool_connections", Integer(1), Packaged("512"), "Connections to S3.", .sdk();
    "sdk.aws.boto3.max_multipart_concurrency", Integer(1), Packaged("16"), "Parts uploaded to S3 at the same time.", .sdk();
    "sdk.azure.storage.containers", Entries, Unset,
        "Credentials for Azure storage; AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY add an entry.", .sdk();
    "sdk.google.storage.credentials_json", Text, Unset, "Credentials file for Google storage.",
        .variables(&["GOOGLE_APPLICATION_CREDENTIALS"]).sdk();
    "sdk.log.null_log_propagate", Flag, Packaged("false"), "Pass log lines on that nobody listens to.", .sdk();
    "sdk.log.task_log_buffer_capacity", Integer(0), Packaged("66"), "Log lines that are sent together.", .sdk();
    "sdk.log.disable_urllib3_info", Flag, Packaged("true"), "Hide the HTTP library's messages.", .sdk();
    "sdk.development.default_output_uri", Text, Packaged(r#""""#), "Where models and artifacts go by default.", .sdk();
    "sdk.development.task_reuse_time_window_in_hours", Number(0.0), Packaged("72.0"),
        "Hours in which a run without results is used again.", .sdk();
    "sdk.development.vcs_repo_detect_async", Flag, Packaged("true"), "Look for the repository in the background.", .sdk();
    "sdk.development.store_uncommitted_code_diff", Flag, Packaged("true"), "Record changes that were not committed.", .sdk();
    "sdk.development.support_stopping", Flag, Packaged("true"), "Let a run be stopped from the web page.", .sdk();
    "sdk.development.force_analyze_entire_repo", Flag, Packaged("false"), "Look for imports in the whole repository.", .sdk();
    "sdk.development.suppress_update_message", Flag, Packaged("false"), "Do not tell of newer versions.", .sdk();
    "sdk.development.detect_with_pip_freeze", Flag, Packaged("false"), "Record all installed packages.", .sdk();
    "sdk.development.worker.report_period_sec", Number(0.0), Packaged("2"), "Seconds between reports.", .sdk();
    "sdk.development.worker.ping_period_sec", Number(0.0), Packaged("30"), "Seconds between life signs.", .sdk();
    "sdk.development.worker.log_stdout", Flag, Packaged("true"), "Report the console.", .sdk();
    "sdk.development.worker.report_global_mem_used", Flag, Packaged("false"),
        "Report the memory of the machine instead of the process.", .sdk();
    "sdk.apply_environment", Flag, Unset, "Apply the section environment in the SDK.", .sdk();
    "sdk.apply_files", Flag, Unset, "Apply the section files in the SDK.", .sdk();
    "logging.version", Integer(1), Packaged("1"), "Version of the format of Python's logging configuration.", .sdk();
    "logging.loggers.urllib3.level", Text, Packaged(r#""ERROR""#), "Which messages of the HTTP library are shown.", .sdk();
}
