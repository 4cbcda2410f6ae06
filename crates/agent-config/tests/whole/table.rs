//! Every declared key and variable, one by one.

use clearml_agent_config::{
    Class, Declaration, DefaultValue, Kind, Settings, Standing, declarations, sections, variable,
    variable_sections, variables,
};
use serde_json::{Value, json};

use crate::home::Home;

/// A value that the kind takes, and one that it does not.
fn samples(kind: Kind) -> (Value, Option<Value>) {
    match kind {
        Kind::Text | Kind::Path => (json!("some text"), Some(json!({"a": 1}))),
        Kind::Flag => (json!("yes"), Some(json!("perhaps"))),
        Kind::Integer(least) => (json!(least.max(7)), Some(json!("many"))),
        Kind::Port => (json!(8022), Some(json!(70000))),
        Kind::PortRange => (json!([10000, 20000]), Some(json!([2, 1]))),
        Kind::Number(least) => (json!(least.max(7.5)), Some(json!("many"))),
        Kind::List | Kind::Words => (json!(["a", "b c"]), Some(json!([["a"]]))),
        Kind::Choice(words) => (
            json!(words[words.len() - 1].to_uppercase()),
            Some(json!("none of them")),
        ),
        Kind::Verify => (json!("~/ca.pem"), Some(json!(["a"]))),
        Kind::Map => (json!({"a": "b"}), Some(json!({"a": []}))),
        Kind::Entries => (json!([{"a": 1}]), Some(json!(["a"]))),
        other => panic!("no sample of {other}"),
    }
}

fn with_value(declaration: &Declaration, value: &Value) -> (Home, Result<Settings, String>) {
    let home = Home::new(&[("clearml.conf", &format!("\n  {}: {value}\n", declaration.key))]);
    let loaded = Settings::load(&home.sources).map_err(|error| error.to_string());
    (home, loaded)
}

#[test]
fn every_key_takes_its_values() {
    for declaration in declarations() {
        let (good, _) = samples(declaration.kind);
        let (home, loaded) = with_value(declaration, &good);
        let settings = loaded.unwrap_or_else(|error| panic!("{}: {error}", declaration.key));
        assert_eq!(settings.get(declaration.key), Some(&good), "{}", declaration.key);
        let place = format!("{}:2", home.path("clearml.conf").display());
        assert_eq!(settings.origin(declaration.key).unwrap().to_string(), place);
        let surprises: Vec<String> = settings
            .warnings()
            .iter()
            .map(ToString::to_string)
            .filter(|text| !text.contains("is ignored") && !text.contains("may not belong together"))
            .collect();
        assert_eq!(surprises, [""; 0], "{}", declaration.key);
    }
}

#[test]
fn every_key_refuses_what_it_is_not_for() {
    for declaration in declarations() {
        let (_, Some(bad)) = samples(declaration.kind) else {
            continue;
        };
        let (home, loaded) = with_value(declaration, &bad);
        let place = format!("{}:2:3", home.path("clearml.conf").display());
        let text = match loaded {
            Ok(_) if matches!(declaration.standing, Standing::PassedOn(_)) => continue,
            Ok(settings) if declaration.instead.is_some() => settings.warnings()[0].to_string(),
            Ok(_) => panic!("{} takes {bad}", declaration.key),
            Err(error) => error,
        };
        for wanted in [declaration.key, &declaration.kind.to_string(), &place] {
            assert!(text.contains(wanted), "{wanted:?} in {text}");
        }
    }
}

