//! The text of the new `clearml.conf`. Pure.

use std::fmt::Write;

use clearml_agent_config::Settings;
use clearml_support::secret::Secret;

use super::Answers;
use super::template::{quoted, section};

/// Keys that are set before the sections, which therefore must not set them again.
const TAKEN: [&str; 3] = [
    "agent.git_user",
    "agent.git_pass",
    "agent.package_manager.extra_index_url",
];
const OUTPUT_URI: &str = "sdk.development.default_output_uri";

/// The whole file. `defaults` are settings that nobody has changed.
pub(crate) fn render(answers: &Answers, defaults: &Settings) -> String {
    let (user, pass) = match &answers.git {
        Some((user, pass)) => (user.as_str(), pass.clone()),
        None => ("", Secret::default()),
    };
    let mut text = String::from(
        "# Configuration of ClearML, written by `clearml-agent init`. The agent and the SDK read it.\n\
         # It holds secrets: keep it readable by its owner only.\n\napi {\n",
    );
    let servers = &answers.servers;
    for (comment, key, url) in [
        (
            "The API server, by custom on port 8008.",
            "api_server",
            &servers.api,
        ),
        (
            "The web pages, by custom on port 8080.",
            "web_server",
            &servers.web,
        ),
        (
            "The file server, by custom on port 8081.",
            "files_server",
            &servers.files,
        ),
    ] {
        let _ = writeln!(text, "    # {comment}\n    {key}: {}", address(url));
    }
    let _ = writeln!(
        text,
        "    # Created in the web page, under the settings of the workspace.\n    \
         credentials {{\"access_key\": {}, \"secret_key\": {}}}\n}}\n",
        quoted(&answers.keys.access),
        quoted(answers.keys.secret.expose()),
    );
    let _ = writeln!(
        text,
        "# The login for git repositories; both empty to use ssh keys.\n\
         agent.git_user={}\nagent.git_pass={}\n",
        quoted(user),
        quoted(pass.expose())
    );
    let _ = writeln!(
        text,
        "# Where else Python packages are looked for.\nagent.package_manager.extra_index_url= ["
    );
    for url in &answers.index_urls {
        let _ = writeln!(text, "    {}", quoted(url));
    }
    let _ = writeln!(text, "]\n");
    let mut taken = TAKEN.to_vec();
    if let Some(uri) = &answers.output_uri {
        taken.push(OUTPUT_URI);
        let _ = writeln!(
            text,
            "# Where models and artifacts go.\n{OUTPUT_URI}={}\n",
            quoted(uri)
        );
    }
    let _ = writeln!(
        text,
        "# The agent. These are the defaults; a line that is commented out names a key that is not set, or \
         whose default the agent knows by itself.\n{}",
        section("agent", defaults, &taken)
    );
    let _ = write!(text, "# The SDK.\n{}", section("sdk", defaults, &taken));
    text
}

/// An address without quotes, as people write it, unless it has a character that needs them.
fn address(url: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/%".contains(c);
    if !url.is_empty() && url.chars().all(plain) {
        url.to_owned()
    } else {
        quoted(url)
    }
}

#[cfg(test)]
mod tests {
    use clearml_agent_config::Sources;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::init::KeyPair;
    use crate::init::hosts::Servers;

    fn answers() -> Answers {
        Answers {
            keys: KeyPair::new("ACCESS", "se\"cr\\et=#!${X}").unwrap(),
            servers: Servers {
                api: "http://[::1]:8008".into(),
                web: String::new(),
                files: "https://files.example.com".into(),
            },
            output_uri: None,
            git: None,
            index_urls: Vec::new(),
            user: None,
        }
    }

    /// What the file changes in the settings of a machine that has no other configuration.
    fn load(text: &str) -> Settings {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("clearml.conf");
        std::fs::write(&file, text).unwrap();
        let settings = Settings::load(&Sources {
            config_file: Some(file),
            host_name: Some("host".into()),
            ..Sources::default()
        });
        settings.unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    fn defaults() -> Settings {
        Settings::load(&Sources {
            host_name: Some("host".into()),
            ..Sources::default()
        })
        .unwrap()
    }

    #[test]
    fn the_file_changes_nothing_but_what_was_answered() {
        let text = render(&answers(), &defaults());
        let settings = load(&text);
        assert!(settings.warnings().is_empty(), "{:?}", settings.warnings());
        let (mut found, mut expected) = (settings.effective_json(), defaults().effective_json());
        expected["agent"]["git_user"] = "".into();
        expected["agent"]["git_pass"] = "".into();
        expected["agent"]["package_manager"]["extra_index_url"] = json!([]);
        assert_eq!(found["agent"], expected["agent"]);
        assert_eq!(found["sdk"], expected["sdk"]);
        assert_eq!(found["api"]["credentials"]["secret_key"], "se\"cr\\et=#!${X}");
        assert_eq!(found["api"]["api_server"], "http://[::1]:8008");
        for section in ["agent", "sdk", "api"] {
            found[section] = Value::Null;
            expected[section] = Value::Null;
        }
        assert_eq!(found, expected);
    }

    #[test]
    fn answers_survive_the_sections_below_them() {
        let answers = Answers {
            git: Some(("me".into(), Secret::new("tok\\en"))),
            index_urls: vec!["https://u:p@pypi.example.com/simple".into(), "https://two".into()],
            output_uri: Some("s3://bucket/x y".into()),
            ..answers()
        };
        let settings = load(&render(&answers, &defaults())).effective_json();
        assert_eq!(settings["agent"]["git_user"], "me");
        assert_eq!(settings["agent"]["git_pass"], "tok\\en");
        assert_eq!(
            settings["agent"]["package_manager"]["extra_index_url"],
            json!(["https://u:p@pypi.example.com/simple", "https://two"])
        );
        assert_eq!(
            settings["sdk"]["development"]["default_output_uri"],
            "s3://bucket/x y"
        );
    }

    proptest! {
        #[test]
        fn whatever_was_answered_is_read_back(
            access in "[^\\p{Cc} ]{1,20}", secret in "[^\\p{Cc} ]{1,40}", user in "[^\\p{Cc} ]{1,20}", uri in "[^\\p{Cc}]{1,40}",
        ) {
            let Some(keys) = KeyPair::new(&access, &secret) else { return Ok(()) };
            let answers = Answers {
                keys: keys.clone(),
                git: Some((user.clone(), Secret::new(secret.clone()))),
                index_urls: vec![uri.clone()],
                output_uri: Some(uri.clone()),
                ..answers()
            };
            let text = render(&answers, &defaults());
            // Only the part that holds answers, which is the same in every file but for them.
            let (head, _) = text.split_once("# The agent.").unwrap();
            let read = clearml_agent_config::parse(head, std::path::Path::new("file")).unwrap();
            prop_assert_eq!(&read["api"]["credentials"]["access_key"], &Value::from(keys.access.clone()));
            prop_assert_eq!(&read["api"]["credentials"]["secret_key"], &Value::from(keys.secret.expose()));
            prop_assert_eq!(&read["agent"]["git_user"], &Value::from(user));
            prop_assert_eq!(&read["agent"]["package_manager"]["extra_index_url"][0], &Value::from(uri.clone()));
            prop_assert_eq!(&read["sdk"]["development"]["default_output_uri"], &Value::from(uri));
        }
    }
}
