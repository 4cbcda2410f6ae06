//! The dialect, judged by its results; cases of the reference's behaviour first.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{Base, Context, Document, read_value};
use crate::error::ConfigError;
use crate::fetch::Fetch;

fn read(text: &str) -> Result<Document, ConfigError> {
    let env = BTreeMap::from([("HOME_FOR_TEST".to_owned(), "/home/me".to_owned())]);
    let context = Context {
        env: &env,
        fetch: None,
    };
    let base = Base::File("test.conf".into());
    super::read_text_as(text, Path::new("test.conf"), &base, &context)
}

fn read_file(path: &Path, env: &BTreeMap<String, String>) -> Result<Document, ConfigError> {
    super::read_file(path, &Context { env, fetch: None })
}

fn root(text: &str) -> Value {
    Value::Object(
        read(text)
            .unwrap_or_else(|error| panic!("{text:?}: {error}"))
            .root,
    )
}

#[test]
fn documents_mean_what_they_mean_to_the_reference() {
    let cases = [
        // Comments, separators, root with and without braces.
        ("a: 1 # x\n// y\nb = 2", json!({"a": 1, "b": 2})),
        ("{a: 1,, b: 2,}", json!({"a": 1, "b": 2})),
        ("# only a comment", json!({})),
        ("", json!({})),
        ("\u{feff}a: 1\r\nb: x\r\n", json!({"a": 1, "b": "x"})),
        ("a: http://h:8008/p#z", json!({"a": "http://h:8008/p"})),
        ("a: x // y", json!({"a": "x // y"})),
        // Keys.
        ("a.b.c: 1, a.b.d: 2", json!({"a": {"b": {"c": 1, "d": 2}}})),
        ("a..b: 1\n.c: 2\nd.: 3", json!({"a": {"b": 1}, "c": 2, "d": 3})),
        ("\"a.b\": 1\na.\"b.c\": 2", json!({"a.b": 1, "a": {"b.c": 2}})),
        (
            "1: x\na b: 1\nü/x-y_z: 2",
            json!({"1": "x", "a b": 1, "ü/x-y_z": 2}),
        ),
        (
            "agent {\n  x: 1\n}\nagent { y: 2 }",
            json!({"agent": {"x": 1, "y": 2}}),
        ),
        ("agent\n{ x: 1 }", json!({"agent": {"x": 1}})),
        (
            "include: 1\nincludes.x: 2",
            json!({"include": 1, "includes": {"x": 2}}),
        ),
        // Objects and lists.
        ("a: {b: 1}\na: 5", json!({"a": 5})),
        ("a: 5\na: {b: 1}", json!({"a": {"b": 1}})),
        ("a: {b: 1} {c: 2}", json!({"a": {"b": 1, "c": 2}})),
        (
            "a: [1] [2]\nb: [\n  x\n  y, z w,\n]",
            json!({"a": [1, 2], "b": ["x", "y", "z w"]}),
        ),
        ("a: [1, 2]\na: [3]", json!({"a": [3]})),
        (
            "a: [{b: 1}, {b: 2}], c: []",
            json!({"a": [{"b": 1}, {"b": 2}], "c": []}),
        ),
        (
            "a: [1]\na += [2, 3]\nb += [1]\nc += []",
            json!({"a": [1, 2, 3], "b": [1], "c": []}),
        ),
        (
            "a: x\na += y\nb += y\nc: [1]\nc += 2",
            json!({"a": "x y", "b": "y", "c": [1, 2]}),
        ),
        // Texts.
        (
            r#"a: "\\ \n \" \= \! \d \u0041""#,
            json!({"a": "\\ \n \" = ! \\d A"}),
        ),
        ("a: \"\"\"x\n \"q\" \\n\"\"\"\"", json!({"a": "x\n \"q\" \\n\""})),
        (
            "a: ~/.clearml/x y  \nb: it's (fine); <a>|%",
            json!({"a": "~/.clearml/x y", "b": "it's (fine); <a>|%"}),
        ),
        (
            "a: p\\=q\\#r\nb: one \\\n two",
            json!({"a": "p=q#r", "b": "one  two"}),
        ),
        ("a: \"x\" y\nb: x\"y\"z", json!({"a": "x y", "b": "xyz"})),
        // Literals.
        (
            "a: 007, b: .5, c: -1e3, d: +2, e: 1.10",
            json!({"a": 7, "b": 0.5, "c": -1000.0, "d": 2, "e": 1.1}),
        ),
        (
            "a: 0x10, b: 1.2.3, c: 10GB, d: 5m",
            json!({"a": "0x10", "b": "1.2.3", "c": "10GB", "d": "5m"}),
        ),
        (
            "a: True, b: FALSE, c: Null, d: None, e: yes",
            json!({"a": true, "b": false, "c": null, "d": "None", "e": "yes"}),
        ),
        ("a: \"1\", b: \"true\"", json!({"a": "1", "b": "true"})),
        // Missing values.
        ("a:\nb: 1\nc:", json!({"a": "", "b": 1, "c": ""})),
        (
            "a:\n  {b: 1}\nc =\n [1]\nd:\n \"x\"\ne:\n x y",
            json!({"a": {"b": 1}, "c": [1], "d": "x", "e": "x y"}),
        ),
        ("o { a: }, b: , c: 1", json!({"o": {"a": ""}, "b": "", "c": 1})),
        ("a:\n \"b\": 1", json!({"a": "", "b": 1})),
        // Substitutions.
        ("a: ${b.c}/x\nb.c: /y", json!({"a": "/y/x", "b": {"c": "/y"}})),
        ("a: ${HOME_FOR_TEST}/x", json!({"a": "/home/me/x"})),
        (
            "HOME_FOR_TEST: /other\na: ${HOME_FOR_TEST}",
            json!({"HOME_FOR_TEST": "/other", "a": "/other"}),
        ),
        ("a: 5\na: ${?MISSING}\nb: ${?MISSING}", json!({"a": 5})),
        (
            "a: [1, ${?MISSING}, 2]\nb: ${?MISSING}/x",
            json!({"a": [1, null, 2], "b": "/x"}),
        ),
        ("a: [1]\na: ${a} [2]", json!({"a": [1, 2]})),
        (
            "a: {x: 1}\nb: ${a} {y: 2}",
            json!({"a": {"x": 1}, "b": {"x": 1, "y": 2}}),
        ),
        ("a: \"${b}\"", json!({"a": "${b}"})),
        // JSON.
        (
            r#"{"a": {"b": [1, 2.5, null, true, "x\ty"]}, "c": {}}"#,
            json!({"a": {"b": [1, 2.5, null, true, "x\ty"]}, "c": {}}),
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(root(text), expected, "{text:?}");
    }
}

#[test]
fn the_file_that_the_set_up_wizard_writes() {
    let text = "# ClearML configuration file\napi {\n    web_server: http://localhost:8080\n    api_server: http://localhost:8008\n    files_server: http://localhost:8081\n    credentials {\"access_key\": \"AK\", \"secret_key\": \"SK\"}\n}\nagent.package_manager.extra_index_url: [\"https://a:b@h/simple\", ]\n";
    let found = root(text);
    assert_eq!(found["api"]["api_server"], "http://localhost:8008");
    assert_eq!(found["api"]["credentials"]["secret_key"], "SK");
    assert_eq!(
        found["agent"]["package_manager"]["extra_index_url"],
        json!(["https://a:b@h/simple"])
    );
}

#[test]
fn errors_name_line_column_and_text_but_no_secret() {
    let message = |text: &str| read(text).unwrap_err().to_string();
    assert_eq!(
        message("agent {\n  worker_name: a=b\n}"),
        "Failed parsing test.conf (ParseSyntaxException): (at char 24, line:2, col:17): `=` may only stand in quotes; \
         put the value of agent.worker_name in double quotes, at: worker_name: a=b"
    );
    for text in [
        "agent.git_pass: hunter2@x",
        "api.credentials {\n secret_key: \"hunter2\n}",
        "api.credentials {access_key: a, secret_key: hunter2&}",
        "agent { git_user: me, git_pass: hunter2* }",
    ] {
        assert!(!message(text).contains("hunter2"), "{}", message(text));
    }
    assert!(
        message("a: 1\nb: ${NOT_THERE}")
            .contains("Failed loading test.conf: line 2, column 4: ${NOT_THERE} is defined neither")
    );
    assert!(message("b: ${c} [1]\nc: x").contains("line 1"));
    assert!(message("a: ${b}\nb: ${a}").contains("test.conf"));
}

#[test]
fn includes_are_relative_bounded_and_dialect() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    };
    let env = BTreeMap::from([("WHO".to_owned(), "me".to_owned())]);
    let main = write(
        "main.conf",
        "a: 1\ninclude \"sub/one.conf\"\ninclude \"missing.conf\"\nnested { include file(\"sub/two.conf\") }",
    );
    write("sub/one.conf", "a: 2\ninclude required(file(\"two.conf\"))");
    let two = write("sub/two.conf", "url: http://h:1\nwho: ${WHO}\ncopy: ${url}");
    let found = read_file(&main, &env).unwrap();
    let content = json!({"url": "http://h:1", "who": "me", "copy": "http://h:1"});
    assert_eq!(
        Value::Object(found.root),
        json!({"a": 2, "url": "http://h:1", "who": "me", "copy": "http://h:1", "nested": content})
    );
    assert_eq!(found.warnings.len(), 1, "{:?}", found.warnings);
    let place = &found.places[&["nested".to_owned(), "who".to_owned()][..]];
    assert_eq!((place.line, place.file.file_name()), (Some(2), two.file_name()));

    let cycle = write("cycle.conf", "include \"./sub/../cycle.conf\"");
    assert!(
        read_file(&cycle, &env)
            .unwrap_err()
            .to_string()
            .contains("includes itself")
    );
    let required = write("required.conf", "include required(\"missing.conf\")");
    assert!(
        read_file(&required, &env)
            .unwrap_err()
            .to_string()
            .contains("missing.conf")
    );
    let bad = write("outer.conf", "include \"bad.conf\"");
    write("bad.conf", "x: 1\ny: {");
    assert!(
        read_file(&bad, &env)
            .unwrap_err()
            .to_string()
            .contains("bad.conf (ParseSyntaxException): (at char 8, line:2, col:4)")
    );
    let latin1 = folder.path().join("latin1.conf");
    std::fs::write(&latin1, b"a: 1\nb: \xe4").unwrap();
    assert!(
        read_file(&latin1, &env)
            .unwrap_err()
            .to_string()
            .contains("line 2, column 4")
    );
}

