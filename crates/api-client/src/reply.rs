//! Shapes that replies of several services share.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// Reply data that nobody reads.
#[derive(Deserialize)]
pub(crate) struct Nothing {}

/// Reads `null` like a missing field: servers leave fields out, gateways and old servers send the null.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
pub(crate) fn is_false(value: &bool) -> bool {
    !*value
}

/// What a write changed. After a repetition that found the write already done, all is empty.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Updated {
    /// Number of changed objects.
    pub updated: u64,
    /// Changed fields and their new values.
    #[serde(deserialize_with = "null_as_default")]
    pub fields: Map<String, Value>,
    /// Everything else, such as `queued` or `dequeued`.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What became of a call about many objects. The call succeeds also when every object was refused.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct BatchOutcome {
    /// The objects that were changed.
    #[serde(deserialize_with = "null_as_default")]
    pub succeeded: Vec<BatchItem>,
    /// The objects that were not.
    #[serde(deserialize_with = "null_as_default")]
    pub failed: Vec<BatchFailure>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// An object that a call about many changed.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct BatchItem {
    /// The object.
    pub id: String,
    /// What the call about this object alone would have answered.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// An object that a call about many did not change, and why.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct BatchFailure {
    /// The object.
    pub id: String,
    /// Why.
    pub error: BatchError,
}

impl BatchFailure {
    /// `(code, subcode)`, as the call about this object alone would have answered.
    #[must_use]
    pub fn code(&self) -> Option<(u16, u32)> {
        let [code, subcode] = self.error.codes[..] else {
            return None;
        };
        Some((u16::try_from(code).ok()?, subcode))
    }
}

/// Why an object was not changed.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct BatchError {
    /// Code and subcode.
    #[serde(deserialize_with = "null_as_default")]
    pub codes: Vec<u32>,
    /// For people.
    #[serde(deserialize_with = "null_as_default")]
    pub msg: String,
    /// Details.
    pub data: Value,
}

/// A reference to an object with its name.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Named {
    /// Id.
    pub id: Option<String>,
    /// Name, when the object still exists.
    pub name: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Free data of a queue or model, by key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct MetadataItem {
    /// Name.
    pub key: String,
    /// Type, for display.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Value; always text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}
