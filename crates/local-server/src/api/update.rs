//! The reply of a changing call, collected while the change is made: how many objects, and which fields now hold what.

use serde_json::{Map, Value, json};

/// Fields that a call has changed, by name; single nested fields have dotted names.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    fields: Map<String, Value>,
}

impl Changes {
    /// Stores a top-level field and remembers it.
    pub(crate) fn set(&mut self, doc: &mut Value, name: &str, value: impl Into<Value>) {
        let value = value.into();
        doc[name] = value.clone();
        self.fields.insert(name.to_owned(), value);
    }

    /// Remembers a change made elsewhere.
    pub(crate) fn note(&mut self, name: &str, value: impl Into<Value>) {
        self.fields.insert(name.to_owned(), value.into());
    }

    /// How many fields have changed so far.
    pub(crate) fn len(&self) -> usize {
        self.fields.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// `{updated, fields}`; nothing changed means that nothing was updated.
    pub(crate) fn reply(self) -> Map<String, Value> {
        let mut reply = Map::new();
        reply.insert("updated".to_owned(), json!(i32::from(!self.fields.is_empty())));
        reply.insert("fields".to_owned(), Value::Object(self.fields));
        reply
    }
}

/// Removes a top-level field.
pub(crate) fn unset(doc: &mut Value, name: &str) {
    if let Value::Object(map) = doc {
        map.shift_remove(name);
    }
}

/// A text field of a document.
pub(crate) fn text<'a>(doc: &'a Value, name: &str) -> Option<&'a str> {
    doc.get(name).and_then(Value::as_str)
}

/// Sorted tags without doubles. Tags that look like selection operators are refused (400/16).
pub(crate) fn tags(list: Vec<String>) -> Result<Value, super::ApiFault> {
    if let Some(bad) = list.iter().find(|tag| tag.starts_with("__$")) {
        return Err(super::ApiFault::bad_value(format!(
            "tags may not begin with '__$': {bad}"
        )));
    }
    let sorted: std::collections::BTreeSet<String> = list.into_iter().collect();
    Ok(json!(sorted))
}

/// Whether a list field holds a text.
pub(crate) fn has_tag(doc: &Value, field: &str, tag: &str) -> bool {
    doc.get(field)
        .and_then(Value::as_array)
        .is_some_and(|tags| tags.iter().any(|found| found == tag))
}
