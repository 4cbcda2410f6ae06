//! Dotted property paths such as `hyperparams.properties.num_nodes.value`.
//!
//! A dot separates segments; a dot that belongs to a name is written `%2E`, and a literal `%2E` as
//! `%252E`, which is how the ClearML API writes such names in `only_fields`.

use serde_json::{Map, Value};

/// A path could not be followed for writing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The path is empty or has an empty segment.
    #[error("property path {0:?} has an empty segment")]
    Empty(String),
    /// Something on the way is neither missing nor an object.
    #[error("property path {path:?}: {segment:?} holds a value that is not an object")]
    NotAnObject {
        /// The whole path.
        path: String,
        /// The segment whose value is in the way.
        segment: String,
    },
}

/// Splits a path into its names.
#[must_use]
pub fn segments(path: &str) -> Vec<String> {
    path.split('.').map(unescape).collect()
}

/// Writes a name as one segment of a path.
///
/// ```
/// use clearml_task_model::path;
/// assert_eq!(path::escape("lr.decay"), "lr%2Edecay");
/// ```
#[must_use]
pub fn escape(name: &str) -> String {
    name.replace("%2E", "%252E").replace('.', "%2E")
}

fn unescape(segment: &str) -> String {
    let mut out = String::with_capacity(segment.len());
    let mut rest = segment;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let tail = &rest[at..];
        let (text, used) = if tail.starts_with("%252E") {
            ("%2E", 5)
        } else if tail.starts_with("%2E") {
            (".", 3)
        } else {
            ("%", 1)
        };
        out.push_str(text);
        rest = &tail[used..];
    }
    out.push_str(rest);
    out
}

/// The value at a path; `None` when any part of it is missing. Numbers index lists.
///
/// ```
/// use clearml_task_model::path;
/// let task = serde_json::json!({"hyperparams": {"properties": {"num_nodes": {"value": "4"}}}});
/// assert_eq!(path::get(&task, "hyperparams.properties.num_nodes.value").unwrap(), "4");
/// ```
#[must_use]
pub fn get<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    segments(path).iter().try_fold(value, |here, name| match here {
        Value::Object(map) => map.get(name),
        Value::Array(list) => list.get(name.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Stores a value at a path, creating the objects on the way.
///
/// # Errors
///
/// When the path has an empty segment, or something that is not an object is in the way; the value
/// is then unchanged.
pub fn set(value: &mut Value, path: &str, new: Value) -> Result<(), PathError> {
    let names = segments(path);
    if names.iter().any(String::is_empty) {
        return Err(PathError::Empty(path.to_owned()));
    }
    // Look first, so that a refusal changes nothing.
    let mut look = Some(&*value);
    for (index, name) in names.iter().enumerate() {
        match look {
            None | Some(Value::Null) => break,
            Some(Value::Object(map)) => look = map.get(name),
            Some(_) => {
                let segment = index
                    .checked_sub(1)
                    .map_or(String::new(), |before| names[before].clone());
                return Err(PathError::NotAnObject {
                    path: path.to_owned(),
                    segment,
                });
            }
        }
    }
    let mut here = value;
    for name in names {
        if here.is_null() {
            *here = Value::Object(Map::new());
        }
        if let Value::Object(map) = here {
            here = map.entry(name).or_insert(Value::Null);
        }
    }
    *here = new;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_in_the_way_is_an_error_and_stays() {
        let mut value = json!({"a": {"b": 5}});
        let before = value.clone();
        assert_eq!(
            set(&mut value, "a.b.c", json!(1)),
            Err(PathError::NotAnObject {
                path: "a.b.c".into(),
                segment: "b".into()
            })
        );
        assert_eq!(
            set(&mut value, "a..c", json!(1)),
            Err(PathError::Empty("a..c".into()))
        );
        assert_eq!(value, before);
    }

    #[test]
    fn numbers_index_lists() {
        assert_eq!(get(&json!({"a": [{"b": 1}, {"b": 2}]}), "a.1.b"), Some(&json!(2)));
    }

    proptest! {
        #[test]
        fn what_was_set_is_found_under_any_names(names in prop::collection::vec("[a-z.%2E_ ]{1,8}", 1..5)) {
            let path = names.iter().map(|name| escape(name)).collect::<Vec<_>>().join(".");
            prop_assert_eq!(segments(&path), names);
            let mut value = json!({});
            set(&mut value, &path, json!("x")).unwrap();
            prop_assert_eq!(get(&value, &path), Some(&json!("x")));
        }
    }
}
