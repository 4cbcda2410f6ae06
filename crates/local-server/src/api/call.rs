//! One call as a handler sees it: the merged request data with typed access, and who asks.
//!
//! `null` counts as absent everywhere, because clients send nulls for options they leave alone.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::fault::ApiFault;
use crate::http::path::Version;
use crate::server::Shared;

/// Who makes the call.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) user: String,
    pub(crate) user_name: String,
    pub(crate) company: String,
    pub(crate) company_name: String,
    pub(crate) role: String,
    /// Session of the bearer token, when there is one: what `auth.logout` revokes.
    pub(crate) session: Option<String>,
    /// Access key, when the call came with a key pair.
    pub(crate) access_key: Option<String>,
}

/// One request, parsed and authenticated.
pub(crate) struct Call {
    pub(crate) endpoint: &'static str,
    /// Body with the query string merged over it.
    pub(crate) data: Map<String, Value>,
    /// The lines of an `application/json-lines` body, every one an object.
    pub(crate) lines: Option<Vec<Value>>,
    /// The requested API version, which shapes requests and replies.
    pub(crate) version: Version,
    pub(crate) user: Identity,
    /// `X-ClearML-Worker`.
    pub(crate) worker_header: Option<String>,
    /// Milliseconds since the epoch; the only clock that a handler may use.
    pub(crate) now: i64,
    pub(crate) remote_ip: Option<IpAddr>,
    pub(crate) server: Arc<Shared>,
}

impl Call {
    /// The value of a field, unless it is absent or null.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.data.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn required(&self, name: &str) -> Result<&Value, ApiFault> {
        self.get(name).ok_or_else(|| ApiFault::missing_field(name))
    }

    pub(crate) fn opt_str(&self, name: &str) -> Result<Option<&str>, ApiFault> {
        self.typed(name, "string", Value::as_str)
    }

    pub(crate) fn required_str(&self, name: &str) -> Result<&str, ApiFault> {
        self.opt_str(name)?.ok_or_else(|| ApiFault::missing_field(name))
    }

    /// A boolean; the integers 0 and 1 count, because query strings produce them.
    pub(crate) fn opt_bool(&self, name: &str) -> Result<Option<bool>, ApiFault> {
        self.typed(name, "boolean", |value| match value {
            Value::Number(number) => number.as_i64().map(|number| number != 0),
            other => other.as_bool(),
        })
    }

    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool, ApiFault> {
        Ok(self.opt_bool(name)?.unwrap_or(default))
    }

    /// An integer; a float without fraction counts.
    pub(crate) fn opt_i64(&self, name: &str) -> Result<Option<i64>, ApiFault> {
        self.typed(name, "integer", as_integer)
    }

    pub(crate) fn required_i64(&self, name: &str) -> Result<i64, ApiFault> {
        self.opt_i64(name)?.ok_or_else(|| ApiFault::missing_field(name))
    }

    pub(crate) fn opt_object(&self, name: &str) -> Result<Option<&Map<String, Value>>, ApiFault> {
        self.typed(name, "object", Value::as_object)
    }

    pub(crate) fn opt_list(&self, name: &str) -> Result<Option<&Vec<Value>>, ApiFault> {
        self.typed(name, "list", Value::as_array)
    }

    /// A list of strings; a single string counts as a list of one.
    pub(crate) fn opt_strings(&self, name: &str) -> Result<Option<Vec<String>>, ApiFault> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(one)) => Ok(Some(vec![one.clone()])),
            Some(Value::Array(many)) => many
                .iter()
                .map(|item| {
                    item.as_str()
                        .map(str::to_owned)
                        .ok_or_else(|| wrong_type(name, "list of strings"))
                })
                .collect::<Result<_, _>>()
                .map(Some),
            Some(_) => Err(wrong_type(name, "list of strings")),
        }
    }

    /// A list of at least one string: the `ids` of batch calls, the `tasks` of reading calls.
    pub(crate) fn required_strings(&self, name: &str) -> Result<Vec<String>, ApiFault> {
        match self.opt_strings(name)? {
            None => Err(ApiFault::missing_field(name)),
            Some(list) if list.is_empty() => Err(ApiFault::validation(format!(
                "field '{name}' needs at least one item"
            ))
            .with("field", name)),
            Some(list) => Ok(list),
        }
    }

    /// This call with other data, for handlers built on other handlers (the `*_many` family).
    pub(crate) fn with_data(&self, data: Map<String, Value>) -> Self {
        Self {
            endpoint: self.endpoint,
            data,
            lines: None,
            version: self.version,
            user: self.user.clone(),
            worker_header: self.worker_header.clone(),
            now: self.now,
            remote_ip: self.remote_ip,
            server: Arc::clone(&self.server),
        }
    }

    fn typed<'a, T>(
        &'a self,
        name: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ApiFault> {
        self.get(name)
            .map(|value| read(value).ok_or_else(|| wrong_type(name, expected)))
            .transpose()
    }
}

/// An integer out of JSON; a float without fraction counts.
pub(crate) fn as_integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let number = value.as_f64()?;
        #[expect(clippy::cast_possible_truncation, reason = "the range is checked first")]
        (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
    })
}

pub(crate) fn wrong_type(name: &str, expected: &str) -> ApiFault {
    ApiFault::validation(format!("field '{name}' must be of type {expected}")).with("field", name)
}
