//! Tasks that cannot work: each fails with a clear message and the right stage, and the agent goes on.

use std::time::Duration;

use crate::scene::{LIMIT, LONG_LIMIT, QUEUE, Scene};
use serde_json::json;
use xtask::workbench::{Agent, TaskSpec, wait_for};

const ABSENT: &str = "0123456789012345678901234567890123456789";

#[test]
fn code_that_cannot_be_had_fails_in_the_clone_stage() {
    let scene = Scene::new();
    let _daemon = scene.daemon();
    let (url, commit) = scene.repository("project", &[("main.py", "print('out: hello')\n")]);

    let nowhere = format!("file://{}/no-such-repository", scene.folder.path().display());
    let ended = scene.run("no repository", &TaskSpec::repository(&nowhere, "", "main.py"));
    ended.assert_failed_in("clone", "no-such-repository");

    let ended = scene.run("no commit", &TaskSpec::repository(&url, ABSENT, "main.py"));
    ended.assert_failed_in("clone", ABSENT);

    let diff = "--- a/main.py\n+++ b/main.py\n@@ -1 +1 @@\n-print('something else')\n+print('patched')\n";
    let ended = scene.run(
        "bad diff",
        &TaskSpec::repository(&url, &commit, "main.py").with("diff", diff),
    );
    ended.assert_failed_in("clone", "main.py");

    scene.good_task_completes();
}

#[test]
fn an_environment_that_cannot_be_built_fails_in_the_environment_stage() {
    let scene = Scene::new();
    let _daemon = scene.daemon();
    let package = "clearml-agent-no-such-package-anywhere";
    let spec = TaskSpec::script("print('out: never')").requirements(&format!("{package}==9.9.9\n"));
    let task = scene.submit("no package", &spec);
    let ended = scene.ended_within(&task, LONG_LIMIT);
    ended.assert_failed_in("environment", package);

    scene.good_task_completes();
}

#[test]
fn an_interpreter_that_is_not_there_is_replaced_and_the_console_says_so() {
    let scene = Scene::new();
    let _daemon = scene.daemon();
    let spec = TaskSpec::script("print('out: replaced')").with("binary", "/opt/nowhere/bin/python3.99");
    let ended = scene.run("other interpreter", &spec);
    ended.assert_status("completed");
    assert!(ended.console.contains("3.99"), "{}", ended.console);
    assert_eq!(ended.output(), ["out: replaced"]);
}

#[test]
fn a_machine_without_any_interpreter_fails_in_the_environment_stage() {
    let scene = Scene::new();
    let empty = scene.folder.path().join("no-programs");
    std::fs::create_dir(&empty).unwrap();
    let options = scene.options().variable("PATH", empty.to_str().unwrap());
    let _daemon = Agent::daemon(&options, QUEUE).unwrap();
    for name in ["first", "the agent goes on"] {
        let ended = scene.run(name, &TaskSpec::script("print('out: never')"));
        ended.assert_failed_in("environment", "python3");
    }
}

#[test]
fn a_missing_entry_point_is_named() {
    let scene = Scene::new();
    let _daemon = scene.daemon();
    let (url, commit) = scene.repository("project", &[("main.py", "print('out: hello')\n")]);
    let ended = scene.run(
        "no entry point",
        &TaskSpec::repository(&url, &commit, "missing/train.py"),
    );
    ended.assert_status("failed");
    assert!(ended.console.contains("missing/train.py"), "{}", ended.console);
    assert!(!ended.reason().is_empty());
    scene.good_task_completes();
}

#[test]
fn a_task_deleted_while_it_runs_is_ended() {
    let scene = Scene::new();
    let daemon = scene.daemon();
    let code = "import time\nprint('out: started', flush=True)\nwhile True:\n    time.sleep(0.1)\n    print('x', flush=True)\n";
    let task = scene.submit("to be deleted", &TaskSpec::script(code));
    wait_for("the first line", LIMIT, Duration::from_millis(50), || {
        Ok(scene.api.console(&task)?.contains("out: started").then_some(()))
    })
    .unwrap();
    scene
        .api
        .call("tasks.delete", json!({"task": task, "force": true}))
        .unwrap();
    let running = |(_, line): &(i32, String)| line.contains("script.py") || line.contains(" shim ");
    wait_for(
        "the end of the processes",
        LIMIT,
        Duration::from_millis(50),
        || Ok((!daemon.mark().processes().iter().any(running)).then_some(())),
    )
    .unwrap();
    scene.good_task_completes();
}

#[test]
fn a_task_stopped_by_someone_else_keeps_that_status() {
    let scene = Scene::new();
    let _daemon = scene.daemon();
    let task = scene.submit(
        "taken away",
        &TaskSpec::script("import time\nprint('out: up', flush=True)\ntime.sleep(1000)\n"),
    );
    wait_for("the first line", LIMIT, Duration::from_millis(50), || {
        Ok(scene.api.console(&task)?.contains("out: up").then_some(()))
    })
    .unwrap();
    let change = json!({"task": task, "force": true, "status_reason": "somebody else"});
    scene.api.call("tasks.stopped", change).unwrap();
    scene.good_task_completes();
    let ended = scene.ended(&task);
    ended.assert_status("stopped");
    assert_eq!(ended.reason(), "somebody else");
}

#[test]
fn a_line_of_ten_megabytes_arrives_whole() {
    let scene = Scene::new();
    let _daemon = scene.daemon();
    let code =
        "import sys\nsys.stdout.write('a' * 10_000_000)\nsys.stdout.flush()\nprint()\nprint('out: after')\n";
    let ended = scene.run("long line", &TaskSpec::script(code));
    ended.assert_status("completed");
    assert_eq!(ended.output(), ["out: after"]);
    let longest = ended.console.matches('a').count();
    assert!(longest >= 10_000_000, "only {longest} of 10000000 arrived");
    scene.good_task_completes();
}

#[test]
fn bytes_that_are_not_utf8_are_shown_and_do_no_harm() {
    let scene = Scene::new();
    let _daemon = scene.daemon();
    let code = "import sys\nsys.stdout.buffer.write(b'out: \\xff\\xfe caf\\xc3\\xa9\\n')\n\
                sys.stdout.buffer.write(b'out: nul \\x00 end\\n')\nprint('out: after')\n";
    let ended = scene.run("not UTF-8", &TaskSpec::script(code));
    ended.assert_status("completed");
    let output = ended.output();
    assert_eq!(output.len(), 3, "{output:?}");
    assert!(
        output[0].starts_with("out: ") && output[0].ends_with("café"),
        "{output:?}"
    );
    assert_eq!(output[2], "out: after");
}

#[test]
fn a_progress_bar_leaves_its_last_state() {
    let scene = Scene::new();
    let _daemon = scene.daemon();
    let code = "import sys\nfor i in range(101):\n    sys.stdout.write(f'\\rout: progress {i} %')\n\
                sys.stdout.write('\\n')\nprint('out: after')\n";
    let ended = scene.run("progress bar", &TaskSpec::script(code));
    ended.assert_status("completed");
    let output = ended.output();
    assert!(output.contains(&"out: progress 100 %"), "{output:?}");
    assert!(output.len() < 20, "the bar was not folded: {output:?}");
    assert_eq!(output.last(), Some(&"out: after"));
}
