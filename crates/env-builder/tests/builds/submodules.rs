//! Submodules and large files: fetched once, there for every working copy.

use std::fs;
use std::process::Command;

use clearml_env_builder::{Lfs, Stage};
use serde_json::{Value, json};

use crate::common::{Bench, example};
use crate::fixtures::{commit, git, has};
use crate::web::{Site, Web};

fn script(url: &str, version: &str) -> Value {
    json!({"binary": "python3", "repository": url, "version_num": version, "entry_point": "main.py", "working_dir": "."})
}

const SHOW: &str = "print(open('sub/x.txt').read(), open('sub/inner/y.txt').read())";

/// A server with a repository whose submodule has a submodule.
fn nested(bench: &Bench) -> (Web, String) {
    let web = Web::start(Site::git(&bench.path("origin")));
    let inner = bench.module("inner.git", &[("y.txt", "inner")]);
    bench.module("module.git", &[("x.txt", "outer")]);
    let module = bench.path("origin/module.git");
    bench.add_module(&module, "inner", "../inner.git", &inner);
    let outer = commit(&module, &[]);
    let (repository, _) = bench.repository(&[("main.py", SHOW)]);
    bench.add_module(&repository, "sub", "../module.git", &outer);
    let commit = commit(&repository, &[]);
    (web, commit)
}

#[test]
fn submodules_of_submodules_come_once_and_then_without_network() {
    let bench = Bench::new();
    let (web, commit) = nested(&bench);
    let url = web.url("project.git");
    assert_eq!(bench.build_and_run(script(&url, &commit)).2, "outer inner\n");
    let asked = web.requests();
    let (prepared, _, output) = bench.build_and_run(script(&url, &commit));
    assert_eq!(output, "outer inner\n");
    assert_eq!(web.requests(), asked, "the second build asked the server");
    // They are repositories of their own, whose objects are those of the cache.
    let root = prepared.repository_root.unwrap();
    assert_eq!(git(&root.join("sub/inner"), &["log", "--format=%s"]), "change");
    assert_eq!(git(&root, &["status", "--porcelain"]), "");
    // What a task does to its copy stays there.
    fs::write(root.join("sub/x.txt"), "spoilt").unwrap();
    fs::write(bench.path("vcs-cache").join("mark"), "").unwrap();
    let clone = fs::read_dir(bench.path("vcs-cache")).unwrap().flatten();
    let clone = clone
        .map(|entry| entry.path().join("project.git"))
        .find(|path| path.is_dir())
        .unwrap();
    fs::write(clone.join("main.py"), "print('of the cache')").unwrap();
    assert_eq!(bench.build_and_run(script(&url, &commit)).2, "outer inner\n");
}

#[test]
fn uncommitted_changes_reach_into_submodules() {
    let bench = Bench::new();
    let (web, commit) = nested(&bench);
    let diff = "Submodule sub contains modified content\ndiff --git a/sub/x.txt b/sub/x.txt\n--- a/sub/x.txt\n+++ b/sub/x.txt\n@@ -1 +1 @@\n-outer\n\\ No newline at end of file\n+changed\n\\ No newline at end of file\n";
    let mut task = script(&web.url("project.git"), &commit);
    task["diff"] = diff.into();
    assert_eq!(bench.build_and_run(task.clone()).2, "changed inner\n");
    let moved = format!("Submodule other abcdef1..0123456:\n  > elsewhere\n{diff}");
    task["diff"] = moved.into();
    let (_, host, output) = bench.build_and_run(task.clone());
    assert_eq!(output, "changed inner\n");
    assert!(
        host.console()
            .contains("submodule other points to another commit"),
        "{}",
        host.console()
    );
    task["diff"] = "Submodule other abcdef1..0123456:\n  > elsewhere\n".into();
    let (_, host, output) = bench.build_and_run(task);
    assert_eq!(output, "outer inner\n");
    assert!(
        host.console()
            .contains("Warning: the uncommitted changes only move submodules"),
        "{}",
        host.console()
    );
}

#[test]
fn a_branch_may_add_a_submodule_and_the_default_one_may_have_a_broken_one() {
    let bench = Bench::new();
    let (web, _) = nested(&bench);
    let origin = bench.path("origin/project.git");
    let outer = git(&bench.path("origin/module.git"), &["rev-parse", "HEAD"]);
    git(&origin, &["checkout", "-q", "-b", "feat", "HEAD^"]);
    bench.add_module(&origin, "sub", "../module.git", &outer);
    let feat = commit(&origin, &[]);
    git(&origin, &["checkout", "-q", "-f", "main"]);
    bench.add_module(&origin, "sub", "http://127.0.0.1:1/gone.git", &"2".repeat(40));
    let broken = commit(&origin, &[]);
    let url = web.url("project.git");
    let mut by_branch = script(&url, "");
    by_branch["branch"] = "feat".into();
    let (prepared, _, output) = bench.build_and_run(by_branch);
    assert_eq!(output, "outer inner\n");
    assert_eq!(prepared.commit.as_deref(), Some(feat.as_str()));
    let error = bench.build(script(&url, &broken)).0.unwrap_err();
    assert_eq!(error.stage(), Stage::Clone);
    assert!(error.to_string().contains("submodule sub: "), "{error}");
}

