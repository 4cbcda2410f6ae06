//! Environment variables that stand for no configuration key.

use super::{VariableSection, variables_table};

/// All tables.
pub(super) const SECTIONS: &[VariableSection] = &[
    section("Server and configuration", SERVER),
    section("Worker", WORKER),
    section("GPU", GPU),
    section("Version control", GIT),
    section("Containers", CONTAINERS),
    section("Python environment and execution", EXECUTION),
    section("Set for the task", TASK),
    section("Set in containers", IN_CONTAINER),
    section("Custom build script", BUILD_SCRIPT),
    section("Kubernetes and Slurm", CLUSTERS),
    section("Left out: metering of language models", METERING),
    section("Container images", IMAGES),
];

const fn section(title: &'static str, variables: &'static [super::Variable]) -> VariableSection {
    VariableSection { title, variables }
}

variables_table! { SERVER:
    ["CLEARML_AUTH_TOKEN"], Text, "Session token used instead of access and secret key.", .secret();
    ["CLEARML_API_VERBOSE", "TRAINS_API_VERBOSE"], Flag, "Log renewals of the session token.", .default("false");
    ["CLEARML_NO_DEFAULT_SERVER", "TRAINS_NO_DEFAULT_SERVER"], Flag,
        "Whether a missing server is an error; the public demonstration server is never used instead.",
        .default("true").ignored("no server is ever assumed");
    ["CLEARML_AGENT_INITIAL_CONNECT_RETRY_OVERRIDE"], Attempts,
        "Attempts to connect at the start; a word for no tries as often as later.", .default("4");
    ["CLEARML_AGENT_URLLIB3_CONNECT_LEVEL"], Text, "Log level of the Python HTTP library during the first connection.",
        .default("WARNING").ignored("there is no such library here");
    ["CLEARML_AGENT_FORCE_MAX_API_VERSION"], Version, "Use no newer API version than this.";
    ["CLEARML_CONFIG_FILE", "TRAINS_CONFIG_FILE"], Path, "The configuration file to read instead of ~/clearml.conf.";
    ["CLEARML_CONFIG_PATH", "TRAINS_CONFIG_PATH"], Path, "A folder of configuration files that are read first.";
    ["CLEARML_AGENT_CONFIG_VERBOSE"], Flag, "Say which configuration files are read.", .presence().default("false");
    ["TRAINS_ENV"], Choice(&["default", "demo", "local"]), "Which part of that folder is read besides its default part.",
        .strict().default("default");
    ["CLEARML_AGENT__*"], Text,
        "Sets a key: CLEARML_AGENT__AGENT__GIT_HOST is agent.git_host. Two underscores stand for a dot, the value is HOCON.";
    ["CLEARML_AGENT_DISABLE_VAULT_SUPPORT"], Flag, "Do not ask the server for configuration vaults.", .default("false");
    ["CLEARML_AGENT_ALG_ENV", "TRAINS_AGENT_ALG_ENV"], Flag, "Name the configuration file in two more variables.",
        .ignored("it never worked");
    ["AZURE_STORAGE_ACCOUNT"], Text, "Adds an entry to sdk.azure.storage.containers: its account_name.";
    ["AZURE_STORAGE_KEY"], Text, "Adds an entry to sdk.azure.storage.containers: its account_key.", .secret();
    ["HTTP_PROXY", "http_proxy"], Text, "Proxy for http://.";
    ["HTTPS_PROXY", "https_proxy"], Text, "Proxy for https://.";
    ["ALL_PROXY", "all_proxy"], Text, "Proxy for both.";
    ["NO_PROXY", "no_proxy"], Text, "Hosts that are reached without a proxy.";
    ["REQUESTS_CA_BUNDLE"], Path, "Certificate authorities to trust when api.verify_certificate is true.";
    ["CURL_CA_BUNDLE"], Path, "The same, where REQUESTS_CA_BUNDLE is not set.";
}

