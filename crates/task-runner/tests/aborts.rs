//! Tasks that are aborted, reset, deleted, completed or put into a queue again while they run: what becomes of
//! them and of their processes.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of tests that can not do its part shall panic"
)]

mod common;

use std::time::{Duration, Instant};

use clearml_api_client::{Call, StatusChange};
use clearml_support::process::ProcessIdentity;
use clearml_task_model::TaskId;
use clearml_task_runner::record::{SCHEMA, ShimClaim};
use clearml_task_runner::{Phase, RunDir, kill_leftovers};
use common::world::World;
use common::{eventually, is_running};
use rustix::process::Signal;
use serde_json::{Map, Value, json};

const CALLBACK: &str = "CLEARML_AGENT_ABORT_CALLBACK_CMD";
const STOPPED: &str = "task was stopped by tasks.stop";

async fn stop(world: &World, task: &TaskId) {
    world
        .client
        .tasks_stop(task, &StatusChange::default())
        .await
        .unwrap();
}

fn pid_in(world: &World, name: &str) -> i32 {
    let path = world.scratch().join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.trim().parse().unwrap()
}

async fn console(world: &World, task: &TaskId) -> String {
    world
        .events(task)
        .await
        .into_iter()
        .map(|event| event.msg)
        .collect()
}

async fn runtime(world: &World, task: &TaskId) -> Map<String, Value> {
    world.get(task).await.runtime
}

/// Runs until the task has printed `ready`, lets `act` do something, and waits for the end of the run.
async fn interrupted(world: &World, task: &TaskId, run: &RunDir, act: impl AsyncFnOnce()) {
    let mut runner = world.spawn(run);
    world.wait_for_output(task, "ready").await;
    act().await;
    assert_eq!(world.end_of(&mut runner, run).await, 0);
    assert_eq!(run.record().unwrap().phase, Phase::Done);
}

/// Processes that have changed session, environment and parent, and ignore every signal that can be ignored.
const RUNAWAYS: &str = "setsid env -i /bin/sh -c 'trap \"\" TERM HUP INT; echo $$ >first; exec /bin/sleep 600' & \
    (setsid sh -c '(trap \"\" TERM; env -i /bin/sh -c \"echo \\$\\$ >second; exec /bin/sleep 600\") & ' &) ; \
    while ! [ -s first ] || ! [ -s second ]; do sleep 0.02; done; echo ready; sleep 600";

#[tokio::test]
async fn nothing_of_an_aborted_task_survives_whatever_it_has_changed() {
    let world = World::start().await;
    let (task, run) = world.task(RUNAWAYS).await;
    interrupted(&world, &task, &run, async || stop(&world, &task).await).await;
    for name in ["first", "second"] {
        assert!(!is_running(pid_in(&world, name)), "{name} got away");
    }
    assert_eq!(world.status(&task).await, ("stopped".into(), STOPPED.into()));
    let group = run.claim().unwrap().unwrap().group;
    assert!(
        group.is_none_or(|group| !group.exists()),
        "the control group is left"
    );
}

#[tokio::test]
async fn nothing_of_a_task_survives_its_killed_supervisor() {
    let world = World::start().await;
    let (task, run) = world.task(RUNAWAYS).await;
    interrupted(&world, &task, &run, async || {
        run.claim().unwrap().unwrap().shim.signal(Signal::KILL).unwrap();
    })
    .await;
    for name in ["first", "second"] {
        assert!(!is_running(pid_in(&world, name)), "{name} got away");
    }
    let (status, reason) = world.status(&task).await;
    assert_eq!(status, "failed");
    assert!(reason.starts_with("infrastructure: "), "{reason}");
}

