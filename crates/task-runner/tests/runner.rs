//! Whole runs: real runner and shim processes against the embedded server.

mod common;

use std::time::{Duration, Instant};

use clearml_api_client::StatusChange;
use clearml_task_runner::Phase;
use clearml_task_runner::console::render::MAX_MESSAGE;
use common::with_environment;
use common::world::{World, numbered, signal};
use rustix::process::Signal;
use serde_json::json;

const DONE: &str = "Process completed successfully\n";

#[tokio::test]
async fn a_task_runs_and_everything_about_it_is_told() {
    let world = World::start().await;
    let (task, run) = world
        .task("echo $CLEARML_TASK_ID; echo $CLEARML_WORKER_ID; echo err >&2")
        .await;
    let theirs = json!({"theirs": 1}).as_object().unwrap().clone();
    world.client.tasks_edit_runtime(&task, theirs, &[]).await.unwrap();
    assert_eq!(world.run(&run).await, 0);
    assert_eq!(
        world.status(&task).await,
        ("completed".into(), "worker execution done".into())
    );
    assert_eq!(world.get(&task).await.runtime["theirs"], 1);
    assert_eq!(
        world.get(&task).await.status_message.as_deref(),
        Some("Changed by clearml-agent test:0")
    );
    assert!(
        world
            .get(&task)
            .await
            .runtime
            .contains_key("_exec_agent_hostname")
    );
    assert_eq!(world.output(&task).await, format!("{task}\ntest:0\nerr\n{DONE}"));

    let events = world.events(&task).await;
    assert!(events.iter().all(|e| e.worker == "test:0"));
    assert!(
        events
            .windows(2)
            .all(|pair| pair[0].timestamp < pair[1].timestamp),
        "time stamps increase"
    );
    let all: String = events.iter().map(|e| e.msg.as_str()).collect();
    for expected in [
        "Executing task id [",
        "Running task id [",
        "Environment setup completed",
        "Starting Task Execution:",
    ] {
        assert_eq!(all.matches(expected).count(), 1, "{expected}: {all}");
    }
    let marks: Vec<String> = run
        .timeline()
        .unwrap()
        .marks
        .into_iter()
        .map(|mark| mark.name)
        .collect();
    for station in ["environment", "launch", "run", "end"] {
        assert!(
            marks.iter().any(|mark| mark == station),
            "{station} is not in {marks:?}"
        );
    }
    assert_eq!(run.record().unwrap().phase, Phase::Done);
    assert!(
        !run.config_path().exists() && !run.environment_dir().exists(),
        "secrets and environment are gone"
    );
}

#[tokio::test]
async fn what_is_installed_is_written_back_by_the_first_of_several_nodes() {
    let world = World::start().await;
    let script = json!({"binary": "python3", "entry_point": "a.py", "diff": "print(1)",
        "requirements": {"pip": "# nothing\n", "other": "kept"}});
    for (rank, expected) in [
        ("0", json!({"pip": [], "org_pip": "# nothing\n", "other": "kept"})),
        ("1", json!({"pip": "# nothing\n", "other": "kept"})),
    ] {
        let (task, run) = world.task_of(script.clone()).await;
        let config = serde_json::from_slice(&std::fs::read(run.config_path()).unwrap()).unwrap();
        let mut inputs = run.inputs().unwrap();
        inputs.environment.push(("RANK".into(), rank.into()));
        run.write_inputs(&config, &inputs).unwrap();
        assert_eq!(world.run(&run).await, 0);
        let script = world.get(&task).await.script.unwrap();
        assert_eq!(
            serde_json::to_value(script.requirements).unwrap(),
            expected,
            "node {rank}"
        );
    }
}

