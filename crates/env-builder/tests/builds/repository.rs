//! Repositories, revisions, uncommitted changes.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::{Bench, Recorder};
use crate::fixtures::{commit, git};
use clearml_env_builder::{Phase, Stage};
use clearml_support::lock::FileLock;
use serde_json::{Value, json};

const MAIN: &str = "import sys\nprint('committed', sys.argv[1:])\n";

/// For a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

fn script(repository: &Path, commit: &str, diff: &str) -> Value {
    json!({"binary": "python3", "repository": repository.display().to_string(), "version_num": commit,
        "entry_point": "main.py", "working_dir": ".", "diff": diff})
}

fn change(from: &str, to: &str) -> String {
    format!(
        "diff --git a/main.py b/main.py\n--- a/main.py\n+++ b/main.py\n@@ -2 +2 @@ import sys\n-print('{from}', sys.argv[1:])\n+print('{to}', sys.argv[1:])"
    )
}

#[test]
fn a_commit_with_uncommitted_changes_and_a_new_file() {
    let bench = Bench::new();
    let (repository, first) = bench.repository(&[("main.py", MAIN), ("sub/x.txt", "x")]);
    commit(&repository, &[("main.py", "print('later')")]);
    let new = "\ndiff --git a/new.py b/new.py\nnew file mode 100644\n--- /dev/null\n+++ b/new.py\n@@ -0,0 +1 @@\n+print('new')";
    let (prepared, host, output) = bench.build_and_run(script(
        &repository,
        &first,
        &(change("committed", "changed") + new),
    ));
    assert_eq!(output, "changed []\n");
    assert_eq!(prepared.commit.as_deref(), Some(first.as_str()));
    let root = bench.path("run/task_repository/project.git");
    assert_eq!(prepared.repository_root.as_deref(), Some(root.as_path()));
    assert_eq!(fs::read_to_string(root.join("new.py")).unwrap(), "print('new')\n");
    assert!(host.commit.lock().unwrap().is_none(), "the task named its commit");
    let done: Vec<Phase> = host
        .phases
        .lock()
        .unwrap()
        .iter()
        .filter(|(_, end)| *end)
        .map(|(phase, _)| *phase)
        .collect();
    assert_eq!(
        done,
        [
            Phase::Python,
            Phase::Clone,
            Phase::Checkout,
            Phase::Patch,
            Phase::Packages
        ]
    );
    // The working copy is a repository of its own, at the commit, with the address of the original.
    assert_eq!(git(&root, &["rev-parse", "HEAD"]), first);
    assert_eq!(
        git(&root, &["remote", "get-url", "origin"]),
        repository.display().to_string()
    );
    assert_eq!(
        git(&root, &["status", "--porcelain"]),
        "M main.py\n?? new.py".trim()
    );
}

#[test]
fn a_cached_commit_needs_no_network_and_shares_its_objects() {
    let bench = Bench::new();
    let (repository, first) = bench.repository(&[("main.py", MAIN)]);
    bench.build(script(&repository, &first, "")).0.unwrap();
    fs::rename(&repository, bench.path("away")).unwrap();
    let started = Instant::now();
    let (_, host, output) = bench.build_and_run(script(&repository, &first, ""));
    eprintln!("second build and run: {:?}", started.elapsed());
    assert_eq!(output, "committed []\n");
    assert!(
        host.console().contains("using the cached repository"),
        "{}",
        host.console()
    );
    let object = format!("objects/{}/{}", &first[..2], &first[2..]);
    let copy = bench.path("run/task_repository/project.git/.git").join(&object);
    if copy.exists() {
        assert!(copy.metadata().unwrap().nlink() >= 2);
    }
    // A branch can't be resolved without asking.
    let mut by_branch = script(&repository, "", "");
    by_branch["branch"] = "main".into();
    let error = bench.build(by_branch).0.unwrap_err();
    assert_eq!(error.stage(), Stage::Clone);
    assert!(error.to_string().contains("failed cloning repository"), "{error}");
}

#[test]
fn the_cache_has_the_names_of_the_python_agent() {
    let bench = Bench::new();
    let (repository, first) = bench.repository(&[("main.py", MAIN)]);
    bench.build(script(&repository, &first, "")).0.unwrap();
    let id = clearml_env_builder::code::repo_url::cache_id(&repository.display().to_string());
    let cache = &bench.settings.vcs_cache.path;
    assert!(
        cache
            .join(format!("project.git.{id}/project.git/.git/HEAD"))
            .is_file()
    );
    assert!(cache.join(format!("{id}.lock")).is_file());
}

