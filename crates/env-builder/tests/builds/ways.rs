//! Other ways to start: notebooks, custom build scripts, code that is there already.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use clearml_env_builder::{BuildError, Stage};
use serde_json::json;

use crate::common::{Bench, run};
use crate::fixtures::{commit, git, make_module_wheel};

fn with_nbconvert(bench: &mut Bench) {
    bench.wheel("ipython", "1.0");
    // As much of nbconvert as is needed here: its command line, and cells of code.
    make_module_wheel(
        &bench.path("wheels"),
        "nbconvert",
        "1.0",
        "import json, pathlib, sys\nassert sys.argv[1:3] == ['--to', 'python']\nbook = pathlib.Path(sys.argv[3])\nfolder = pathlib.Path(sys.argv[5]) if sys.argv[4:5] == ['--output-dir'] else book.parent\ncells = json.loads(book.read_text())['cells']\n(folder / book.with_suffix('.py').name).write_text(''.join(''.join(c['source']) + '\\n' for c in cells))\n",
    );
}

#[test]
fn a_notebook_is_converted_by_what_its_environment_has() {
    let mut bench = Bench::new();
    with_nbconvert(&mut bench);
    let book =
        r#"{"cells": [{"source": ["x = 6\n", "y = 7"]}, {"source": ["import ipython; print(x * y)"]}]}"#;
    let (repository, first) = bench.repository(&[("books/nb.ipynb", book), ("broken.ipynb", "{")]);
    let mut task = json!({"repository": repository.display().to_string(), "version_num": first,
        "entry_point": "nb.ipynb", "working_dir": "books", "requirements": {"pip": "IPython == 1.0"}});
    let (prepared, host, output) = bench.build_and_run(task.clone());
    assert_eq!(output, "42\n");
    assert!(prepared.argv.last().unwrap().to_string_lossy().ends_with("nb.py"));
    assert!(host.reported().iter().any(|line| line == "nbconvert==1.0"));
    task["entry_point"] = "broken.ipynb".into();
    task["working_dir"] = ".".into();
    let error = bench.build(task).0.unwrap_err();
    assert_eq!(error.stage(), Stage::Launch);
    assert!(
        error
            .to_string()
            .starts_with("converting notebook \"broken.ipynb\""),
        "{error}"
    );
}

#[test]
fn the_script_of_a_notebook_outside_of_the_code_replaces_nothing() {
    let mut bench = Bench::new();
    with_nbconvert(&mut bench);
    let shared = bench.path("shared");
    fs::create_dir(&shared).unwrap();
    let book = r#"{"cells": [{"source": ["import beside; print(beside.what)"]}]}"#;
    for (name, text) in [
        ("nb.ipynb", book),
        ("nb.py", "own"),
        ("beside.py", "what = 'found'"),
    ] {
        fs::write(shared.join(name), text).unwrap();
    }
    let (repository, _) = bench.repository(&[
        ("a.ipynb.ipynb", book),
        ("nb.py", "print('committed')"),
        ("beside.py", "what = 'here'"),
    ]);
    fs::create_dir(repository.join("to")).unwrap();
    symlink(&shared, repository.join("link")).unwrap();
    // Writing the script would follow this one.
    symlink(shared.join("nb.py"), repository.join("to/linked.py")).unwrap();
    git(&repository, &["add", "link", "to"]);
    let linked = r#"{"cells": [{"source": ["print('of a link')"]}]}"#;
    let second = commit(&repository, &[("to/linked.ipynb", linked)]);
    let outside = shared.join("nb.ipynb").display().to_string();
    for (entry, folder, expected) in [
        (outside.as_str(), ".", "found\n"),
        ("../../../shared/nb.ipynb", ".", "found\n"),
        ("link/nb.ipynb", ".", "found\n"),
        ("nb.ipynb", "link", "found\n"),
        ("linked.ipynb", "to", "of a link\n"),
        ("a.ipynb.ipynb", ".", "here\n"),
    ] {
        let task = json!({"repository": repository.display().to_string(), "version_num": second,
            "entry_point": entry, "working_dir": folder, "requirements": {"pip": ""}});
        assert_eq!(bench.build_and_run(task).2, expected, "{entry} in {folder}");
        let text = fs::read_to_string(shared.join("nb.py")).unwrap();
        assert_eq!(text, "own", "{entry} in {folder}");
    }
    assert_eq!(
        fs::read_dir(&shared)
            .unwrap()
            .filter(|entry| { entry.as_ref().is_ok_and(|entry| entry.path().is_file()) })
            .count(),
        3
    );
}

