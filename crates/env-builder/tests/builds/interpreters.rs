//! Interpreters that are not there yet, and those of other makers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clearml_env_builder::PackageManagerKind;
use serde_json::{Value, json};

use crate::common::Bench;
use crate::web::{Site, Web};

fn script(binary: &str) -> Value {
    json!({"binary": binary, "entry_point": "a.py", "diff": "print('ok')"})
}

fn program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn here() -> PathBuf {
    let question = ["-c", "import os, sys; print(os.path.realpath(sys.executable))"];
    let output = Command::new("python3").args(question).output().unwrap();
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

#[test]
fn interpreters_of_other_makers_make_their_own_environments() {
    let mut bench = Bench::new();
    let (real, fake) = (here(), bench.path("bin/python3"));
    // It says that it is another one, and has no virtualenv.
    let text = format!(
        "#!/bin/sh\ncase \"$*\" in\n  *'-m virtualenv'*) echo 'No module named virtualenv' >&2; exit 1;;\n  \
         *_base_executable*) {real} \"$@\" | sed -e 's/\"cpython\"/\"other\"/' -e 's|{real}|{fake}|';;\n  \
         *) exec {real} \"$@\";;\nesac\n",
        real = real.display(),
        fake = fake.display()
    );
    program(&fake, &text);
    let path = format!("{}:/usr/bin:/bin", bench.path("bin").display());
    bench.env("PATH", path);
    bench.settings.caches_dir = bench.path("caches");
    let (prepared, host, output) = bench.build_and_run(script("python3"));
    assert_eq!(output, "ok\n");
    let console = host.console();
    assert!(
        console.contains("virtualenv made no environment: No module named virtualenv"),
        "{console}"
    );
    assert!(
        prepared.python.unwrap().with_file_name("pip").exists(),
        "{console}"
    );
}

#[test]
fn uv_is_told_where_interpreters_are_on_machines_without_the_internet() {
    let mut bench = Bench::new();
    let (uv, seen) = (bench.path("uv"), bench.path("seen"));
    // It keeps what it would have downloaded from.
    let text = format!(
        "#!/bin/sh\nfor last; do :; done\n[ \"$1\" = venv ] || exit 1\ncat \"$UV_PYTHON_DOWNLOADS_JSON_URL\" > {}\n\
         exec {} -m venv --without-pip \"$last\"\n",
        seen.display(),
        here().display()
    );
    program(&uv, &text);
    bench.settings.package_manager.kind = PackageManagerKind::Uv;
    bench.settings.package_manager.uv_binary = Some(uv);
    bench.settings.caches_dir = bench.path("caches");
    let list = json!({"cpython-3.99": {"url": "https://elsewhere.example/a/python.tar.gz"}}).to_string();
    let page = format!("printf 'Content-Type: application/json\\r\\n\\r\\n%s' '{list}'");
    let web = Web::start(Site {
        cgi: ["sh", "-c", &page].map(str::to_owned).to_vec(),
        env: Vec::new(),
        wanted: None,
        redirect: None,
        busy: 0,
    });
    let file = bench.path("list.json");
    fs::write(&file, &list).unwrap();
    for (named, expected) in [
        (web.url("list.json"), web.url("a/python.tar.gz")),
        (
            file.display().to_string(),
            "https://elsewhere.example/a/python.tar.gz".to_owned(),
        ),
    ] {
        bench.settings.package_manager.uv_python_meta_file = Some(named);
        bench.build_and_run(script("python3.99"));
        let told = fs::read_to_string(&seen).unwrap();
        assert!(told.contains(&expected), "{told}");
    }
    bench.settings.package_manager.uv_python_meta_file = Some("http://127.0.0.1:1/list.json".into());
    let (_, host, _) = bench.build_and_run(script("python3.99"));
    assert!(
        host.console()
            .contains("uv looks for interpreters where it usually does"),
        "{}",
        host.console()
    );
}