#[test]
fn revisions_are_chosen_in_order() {
    let bench = Bench::new();
    let (repository, first) = bench.repository(&[("main.py", "print('main')")]);
    git(&repository, &["checkout", "-q", "-b", "dev"]);
    let dev = commit(&repository, &[("main.py", "print('dev')")]);
    git(&repository, &["tag", "v1"]);
    commit(&repository, &[("main.py", "print('dev 2')")]);
    git(&repository, &["checkout", "-q", "main"]);
    for (version, tag, branch, expected, reported) in [
        (first.as_str(), "v1", "dev", "main\n", false),
        ("", "v1", "dev", "dev\n", true),
        ("", "", "dev", "dev 2\n", true),
        ("", "", "origin/dev", "dev 2\n", true),
        ("", "", "", "main\n", true),
        (&dev[..10], "", "", "dev\n", false),
    ] {
        let mut task = script(&repository, version, "");
        task["tag"] = tag.into();
        task["branch"] = branch.into();
        let (prepared, host, output) = bench.build_and_run(task);
        assert_eq!(output, expected, "{version:?} {tag:?} {branch:?}");
        let commit = host.commit.lock().unwrap().clone();
        assert_eq!(commit, prepared.commit.filter(|_| reported));
    }
}

#[test]
fn a_new_commit_is_fetched_even_if_no_branch_leads_to_it() {
    let bench = Bench::new();
    let (repository, first) = bench.repository(&[("main.py", "print(1)")]);
    // Over file:// git really transfers, instead of linking all objects.
    let task = |commit: &str| {
        let mut task = script(&repository, commit, "");
        task["repository"] = format!("file://{}", repository.display()).into();
        task
    };
    bench.build(task(&first)).0.unwrap();
    let second = commit(&repository, &[("main.py", "print(2)")]);
    assert_eq!(bench.build_and_run(task(&second)).2, "2\n");
    git(&repository, &["checkout", "-q", "--detach"]);
    let loose = commit(&repository, &[("main.py", "print(3)")]);
    git(&repository, &["checkout", "-q", "main"]);
    assert_eq!(bench.build_and_run(task(&loose)).2, "3\n");
}

#[test]
fn missing_repositories_and_commits_are_named() {
    let bench = Bench::new();
    let (repository, _) = bench.repository(&[("main.py", MAIN)]);
    let absent = "0123456789abcdef0123456789abcdef01234567";
    let (result, host) = bench.build(script(&repository, absent, ""));
    let error = result.unwrap_err();
    assert_eq!(error.stage(), Stage::Clone);
    assert!(
        error
            .to_string()
            .contains(&format!("commit {absent} does not exist")),
        "{error}"
    );
    assert!(host.console().contains("not our ref"), "{}", host.console());

    let (result, host) = bench.build(script(&bench.path("nowhere"), "", ""));
    let error = result.unwrap_err();
    assert_eq!(error.stage(), Stage::Clone);
    assert!(
        error.to_string().starts_with("failed cloning repository "),
        "{error}"
    );
    assert!(error.to_string().contains("does not exist"), "{error}");
    assert!(host.console().contains("fatal: repository"), "{}", host.console());

    let empty = bench.path("empty");
    fs::create_dir(&empty).unwrap();
    git(&empty, &["init", "-q"]);
    assert_eq!(
        bench.build(script(&empty, "", "")).0.unwrap_err().stage(),
        Stage::Clone
    );
}

#[test]
fn dangerous_addresses_never_reach_git() {
    let bench = Bench::new();
    let mark = bench.path("mark");
    for address in [
        format!("ext::sh -c touch% {}", mark.display()),
        format!("--upload-pack=touch {}", mark.display()),
    ] {
        let mut task = script(Path::new("x"), "", "");
        task["repository"] = address.clone().into();
        let error = bench.build(task).0.unwrap_err();
        assert!(
            error.to_string().contains("the address is refused"),
            "{address}: {error}"
        );
    }
    let (repository, _) = bench.repository(&[("main.py", MAIN)]);
    let mut task = script(&repository, "--output=/tmp/x", "");
    assert!(
        bench
            .build(task.clone())
            .0
            .unwrap_err()
            .to_string()
            .contains("does not exist")
    );
    task["version_num"] = "".into();
    task["tag"] = "--all".into();
    assert!(bench.build(task).0.is_err());
    assert!(!mark.exists());
}

