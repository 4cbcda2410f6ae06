//! Uncommitted changes in every form in which they arrive.

use std::fs;
use std::path::Path;

use clearml_env_builder::Stage;
use serde_json::{Value, json};

use crate::common::Bench;
use crate::fixtures::{commit, git};

const MAIN: &str = "print('committed')\n";

fn script(repository: &Path, version: &str, diff: &str) -> Value {
    json!({"binary": "python3", "repository": repository.display().to_string(), "version_num": version,
        "entry_point": "main.py", "working_dir": ".", "diff": diff})
}

/// What git shows after `change`, which is then taken back.
fn diff_of(root: &Path, options: &[&str], change: impl FnOnce()) -> String {
    change();
    let args: Vec<&str> = options.iter().copied().chain(["diff", "HEAD"]).collect();
    let mut command = std::process::Command::new("git");
    let output = command.current_dir(root).args(args).output().unwrap();
    assert!(output.status.success());
    git(root, &["reset", "-q", "--hard"]);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn large_diffs_renames_odd_names_and_line_ends() {
    let bench = Bench::new();
    let (root, _) = bench.repository(&[
        ("main.py", "import json, sys\nprint(json.dumps([open(name, newline='').read()[:9] for name in sys.argv[1:]]))\n"),
        ("old name.txt", "one\ntwo\nthree\nfour\nfive\n"),
        ("ordner/größe \"x\".txt", "alt\n"),
        ("crlf.txt", "a\r\nb\r\n"),
        ("data.txt", "start\n"),
    ]);
    git(&root, &["config", "core.autocrlf", "false"]);
    let first = git(&root, &["rev-parse", "HEAD"]);
    let diff = diff_of(&root, &[], || {
        git(&root, &["mv", "old name.txt", "new name.txt"]);
        fs::write(root.join("new name.txt"), "ONE\ntwo\nthree\nfour\nfive\n").unwrap();
        fs::write(root.join("ordner/größe \"x\".txt"), "neu\n").unwrap();
        fs::write(root.join("crlf.txt"), "a\r\nB\r\n").unwrap();
        let lines: String = (0..40_000)
            .map(|number| format!("line number {number}\n"))
            .collect();
        fs::write(root.join("data.txt"), lines).unwrap();
    });
    assert!(diff.len() > 600_000, "{}", diff.len());
    assert!(diff.contains("rename to") && diff.contains("\\303\\266"));
    let mut task = script(&root, &first, diff.trim_end_matches('\n'));
    task["entry_point"] = "main.py 'new name.txt' 'ordner/größe \"x\".txt' crlf.txt data.txt".into();
    let (prepared, _, output) = bench.build_and_run(task);
    assert_eq!(
        output,
        "[\"ONE\\ntwo\\nt\", \"neu\\n\", \"a\\r\\nB\\r\\n\", \"line numb\"]\n"
    );
    let copy = prepared.repository_root.unwrap();
    assert!(!copy.join("old name.txt").exists());
    assert_eq!(fs::read(copy.join("data.txt")).unwrap().len(), diff_lines());
}

fn diff_lines() -> usize {
    (0..40_000)
        .map(|number| format!("line number {number}\n").len())
        .sum()
}

#[test]
fn binary_changes_are_applied_refused_or_left_out_but_never_silently() {
    let mut bench = Bench::new();
    let (root, _) = bench.repository(&[("main.py", MAIN)]);
    fs::write(root.join("i.png"), [0, 1, 2, 255]).unwrap();
    git(&root, &["add", "i.png"]);
    let first = commit(&root, &[]);
    let change = || {
        fs::write(root.join("i.png"), [0, 9, 9, 255]).unwrap();
        fs::write(root.join("main.py"), "print(open('i.png', 'rb').read()[1])\n").unwrap();
    };
    let full = diff_of(&root, &["-c", "diff.binary=true"], change);
    let with_content = {
        change();
        let text = git(&root, &["diff", "--binary", "HEAD"]);
        git(&root, &["reset", "-q", "--hard"]);
        text
    };
    assert_eq!(bench.build_and_run(script(&root, &first, &with_content)).2, "9\n");
    let error = bench.build(script(&root, &first, &full)).0.unwrap_err();
    assert_eq!(error.stage(), Stage::Clone);
    assert!(
        error
            .to_string()
            .contains("the task holds no content of binary files"),
        "{error}"
    );
    let copy = bench.path("run/task_repository/project.git/main.py");
    assert_eq!(fs::read_to_string(&copy).unwrap(), MAIN);
    bench.settings.git.apply_skip_binary = true;
    let (_, host, output) = bench.build_and_run(script(&root, &first, &full));
    assert_eq!(output, "1\n");
    let told = "Warning: changes of a binary file are left out: diff --git a/i.png b/i.png";
    assert!(host.console().contains(told), "{}", host.console());
}

#[test]
fn what_the_configuration_of_the_users_git_makes_of_a_diff() {
    let bench = Bench::new();
    let (root, _) = bench.repository(&[("main.py", MAIN), ("src/deep/main.py", "print('deep')\n")]);
    let first = git(&root, &["rev-parse", "HEAD"]);
    let change = |name: &'static str| {
        let path = root.join(name);
        move || fs::write(path, "print('changed')\n").unwrap()
    };
    for options in [
        &["-c", "diff.noprefix=true"][..],
        &["-c", "diff.mnemonicPrefix=true"],
        &["-c", "color.ui=always"],
        &["-c", "core.quotePath=false"],
    ] {
        let diff = diff_of(&root, options, change("main.py"));
        assert_eq!(
            bench.build_and_run(script(&root, &first, &diff)).2,
            "changed\n",
            "{options:?}"
        );
    }
    // Paths relative to the folder in which git was started.
    for options in [
        &["-c", "diff.relative=true"][..],
        &["-c", "diff.relative=true", "-c", "diff.noprefix=true"],
    ] {
        change("src/deep/main.py")();
        let folder = root.join("src/deep");
        let args: Vec<&str> = options.iter().copied().chain(["diff", "HEAD"]).collect();
        let diff = git(&folder, &args);
        git(&root, &["reset", "-q", "--hard"]);
        // The file of the same name in the root has another content; it must not be taken for this one.
        let mut task = script(&root, &first, &diff);
        task["working_dir"] = "src".into();
        task["entry_point"] = "deep/main.py".into();
        let (_, host, output) = bench.build_and_run(task);
        assert_eq!(output, "changed\n", "{options:?}");
        assert!(
            host.console().contains("as relative to src/deep"),
            "{}",
            host.console()
        );
    }
}

