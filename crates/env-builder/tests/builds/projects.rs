//! Repositories that are projects of uv or Poetry, with the real tools, and without any index.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clearml_env_builder::{PackageManagerKind, Stage};
use clearml_support::lock::FileLock;
use serde_json::{Value, json};

use crate::common::{Bench, Recorder};
use crate::fixtures::{commit, git, make_wheel};
use crate::packages::{index, uv};

/// A repository with two wheels in it and a project file that is not committed yet.
fn repository(bench: &Bench, project: &str) -> PathBuf {
    let (root, _) = bench.repository(&[("main.py", "import alpha, sys; print(alpha.VERSION, sys.prefix)\n")]);
    for name in ["alpha", "beta"] {
        make_wheel(&root.join("wheels"), name, "1.0");
    }
    fs::write(root.join("pyproject.toml"), project).unwrap();
    root
}

fn committed(root: &Path) -> Value {
    git(root, &["add", "--all"]);
    let commit = commit(root, &[]);
    json!({"repository": root.display().to_string(), "version_num": commit, "entry_point": "main.py",
        "binary": "python3", "requirements": {"pip": "none-of-this-exists==9"}})
}

fn called(program: &Path, folder: &Path, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env_remove("VIRTUAL_ENV")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {text}");
}

const UV: &str = r#"
[project]
name = "project"
version = "0.1"
requires-python = ">=3.8"
dependencies = ["alpha"]
[tool.uv.sources]
alpha = { path = "wheels/alpha-1.0-py3-none-any.whl" }
beta = { path = "wheels/beta-1.0-py3-none-any.whl" }
"#;

fn uv_bench(uv: PathBuf) -> Bench {
    let mut bench = Bench::new();
    bench.settings.package_manager.kind = PackageManagerKind::Uv;
    bench.settings.package_manager.uv_binary = Some(uv);
    bench
}

#[test]
fn a_uv_project_gets_what_its_lock_file_says() {
    let Some(uv) = uv("a_uv_project_gets_what_its_lock_file_says") else {
        return;
    };
    let mut bench = uv_bench(uv.clone());
    let root = repository(&bench, UV);
    called(&uv, &root, &["lock", "--offline"]);
    let task = committed(&root);
    let (prepared, host, output) = bench.build_and_run(task.clone());
    let folder = bench.path("run/task_repository/project.git");
    assert_eq!(output, format!("1.0 {}\n", folder.join(".venv").display()));
    assert_eq!(prepared.python, Some(folder.join(".venv/bin/python")));
    assert!(!bench.path("run/venv").exists(), "no other environment is made");
    assert_eq!(host.reported().len(), 1, "{:?}", host.reported());
    assert!(
        host.reported()[0].starts_with("alpha @ file:///"),
        "{:?}",
        host.reported()
    );
    assert!(!host.console().contains("Warning"), "{}", host.console());

    // The task is started by uv where uv has been given arguments for that.
    bench.settings.package_manager.uv_run_extra_args = vec!["--no-sync".into()];
    let (prepared, _, output) = bench.build_and_run(task);
    assert_eq!(
        prepared.argv[..3],
        [uv.as_os_str(), "run".as_ref(), "--no-sync".as_ref()]
    );
    assert!(output.starts_with("1.0 "), "{output}");
}

#[test]
fn a_stale_lock_file_is_insisted_on_only_once() {
    let Some(uv) = uv("a_stale_lock_file_is_insisted_on_only_once") else {
        return;
    };
    let bench = uv_bench(uv.clone());
    let root = repository(&bench, UV);
    called(&uv, &root, &["lock", "--offline"]);
    fs::write(
        root.join("pyproject.toml"),
        UV.replace("[\"alpha\"]", "[\"alpha\", \"beta\"]"),
    )
    .unwrap();
    let (_, host, _) = bench.build_and_run(committed(&root));
    assert!(
        host.console().contains("repeated once without --locked"),
        "{}",
        host.console()
    );
    assert_eq!(host.reported().len(), 2, "{:?}", host.reported());

    fs::remove_file(root.join("wheels/beta-1.0-py3-none-any.whl")).unwrap();
    let (result, _) = bench.build(committed(&root));
    let error = result.unwrap_err();
    assert_eq!(error.stage(), Stage::Environment);
    assert!(error.to_string().contains("uv.lock"), "{error}");
}

#[test]
fn a_uv_project_that_is_broken_and_has_no_lock_file_leaves_the_list() {
    let Some(uv) = uv("a_uv_project_that_is_broken_and_has_no_lock_file_leaves_the_list") else {
        return;
    };
    let mut bench = uv_bench(uv);
    let root = repository(&bench, "[project]\nname = \"x\"\n");
    let mut task = committed(&root);
    bench.wheel("alpha", "3.0");
    task["requirements"] =
        json!({"pip": format!("--no-index\n--find-links {}\nalpha", bench.path("wheels").display())});
    let (_, host, output) = bench.build_and_run(task);
    assert!(output.starts_with("3.0 "), "{output}");
    assert_eq!(host.reported(), ["alpha==3.0"]);
    assert!(
        host.console()
            .contains("uv sync failed, so the list of requirements is installed"),
        "{}",
        host.console()
    );
}

/// Poetry from PATH, or installed once for all tests.
fn poetry(test: &str) -> Option<PathBuf> {
    let on_path = std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join("poetry"))
        .find(|path| path.is_file());
    if on_path.is_some() {
        return on_path;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("test-venvs");
    fs::create_dir_all(&folder).unwrap();
    let _lock = FileLock::acquire(&folder.join("poetry.lock"), Duration::from_secs(120)).unwrap();
    let program = folder.join("poetry/bin/poetry");
    if !program.is_file() {
        let venv = folder.join("poetry");
        let made = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let installed = made(Command::new("python3").args(["-m", "venv"]).arg(&venv))
            && made(Command::new(venv.join("bin/python")).args(["-m", "pip", "install", "-q", "poetry"]));
        if !installed {
            eprintln!("SKIPPED {test}: Poetry is not on PATH and can't be installed");
            return None;
        }
    }
    Some(program)
}