#[test]
fn a_diff_that_does_not_fit_changes_nothing_and_is_shown() {
    let bench = Bench::new();
    let (repository, first) = bench.repository(&[("main.py", MAIN), ("other.py", "a\n")]);
    let other = "diff --git a/other.py b/other.py\n--- a/other.py\n+++ b/other.py\n@@ -1 +1 @@\n-a\n+b\n";
    let (result, host) = bench.build(script(
        &repository,
        &first,
        &(other.to_owned() + &change("something", "changed")),
    ));
    let error = result.unwrap_err();
    assert_eq!(error.stage(), Stage::Clone);
    assert!(
        error.to_string().starts_with("Failed applying git diff: "),
        "{error}"
    );
    assert!(
        host.console().contains("+print('changed', sys.argv[1:])"),
        "{}",
        host.console()
    );
    let root = bench.path("run/task_repository/project.git");
    assert_eq!(fs::read_to_string(root.join("other.py")).unwrap(), "a\n");

    let lost = "diff --git a/lost.py b/lost.py\n--- a/lost.py\n+++ b/lost.py\n@@ -1 +1 @@\n-a\n+b\n";
    let error = bench.build(script(&repository, &first, lost)).0.unwrap_err();
    assert!(error.to_string().contains("ever pushed"), "{error}");

    let binary = "diff --git a/i.png b/i.png\nindex 1..2\nBinary files a/i.png and b/i.png differ\n";
    let error = bench
        .build(script(&repository, &first, &(other.to_owned() + binary)))
        .0
        .unwrap_err();
    assert!(
        error.to_string().starts_with("Failed applying git diff: "),
        "{error}"
    );
    assert_eq!(fs::read_to_string(root.join("other.py")).unwrap(), "a\n");

    let error = bench
        .build(script(&repository, &first, "# WARNING! git diff too large\n#"))
        .0
        .unwrap_err();
    assert!(error.to_string().contains("too large"), "{error}");
    assert_eq!(error.stage(), Stage::Clone);
}

#[test]
fn a_diff_stays_inside_the_working_copy() {
    let bench = Bench::new();
    let (repository, first) = bench.repository(&[("main.py", MAIN)]);
    for path in [
        "../../escaped.py",
        "../escaped.py",
        "/escaped.py",
        ".git/hooks/post-checkout",
    ] {
        let diff = format!("diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n");
        let error = bench.build(script(&repository, &first, &diff)).0.unwrap_err();
        assert!(
            error.to_string().starts_with("Failed applying git diff: "),
            "{path}: {error}"
        );
    }
    assert!(!bench.path("run/escaped.py").exists() && !bench.path("run/task_repository/escaped.py").exists());
    // What old clients send for a file that was added but not staged.
    let added = "diff --git a/add.py b/add.py\nindex e69de29..1 100644\n--- a/add.py\n+++ b/add.py\n@@ -0,0 +1 @@\n+x = 1\n";
    bench.build(script(&repository, &first, added)).0.unwrap();
    assert_eq!(
        fs::read_to_string(bench.path("run/task_repository/project.git/add.py")).unwrap(),
        "x = 1\n"
    );
}

#[test]
fn a_literal_script_in_a_repository_does_not_replace_a_file() {
    let bench = Bench::new();
    let (repository, first) = bench.repository(&[("main.py", MAIN), ("lib/m.py", "V = 5\n")]);
    let (_, host, output) = bench.build_and_run(script(&repository, &first, "print('literal')"));
    assert_eq!(output, "committed []\n");
    assert!(host.console().contains("exists already"), "{}", host.console());
    let mut task = script(&repository, &first, "import m; print(m.V)");
    task["entry_point"] = "cell.py".into();
    task["working_dir"] = "lib".into();
    let (prepared, _, output) = bench.build_and_run(task.clone());
    assert_eq!(output, "5\n");
    assert!(prepared.cwd.ends_with("task_repository/project.git/lib"));
    task["working_dir"] = "absent".into();
    assert_eq!(
        bench.build(task.clone()).0.unwrap_err().stage(),
        Stage::Environment
    );
    task["working_dir"] = "../..".into();
    assert!(bench.build(task.clone()).0.is_err());
    task["diff"] = "".into();
    assert_eq!(bench.build(task).0.unwrap_err().stage(), Stage::Launch);
}

#[test]
fn nothing_of_the_user_is_changed_or_run() {
    let mut bench = Bench::new();
    let (repository, first) = bench.repository(&[("main.py", MAIN)]);
    let (home, mark) = (bench.path("home"), bench.path("mark"));
    let hooks = home.join("hooks");
    fs::create_dir_all(&hooks).unwrap();
    let hook = hooks.join("post-checkout");
    fs::write(&hook, format!("#!/bin/sh\ntouch {}\n", mark.display())).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let config = format!(
        "[core]\n\thooksPath = {}\n[submodule]\n\trecurse = true\n",
        hooks.display()
    );
    fs::write(home.join(".gitconfig"), &config).unwrap();
    bench.env("HOME", home.display().to_string());
    // The variables of a hook in which the agent may have been started.
    bench.env("GIT_DIR", "/nowhere");
    bench.env("GIT_INDEX_FILE", "/nowhere/index");
    let python = bench
        .build(json!({"entry_point": "a.py", "diff": "1"}))
        .0
        .unwrap();
    assert!(python.python.is_some());
    bench
        .build(script(&repository, &first, &change("committed", "x")))
        .0
        .unwrap();
    assert_eq!(fs::read_to_string(home.join(".gitconfig")).unwrap(), config);
    assert!(!mark.exists());
}