variables_table! { WORKER:
    ["CLEARML_WORKER_TAGS"], List, "Tags of the worker.";
    ["CLEARML_AGENT_QUEUE_POLL_FREQ_SEC"], Number(0.1),
        "Seconds between looks at the queues; wins over --polling-interval.", .strict();
    ["CLEARML_AGENT_TEMP_STDOUT_FILE_DIR"], Path, "Folder of logs and temporary files.", .default("$TMPDIR, else /tmp");
    ["CLEARML_AGENT_LOG_FORMAT"], Choice(&["text", "json"]), "The form of the log where --log-format is not given.",
        .default("text");
    ["CLEARML_AGENT_DEBUG_INFO"], Text, "What else the log shows; only docker is known: where container arguments come from.";
    ["CLEARML_AGENT_DEBUG_GET_NEXT_TASK"], Flag, "Show what is sent and received while polling.",
        .strict().default("false").ignored("--debug shows every call");
    ["CLEARML_AGENT_PROPAGATE_EXITCODE"], Flag, "Let execute end with the exit code of the task also where it is monitored.",
        .default("false");
    ["CLEARML_AGENT_GPU_FRACTIONS"], Text, "Shares of GPUs to report, as 0.5,0.5 or by MIG profile.", .later("dynamic GPUs");
    ["CLEARML_AGENT_CHILD_AGENTS_COUNT_CMD"], Text, "Command whose lines of output are counted against the limit of --services-mode; {parent_worker_label} stands for the label of the daemon's containers.";
    ["CLEARML_AGENT_SERVICES_DOCKER_RESTART"], Text, "Restart policy of service containers, and for which tasks.";
    ["CLEARML_AGENT_ABORT_CALLBACK_CMD"], Text, "Command that runs in the task's folder when it is aborted.";
    ["CLEARML_AGENT_ABORT_CALLBACK_CMD_REGISTERED"], Text, "The same command, for the task.";
    ["CLEARML_AGENT_ABORT_CALLBACK_TIMEOUT"], Integer(0), "Seconds that this command may take.", .default("180");
    ["CLEARML_AGENT_USE_POWERSHELL"], Flag, "Use PowerShell on Windows.", .presence().ignored("the daemon runs on Linux only");
    ["TMPDIR"], Path, "Folder of temporary files.", .default("/tmp");
}

variables_table! { GPU:
    ["NVIDIA_VISIBLE_DEVICES"], Text, "GPUs that containers see; --gpus sets it.";
    ["CUDA_VISIBLE_DEVICES"], Text, "GPUs that programs see; --gpus sets it.";
    ["CUDA_DEVICE_ORDER"], Text, "Numbers GPUs by their slot.", .default("PCI_BUS_ID").passed("tasks");
    ["CLEARML_DOCKER_SKIP_GPUS_FLAG", "TRAINS_DOCKER_SKIP_GPUS_FLAG"], Flag, "Do not give --gpus to docker.",
        .presence();
    ["ROCM_PATH"], Path, "Folder of ROCm.", .default("/opt/rocm");
    ["CUDA_PATH"], Path, "Folder of CUDA on Windows, also as CUDA_PATH_V11_8 and the like.",
        .ignored("the daemon runs on Linux only");
    ["HIP_VISIBLE_DEVICES"], Text, "GPUs of AMD that programs see.";
    ["ROCR_VISIBLE_DEVICES"], Text, "GPUs of AMD that the ROCm runtime sees.";
}

variables_table! { GIT:
    ["CLEARML_AGENT_GIT_CLONE_VERBOSE"], Flag, "Show what git clone does.", .strict().default("false");
    ["GIT_TERMINAL_PROMPT"], Text, "Set to 0 for git, so that it never waits for an answer.", .passed("git");
    ["GIT_SSH_COMMAND"], Text, "Set for git, unless it is set already, so that ssh never waits for an answer.", .passed("git");
    ["GIT_ASKPASS"], Text, "Set for git where credentials are handed over.", .passed("git");
    ["AZURE_PAT_HEADER_VALUE"], Text, "Set for git where a header with a token is handed over.", .secret().passed("git");
    ["SSH_AUTH_SOCK"], Path, "Socket of the SSH agent, mounted into containers instead of keys.";
}