/// With runner and supervisor dead, only a control group still knows who belongs to the run.
#[tokio::test]
async fn with_a_control_group_nothing_survives_the_death_of_runner_and_supervisor() {
    let world = World::start().await;
    let (task, run) = world.task(RUNAWAYS).await;
    let mut runner = world.spawn(&run);
    world.wait_for_output(&task, "ready").await;
    let claim = run.claim().unwrap().unwrap();
    runner.kill().unwrap();
    runner.wait().unwrap();
    claim.shim.signal(Signal::KILL).unwrap();
    eventually("the supervisor is gone", || !claim.shim.is_alive());
    assert_eq!(world.run(&run).await, 0);
    let found: Vec<_> = ["first", "second"]
        .iter()
        .map(|name| pid_in(&world, name))
        .collect();
    if claim.group.is_none() {
        eprintln!(
            "SKIPPED with_a_control_group_nothing_survives_the_death_of_runner_and_supervisor: no control group \
             may be made here"
        );
        for process in found.iter().filter_map(|pid| ProcessIdentity::of(*pid).unwrap()) {
            process.signal(Signal::KILL).unwrap();
        }
        return;
    }
    assert!(found.iter().all(|pid| !is_running(*pid)), "{found:?} got away");
}

/// Where control groups are; mounted for the test where the system has not done so.
struct Groups(std::path::PathBuf);

impl Groups {
    fn mount(at: &std::path::Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mount = std::process::Command::new("mount")
            .args(["-t", "cgroup2", "none"])
            .arg(at)
            .output();
        let groups = Self(at.to_owned());
        (mount.is_ok_and(|output| output.status.success())).then_some(groups)
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        let _unmounted = std::process::Command::new("umount").arg(&self.0).output();
    }
}

