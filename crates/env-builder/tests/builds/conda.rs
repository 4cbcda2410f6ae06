//! conda, with a stand-in that answers as conda does and writes down how it was called: no registry that
//! tests may use has conda itself. What it is told is the subject here; what it does with that is not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use clearml_env_builder::{PackageManagerKind, Stage};
use serde_json::{Value, json};

use crate::common::Bench;

/// Makes environments as Python does, refuses packages whose name begins with `odd`, and calls everything
/// else installed.
const STAND_IN: &str = r#"#!/usr/bin/env python3
import json, os, re, subprocess, sys
log = os.path.join(os.path.dirname(os.path.realpath(__file__)), 'calls')
arguments = sys.argv[1:]
with open(log, 'a') as f: f.write(' '.join(arguments) + '\n')
if arguments == ['--version']:
    print('conda ' + os.environ.get('STAND_IN_VERSION', '23.1.0'))
elif arguments[0] == 'create':
    prefix = arguments[arguments.index('--prefix') + 1]
    subprocess.run([sys.executable, '-m', 'venv', prefix], check=True)
    print('\x1b[0m' + json.dumps({'success': True}))
elif arguments[:2] == ['env', 'update']:
    text = open(arguments[arguments.index('--file') + 1]).read()
    with open(log, 'a') as f: f.write(text)
    bad = re.findall(r'"(odd[^"]*)"', text)
    if bad:
        print(json.dumps({'error': 'ResolvePackageNotFound', 'bad_deps': [bad]}))
        sys.exit(1)
    print('{}')
elif arguments[0] == 'list':
    print(json.dumps([{'name': 'numpy', 'version': '1.21', 'channel': 'defaults'},
        {'name': 'odd_alpha', 'version': '1.0', 'channel': 'pypi'}]))
elif arguments[:2] == ['env', 'export']:
    print(json.dumps({'name': 'x', 'channels': [], 'prefix': '/', 'dependencies': ['numpy=1.21']}))
else:
    print(json.dumps({'success': True}))
"#;

/// As much of conda's script as the activation needs.
const CONDA_SH: &str = "conda() { export CONDA_PREFIX=\"$2\" ACTIVATED=yes; }\n";

struct Scene {
    bench: Bench,
    base: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let mut bench = Bench::new();
        let base = bench.path("conda base");
        fs::create_dir_all(base.join("bin")).unwrap();
        fs::create_dir_all(base.join("etc/profile.d")).unwrap();
        fs::write(base.join("etc/profile.d/conda.sh"), CONDA_SH).unwrap();
        let program = base.join("bin/conda");
        fs::write(&program, STAND_IN).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!(
            "{}:{}",
            base.join("bin").display(),
            std::env::var("PATH").unwrap()
        );
        bench.env("PATH", path);
        bench.settings.package_manager.kind = PackageManagerKind::Conda;
        bench.settings.torch.cpu_only = true;
        bench.settings.package_manager.conda.channels = vec!["defaults".into()];
        Self { bench, base }
    }

    fn calls(&self) -> String {
        let path = self.base.join("bin/calls");
        let text = fs::read_to_string(&path).unwrap_or_default();
        fs::write(path, "").unwrap();
        text
    }
}

fn task(requirements: Value) -> Value {
    json!({"binary": "python3.10", "entry_point": "a.py", "requirements": requirements,
        "diff": "import os, sys; print(os.environ['ACTIVATED'], os.environ['CONDA_PREFIX'] == sys.prefix, sys.argv[1:])"})
}

#[test]
fn conda_gets_what_it_has_and_pip_the_rest() {
    let mut scene = Scene::new();
    scene.bench.wheel("odd_alpha", "1.0");
    scene.bench.settings.package_manager.pip_version = vec![">=23 ; python_version >= '3'".into()];
    let task = task(json!({"pip": "numpy==1.21\nodd_alpha==1.0\n"}));
    let (prepared, host, output) = scene.bench.build_and_run(task.clone());
    assert_eq!(output, "yes True []\n");
    assert_eq!(prepared.argv[0], "/bin/bash");
    let venv = scene.bench.path("run/venv").display().to_string();
    let calls = scene.calls();
    let update = |dependencies: &str| {
        format!(
            "env update --prefix {venv} --file {} --quiet --json\nchannels:\n  - \"defaults\"\ndependencies:\n{dependencies}",
            scene.bench.path("run/tmp/conda_env.yml").display()
        )
    };
    assert_eq!(
        calls,
        format!(
            "--version\ncreate --yes --prefix {venv} python=3.10 --quiet --json\n\
             install --yes --prefix {venv} -c defaults pip>=23 --quiet --json\n{}{}",
            update("  - \"numpy~=1.21\"\n  - \"odd-alpha~=1.0\"\n"),
            update("  - \"numpy~=1.21\"\n")
        )
    );
    assert!(
        host.packages.lock().unwrap().is_none(),
        "it is reported only if that is configured"
    );

    scene.bench.settings.package_manager.conda.full_env_update = true;
    let (_, host, _) = scene.bench.build_and_run(task);
    assert_eq!(
        host.reported(),
        [
            "# Conda Packages",
            "",
            "numpy==1.21",
            "",
            "# Pip Packages",
            "",
            "odd_alpha==1.0"
        ]
    );
}

#[test]
fn an_environment_that_is_named_is_not_touched() {
    let mut scene = Scene::new();
    let ready = scene.bench.path("ready");
    let made = std::process::Command::new("python3")
        .args(["-m", "venv"])
        .arg(&ready)
        .status()
        .unwrap();
    assert!(made.success());
    scene
        .bench
        .env("CLEARML_CONDA_ENV_PACKAGE", ready.display().to_string());
    let (_, _, output) = scene.bench.build_and_run(task(json!({"pip": "absent==1"})));
    assert_eq!(output, "yes True []\n");
    assert_eq!(scene.calls(), "--version\n");

    scene.bench.env("CLEARML_CONDA_ENV_PACKAGE", "/there/is/none");
    let error = scene.bench.build(task(json!({}))).0.unwrap_err();
    assert_eq!(error.stage(), Stage::Environment);
    assert!(error.to_string().contains("/there/is/none is neither"), "{error}");
}

#[test]
fn a_conda_that_is_missing_or_old_is_said() {
    let mut scene = Scene::new();
    scene.bench.env("STAND_IN_VERSION", "4.3.29");
    let error = scene.bench.build(task(json!({}))).0.unwrap_err();
    assert!(error.to_string().contains("conda 4.3.29 is too old"), "{error}");

    fs::remove_file(scene.base.join("bin/conda")).unwrap();
    let error = scene.bench.build(task(json!({}))).0.unwrap_err();
    assert_eq!(error.stage(), Stage::Environment);
    assert!(error.to_string().contains("there is no conda on PATH"), "{error}");
}