const POETRY: &str = r#"
[tool.poetry]
name = "project"
version = "0.1"
description = ""
authors = []
package-mode = false
[tool.poetry.dependencies]
python = ">=3.8"
alpha = { path = "wheels/alpha-1.0-py3-none-any.whl" }
"#;

fn poetry_bench(poetry: &Path) -> Bench {
    let mut bench = Bench::new();
    bench.settings.package_manager.kind = PackageManagerKind::Poetry;
    let path = format!(
        "{}:{}",
        poetry.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    bench.env("PATH", path);
    bench
}

#[test]
fn a_poetry_project_is_installed_by_poetry() {
    let Some(poetry) = poetry("a_poetry_project_is_installed_by_poetry") else {
        return;
    };
    let mut bench = poetry_bench(&poetry);
    let root = repository(&bench, POETRY);
    called(&poetry, &root, &["lock", "-n"]);
    let task = committed(&root);
    // Whatever environment is active where the agent was started is not the project's.
    bench.env("VIRTUAL_ENV", bench.path("no-such").display().to_string());
    bench.settings.venvs_cache.path = Some(bench.path("venvs"));
    let (_, host, output) = bench.build_and_run(task);
    let folder = bench.path("run/task_repository/project.git");
    assert_eq!(output, format!("1.0 {}\n", folder.join(".venv").display()));
    assert!(
        !bench.path("venvs.v2").exists(),
        "Poetry has its own ways to keep things"
    );
    assert!(!bench.path("run/venv").exists(), "no other environment is made");
    assert_eq!(host.reported().len(), 1, "{:?}", host.reported());
    assert!(
        host.reported()[0].starts_with("alpha==1.0"),
        "{:?}",
        host.reported()
    );
}

#[test]
fn a_poetry_project_that_can_not_be_installed_leaves_the_list() {
    let Some(poetry) = poetry("a_poetry_project_that_can_not_be_installed_leaves_the_list") else {
        return;
    };
    let mut bench = poetry_bench(&poetry);
    let root = repository(&bench, "[tool.poetry]\nname = 1\n");
    let mut task = committed(&root);
    bench.wheel("alpha", "3.0");
    task["requirements"] = json!({"pip": "alpha"});
    let (_, host, output) = bench.build_and_run(task.clone());
    assert!(output.starts_with("3.0 "), "{output}");
    assert!(
        host.console().contains("; the list of requirements is installed"),
        "{}",
        host.console()
    );

    bench.settings.package_manager.poetry_strict = true;
    let (result, _) = bench.build(task.clone());
    assert_eq!(result.unwrap_err().stage(), Stage::Environment);

    // Nothing of Poetry in the repository, nothing of Poetry in the build.
    git(&root, &["rm", "-q", "-f", "pyproject.toml"]);
    task["version_num"] = commit(&root, &[]).into();
    let (_, host, _) = bench.build_and_run(task);
    assert!(host.console().contains("no Poetry project"), "{}", host.console());
}

#[test]
fn a_wanted_version_of_a_tool_is_installed_beside_the_task() {
    if !index("a_wanted_version_of_a_tool_is_installed_beside_the_task") {
        return;
    }
    let mut bench = Bench::new();
    bench.settings.caches_dir = bench.path("caches");
    bench.settings.package_manager.kind = PackageManagerKind::Uv;
    bench.settings.package_manager.uv_version = Some("0.5.9".into());
    let root = repository(&bench, UV);
    for round in 0..2 {
        let (_, host, output) = bench.build_and_run(committed(&root));
        assert!(output.starts_with("1.0 "), "{output}");
        let installs = host.console().contains("installing uv==0.5.9 for the agent");
        assert_eq!(installs, round == 0, "{}", host.console());
    }
}

#[test]
fn the_environment_of_a_locked_project_is_kept_for_the_next_task() {
    let Some(uv) = uv("the_environment_of_a_locked_project_is_kept_for_the_next_task") else {
        return;
    };
    let mut bench = uv_bench(uv.clone());
    bench.settings.venvs_cache.path = Some(bench.path("venvs"));
    bench.settings.venvs_cache.min_free_bytes = None;
    let wheels = bench.path("wheels");
    make_wheel(&wheels, "alpha", "1.0");
    let project = format!(
        "[project]\nname = \"project\"\nversion = \"0.1\"\nrequires-python = \">=3.8\"\ndependencies = [\"alpha\"]\n\
         [tool.uv]\nno-index = true\nfind-links = [\"{}\"]\n",
        wheels.display()
    );
    let root = repository(&bench, &project);
    called(&uv, &root, &["lock", "--offline"]);
    let task = committed(&root);
    for (run, expected) in [
        ("first", "built and cached, 1 package"),
        ("second", "cache hit, 1 package"),
    ] {
        let host = Recorder::default();
        let prepared = bench.build_with(task.clone(), run, &host).unwrap();
        assert!(host.console().contains(expected), "{}", host.console());
        assert_eq!(host.reported(), ["alpha==1.0"]);
        let own = bench.path(run).join("task_repository/project.git/.venv");
        let output = crate::common::run(&prepared, &bench.settings);
        assert_eq!(output, format!("1.0 {}\n", own.display()));
        // What uv keeps itself does not count here.
        bench.env("UV_CACHE_DIR", bench.path("other uv cache").display().to_string());
        fs::remove_dir_all(&wheels).unwrap();
        fs::create_dir(&wheels).unwrap();
    }
}
