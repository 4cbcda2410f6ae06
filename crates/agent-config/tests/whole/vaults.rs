//! Vaults among the other layers.

use clearml_agent_config::{NoticeLevel, Vault, WithVaults};
use serde_json::json;

use crate::home::Home;

fn vault(description: &str, data: &str) -> Vault {
    Vault {
        id: "1234".to_owned(),
        scope: "user".to_owned(),
        user: Some("me".to_owned()),
        description: description.to_owned(),
        data: data.to_owned(),
    }
}

fn texts(with: &WithVaults, level: NoticeLevel) -> Vec<&str> {
    with.notices
        .iter()
        .filter(|notice| notice.level == level)
        .map(|notice| notice.text.as_str())
        .collect()
}

#[test]
fn vaults_lie_over_files_and_overrides_and_below_mapped_variables() {
    let mut home = Home::new(&[(
        "clearml.conf",
        "agent { git_user: file, git_host: file, python_binary: /file, vcs_cache.path: /file }",
    )])
    .env(&[
        ("CLEARML_AGENT__AGENT__GIT_HOST", "dynamic"),
        ("CLEARML_AGENT_GIT_USER", "variable"),
    ]);
    home.sources
        .overrides
        .push(("agent.vcs_cache.path".into(), json!("/option"), "--x".into()));
    let settings = home.load();
    let data = "agent { git_user: vault, git_host: vault, python_binary: /vault, vcs_cache { path: /vault, enabled: false } }\nown.part: {a: 1}";
    let later = vault("", "agent.python_binary: /later\nown.part.b: 2");
    let with = settings.with_vaults(&[vault("mine", data), later], &[]);
    let of = |key: &str| with.settings.get(key).unwrap().clone();
    assert_eq!(of("agent.git_user"), "variable");
    assert_eq!(of("agent.git_host"), "vault");
    assert_eq!(of("agent.python_binary"), "/later");
    assert_eq!(of("agent.vcs_cache.path"), "/option");
    assert!(!with.settings.agent.vcs_cache.enabled);
    assert_eq!(of("own.part"), json!({"a": 1, "b": 2}));
    assert_eq!(
        with.settings.origin("agent.git_host").unwrap().to_string(),
        "vault user mine"
    );
    assert_eq!(
        texts(&with, NoticeLevel::Info),
        [
            "Loaded user vault for user me: mine",
            "Loaded user vault for user me: 1234"
        ]
    );
    let details = texts(&with, NoticeLevel::Debug);
    assert!(
        details[0].contains("agent.vcs_cache.enabled") && details[0].contains("own.part.a"),
        "{details:?}"
    );
    assert!(!details[0].contains("/vault"), "keys only: {details:?}");

    // The snapshot, and what is read anew.
    assert_eq!(
        with.settings.without_vaults().effective_json(),
        settings.effective_json()
    );
    std::fs::write(home.path("clearml.conf"), "agent.worker_name: new").unwrap();
    let again = with.settings.reload().unwrap();
    assert_eq!(again.agent.worker_name, "new");
    assert_eq!(again.get("agent.git_host"), Some(&json!("vault")));
    let more = [("agent.on_stop".to_owned(), json!("detach"), "--y".to_owned())];
    let more = with.settings.with_overrides(&more).unwrap();
    assert_eq!(more.get("agent.on_stop"), Some(&json!("detach")));
    assert_eq!(more.get("agent.python_binary"), Some(&json!("/later")));
}

#[test]
fn what_belongs_to_the_machine_is_not_taken_from_a_vault() {
    let home = Home::new(&[(
        "clearml.conf",
        "agent { worker_id: \"own:1\", cuda_version: 118 }",
    )]);
    let data = "agent { worker_id: other, worker_name: box, cuda_version: 118, cudnn_version: 8, default_python: 3.9, debug: true }";
    let with = home.load().with_vaults(&[vault("v", data)], &[]);
    assert_eq!(with.settings.agent.worker_id.as_deref(), Some("own:1"));
    assert!(!with.settings.agent.debug && with.settings.agent.default_python.is_none());
    let said = texts(&with, NoticeLevel::Info);
    let ignored: Vec<_> = said
        .iter()
        .filter(|text| text.starts_with("Ignoring vault value for 'agent."))
        .collect();
    // Values that are the same anyway are not worth a word.
    assert_eq!(ignored.len(), 4, "{said:?}");
    // A monitoring vault lies over everything but the command line.
    let with = home.load().with_vaults(
        &[],
        &[vault("m", "agent.worker_id: monitored\nagent.git_user: x")],
    );
    assert_eq!(with.settings.agent.worker_id.as_deref(), Some("monitored"));
    assert_eq!(with.notices, []);
    let home = home.env(&[("CLEARML_WORKER_ID", "variable")]);
    let with = home.load().with_vaults(
        &[vault("v", "agent.git_user: y")],
        &[vault("m", "agent.worker_id: monitored")],
    );
    assert_eq!(with.settings.agent.worker_id.as_deref(), Some("monitored"));
}

#[test]
fn a_bad_vault_is_told_and_the_others_count() {
    let home = Home::new(&[]).env(&[("WHO", "me")]);
    let long = "d".repeat(80);
    let vaults = [
        vault("broken", "agent { git_pass: hunter2@ }"),
        vault("typed", "agent.vcs_cache.enabled: perhaps"),
        vault("section", "agent: 5"),
        vault("list", "[1, 2]"),
        vault("nosy", "include \"/etc/passwd\""),
        vault(&long, "own.who: ${WHO}"),
        vault(
            "yaml",
            "own:\n  list:\n    - a\n    - b: 1\nagent:\n  git_user: yaml\n",
        ),
        vault("json", "{\"own\": {\"json\": true}}"),
        vault("empty", ""),
        vault(
            "bomb",
            "a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b]\nd:\n  - *c\n",
        ),
    ];
    let with = home.load().with_vaults(
        &vaults,
        &[vault("m", "{"), vault("n", "agent.vcs_cache: {enabled: x}")],
    );
    let failed = texts(&with, NoticeLevel::Warning);
    assert_eq!(failed.len(), 5, "{failed:#?}");
    for (text, name) in failed.iter().zip(["broken", "typed", "section", "list", "nosy"]) {
        assert!(
            text.starts_with(&format!("Failed parsing vault {name}: ")),
            "{text}"
        );
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert_eq!(with.settings.get("own.who"), Some(&json!("me")));
    assert_eq!(with.settings.get("own.list"), Some(&json!(["a", {"b": 1}])));
    assert_eq!(with.settings.get("own.json"), Some(&json!(true)));
    assert_eq!(with.settings.agent.git.user.as_deref(), Some("yaml"));
    assert!(with.settings.agent.vcs_cache.enabled);
    assert!(texts(&with, NoticeLevel::Info)[0].ends_with(&"d".repeat(50)));
}

#[test]
fn secrets_of_vaults_are_secrets() {
    let data =
        "agent.git_pass: \"hunter2-a\"\nenvironment { MY_TOKEN: \"hunter2-b\" }\nown.password: \"hunter2-c\"";
    let with = Home::new(&[]).load().with_vaults(&[vault("v", data)], &[]);
    let shown = with.settings.masked_json().to_string();
    assert!(!shown.contains("hunter2"), "{shown}");
    let secrets = with.settings.secrets();
    for letter in ["a", "b", "c"] {
        assert!(
            secrets
                .iter()
                .any(|secret| secret.expose() == format!("hunter2-{letter}")),
            "{letter}"
        );
    }
    assert!(!format!("{:?} {:?}", vault("v", data), with).contains("hunter2"));
}
