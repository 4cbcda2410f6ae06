//! Nodes that are lost, jobs that Slurm puts back, and preemption.

use rustix::process::Signal;

use crate::scene::{Scene, template};

/// Every node is this machine, so each job has a home of its own as it would have the state of its node.
const NODE: &str = "export HOME=$CLEARML_SLURM_JOB_DIR";

/// Runs for ever the first time, and ends at once when its job was put back.
const TWICE: &str = "import os, time
if os.environ.get('SLURM_RESTART_COUNT', '0') == '0':
    print('begun', flush=True)
    time.sleep(300)
print('the second run', flush=True)";

const SLEEP: &str = "import time; print('begun', flush=True); time.sleep(300)";

/// Has a job with a higher priority take a whole node for some seconds.
fn preempt(scene: &Scene, node: &str) {
    let arguments = [
        "-p",
        "high",
        "--exclusive",
        "-w",
        node,
        "-o",
        "/dev/null",
        "--wrap=sleep 4",
    ];
    scene.cluster.output("sbatch", &arguments).unwrap();
}

#[test]
fn jobs_that_slurm_puts_back_go_on_with_their_tasks() {
    let on = |node: &str, more: &str| template(&format!("#SBATCH --nodelist={node}\n{more}"), NODE);
    let queues = [
        ("frail", on("c3", "#SBATCH --no-requeue")),
        ("sturdy", on("c4", "#SBATCH --requeue")),
        (
            "scavenger",
            on("c2", "#SBATCH --partition=scav\n#SBATCH --requeue"),
        ),
        ("main", on("c1", "#SBATCH --requeue")),
        (
            "special",
            template("", "[ \"${SLURM_RESTART_COUNT:-0}\" != 0 ] || exit 76"),
        ),
    ];
    let Some(mut scene) = Scene::new("jobs_that_slurm_puts_back_go_on_with_their_tasks", &queues) else {
        return;
    };
    let lost = scene.submit("frail", SLEEP, &[]);
    let moved = scene.submit("sturdy", TWICE, &[]);
    let preempted = scene.submit("scavenger", TWICE, &[]);
    let requeued = scene.submit("main", TWICE, &[]);
    let held = scene.submit("special", "print('the second run')", &[]);
    scene.start();
    for task in [&lost, &moved, &preempted, &requeued] {
        scene.until_begun(task);
    }
    let jobs: Vec<String> = [&moved, &preempted, &requeued, &held]
        .map(|task| scene.job(task))
        .into();
    // The processes of the jobs live on, as they do on a node that the controller can not reach any more.
    for node in ["slurmd.c3", "slurmd.c4"] {
        scene.cluster.stop(node, Signal::KILL).unwrap();
    }
    preempt(&scene, "c2");
    scene.cluster.output("scontrol", &["requeue", &jobs[2]]).unwrap();

    for (task, job) in [&preempted, &requeued].iter().zip(&jobs[1..3]) {
        scene.until_message(task, "restart 1", 60);
        assert_eq!(scene.task(task)["status"], "queued");
        assert_eq!(scene.job(task), *job, "Slurm keeps the number");
        scene.hurry(job);
    }
    // What an operator releases runs.
    scene.until_message(&held, "held by Slurm", 30);
    scene.cluster.output("scontrol", &["release", &jobs[3]]).unwrap();
    scene.hurry(&jobs[3]);

    let reason = scene.until(&lost, "failed", 90);
    assert!(reason.contains("Slurm node failure on c3"), "{reason}");
    scene.until_message(&moved, "restart 1", 90);
    assert_eq!(scene.task(&moved)["runtime"]["_slurm_restart"], 1);
    scene.cluster.start_node(4).unwrap();
    // The node ends what is left of the first run, by the number of the job: the second must not have begun yet.
    let left = format!("/sys/fs/cgroup/freezer/slurm_c4/uid_0/job_{}", jobs[0]);
    scene.wait("the first run is gone", 60, || {
        (!std::path::Path::new(&left).exists()).then_some(())
    });
    scene.hurry(&jobs[0]);
    for (task, job) in [&moved, &preempted, &requeued, &held].iter().zip(&jobs) {
        scene.until(task, "completed", 90);
        let console = scene.api.console(task).unwrap();
        assert_eq!(console.matches("the second run").count(), 1, "{console}");
        assert_eq!(scene.job(task), *job);
    }
    scene.cluster.start_node(3).unwrap();
    scene.stop_glue();
}

#[test]
fn preemption_that_cancels_does_what_the_operator_wants() {
    let queues = [(
        "main",
        template("#SBATCH --partition=kill\n#SBATCH --nodelist=c2", NODE),
    )];
    let Some(mut scene) = Scene::new("preemption_that_cancels_does_what_the_operator_wants", &queues) else {
        return;
    };
    scene.options.push("max_requeue=1".to_owned());
    for (setting, status) in [("stop", "stopped"), ("fail", "failed"), ("requeue", "queued")] {
        scene.options.push(format!("on_preemption={setting}"));
        let task = scene.submit("main", SLEEP, &[]);
        scene.start();
        scene.until_begun(&task);
        let job = scene.job(&task);
        preempt(&scene, "c2");
        if status == "queued" {
            // Another job has the task, and what preemption does to that one is the last time.
            scene.wait("the task has another job", 60, || {
                (scene.job(&task) != job).then_some(())
            });
            assert_eq!(scene.task(&task)["runtime"]["_slurm_requeues"], 1);
            let second = scene.job(&task);
            scene.until_state(&second, "RUNNING", 60);
            preempt(&scene, "c2");
            let reason = scene.until(&task, "stopped", 60);
            assert!(
                reason.contains("was preempted; it has been put back 1 times before"),
                "{reason}"
            );
        } else {
            let reason = scene.until(&task, status, 60);
            assert!(reason.contains("was preempted"), "{reason}");
        }
        scene.stop_glue();
    }
}
