//! Texts of a task that try to run something, to get out of their folder, or to show a secret.

use std::fs;
use std::os::unix::fs::symlink;

use clearml_env_builder::Stage;
use serde_json::{Value, json};

use crate::canary::assert_no_file_has;
use crate::common::Bench;
use crate::fixtures::{commit, git};

/// A bench with a file that nobody may make, and texts that would, if anybody ran them.
fn traps(bench: &Bench) -> Vec<String> {
    let mark = bench.path("mark");
    let mark = mark.display();
    [
        format!("$(touch {mark})"),
        format!("`touch {mark}`"),
        format!("x; touch {mark}"),
        format!("x | touch {mark}"),
        format!("x\ntouch {mark}"),
        format!("--upload-pack=touch {mark}"),
        format!("--config=core.sshCommand=touch {mark}"),
        "x".repeat(100_000),
    ]
    .to_vec()
}

fn script(bench: &Bench) -> Value {
    let (repository, first) = bench.repository(&[("main.py", "print('ok')")]);
    json!({"binary": "python3", "repository": repository.display().to_string(), "version_num": first,
        "entry_point": "main.py", "working_dir": "."})
}

#[test]
fn revisions_entry_points_and_folders_run_nothing() {
    let bench = Bench::new();
    let task = script(&bench);
    for trap in traps(&bench) {
        for field in ["version_num", "tag", "branch", "entry_point", "working_dir"] {
            let mut task = task.clone();
            if matches!(field, "tag" | "branch") {
                task["version_num"] = "".into();
            }
            task[field] = trap.as_str().into();
            let (result, host) = bench.build(task);
            let error = result.expect_err(field);
            let stage = if field.contains("_") && field != "version_num" {
                Stage::Launch
            } else {
                Stage::Clone
            };
            assert_eq!(error.stage(), stage, "{field}: {error}\n{}", host.console().len());
        }
    }
    assert!(!bench.path("mark").exists());
}

#[test]
fn requirements_run_nothing() {
    let mut bench = Bench::new();
    bench.env("PIP_NO_INDEX", "1");
    bench.env("PIP_FIND_LINKS", "");
    let mark = bench.path("mark");
    let mark = mark.display();
    let mut lines = traps(&bench);
    for line in [
        format!("pkg @ git+ext::sh -c touch% {mark}"),
        format!("git+ssh://-oProxyCommand=touch${{IFS}}{mark}/r#egg=pkg"),
        format!("-e git+file:///x@--upload-pack=touch#egg=pkg --global-option='; touch {mark}'"),
        format!("-e ./absent;touch {mark}"),
        format!("--find-links=$(touch {mark})"),
        format!("-r /dev/zero\n-c $(touch {mark})\nabsent==1"),
    ] {
        lines.push(line);
    }
    for line in lines {
        let task =
            json!({"binary": "python3", "entry_point": "a.py", "diff": "1", "requirements": {"pip": [line]}});
        let (result, host) = bench.build(task);
        if let Err(error) = result {
            assert_eq!(
                error.stage(),
                Stage::Environment,
                "{line}: {error}\n{}",
                host.console()
            );
        }
    }
    assert!(!bench.path("mark").exists());
}

#[test]
fn links_of_a_repository_lead_nowhere() {
    let bench = Bench::new();
    let mut task = script(&bench);
    let outside = bench.path("outside");
    fs::create_dir(&outside).unwrap();
    let repository = bench.path("origin/project.git");
    symlink(&outside, repository.join("link")).unwrap();
    git(&repository, &["add", "link"]);
    task["version_num"] = commit(&repository, &[]).into();
    // A script that the task carries.
    let mut literal = task.clone();
    literal["diff"] = "print('literal')".into();
    literal["entry_point"] = "a.py".into();
    literal["working_dir"] = "link".into();
    let error = bench.build(literal.clone()).0.unwrap_err();
    assert!(
        error.to_string().contains("leads out of the code folder"),
        "{error}"
    );
    literal["working_dir"] = ".".into();
    literal["entry_point"] = "link/a.py".into();
    // The name of the file alone counts, so this one is written beside the link.
    drop(bench.build(literal));
    // And changes of a file behind a link.
    let path = "link/b.py";
    task["diff"] = format!(
        "diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n"
    )
    .into();
    let error = bench.build(task).0.unwrap_err();
    assert!(
        error.to_string().starts_with("Failed applying git diff: "),
        "{error}"
    );
    assert_eq!(
        fs::read_dir(&outside).unwrap().count(),
        0,
        "something was written behind the link"
    );
}

#[test]
fn a_proxy_and_its_password_are_shown_to_nobody() {
    let mut bench = Bench::new();
    const PASS: &str = "kanal+rohr77";
    bench.settings.package_manager.extra_pip_install_flags =
        vec!["--proxy".to_owned(), format!("http://robot:{PASS}@127.0.0.1:1")];
    for name in ["PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"] {
        bench.settings.env.remove(name);
    }
    bench.env("PIP_INDEX_URL", "https://index.invalid/simple");
    bench.env("PIP_RETRIES", "1");
    let task =
        json!({"binary": "python3", "entry_point": "a.py", "diff": "1", "requirements": {"pip": "alpha==1"}});
    let (result, host) = bench.build(task);
    let error = result.unwrap_err().to_string();
    let console = host.console();
    assert!(
        console.contains("ProxyError") || console.contains("proxy"),
        "{console}"
    );
    assert!(!console.contains(PASS) && !error.contains(PASS), "{console}");
    assert_no_file_has(&[PASS], &bench.path("run"));
}