#[test]
fn a_submodule_that_is_out_of_reach_can_be_tolerated() {
    let mut bench = Bench::new();
    bench.settings.git.ignore_submodule_errors = true;
    let web = Web::start(Site::git(&bench.path("origin")));
    let (repository, _) = bench.repository(&[("main.py", "import os; print(os.listdir('sub'))")]);
    bench.add_module(&repository, "sub", "../gone.git", &"1".repeat(40));
    let commit = commit(&repository, &[]);
    let (_, host, output) = bench.build_and_run(script(&web.url("project.git"), &commit));
    assert_eq!(output, "[]\n");
    assert!(
        host.console().contains("Warning: submodule sub is missing: "),
        "{}",
        host.console()
    );
}

/// A repository with one large file; its address over the file protocol, and the commit.
fn with_large_file(bench: &Bench) -> (String, String) {
    let (repository, _) = bench.repository(&[("main.py", "print(len(open('data.bin').read()))")]);
    git(&repository, &["lfs", "install", "--local"]);
    git(&repository, &["lfs", "track", "*.bin"]);
    fs::write(repository.join("data.bin"), "x".repeat(5000)).unwrap();
    git(&repository, &["add", ".gitattributes"]);
    let commit = commit(&repository, &[("data.bin", &"x".repeat(5000))]);
    (format!("file://{}", repository.display()), commit)
}

#[test]
fn large_files_are_fetched_once() {
    if !has("git-lfs", "large_files_are_fetched_once") {
        return;
    }
    let mut bench = Bench::new();
    bench.env("HOME", bench.temp.path().display().to_string());
    let (url, commit) = with_large_file(&bench);
    assert_eq!(bench.build_and_run(script(&url, &commit)).2, "5000\n");
    fs::rename(bench.path("origin"), bench.path("away")).unwrap();
    assert_eq!(bench.build_and_run(script(&url, &commit)).2, "5000\n");
    bench.settings.git.lfs = Lfs::Skip;
    let (_, _, output) = bench.build_and_run(script(&url, &commit));
    assert!(
        output.trim().parse::<u32>().unwrap() < 200,
        "a pointer has {output} characters"
    );
    assert!(!bench.path(".gitconfig").exists(), "git lfs install was run");
}

#[test]
fn without_git_lfs_it_is_told_that_files_are_missing() {
    if !has("git-lfs", "without_git_lfs_it_is_told_that_files_are_missing") {
        return;
    }
    let mut bench = Bench::new();
    let (url, commit) = with_large_file(&bench);
    // Only git and Python are on this path.
    let bin = bench.path("bin");
    fs::create_dir(&bin).unwrap();
    for (name, program, args) in [
        ("git", "sh", ["-c", "command -v git"]),
        ("python3", "python3", ["-c", "import sys; print(sys.executable)"]),
    ] {
        let found = Command::new(program).args(args).output().unwrap();
        let target = String::from_utf8(found.stdout).unwrap();
        std::os::unix::fs::symlink(target.trim(), bin.join(name)).unwrap();
    }
    bench.env("PATH", bin.display().to_string());
    bench.env("HOME", bench.temp.path().display().to_string());
    let (result, host) = bench.build(script(&url, &commit));
    result.unwrap_or_else(|error| panic!("{error}\n{}", host.console()));
    assert!(
        host.console().contains("git-lfs is not installed"),
        "{}",
        host.console()
    );
    bench.settings.git.lfs = Lfs::Pull;
    let error = bench.build(script(&url, &commit)).0.unwrap_err();
    assert!(
        error.to_string().contains("there is no git-lfs on PATH"),
        "{error}"
    );
}

#[test]
fn builders_that_are_killed_leave_nothing_that_harms_the_next() {
    let bench = Bench::new();
    let (web, _) = nested(&bench);
    let url = web.url("project.git");
    let origin = bench.path("origin/project.git");
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    eprintln!("seed {seed}");
    let mut random = seed | 1;
    for round in 0..10 {
        let text: String = (0..2000)
            .map(|number| format!("{}\n", number * (round + 7)))
            .collect();
        commit(
            &origin,
            &[("data.txt", &text), ("main.py", &format!("{SHOW}  # {round}"))],
        );
        let wanted = git(&origin, &["rev-parse", "HEAD"]);
        let mut builder = Command::new(example("repository"))
            .args([&url, &wanted])
            .arg(bench.temp.path())
            .env("CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL", "1")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::thread::sleep(std::time::Duration::from_millis(random % 400));
        builder.kill().unwrap();
        builder.wait().unwrap();
        // Sometimes at once, while the git of the killed builder is still at work; sometimes not at all, so
        // that the next one meets what two have left.
        if round % 3 == 0 {
            assert_eq!(
                bench.build_and_run(script(&url, &wanted)).2,
                "outer inner\n",
                "round {round}"
            );
        }
        if round == 5 {
            // A killed builder's git may still be at work in there.
            fs::rename(bench.path("vcs-cache"), bench.path("old-cache")).unwrap();
        }
    }
    let (prepared, host, output) = bench.build_and_run(script(&url, ""));
    assert_eq!(output, "outer inner\n");
    assert!(
        host.console().contains("using the cached repository"),
        "{}",
        host.console()
    );
    let root = prepared.repository_root.unwrap();
    assert_eq!(git(&root, &["status", "--porcelain"]), "");
    git(&root, &["fsck", "--connectivity-only"]);
}
