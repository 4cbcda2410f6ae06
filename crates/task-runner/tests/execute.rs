//! The documented ways of `execute`, as processes.

mod common;

use common::world::World;

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
    let log = world.scratch().parent().unwrap().join("execute/task.log");
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
    let (code, shown) = world.execute(task.as_str(), "direct").await;
    assert_eq!(code, 1, "{shown}");
    let (status, reason) = world.status(&task).await;
    assert!(
        status == "failed" && reason.starts_with("launch: "),
        "{status} {reason}"
    );
}

#[tokio::test]
async fn fully_monitored_it_ends_with_0_unless_asked_otherwise() {
    let world = World::start().await;
    let task = world.draft("exit 7").await;
    let (code, shown) = world.execute(task.as_str(), "full").await;
    assert_eq!(code, 0, "{shown}");
    assert_eq!(world.status(&task).await.0, "failed");
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
        let stop = clearml_api_client::StatusChange::default();
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
}
