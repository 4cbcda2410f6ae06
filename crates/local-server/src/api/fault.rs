//! The error replies of the API: an HTTP status, a subcode that clients react to, and a message for people.

use serde_json::{Map, Value};

/// One error reply. `code` is both the HTTP status and `meta.result_code`.
#[derive(Debug, Clone)]
pub(crate) struct ApiFault {
    pub(crate) code: u16,
    pub(crate) subcode: u32,
    pub(crate) msg: String,
    /// `meta.error_data`, and `error.data` in batch replies.
    pub(crate) data: Map<String, Value>,
}

impl ApiFault {
    pub(crate) fn new(code: u16, subcode: u32, msg: impl Into<String>) -> Self {
        Self {
            code,
            subcode,
            msg: msg.into(),
            data: Map::new(),
        }
    }

    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.data.insert(key.to_owned(), value.into());
        self
    }

    pub(crate) fn bad_request(msg: impl Into<String>) -> Self {
        Self::new(400, 0, msg)
    }

    /// 400/12: a declared field is missing, has the wrong type, or a value that is not allowed.
    pub(crate) fn validation(msg: impl Into<String>) -> Self {
        Self::new(400, 12, format!("Validation error ({})", msg.into()))
    }

    pub(crate) fn missing_field(name: &str) -> Self {
        Self::validation(format!("field '{name}' is required")).with("field", name)
    }

    /// 400/11: as `missing_field`, for the few endpoints that announce it this way.
    pub(crate) fn missing_fields(name: &str) -> Self {
        Self::new(400, 11, format!("Missing fields: field={name}")).with("field", name)
    }

    /// 400/14: a field that does not exist, in a projection or an ordering.
    pub(crate) fn unknown_field(name: &str) -> Self {
        Self::new(400, 14, format!("Field does not exist: field={name}")).with("field", name)
    }

    pub(crate) fn bad_value(msg: impl Into<String>) -> Self {
        Self::new(400, 16, format!("Bad value ({})", msg.into()))
    }

    pub(crate) fn bad_regex(pattern: &str) -> Self {
        Self::new(400, 21, format!("Invalid regular expression: pattern={pattern}"))
    }

    pub(crate) fn invalid_task_id(id: &str) -> Self {
        Self::new(400, 101, format!("Invalid task id: id={id}")).with("id", id)
    }

    /// 400/110: the transition or edit is not legal in this status.
    pub(crate) fn invalid_task_status(detail: impl Into<String>) -> Self {
        Self::new(400, 110, format!("Invalid task status ({})", detail.into()))
    }

    pub(crate) fn invalid_model_id(id: &str) -> Self {
        Self::new(400, 201, format!("Invalid model id: id={id}")).with("id", id)
    }

    pub(crate) fn invalid_project_id(id: &str) -> Self {
        Self::new(400, 401, format!("Invalid project id: id={id}")).with("id", id)
    }

    pub(crate) fn invalid_queue_id(id: &str) -> Self {
        Self::new(400, 701, format!("Invalid queue id: id={id}")).with("id", id)
    }

    /// 400/800: the object cannot be stored as it is (a name that is too short, a bad choice).
    pub(crate) fn unstorable(msg: impl Into<String>) -> Self {
        Self::new(400, 800, format!("Data validation error ({})", msg.into()))
    }

    /// 400/801: another object has this unique value already.
    pub(crate) fn not_unique(field: &str, value: &str) -> Self {
        Self::new(
            400,
            801,
            format!(
                "Value combination already exists (unique field already contains this value): {field}={value}"
            ),
        )
    }

    pub(crate) fn internal(msg: impl Into<String>) -> Self {
        Self::new(500, 100, format!("Data error ({})", msg.into()))
    }
}

impl From<rusqlite::Error> for ApiFault {
    fn from(error: rusqlite::Error) -> Self {
        Self::internal(format!("the storage refused the operation: {error}"))
    }
}

impl From<serde_json::Error> for ApiFault {
    fn from(error: serde_json::Error) -> Self {
        Self::internal(format!("a stored document is not valid JSON: {error}"))
    }
}
