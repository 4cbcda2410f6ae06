//! From JSON values and environment texts to the types of the declarations.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Number, Value};

use crate::keys::{Class, Kind};

/// Most seconds that any setting accepts, so that every number of seconds fits a `Duration`.
const MAX_NUMBER: f64 = 1e15;

/// Whether a value has the type that a key wants. Null means that the key is unset.
pub(crate) fn fits(kind: Kind, value: &Value) -> bool {
    let unset = value.is_null() || value.as_str() == Some("");
    unset
        || match kind {
            Kind::Text | Kind::Path => text(value).is_some(),
            Kind::Flag => flag(value).is_some(),
            Kind::Integer(least) => integer(value).is_some_and(|number| number >= least),
            Kind::Port => integer(value).is_some_and(|number| (1..=65535).contains(&number)),
            Kind::Attempts => flag(value).is_some() || attempts(value).is_some(),
            Kind::Version => text(value).is_some_and(|text| is_version(&text)),
            Kind::Number(least) => {
                number(value).is_some_and(|number| number >= least && number <= MAX_NUMBER)
            }
            Kind::List | Kind::Words => list(value).is_some(),
            Kind::Choice(words) => choice(words, value).is_some(),
            Kind::Verify => flag(value).is_some() || value.is_string(),
            Kind::PortRange => port_range(value).is_some(),
            Kind::Map => value
                .as_object()
                .is_some_and(|members| members.values().all(|member| text(member).is_some())),
            Kind::Entries => value
                .as_array()
                .is_some_and(|entries| entries.iter().all(Value::is_object)),
        }
}

/// A number of attempts.
pub(crate) fn attempts(value: &Value) -> Option<u32> {
    integer(value)
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| *number > 0)
}

fn is_version(text: &str) -> bool {
    let parts: Vec<&str> = text.trim().split('.').collect();
    parts.len() <= 3 && parts.iter().all(|part| part.parse::<u16>().is_ok())
}

/// The word of the list that the value means.
pub(crate) fn choice(words: &[&'static str], value: &Value) -> Option<&'static str> {
    let given = value.as_str()?.trim();
    words
        .iter()
        .find(|word| word.eq_ignore_ascii_case(given))
        .copied()
}

/// A scalar as text.
pub(crate) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// A boolean, by the words that the reference accepts in variables.
pub(crate) fn flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::Number(number) => match number.as_i64()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        },
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" | "t" | "true" | "on" | "1" => Some(true),
            "n" | "no" | "f" | "false" | "off" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// A whole number, also as text.
pub(crate) fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            let float = number.as_f64()?;
            // Exact below 2^53, which no setting comes near.
            (float.fract() == 0.0 && float.abs() < 9e15).then_some(float as i64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// A finite number, also as text.
pub(crate) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
    .filter(|number: &f64| number.is_finite())
}

/// A list of scalars as texts; a single text is a list of one, an empty one of none.
pub(crate) fn list(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(items) => items.iter().map(text).collect(),
        Value::String(single) if single.is_empty() => Some(Vec::new()),
        Value::String(single) => Some(vec![single.clone()]),
        _ => None,
    }
}

/// The first and the last port of a range.
pub(crate) fn port_range(value: &Value) -> Option<(u16, u16)> {
    let [first, last] = value.as_array()?.as_slice() else {
        return None;
    };
    let port = |value| u16::try_from(integer(value)?).ok().filter(|port| *port > 0);
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some((first, last))
}

/// A list of texts; a single text is divided as a shell would, or taken whole if it can't be.
pub(crate) fn words(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(single) => Some(shlex::split(single).unwrap_or_else(|| vec![single.clone()])),
        other => list(other),
    }
}