variables_table! { CONTAINERS:
    ["CLEARML_DOCKER_IMAGE", "TRAINS_DOCKER_IMAGE"], Text, "Image and arguments for --docker without a value.";
    ["CLEARML_AGENT_EXTRA_DOCKER_LABELS"], List, "Labels of containers.", .strict();
    ["CLEARML_AGENT_DOCKER_ARGS_HIDE_ENV"], List, "Variables of container commands that are not shown.";
    ["CLEARML_AGENT_K8S_HOST_MOUNT", "TRAINS_AGENT_K8S_HOST_MOUNT"], Text,
        "A folder of the host and where this container has it, for containers beside it.";
    ["CLEARML_AGENT_DOCKER_HOST_MOUNT", "TRAINS_AGENT_DOCKER_HOST_MOUNT"], Text, "The same, outside of Kubernetes.";
    ["CLEARML_AGENT_FORCE_HOST_MACHINE_IP"], Text, "Address of the host that containers are told.";
    ["CLEARML_AGENT_FORCE_SYSTEM_SITE_PACKAGES"], Flag, "In containers, let virtual environments see the image's packages.",
        .strict().default("true");
    ["CLEARML_AGENT_STANDALONE_CONFIG_BC"], Flag, "In standalone containers, drop the version of pip.", .strict();
    ["FORCE_CLEARML_AGENT_REPO", "CLEARML_AGENT_DOCKER_AGENT_REPO"], Text,
        "What pip installs as agent in containers, to run the tasks instead of this program.";
    ["FORCE_LOCAL_CLEARML_AGENT_WHEEL"], Path, "Wheel that is installed so, before any other.";
    ["CLEARML_APT_INSTALL", "TRAINS_APT_INSTALL"], Text, "In containers: more packages to install with apt.";
    ["KUBERNETES_SERVICE_HOST"], Flag, "Set in pods, where GPUs are not chosen by the agent.", .presence();
    ["KUBERNETES_PORT"], Flag, "Set in pods as well.", .presence();
}

variables_table! { EXECUTION:
    ["CLEARML_AGENT_SKIP_PIP_VENV_INSTALL"], Text,
        "true: build no virtual environment; a path: use that interpreter as it is.";
    ["CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL"], Flag, "Leave the Python environment as it is, install nothing.", .strict().default("false");
    ["CLEARML_AGENT_FORCE_POETRY"], Flag, "Use Poetry whatever agent.package_manager.type says.", .strict();
    ["CLEARML_AGENT_FORCE_UV"], Flag, "Use uv whatever agent.package_manager.type says.", .strict();
    ["CLEARML_BOOTSTRAP_UV_EXEC"], Path, "The uv program to use.";
    ["CLEARML_CONDA_ENV_PACKAGE", "TRAINS_CONDA_ENV_PACKAGE"], Path, "A conda environment to run in, a folder or an archive.";
    ["CLEARML_AGENT_FORCE_CODE_DIR"], Path, "Run the code in this folder instead of cloning.";
    ["CLEARML_AGENT_FORCE_EXEC_SCRIPT"], Text, "Run this script instead of the task's: [folder:]script.";
    ["CLEARML_AGENT_FORCE_TASK_INIT"], Flag, "Add Task.init to the script.", .strict();
    ["CLEARML_AGENT_EXEC_USER", "TRAINS_AGENT_EXEC_USER"], Text, "Run the task as this user.";
    ["CLEARML_AGENT_EXTRA_PYTHON_PATH", "TRAINS_AGENT_EXTRA_PYTHON_PATH"], Text, "Added to the end of PYTHONPATH.";
    ["CLEARML_AGENT_CUSTOM_BUILD_SCRIPT"], Path, "Used where agent.custom_build_script is empty.";
    ["CLEARML_MULTI_NODE_SINGLE_TASK"], Integer(-1),
        "How several nodes report one task: -1 the first alone, 1 a graph each, 2 a series each.", .default("0");
    ["RANK", "SLURM_PROCID"], Integer(0), "Number of this node among several that run one task.", .default("0");
    ["VIRTUAL_ENV"], Path, "The virtual environment that is active; in a container, packages may go into it.";
    ["CONDA_PREFIX"], Path, "The conda environment that is active.";
    ["SHELL"], Path, "Interpreter of shell tasks.", .default("/bin/bash, else /bin/sh");
    ["UV_CACHE_DIR"], Path, "Cache of uv; set for uv unless it is set already.";
    ["UV_INDEX_STRATEGY"], Text, "How uv looks at several indexes; set for uv unless it is set already.";
    ["UV_PYTHON_DOWNLOADS_JSON_URL"], Text, "Where uv finds interpreters.", .passed("uv");
    ["PATH"], Text, "Where programs are looked for.";
    ["HOME"], Path, "Home folder, where clearml.conf and the caches are.";
    ["PYTHONPATH"], Text, "Begins the task's PYTHONPATH; not for pip.";
    ["PYTHONIOENCODING"], Text, "Set to utf-8 for the task where the locale is ASCII, unless it is set already.";
    ["XDG_STATE_HOME"], Path, "Where agent.state_dir is by default.";
}

