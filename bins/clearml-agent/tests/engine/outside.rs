//! What people and other programs do to containers.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use xtask::engine::IMAGE;

use crate::stage::Stage;

/// A second name of the image, that can be taken away.
const SECOND: &str = "clearml-second:1";

#[test]
fn what_is_done_to_containers_from_outside_has_its_reason() {
    let Some(stage) = Stage::or_skip("what_is_done_to_containers_from_outside_has_its_reason") else {
        return;
    };
    stage.docker(&["tag", IMAGE, SECOND]);
    let agents = stage.daemons(5);
    let removed = stage.submit_counting("removed");
    let orphaned = stage.submit_counting("orphaned");
    let paused = stage.submit_counting("paused");
    let unwanted = stage.submit_counting("unwanted");
    let imageless = stage.submit_counting_in("imageless", SECOND);
    for task in [&removed, &orphaned, &paused, &unwanted, &imageless] {
        stage.goes_on(task);
    }

    stage.docker(&["rm", "-f", &stage.container(&removed.task)]);
    kill_shim_of(&stage, &stage.container(&orphaned.task));
    stage.docker(&["rmi", "-f", SECOND]);
    for task in [&paused, &unwanted] {
        stage.docker(&["pause", &stage.container(&task.task)]);
    }
    let ended = stage.ended(&removed.task);
    ended.assert_failed_in("infrastructure: the container", "the container");
    removed.assert_complete_to_the_kill(&ended);
    let ended = stage.ended(&orphaned.task);
    ended.assert_failed_in("infrastructure: the container ended", "the container");
    orphaned.assert_complete_to_the_kill(&ended);

    // Who sleeps can be stopped.
    let before = paused.count();
    stage.abort(&unwanted.task);
    let ended = stage.ended(&unwanted.task);
    ended.assert_status("stopped");
    unwanted.assert_complete(&ended);
    assert_eq!(paused.count(), before, "it was not paused");
    stage.docker(&["unpause", &stage.container(&paused.task)]);
    for task in [&paused, &imageless] {
        stage.goes_on(task);
        task.finish();
        let ended = stage.ended(&task.task);
        ended.assert_status("completed");
        task.assert_complete(&ended);
    }
    stage.are_removed([&removed, &orphaned, &paused, &unwanted, &imageless].map(|task| task.task.as_str()));
    for mut agent in agents {
        agent.stop().unwrap();
    }
}

/// Kills containerd's process beside a container.
fn kill_shim_of(stage: &Stage, container: &str) {
    let pid = stage.docker(&["inspect", "--format", "{{.State.Pid}}", container]);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .unwrap();
    let parent = parent.trim().parse().unwrap();
    let name = fs::read_to_string(format!("/proc/{parent}/comm")).unwrap();
    assert!(name.starts_with("containerd-shim"), "{name}");
    let parent = rustix::process::Pid::from_raw(parent).unwrap();
    rustix::process::kill_process(parent, Signal::KILL).unwrap();
}

/// A file system of few bytes; gone with this value.
struct SmallDisk<'a>(&'a Path);

impl SmallDisk<'_> {
    fn mount(&self, megabytes: u32) {
        fs::create_dir_all(self.0).unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "none"])
            .arg(self.0)
            .status()
            .unwrap();
        assert!(mounted.success(), "a disk could not be mounted");
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_below_the_runs_costs_lines_and_not_the_task() {
    let Some(stage) = Stage::or_skip("a_full_disk_below_the_runs_costs_lines_and_not_the_task") else {
        return;
    };
    let state = stage.scene.folder.path().join("state");
    let disk = SmallDisk(&state);
    disk.mount(8);
    let options = stage
        .options("tester:0")
        .variable("CLEARML_AGENT__AGENT__STATE_DIR", state.to_str().unwrap());
    let mut agent = Stage::daemon(&options);
    let seen = stage.scene.folder.path().join("seen");
    fs::create_dir_all(&seen).unwrap();
    let code = "import os, time\nprint('out: begins', flush=True)\n\
                while not os.path.exists('/seen/full'): time.sleep(0.1)\n\
                for i in range(400): print('x' * 1000, flush=True)\n\
                open('/seen/printed', 'w').close()\n\
                while not os.path.exists('/seen/free'): time.sleep(0.1)\n\
                time.sleep(1)\nprint('out: ends', flush=True)\n";
    let task = stage.submit("loud", code, IMAGE, &format!("-v {}:/seen", seen.display()));
    stage.says(&task, "out: begins");
    // Somebody else fills the disk to its last byte.
    let filler = state.join("filler");
    let _full = fs::write(&filler, vec![0; 16 << 20]);
    fs::write(seen.join("full"), "").unwrap();
    stage.until("the output on a full disk", || seen.join("printed").exists());
    fs::remove_file(&filler).unwrap();
    fs::write(seen.join("free"), "").unwrap();
    let ended = stage.ended(&task);
    ended.assert_status("completed");
    assert_eq!(ended.output(), ["out: begins", "out: ends"]);
    let kept = ended
        .console
        .lines()
        .filter(|line| line.starts_with("xx"))
        .count();
    let told = ended
        .console
        .lines()
        .find(|line| line.contains("of output are missing:"));
    let missing: usize = told.unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    // A line of which a part has found room is neither.
    assert!(
        kept < 20 && missing > 380 && kept + missing <= 400,
        "{}",
        ended.console
    );
    stage.are_removed([task.as_str()]);
    agent.stop().unwrap();
}
