//! Settings that choose another way to the same result, or go back to what the Python agent does.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use clearml_env_builder::{Stage, Submodules, TorchTemplates};
use serde_json::{Value, json};

use crate::common::Bench;
use crate::fixtures::{commit, make_wheel};
use crate::package_index::package_index;
use crate::web::{Site, Web};

fn script(repository: &str, commit: &str) -> Value {
    json!({"binary": "python3", "repository": repository, "version_num": commit, "entry_point": "main.py"})
}

/// Packs and objects below a `.git`, with the number of their names.
fn objects(folder: &Path, found: &mut Vec<u64>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            objects(&entry.path(), found);
        } else {
            found.push(entry.metadata().unwrap().nlink());
        }
    }
}

#[test]
fn objects_are_shared_with_the_cache_or_copied() {
    let mut bench = Bench::new();
    let (repository, first) = bench.repository(&[("main.py", "print('ok')")]);
    // Of a clone over a network; what is cloned from a folder is linked by git itself already.
    let web = Web::start(Site::git(repository.parent().unwrap()));
    let names = |bench: &Bench| {
        let (prepared, ..) = bench.build_and_run(script(&web.url("project.git"), &first));
        let mut names = Vec::new();
        let root = prepared.repository_root.unwrap();
        objects(&root.join(".git/objects"), &mut names);
        names
    };
    assert!(names(&bench).iter().all(|names| *names == 2));
    bench.settings.vcs_cache.copy_objects = true;
    assert!(names(&bench).iter().all(|names| *names == 1));
}

#[test]
fn submodules_as_the_python_agent_has_them() {
    let mut bench = Bench::new();
    bench.settings.git.submodules = Submodules::Legacy;
    let web = Web::start(Site::git(&bench.path("origin")));
    let module = bench.module("module.git", &[("x.txt", "there")]);
    let main = "import os; print(os.path.exists('sub/x.txt'))";
    let (repository, _) = bench.repository(&[("main.py", main)]);
    bench.add_module(&repository, "sub", &web.url("module.git"), &module);
    let first = commit(&repository, &[]);
    let url = web.url("project.git");
    assert_eq!(bench.build_and_run(script(&url, &first)).2, "True\n");
    // What a later commit points to does not exist; nobody minds.
    bench.add_module(&repository, "sub", &web.url("module.git"), &first);
    let broken = commit(&repository, &[]);
    let (_, host, output) = bench.build_and_run(script(&url, &broken));
    assert_eq!(output, "False\n");
    assert!(
        host.console().contains("Warning: submodules are missing"),
        "{}",
        host.console()
    );
    bench.settings.git.submodules = Submodules::Full;
    assert_eq!(
        bench.build(script(&url, &broken)).0.unwrap_err().stage(),
        Stage::Clone
    );
}

#[test]
fn environment_and_code_are_prepared_at_the_same_time() {
    let mut bench = Bench::new();
    bench.settings.parallel_setup = true;
    let (repository, first) = bench.repository(&[("main.py", "print('ok')")]);
    let repository = repository.display().to_string();
    let (_, host, output) = bench.build_and_run(script(&repository, &first));
    assert_eq!(output, "ok\n");
    let console = host.console();
    let at = |text: &str| {
        console
            .find(text)
            .unwrap_or_else(|| panic!("no {text} in {console}"))
    };
    assert!(at("Info: Python 3") < at("Info: cloning"), "{console}");
    // Each half may fail, and its own reason is given.
    let error = bench.build(script("/does/not/exist", "")).0.unwrap_err();
    assert_eq!(error.stage(), Stage::Clone, "{error}");
    let bin = bench.path("bin");
    fs::create_dir(&bin).unwrap();
    let git = std::env::split_paths(bench.settings.env.get("PATH").unwrap())
        .map(|folder| folder.join("git"))
        .find(|git| git.is_file())
        .unwrap();
    symlink(git, bin.join("git")).unwrap();
    bench.env("PATH", bin.display().to_string());
    // This server never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/r.git", silent.local_addr().unwrap());
    let started = Instant::now();
    let error = bench.build(script(&url, "")).0.unwrap_err();
    assert!(error.to_string().contains("python3"), "{error}");
    assert!(
        started.elapsed() < Duration::from_secs(60),
        "nobody stopped the clone"
    );
}

#[test]
fn a_build_may_have_a_time_limit() {
    let mut bench = Bench::new();
    bench.settings.time_limit = Some(Duration::from_secs(2));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/r.git", silent.local_addr().unwrap());
    let error = bench.build(script(&url, "")).0.unwrap_err();
    assert_eq!(error.stage(), Stage::Environment);
    let text = error.to_string();
    assert!(
        text.starts_with("preparing the task took longer than the 2 s of agent.env_build_timeout_sec"),
        "{text}"
    );
}

#[test]
fn torch_can_be_looked_for_as_the_python_agent_does_it() {
    let mut bench = Bench::new();
    make_wheel(&bench.path("index"), "torch", "2.1.0+cu121");
    let mut site = package_index(&bench.path("index"));
    site.env.push(("THERE".to_owned(), "cu121".to_owned()));
    let web = Web::start(site);
    bench.settings.caches_dir = bench.path("caches");
    bench.settings.env.remove("PIP_FIND_LINKS");
    bench.env("PIP_INDEX_URL", web.url("none"));
    bench.settings.torch.legacy = true;
    bench.settings.torch.templates = TorchTemplates {
        cuda: web.url("whl/cu{}/"),
        page: web.url("whl/cu{}/none.html"),
        ..TorchTemplates::default()
    };
    let task = json!({"binary": "python3", "entry_point": "a.py", "diff": "import torch; print(torch.VERSION)",
        "requirements": {"pip": "torch==2.1.0"}});
    // No version of CUDA is 12.3 in the list of indexes: it is asked for nevertheless, and then 12.2 and 12.1.
    bench.settings.torch.cuda_version = Some("12.3".into());
    let (_, host, output) = bench.build_and_run(task.clone());
    assert_eq!(output, "2.1.0+cu121\n", "{}", host.console());
    bench.settings.torch.cuda_version = Some("11.8".into());
    let error = bench.build(task).0.unwrap_err();
    assert_eq!(error.stage(), Stage::Environment);
    for part in ["torch==2.1.0", "CUDA 11.8", "pytorch_resolve_legacy"] {
        assert!(error.to_string().contains(part), "{error}");
    }
}
