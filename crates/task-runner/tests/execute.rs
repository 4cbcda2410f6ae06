//! The documented ways of `execute`, as processes.

mod common;

use std::process::Stdio;
use std::time::Duration;

use clearml_api_client::{Call, StatusChange};
use clearml_support::process::ProcessIdentity;
use clearml_task_runner::run_dir::KEEP_FINISHED;
use clearml_task_runner::{NewRun, Phase, RunStore};
use common::world::World;
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn directly_it_reports_ships_shows_and_passes_the_exit_code_on() {
    let world = World::start().await;
    let task = world.draft("echo hello; echo $CLEARML_WORKER_ID; exit 7").await;
    let (code, shown) = world.execute(task.as_str(), "logged").await;
    assert_eq!(code, 7, "{shown}");
    assert_eq!(
        world.status(&task).await,
        ("failed".into(), "worker execution exit code 7".into())
    );
    for text in [
        "Current configuration",
        "Executing task id [",
        "hello\n",
        "Process failed, exit code 7",
    ] {
        assert!(shown.contains(text), "{text} is not in {shown}");
    }
    assert!(
        !shown.contains(&world.secret()),
        "the configuration is shown with its secret"
    );
    let output = world.output(&task).await;
    assert!(
        output.starts_with("hello\n") && output.ends_with("Process failed, exit code 7\n"),
        "{output}"
    );
    let log = world.execute_folder().join("task.log");
    assert!(std::fs::read_to_string(log).unwrap().starts_with("hello\n"));
}

#[tokio::test]
async fn directly_a_signal_is_seen_by_a_shell_as_usual_and_set_up_failures_are_reported() {
    let world = World::start().await;
    let task = world.draft("kill -9 $$").await;
    assert_eq!(world.execute(task.as_str(), "direct").await.0, 247);
    let (task, _) = world
        .task_of(serde_json::json!({"binary": "/bin/sh", "entry_point": "missing.sh"}))
        .await;
    for (way, expected) in [("direct", 1), ("full", 0)] {
        let (code, shown) = world.execute(task.as_str(), way).await;
        assert_eq!(code, expected, "{shown}");
        let (status, reason) = world.status(&task).await;
        assert!(
            status == "failed" && reason.starts_with("launch: "),
            "{status} {reason}"
        );
        let events = world.events(&task).await;
        let told = events
            .iter()
            .filter(|event| event.msg.contains("clearml_agent: ERROR: "));
        assert!(told.count() > 0, "{events:?}");
        world.client.tasks_reset(&task, true).await.unwrap();
    }
}

#[tokio::test]
async fn fully_monitored_it_ends_with_0_unless_asked_otherwise() {
    let world = World::start().await;
    let task = world.draft("exit 7").await;
    let runs = world.execute_folder().join("runs");
    let store = RunStore::open(&runs).unwrap();
    for _ in 0..30 {
        let new = NewRun {
            task: task.clone(),
            queue: None,
            worker: "an earlier one".into(),
        };
        let (run, _keeper) = store.create(new).unwrap();
        run.set_phase(Phase::Done).unwrap();
    }
    let (code, shown) = world.execute(task.as_str(), "full").await;
    assert_eq!(code, 0, "{shown}");
    assert_eq!(world.status(&task).await.0, "failed");
    assert_eq!(store.list().unwrap().len(), KEEP_FINISHED, "of finished runs");
    let asked = [("CLEARML_AGENT_PROPAGATE_EXITCODE", "1")];
    let (code, shown) = world.execute_among(&asked, task.as_str(), "full").await;
    assert_eq!(code, 7, "{shown}");
}

#[tokio::test]
async fn silently_it_becomes_the_program_and_leaves_status_and_console_to_others() {
    let world = World::start().await;
    let task = world.draft("echo as $$; umask; exit 9").await;
    let (code, shown) = world.execute(task.as_str(), "silent").await;
    assert_eq!(code, 9, "{shown}");
    assert!(
        shown.contains("Running task id [") && shown.contains("\nas "),
        "{shown}"
    );
    let mask = format!("\n{:04o}\n", clearml_task_runner::umask::original());
    assert!(shown.contains(&mask), "the mask is given back: {shown}");
    assert!(world.events(&task).await.is_empty());
}

#[tokio::test]
async fn a_copy_is_run_instead_if_wanted_and_the_original_stays() {
    let world = World::start().await;
    let task = world.draft("echo copy").await;
    let (code, shown) = world.execute(task.as_str(), "clone").await;
    assert_eq!(code, 0, "{shown}");
    assert_eq!(world.status(&task).await.0, "created");
    assert!(shown.contains("copy\n"));
}

