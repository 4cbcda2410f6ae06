//! What reaches a terminal, a pipe or a disk: nothing that steers the terminal, and no panic where a reader
//! leaves or a disk is full.

use std::fs::{self, File};
use std::process::{Command, Output, Stdio};

use xtask::workbench::TaskSpec;

use crate::command_line::alone;
use crate::scene::{AGENT, Scene, finish};

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

#[test]
fn readers_that_leave_are_no_failure_and_full_disks_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let options = alone(&folder, "agent.worker_name: box\n");
    for arguments in [
        &["--version"][..],
        &["config"],
        &["config", "--json"],
        &["config", "--origins"],
        &["completions", "bash"],
        &["install-bootstrap"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = options.command(arguments);
        let left = command.stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(
            (left.status.code(), text(&left)),
            (Some(0), String::new()),
            "{arguments:?}"
        );
        let full = File::create("/dev/full").unwrap();
        let mut command = options.command(arguments);
        let full = command.stdout(full).stderr(Stdio::piped()).output().unwrap();
        let said = text(&full);
        assert_eq!(full.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        assert_eq!(
            said.contains("No space left"),
            arguments != ["--version"],
            "{said}"
        );
    }
    let mut usage = Command::new(AGENT);
    let usage = usage.arg("nosuch").stderr(File::create("/dev/full").unwrap());
    assert_eq!(usage.status().unwrap().code(), Some(2));
}

#[test]
fn what_others_wrote_does_not_steer_the_terminal() {
    let scene = Scene::new();
    let hostile = "evil\u{1b}]0;title\u{7}\r\u{202e}";
    let queue = scene.api.create_queue(hostile).unwrap();
    let name = format!("{hostile}2");
    let devices = format!("/{name}");
    for (arguments, code, wanted) in [
        (&["daemon", "--queue", "evil"][..], 1, "Did you mean"),
        (
            &["daemon", "--queue", &queue, "--status"],
            0,
            "Listening to queue 'evil\\u{1b}]0;",
        ),
        (&["daemon", "--queue", &name], 1, "Could not find queue"),
        (&["daemon", "--stop", &name], 1, "worker_id=evil\\u{1b}"),
        (
            &["daemon", "--gpus", &devices, "--queue", &queue],
            1,
            "control characters",
        ),
        (
            &["daemon", "--gpus", &name, "--queue", &queue],
            1,
            "bad item \"evil\\u{1b}",
        ),
        (&["daemon", "--uptime", &name, "--status"], 0, "Warning: --uptime"),
        (
            &["execute", "--id", &name],
            1,
            "Could not find task id=evil\\u{1b}",
        ),
        (&["daemon", &name], 2, "unrecognized arguments: evil\\u{1b}"),
        (&["list"], 0, "workers"),
    ] {
        let (got, stdout, stderr) = finish(scene.options().command(arguments));
        let said = stdout + &stderr;
        assert_eq!(got, code, "{arguments:?}: {said}");
        assert!(said.contains(wanted), "{arguments:?}: {said}");
        assert!(
            !said.contains(['\u{1b}', '\u{7}', '\r', '\u{202e}']),
            "{arguments:?}: {said:?}"
        );
    }
}

#[test]
fn a_configuration_that_was_spoilt_does_not_keep_a_daemon_from_being_stopped_by_its_id() {
    let folder = tempfile::tempdir().unwrap();
    let options = alone(&folder, "agent {\n");
    let (code, stdout, _) = finish(options.command(&["daemon", "--stop", "nobody"]));
    assert_eq!(code, 1);
    for wanted in [
        "Warning: Failed parsing",
        "Could not find a running",
        "worker_id=nobody\n",
    ] {
        assert!(stdout.contains(wanted), "{stdout}");
    }
    // Without an id, the configuration says whom to stop.
    let (code, stdout, _) = finish(options.command(&["daemon", "--stop"]));
    assert_eq!(code, 1);
    assert!(stdout.contains("ERROR: Failed parsing"), "{stdout}");
}

#[test]
fn a_task_stays_as_it_is_where_this_machine_cannot_run_it_at_all() {
    let scene = Scene::new();
    let task = scene.api.create_task("twice", &TaskSpec::script("pass")).unwrap();
    let other = scene.api.create_task("twice", &TaskSpec::script("pass")).unwrap();
    let file = scene.folder.path().join("a file");
    fs::write(&file, "").unwrap();
    let state = file.join("below");
    for arguments in [
        &["execute", "--id", &task][..],
        &["daemon", "--queue", &scene.queue],
    ] {
        let nowhere = scene
            .options()
            .variable("CLEARML_AGENT__AGENT__STATE_DIR", state.to_str().unwrap());
        let (code, stdout, _) = finish(nowhere.command(arguments));
        assert_eq!(code, 1, "{stdout}");
        assert!(stdout.contains("set agent.state_dir to"), "{stdout}");
        // The cause is part of the message already.
        assert!(!stdout.contains("caused by"), "{stdout}");
    }
    // Nor where the run can't be written down: no folder can be made there.
    let state = scene.folder.path().join("state");
    fs::create_dir(&state).unwrap();
    std::os::unix::fs::symlink("/sys/kernel", state.join("runs")).unwrap();
    let full = scene
        .options()
        .variable("CLEARML_AGENT__AGENT__STATE_DIR", state.to_str().unwrap());
    let waiting = scene.submit("waiting", &TaskSpec::script("pass"));
    for (task, status) in [(&task, "created"), (&waiting, "queued")] {
        let (code, stdout, _) = finish(full.command(&["execute", "--id", task]));
        assert_eq!((code, stdout.contains("creating folder")), (1, true), "{stdout}");
        assert_eq!(&scene.api.status(task).unwrap(), status);
    }
    let state = file.join("below");
    let (code, stdout, _) = finish(scene.options().command(&["execute", "--id", "Twic"]));
    assert_eq!(code, 1);
    assert!(
        stdout.contains("Did you mean this?") && stdout.contains(&format!("\n* ({other}) twice")),
        "{stdout}"
    );
    let arguments = ["execute", "--id", &task, "--log-file", state.to_str().unwrap()];
    let (code, stdout, _) = finish(scene.options().command(&arguments));
    assert_eq!(code, 1);
    assert!(
        stdout.contains("opening the log file /") && stdout.contains("--log-file"),
        "{stdout}"
    );
    let (code, stdout, _) = finish(scene.options().command(&["execute", "--id", "twice"]));
    assert_eq!(code, 1);
    assert!(
        stdout.contains("Found multiple tasks with name \"twice\""),
        "{stdout}"
    );
    for id in [&task, &other] {
        assert!(stdout.contains(&format!("\n* {id}\n")), "{stdout}");
        assert_eq!(scene.api.status(id).unwrap(), "created");
    }
}