#[test]
fn two_tasks_of_one_repository_at_once() {
    let bench = Bench::new();
    let (repository, first) = bench.repository(&[("main.py", MAIN)]);
    std::thread::scope(|scope| {
        for run in ["a", "b", "c", "d"] {
            let (bench, repository, first) = (&bench, &repository, &first);
            scope.spawn(move || {
                let host = Recorder::default();
                let prepared = bench
                    .build_with(script(repository, first, ""), run, &host)
                    .unwrap();
                assert_eq!(crate::common::run(&prepared, &bench.settings), "committed []\n");
            });
        }
    });
}

#[test]
fn waiting_for_a_locked_repository_can_be_cancelled() {
    let bench = Bench::new();
    let (repository, first) = bench.repository(&[("main.py", MAIN)]);
    let id = clearml_env_builder::code::repo_url::cache_id(&repository.display().to_string());
    fs::create_dir_all(&bench.settings.vcs_cache.path).unwrap();
    let _lock = FileLock::try_acquire(&bench.settings.vcs_cache.path.join(format!("{id}.lock")))
        .unwrap()
        .unwrap();
    let host = Recorder::default();
    let token = host.cancel.clone();
    let started = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !host.console().contains("waiting for another task") && started.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(20));
            }
            token.cancel();
        });
        let error = bench
            .build_with(script(&repository, &first, ""), "run", &host)
            .unwrap_err();
        assert!(error.is_cancelled(), "{error}");
    });
    assert!(started.elapsed() < PATIENCE + Duration::from_secs(5));
    assert!(
        host.console().contains("waiting for another task"),
        "{}",
        host.console()
    );
}

#[test]
fn a_failing_fetch_leads_to_a_new_clone_if_so_configured() {
    let mut bench = Bench::new();
    let (repository, _) = bench.repository(&[("main.py", MAIN)]);
    let by_branch = script(&repository, "", "");
    bench.build(by_branch.clone()).0.unwrap();
    bench.settings.git.fetch_args = vec!["--no-such-option".into()];
    assert_eq!(
        bench.build(by_branch.clone()).0.unwrap_err().stage(),
        Stage::Clone
    );
    bench.settings.vcs_cache.clone_on_pull_fail = true;
    let (_, host, output) = bench.build_and_run(by_branch);
    assert_eq!(output, "committed []\n");
    assert!(host.console().contains("cloned anew"), "{}", host.console());
}

#[test]
fn a_damaged_cache_is_cloned_anew() {
    let bench = Bench::new();
    let (repository, first) = bench.repository(&[("main.py", MAIN)]);
    let id = clearml_env_builder::code::repo_url::cache_id(&repository.display().to_string());
    let outer = bench.settings.vcs_cache.path.join(format!("project.git.{id}"));
    // What a build leaves that was killed while cloning, and a folder without a repository.
    fs::create_dir_all(outer.join(".staging/.git/objects")).unwrap();
    fs::create_dir_all(outer.join("project.git/.git")).unwrap();
    assert_eq!(
        bench.build_and_run(script(&repository, &first, "")).2,
        "committed []\n"
    );
    assert!(!outer.join(".staging").exists());
}

#[test]
fn locks_and_packs_that_a_killed_git_has_left_are_cleared() {
    let bench = Bench::new();
    let (repository, first) = bench.repository(&[("main.py", MAIN)]);
    bench.build(script(&repository, &first, "")).0.unwrap();
    let second = commit(&repository, &[("main.py", MAIN)]);
    let id = clearml_env_builder::code::repo_url::cache_id(&repository.display().to_string());
    let clone = bench
        .settings
        .vcs_cache
        .path
        .join(format!("project.git.{id}/project.git/.git"));
    let left = [
        "config.lock",
        "packed-refs.lock",
        "refs/remotes/origin/main.lock",
        "objects/pack/tmp_pack_x",
    ];
    for name in left {
        fs::create_dir_all(clone.join(name).parent().unwrap()).unwrap();
        fs::write(clone.join(name), "").unwrap();
    }
    let (prepared, ..) = bench.build_and_run(script(&repository, &second, ""));
    assert_eq!(prepared.commit.as_deref(), Some(second.as_str()));
    assert!(left.iter().all(|name| !clone.join(name).exists()));

    // A power failure may leave files empty that were written a moment ago.
    fs::write(clone.join("config"), "").unwrap();
    let third = commit(&repository, &[("main.py", MAIN)]);
    let (prepared, ..) = bench.build_and_run(script(&repository, &third, ""));
    assert_eq!(prepared.commit.as_deref(), Some(third.as_str()));
}
