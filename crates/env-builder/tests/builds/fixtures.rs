//! Repositories, wheels and packages to be made for a test.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Whether a program is there; says that the test is skipped where it is not.
pub(crate) fn has(program: &str, test: &str) -> bool {
    let found = Path::new(program).is_file()
        || std::env::split_paths(&std::env::var_os("PATH").unwrap())
            .any(|folder| folder.join(program).is_file());
    if !found {
        eprintln!("SKIPPED {test}: there is no {program}");
    }
    found
}

/// Writes files and commits them; the commit.
pub(crate) fn commit(root: &Path, files: &[(&str, &str)]) -> String {
    for (name, text) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    if !files.is_empty() {
        let names = files.iter().map(|(name, _)| *name);
        let args: Vec<&str> = ["add", "--"].into_iter().chain(names).collect();
        git(root, &args);
    }
    if root.join(".gitmodules").exists() {
        git(root, &["add", ".gitmodules"]);
    }
    git(root, &["commit", "-q", "--allow-empty", "-m", "change"]);
    git(root, &["rev-parse", "HEAD"])
}

pub(crate) fn git(root: &Path, args: &[&str]) -> String {
    let output = Command::new("git").current_dir(root).args(args).output().unwrap();
    assert!(
        output.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Makes a wheel with one module that prints its version.
pub(crate) fn make_wheel(folder: &Path, name: &str, version: &str) {
    make_module_wheel(folder, name, version, &format!("VERSION = {version:?}\n"));
}

/// Makes a wheel with one module of this text.
pub(crate) fn make_module_wheel(folder: &Path, name: &str, version: &str, text: &str) {
    fs::create_dir_all(folder).unwrap();
    let program = r"
import sys, zipfile
folder, name, version, text = sys.argv[1:]
info = f'{name}-{version}.dist-info'
with zipfile.ZipFile(f'{folder}/{name}-{version}-py3-none-any.whl', 'w') as z:
    z.writestr(f'{name}.py', text)
    z.writestr(f'{info}/METADATA', f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nName: wrong\n')
    z.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
    z.writestr(f'{info}/RECORD', f'{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n')
";
    let status = Command::new("python3")
        .args(["-I", "-c", program])
        .arg(folder)
        .args([name, version, text])
        .status()
        .unwrap();
    assert!(status.success());
}

/// A package that builds itself, so that neither a build tool nor an index is needed.
pub(crate) fn self_building(name: &str) -> [(String, String); 2] {
    let project = "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n";
    let backend = format!(
        r"
import os, zipfile
NAME, VERSION = '{name}', '0.1'
MODULE = NAME.replace('-', '_')
FILE, INFO = f'{{MODULE}}-{{VERSION}}-py3-none-any.whl', f'{{MODULE}}-{{VERSION}}.dist-info'
def wheel(folder, extra, text):
    with zipfile.ZipFile(os.path.join(folder, FILE), 'w') as z:
        z.writestr(extra, text)
        z.writestr(f'{{INFO}}/METADATA', f'Metadata-Version: 2.1\nName: {{NAME}}\nVersion: {{VERSION}}\n')
        z.writestr(f'{{INFO}}/WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
        z.writestr(f'{{INFO}}/RECORD', ''.join(f'{{n}},,\n' for n in z.namelist()))
    return FILE
def build_wheel(folder, config_settings=None, metadata_directory=None):
    return wheel(folder, f'{{MODULE}}.py', 'print(__file__)\n')
def build_editable(folder, config_settings=None, metadata_directory=None):
    return wheel(folder, f'{{MODULE}}.pth', os.getcwd() + '\n')
"
    );
    [
        ("pyproject.toml".to_owned(), project.to_owned()),
        ("backend.py".to_owned(), backend),
    ]
}
