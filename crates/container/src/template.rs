//! `${CLEARML_…}` in container arguments.
//!
//! What may stand there: single values such as `${CLEARML_QUEUE_NAME}`, paths such as
//! `${CLEARML_TASK.hyperparams.properties.x.value}`, a default after a colon, and filters after bars:
//! `strip(…)`, `capitalize`, `lower`, `remove_newlines`, `raw`. What is unknown or empty and has no default
//! stays as it is written, and so does what leads to something without a text, or past it. Values come from tasks, so each one stays inside the word it stands in. Pure.

use serde_json::Value;

/// The longest value that is put in.
const MAX_VALUE: usize = 64 << 10;

/// Answers for a name without its prefix `CLEARML_`: a single name, or the path after `TASK`, `USER`, …. An object says
/// that the name leads nowhere, so that no default takes its place.
pub type Lookup<'a> = dyn Fn(&str) -> Option<Value> + 'a;

/// Fills the references in one word.
#[must_use]
pub fn fill(word: &str, lookup: &Lookup<'_>) -> String {
    let mut filled = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(at) = rest.find("${CLEARML_") {
        filled.push_str(&rest[..at]);
        let reference = &rest[at..];
        let Some(end) = reference.find('}') else {
            filled.push_str(reference);
            return filled;
        };
        let inner = &reference["${CLEARML_".len()..end];
        match value(inner, lookup) {
            Some(value) => filled.push_str(&value),
            None => filled.push_str(&reference[..=end]),
        }
        rest = &reference[end + 1..];
    }
    filled + rest
}

fn value(inner: &str, lookup: &Lookup<'_>) -> Option<String> {
    let (reference, filters) = split_filters(inner);
    let (name, default) = match reference.split_once(':') {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    let word = |text: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
    };
    if !word(name) {
        return None;
    }
    let found = match lookup(name) {
        None | Some(Value::Null) => None,
        Some(value) => Some(text(&value)?),
    };
    let mut text = found
        .filter(|text| !text.is_empty())
        .or_else(|| default.map(str::to_owned))?;
    let raw = filters.contains(&"raw");
    for filter in filters {
        text = apply(filter, text)?;
    }
    if !raw {
        text.retain(|c| c != '\n' && c != '\r');
    }
    text.retain(|c| c != '\0');
    (text.len() <= MAX_VALUE).then_some(text)
}

/// Bars inside of parentheses belong to an argument.
fn split_filters(inner: &str) -> (&str, Vec<&str>) {
    let mut parts = Vec::new();
    let (mut depth, mut begin) = (0_usize, 0);
    for (at, c) in inner.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => {
                parts.push(&inner[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[begin..]);
    let reference = parts.remove(0);
    (reference, parts)
}

/// `None` for a filter that does not exist.
fn apply(filter: &str, text: String) -> Option<String> {
    Some(match filter.trim() {
        "lower" => text.to_lowercase(),
        "capitalize" => {
            let mut letters = text.chars();
            let first = letters
                .next()
                .map(|c| c.to_uppercase().to_string())
                .unwrap_or_default();
            first + &letters.as_str().to_lowercase()
        }
        "remove_newlines" => text.replace(['\n', '\r'], ""),
        "raw" => text,
        "strip" => text.trim().to_owned(),
        other => {
            let set = other
                .strip_prefix("strip(")?
                .strip_suffix(')')?
                .trim_matches(['"', '\'']);
            if set.is_empty() {
                text.trim().to_owned()
            } else {
                text.trim_matches(|c| set.contains(c)).to_owned()
            }
        }
    })
}

/// Scalars, and lists of scalars joined by commas; a structure has no text.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Array(items) => {
            let items: Option<Vec<String>> = items
                .iter()
                .map(|item| if item.is_array() { None } else { text(item) })
                .collect();
            Some(items?.join(","))
        }
        Value::Null | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_defaults_and_filters() {
        let lookup = |name: &str| match name {
            "QUEUE_NAME" => Some(json!("Deep Learning")),
            "TASK.tags" => Some(json!(["a", 1, true])),
            "TASK.empty" => Some(json!("")),
            "TASK.lines" => Some(json!(" a\nb ")),
            "TASK.object" => Some(json!({"a": 1})),
            "TASK.null" => Some(json!(null)),
            _ => None,
        };
        for (word, expected) in [
            ("--name=${CLEARML_QUEUE_NAME}", "--name=Deep Learning"),
            ("${CLEARML_QUEUE_NAME|lower}", "deep learning"),
            ("${CLEARML_QUEUE_NAME|strip(Dg)|capitalize}", "Eep learnin"),
            ("${CLEARML_TASK.tags}", "a,1,true"),
            ("${CLEARML_TASK.empty}", "${CLEARML_TASK.empty}"),
            ("${CLEARML_TASK.empty:8g}/${CLEARML_NONE:x}", "8g/x"),
            ("${CLEARML_TASK.lines}", " ab "),
            ("${CLEARML_TASK.lines|strip}", "ab"),
            ("${CLEARML_TASK.lines|raw}", " a\nb "),
            ("${CLEARML_TASK.object}", "${CLEARML_TASK.object}"),
            ("${CLEARML_TASK.object:x}", "${CLEARML_TASK.object:x}"),
            ("${CLEARML_TASK.null:x}", "x"),
            ("${CLEARML_TASK.tags|unknown}", "${CLEARML_TASK.tags|unknown}"),
            (
                "${HOME}${CLEARML_}${CLEARML_TASK.tags",
                "${HOME}${CLEARML_}${CLEARML_TASK.tags",
            ),
            ("${CLEARML_NONE:${CLEARML_QUEUE_NAME}}", "${CLEARML_QUEUE_NAME}"),
        ] {
            assert_eq!(fill(word, &lookup), expected, "{word}");
        }
    }

    #[test]
    fn a_value_is_not_read_again() {
        let lookup = |_: &str| Some(json!("${CLEARML_A}${CLEARML_A}"));
        assert_eq!(fill("${CLEARML_A}", &lookup), "${CLEARML_A}${CLEARML_A}");
    }

    proptest::proptest! {
        #[test]
        fn any_text_ends(word in "(\\$\\{CLEARML_|[A-Z.:|(){}]|\\PC){0,40}", value in "\\PC{0,9}") {
            let filled = fill(&word, &|_| Some(json!(value)));
            proptest::prop_assert!(filled.len() <= word.len() * (value.len() * 3 + 1) + 1);
        }
    }
}
