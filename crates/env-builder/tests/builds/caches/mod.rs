//! The cache of environments.

mod at_once;
mod hits;
mod kills;
mod limits;
mod moving;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clearml_env_builder::PreparedEnvironment;
use serde_json::{Value, json};

use crate::common::{Bench, Recorder};

/// A bench with a cache, and wheels with a console script each.
pub(super) fn bench(names: &[&str]) -> Bench {
    let mut bench = Bench::new();
    bench.settings.venvs_cache.path = Some(bench.path("venvs"));
    bench.settings.venvs_cache.min_free_bytes = None;
    for name in names {
        script_wheel(&bench.path("wheels"), name, "1.0");
    }
    let wheels = bench.path("wheels").display().to_string();
    bench.env("PIP_NO_INDEX", "1");
    bench.env("PIP_FIND_LINKS", wheels);
    bench
}

/// A wheel with a package, and a console script that says which interpreter runs it.
pub(super) fn script_wheel(folder: &Path, name: &str, version: &str) {
    fs::create_dir_all(folder).unwrap();
    let program = r"
import sys, zipfile
folder, name, version = sys.argv[1:]
info = f'{name}-{version}.dist-info'
text = f'import sys\nVERSION = {version!r}\ndef main():\n    print(VERSION, sys.executable)\n'
files = {
    f'{name}/__init__.py': text,
    f'{name}/data.txt': 'data',
    f'{info}/METADATA': f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n',
    f'{info}/WHEEL': 'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
    f'{info}/entry_points.txt': f'[console_scripts]\n{name}-run = {name}:main\n',
}
with zipfile.ZipFile(f'{folder}/{name}-{version}-py3-none-any.whl', 'w') as z:
    for path, text in files.items():
        z.writestr(path, text)
    z.writestr(f'{info}/RECORD', ''.join(f'{p},,\n' for p in [*files, f'{info}/RECORD']))
";
    let status = Command::new("python3")
        .args(["-I", "-c", program])
        .arg(folder)
        .args([name, version])
        .status()
        .unwrap();
    assert!(status.success());
}

pub(super) fn task(requirements: &str, program: &str) -> Value {
    json!({"binary": "python3", "entry_point": "a.py", "diff": program, "requirements": {"pip": requirements}})
}

/// Builds in a folder of its own; how that went.
pub(super) fn build_in(bench: &Bench, script: Value, place: &str) -> (PreparedEnvironment, Recorder) {
    let host = Recorder::default();
    let result = bench.build_with(script, place, &host);
    (result.unwrap_or_else(|e| panic!("{e}\n{}", host.console())), host)
}

pub(super) fn ready(host: &Recorder) -> String {
    let console = host.console();
    let line = console
        .lines()
        .find(|line| line.contains("environment ready in "));
    let line = line.unwrap_or_else(|| panic!("no summary:\n{console}"));
    line.split_once(": ")
        .unwrap()
        .1
        .split_once(": ")
        .unwrap()
        .1
        .to_owned()
}

pub(super) fn entries(bench: &Bench) -> Vec<PathBuf> {
    let Ok(found) = fs::read_dir(bench.path("venvs.v2/entries")) else {
        return Vec::new();
    };
    found.map(|entry| entry.unwrap().path()).collect()
}

/// The installer has its say only if it runs.
pub(super) fn without_wheels(bench: &mut Bench) {
    fs::remove_dir_all(bench.path("wheels")).unwrap();
    fs::create_dir(bench.path("wheels")).unwrap();
}
pub(super) fn find(root: &Path, name: &str) -> PathBuf {
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            if entry.file_name() == name {
                return entry.path();
            }
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            }
        }
    }
    panic!("there is no {name} below {}", root.display());
}