#[test]
fn every_default_is_in_force() {
    let settings = Home::new(&[]).load();
    for declaration in declarations() {
        match declaration.default {
            DefaultValue::Packaged(text) => {
                let default: Value = serde_json::from_str(text).unwrap();
                let derived = ["agent.worker_name"].contains(&declaration.key);
                assert!(
                    derived || settings.get(declaration.key) == Some(&default),
                    "{}",
                    declaration.key
                );
            }
            DefaultValue::Internal(text) if declaration.kind == Kind::Flag => {
                assert_eq!(
                    settings.flag(declaration.key),
                    text == "true",
                    "{}",
                    declaration.key
                );
            }
            DefaultValue::Internal(text)
                if matches!(declaration.kind, Kind::Number(_) | Kind::Integer(_)) =>
            {
                assert_eq!(
                    settings.number(declaration.key),
                    text.parse::<f64>().unwrap(),
                    "{}",
                    declaration.key
                );
            }
            DefaultValue::Internal(text) if declaration.kind == Kind::List => {
                assert_eq!(
                    json!(settings.list(declaration.key)).to_string(),
                    text.replace(", ", ",")
                );
            }
            _ => {}
        }
    }
    assert_eq!(settings.list("agent.extra_docker_arguments"), [""; 0]);
    assert_eq!(settings.text("agent.git_user"), None);
    assert_eq!(
        settings.path("agent.docker_poetry_cache"),
        Some(
            settings
                .path("agent.vcs_cache.path")
                .unwrap()
                .with_file_name("poetry-cache")
        )
    );
    let words = Home::new(&[(
        "clearml.conf",
        "agent.extra_docker_arguments: \"-v '/a b:/c' --ipc=host\"",
    )])
    .load();
    assert_eq!(
        words.list("agent.extra_docker_arguments"),
        ["-v", "/a b:/c", "--ipc=host"]
    );
}

/// A text for a variable of this kind, and one that is unusable.
fn texts(kind: Kind) -> (&'static str, Option<&'static str>) {
    match kind {
        Kind::Flag => ("On", Some("perhaps")),
        Kind::Integer(_) | Kind::Number(_) | Kind::Port => ("1234567", Some("many")),
        Kind::List | Kind::Words => ("a 'b c'", Some("'open")),
        Kind::Choice(words) => (words[0], Some("none of them")),
        Kind::Map => ("{\"a\": \"b\"}", Some("x")),
        Kind::Entries => ("[{\"a\": 1}]", Some("x")),
        Kind::Verify => ("false", None),
        Kind::Attempts => ("3", Some("-1")),
        Kind::Version => ("2.14", Some("2.x")),
        _ => ("some text", None),
    }
}

#[test]
fn every_variable_of_a_key_sets_it_by_each_of_its_names() {
    for declaration in declarations() {
        let (good, bad) = texts(declaration.kind);
        for name in declaration.variables {
            let settings = Home::new(&[]).env(&[(name, good)]).load();
            let origin = settings.origin(declaration.key).unwrap().to_string();
            assert_eq!(origin, format!("environment variable {name}"));
            let value = settings.get(declaration.key).unwrap();
            let expected = match declaration.kind {
                Kind::Flag => json!(true),
                Kind::Integer(_) => json!(1_234_567),
                Kind::List | Kind::Words => json!(["a", "b c"]),
                Kind::Verify => json!(false),
                Kind::Map | Kind::Entries => serde_json::from_str(good).unwrap(),
                Kind::Number(_) | Kind::Port => value.clone(),
                _ => json!(good),
            };
            assert_eq!(*value, expected, "{name}");
            // Empty means unset.
            let empty = Home::new(&[]).env(&[(name, " ")]).load();
            assert!(
                empty
                    .origin(declaration.key)
                    .is_none_or(|origin| !origin.to_string().contains(name))
            );
        }
        let (Some(name), Some(bad)) = (declaration.variables.first(), bad) else {
            continue;
        };
        check_unusable(name, bad, declaration.class, &declaration.kind.to_string());
        if let [first, second, ..] = declaration.variables {
            let both = Home::new(&[]).env(&[(first, good), (second, bad)]).load();
            assert!(both.warnings().is_empty(), "{first} counts, not {second}");
        }
    }
}

#[test]
fn every_other_variable_is_checked() {
    for own in variables() {
        let (good, bad) = texts(own.kind);
        for name in own.names.iter().filter(|name| !name.ends_with('*')) {
            let good = if own.kind == Kind::Port { "29500" } else { good };
            let settings = Home::new(&[]).env(&[(name, good)]).load();
            assert!(
                settings.warnings().is_empty(),
                "{name}: {:?}",
                settings.warnings()
            );
            match own.kind {
                Kind::Flag => assert_eq!(settings.variable_flag(own.names[0]), Some(true), "{name}"),
                Kind::List => assert_eq!(settings.variable_list(own.names[0]), ["a", "b c"], "{name}"),
                Kind::Integer(_) | Kind::Number(_) => {
                    assert_eq!(
                        settings.variable_number(own.names[0]),
                        Some(1_234_567.0),
                        "{name}"
                    );
                }
                _ => assert!(settings.variable_text(own.names[0]).is_some(), "{name}"),
            }
        }
        match bad {
            Some("perhaps") if own.class == Class::Presence => {
                let settings = Home::new(&[]).env(&[(own.names[0], "perhaps")]).load();
                assert_eq!(
                    settings.variable_flag(own.names[0]),
                    Some(true),
                    "any text means yes"
                );
                let settings = Home::new(&[]).env(&[(own.names[0], "0")]).load();
                assert_eq!(
                    settings.variable_flag(own.names[0]),
                    Some(false),
                    "but not a word for no"
                );
            }
            Some(bad) => check_unusable(own.names[0], bad, own.class, &own.kind.to_string()),
            None => {}
        }
    }
    assert!(
        variable("CLEARML_AGENT_GIT_USER").is_none(),
        "it stands for a key"
    );
}