#[tokio::test]
async fn ends_of_programs_become_statuses() {
    let world = World::start().await;
    for (script, status, reason, line) in [
        (
            "exit 3",
            "failed",
            "worker execution exit code 3",
            "Process failed, exit code 3\n",
        ),
        (
            "kill -SEGV $$",
            "failed",
            "worker execution exit code -11",
            "Process failed, exit code -11\n",
        ),
        (
            "kill -INT $$",
            "stopped",
            "user abort",
            "Process terminated by user\n",
        ),
    ] {
        let (task, run) = world.task(script).await;
        assert_eq!(world.run(&run).await, 0);
        assert_eq!(
            world.status(&task).await,
            (status.into(), reason.into()),
            "{script}"
        );
        assert!(world.output(&task).await.ends_with(line), "{script}");
    }
}

#[tokio::test]
async fn what_cannot_be_set_up_fails_with_its_stage() {
    let world = World::start().await;
    for (script, stage) in [
        (
            json!({"binary": "/bin/sh", "repository": "/no/such/repository.git", "entry_point": "a.sh"}),
            "clone: ",
        ),
        (
            json!({"binary": "/bin/sh", "entry_point": "missing.sh"}),
            "launch: ",
        ),
    ] {
        let (task, run) = world.task_of(script).await;
        assert_eq!(world.run(&run).await, 0);
        let (status, reason) = world.status(&task).await;
        assert_eq!(status, "failed");
        assert!(reason.starts_with(stage), "{reason}");
        let all: String = world.events(&task).await.iter().map(|e| e.msg.clone()).collect();
        assert!(all.contains("clearml_agent: ERROR: "), "{all}");
    }
}

#[tokio::test]
async fn odd_output_arrives_whole() {
    let world = World::start().await;
    let script = r"head -c 10000000 /dev/zero | tr '\0' x; echo; printf 'bad \377 byte\n'; printf ' 10%%\r 20%%\r100%%\n'";
    let (task, run) = world.task(script).await;
    assert_eq!(world.run(&run).await, 0);
    let events = world.events(&task).await;
    assert!(events.iter().all(|e| e.msg.len() <= MAX_MESSAGE));
    let output = world.output(&task).await;
    let (long, rest) = output.split_at(10_000_000);
    assert!(long.bytes().all(|b| b == b'x'));
    assert_eq!(rest, format!("\nbad \u{fffd} byte\n100%\n{DONE}"));
}

#[tokio::test]
async fn an_aborted_task_ends_with_all_its_processes() {
    let world = World::start().await;
    let (task, run) = world
        .task("trap '' TERM; echo ready; sleep 600 & while :; do sleep 0.1; done")
        .await;
    let mut runner = world.spawn(&run);
    world.wait_for_output(&task, "ready").await;
    world
        .client
        .tasks_stop(&task, &StatusChange::default())
        .await
        .unwrap();
    let session = run.claim().unwrap().unwrap().shim.pid;
    assert_eq!(world.end_of(&mut runner, &run).await, 0);
    assert_eq!(
        world.status(&task).await,
        ("stopped".into(), "task was stopped by tasks.stop".into())
    );
    assert!(world.output(&task).await.ends_with("Process aborted by user\n"));
    let events = world.events(&task).await;
    let notice = events.iter().find(|e| e.level == "ERROR").unwrap();
    assert_eq!(notice.msg, "User aborted: stopping task (1) stopped\n");
    assert!(clearml_support::process::session_members(session).is_empty());
}

#[tokio::test]
async fn an_abort_before_the_launch_is_not_overwritten() {
    let world = World::start().await;
    let (task, run) = world.task("touch ran").await;
    world
        .client
        .tasks_stop(&task, &StatusChange::default())
        .await
        .unwrap();
    assert!(world.get(&task).await.is_stopping());
    assert_eq!(world.run(&run).await, 0);
    assert_eq!(
        world.status(&task).await,
        ("stopped".into(), "task was stopped by tasks.stop".into())
    );
    assert!(!world.scratch().join("ran").exists(), "user code has run");
}

