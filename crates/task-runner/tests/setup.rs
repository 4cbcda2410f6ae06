//! Interruptions before user code runs, and what a restart of the machine leaves.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use clearml_api_client::StatusChange;
use clearml_support::process::ProcessIdentity;
use clearml_support::time::now_ms;
use clearml_task_model::TaskId;
use clearml_task_runner::record::{SCHEMA, ShimClaim};
use clearml_task_runner::{Phase, RunDir, RunOptions, RunnerExit, RunnerOptions, run_with};
use common::world::{World, signal};
use common::{eventually, with_environment};
use rustix::process::Signal;
use serde_json::json;
use tokio::net::TcpListener;

/// A task whose repository is at a server that never answers, so that its set-up takes for ever.
async fn endless(world: &World) -> (TaskId, RunDir, TcpListener) {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!(
        "http://{}/repository.git",
        silent.local_addr().expect("it is bound")
    );
    let script = json!({"binary": "/bin/sh", "repository": url, "branch": "main", "entry_point": "a.sh"});
    let (task, run) = world.task_of(script).await;
    (task, run, silent)
}

fn tools(run: &RunDir) -> Vec<i32> {
    with_environment(&format!(
        "CLEARML_AGENT_RUN_ID={}",
        run.record().expect("it is there").run_id
    ))
}

#[tokio::test]
async fn an_abort_during_the_set_up_stops_it_at_once() {
    let world = World::start().await;
    let (task, run, _silent) = endless(&world).await;
    let mut runner = world.spawn(&run);
    world
        .wait_until("git is at work", || !tools(&run).is_empty())
        .await;
    world
        .client
        .tasks_stop(&task, &StatusChange::default())
        .await
        .unwrap();
    let start = Instant::now();
    assert_eq!(world.end_of(&mut runner, &run).await, 0);
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    assert_eq!(
        world.status(&task).await,
        ("stopped".into(), "task was stopped by tasks.stop".into())
    );
    assert!(world.output(&task).await.ends_with("Process aborted by user\n"));
    assert_eq!(tools(&run), Vec::<i32>::new());
}

#[tokio::test]
async fn a_runner_told_to_end_during_the_set_up_reports_that() {
    let world = World::start().await;
    let (task, run, _silent) = endless(&world).await;
    let mut runner = world.spawn(&run);
    world
        .wait_until("git is at work", || !tools(&run).is_empty())
        .await;
    signal(&runner, Signal::INT);
    assert_eq!(world.end_of(&mut runner, &run).await, 254);
    assert_eq!(world.status(&task).await, ("stopped".into(), "user abort".into()));
    assert_eq!(tools(&run), Vec::<i32>::new());
}

#[tokio::test]
async fn a_runner_that_takes_over_in_the_set_up_ends_the_tools_of_the_dead_one() {
    let world = World::start().await;
    let (task, run, _silent) = endless(&world).await;
    let mut runner = world.spawn(&run);
    world
        .wait_until("git is at work", || !tools(&run).is_empty())
        .await;
    let orphans = tools(&run);
    signal(&runner, Signal::KILL);
    world.end_of(&mut runner, &run).await;
    let mut runner = world.spawn(&run);
    world
        .wait_until("the orphans are gone", || {
            orphans.iter().all(|pid| !common::is_running(*pid))
        })
        .await;
    world
        .wait_until("git is at work again", || !tools(&run).is_empty())
        .await;
    world
        .client
        .tasks_stop(&task, &StatusChange::default())
        .await
        .unwrap();
    assert_eq!(world.end_of(&mut runner, &run).await, 0);
    assert_eq!(world.status(&task).await.0, "stopped");
}

