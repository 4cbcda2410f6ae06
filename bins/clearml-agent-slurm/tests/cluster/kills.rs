//! The glue is killed while it pops and submits: each task becomes exactly one job.
//!
//! The seed is printed; `CLEARML_TEST_SEED=<number>` repeats the moments, `CLEARML_TEST_KILLS=<number>` sets how many
//! there are. `cargo xtask soak slurm-kills` runs the long form.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::scene::{Scene, template};

/// So many tasks come with each kill.
const TASKS_EACH: usize = 2;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Numbers that look like chance and can be had again.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn a_killed_glue_submits_each_task_once() {
    // The agent is not started: what counts are the jobs.
    let queue = ("main", template("", "exit 0"));
    let Some(mut scene) = Scene::new("a_killed_glue_submits_each_task_once", &[queue]) else {
        return;
    };
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("CLEARML_TEST_SEED").unwrap_or(u64::from(clock.subsec_nanos()));
    let kills = number("CLEARML_TEST_KILLS").unwrap_or(10);
    eprintln!("{kills} kills of the glue with CLEARML_TEST_SEED={seed}");
    let mut chance = Chance(seed.max(1));
    scene.options.push("end_grace=0".to_owned());
    scene.options.push("submission_spacing=0".to_owned());
    let mut tasks = Vec::new();
    for kill in 0..kills {
        tasks.extend((0..TASKS_EACH).map(|_| scene.submit("main", "", &[])));
        let served = scene.glue_log().matches("serving 1 queue").count();
        scene.start();
        if chance.below(5) > 0 {
            scene.wait("the glue works", 60, || {
                (scene.glue_log().matches("serving 1 queue").count() > served).then_some(())
            });
        }
        // Spread over start, pop, parking, sbatch and the notes after it.
        std::thread::sleep(Duration::from_millis(chance.below(350)));
        scene.kill_glue();
        if kill % 20 == 19 {
            eprintln!("{} kills", kill + 1);
        }
    }
    scene.start();
    // A submission whose answer got lost is looked for half a minute.
    for task in &tasks {
        let reason = scene.until(task, "failed", 120 + kills);
        assert!(reason.contains("without starting the task"), "{reason}");
    }
    scene.stop_glue();
    let jobs = scene.wait("accounting knows all jobs", 60, || {
        // The database may have too much to do for a moment.
        let jobs = jobs(&scene)?;
        tasks.iter().all(|task| jobs.contains_key(task)).then_some(jobs)
    });
    for task in &tasks {
        assert_eq!(jobs[task], 1, "task {task}\n{}", scene.glue_log());
    }
    assert_eq!(jobs.len(), tasks.len());
}

/// How many jobs accounting knows, task by task.
fn jobs(scene: &Scene) -> Option<HashMap<String, usize>> {
    let arguments = ["-n", "-X", "-P", "-D", "-S", "now-1days", "-o", "JobName"];
    let text = scene.cluster.output("sacct", &arguments).ok()?;
    let mut jobs = HashMap::new();
    for task in text.lines().filter_map(|line| line.strip_prefix("clearml_task_")) {
        *jobs.entry(task.to_owned()).or_default() += 1;
    }
    Some(jobs)
}

#[test]
fn a_glue_without_its_memory_takes_up_the_jobs_that_run() {
    let queue = ("main", template("", ": nothing"));
    let Some(mut scene) = Scene::new("a_glue_without_its_memory_takes_up_the_jobs_that_run", &[queue]) else {
        return;
    };
    let waits = scene.submit("main", "", &[("begin", "now+1hour")]);
    let runs = scene.submit(
        "main",
        "import time; print('begun', flush=True); time.sleep(300)",
        &[],
    );
    scene.start();
    scene.until_message(&waits, "PENDING", 30);
    let job = scene.job(&waits);
    scene.until_begun(&runs);

    // Neither takes the names of queues.
    let home = scene.folder.path().to_owned();
    let ask = |option: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_clearml-agent-slurm"));
        command.arg(option).arg("--state-dir").arg(home.join("state"));
        command.env("HOME", &home).output().unwrap()
    };
    let shown = String::from_utf8(ask("--status").stdout).unwrap();
    assert!(shown.starts_with("A glue works in"), "{shown}");
    let line = shown.lines().find(|line| line.starts_with(&*waits)).unwrap();
    assert!(line.contains(&job) && line.contains("waiting"), "{shown}");

    let second = scene.glue_command(&[]).output().unwrap();
    assert_eq!(
        second.status.code(),
        Some(3),
        "{}",
        String::from_utf8_lossy(&second.stderr)
    );

    // Nor with a journal of its own: it would take up the same jobs.
    let third = scene.glue_command(&["--state-dir", "elsewhere", "--once"]);
    let third = { third }.output().unwrap();
    let errors = String::from_utf8_lossy(&third.stderr);
    assert_eq!(third.status.code(), Some(3), "{errors}");
    assert!(errors.contains("CLEARML_WORKER_NAME"), "{errors}");

    // Somebody deletes the queue in which it waits: there is another one soon.
    let parking = || {
        let named = serde_json::json!({"name": "slurm_scheduler", "search_hidden": true});
        scene.api.call("queues.get_all", named).unwrap()["queues"][0].clone()
    };
    let old = parking()["id"].clone();
    let deletion = serde_json::json!({"queue": old, "force": true});
    scene.api.call("queues.delete", deletion).unwrap();
    scene.wait("it is parked again", 30, || {
        let now = parking();
        (now["id"] != old && now["entries"][0]["task"] == *waits).then_some(())
    });
    assert_eq!(scene.state(&job), "PENDING", "{}", scene.glue_log());

    scene.kill_glue();
    std::fs::remove_dir_all(scene.folder.path().join("state")).unwrap();
    assert_eq!(ask("--stop").status.code(), Some(1), "there is none");
    scene.start();
    scene.wait("the jobs are taken up", 20, || {
        (scene.glue_log().matches("is taken up").count() == 2).then_some(())
    });
    for (task, job) in [(&waits, &job), (&runs, &scene.job(&runs))] {
        scene.cluster.output("scancel", &[job]).unwrap();
        scene.until(task, "stopped", 30);
    }
    // Accounting does not list a job that never ran.
    assert_eq!(
        scene.glue_log().matches(" is job ").count(),
        2,
        "{}",
        scene.glue_log()
    );
    scene.stop_glue();
}