#[test]
fn task_init_is_added_with_its_package() {
    let mut bench = Bench::new();
    make_module_wheel(
        &bench.path("wheels"),
        "clearml",
        "1.0",
        "class Task:\n    init = staticmethod(lambda: print('initialised'))\n",
    );
    bench.env("PIP_NO_INDEX", "1");
    bench.env("PIP_FIND_LINKS", bench.path("wheels").display().to_string());
    bench.env("CLEARML_AGENT_FORCE_TASK_INIT", "1");
    let task = json!({"entry_point": "a.py", "diff": "'''doc'''\nfrom __future__ import annotations\nprint('script')"});
    assert_eq!(bench.build_and_run(task).2, "initialised\nscript\n");
}

#[test]
fn a_script_outside_of_the_code_is_started_and_not_changed() {
    let mut bench = Bench::new();
    make_module_wheel(&bench.path("wheels"), "clearml", "1.0", "");
    bench.env("PIP_NO_INDEX", "1");
    bench.env("PIP_FIND_LINKS", bench.path("wheels").display().to_string());
    bench.env("CLEARML_AGENT_FORCE_TASK_INIT", "1");
    let shared = bench.path("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("tool.py"), "print('of everybody')").unwrap();
    let (repository, _) = bench.repository(&[("a.py", "")]);
    symlink(&shared, repository.join("link")).unwrap();
    git(&repository, &["add", "link"]);
    let second = commit(&repository, &[("b.py", "")]);
    for (entry, folder) in [
        (shared.join("tool.py").display().to_string(), "."),
        ("tool.py".to_owned(), "link"),
    ] {
        let task = json!({"repository": repository.display().to_string(), "version_num": second,
            "entry_point": entry, "working_dir": folder});
        assert_eq!(
            bench.build_and_run(task).2,
            "of everybody\n",
            "{entry} in {folder}"
        );
        let text = fs::read_to_string(shared.join("tool.py")).unwrap();
        assert_eq!(text, "print('of everybody')", "{entry} in {folder}");
    }
}

#[test]
fn what_the_sdk_writes_above_future_imports_goes_below_them() {
    let bench = Bench::new();
    let diff = "from clearml import Task\n(__name__ != \"__main__\") or Task.init()\nfrom __future__ import annotations\n";
    let prepared = bench
        .build(json!({"entry_point": "a.py", "diff": diff}))
        .0
        .unwrap();
    let text = fs::read_to_string(prepared.cwd.join("a.py")).unwrap();
    assert!(
        text.starts_with("from __future__ import annotations\nfrom clearml "),
        "{text}"
    );
}

/// A custom build script with this text; the task that it gets.
fn with_script(bench: &mut Bench, text: &str) -> serde_json::Value {
    let script = bench.path("build script.sh");
    fs::write(&script, text).unwrap();
    bench.settings.custom_build_script = Some("$SCRIPTS/build script.sh".into());
    bench.env("SCRIPTS", bench.temp.path().display().to_string());
    let (repository, first) = bench.repository(&[("src/main.py", "print('of the repository')")]);
    json!({"repository": repository.display().to_string(), "version_num": first, "entry_point": "main.py",
        "working_dir": "src", "binary": "python3", "requirements": {"pip": "not-to-be-installed"}})
}

#[test]
fn a_custom_build_script_says_what_to_start() {
    let mut bench = Bench::new();
    let text = r#"#!/bin/sh
set -e
test -f "$CLEARML_GIT_ROOT/$CLEARML_TASK_WORKING_DIR/$CLEARML_TASK_SCRIPT_ENTRY"
test ! -s "$CLEARML_CUSTOM_BUILD_OUTPUT"
grep -q 0123abcd "$CLEARML_CUSTOM_BUILD_TASK_CONFIG_FILE"
case "$CLEARML_CUSTOM_BUILD_TASK_CONFIG_JSON" in *0123abcd*) ;; *) exit 4;; esac
echo "print('built in', '$(basename "$CLEARML_VENV_PATH")')" > "$SCRIPTS/made.py"
echo "{\"binary\": \"$(command -v python3)\", \"entry_point\": \"$SCRIPTS/made.py\", \"working_dir\": \"$SCRIPTS\"}" > "$CLEARML_CUSTOM_BUILD_OUTPUT"
echo told
"#;
    let task = with_script(&mut bench, text);
    let (prepared, host, output) = bench.build_and_run(task);
    assert_eq!(output, "built in venv\n");
    assert!(host.console().contains("Info: told"), "{}", host.console());
    assert!(host.packages.lock().unwrap().is_none(), "nothing was installed");
    assert!(!bench.path("run/venv").exists());
    assert_eq!(
        prepared.repository_root,
        Some(bench.path("run/task_repository/project.git"))
    );
    assert_eq!(prepared.cwd, bench.temp.path());
}