fn check_unusable(name: &str, text: &str, class: Class, kind: &str) {
    let home = Home::new(&[]).env(&[(name, text)]);
    match class {
        Class::Lenient | Class::Presence => {
            let warning = home.load().warnings()[0].to_string();
            let expected =
                format!("Environment configuration: invalid value {name}={text}: it must be {kind}");
            assert!(warning.starts_with(&expected), "{warning}");
        }
        Class::Strict | Class::OnlyTrue => {
            let error = home.error();
            assert!(error.contains(name) && error.contains(kind), "{error}");
        }
    }
}

#[test]
fn a_variable_that_only_switches_on_leaves_the_file_alone_when_false() {
    let file = (
        "clearml.conf",
        "agent { disable_ssh_mount: true, git_use_azure_pat: true }",
    );
    let names = [
        "CLEARML_AGENT_DISABLE_SSH_MOUNT",
        "CLEARML_AGENT_GIT_USE_AZURE_PAT",
    ];
    let off = Home::new(&[file]).env(&names.map(|name| (name, "false"))).load();
    assert!(off.flag("agent.disable_ssh_mount") && off.flag("agent.git_use_azure_pat"));
    let on = Home::new(&[]).env(&names.map(|name| (name, "1"))).load();
    assert!(on.flag("agent.disable_ssh_mount") && on.flag("agent.git_use_azure_pat"));
}

#[test]
fn values_of_the_wrong_type_that_have_a_substitute_are_only_warned_of() {
    let text =
        "agent { task_ping_interval_sec: never, git_fetch_args: {}, package_manager.pytorch_resolve: magic }";
    let settings = Home::new(&[("clearml.conf", text)]).load();
    assert_eq!(settings.warnings().len(), 3, "{:?}", settings.warnings());
    assert_eq!(settings.agent.task_ping_interval_sec, None);
    assert_eq!(settings.agent.git.fetch_args, [""; 0]);
    assert_eq!(
        settings.text("agent.package_manager.pytorch_resolve").as_deref(),
        Some("pip")
    );
}

/// Ids of the rows of a conformance file.
fn rows(file: &str) -> Vec<String> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures/conformance")
        .join(file);
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .filter_map(|line| Some(line.strip_prefix("id = \"")?.trim_end_matches('"').to_owned()))
        .collect()
}

#[test]
fn the_conformance_lists_and_the_tables_name_the_same_things() {
    let keys = rows("config.toml");
    for declaration in sections().iter().flat_map(|section| section.keys) {
        assert!(
            keys.iter().any(|id| id == declaration.key),
            "{} has no row",
            declaration.key
        );
    }
    for id in keys.iter().filter(|id| {
        ["agent.", "api.", "sdk.", "logging."]
            .iter()
            .any(|part| id.starts_with(part))
    }) {
        assert!(
            declarations().any(|declaration| declaration.key == id),
            "{id} is not declared"
        );
    }
    let names = rows("environment.toml");
    let declared = variable_sections()
        .iter()
        .flat_map(|section| section.variables)
        .flat_map(|own| own.names);
    let of_keys = declarations().flat_map(|declaration| declaration.variables);
    let all: Vec<&str> = declared.chain(of_keys).copied().collect();
    for name in &all {
        assert!(names.iter().any(|id| id == name), "{name} has no row");
    }
    for id in names
        .iter()
        .filter(|id| id.starts_with(|c: char| c.is_ascii_uppercase()))
    {
        assert!(all.iter().any(|name| name == id), "{id} is not declared");
    }
}