variables_table! { TASK:
    ["CLEARML_TASK_ID", "TRAINS_TASK_ID"], Text, "Id of the task.", .passed("tasks");
    ["CLEARML_LOG_LEVEL", "TRAINS_LOG_LEVEL"], Text, "Log level of --log-level.", .passed("tasks");
    ["CLEARML_LOG_TASK_TO_BACKEND", "TRAINS_LOG_TASK_TO_BACKEND"], Text,
        "Set to 0: the agent reports the console, not the SDK.", .passed("tasks");
    ["TRAINS_*"], Text, "Every CLEARML_ variable by the product's old name as well.", .passed("tasks");
}

variables_table! { IN_CONTAINER:
    ["CLEARML_AGENT_SERVICE_TASK"], Text, "Set to 1 in containers of services mode.";
    ["CLEARML_AGENT_HOST_IP"], Text, "Address of the host, where ports are published.";
    ["CLEARML_BOOTSTRAP_DIR"], Text, "What the bootstrap package is told.", .no_bootstrap();
    ["CLEARML_BOOTSTRAP_CACHE_DIR"], Text, "What the bootstrap package is told.", .no_bootstrap();
    ["CLEARML_PIP_VER"], Text, "What the bootstrap package is told.", .no_bootstrap();
    ["CLEARML_AGENT_VERSION"], Text, "What the bootstrap package is told.", .no_bootstrap();
    ["CLEARML_PRE_CUSTOM_CMD"], Text, "What the bootstrap package is told.", .no_bootstrap();
    ["CLEARML_BOOTSTRAP_CUSTOM_CMD_BASE64"], Text, "What the bootstrap package is told.", .no_bootstrap();
    ["CLEARML_SKIP_GIT_INST"], Text, "What the bootstrap package is told.", .no_bootstrap();
    ["CLEARML_FORCE_STATIC_GIT_BIN"], Text, "What the bootstrap package is told.", .no_bootstrap();
    ["CLEARML_SKIP_CA_CERT_INST"], Text, "What the bootstrap package is told.", .no_bootstrap();
    ["CLEARML_PYTHON_VER"], Text, "What the bootstrap package is told.", .no_bootstrap();
    ["CLEARML_UPDATE_UV"], Text, "What the bootstrap package is told.", .no_bootstrap();
    ["SSL_CERT_FILE"], Text, "What the bootstrap package tells uv and git.", .no_bootstrap();
    ["UV_INSTALLER_GHE_BASE_URL"], Text, "What the bootstrap package tells uv and git.", .no_bootstrap();
    ["UV_INSTALLER_GITHUB_BASE_URL"], Text, "What the bootstrap package tells uv and git.", .no_bootstrap();
    ["UV_DEFAULT_INDEX"], Text, "What the bootstrap package tells uv and git.", .no_bootstrap();
    ["UV_INDEX"], Text, "What the bootstrap package tells uv and git.", .no_bootstrap();
    ["UV_NATIVE_TLS"], Text, "What the bootstrap package tells uv and git.", .no_bootstrap();
    ["UV_INSECURE_HOST"], Text, "What the bootstrap package tells uv and git.", .no_bootstrap();
    ["GIT_SSL_NO_VERIFY"], Text, "What the bootstrap package tells uv and git.", .no_bootstrap();
}

