//! What is shown to people.

use clearml_agent_config::{Settings, Sources, mask_urls, printout, properties};
use clearml_support::redact::Redactor;
use serde_json::json;

use crate::home::Home;

#[test]
fn what_is_shown_to_people_has_no_secrets() {
    let home = Home::new(&[(
        "clearml.conf",
        r#"api.credentials { access_key: AK, secret_key: "hunter2-a" }
        agent {
            git_user: me, git_pass: "hunter2-b"
            git.extra_credentials: [{user: you, pass: "hunter2-c", host: h}]
            package_manager.extra_index_url: ["https://u:hunter2-d@h/simple"]
            extra_docker_arguments: ["-e", "AWS_SECRET_ACCESS_KEY=hunter2-e", "--env=MINE=hunter2-f", "-eMINE=hunter2-g", "-e", "SHOWN=1", "-e", "TRAINS_DOCKER_IMAGE=img -e MINE=hunter2-k"]
            hide_docker_command_env_vars.extra_keys: [MINE]
        }
        environment { ANY: "hunter2-h" }
        files { one { path: "~/x", contents: "hunter2-i" } }
        sdk.proxy: "http://u:hunter2-j@h:1""#,
    )])
    .env(&[("AWS_SECRET_ACCESS_KEY", "hunter2-l")]);
    let settings = home.load();
    let shown = serde_json::to_string_pretty(&settings.masked_json()).unwrap();
    assert!(!shown.contains("hunter2"), "{shown}");
    for visible in ["\"AK\"", "\"me\"", "SHOWN=1", "https://u:********@h/simple"] {
        assert!(shown.contains(visible), "{visible} in {shown}");
    }
    assert!(!format!("{settings:?} {:?} {:?}", settings.agent, settings.api).contains("hunter2"));
    let redactor = Redactor::new();
    settings.register_secrets(&redactor);
    for letter in ["a", "b", "c", "l"] {
        assert_eq!(redactor.redact(&format!("x hunter2-{letter} y")), "x **** y");
    }
    // Switching the patterns off does not show what is known to be secret.
    let off = "agent.sanitize_config_printout { hide_secrets: [], hide_secrets_recursive: [], urls: [], docker_commands: [] }";
    std::fs::write(home.path("more.conf"), format!("include \"clearml.conf\"\n{off}")).unwrap();
    let sources = Sources {
        config_file: Some(home.path("more.conf")),
        ..home.sources.clone()
    };
    let shown = Settings::load(&sources).unwrap().masked_json().to_string();
    for letter in ["a", "b", "d", "l"] {
        assert!(
            !shown.contains(&format!("hunter2-{letter}")),
            "{letter} in {shown}"
        );
    }
}

#[test]
fn keys_are_masked_by_the_patterns_in_their_order() {
    let text = r#"
        mine { token: t1t1t1, x_secret: [1, 2], environment { A: 1, B: {c: 2} }, plain: shown, number_token: 5 }
        mine.contents: {a: 1}
        listed: [{pass: "hunter2", kept: 1}]
        tokenizer: harmless
        enable_git_ask_pass: yes"#;
    let settings = Home::new(&[("clearml.conf", text)]).load();
    let shown = settings.masked_json();
    assert_eq!(
        shown["mine"],
        json!({
            "token": "****", "x_secret": "****", "environment": {"A": "****", "B": "****"},
            "plain": "shown", "number_token": "****", "contents": "****",
        })
    );
    assert_eq!(shown["listed"], json!([{"pass": "****", "kept": 1}]));
    assert_eq!(shown["tokenizer"], "****");
    assert_eq!(shown["enable_git_ask_pass"], "yes");
    assert_eq!(shown["agent"]["sanitize_config_printout"], "****");
    assert_eq!(shown["api"]["auth"]["token_expiration_threshold_sec"], "****");

    // The lists can be changed; without a list only what is declared secret, and URLs, stay hidden.
    let text = r#"
        agent.sanitize_config_printout { hide_secrets: ["^own$"], dont_hide_secrets: [], hide_secrets_recursive: ["^deep$"] }
        own: 1, deep {a: 1}, deeper {deep: 2}, pass: visible, environment {A: 1}, broken: 3"#;
    let shown = Home::new(&[("clearml.conf", text)]).load().masked_json();
    assert_eq!(
        json!([
            shown["own"],
            shown["deep"],
            shown["deeper"],
            shown["pass"],
            shown["environment"]
        ]),
        json!(["****", {"a": "****"}, {"deep": "****"}, "visible", {"A": 1}])
    );
}

