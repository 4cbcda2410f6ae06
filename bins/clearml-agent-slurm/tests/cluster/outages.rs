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

    // Frozen while sbatch waits: the job is created all the same, and its number never arrives. Now and then a look
    // at the jobs comes first, and no job is asked for.
    let was_lost = (0..5).any(|_| {
        let outages = scene.glue_log().matches("can't be reached").count();
        scene.cluster.signal("slurmctld", Signal::STOP).unwrap();
        let task = scene.submit("main", "print('once')", &[]);
        let was_lost = scene.wait("the glue notices", 30, || {
            let message = scene.task(&task)["status_message"].clone();
            if message
                .as_str()
                .is_some_and(|text| text.contains("outcome unknown"))
            {
                return Some(true);
            }
            (scene.glue_log().matches("can't be reached").count() > outages).then_some(false)
        });
        scene.cluster.signal("slurmctld", Signal::CONT).unwrap();
        scene.until(&task, "completed", 60);
        assert_eq!(scene.jobs_of(&task), 1);
        was_lost
    });
    assert!(
        was_lost,
        "sbatch was never called while the controller was frozen"
    );

    // Away altogether, while a job runs and ends, and while the glue is started again.
    let stays = scene.submit(
        "main",
        "import time; print('begun', flush=True); time.sleep(25)",
        &[],
    );
    scene.until_begun(&stays);
    scene.stop_glue();
    scene.cluster.stop("slurmctld", Signal::TERM).unwrap();
    scene.start();
    scene.wait("the glue works", 40, || {
        scene
            .glue_log()
            .contains("a cluster that does not answer yet")
            .then_some(())
    });
    let later = scene.submit("main", "print('later')", &[]);
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(scene.task(&later)["status"], "queued");
    assert_ne!(scene.task(&runs)["status"], "failed");
    scene.cluster.start_controller().unwrap();
    for task in [&runs, &stays, &later] {
        scene.until(task, "completed", 60);
    }
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

#[test]
fn a_controller_that_crashes_loses_no_task_and_harms_no_foreign_job() {
    let queue = ("main", template("", ": nothing"));
    let Some(mut scene) = Scene::new(
        "a_controller_that_crashes_loses_no_task_and_harms_no_foreign_job",
        &[queue],
    ) else {
        return;
    };
    // Frozen, and dead before it has read what sbatch has sent: there is no job, and nobody can know at first.
    scene.options.push("command_timeout=10".to_owned());
    scene.start();
    scene.wait("the glue is there", 20, || {
        scene.glue_log().contains("serving").then_some(())
    });
    std::thread::sleep(Duration::from_secs(2));
    scene.cluster.signal("slurmctld", Signal::STOP).unwrap();
    let unsent = scene.submit("main", "print('once')", &[]);
    scene.until_message(&unsent, "outcome unknown", 30);
    scene.cluster.crash("slurmctld").unwrap();
    scene.cluster.start_controller().unwrap();
    scene.until(&unsent, "completed", 120);
    assert_eq!(scene.jobs_of(&unsent), 1);
    let log = scene.glue_log();
    assert_eq!(log.matches("is submitted again").count(), 1, "{log}");

    // Its last seconds are lost, and the number of the job is given to somebody else's.
    let forgotten = scene.submit("main", "", &[("begin", "now+1hour")]);
    let job = scene.job(&forgotten);
    scene.cluster.crash("slurmctld").unwrap();
    scene.cluster.start_controller().unwrap();
    let known = scene.state(&job);
    if known.is_empty() {
        let arguments = [
            "--parsable",
            "-o",
            "/dev/null",
            "--job-name=foreign",
            "--wrap=sleep 3; exit 7",
        ];
        let foreign = scene.cluster.output("sbatch", &arguments).unwrap();
        assert_eq!(foreign.trim(), job, "the number is given out again");
        scene.until_state(&job, "FAILED", 20);
        // How that one ended says nothing about ours.
        let reason = scene.until(&forgotten, "failed", 90);
        assert!(reason.contains("disappeared"), "{reason}");
    } else {
        eprintln!("the controller had saved its state already; it lost nothing");
    }
    scene.stop_glue();
}

#[test]
fn parts_of_slurm_and_the_server_may_be_away() {
    let queues = [
        ("main", template("", ": nothing")),
        ("failing", template("", "sleep 6; exit 5")),
    ];
    let Some(mut scene) = Scene::new("parts_of_slurm_and_the_server_may_be_away", &queues) else {
        return;
    };
    scene.options.push("command_timeout=5".to_owned());
    scene.configure(|text| {
        let lines = text
            .lines()
            .filter(|line| !line.starts_with("Accounting") && !line.starts_with("JobCompType"));
        lines.map(|line| format!("{line}\n")).collect()
    });
    let first = scene.submit("failing", "", &[]);
    scene.start();
    // No accounting at all: the controller says how jobs end.
    let reason = scene.until(&first, "failed", 60);
    assert!(reason.contains("exit 5"), "{reason}");
    assert!(
        scene.glue_log().contains("accounting can't be asked"),
        "{}",
        scene.glue_log()
    );

    // The server is away while a job ends.
    let second = scene.submit("failing", "", &[]);
    let job = scene.job(&second);
    scene.server.stop().unwrap();
    scene.wait("the job is over", 30, || {
        (scene.state(&job) == "FAILED").then_some(())
    });
    std::thread::sleep(Duration::from_secs(3));
    // A glue that waits for the server can be stopped all the same, the second time at once.
    assert!(
        scene.stop_glue_twice() < Duration::from_secs(15),
        "{}",
        scene.glue_log()
    );
    scene.server.start_again().unwrap();
    scene.start();
    let reason = scene.until(&second, "failed", 60);
    assert!(reason.contains("exit 5"), "{reason}");

    // Without munge, and then without a configuration, nothing can be asked or submitted, and nothing fails.
    let runs = scene.submit(
        "main",
        "import time; print('begun', flush=True); time.sleep(20)",
        &[],
    );
    scene.until_begun(&runs);
    scene.cluster.stop("munged", Signal::TERM).unwrap();
    let during = scene.submit("main", "print('after all')", &[]);
    scene.wait("the outage is seen", 30, || {
        scene.glue_log().contains("Slurm can't be reached").then_some(())
    });
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(scene.task(&during)["status"], "queued", "{}", scene.glue_log());
    scene.cluster.start_munge().unwrap();
    scene.until(&during, "completed", 60);

    let configuration = scene.cluster.configuration();
    let hidden = configuration.with_extension("hidden");
    std::fs::rename(&configuration, &hidden).unwrap();
    let absent = scene.submit("main", "print('after all')", &[]);
    scene.wait("the outage is seen", 40, || {
        (scene.glue_log().matches("Slurm can't be reached").count() >= 2).then_some(())
    });
    assert_eq!(scene.task(&absent)["status"], "queued", "{}", scene.glue_log());
    std::fs::rename(&hidden, &configuration).unwrap();
    for task in [&runs, &absent] {
        scene.until(task, "completed", 90);
    }
    scene.stop_glue();
}