variables_table! { BUILD_SCRIPT:
    ["CLEARML_CUSTOM_BUILD_TASK_CONFIG_JSON"], Path, "File with the task.";
    ["CLEARML_TASK_SCRIPT_ENTRY"], Text, "The task's script.";
    ["CLEARML_TASK_WORKING_DIR"], Path, "The task's working folder.";
    ["CLEARML_VENV_PATH"], Path, "Where the virtual environment should be.";
    ["CLEARML_GIT_ROOT"], Path, "Root of the repository.";
    ["CLEARML_CUSTOM_BUILD_OUTPUT"], Path, "File for the script's answer.";
}

variables_table! { CLUSTERS:
    ["CLEARML_K8S_GLUE_KIND"], Choice(&["pod", "job"]), "Run tasks as pods or as jobs.", .default("pod").later("Kubernetes");
    ["CLEARML_K8S_GLUE_START_AGENT_SCRIPT_PATH"], Text, "Where the start script is in the pod.",
        .default("~/__start_agent__.sh").later("Kubernetes");
    ["K8S_GLUE_DEF_EXEC_AGENT_ARGS"], Text, "Arguments of execute in the pod.",
        .default("--full-monitoring --require-queue").later("Kubernetes");
    ["K8S_GLUE_POD_AGENT_INSTALL_ARGS"], Text, "Added to what is installed as agent in the pod.", .later("Kubernetes");
    ["K8S_GLUE_POD_MONITOR_LOG_BATCH_SIZE"], Integer(1), "Log lines reported together.", .default("5").later("Kubernetes");
    ["K8S_GLUE_POD_MONITOR_DISABLE_ENQUEUE_ON_PREEMPTION"], Flag, "Do not put tasks of preempted pods back.",
        .presence().default("false").later("Kubernetes");
    ["K8S_GLUE_POD_MONITOR_EVICTION_REASONS"], List, "Reasons of waiting for which a pod is given up.",
        .default("ImagePullBackOff InvalidImageName").later("Kubernetes");
    ["K8S_GLUE_POD_USE_IMAGE_ENTRYPOINT"], Flag, "Leave the command of the image alone.",
        .presence().default("false").later("Kubernetes");
    ["K8S_GLUE_IGNORE_KUBECTL_ERROR"], Text, "Pattern of errors of kubectl that do not matter.", .later("Kubernetes");
    ["K8S_GLUE_DEFAULT_SCHEDULER_QUEUE_TAGS"], List, "Tags of queues that the scheduler makes.",
        .default("k8s-glue").later("Kubernetes");
    ["K8S_GLUE_COMPLETED_POD_DELETION_DELAY_MINUTES"], Number(0.0), "Minutes for which ended pods are kept.",
        .default("0").later("Kubernetes");
    ["CLEARML_AGENT_NO_UPDATE"], Flag, "In pods and images: do not install the agent.", .presence().later("Kubernetes");
    ["CLEARML_AGENT_SKIP_CONTAINER_APT"], Flag, "In pods: install nothing with apt.", .presence().later("Kubernetes");
    ["CLEARML_K8S_GLUE_TEMPLATE_MODULE"], Text, "Python function that changes templates.", .later("Kubernetes");
    ["CLEARML_K8S_GLUE_MONITOR_ALL_NAMESPACES"], Flag, "Watch the pods of all namespaces.", .later("Kubernetes");
    ["CLEARML_K8S_GLUE_POD_PRE_APPLY_CMD"], Text, "Command before a pod is made.", .later("Kubernetes");
    ["CLEARML_K8S_GLUE_POD_POST_DELETE_CMD"], Text, "Command after a pod was removed.", .later("Kubernetes");
    ["CLEARML_K8S_GLUE_COND_CUST_TEMPLATE"], Text, "Changes of the template for certain tasks.", .later("Kubernetes");
    ["NODE_RANK"], Integer(0), "Number of this pod among several.", .later("Kubernetes");
    ["WORLD_SIZE"], Integer(1), "Number of pods of one task.", .later("Kubernetes");
    ["MASTER_ADDR"], Text, "Address of the first pod.", .later("Kubernetes");
    ["MASTER_PORT"], Port, "Port of the first pod.", .default("29500").later("Kubernetes");
    ["CLEARML_SLURM_GLUE_DEBUG"], Flag, "Show more of what the Slurm glue does.", .presence();
    ["CLEARML_PRE_SETUP"], Text, "First part of batch scripts, filled in by the Slurm glue.";
    ["CLEARML_AGENT_EXECUTE"], Text, "Middle part of batch scripts, filled in by the Slurm glue.";
    ["CLEARML_POST_SETUP"], Text, "Last part of batch scripts, filled in by the Slurm glue.";
}