/// The value that the text of an environment variable gives to a key of this kind.
pub(crate) fn from_variable(kind: Kind, class: Class, content: &str) -> Option<Value> {
    let content = content.trim();
    let as_text = Value::from(content);
    match kind {
        Kind::Text | Kind::Path => Some(as_text),
        Kind::Attempts | Kind::Version => Some(as_text).filter(|text| fits(kind, text)),
        Kind::Flag if class == Class::Presence => Some(flag(&as_text).unwrap_or(true).into()),
        Kind::Flag => flag(&as_text).map(Value::from),
        Kind::Verify => Some(flag(&as_text).map_or(as_text, Value::from)),
        Kind::Integer(_) | Kind::Port | Kind::Number(_) if !fits(kind, &as_text) => None,
        Kind::Integer(_) | Kind::Port => integer(&as_text).map(Value::from),
        Kind::Number(_) => Number::from_f64(number(&as_text)?).map(Value::Number),
        Kind::List | Kind::Words => shlex::split(content).map(Value::from),
        Kind::Choice(words) => choice(words, &as_text).map(Value::from),
        Kind::Map | Kind::Entries | Kind::PortRange => serde_json::from_str(content)
            .ok()
            .filter(|value| fits(kind, value)),
    }
}

/// A path with `~`, `$NAME` and `${NAME}` replaced, made absolute. Unknown names stay as they are.
pub(crate) fn path(text: &str, home: Option<&Path>, env: &BTreeMap<String, String>) -> PathBuf {
    let expanded = expand_variables(text, env);
    let path = match (expanded.strip_prefix('~'), home) {
        (Some(""), Some(home)) => home.to_path_buf(),
        (Some(rest), Some(home)) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        _ => PathBuf::from(expanded),
    };
    // Fails only for an empty path or without a current folder; then the path stays relative.
    std::path::absolute(&path).unwrap_or(path)
}

fn expand_variables(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let (name, used) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((name, _)) => (name, name.len() + 2),
            None => {
                let end = after
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(after.len());
                (&after[..end], end)
            }
        };
        match env.get(name) {
            Some(value) => out.push_str(value),
            None => out.push_str(&rest[at..at + 1 + used]),
        }
        rest = &after[used..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_expand() {
        let env = BTreeMap::from([("D".to_owned(), "/data".to_owned())]);
        let home = Path::new("/home/me");
        for (text, expected) in [
            ("~", "/home/me"),
            ("~/x", "/home/me/x"),
            ("~other/x", "~other/x"),
            ("$D/x", "/data/x"),
            ("${D}x", "/datax"),
            ("/a/$NONE/${NONE}", "/a/$NONE/${NONE}"),
            ("/a/$", "/a/$"),
        ] {
            let expected = std::path::absolute(expected).unwrap();
            assert_eq!(path(text, Some(home), &env), expected, "{text}");
        }
    }

    #[test]
    fn variables_become_typed_values() {
        for (kind, text, expected) in [
            (Kind::Flag, "On", Some(Value::from(true))),
            (Kind::Flag, "maybe", None),
            (Kind::List, "--a 'b c'", Some(Value::from(vec!["--a", "b c"]))),
            (Kind::List, "'open", None),
            (Kind::Number(0.1), "0.05", None),
            (Kind::Number(0.1), "nan", None),
            (Kind::Number(0.1), "1e300", None),
            (Kind::Integer(1), " 5 ", Some(Value::from(5))),
            (Kind::Verify, "false", Some(Value::from(false))),
            (Kind::Verify, "/ca.pem", Some(Value::from("/ca.pem"))),
            (Kind::Choice(&["get", "post"]), "POST", Some(Value::from("post"))),
        ] {
            assert_eq!(
                from_variable(kind, Class::Lenient, text),
                expected,
                "{kind} {text}"
            );
        }
        for (text, expected) in [("0", false), ("False", false), ("1", true), ("please", true)] {
            let flag = from_variable(Kind::Flag, Class::Presence, text);
            assert_eq!(flag, Some(Value::from(expected)), "{text}");
        }
    }
}
