//! Keys of the `api` section, and the keys of `sdk` that environment variables set.

use super::DefaultValue::{Computed, Internal, Packaged, Unset};
use super::{Declaration, Kind};

const fn key(key: &'static str, kind: Kind, default: super::DefaultValue, doc: &'static str) -> Declaration {
    Declaration::new(key, kind, default, doc)
}

/// The table.
pub(super) const KEYS: &[Declaration] = &[
    key("api.api_server", Kind::Text, Unset, "URL of the API server.")
        .variables(&["CLEARML_API_HOST", "TRAINS_API_HOST"]),
    key(
        "api.host",
        Kind::Text,
        Computed("api.api_server"),
        "Old name of api.api_server, used where that is unset.",
    ),
    key(
        "api.web_server",
        Kind::Text,
        Computed("api.api_server with port 8080 for 8008, app. for api."),
        "URL of the web pages.",
    )
    .variables(&["CLEARML_WEB_HOST", "TRAINS_WEB_HOST"]),
    key(
        "api.files_server",
        Kind::Text,
        Computed("api.api_server with port 8081 for 8008, files. for api."),
        "URL of the file server.",
    )
    .variables(&["CLEARML_FILES_HOST", "TRAINS_FILES_HOST"]),
    key(
        "api.credentials.access_key",
        Kind::Text,
        Unset,
        "Access key of the agent's user.",
    )
    .variables(&["CLEARML_API_ACCESS_KEY", "TRAINS_API_ACCESS_KEY"]),
    key(
        "api.credentials.secret_key",
        Kind::Text,
        Unset,
        "Secret that belongs to the access key.",
    )
    .variables(&["CLEARML_API_SECRET_KEY", "TRAINS_API_SECRET_KEY"])
    .secret(),
    key(
        "api.verify_certificate",
        Kind::Verify,
        Packaged("true"),
        "Check the server's certificate, against the given file if it is a path.",
    )
    .variables(&["CLEARML_API_HOST_VERIFY_CERT", "TRAINS_API_HOST_VERIFY_CERT"]),
    key(
        "api.http.default_method",
        Kind::Choice(&["get", "post", "put"]),
        Internal("\"post\""),
        "HTTP method of API calls.",
    )
    .variables(&["CLEARML_API_DEFAULT_REQ_METHOD", "TRAINS_API_DEFAULT_REQ_METHOD"])
    .strict(),
    key(
        "api.http.max_req_size",
        Kind::Integer(1),
        Packaged("15728640"),
        "Most bytes of one request; larger batches are divided.",
    ),
    key(
        "api.http.retries.backoff_factor",
        Kind::Number(0.0),
        Packaged("1.0"),
        "Seconds that the pauses between attempts grow from.",
    ),
    key(
        "api.http.retries.backoff_max",
        Kind::Number(0.0),
        Packaged("120.0"),
        "Longest pause between attempts, in seconds.",
    ),
    key(
        "api.http.wait_on_maintenance_forever",
        Kind::Flag,
        Packaged("true"),
        "Go on trying while the server says that it is unavailable.",
    ),
    key(
        "api.auth.token_expiration_threshold_sec",
        Kind::Integer(0),
        Packaged("43200"),
        "Renew the session token when it has less than this many seconds left.",
    ),
    key(
        "api.auth.request_token_expiration_sec",
        Kind::Integer(1),
        Unset,
        "Seconds of life to ask for in a session token.",
    ),
    key(
        "sdk.aws.s3.key",
        Kind::Text,
        Packaged("\"\""),
        "Access key for S3.",
    )
    .variables(&["AWS_ACCESS_KEY_ID"]),
    key(
        "sdk.aws.s3.secret",
        Kind::Text,
        Packaged("\"\""),
        "Secret key for S3.",
    )
    .variables(&["AWS_SECRET_ACCESS_KEY"])
    .secret(),
    key(
        "sdk.aws.s3.region",
        Kind::Text,
        Packaged("\"\""),
        "Region for S3.",
    )
    .variables(&["AWS_DEFAULT_REGION"]),
    key(
        "sdk.google.storage.credentials_json",
        Kind::Text,
        Unset,
        "Credentials file for Google storage.",
    )
    .variables(&["GOOGLE_APPLICATION_CREDENTIALS"]),
];