#[tokio::test]
async fn a_restart_of_the_machine_is_an_infrastructure_failure() {
    let world = World::start().await;
    let (task, run) = world.task("true").await;
    let shim = ProcessIdentity {
        boot_id: "another boot".into(),
        ..ProcessIdentity::current().unwrap()
    };
    let claim = ShimClaim {
        schema: SCHEMA,
        shim,
        claimed_ms: now_ms(),
        group: None,
    };
    std::fs::write(run.path().join("shim.json"), serde_json::to_vec(&claim).unwrap()).unwrap();
    run.set_phase(Phase::Running).unwrap();
    assert_eq!(world.run(&run).await, 0);
    let (status, reason) = world.status(&task).await;
    assert_eq!(
        (status.as_str(), reason.as_str()),
        (
            "failed",
            "infrastructure: the machine was restarted while the task was running",
        )
    );
}

#[tokio::test]
async fn a_task_that_somebody_has_put_into_a_queue_again_is_left_to_whoever_pulls_it() {
    let world = World::start().await;
    let (task, run) = world.task("touch started").await;
    let queue = world.client.queues_create("again", &[]).await.unwrap();
    world.client.tasks_reset(&task, true).await.unwrap();
    world
        .client
        .tasks_enqueue(&task, &queue, &StatusChange::default())
        .await
        .unwrap();
    assert_eq!(world.run(&run).await, 0);
    assert_eq!(world.status(&task).await.0, "queued");
    assert!(!world.scratch().join("started").exists(), "it was run");
}

#[tokio::test]
async fn a_runner_before_its_turn_does_nothing() {
    let world = World::start().await;
    let (task, run) = world.task("true").await;
    run.set_phase(Phase::Done).unwrap();
    assert_eq!(world.run(&run).await, 76);
    assert_eq!(world.status(&task).await.0, "in_progress");
    eventually("the runner is gone", || !run.runner_alive());
}

/// A real full disk, which needs the right to mount one.
#[tokio::test]
async fn a_disk_that_becomes_full_in_the_set_up_is_no_fault_of_the_task() {
    let world = World::start().await;
    let (task, run) = world.task(&format!("true # {}", "x".repeat(200_000))).await;
    let environment = run.environment_dir();
    std::fs::create_dir_all(&environment).unwrap();
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "none"])
        .arg(&environment)
        .output();
    if !mount.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "SKIPPED a_disk_that_becomes_full_in_the_set_up_is_no_fault_of_the_task: no right to mount a disk"
        );
        return;
    }
    let code = world.run(&run).await;
    let unmount = std::process::Command::new("umount").arg(&environment).status();
    assert!(unmount.is_ok_and(|status| status.success()));
    assert_eq!(code, 0);
    let (status, reason) = world.status(&task).await;
    assert_eq!(status, "failed");
    assert!(
        reason.starts_with("infrastructure: the disk became full") && reason.contains("ENOSPC"),
        "{reason}"
    );
    assert!(run.record().unwrap().failure.unwrap().over, "it may be put back");
}