#[test]
fn white_space_that_was_lost_on_the_way_is_found_and_told() {
    let bench = Bench::new();
    let (root, _) = bench.repository(&[("main.py", "import sys\r\nprint('committed')\r\n")]);
    let first = git(&root, &["rev-parse", "HEAD"]);
    let diff = "diff --git a/main.py b/main.py\n--- a/main.py\n+++ b/main.py\n@@ -1,2 +1,2 @@\n import sys\n-print('committed')\n+print('changed')\n";
    let (_, host, output) = bench.build_and_run(script(&root, &first, diff));
    assert_eq!(output, "changed\n");
    assert!(
        host.console().contains("applied ignoring white space"),
        "{}",
        host.console()
    );
}

#[test]
fn lines_may_have_moved_but_files_must_not_be_there_already() {
    let bench = Bench::new();
    let (root, first) = bench.repository(&[("main.py", "# a\n# b\n# c\nprint('committed')\n")]);
    let moved = "diff --git a/main.py b/main.py\n--- a/main.py\n+++ b/main.py\n@@ -2,2 +2,2 @@\n # c\n-print('committed')\n+print('changed')";
    assert_eq!(bench.build_and_run(script(&root, &first, moved)).2, "changed\n");
    let there = "diff --git a/main.py b/main.py\nnew file mode 100644\n--- /dev/null\n+++ b/main.py\n@@ -0,0 +1 @@\n+x\n";
    let error = bench.build(script(&root, &first, there)).0.unwrap_err();
    assert!(error.to_string().contains("already exists"), "{error}");
}

#[test]
fn changes_that_were_too_large_for_the_task_come_from_its_artifact() {
    let bench = Bench::new();
    let (root, first) = bench.repository(&[("main.py", MAIN)]);
    let diff = diff_of(&root, &[], || {
        fs::write(root.join("main.py"), "print('changed')\n").unwrap()
    });
    let placeholder = "# WARNING! git diff too large\n#\n# more";
    let host = crate::common::Recorder::default();
    let execution =
        json!({"artifacts": [{"key": "x"}, {"key": "auxiliary_git_diff", "uri": "http://files/u:p/d.txt"}]});
    *host.file.lock().unwrap() = Some(("http://files/u:p/d.txt".into(), diff.into_bytes()));
    let task = json!({"id": "01", "script": script(&root, &first, placeholder), "execution": execution});
    let prepared = bench.build_task(task.clone(), "run", &host).unwrap();
    assert_eq!(crate::common::run(&prepared, &bench.settings), "changed\n");
    *host.file.lock().unwrap() = None;
    let error = bench.build_task(task, "run", &host).unwrap_err();
    assert_eq!(error.stage(), Stage::Clone);
    assert!(
        error
            .to_string()
            .contains("from its artifact failed: no such file"),
        "{error}"
    );
}
