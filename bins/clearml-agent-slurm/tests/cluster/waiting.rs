//! Jobs that wait, for whatever reason, and steps and jobs beside the one that counts.

use crate::scene::{Scene, template};

#[test]
fn waiting_jobs_say_why_and_hopeless_ones_can_fail() {
    let queues = [
        (
            "whole",
            template("#SBATCH --exclusive\n#SBATCH --nodes=4", ": nothing"),
        ),
        ("long", template("#SBATCH --time=2:00:00", ": nothing")),
        (
            "after",
            template(
                "#SBATCH --dependency=afterok:${CLEARML_TASK.hyperparams.properties.after.value}",
                ": nothing",
            ),
        ),
        ("special", template("", "exit 76")),
    ];
    let Some(mut scene) = Scene::new("waiting_jobs_say_why_and_hopeless_ones_can_fail", &queues) else {
        return;
    };
    scene
        .options
        .push(r#"fail_on_pending_reasons=["DependencyNeverSatisfied"]"#.to_owned());
    let first = scene
        .cluster
        .output("sbatch", &["--parsable", "--hold", "--wrap=true"])
        .unwrap();
    let first = first.trim();
    let long = scene.submit("long", "", &[]);
    let after = scene.submit("after", "", &[("after", first)]);
    let special = scene.submit("special", "", &[]);
    scene.start();

    // Held by RequeueExitHold, until an operator looks at it.
    scene.until_message(&special, "held by Slurm", 30);
    let job = scene.job(&special);
    scene.cluster.output("scancel", &[&job]).unwrap();
    scene.until(&special, "stopped", 20);

    scene.until_message(&long, "PENDING (PartitionTimeLimit)", 30);
    assert_eq!(scene.task(&long)["status"], "queued", "a warning, no failure");

    scene.until_message(&after, "PENDING (Dependency)", 30);
    scene.cluster.output("scancel", &[first]).unwrap();
    let reason = scene.until(&after, "failed", 40);
    assert!(reason.contains("DependencyNeverSatisfied"), "{reason}");
    let job = scene.job(&after);
    scene.until_state(&job, "CANCELLED", 10);

    let runs = scene.submit(
        "whole",
        "import time; print('begun', flush=True); time.sleep(6)",
        &[("num_nodes", "4")],
    );
    scene.wait("the first task runs", 40, || {
        scene.api.console(&runs).unwrap().contains("begun").then_some(())
    });
    let waits = scene.submit("whole", "print('after all')", &[("num_nodes", "4")]);
    scene.until_message(&waits, "PENDING (Resources)", 20);
    let job = scene.job(&waits);
    scene.cluster.output("scontrol", &["uhold", &job]).unwrap();
    scene.until_message(&waits, "PENDING (JobHeldUser)", 20);
    scene.until(&runs, "completed", 60);
    assert_eq!(scene.task(&waits)["status"], "queued", "it is held");
    scene.cluster.output("scontrol", &["release", &job]).unwrap();
    scene.until(&waits, "completed", 60);
    scene.stop_glue();
}

#[test]
fn steps_run_inside_of_tasks_and_a_second_job_changes_nothing() {
    let queue = ("main", template("", ": nothing"));
    let Some(mut scene) = Scene::new(
        "steps_run_inside_of_tasks_and_a_second_job_changes_nothing",
        &[queue],
    ) else {
        return;
    };
    let code = "import subprocess, time
if __import__('os').environ['RANK'] == '0':
    print('step on', subprocess.run(['srun', '-n1', '-N1', '--mem=50', 'hostname'], capture_output=True, text=True, timeout=40), flush=True)
time.sleep(8)";
    let task = scene.submit("main", code, &[("num_nodes", "2")]);
    scene.start();
    scene.wait("the step is over", 60, || {
        let console = scene.api.console(&task).unwrap();
        console.contains("step on").then_some(())
    });
    let console = scene.api.console(&task).unwrap();
    assert!(console.contains("returncode=0"), "{console}");

    // The same script once more, by hand.
    let job = scene.job(&task);
    let script = scene.folder.path().join("again.sh");
    let path = script.to_string_lossy();
    scene
        .cluster
        .output("scontrol", &["write", "batch_script", &job, &path])
        .unwrap();
    let second = scene
        .cluster
        .output("sbatch", &["--parsable", "--job-name=again", "--nodes=1", &path])
        .unwrap();
    let second = second.trim();
    scene.until_state(second, "FAILED", 40);
    let log = std::fs::read_to_string(scene.folder.path().join(format!("{second}.log"))).unwrap();
    // All nodes are this machine, where two agents of one id know of each other before they ask the server.
    assert!(
        log.contains("is not queued") || log.contains("is already running"),
        "{log}"
    );
    scene.until(&task, "completed", 60);
    assert_eq!(scene.job(&task), job);
    scene.stop_glue();
}