/// Whoever gives up a run without a runner finds what has left session, environment and parents behind.
#[tokio::test]
async fn a_run_that_is_given_up_is_killed_by_its_control_group() {
    let world = World::start().await;
    let (_, run) = world.task("true").await;
    let run_id = run.record().unwrap().run_id;
    let skip = |why: &str| eprintln!("SKIPPED a_run_that_is_given_up_is_killed_by_its_control_group: {why}");
    let Some(groups) = Groups::mount(&world.scratch().join("groups")) else {
        return skip("control groups can't be mounted");
    };
    let group = groups.0.join(format!("clearml-run-{run_id}-1"));
    if std::fs::create_dir(&group).is_err() || !group.join("cgroup.kill").exists() {
        let _none = std::fs::remove_dir(&group);
        return skip("no control group may be made");
    }
    let mut stranger = std::process::Command::new("setsid")
        .args(["sleep", "600"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .spawn()
        .unwrap();
    std::fs::write(group.join("cgroup.procs"), stranger.id().to_string()).unwrap();
    let mut dead = std::process::Command::new("true").spawn().unwrap();
    let shim = ProcessIdentity::of(dead.id().cast_signed()).unwrap().unwrap();
    dead.wait().unwrap();
    let claim = ShimClaim {
        schema: SCHEMA,
        shim,
        claimed_ms: 0,
        group: Some(group.clone()),
    };
    std::fs::write(run.path().join("shim.json"), serde_json::to_vec(&claim).unwrap()).unwrap();
    let reaper = std::thread::spawn(move || stranger.wait().unwrap());
    assert!(kill_leftovers(&run).await.unwrap(), "something is left");
    assert!(!reaper.join().unwrap().success());
    assert!(!group.exists(), "the group is removed");
}

#[tokio::test]
async fn the_command_for_aborts_runs_once_with_the_programs_folder_and_environment() {
    let world = World::start().await;
    let command = "sh -c 'echo \"saving $CLEARML_TASK_ID in $PWD\"'";
    let script = "env >environment; echo $$ >pid; echo ready; sleep 600";
    let limit = "CLEARML_AGENT_ABORT_CALLBACK_TIMEOUT";
    let (task, run) = world
        .task_among(&[(CALLBACK, command), (limit, "20")], script)
        .await;
    interrupted(&world, &task, &run, async || {
        let announced = runtime(&world, &task).await;
        assert_eq!(announced["_abort_callback_timeout"], json!(20));
        assert_eq!(announced["_abort_poll_freq"], json!(10));
        stop(&world, &task).await;
    })
    .await;
    let environment = std::fs::read_to_string(world.scratch().join("environment")).unwrap();
    assert!(
        environment.contains("CLEARML_AGENT_ABORT_CALLBACK_CMD_REGISTERED="),
        "{environment}"
    );
    assert!(
        !environment.contains("CLEARML_AGENT_ABORT_CALLBACK_CMD="),
        "{environment}"
    );
    let console = console(&world, &task).await;
    let began = console
        .split("]$ ")
        .next()
        .and_then(|text| text.rsplit('[').next())
        .unwrap();
    let saved = format!("saving {task} in {began}\n");
    assert_eq!(console.matches(&saved).count(), 1, "{console}");
    for line in [
        "INFO: registering bash callback",
        "waiting for max 3 sec ###",
        "callback completed in ",
    ] {
        assert!(console.contains(line), "no {line:?} in {console}");
    }
    assert_eq!(
        runtime(&world, &task).await["_abort_callback_completed"],
        json!(1)
    );
    assert!(!is_running(pid_in(&world, "pid")));
    assert_eq!(world.status(&task).await, ("stopped".into(), STOPPED.into()));
}

#[tokio::test]
async fn a_command_for_aborts_that_takes_too_long_is_stopped_with_the_task() {
    let world = World::start().await;
    let command = format!(
        "sh -c 'echo $$ >{}; exec sleep 600'",
        world.scratch().join("command").display()
    );
    let (task, run) = world
        .task_among(&[(CALLBACK, &command)], "echo ready; sleep 600")
        .await;
    let begun = Instant::now();
    interrupted(&world, &task, &run, async || stop(&world, &task).await).await;
    assert!(
        begun.elapsed() > Duration::from_secs(3),
        "the limit was not waited for"
    );
    assert!(!is_running(pid_in(&world, "command")), "the command is left");
    let console = console(&world, &task).await;
    assert!(
        console.contains("### Task abort callback timed out [timeout: 3,"),
        "{console}"
    );
    assert_eq!(world.status(&task).await.0, "stopped");
}

#[tokio::test]
async fn a_runner_that_dies_during_the_command_for_aborts_does_not_run_it_twice() {
    let world = World::start().await;
    let command = format!(
        "sh -c 'echo x >>{0}; echo $$ >{1}; exec sleep 600'",
        world.scratch().join("times").display(),
        world.scratch().join("command").display()
    );
    let (task, run) = world
        .task_among(&[(CALLBACK, &command)], "echo ready; sleep 600")
        .await;
    let mut runner = world.spawn(&run);
    world.wait_for_output(&task, "ready").await;
    stop(&world, &task).await;
    let started = world.scratch().join("command");
    world
        .wait_until("the command has started", || {
            std::fs::read(&started).is_ok_and(|text| !text.is_empty())
        })
        .await;
    runner.kill().unwrap();
    runner.wait().unwrap();
    assert_eq!(world.run(&run).await, 0);
    assert_eq!(
        std::fs::read_to_string(world.scratch().join("times")).unwrap(),
        "x\n"
    );
    assert!(!is_running(pid_in(&world, "command")), "the command is left");
    assert_eq!(world.status(&task).await, ("stopped".into(), STOPPED.into()));
}

/// As the SDK does it: the program asks for time in its task, and says when it is done.
#[tokio::test]
async fn a_program_that_has_asked_for_time_gets_it_until_it_is_done() {
    let world = World::start().await;
    let (task, run) = world.task("echo $$ >pid; echo ready; sleep 600").await;
    interrupted(&world, &task, &run, async || {
        let wish = json!({"_abort_callback_timeout": 60, "_abort_poll_freq": 1});
        let wish = wish.as_object().unwrap().clone();
        world.client.tasks_edit_runtime(&task, wish, &[]).await.unwrap();
        stop(&world, &task).await;
        let waiting = "### Task abort callback timeout set, waiting for max 3 sec ###";
        while !console(&world, &task).await.contains(waiting) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(is_running(pid_in(&world, "pid")), "stopped without waiting");
        let done = json!({"_abort_callback_completed": 1})
            .as_object()
            .unwrap()
            .clone();
        world.client.tasks_edit_runtime(&task, done, &[]).await.unwrap();
    })
    .await;
    assert!(
        console(&world, &task)
            .await
            .contains("### Task abort callback completed in ")
    );
    assert_eq!(world.status(&task).await, ("stopped".into(), STOPPED.into()));
}

#[tokio::test]
async fn a_reset_ends_the_program_when_it_lasts_and_the_task_stays_a_draft() {
    let world = World::start().await;
    let (task, run) = world.task("echo $$ >pid; echo ready; sleep 600").await;
    interrupted(&world, &task, &run, async || {
        world.client.tasks_reset(&task, true).await.map(drop).unwrap();
    })
    .await;
    assert_eq!(world.status(&task).await.0, "created");
    assert!(!is_running(pid_in(&world, "pid")));
    let console = console(&world, &task).await;
    for times in 1..5 {
        let warning = format!("was reset! if state is consistent we shall terminate ({times}/4).");
        assert!(console.contains(&warning), "{console}");
    }
    assert!(
        console.contains("User aborted: stopping task (2) reset"),
        "{console}"
    );
}

#[tokio::test]
async fn a_task_that_is_put_into_a_queue_while_it_runs_stays_there_and_its_program_ends() {
    let world = World::start().await;
    let (task, run) = world.task("echo $$ >pid; echo ready; sleep 600").await;
    let name = json!({"name": "again"});
    let queue: Value = world
        .client
        .call(Call::new("queues.create").body(name))
        .await
        .unwrap();
    interrupted(&world, &task, &run, async || {
        // What the server asks for before it takes a running task: an end.
        world
            .client
            .tasks_stopped(&task, &StatusChange::default().force())
            .await
            .map(drop)
            .unwrap();
        let body = json!({"task": task, "queue": queue["id"]});
        let _: Value = world
            .client
            .call(Call::new("tasks.enqueue").body(body))
            .await
            .unwrap();
    })
    .await;
    assert_eq!(world.status(&task).await.0, "queued");
    assert!(!is_running(pid_in(&world, "pid")));
    let waiting: Value = world
        .client
        .call(Call::new("queues.get_by_id").body(json!({"queue": queue["id"]})))
        .await
        .unwrap();
    assert_eq!(waiting["queue"]["entries"].as_array().unwrap().len(), 1);
}

/// A program that uses the SDK may complete its task and do something more.
#[tokio::test]
async fn a_completed_task_is_not_aborted_any_more_and_its_program_comes_to_its_end() {
    let world = World::start().await;
    let script = "echo ready; while ! [ -e go ]; do sleep 0.05; done; echo last words; exit 3";
    let (task, run) = world.task(script).await;
    interrupted(&world, &task, &run, async || {
        let change = StatusChange::reason("by the program");
        world
            .client
            .tasks_completed(&task, &change)
            .await
            .map(drop)
            .unwrap();
        // Refused or without effect: the task has ended.
        let _refused = world.client.tasks_stop(&task, &StatusChange::default()).await;
        tokio::time::sleep(Duration::from_millis(600)).await;
        std::fs::write(world.scratch().join("go"), "").unwrap();
    })
    .await;
    assert_eq!(world.status(&task).await.0, "completed");
    assert!(console(&world, &task).await.contains("last words\n"));
}

/// The wish to stop comes at every moment around the end of a short program. Whichever comes first has its way, and
/// nothing between the two is ever reported.
#[tokio::test]
async fn an_abort_around_the_natural_end_gives_one_of_both_ends() {
    let world = World::start().await;
    let mut ends = std::collections::BTreeMap::new();
    for step in 0..6_u64 {
        let (begun, ended) = (format!("begun-{step}"), format!("ended-{step}"));
        let (task, run) = world
            .task(&format!("touch {begun}; sleep 1; touch {ended}"))
            .await;
        let (begun, ended) = (world.scratch().join(begun), world.scratch().join(ended));
        let mut runner = world.spawn(&run);
        world.wait_until("the program runs", || begun.exists()).await;
        tokio::time::sleep(Duration::from_millis(180 * step)).await;
        if step == 5 {
            world.wait_until("the program has ended", || ended.exists()).await;
        }
        // After the end it is refused or without effect.
        let _refused = world.client.tasks_stop(&task, &StatusChange::default()).await;
        assert_eq!(world.end_of(&mut runner, &run).await, 0);
        let (status, reason) = world.status(&task).await;
        match status.as_str() {
            "completed" => {
                assert_eq!(reason, "worker execution done");
                assert!(ended.exists(), "step {step}: completed before its end");
            }
            _ => assert_eq!(
                (status.as_str(), reason.as_str()),
                ("stopped", STOPPED),
                "step {step}"
            ),
        }
        *ends.entry(status).or_insert(0) += 1;
    }
    assert!(
        ends.contains_key("stopped"),
        "the first wishes came early enough: {ends:?}"
    );
}
