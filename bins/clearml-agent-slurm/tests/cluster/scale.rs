//! Many jobs: what watching them costs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::scene::{Scene, template};

const JOBS: usize = 200;

/// Looks at jobs while everything is quiet.
const LOOKS: usize = 8;

#[test]
fn many_waiting_jobs_cost_one_listing() {
    let queue = ("main", template("#SBATCH --hold", ": nothing"));
    let Some(mut scene) = Scene::new("many_waiting_jobs_cost_one_listing", &[queue]) else {
        return;
    };
    let programs = scene.folder.path().join("programs");
    let calls = scene.folder.path().join("calls");
    fs::create_dir(&programs).unwrap();
    for program in ["squeue", "sacct", "scontrol", "sinfo"] {
        let path = programs.join(program);
        let text = format!(
            "#!/bin/sh\necho {program} >> {}\nexec /usr/bin/{program} \"$@\"\n",
            calls.display()
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    scene.options.extend([
        format!("bin_dir={}", programs.display()),
        "poll_interval=2".to_owned(),
    ]);
    let tasks: Vec<String> = (0..JOBS).map(|_| scene.submit("main", "", &[])).collect();
    scene.start();
    for task in &tasks {
        scene.until_message(task, "PENDING (JobHeldUser)", 180);
    }
    // What is said once has been said.
    std::thread::sleep(Duration::from_secs(4));
    let count = |program: &str| {
        let text = fs::read_to_string(&calls).unwrap();
        text.lines().filter(|line| *line == program).count()
    };
    let listings = count("squeue");
    let cpu = scene.glue_cpu();
    scene.wait("some looks are over", 60, || {
        (count("squeue") >= listings + LOOKS).then_some(())
    });
    let spent = (scene.glue_cpu() - cpu) / u32::try_from(LOOKS).unwrap();
    assert!(spent < Duration::from_millis(100), "{spent:?} for each look");
    assert_eq!(count("sacct"), 0);
    let others = count("scontrol") + count("sinfo");
    assert!(others <= 3, "{others}: only at the start");
    scene.stop_glue();
}
