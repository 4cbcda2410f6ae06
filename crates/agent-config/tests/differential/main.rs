//! Our reader against the official Python agent's own parser, on the same files.
//!
//! The official agent is installed once into an environment below the build folder. One Python process reads
//! all files. Where we deliberately read something else, the case says so, and the test insists that it still
//! is a difference.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod corpus;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clearml_agent_config::{Settings, Sources};
use clearml_support::command::Command;
use clearml_support::lock::FileLock;
use serde_json::Value;

use corpus::{Case, Expect};

const PACKAGE: &str = "clearml-agent==3.0.3";
const LIMIT: Duration = Duration::from_secs(600);
/// What both readers see in their environment.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("DIFF_TEXT", "from env"),
    ("DIFF_NUMBER", "42"),
    ("DIFF_EMPTY", ""),
];

/// The interpreter of an environment that has the official agent; nothing when this machine can't have one.
fn python(test: &str) -> Option<PathBuf> {
    let works = |arguments: &[&str]| Command::new("python3").args(arguments).check().is_ok();
    if !works(&["--version"]) || !works(&["-m", "ensurepip", "--version"]) {
        eprintln!("SKIPPED {test}: python3 with venv and pip is not installed");
        return None;
    }
    // The workbench of xtask keeps its environments in the same place and by the same rules.
    let root = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .unwrap()
        .join("python");
    std::fs::create_dir_all(&root).unwrap();
    let _lock = FileLock::acquire(&root.join("agent.lock"), LIMIT).unwrap();
    let folder = root.join("agent");
    let complete = folder.join("complete.txt");
    let program = folder.join("bin/python");
    if !std::fs::read_to_string(&complete).is_ok_and(|installed| installed == PACKAGE) {
        let install = || {
            Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(&folder)
                .timeout(LIMIT)
                .check()?;
            Command::new(&program)
                .args([
                    "-m",
                    "pip",
                    "install",
                    "--disable-pip-version-check",
                    "-q",
                    PACKAGE,
                ])
                .timeout(LIMIT)
                .check()
        };
        if let Err(error) = install() {
            eprintln!("SKIPPED {test}: {PACKAGE} can't be installed: {error}");
            return None;
        }
        std::fs::write(&complete, PACKAGE).unwrap();
    }
    Some(program)
}

/// What the official parser says about each file.
fn reference(python: &Path, files: &[PathBuf]) -> Vec<Value> {
    let list: String = files.iter().map(|file| format!("{}\n", file.display())).collect();
    let command = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential/reference.py"))
        .env_clear();
    let output = ENVIRONMENT
        .iter()
        .fold(command, |command, (name, value)| command.env(name, value))
        .stdin_bytes(list.into_bytes())
        .timeout(LIMIT)
        .check()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers.len(), files.len());
    answers
}

fn sources(file: &Path) -> Sources {
    Sources {
        config_file: Some(file.to_path_buf()),
        env: ENVIRONMENT
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<BTreeMap<_, _>>(),
        home: Some("/home/me".into()),
        host_name: Some("box".to_owned()),
        ..Sources::default()
    }
}

/// What we read from a file, without the defaults that nobody set.
fn ours(file: &Path, without: &Value) -> Result<Value, String> {
    let settings = Settings::load(&sources(file)).map_err(|error| error.to_string())?;
    let Value::Object(mut members) = settings.effective_json() else {
        unreachable!("the configuration is an object")
    };
    members.retain(|name, _| without.get(name).is_none());
    Ok(Value::Object(members))
}

/// Equal, where numbers are compared by what they are, not by how they are written.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

#[test]
fn files_mean_what_they_mean_to_the_official_parser() {
    let Some(python) = python("files_mean_what_they_mean_to_the_official_parser") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in corpus::INCLUDED {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let cases: Vec<Case> = corpus::written()
        .into_iter()
        .chain(corpus::generated(60))
        .collect();
    assert!(cases.len() >= 100);
    let file = |number: usize| folder.path().join(format!("case-{number}.conf"));
    for (number, case) in cases.iter().enumerate() {
        std::fs::write(file(number), &case.text).unwrap();
    }
    let empty = folder.path().join("empty.conf");
    std::fs::write(&empty, "").unwrap();
    let defaults = Settings::load(&sources(&empty)).unwrap().effective_json();
    let answers = reference(&python, &(0..cases.len()).map(file).collect::<Vec<_>>());
    let mut problems = Vec::new();
    for (number, (case, answer)) in cases.iter().zip(answers).enumerate() {
        let ours = ours(&file(number), &defaults);
        let agree = match (&ours, answer.get("values")) {
            (Ok(ours), Some(values)) => same(ours, values),
            (Err(_), None) => true,
            _ => false,
        };
        match case.expect {
            Expect::Same if !agree => {
                problems.push(format!(
                    "{:?}\n  we read   {ours:?}\n  they read {answer}",
                    case.text
                ));
            }
            Expect::Otherwise(why) if agree => {
                problems.push(format!(
                    "{:?} is no longer read in another way ({why}): {answer}",
                    case.text
                ));
            }
            Expect::Otherwise(why) if ours.is_err() => {
                problems.push(format!("{:?} can't be read at all ({why}): {ours:?}", case.text));
            }
            _ => {}
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn the_official_defaults_load_without_a_warning_and_agree() {
    let Some(python) = python("the_official_defaults_load_without_a_warning_and_agree") else {
        return;
    };
    let found = Command::new(&python)
        .args([
            "-c",
            "import clearml_agent, os; print(os.path.dirname(clearml_agent.__file__))",
        ])
        .timeout(LIMIT)
        .check()
        .unwrap();
    let package = PathBuf::from(String::from_utf8(found.stdout).unwrap().trim());
    let defaults = package.join("backend_api/config/default");
    let names = ["agent", "api", "sdk", "logging"];
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("clearml.conf");
    let text: String = names
        .iter()
        .map(|name| format!("{name} {{\n include \"{}/{name}.conf\"\n}}\n", defaults.display()))
        .collect();
    std::fs::write(&whole, text).unwrap();
    let settings = Settings::load(&sources(&whole)).unwrap();
    assert_eq!(settings.warnings(), []);

    let files: Vec<PathBuf> = names
        .iter()
        .map(|name| defaults.join(format!("{name}.conf")))
        .collect();
    let empty = folder.path().join("empty.conf");
    std::fs::write(&empty, "").unwrap();
    let packaged = Settings::load(&sources(&empty)).unwrap();
    for (name, answer) in names.iter().zip(reference(&python, &files)) {
        for (path, value) in leaves(&answer["values"], name) {
            let read = settings.get(&path).unwrap_or_else(|| panic!("{path} is missing"));
            // Empty means unset, and then it is worked out.
            if value != "" {
                assert!(same(read, &value), "{path}: we read {read}, they read {value}");
            }
            // Our own packaged defaults are the same ones.
            let packaged = packaged.get(&path);
            let nothing = value == "" || value == serde_json::json!({});
            assert!(
                nothing || packaged.is_some_and(|packaged| same(packaged, &value)),
                "{path}: our default is {packaged:?}, theirs {value}"
            );
        }
    }
}

fn leaves(value: &Value, path: &str) -> Vec<(String, Value)> {
    match value {
        Value::Object(members) if !members.is_empty() => members
            .iter()
            .flat_map(|(name, member)| leaves(member, &format!("{path}.{name}")))
            .collect(),
        other => vec![(path.to_owned(), other.clone())],
    }
}
