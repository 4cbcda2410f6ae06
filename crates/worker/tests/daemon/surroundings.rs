//! A machine in trouble around the daemon, and what it finds of its own there.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clearml_task_model::{TaskId, WorkerId};
use clearml_task_runner::{NewRun, Phase, RunInputs, RunOptions};
use serde_json::json;
use tokio::time::sleep;

use crate::scene::{Scene, WORKER, eventually};

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_full_disk_behind_its_output_does_not_end_the_daemon() {
    let scene = Scene::start().await;
    let log = scene.folder().join("stderr.log");
    let program = std::env::current_exe().unwrap();
    let program = program.ancestors().nth(2).unwrap().join("examples/run_daemon");
    let mut daemon = Killed(
        Command::new(program)
            .arg("daemon")
            .arg(scene.folder().join("server/clearml.conf"))
            .arg(scene.state())
            .args([WORKER, "work"])
            .env("HOME", scene.folder())
            .env("TMPDIR", scene.folder())
            .env("CLEARML_AGENT_QUEUE_POLL_FREQ_SEC", "0.2")
            .stdin(Stdio::null())
            .stdout(File::options().write(true).open("/dev/full").unwrap())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap(),
    );
    let task = scene.enqueued(&scene.queue, "quiet").await;
    eventually("the task was run", || {
        assert!(
            daemon.0.try_wait().unwrap().is_none(),
            "{}",
            std::fs::read_to_string(&log).unwrap()
        );
        scene.executions("quiet") == 1
    })
    .await;
    while scene.task(&task).await.status.unwrap().as_str() != "completed" {
        sleep(Duration::from_millis(50)).await;
    }
    assert!(daemon.0.try_wait().unwrap().is_none());
}

#[tokio::test]
async fn secrets_of_a_run_whose_runner_died_at_the_very_end_are_removed() {
    let scene = Scene::start().await;
    let (run, _) = scene
        .runs()
        .create(NewRun {
            task: TaskId::new("ended"),
            queue: None,
            worker: WorkerId::new(WORKER),
        })
        .unwrap();
    run.write_inputs(&json!({}), &RunInputs::from_process(RunOptions::default()))
        .unwrap();
    std::fs::create_dir(run.environment_dir()).unwrap();
    run.set_phase(Phase::Done).unwrap();
    let _daemon = scene.daemon(&["work"]).await;
    assert!(!run.has_inputs() && !run.config_path().exists() && !run.environment_dir().exists());
    assert_eq!(run.record().unwrap().phase, Phase::Done);
}