variables_table! { METERING:
    ["CLEARML_AGENT_SNUG_DEBUG_LOG"], Flag, "Log what is metered.", .no_metering();
    ["CLEARML_SNUG_SHIM_PATH"], Path, "Library that meters.", .no_metering();
    ["CLEARML_SNUG_PROXY_PATH"], Path, "Program that meters.", .no_metering();
    ["CLEARML_SNUG_*"], Text, "What that library is told.", .no_metering();
    ["CLEARML_PROJECT_ID"], Text, "Project of a metered task.", .no_metering();
    ["LD_PRELOAD"], Text, "How that library is loaded.", .no_metering();
    ["DYLD_INSERT_LIBRARIES"], Text, "How that library is loaded on macOS.", .no_metering();
}

variables_table! { IMAGES:
    ["CLEARML_AGENT_DEFAULT_BASE_DOCKER", "TRAINS_AGENT_DEFAULT_BASE_DOCKER"], Text, "Value of --docker.", .later("images of the agent itself");
    ["CLEARML_AGENT_EXTRA_ARGS", "TRAINS_AGENT_EXTRA_ARGS"], Text, "More arguments of the daemon.", .later("images of the agent itself");
    ["CLEARML_AGENT_UPDATE_VERSION", "TRAINS_AGENT_UPDATE_VERSION"], Text, "Version to install first.", .later("images of the agent itself");
    ["CLEARML_HOST_IP", "TRAINS_HOST_IP"], Text, "Address from which the servers' addresses are made.", .later("images of the agent itself");
    ["CLEARML_AGENT_UPDATE_REPO"], Text, "Source to install from first.", .later("images of the agent itself");
    ["CLEARML_AGENT_DAEMON_OPTIONS"], Text, "Arguments of the daemon.", .later("images of the agent itself");
    ["CLEARML_AGENT_QUEUES"], Text, "Queues of the daemon.", .later("images of the agent itself");
    ["CLEARML_AGENT_NO_DOCKER"], Flag, "Run tasks without containers.", .presence().later("images of the agent itself");
    ["PIP_UPDATE_VERSION"], Text, "Version of pip to install first.", .later("images of the agent itself");
    ["SHUTDOWN_IF_NO_ACCESS_KEY"], Flag, "End where no access key is given.", .presence().later("images of the agent itself");
    ["K8S_GLUE_QUEUE"], Text, "Queue of the Kubernetes glue.", .later("images of the agent itself");
    ["K8S_GLUE_MAX_PODS"], Integer(1), "Most pods at a time.", .later("images of the agent itself");
    ["K8S_GLUE_EXTRA_ARGS"], Text, "More arguments of the Kubernetes glue.", .later("images of the agent itself");
    ["K8S_DEFAULT_NAMESPACE"], Text, "Namespace for pods; nobody reads it.", .ignored("nobody ever read it");
}
