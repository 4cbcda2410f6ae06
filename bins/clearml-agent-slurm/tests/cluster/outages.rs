//! Parts of Slurm that are away, or do not answer.

use std::time::Duration;

use rustix::process::Signal;

use crate::scene::{Scene, template};

#[test]
fn an_answer_that_got_lost_and_an_absent_controller_fail_nothing() {
    let queue = ("main", template("", ": nothing"));
    let Some(mut scene) = Scene::new(
        "an_answer_that_got_lost_and_an_absent_controller_fail_nothing",
        &[queue],
    ) else {
        return;
    };
    scene.options.push("command_timeout=10".to_owned());
    let runs = scene.submit(
        "main",
        "import time; print('begun', flush=True); time.sleep(25)",
        &[],
    );
    scene.start();
    scene.wait("the task runs", 30, || {
        scene.api.console(&runs).unwrap().contains("begun").then_some(())
    });

    // Frozen while sbatch waits: the job is created all the same, and its number never arrives.
    scene.cluster.signal("slurmctld", Signal::STOP).unwrap();
    let lost = scene.submit("main", "print('once')", &[]);
    scene.until_message(&lost, "outcome unknown", 30);
    scene.cluster.signal("slurmctld", Signal::CONT).unwrap();
    scene.until(&lost, "completed", 60);
    assert_eq!(scene.jobs_of(&lost), 1);

    // Away altogether, while a job runs and ends.
    scene.cluster.stop("slurmctld", Signal::TERM).unwrap();
    let later = scene.submit("main", "print('later')", &[]);
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(scene.task(&later)["status"], "queued");
    assert_ne!(scene.task(&runs)["status"], "failed");
    scene.cluster.start_controller().unwrap();
    scene.until(&runs, "completed", 60);
    scene.until(&later, "completed", 60);
    assert_eq!(scene.jobs_of(&later), 1);
    scene.stop_glue();
}

#[test]
fn without_accounting_the_controller_says_how_jobs_ended() {
    let queue = ("main", template("", "exit 5"));
    let Some(mut scene) = Scene::new("without_accounting_the_controller_says_how_jobs_ended", &[queue])
    else {
        return;
    };
    scene.start();
    scene.cluster.stop("slurmdbd", Signal::TERM).unwrap();
    let task = scene.submit("main", "", &[]);
    let reason = scene.until(&task, "failed", 60);
    assert!(reason.contains("exit 5"), "{reason}");
    scene.cluster.start_accounting().unwrap();
    scene.stop_glue();
}