#[test]
fn a_custom_build_script_may_fail_or_leave_the_work_to_the_agent() {
    let mut bench = Bench::new();
    let mut task = with_script(&mut bench, "exit 17\n");
    task["requirements"] = json!({});
    let error = bench.build(task.clone()).0.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Custom build script failed with return code 17"
    );
    assert_eq!(error.exit_code(), Some(17));
    assert!(matches!(error, BuildError::CustomScript { .. }));
    let script = bench.path("build script.sh");
    for (text, told) in [
        ("#!/bin/sh\n", "it wrote nothing"),
        (
            "#!/bin/sh\necho '{' > $CLEARML_CUSTOM_BUILD_OUTPUT\n",
            "can't be used",
        ),
        (
            "#!/bin/sh\necho '{\"binary\": \"/none\", \"entry_point\": \"/none\", \"working_dir\": \"/\"}' > $CLEARML_CUSTOM_BUILD_OUTPUT\n",
            "binary /none is not",
        ),
    ] {
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let (_, host, output) = bench.build_and_run(task.clone());
        assert_eq!(output, "of the repository\n");
        assert!(host.console().contains(told), "{}", host.console());
    }
    bench.settings.custom_build_script = None;
    bench.env("CLEARML_AGENT_CUSTOM_BUILD_SCRIPT", "/no/such/script");
    let (_, host, output) = bench.build_and_run(task);
    assert_eq!(output, "of the repository\n");
    assert!(
        host.console().contains("/no/such/script does not exist"),
        "{}",
        host.console()
    );
}

#[test]
fn code_that_is_there_already_is_used_as_it_is() {
    let mut bench = Bench::new();
    let folder = bench.path("prepared");
    fs::create_dir_all(folder.join("sub")).unwrap();
    fs::write(folder.join("sub/a.py"), "print('prepared')").unwrap();
    bench.env("CLEARML_AGENT_FORCE_CODE_DIR", folder.display().to_string());
    let task = json!({"repository": "http://127.0.0.1:1/x.git", "entry_point": "a.py", "working_dir": "sub", "diff": "diff --git a/x b/x"});
    let (prepared, _, output) = bench.build_and_run(task.clone());
    assert_eq!(output, "prepared\n");
    assert_eq!(prepared.cwd, folder.join("sub"));
    assert!(prepared.commit.is_none());
    // Where the task is started is decided by the variable too.
    bench.env("CLEARML_AGENT_FORCE_EXEC_SCRIPT", "sub:a.py");
    let (prepared, ..) = bench.build_and_run(task);
    assert_eq!(run(&prepared, &bench.settings), "prepared\n");
}