#[test]
fn documents_from_the_network_need_a_fetcher_and_see_no_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("main.conf");
    let read = |text: &str, fetch: Option<&Fetch>| {
        std::fs::write(&path, text).unwrap();
        super::read_file(
            &path,
            &Context {
                env: &BTreeMap::new(),
                fetch,
            },
        )
    };
    // Without a fetcher: a warning, or an error where the document is required.
    for text in [
        "a: 1\ninclude url(\"http://h/x\")",
        "a: 1\ninclude \"https://user:hunter2@h/x\"",
        "a: 1\ninclude url(\"ftp://h/x\")",
    ] {
        let found = read(text, None).unwrap();
        assert_eq!(Value::Object(found.root), json!({"a": 1}));
        assert_eq!(found.warnings.len(), 1, "{text}");
        assert!(!found.warnings[0].contains("hunter2"), "{:?}", found.warnings);
    }
    let required = read("include required(url(\"http://h/x\"))", None).unwrap_err();
    assert!(
        required.to_string().contains("http://h/x is not included"),
        "{required}"
    );
    let local = format!(
        "include \"file://{}\"",
        folder.path().join("local.conf").display()
    );
    std::fs::write(folder.path().join("local.conf"), "b: 2").unwrap();
    assert_eq!(Value::Object(read(&local, None).unwrap().root), json!({"b": 2}));

    let fetch = Fetch::new(|url, limit| match url {
        "http://h/d/one.conf" => Ok(b"one: 1\ninclude \"two.conf\"".to_vec()),
        "http://h/d/two.conf" => Ok(b"two: ${one}".to_vec()),
        "http://h/etc/passwd" => Ok(b"asked: \"the server\"".to_vec()),
        "http://h/files" => Ok(b"include \"/etc/passwd\"".to_vec()),
        "http://h/scheme" => Ok(b"include \"file:///etc/passwd\"".to_vec()),
        "http://h/circle" => Ok(b"include \"http://h/circle\"".to_vec()),
        "http://h/large" => Ok(vec![b'#'; limit as usize + 1]),
        "http://h/latin" => Ok(vec![0xe4]),
        _ => Err("404".to_owned()),
    });
    let ok = |url: &str| {
        Value::Object(
            read(&format!("include url(\"{url}\")"), Some(&fetch))
                .unwrap()
                .root,
        )
    };
    assert_eq!(ok("http://h/d/one.conf"), json!({"one": 1, "two": 1}));
    assert_eq!(ok("http://h/files"), json!({"asked": "the server"}));
    assert_eq!(ok("http://h/large"), json!({}));
    assert_eq!(ok("http://h/none"), json!({}));
    for (url, reason) in [
        ("http://h/scheme", "no file of this machine"),
        ("http://h/circle", "includes itself"),
        ("http://h/latin", "not UTF-8"),
    ] {
        let error = read(&format!("include url(\"{url}\")"), Some(&fetch)).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn hostile_documents_are_refused_quickly() {
    let started = std::time::Instant::now();
    let mut doubling = String::from("a0: xxxxxxxxxx\n");
    let mut itself = String::from("a: xxxxxxxxxx\n");
    for n in 1..60 {
        doubling.push_str(&format!("a{n}: ${{a{m}}}${{a{m}}}\n", m = n - 1));
        itself.push_str("a: ${a}${a}\n");
    }
    assert!(read(&doubling).unwrap_err().to_string().contains("MiB"));
    assert!(read(&itself).unwrap_err().to_string().contains("MiB"));
    let many: String = (0..2000).map(|n| format!("b{n}: ${{b{}}}\n", n + 1)).collect();
    assert!(read(&many).is_err());
    for text in [
        "[".repeat(200_000),
        "a:[".repeat(100_000),
        "a.".repeat(300_000),
        "\"".repeat(300_001),
    ] {
        assert!(read(&text).is_err());
    }
    let folder = tempfile::tempdir().unwrap();
    let big = folder.path().join("big.conf");
    std::fs::write(&big, "#".repeat(2 << 20)).unwrap();
    assert!(matches!(
        read_file(&big, &BTreeMap::new()),
        Err(ConfigError::Read { .. })
    ));
    assert!(read_file(Path::new("/dev/zero"), &BTreeMap::new()).is_err());
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[test]
fn a_large_document_is_read_in_reasonable_time() {
    let started = std::time::Instant::now();
    let wide: String = (0..20_000).map(|n| format!("k{n}.v: \"value {n}\"\n")).collect();
    assert_eq!(read(&wide).unwrap().root.len(), 20_000);
    let list = format!("a: [{}]", "x, ".repeat(100_000));
    assert_eq!(read(&list).unwrap().root["a"].as_array().unwrap().len(), 100_000);
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[test]
fn values_of_override_variables() {
    for (text, expected) in [
        ("", json!("")),
        ("true", json!(true)),
        ("1.10", json!(1.1)),
        ("ubuntu:22.04", json!("ubuntu:22.04")),
        ("[\"^-e$\"]", json!(["^-e$"])),
        ("{Key: 1}", json!({"Key": 1})),
        ("5m", json!("5m")),
    ] {
        assert_eq!(read_value("agent.a b", text).unwrap(), expected, "{text}");
    }
    for text in ["a\nb: 1", "p@ss", "{", "${NOT_SET_ANYWHERE}"] {
        let reason = read_value("agent.git_pass", text).unwrap_err();
        assert!(!reason.contains("p@ss"), "{reason}");
        let names_key = reason.contains("put the value of agent.git_pass in double quotes");
        assert_eq!(names_key, text == "p@ss", "{reason}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("finite", |f| f.is_finite())
            .prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[ -~]{1,8}|\\PC{1,4}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn json_text_reads_as_the_same_value(members in prop::collection::btree_map("[ -~]{1,8}", any_json(), 0..5)) {
        let value: Map<String, Value> = members.into_iter().collect();
        for text in [serde_json::to_string(&value).unwrap(), serde_json::to_string_pretty(&value).unwrap()] {
            let expected: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(Value::Object(read(&text).unwrap().root), expected);
        }
    }

    #[test]
    fn no_text_brings_the_reader_down(text in "[a-c{}\\[\\],:=+.\"$?\\\\#/ \n0-9]{0,60}|\\PC{0,40}") {
        // Whatever passes the dialect must also pass the parser behind it.
        if let Err(ConfigError::Resolve { message, .. }) = read(&text) {
            prop_assert!(!message.contains("Unexpected token"), "{}", message);
        }
    }

    #[test]
    fn no_combination_of_assignments_brings_the_resolver_down(
        lines in prop::collection::vec(("[a-c](\\.[a-c]){0,2}", "=|\\+=|:", any_value()), 1..8)
    ) {
        let text: String = lines.iter().map(|(key, assign, value)| format!("{key} {assign} {value}\n")).collect();
        if let Err(ConfigError::Resolve { message, .. }) = read(&text) {
            prop_assert!(!message.contains("Unexpected token"), "{}", message);
        }
    }
}

/// Values as people and attackers combine them: literals, containers, substitutions.
fn any_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("1".to_owned()),
        Just("x y".to_owned()),
        Just("\"q\"".to_owned()),
        "\\$\\{\\??[a-c](\\.[a-c])?\\}",
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|items| format!("[{}]", items.join(", "))),
            ("[a-c]", inner.clone()).prop_map(|(key, value)| format!("{{{key}: {value}}}")),
            (inner.clone(), inner).prop_map(|(left, right)| format!("{left} {right}")),
        ]
    })
}

#[test]
fn deep_values_joined_by_substitutions_do_not_exhaust_the_stack() {
    let mut text = String::new();
    for n in 0..40 {
        text.push_str(&format!(
            "a{n}: {}${{a{}}}{}\n",
            "{x: ".repeat(28),
            n + 1,
            "}".repeat(28)
        ));
    }
    text.push_str("a40: 1\n");
    // Refused or resolved, but decided.
    let _ = read(&text).map(|document| document.root.len());
}