#[tokio::test]
async fn a_status_set_by_somebody_else_stays_and_ends_the_program() {
    let world = World::start().await;
    let (task, run) = world.task("echo ready; sleep 600").await;
    let mut runner = world.spawn(&run);
    world.wait_for_output(&task, "ready").await;
    world
        .client
        .tasks_failed(&task, &StatusChange::reason("by hand"))
        .await
        .unwrap();
    assert_eq!(world.end_of(&mut runner, &run).await, 0);
    assert_eq!(world.status(&task).await, ("failed".into(), "by hand".into()));
}

#[tokio::test]
async fn a_deleted_task_ends_quietly() {
    let world = World::start().await;
    let (task, run) = world.task("echo ready; sleep 600").await;
    let mut runner = world.spawn(&run);
    world.wait_for_output(&task, "ready").await;
    let delete = clearml_api_client::Call::new("tasks.delete").body(json!({"task": task, "force": true}));
    world.client.call::<serde_json::Value>(delete).await.unwrap();
    assert_eq!(world.end_of(&mut runner, &run).await, 0);
    assert_eq!(run.record().unwrap().phase, Phase::Done);
}

#[tokio::test]
async fn a_killed_shim_is_an_infrastructure_failure_and_leaves_nothing_behind() {
    let world = World::start().await;
    let script = "(setsid sleep 600 &) ; echo $$ >pid; echo ready; sleep 600";
    let (task, run) = world.task(script).await;
    let mut runner = world.spawn(&run);
    world.wait_for_output(&task, "ready").await;
    let run_id = run.record().unwrap().run_id;
    run.claim().unwrap().unwrap().shim.signal(Signal::KILL).unwrap();
    assert_eq!(world.end_of(&mut runner, &run).await, 0);
    let (status, reason) = world.status(&task).await;
    assert_eq!(status, "failed");
    assert!(reason.starts_with("infrastructure: "), "{reason}");
    assert!(world.output(&task).await.contains("ready\n"));
    assert_eq!(
        with_environment(&format!("CLEARML_AGENT_RUN_ID={run_id}")),
        Vec::<i32>::new()
    );
}

#[tokio::test]
async fn a_runner_told_to_end_stops_the_task_and_reports_it() {
    let world = World::start().await;
    let (task, run) = world
        .task("trap 'echo saved; exit 0' TERM; echo ready; while :; do sleep 0.05; done")
        .await;
    let mut runner = world.spawn(&run);
    world.wait_for_output(&task, "ready").await;
    signal(&runner, Signal::TERM);
    assert_eq!(world.end_of(&mut runner, &run).await, 254);
    assert_eq!(world.status(&task).await, ("stopped".into(), "user abort".into()));
    let output = world.output(&task).await;
    assert!(
        output.contains("saved\n") && output.ends_with("Process terminated by user\n"),
        "{output}"
    );
}

#[tokio::test]
async fn without_a_server_the_task_still_stops_at_once_and_is_reported_later() {
    let mut world = World::start().await;
    let (task, run) = world.task("echo ready; exec sleep 600").await;
    let mut runner = world.spawn(&run);
    world.wait_for_output(&task, "ready").await;
    world.stop_server().await;
    let start = Instant::now();
    signal(&runner, Signal::TERM);
    world.wait_for_phase(&run, Phase::Exited).await;
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "user code went on for {:?}",
        start.elapsed()
    );
    assert_eq!(world.end_of(&mut runner, &run).await, 254);
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "the runner stayed for {:?}",
        start.elapsed()
    );
    assert!(run.record().unwrap().phase < Phase::Reported);

    world.start_server().await;
    assert_eq!(world.run(&run).await, 0);
    assert_eq!(world.status(&task).await, ("stopped".into(), "user abort".into()));
    assert_eq!(world.output(&task).await, "ready\nProcess terminated by user\n");
}

