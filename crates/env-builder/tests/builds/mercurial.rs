//! Repositories of Mercurial, with the real tool.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clearml_env_builder::Stage;
use clearml_support::secret::Secret;
use serde_json::{Value, json};

use crate::canary::{assert_no_file_has, watched};
use crate::common::Bench;
use crate::fixtures::has;
use crate::web::{Site, Web, basic};

fn hg(root: &Path, args: &[&str]) -> String {
    let output = Command::new("hg")
        .current_dir(root)
        .env("HGRCPATH", "")
        .args(["--config", "ui.username=Someone"])
        .args(args)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "hg {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn commit(root: &Path, text: &str) -> String {
    fs::write(root.join("main.py"), text).unwrap();
    hg(root, &["commit", "--addremove", "-m", "change"]);
    hg(root, &["--debug", "identify", "--id"])
}

fn repository(bench: &Bench) -> (PathBuf, String) {
    let root = bench.path("origin/project");
    fs::create_dir_all(&root).unwrap();
    hg(&root, &["init"]);
    let first = commit(&root, "import sys\nprint('first')\n");
    (root, first)
}

fn script(url: &str, version: &str) -> Value {
    json!({"binary": "python3", "repository": url, "version_num": version, "entry_point": "main.py", "working_dir": "."})
}

#[test]
fn a_mercurial_repository_with_revisions_changes_and_a_cache() {
    if !has("hg", "a_mercurial_repository_with_revisions_changes_and_a_cache") {
        return;
    }
    let mut bench = Bench::new();
    let (root, first) = repository(&bench);
    hg(&root, &["tag", "v1"]);
    let second = commit(&root, "print('second')\n");
    hg(&root, &["branch", "side"]);
    commit(&root, "print('side')\n");
    let url = format!("hg+{}", root.display());
    let mut task = script(&url, &first);
    task["diff"] = "diff --git a/main.py b/main.py\n--- a/main.py\n+++ b/main.py\n@@ -1,2 +1,2 @@\n import sys\n-print('first')\n+print('changed')\n".into();
    let (prepared, host, output) = bench.build_and_run(task.clone());
    assert_eq!(output, "changed\n");
    assert_eq!(prepared.commit.as_deref(), Some(first.as_str()));
    assert!(host.console().contains("type: hg"), "{}", host.console());
    let copy = prepared.repository_root.unwrap();
    assert_eq!(hg(&copy, &["paths", "default"]), root.display().to_string());
    task["diff"] = "diff --git a/main.py b/main.py\n--- a/main.py\n+++ b/main.py\n@@ -1,2 +1,2 @@\n import os\n-print('x')\n+print('y')\n".into();
    let error = bench.build(task).0.unwrap_err();
    assert!(
        error.to_string().starts_with("Failed applying git diff: "),
        "{error}"
    );
    for (tag, branch, expected) in [
        ("v1", "side", "first\n"),
        ("", "side", "side\n"),
        ("", "", "second\n"),
    ] {
        let mut task = script(&url, "");
        task["tag"] = tag.into();
        task["branch"] = branch.into();
        assert_eq!(bench.build_and_run(task).2, expected, "{tag:?} {branch:?}");
    }
    fs::rename(bench.path("origin"), bench.path("away")).unwrap();
    assert_eq!(bench.build_and_run(script(&url, &second)).2, "second\n");
    for absent in ["f".repeat(40), "--config=x".to_owned(), String::new()] {
        let error = bench.build(script(&url, &absent)).0.unwrap_err();
        assert_eq!(error.stage(), Stage::Clone, "{absent:?}");
    }
    // Without a prefix, the configuration says what it is.
    fs::rename(bench.path("away"), bench.path("origin")).unwrap();
    bench.settings.hg.always = true;
    assert_eq!(
        bench.build_and_run(script(&root.display().to_string(), &first)).2,
        "first\n"
    );
}

#[test]
fn a_login_for_mercurial_is_seen_by_its_server_only() {
    let python = "/usr/bin/python3";
    let test = "a_login_for_mercurial_is_seen_by_its_server_only";
    let hgweb = "from mercurial import demandimport; from mercurial.hgweb import hgweb, wsgicgi";
    let can = |code: &str| {
        Command::new(python)
            .args(["-c", code])
            .output()
            .is_ok_and(|output| output.status.success())
    };
    if !has("hg", test) {
        return;
    }
    if !can(hgweb) {
        eprintln!("SKIPPED {test}: {python} has no hgweb");
        return;
    }
    let mut bench = Bench::new();
    let (root, first) = repository(&bench);
    let program = format!("{hgweb}; import sys; wsgicgi.launch(hgweb(sys.argv[1].encode()))");
    let cgi = [python, "-c", &program, &root.display().to_string()];
    let pass = "geheim-$42 x";
    let site = Site {
        cgi: cgi.map(String::from).to_vec(),
        ..Site::git(&root)
    };
    let web = Web::start(site.login("robot", pass));
    bench.settings.hg.user = Some("robot".into());
    bench.settings.hg.pass = Some(Secret::new(pass));
    let encoded = basic("robot", pass).split_off("Basic ".len());
    let secrets = [pass, encoded.as_str()];
    let url = format!("hg+{}", web.url(""));
    let (_, host, output) = watched(&secrets, || bench.build_and_run(script(&url, &first)));
    assert_eq!(output, "first\n");
    assert!(!host.console().contains(pass), "{}", host.console());
    assert_no_file_has(&secrets, bench.temp.path());
    bench.settings.hg.host = Some("hg.example.com".into());
    bench.settings.vcs_cache.enabled = false;
    let before = web.logins().len();
    assert!(bench.build(script(&url, &first)).0.is_err());
    assert_eq!(web.logins().len(), before);
}
