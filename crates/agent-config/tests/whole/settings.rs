//! The configuration as a whole: layers, origins, types, warnings, masking, hand-over.

use std::path::Path;

use clearml_agent_config::{
    ConfigError, Credentials, HttpMethod, InitialConnect, OnStop, PackageManager, RetryCounts, Settings,
    Sources, TlsVerify, declarations,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::home::Home;

fn origin(settings: &Settings, key: &str) -> String {
    settings
        .origin(key)
        .unwrap_or_else(|| panic!("{key} has no origin"))
        .to_string()
}

#[test]
fn nothing_configured_gives_usable_defaults_and_a_helpful_refusal() {
    let home = Home::new(&[]);
    let settings = home.load();
    let agent = &settings.agent;
    assert_eq!(agent.worker_name, "box");
    assert_eq!(agent.worker_id, None);
    assert_eq!(agent.venvs_dir, home.path(".clearml/venvs-builds"));
    assert_eq!(agent.state_dir, home.path(".local/state/clearml-agent"));
    assert_eq!(agent.package_manager.kind, PackageManager::Pip);
    assert_eq!(agent.package_manager.pip_version.len(), 3);
    assert_eq!(agent.on_stop, OnStop::Kill);
    assert_eq!(agent.console.max_bytes, 4 << 30);
    assert_eq!(agent.task_ping_interval_sec, Some(60.0));
    assert!(agent.vcs_cache.enabled && agent.suppress_carriage_return && agent.git.translate_ssh);
    assert_eq!(settings.api.verify, TlsVerify::Verify);
    assert_eq!(settings.api.default_method, HttpMethod::Post);
    assert_eq!(settings.api.initial_connect, InitialConnect::Default);
    assert_eq!(settings.warnings(), []);
    assert_eq!(settings.location(), None);
    assert_eq!(
        settings.get("sdk.storage.cache.size.min_free_bytes"),
        Some(&json!("10GB"))
    );
    let refusal = settings.api.require_credentials().unwrap_err().to_string();
    assert!(
        refusal.contains("CLEARML_API_ACCESS_KEY") && refusal.contains("~/clearml.conf"),
        "{refusal}"
    );
    assert!(
        settings
            .api
            .require_server()
            .unwrap_err()
            .to_string()
            .contains("CLEARML_API_HOST")
    );
}

#[test]
fn every_layer_beats_the_ones_below_it() {
    let folder = (
        "conf/default/agent.conf",
        "worker_name: folder\nvenvs_dir: /folder",
    );
    let old = (
        "trains.conf",
        "agent.worker_name: old\nagent.git_user: old\nagent.vcs_cache.path: /old",
    );
    let current = (
        "clearml.conf",
        "agent {\n  worker_name: current\n  vcs_cache.enabled: false\n}",
    );
    let mut home = Home::new(&[folder, old, current]);
    let conf = home.path("conf").display().to_string();
    let mut variables = vec![("CLEARML_CONFIG_PATH", conf.as_str())];

    let check = |home: &Home, name: &str, from: &str| {
        let settings = home.load();
        assert_eq!(settings.agent.worker_name, name);
        assert!(
            origin(&settings, "agent.worker_name").contains(from),
            "{}",
            origin(&settings, "agent.worker_name")
        );
    };
    home = home.env(&variables);
    check(&home, "current", "clearml.conf:2");
    let settings = home.load();
    assert_eq!(settings.agent.venvs_dir, Path::new("/folder"));
    assert!(origin(&settings, "agent.venvs_dir").ends_with("conf/default/agent.conf:2"));
    assert_eq!(settings.agent.git.user.as_deref(), Some("old"));
    // Objects merge: one file sets the path, another the switch.
    assert_eq!(settings.agent.vcs_cache.path, Path::new("/old"));
    assert!(!settings.agent.vcs_cache.enabled);
    assert_eq!(settings.location(), Some(home.path("clearml.conf").as_path()));
    assert_eq!(origin(&settings, "agent.translate_ssh"), "default");

    variables.push(("CLEARML_AGENT__AGENT__WORKER_NAME", "dynamic"));
    home = home.env(&variables);
    check(&home, "dynamic", "CLEARML_AGENT__AGENT__WORKER_NAME");
    variables.push(("TRAINS_WORKER_NAME", "alias"));
    home = home.env(&variables);
    check(&home, "alias", "TRAINS_WORKER_NAME");
    variables.push(("CLEARML_WORKER_NAME", "mapped"));
    home = home.env(&variables);
    check(&home, "mapped", "CLEARML_WORKER_NAME");
    home.sources
        .overrides
        .push(("agent.worker_name".into(), json!("option"), "--name".into()));
    check(&home, "option", "command line --name");
}

#[test]
fn one_file_can_replace_the_usual_ones() {
    let files = [
        ("clearml.conf", "agent.worker_name: usual"),
        ("other.conf", "agent.worker_name: other"),
    ];
    let mut home = Home::new(&files).env(&[("CLEARML_CONFIG_FILE", "~/other.conf")]);
    assert_eq!(home.load().agent.worker_name, "other");
    assert_eq!(home.load().location(), Some(home.path("other.conf").as_path()));
    home = home.env(&[("TRAINS_CONFIG_FILE", "~/missing.conf")]);
    assert_eq!(home.load().agent.worker_name, "box");
    home.sources.config_file = Some(home.path("other.conf"));
    assert_eq!(home.load().agent.worker_name, "other");
    home.sources.config_file = Some(home.path("missing.conf"));
    assert!(home.error().starts_with("Could not open configuration file: /"));
    home.sources.config_file = Some(home.folder.path().to_path_buf());
    assert!(home.error().starts_with("Could not open configuration file: /"));
}

#[test]
fn malformed_files_are_reported_with_file_line_column_and_text() {
    let home = Home::new(&[(
        "clearml.conf",
        "api {\n  api_server: http://h:8008\n\nagent {\n  worker_name: a&b\n}\n",
    )]);
    let path = home.path("clearml.conf").display().to_string();
    assert_eq!(
        home.error(),
        format!(
            "Failed parsing {path} (ParseSyntaxException): (at char 59, line:5, col:17): `&` may only stand in quotes; put the value of api.agent.worker_name in double quotes, at: worker_name: a&b"
        )
    );
    let home = Home::new(&[("clearml.conf", "api {\n  api_server: http://h:8008\n")]);
    assert!(
        home.error()
            .contains("(at char 4, line:1, col:5): this is never closed"),
        "{}",
        home.error()
    );
}

#[test]
fn wrong_types_name_key_expectation_value_and_line() {
    for (text, expected) in [
        (
            "\nagent.vcs_cache.enabled: perhaps",
            "agent.vcs_cache.enabled must be true or false, but PATH:2:1 sets it to a text, \"perhaps\"",
        ),
        (
            "agent.force_git_ssh_port: 70000",
            "agent.force_git_ssh_port must be a port number from 1 to 65535, but PATH:1:1 sets it to a number, 70000",
        ),
        (
            "agent.package_manager.type: pipp",
            "agent.package_manager.type must be one of pip, conda, poetry, uv, but PATH:1:1 sets it to a text, \"pipp\"",
        ),
        (
            "agent.package_manager.pip_version { a: 1 }",
            "agent.package_manager.pip_version must be a list of texts, but PATH:1:1 sets it to an object",
        ),
        ("agent.vcs_cache: on", ""),
        (
            "agent: 5",
            "agent must be an object, but PATH:1:1 sets it to a number, 5",
        ),
        (
            "agent {\n  docker_args_allowed_port_range: [10, 5]\n}",
            "agent.docker_args_allowed_port_range must be a list of two port numbers, the first not above the second, but PATH:2:3 sets it to a list",
        ),
        (
            "api.http.max_req_size: 1.5",
            "api.http.max_req_size must be a whole number of at least 1, but PATH:1:1 sets it to a number, 1.5",
        ),
    ] {
        let home = Home::new(&[("clearml.conf", text)]);
        let expected = expected.replace("PATH", &home.path("clearml.conf").display().to_string());
        if expected.is_empty() {
            // A scalar in place of a section sets none of its keys.
            assert!(!home.load().agent.vcs_cache.enabled);
        } else {
            assert_eq!(home.error(), expected, "{text}");
        }
    }
    let home = Home::new(&[("clearml.conf", "agent.git_pass: [hunter2]")]);
    assert!(
        home.error().contains("a list") && !home.error().contains("hunter2"),
        "{}",
        home.error()
    );
}

#[test]
fn spellings_of_values() {
    let home = Home::new(&[(
        "clearml.conf",
        "agent { enable_task_env: yes, apply_files: no, translate_ssh: Off, git_pass: 12345, on_stop: Detach\n\
         package_manager { extra_index_url: \"https://one/simple\", pip_version: \"\", post_packages: [] }\n\
         venvs_cache.path: \"\", task_ping_interval_sec: 0, apply_environment: null, git_fetch_args: [--all] }\n\
         api.verify_certificate: ~/ca.pem",
    )]);
    let settings = home.load();
    let agent = &settings.agent;
    assert!(
        agent.enable_task_env && !agent.apply_files && !agent.git.translate_ssh && agent.apply_environment
    );
    assert_eq!(agent.git.pass.as_ref().unwrap().expose(), "12345");
    assert_eq!(agent.on_stop, OnStop::Detach);
    assert_eq!(agent.package_manager.extra_index_url, ["https://one/simple"]);
    assert!(agent.package_manager.pip_version.is_empty() && agent.package_manager.post_packages.is_empty());
    assert_eq!(
        (agent.venvs_cache.path.as_ref(), agent.task_ping_interval_sec),
        (None, None)
    );
    assert_eq!(settings.api.verify, TlsVerify::CaBundle(home.path("ca.pem")));
}

#[test]
fn override_variables_take_any_value_and_fall_back_to_text() {
    let home = Home::new(&[]).env(&[
        ("CLEARML_AGENT__AGENT__VCS_CACHE__ENABLED", "false"),
        ("CLEARML_AGENT__AGENT__DOCKER_ARGS_FILTERS", "[\"^-e$\"]"),
        ("CLEARML_AGENT__ENVIRONMENT", "{ Name: 1 }"),
        ("CLEARML_AGENT__AGENT__GIT_PASS", "p@ss!word"),
        ("CLEARML_AGENT__", "x"),
    ]);
    let settings = home.load();
    assert!(!settings.agent.vcs_cache.enabled);
    assert_eq!(settings.get("agent.docker_args_filters"), Some(&json!(["^-e$"])));
    assert_eq!(settings.environment(), [("Name".to_owned(), "1".to_owned())]);
    assert_eq!(settings.agent.git.pass.as_ref().unwrap().expose(), "p@ss!word");
    let [warning] = settings.warnings() else {
        panic!("{:?}", settings.warnings())
    };
    let warning = warning.to_string();
    assert!(
        warning.contains("CLEARML_AGENT__AGENT__GIT_PASS") && !warning.contains("p@ss"),
        "{warning}"
    );
}

#[test]
fn variables_that_cannot_be_understood() {
    let lenient = Home::new(&[]).env(&[
        ("CLEARML_API_HOST_VERIFY_CERT", "/ca.pem"),
        ("CLEARML_AGENT_ENABLE_ENV_CONFIG_SECTION", "perhaps"),
    ]);
    let settings = lenient.load();
    assert_eq!(settings.api.verify, TlsVerify::CaBundle("/ca.pem".into()));
    assert!(
        settings.warnings()[0]
            .to_string()
            .contains("CLEARML_AGENT_ENABLE_ENV_CONFIG_SECTION")
    );
    for (name, value) in [
        ("CLEARML_API_DEFAULT_REQ_METHOD", "PATCH"),
        ("CLEARML_AGENT_QUEUE_POLL_FREQ_SEC", "often"),
        ("CLEARML_AGENT_CRASH_ON_EXCEPTION", "2"),
    ] {
        let message = Home::new(&[]).env(&[(name, value)]).error();
        assert!(message.contains(name), "{message}");
    }
    let empty = Home::new(&[]).env(&[
        ("CLEARML_AGENT_QUEUE_POLL_FREQ_SEC", ""),
        ("CLEARML_WORKER_NAME", " "),
    ]);
    assert_eq!(empty.load().agent.worker_name, "box");
}

#[test]
fn unknown_keys_are_reported_with_the_key_that_was_meant() {
    let text = "agent {\n  woker_name: x\n  slurm.user_map.me: you\n  default_docker.image: y\n  git { extra_credentials: [] }\n}\nmine.own: 1\n\"x.y[0]\": 2";
    let home = Home::new(&[("clearml.conf", text)]);
    let settings = home.load();
    let warnings: Vec<String> = settings.warnings().iter().map(ToString::to_string).collect();
    let path = home.path("clearml.conf").display().to_string();
    assert_eq!(
        warnings,
        [format!(
            "{path}:2: agent.woker_name is not a known key; did you mean agent.worker_name?"
        )]
    );
    assert_eq!(settings.get("mine.own"), Some(&json!(1)));
    assert_eq!(settings.effective_json()["x.y[0]"], 2, "a quoted key is one key");
}

#[test]
fn misspelt_variables_and_sections_are_reported_with_what_was_meant() {
    let text = "mine.x: 1\nagnet.worker_name: x\nagnet { x { y: z } }\nagency.z: 1";
    let home = Home::new(&[("clearml.conf", text)]).env(&[
        ("CLEARML_AGENT_GIT_USR", "me"),
        ("CLEARML_API_HOTS", "http://localhost"),
        // These are as they should be, or are somebody else's.
        ("CLEARML_AGENT_GIT_USER", "you"),
        ("CLEARML_AGENT_RUN_ID", "1"),
        ("CLEARML_AGENT_ASKPASS_NEXT", "1"),
        ("CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL", "0"),
        ("CLEARML_AGENT_OF_MY_OWN", "1"),
        ("CLEARML_TASK_ID", "1"),
    ]);
    let warnings: Vec<String> = home.load().warnings().iter().map(ToString::to_string).collect();
    let path = home.path("clearml.conf").display().to_string();
    assert_eq!(
        warnings,
        [
            "the environment variable CLEARML_AGENT_GIT_USR is not known; did you mean CLEARML_AGENT_GIT_USER?",
            "the environment variable CLEARML_API_HOTS is not known; did you mean CLEARML_API_HOST?",
            &format!("{path}:2: agnet is not a known section; did you mean agent?"),
        ]
    );
}

#[test]
fn credentials_and_servers() {
    let file = (
        "clearml.conf",
        "api { host: \"https://api.example.org/\", credentials { access_key: AK, secret_key: SK } }",
    );
    let settings = Home::new(&[file]).load();
    assert_eq!(settings.api.require_server().unwrap(), "https://api.example.org");
    assert_eq!(
        settings.api.web_server.as_deref(),
        Some("https://app.example.org")
    );
    assert_eq!(
        settings.api.files_server.as_deref(),
        Some("https://files.example.org")
    );
    assert_eq!(
        settings.get("api.files_server"),
        Some(&json!("https://files.example.org"))
    );
    assert!(origin(&settings, "api.files_server").contains("derived"));
    let Credentials::Keys {
        access_key,
        secret_key,
    } = settings.api.require_credentials().unwrap()
    else {
        panic!()
    };
    assert_eq!((access_key.expose(), secret_key.expose()), ("AK", "SK"));

    let mixed = Home::new(&[file])
        .env(&[("CLEARML_API_ACCESS_KEY", "other")])
        .load();
    assert!(
        mixed.warnings()[0]
            .to_string()
            .contains("may not belong together")
    );
    let token = Home::new(&[file]).env(&[("CLEARML_AUTH_TOKEN", "tok-en")]).load();
    assert!(
        matches!(token.api.require_credentials().unwrap(), Credentials::Token(token) if token.expose() == "tok-en")
    );
    assert!(
        !token.effective_json().to_string().contains("tok-en"),
        "the token is no part of the configuration"
    );
    let half = Home::new(&[]).env(&[("CLEARML_API_ACCESS_KEY", "AK")]).load();
    assert!(matches!(
        half.api.require_credentials(),
        Err(ConfigError::NoCredentials {
            missing: "the secret key is",
            ..
        })
    ));
}

#[test]
fn the_pause_between_looks_at_the_queues() {
    let seconds = |home: Home, option| home.load().agent.poll.queue_interval(option).as_secs_f64();
    assert_eq!(seconds(Home::new(&[]), None), 5.0);
    assert_eq!(seconds(Home::new(&[]), Some(1.0)), 5.0);
    assert_eq!(seconds(Home::new(&[]), Some(30.0)), 30.0);
    assert_eq!(seconds(Home::new(&[]), Some(f64::INFINITY)), 5.0);
    let fast = || Home::new(&[]).env(&[("CLEARML_AGENT_QUEUE_POLL_FREQ_SEC", "0.5")]);
    assert_eq!(seconds(fast(), Some(30.0)), 0.5);
}

#[test]
fn the_environment_section() {
    let text = "environment { A: text, B: true, C: null, D: 1.5 }";
    let settings = Home::new(&[("clearml.conf", text)]).load();
    let expected =
        [("A", "text"), ("B", "True"), ("C", ""), ("D", "1.5")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    assert_eq!(settings.environment(), expected);
    // One that no process can have must not keep the task from starting.
    let odd = "environment { A: 1, \"\": 2, \"X=Y\": 3, \"N\\u0000\": 4, V: \"a\\u0000b\" }";
    let odd = Home::new(&[("clearml.conf", odd)]).load();
    assert_eq!(odd.environment(), [("A".to_owned(), "1".to_owned())]);
    let told: Vec<String> = odd.prepare().notices.iter().map(ToString::to_string).collect();
    for name in ["\"\"", "\"X=Y\"", "\"N\\0\"", "\"V\""] {
        assert!(
            told.iter()
                .any(|text| text.contains(&format!("the variable {name} of"))),
            "{told:?}"
        );
    }
    let off = Home::new(&[("clearml.conf", text)])
        .env(&[("CLEARML_AGENT_ENABLE_ENV_CONFIG_SECTION", "0")])
        .load();
    assert_eq!(off.environment(), []);
}

#[test]
fn what_is_handed_to_a_task_reads_back_as_the_same_configuration() {
    let home = Home::new(&[(
        "clearml.conf",
        "api.credentials.secret_key: \"s\\\"\\\\ü{}$x\"\nsdk.mine: [1, 2.5, null, {a: \"\"\"x\ny\"\"\"}]\nsdk.aws.s3.bucket: ~/x",
    )]);
    let settings = home.load();
    let written = home.path("handed.conf");
    std::fs::write(
        &written,
        serde_json::to_string_pretty(&settings.effective_json()).unwrap(),
    )
    .unwrap();
    let again = Settings::load(&Sources {
        config_file: Some(written),
        ..home.sources.clone()
    })
    .unwrap();
    assert_eq!(again.effective_json(), settings.effective_json());
    assert_eq!(again.warnings(), []);
    assert_eq!(
        settings.get("sdk.development.worker.report_period_sec"),
        Some(&json!(2))
    );
}

#[test]
fn repetitions_have_a_limit_only_where_one_was_chosen() {
    let counts = |text: &str| Home::new(&[("clearml.conf", text)]).load().api.retries;
    assert_eq!(counts(""), RetryCounts::default());
    let chosen = counts("api.http.retries { total: 7, connect: 0, read: 240, status: null }");
    assert_eq!((chosen.total, chosen.connect), (Some(7), Some(0)));
    assert_eq!((chosen.read, chosen.status), (None, None));
}

#[test]
fn the_version_that_is_used_where_none_is_configured_can_be_shown() {
    let home = Home::new(&[]);
    let shown = home.load().showing_default_python("3.12");
    assert_eq!(shown.text("agent.default_python").as_deref(), Some("3.12"));
    let origin = shown.origin("agent.default_python").unwrap().to_string();
    assert!(origin.contains("python3"), "{origin}");
    assert_eq!(shown.agent.default_python, None, "it decides nothing");
    let home = Home::new(&[("clearml.conf", "agent.default_python: \"3.9\"")]);
    let shown = home.load().showing_default_python("3.12");
    assert_eq!(shown.text("agent.default_python").as_deref(), Some("3.9"));
}

proptest! {
    #![proptest_config(crate::bytes::campaign(64))]

    #[test]
    fn declared_secrets_never_show(secret in "S3CR3T[ -~]{0,12}", number in 0_usize..16) {
        let secrets: Vec<_> = declarations().filter(|key| key.secret).map(|key| key.key).collect();
        let key = secrets[number % secrets.len()];
        let value = if key.ends_with(".extra_credentials") {
            json!([{"user": "u", "pass": secret, "host": "h"}])
        } else {
            json!(secret)
        };
        let sources = Sources { overrides: vec![(key.to_owned(), value, "test".to_owned())], ..Sources::default() };
        let settings = Settings::load(&sources).unwrap();
        prop_assert!(settings.effective_json().to_string().contains("S3CR3T"));
        prop_assert!(!settings.masked_json().to_string().contains("S3CR3T"));
    }

    #[test]
    fn any_value_for_any_key_is_accepted_or_refused_by_name(number in 0_usize..1000, value in prop_oneof![
        Just(Value::Null), any::<bool>().prop_map(Value::from), any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from), "\\PC{0,8}".prop_map(Value::from),
        Just(json!([])), Just(json!({})), Just(json!(["x", 1])), Just(json!([{}])),
    ]) {
        let keys: Vec<_> = declarations().map(|key| key.key).collect();
        let key = keys[number % keys.len()];
        let sources = Sources { overrides: vec![(key.to_owned(), value, "test".to_owned())], ..Sources::default() };
        if let Err(error) = Settings::load(&sources) {
            prop_assert!(error.to_string().starts_with(key), "{}", error);
        }
    }
}