#[tokio::test]
async fn a_second_runner_leaves_the_first_one_alone() {
    let world = World::start().await;
    let (task, run) = world
        .task("echo ready; while ! [ -e go ]; do sleep 0.01; done")
        .await;
    let mut first = world.spawn(&run);
    world.wait_for_output(&task, "ready").await;
    assert_eq!(world.run(&run).await, 75, "the first one is at work");
    std::fs::write(world.scratch().join("go"), "").unwrap();
    assert_eq!(world.end_of(&mut first, &run).await, 0);
    assert_eq!(world.output(&task).await, format!("ready\n{DONE}"));
}

#[tokio::test]
async fn a_runner_may_be_killed_at_any_moment() {
    let world = World::start().await;
    let script = "echo started >>starts; for i in $(seq 1 300); do echo line $i; sleep 0.005; done";
    let (task, run) = world.task(script).await;
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .subsec_nanos();
    eprintln!("seed {seed}");
    let mut random = u64::from(seed) | 1;
    let mut kills = 0;
    loop {
        let mut runner = world.spawn(&run);
        if kills < 10 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            tokio::time::sleep(Duration::from_millis(random >> 33 & 0xff)).await;
            signal(&runner, Signal::KILL);
            kills += 1;
        }
        world.end_of(&mut runner, &run).await;
        if run.record().unwrap().phase == Phase::Done {
            break;
        }
    }
    assert_eq!(
        std::fs::read_to_string(world.scratch().join("starts")).unwrap(),
        "started\n"
    );
    let output = world.output(&task).await;
    if output != numbered(300) + DONE {
        for event in world.events(&task).await {
            eprintln!("{} {} {:?}", event.timestamp, event.level, event.msg);
        }
    }
    assert!(
        output == numbered(300) + DONE,
        "lines are missing, doubled or out of order"
    );
    assert_eq!(world.status(&task).await.0, "completed");
}

/// By a task that cleans up more than its own, for example.
#[tokio::test]
async fn a_task_whose_run_is_removed_ends_and_says_so() {
    let world = World::start().await;
    let removal = "run=$(dirname $CLEARML_CONFIG_FILE); echo up; sleep 0.3; ";
    let (task, run) = world.task(&format!("{removal} rm -rf $run; exit 5")).await;
    assert_eq!(world.run(&run).await, 0);
    let (status, reason) = world.status(&task).await;
    assert!(
        status == "failed" && reason.starts_with("infrastructure: the folder of the run was removed"),
        "{status} {reason}"
    );
    // Where the folder is left, the exit code is known all the same.
    let (task, run) = world.task(&format!("{removal} rm -rf $run/*; exit 5")).await;
    assert_eq!(world.run(&run).await, 0);
    assert_eq!(
        world.status(&task).await,
        ("failed".into(), "worker execution exit code 5".into())
    );
}

/// Nobody could continue such a run, so there is nothing to wait for.
#[tokio::test]
async fn a_runner_without_folder_and_server_ends_when_it_is_told_to() {
    let mut world = World::start().await;
    let (_, run) = world.task("echo up; sleep 300").await;
    let mut runner = world.spawn(&run);
    world.wait_for_phase(&run, Phase::Running).await;
    world.stop_server().await;
    let claim = run.claim().unwrap().unwrap();
    // What is being written at that moment may escape.
    while run.path().exists() {
        let _again = std::fs::remove_dir_all(run.path());
    }
    claim.shim.signal(Signal::KILL).unwrap();
    // It notices the loss when the supervisor is gone, and tries to tell the server from then on.
    tokio::time::sleep(Duration::from_secs(2)).await;
    signal(&runner, Signal::TERM);
    let told = Instant::now();
    let code = loop {
        if let Some(status) = runner.try_wait().unwrap() {
            break status.code();
        }
        if told.elapsed() > Duration::from_secs(5) {
            runner.kill().unwrap();
            break None;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(code, Some(254));
}
