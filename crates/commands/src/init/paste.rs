//! What a person pastes from the web page of the server, in either of its two forms. Pure.
//!
//! The form of today has everything below `api`; an older one has `credentials`, `host` and `web_server`
//! at the top. Each value is looked for by itself, so that one that is missing takes no other along.

use std::path::Path;

use clearml_support::secret::Secret;
use serde_json::Value;

use super::KeyPair;
use super::hosts::normalise;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Pasted {
    pub(crate) keys: Option<KeyPair>,
    pub(crate) api: Option<String>,
    pub(crate) web: Option<String>,
    pub(crate) files: Option<String>,
}

/// Whether the pasted text ends with this line.
pub(crate) fn is_last_line(line: &str) -> bool {
    matches!(line.trim_end(), "" | "}")
}

/// Reads the pasted text; what is not there, or is no HOCON, is not found.
pub(crate) fn read(text: &str) -> Pasted {
    let Ok(root) = clearml_agent_config::parse(text, Path::new("the pasted text")) else {
        return Pasted::default();
    };
    let find = |paths: [&str; 2]| paths.iter().find_map(|path| at(&root, path));
    let host = |paths| find(paths).and_then(text_of).as_deref().and_then(normalise);
    Pasted {
        keys: find(["api.credentials", "credentials"]).and_then(keys),
        api: host(["api.api_server", "host"]),
        web: host(["api.web_server", "web_server"]),
        files: host(["api.files_server", "files_server"]),
    }
}

fn at<'v>(root: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(root, |value, key| value.get(key))
}

/// Exactly the two keys: anything else was meant for another purpose.
fn keys(value: &Value) -> Option<KeyPair> {
    let members = value.as_object().filter(|members| members.len() == 2)?;
    KeyPair::new(
        &text_of(members.get("access_key")?)?,
        &text_of(members.get("secret_key")?)?,
    )
}

/// Keys that look like numbers are texts all the same.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

impl KeyPair {
    /// `None` unless both parts are there, on one line each.
    pub(crate) fn new(access: &str, secret: &str) -> Option<Self> {
        let usable = |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_control());
        let (access, secret) = (access.trim(), secret.trim());
        (usable(access) && usable(secret)).then(|| Self {
            access: access.to_owned(),
            secret: Secret::new(secret),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_are_understood_and_nothing_depends_on_anything_else() {
        let pair = KeyPair::new("A", "S+/=1");
        for (text, expected) in [
            (
                "api {\n  web_server: https://app.x.y/\n  api_server: https://api.x.y\n  files_server: https://files.x.y\n  \
                 credentials {\n    \"access_key\" = \"A\"\n    \"secret_key\" = \"S+/=1\"\n  }\n}",
                Pasted {
                    keys: pair.clone(),
                    api: Some("https://api.x.y".into()),
                    web: Some("https://app.x.y".into()),
                    files: Some("https://files.x.y".into()),
                },
            ),
            (
                "{\"credentials\": {\"access_key\": \"A\", \"secret_key\": \"S+/=1\"}, \"host\": \"h:8008\", \"web_server\": \"h:8080\"\n}",
                Pasted {
                    keys: pair.clone(),
                    api: Some("http://h:8008".into()),
                    web: Some("http://h:8080".into()),
                    files: None,
                },
            ),
            // Without an API server, the web server is still read.
            (
                "api { web_server: \"http://h:8080\", credentials { access_key: A, secret_key: \"S+/=1\" } }",
                Pasted {
                    keys: pair.clone(),
                    web: Some("http://h:8080".into()),
                    ..Pasted::default()
                },
            ),
            // A third key, a missing one, and an empty one are no credentials.
            (
                "credentials { access_key: A, secret_key: B, token: C }, host: h",
                Pasted {
                    api: Some("https://h".into()),
                    ..Pasted::default()
                },
            ),
            ("credentials { access_key: A }", Pasted::default()),
            (
                "credentials { access_key: A, secret_key: \"\" }",
                Pasted::default(),
            ),
            ("not { hocon", Pasted::default()),
            ("", Pasted::default()),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn the_end_of_a_paste() {
        for (line, last) in [
            ("", true),
            ("   ", true),
            ("}", true),
            ("} ", true),
            (" }", false),
            ("a", false),
        ] {
            assert_eq!(is_last_line(line), last, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC{0,200}") {
            read(&text);
        }
    }
}
