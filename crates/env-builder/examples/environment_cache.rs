//! Builds an environment twice, with a cache: `cargo run --example environment_cache`.
//!
//! `environment_cache <base> <run> <list>` builds one environment with the package of that name in
//! `<base>/<run>`, and says whether it works. Tests kill it.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;

use clearml_env_builder::{BuildRequest, EnvSettings, Host, Level, Phase, PhaseEvent, build};
use clearml_support::command::CancelToken;
use clearml_support::redact::Redactor;
use clearml_task_model::Task;
use serde_json::json;

#[derive(Default)]
struct Terminal(CancelToken);

impl Host for Terminal {
    fn line(&self, _: Level, text: &str) {
        println!("{text}");
    }
    fn phase(&self, _: Phase, _: PhaseEvent) {}
    fn report_packages(&self, _: &[String]) {}
    fn report_commit(&self, _: &str) {}
    fn cancel(&self) -> &CancelToken {
        &self.0
    }
}

/// Makes a wheel, as there may be no index.
const WHEEL: &str = "
import os, sys, zipfile
folder, name = sys.argv[1:]
info, path = f'{name}-1.0.dist-info', f'{folder}/{name}-1.0-py3-none-any.whl'
files = {f'{name}/part{n}.py': f'VALUE = {n}' for n in range(60)}
files |= {f'{name}/__init__.py': '', f'{info}/METADATA': f'Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n',
          f'{info}/WHEEL': 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n'}
with zipfile.ZipFile(f'{path}.{os.getpid()}', 'w') as z:
    for file, text in files.items():
        z.writestr(file, text)
    z.writestr(f'{info}/RECORD', ''.join(f'{file},,\\n' for file in [*files, f'{info}/RECORD']))
os.replace(f'{path}.{os.getpid()}', path)
";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => {
            let base = tempfile::tempdir()?;
            one(base.path(), "first", "demo")?;
            one(base.path(), "second", "demo")
        }
        [base, run, list] => one(Path::new(base), run, list),
        _ => Err("usage: environment_cache [<base> <run> <list>]".into()),
    }
}

fn one(base: &Path, run: &str, name: &str) -> Result<(), Box<dyn Error>> {
    let wheels = base.join("wheels");
    fs::create_dir_all(&wheels)?;
    if !wheels.join(format!("{name}-1.0-py3-none-any.whl")).exists() {
        let made = Command::new("python3")
            .args(["-I", "-c", WHEEL])
            .arg(&wheels)
            .arg(name)
            .status()?;
        if !made.success() {
            return Err("the wheel could not be made".into());
        }
    }
    let mut settings = EnvSettings {
        env: std::env::vars().collect(),
        caches_dir: base.join("caches"),
        ..EnvSettings::default()
    };
    settings.env.insert("PIP_NO_INDEX".to_owned(), "1".to_owned());
    settings
        .env
        .insert("PIP_FIND_LINKS".to_owned(), wheels.display().to_string());
    settings.venvs_cache.path = Some(base.join("venvs"));
    settings.venvs_cache.min_free_bytes = None;
    let script = format!("import {name}.part7\nprint('works', {name}.part7.VALUE)");
    let task: Task = serde_json::from_value(json!({"id": "0123", "script": {
        "binary": "python3", "entry_point": "a.py", "diff": script, "requirements": {"pip": format!("{name}==1.0")}}}))?;
    let redactor = Redactor::new();
    let request = BuildRequest {
        task: &task,
        settings: &settings,
        run_dir_env: base.join(run),
        redactor: &redactor,
    };
    let prepared = build(&request, &Terminal::default())?;
    let mut command = Command::new(&prepared.argv[0]);
    command.args(&prepared.argv[1..]).current_dir(&prepared.cwd);
    if !command.status()?.success() {
        return Err("the script has failed".into());
    }
    Ok(())
}
