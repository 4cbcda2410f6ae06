//! The glue is killed while it pops and submits: each task becomes exactly one job.

use std::time::Duration;

use crate::scene::{Scene, template};

/// How many tasks, and how often the glue is killed.
const TASKS: usize = 20;
const KILLS: u64 = 10;

#[test]
fn a_killed_glue_submits_each_task_once() {
    // The agent is not started: what counts are the jobs.
    let queue = ("main", template("", "exit 0"));
    let Some(mut scene) = Scene::new("a_killed_glue_submits_each_task_once", &[queue]) else {
        return;
    };
    scene.options.push("end_grace=0".to_owned());
    let tasks: Vec<String> = (0..TASKS).map(|_| scene.submit("main", "", &[])).collect();
    for kill in 0..KILLS {
        scene.start();
        // Spread over start, pop, parking, sbatch and the notes after it.
        std::thread::sleep(Duration::from_millis(120 + kill * 37));
        scene.kill_glue();
    }
    scene.start();
    for task in &tasks {
        let reason = scene.until(task, "failed", 120);
        assert!(reason.contains("without starting the task"), "{reason}");
    }
    scene.stop_glue();
    for task in &tasks {
        assert_eq!(scene.jobs_of(task), 1, "task {task}\n{}", scene.glue_log());
    }
}

#[test]
fn a_glue_without_its_memory_takes_up_the_jobs_that_run() {
    let queue = ("main", template("", ": nothing"));
    let Some(mut scene) = Scene::new("a_glue_without_its_memory_takes_up_the_jobs_that_run", &[queue]) else {
        return;
    };
    let waits = scene.submit("main", "", &[("begin", "now+1hour")]);
    scene.start();
    scene.until_message(&waits, "PENDING", 30);
    let job = scene.job(&waits);

    let second = scene.glue_command(&[]).output().unwrap();
    assert_eq!(
        second.status.code(),
        Some(3),
        "{}",
        String::from_utf8_lossy(&second.stderr)
    );

    scene.kill_glue();
    std::fs::remove_dir_all(scene.folder.path().join("state")).unwrap();
    scene.start();
    scene.wait("the job is taken up", 20, || {
        scene.glue_log().contains("is taken up").then_some(())
    });
    scene.cluster.output("scancel", &[&job]).unwrap();
    scene.until(&waits, "stopped", 20);
    // Accounting does not list a job that never ran.
    assert_eq!(
        scene.glue_log().matches(" is job ").count(),
        1,
        "{}",
        scene.glue_log()
    );
    scene.stop_glue();
}