#[tokio::test]
async fn a_task_that_must_be_queued_and_is_not_is_refused() {
    let world = World::start().await;
    let task = world.draft("echo no").await;
    let (code, shown) = world.execute(task.as_str(), "queued").await;
    assert_ne!(code, 0);
    assert!(shown.contains("Execution required enqueued task"), "{shown}");
    assert_eq!(world.status(&task).await.0, "created");
    let queue = world.client.queues_create("a queue", &[]).await.unwrap();
    let enqueue = serde_json::json!({"task": task, "queue": queue});
    let call = Call::new("tasks.enqueue").body(enqueue);
    let _: serde_json::Value = world.client.call(call).await.unwrap();
    let (code, shown) = world.execute(task.as_str(), "queued").await;
    assert_eq!(code, 0, "{shown}");
    assert_eq!(world.status(&task).await.0, "completed");
    let (code, shown) = world.execute("no such task", "direct").await;
    assert!(
        code != 0 && shown.contains("Could not find task id=no such task"),
        "{shown}"
    );
}

/// As in a container whose outer agent looks after the task.
#[tokio::test]
async fn silently_a_command_for_aborts_runs_beside_the_program() {
    let world = World::start().await;
    let folder = world.scratch();
    let command = format!(
        "sh -c 'echo saving; touch {0}/saved; kill -TERM $(cat {0}/pid)'",
        folder.display()
    );
    let variables = [("CLEARML_AGENT_ABORT_CALLBACK_CMD", command.as_str())];
    let task = world.draft("echo $$ >pid; exec sleep 600").await;
    let stop = async {
        let pid = folder.join("pid");
        world
            .wait_until("the program runs", || {
                std::fs::read(&pid).is_ok_and(|text| !text.is_empty())
            })
            .await;
        let announced = world.get(&task).await.runtime;
        assert_eq!(announced["_abort_callback_timeout"], serde_json::json!(180));
        world.report_worker(&task).await;
        let stop = StatusChange::default();
        world.client.tasks_stop(&task, &stop).await.unwrap();
    };
    let ((code, shown), ()) = tokio::join!(world.execute_among(&variables, task.as_str(), "silent"), stop);
    // The program has ended by SIGTERM.
    assert_eq!(code, 241, "{shown}");
    assert!(folder.join("saved").exists(), "{shown}");
    for text in [
        "INFO: registering bash callback",
        "saving\n",
        "### Task abort callback completed in ",
    ] {
        assert!(shown.contains(text), "no {text:?} in {shown}");
    }
    let runtime = world.get(&task).await.runtime;
    assert_eq!(runtime["_abort_callback_completed"], serde_json::json!(1));

    // What this process is told goes on to the program beside it.
    let task = world.draft("echo $$ >other; exec sleep 600").await;
    let mut command = world.command(task.as_str(), "silent");
    let mut process = command.envs(variables).stdout(Stdio::null()).spawn().unwrap();
    let pid = folder.join("other");
    world
        .wait_until("the program runs", || {
            std::fs::read(&pid).is_ok_and(|text| !text.is_empty())
        })
        .await;
    let identity = ProcessIdentity::of(process.id().unwrap().cast_signed()).unwrap();
    identity.unwrap().signal(Signal::HUP).unwrap();
    assert_eq!(process.wait().await.unwrap().code(), Some(255));
}

#[tokio::test]
async fn the_log_file_is_whole_although_nobody_reads_the_screen() {
    let world = World::start().await;
    let task = world.draft("sleep 0.2; seq 1 20000; echo last").await;
    let mut command = world.command(task.as_str(), "logged");
    let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
    drop(process.stdout.take());
    assert!(process.wait().await.unwrap().success());
    let log = std::fs::read_to_string(world.execute_folder().join("task.log")).unwrap();
    assert!(
        log.starts_with("1\n2\n") && log.ends_with("20000\nlast\n"),
        "{} bytes",
        log.len()
    );
}

/// As with a terminal that was stopped by Ctrl-S.
#[tokio::test]
async fn a_screen_that_takes_nothing_holds_up_neither_console_nor_abort() {
    let world = World::start().await;
    let task = world.draft("seq 1 40000; echo last; exec sleep 600").await;
    let mut command = world.command(task.as_str(), "direct");
    let process = command.stdout(Stdio::piped()).spawn().unwrap();
    world.wait_for_output(&task, "last\n").await;
    world.report_worker(&task).await;
    world
        .client
        .tasks_stop(&task, &StatusChange::default())
        .await
        .unwrap();
    world.wait_for_output(&task, "Process aborted by user").await;
    drop(process);
}

