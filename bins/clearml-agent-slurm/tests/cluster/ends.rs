//! Ends that take a while: time limits, deadlines, agents that hang.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::scene::{Scene, template};

const SLEEP: &str = "import time; print('begun', flush=True); time.sleep(300)";

/// The processes of a job.
fn processes(job: &str) -> Vec<Pid> {
    let wanted = format!("SLURM_JOB_ID={job}");
    let is_of_job = |pid: i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        variables.any(|variable| variable == wanted.as_bytes())
    };
    let pids = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(|pid| is_of_job(*pid))
        .filter_map(Pid::from_raw)
        .collect()
}

#[test]
fn time_limits_deadlines_and_agents_that_hang() {
    let queues = [
        ("main", template("", ": nothing")),
        ("short", template("#SBATCH --time=1", "sleep 300")),
        ("quick", template("#SBATCH --time=1", ": nothing")),
        (
            "late",
            template("#SBATCH --time=1\n#SBATCH --deadline=now+65seconds", ": nothing"),
        ),
        ("long", template("#SBATCH --time=2:00:00", ": nothing")),
    ];
    let Some(mut scene) = Scene::new("time_limits_deadlines_and_agents_that_hang", &queues) else {
        return;
    };
    scene.options.push("abort_grace=3".to_owned());
    scene
        .options
        .push(r#"fail_on_pending_reasons=["PartitionTimeLimit"]"#.to_owned());
    let short = scene.submit("short", "", &[]);
    let quick = scene.submit("quick", SLEEP, &[]);
    let late = scene.submit("late", "", &[("begin", "now+30seconds")]);
    let hangs = scene.submit("main", SLEEP, &[]);
    let long = scene.submit("long", "", &[]);
    scene.start();
    let reason = scene.until(&long, "failed", 30);
    assert!(reason.contains("PartitionTimeLimit"), "{reason}");

    scene.until_begun(&hangs);
    let job = scene.job(&hangs);
    let frozen = processes(&job);
    assert!(frozen.len() > 2, "{frozen:?}");
    for pid in &frozen {
        // One that has ended meanwhile hangs no more.
        let _gone = kill_process(*pid, Signal::STOP);
    }
    scene.api.call("tasks.stop", json!({"task": hangs})).unwrap();
    let reason = scene.until(&hangs, "stopped", 40);
    assert!(reason.contains("user abort"), "{reason}");
    scene.until_state(&job, "CANCELLED", 20);

    let reason = scene.until(&late, "failed", 60);
    assert!(reason.contains("Slurm deadline reached"), "{reason}");
    // The agent hears of the time limit; where there is none yet, the glue says it.
    let reason = scene.until(&short, "failed", 120);
    assert!(
        reason.contains("Slurm time limit") && reason.contains("00:01:00"),
        "{reason}"
    );
    scene.wait("the other one is over as well", 60, || {
        (scene.task(&quick)["status"] != "in_progress").then_some(())
    });
    let task = scene.task(&quick);
    let reason = task["status_reason"].as_str().unwrap();
    assert!(
        reason.contains("received SIGTERM") || reason.contains("Slurm time limit"),
        "{task}"
    );
    scene.stop_glue();
}
