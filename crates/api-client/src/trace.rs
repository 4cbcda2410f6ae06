//! What of a call goes into the log. At debug level a line per attempt without any content; at trace
//! level also bodies, with everything in them masked that is a secret by its name or is known to be one.

use clearml_support::redact::Redactor;
use clearml_support::secret::MASK;
use serde_json::Value;

use crate::call::{Body, Call};

/// So much of a body is shown.
const SHOWN: usize = 2_000;
/// Larger bodies are not even parsed for the log.
const PARSED: usize = 256 * 1024;

/// Parts of names whose values are secrets.
const SECRET_NAMES: [&str; 11] = [
    "secret",
    "token",
    "passw",
    "passphrase",
    "credential",
    "apikey",
    "api_key",
    "access_key",
    "auth",
    "private",
    "pat",
];
/// Calls whose data is configuration of users, which has secrets anywhere.
const UNSHOWN: [&str; 1] = ["users.get_vaults"];

fn enabled() -> bool {
    tracing::enabled!(tracing::Level::TRACE)
}

/// Logs a request's body. Costs nothing unless trace level is on.
pub(crate) fn request(call: &Call, trx: &str, redactor: &(dyn Fn() -> Redactor + Sync)) {
    if let (true, Body::Json(body) | Body::Lines(body)) = (enabled(), &call.body) {
        tracing::trace!(endpoint = %call.endpoint, trx, "request: {}", shown(&call.endpoint, body, &redactor()));
    }
}

/// Logs a reply's body. Costs nothing unless trace level is on.
pub(crate) fn reply(call: &Call, trx: &str, body: &[u8], redactor: &(dyn Fn() -> Redactor + Sync)) {
    if enabled() {
        tracing::trace!(endpoint = %call.endpoint, trx, "reply: {}", shown(&call.endpoint, body, &redactor()));
    }
}

fn shown(endpoint: &str, body: &[u8], redactor: &Redactor) -> String {
    if body.len() > PARSED || UNSHOWN.contains(&endpoint) {
        return format!("{} bytes", body.len());
    }
    let text = match serde_json::from_slice::<Value>(body) {
        Ok(mut value) => {
            mask(&mut value);
            value.to_string()
        }
        Err(_) => {
            let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let mut text = String::new();
            for line in lines {
                match serde_json::from_slice::<Value>(line) {
                    Ok(mut value) => {
                        mask(&mut value);
                        text.push_str(&value.to_string());
                    }
                    Err(_) => return format!("{} bytes that are not JSON", body.len()),
                }
            }
            text
        }
    };
    // First redacted, then cut: half of a secret would not be recognised.
    let text = redactor.redact(&text);
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], body.len()),
        None => text.into_owned(),
    }
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|part| match *part {
        // Short enough to be part of an innocent word (`path`, `author`).
        "pat" => name == "pat" || name.ends_with("_pat"),
        "auth" => name == "auth" || name.ends_with("_auth") || name.starts_with("authorization"),
        part => name.contains(part),
    })
}

fn mask(value: &mut Value) {
    match value {
        Value::Object(object) => {
            // Parameters: {"name": "AWS_SECRET_ACCESS_KEY", "value": "…"}.
            let named = ["name", "key"].iter().any(|key| {
                object
                    .get(*key)
                    .and_then(Value::as_str)
                    .is_some_and(is_secret_name)
            });
            for (key, value) in object.iter_mut() {
                if is_secret_name(key) || (named && key == "value") {
                    if !value.is_null() {
                        *value = MASK.into();
                    }
                } else {
                    mask(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        Value::String(text) => {
            if text.contains('=') {
                *text = mask_assignments(text);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// `-e API_TOKEN=abc` becomes `-e API_TOKEN=****`.
fn mask_assignments(text: &str) -> String {
    text.split_inclusive(char::is_whitespace)
        .map(|word| match word.split_once('=') {
            Some((name, value)) if is_secret_name(name) => {
                let end = &value[value.trim_end().len()..];
                format!("{name}={MASK}{end}")
            }
            _ => word.to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use clearml_support::secret::Secret;
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_masked_by_name_by_place_and_by_value() {
        let redactor = Redactor::new();
        redactor.add(&Secret::new("known-secret"));
        let body = json!({
            "credentials": {"x": "canary1"}, "secret_key": "canary2", "token": "canary3", "path": "shown1",
            "hyperparams": [{"section": "Environment", "name": "AWS_SECRET_ACCESS_KEY", "value": "canary4"},
                            {"name": "lr", "value": "shown2"}],
            "container": {"arguments": "-e DB_PASSWORD=canary5 -e MODE=shown3\n--x"},
            "script": {"repository": "https://me:canary6@host/r.git"}, "note": "a known-secret b", "author": "shown4",
        });
        let text = shown("tasks.edit", body.to_string().as_bytes(), &redactor);
        assert!(
            !text.contains("canary") && !text.contains("known-secret"),
            "{text}"
        );
        for expected in ["shown1", "shown2", "MODE=shown3", "shown4", "me:****@host"] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }

    #[test]
    fn large_foreign_and_confidential_bodies_are_only_measured() {
        let redactor = Redactor::new();
        assert_eq!(
            shown("x", &vec![b'x'; PARSED + 1], &redactor),
            format!("{} bytes", PARSED + 1)
        );
        assert_eq!(
            shown("x", b"password canary", &redactor),
            "15 bytes that are not JSON"
        );
        assert_eq!(shown("users.get_vaults", b"{}", &redactor), "2 bytes");
        let lines = shown(
            "events.add_batch",
            b"{\"msg\":\"a\"}\n{\"msg\":\"b\"}\n",
            &redactor,
        );
        assert_eq!(lines, r#"{"msg":"a"}{"msg":"b"}"#);
        let long = shown(
            "x",
            json!({"a": "é".repeat(5_000)}).to_string().as_bytes(),
            &redactor,
        );
        assert!(
            long.len() < 2 * SHOWN + 40 && long.ends_with("… (10008 bytes)"),
            "{}",
            long.len()
        );
    }
}