#[tokio::test]
async fn the_end_of_its_terminal_stops_the_task_unless_that_is_ignored() {
    let world = World::start().await;
    let hang_up = async |ignored: bool, script: &str| {
        let task = world.draft(script).await;
        let direct = world.command(task.as_str(), "direct");
        let direct = direct.as_std();
        let trap = if ignored { "trap '' HUP;" } else { "" };
        let mut process = tokio::process::Command::new("sh")
            .args(["-c", &format!("{trap} exec \"$0\" \"$@\"")])
            .arg(direct.get_program())
            .args(direct.get_args())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        world.wait_for_output(&task, "up\n").await;
        let id = process.id().unwrap().cast_signed();
        let identity = ProcessIdentity::of(id).unwrap().unwrap();
        identity.signal(Signal::HUP).unwrap();
        let code = process.wait().await.unwrap().code();
        (code, world.status(&task).await)
    };
    let (code, status) = hang_up(false, "echo up; exec sleep 600").await;
    assert_eq!(
        (code, status),
        (Some(254), ("stopped".into(), "user abort".into()))
    );
    let (code, (status, _)) = hang_up(true, "echo up; sleep 0.5").await;
    assert_eq!((code, status.as_str()), (Some(0), "completed"));
}

#[tokio::test]
async fn a_task_runs_once_on_one_machine_and_goes_on_where_its_process_has_died() {
    let world = World::start().await;
    let go = world.scratch().join("go");
    let waits = "echo begun; until [ -e go ]; do sleep 0.05; done; echo over; exit 6";
    let task = world.draft(waits).await;
    let mut command = world.command(task.as_str(), "direct");
    let mut first = command.stdout(Stdio::null()).spawn().unwrap();
    world.wait_for_output(&task, "begun\n").await;
    let (code, shown) = world.execute(task.as_str(), "direct").await;
    assert_eq!(code, 1);
    assert!(
        shown.contains("is being run on this machine already, by process "),
        "{shown}"
    );
    // Another node of one job may be on the same machine.
    std::fs::write(&go, "").unwrap();
    let node = [("RANK", "1")];
    let (code, shown) = world.execute_among(&node, task.as_str(), "direct").await;
    assert_eq!(code, 6, "{shown}");
    assert_eq!(first.wait().await.unwrap().code(), Some(6));

    std::fs::remove_file(&go).unwrap();
    let task = world.draft(waits).await;
    let mut first = world.command(task.as_str(), "direct");
    let mut first = first.stdout(Stdio::null()).spawn().unwrap();
    world.wait_for_output(&task, "begun\n").await;
    first.kill().await.unwrap();
    std::fs::write(&go, "").unwrap();
    let (code, shown) = world.execute(task.as_str(), "direct").await;
    assert_eq!(code, 6, "{shown}");
    let output = world.output(&task).await;
    assert_eq!(output, "begun\nover\nProcess failed, exit code 6\n", "{shown}");
}

#[tokio::test]
async fn a_terminal_interrupts_a_program_with_an_abort_command_once() {
    const INTERRUPTIONS: usize = 5;
    let world = World::start().await;
    let script = "trap 'echo x >>interrupted' INT; touch up; until [ -e go ]; do sleep 0.05; done";
    let task = world.draft(script).await;
    let silent = world.command(task.as_str(), "silent");
    let words = std::iter::once(silent.as_std().get_program()).chain(silent.as_std().get_args());
    let words: Vec<String> = words
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let started = tokio::process::Command::new("script")
        .args(["-qec", &format!("exec {}", words.join(" ")), "/dev/null"])
        .env("CLEARML_AGENT_ABORT_CALLBACK_CMD", "true")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let Ok(mut process) = started else {
        eprintln!("SKIPPED a_terminal_interrupts_a_program_with_an_abort_command_once: no script");
        return;
    };
    let mut keys = process.stdin.take().unwrap();
    let place = |name: &str| world.scratch().join(name);
    world
        .wait_until("the program runs", || place("up").exists())
        .await;
    for _ in 0..INTERRUPTIONS {
        keys.write_all(b"\x03").await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    std::fs::write(place("go"), "").unwrap();
    assert!(process.wait().await.unwrap().success());
    let interrupted = std::fs::read_to_string(place("interrupted")).unwrap();
    assert_eq!(interrupted.lines().count(), INTERRUPTIONS);
}
