//! Environment variables that stand for no configuration key.

use super::{Kind, Variable};

const fn variable(names: &'static [&'static str], kind: Kind, doc: &'static str) -> Variable {
    Variable {
        names,
        kind,
        doc,
        secret: false,
        strict: false,
    }
}

/// The table.
pub(super) const VARIABLES: &[Variable] = &[
    variable(
        &["CLEARML_CONFIG_FILE", "TRAINS_CONFIG_FILE"],
        Kind::Path,
        "The configuration file to read instead of ~/clearml.conf.",
    ),
    variable(
        &["CLEARML_CONFIG_PATH", "TRAINS_CONFIG_PATH"],
        Kind::Path,
        "A folder of configuration files that are read first.",
    ),
    variable(
        &["TRAINS_ENV"],
        Kind::Choice(&["default", "demo", "local"]),
        "Which part of that folder is read besides its default part.",
    ),
    Variable {
        secret: true,
        ..variable(
            &["CLEARML_AUTH_TOKEN"],
            Kind::Text,
            "Session token used instead of access and secret key.",
        )
    },
    variable(
        &["CLEARML_API_VERBOSE", "TRAINS_API_VERBOSE"],
        Kind::Flag,
        "Log renewals of the session token.",
    ),
    variable(
        &["CLEARML_AGENT_INITIAL_CONNECT_RETRY_OVERRIDE"],
        Kind::Text,
        "Attempts to connect at the start; false tries as often as later.",
    ),
    variable(
        &["CLEARML_AGENT_FORCE_MAX_API_VERSION"],
        Kind::Text,
        "Use no newer API version than this.",
    ),
    variable(&["CLEARML_WORKER_TAGS"], Kind::List, "Tags of the worker."),
    Variable {
        strict: true,
        ..variable(
            &["CLEARML_AGENT_QUEUE_POLL_FREQ_SEC"],
            Kind::Number(0.1),
            "Seconds between looks at the queues; wins over --polling-interval.",
        )
    },
    variable(
        &["CLEARML_AGENT_TEMP_STDOUT_FILE_DIR"],
        Kind::Path,
        "Folder of logs and temporary files.",
    ),
    Variable {
        strict: true,
        ..variable(
            &["CLEARML_AGENT_GIT_CLONE_VERBOSE"],
            Kind::Flag,
            "Show what git clone does.",
        )
    },
    variable(
        &["CLEARML_AGENT_SKIP_PIP_VENV_INSTALL"],
        Kind::Text,
        "true: build no virtual environment; a path: use that interpreter as it is.",
    ),
    Variable {
        strict: true,
        ..variable(
            &["CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL"],
            Kind::Flag,
            "Leave the Python environment as it is, install nothing.",
        )
    },
    variable(
        &["CLEARML_AGENT_FORCE_CODE_DIR"],
        Kind::Path,
        "Run the code in this folder instead of cloning.",
    ),
    variable(
        &["CLEARML_AGENT_FORCE_EXEC_SCRIPT"],
        Kind::Text,
        "Run this script instead of the task's: [folder:]script.",
    ),
    variable(
        &[
            "CLEARML_AGENT_EXTRA_PYTHON_PATH",
            "TRAINS_AGENT_EXTRA_PYTHON_PATH",
        ],
        Kind::Text,
        "Added to the end of PYTHONPATH.",
    ),
];