#[test]
fn container_commands_are_masked_by_variable() {
    let home = Home::new(&[(
        "clearml.conf",
        "agent.hide_docker_command_env_vars { enabled: true, extra_keys: [MINE] }",
    )])
    .env(&[("CLEARML_AGENT_DOCKER_ARGS_HIDE_ENV", "OTHER 'AND THIS'")]);
    let mask = home.load().command_mask();
    for (command, expected) in [
        (
            "run -e CLEARML_API_SECRET_KEY=x img",
            "run -e CLEARML_API_SECRET_KEY=******** img",
        ),
        (
            "run --env MINE=x --env=OTHER=y -eMINE=z",
            "run --env MINE=******** --env=OTHER=******** -eMINE=********",
        ),
        (
            "-e=MINE=x -te MINE=y -itdeMINE=z -ie=OTHER=w",
            "-e=MINE=******** -te MINE=******** -itdeMINE=******** -ie=OTHER=********",
        ),
        (
            "-e URL=https://u:p4ss@h/x https://u:p4ss@h",
            "-e URL=https://u:********@h/x https://u:********@h",
        ),
        ("-e SHOWN=1 -e ALSO", "-e SHOWN=1 -e ALSO"),
    ] {
        assert_eq!(mask.text(command), expected);
    }
    let nested = [
        "-e",
        "CLEARML_DOCKER_IMAGE=img -e MINE=x -e TRAINS_DOCKER_IMAGE=y -e CLEARML_AUTH_TOKEN=z",
    ];
    let masked = mask.words(&nested.map(str::to_owned));
    assert!(
        masked[1].contains("MINE=********") && masked[1].ends_with("CLEARML_AUTH_TOKEN=********"),
        "{masked:?}"
    );

    let off = "agent.hide_docker_command_env_vars { enabled: false, parse_embedded_urls: false }";
    let mask = Home::new(&[("clearml.conf", off)]).load().command_mask();
    assert_eq!(
        mask.text("-e CLEARML_API_SECRET_KEY=x"),
        "-e CLEARML_API_SECRET_KEY=x"
    );
    // The variable alone switches it on.
    let mask = Home::new(&[("clearml.conf", off)])
        .env(&[("CLEARML_AGENT_DOCKER_ARGS_HIDE_ENV", "OTHER")])
        .load()
        .command_mask();
    assert_eq!(
        mask.text("-e OTHER=x -e CLEARML_AUTH_TOKEN=y"),
        "-e OTHER=******** -e CLEARML_AUTH_TOKEN=********"
    );
    assert_eq!(mask.text("-e A=https://u:p4ss@h"), "-e A=https://u:p4ss@h");
    assert_eq!(
        mask_urls("ssh://git:p4ss@h:22/x and me@h"),
        "ssh://git:********@h:22/x and me@h"
    );
}

#[test]
fn the_printout_is_a_list_of_properties() {
    let text = "sdk { a: \"x=y!#\\nz\", l: [1, {k: v}], empty: [], none: {}, nothing: null, on: True,\n\"k\\u001b[31m\": \"v\\u001b[0m\" }\n\"quoted.key\": 1";
    let home = Home::new(&[("clearml.conf", text)]);
    let settings = home.load();
    let shown = printout(&settings, "1.2.3");
    let mut lines = shown.lines();
    assert_eq!(
        lines.next().unwrap(),
        format!(
            "Current configuration (clearml_agent v1.2.3, location: {}):",
            home.path("clearml.conf").display()
        )
    );
    assert_eq!(lines.next().unwrap(), "----------------------");
    for wanted in [
        "sdk.a = x\\=y\\!\\#\\\nz\n",
        "\nsdk.l.0 = 1\nsdk.l.1.k = v\n",
        "\nsdk.on = true\n",
        // Nothing in it steers the terminal.
        "\nsdk.k\\u{1b}[31m = v\\u{1b}[0m\n",
        "\nquoted.key = 1\n",
        "\nagent.worker_name = box\n",
        "\nagent.sanitize_config_printout = ****\n",
    ] {
        assert!(shown.contains(wanted), "{wanted:?} in {shown}");
    }
    for unwanted in [
        "sdk.empty",
        "sdk.none",
        "sdk.nothing",
        "\nenv ",
        "logging.version",
        "urllib3.level",
        "Using custom",
    ] {
        assert!(!shown.contains(unwanted), "{unwanted:?} in {shown}");
    }
    assert!(shown.ends_with("\n\n"));

    let with_origins = properties(&settings, true);
    let place = home.path("clearml.conf").display().to_string();
    for wanted in [
        format!("sdk.l.1.k = v    # {place}:1"),
        "agent.worker_name = box    # derived from the host name".to_owned(),
        "agent.vcs_cache.enabled = true    # default".to_owned(),
    ] {
        assert!(with_origins.contains(&wanted), "{wanted} in {with_origins:#?}");
    }
    let none = Home::new(&[]).load();
    assert!(printout(&none, "1").contains("location: None"));
    let custom = Home::new(&[("other.conf", "")]).env(&[
        ("CLEARML_CONFIG_FILE", "~/other.conf"),
        ("CLEARML_AGENT_CONFIG_VERBOSE", "1"),
    ]);
    let path = custom.path("other.conf").display().to_string();
    let expected = format!(
        "Using custom configuration file from env var: {path}\nLoading config from file {path}\nCurrent configuration (clearml_agent v1, location: {path}):\n"
    );
    assert!(printout(&custom.load(), "1").starts_with(&expected));
}