/// Room may never come, so whoever wants such a task to end does not wait for it. Needs the right to mount a disk.
#[tokio::test]
async fn an_abort_does_not_wait_for_room_on_a_full_disk() {
    for by_signal in [false, true] {
        let world = World::start().await;
        let (task, run, _silent) = endless(&world).await;
        let runs = run.path().parent().unwrap().to_owned();
        let sh = |script: &str| {
            let mut command = std::process::Command::new("sh");
            let done = command
                .args(["-ec", script])
                .current_dir("/")
                .env("RUNS", &runs)
                .status();
            done.is_ok_and(|status| status.success())
        };
        let mounted =
            sh("cp -a $RUNS $RUNS.kept; mount -t tmpfs -o size=2m none $RUNS; cp -a $RUNS.kept/. $RUNS");
        if !mounted {
            eprintln!("SKIPPED an_abort_does_not_wait_for_room_on_a_full_disk: no right to mount a disk");
            return;
        }
        let mut runner = world.spawn(&run);
        world
            .wait_until("git is at work", || !tools(&run).is_empty())
            .await;
        assert!(!sh("cat /dev/zero >$RUNS/filler"), "the disk takes everything");
        if by_signal {
            signal(&runner, Signal::TERM);
        } else {
            world
                .client
                .tasks_stop(&task, &StatusChange::default())
                .await
                .unwrap();
        }
        let start = Instant::now();
        let ended = loop {
            if let Some(status) = runner.try_wait().unwrap() {
                break status.code();
            }
            if start.elapsed() > Duration::from_secs(12) {
                runner.kill().unwrap();
                break None;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let is_left = run.path().exists();
        assert!(sh("umount $RUNS"));
        let reason = if by_signal {
            "user abort"
        } else {
            "task was stopped by tasks.stop"
        };
        assert_eq!(ended, Some(if by_signal { 254 } else { 0 }));
        assert_eq!(world.status(&task).await, ("stopped".into(), reason.into()));
        assert!(!is_left, "somebody would go on with it");
    }
}

/// Real users, which needs the rights of root.
#[tokio::test]
async fn a_program_runs_as_another_user_in_a_home_of_its_own() {
    let is_root = rustix::process::geteuid().is_root();
    let has = |program: &str| {
        std::process::Command::new(program)
            .arg("--version")
            .output()
            .is_ok()
    };
    if !is_root || !has("setpriv") || !has("getent") {
        eprintln!(
            "SKIPPED a_program_runs_as_another_user_in_a_home_of_its_own: not root, or no setpriv or getent"
        );
        return;
    }
    let world = World::start().await;
    let script = "id -un; id -G; echo home $HOME; stat -c '%U %a' \"$HOME\"; stat -c '%U %a' \"$CLEARML_CONFIG_FILE\"\n\
                  test -r \"$CLEARML_CONFIG_FILE\" && echo readable; touch here && echo writable; exit 3";
    let code = json!({"binary": "/bin/sh", "entry_point": "task.sh", "diff": script});
    let run_as = |name: &str| [("CLEARML_AGENT_EXEC_USER".to_owned(), Some(name.to_owned()))];
    let options = RunOptions {
        variables: run_as("nobody").into_iter().collect(),
        ..RunOptions::default()
    };
    let (task, run) = world.task_with(code.clone(), options).await;
    let home = format!("/clearml_agent_home/{}", run.record().unwrap().run_id);
    assert_eq!(world.run(&run).await, 0);
    let output = world.output(&task).await;
    let group = std::process::Command::new("id")
        .args(["-g", "nobody"])
        .output()
        .unwrap()
        .stdout;
    let group = String::from_utf8(group).unwrap();
    let expected = format!("nobody\n{group}home {home}\nnobody 700\nnobody 600\nreadable\nwritable\n");
    assert!(output.contains(&expected), "{output}");
    assert_eq!(world.status(&task).await.0, "failed", "its own exit code counts");
    assert!(
        !std::path::Path::new(&home).exists(),
        "the home goes with the run"
    );

    let options = RunOptions {
        variables: run_as("no-such-user").into_iter().collect(),
        ..RunOptions::default()
    };
    let (task, run) = world.task_with(code, options).await;
    assert_eq!(world.run(&run).await, 0);
    let (status, reason) = world.status(&task).await;
    assert_eq!(status, "failed");
    assert!(
        reason.starts_with("environment: running as user \"no-such-user\"")
            && reason.contains("no such user"),
        "{reason}"
    );
}

/// `execute` is its own runner, and nobody would start another one.
#[tokio::test]
async fn a_run_that_nobody_can_go_on_with_is_told_to_the_server() {
    let world = World::start().await;
    let (task, run) = world.task("echo never").await;
    // In the way of the file that the preparation ends with, as a full disk is.
    std::fs::create_dir_all(run.path().join("launch.json/full")).unwrap();
    let options = RunnerOptions {
        detach: false,
        reader: Some(Arc::default()),
        ..RunnerOptions::default()
    };
    let exit = Box::pin(run_with(run.path(), options)).await.unwrap();
    assert_eq!(exit, RunnerExit::Finished { exit_code: None });
    let (status, reason) = world.status(&task).await;
    assert!(
        status == "failed" && reason.starts_with("infrastructure: ") && reason.contains("launch.json"),
        "{status} {reason}"
    );
    assert!(!run.path().exists(), "somebody could go on with it");
}
