//! The daemon goes, in every way, and comes back.

use std::time::Duration;

use crate::place::Place;
use crate::scene::finish;
use crate::stand::{Stand, inspect, until};

const WORKER: &str = "tester:cpu:0";

fn pid(task: &str) -> String {
    inspect(task, "{{.State.Pid}}")
}

#[test]
fn containers_outlive_a_daemon_that_is_killed_or_told_to_end_and_are_counted_again() {
    let name = "containers_outlive_a_daemon_that_is_killed_or_told_to_end_and_are_counted_again";
    let Some(mut stand) = Stand::or_skip(name) else {
        return;
    };
    let tasks = [stand.service("one", ""), stand.service("two", "")];
    let mut daemon = stand.daemon("--docker", &["--services-mode", "2", "--foreground"], &[]);
    for task in &tasks {
        stand.place.says(task, "out: 3\n");
    }
    let pids = tasks.each_ref().map(|task| pid(task));
    let mark = daemon.mark().clone();
    daemon.kill();
    mark.kill_all();
    let waiting = stand.service("waiting", "");
    std::thread::sleep(Duration::from_secs(2));
    daemon.start_again().unwrap();
    for task in &tasks {
        stand.place.says(task, "out: 60\n");
    }
    assert_eq!(stand.place.scene.api.status(&waiting).unwrap(), "queued");

    // The documented end of such a daemon: its services are left alone, and go on being looked after.
    daemon.stop().unwrap();
    assert!(
        daemon.output().contains("goes on without the daemon"),
        "{}",
        daemon.output()
    );
    for task in &tasks {
        stand.place.says(task, "out: 100\n");
    }
    assert_eq!(tasks.each_ref().map(|task| pid(task)), pids);
    daemon.start_again().unwrap();
    until("both services to be in hand again", || {
        daemon.output().matches("Continuing task").count() == 4
    });
    stand.go();
    for task in tasks.iter().chain([&waiting]) {
        stand.has_counted(task, &format!("{WORKER}:service:{task} None 1 none"));
    }
    daemon.stop().unwrap();
}

#[test]
fn a_detached_daemon_is_stopped_by_its_arguments_and_takes_services_along_where_that_is_said() {
    let name = "a_detached_daemon_is_stopped_by_its_arguments_and_takes_services_along_where_that_is_said";
    let Some(mut stand) = Stand::or_skip(name) else {
        return;
    };
    // Nothing is installed in this mode; what the image has is what there is.
    let task = stand.service_with("one", "", "clearml-test-no-such-package==1");
    let preparing = stand.service("two", "sleep 600");
    let mode = ["--services-mode", "--cpu-only", "--detached", "--standalone-mode"];
    let kill = [("CLEARML_AGENT__AGENT__ON_STOP", "kill")];
    let mut starter = stand.daemon("--podman", &mode, &kill);
    assert!(starter.wait(Duration::from_secs(30)).unwrap().success());
    stand.place.says(&task, "out: 3\n");
    until("the other container", || {
        !Place::containers(&preparing).is_empty()
    });
    let folder = stand.place.scene.folder.path().to_str().unwrap();
    let options = stand.place.options().variable("TMPDIR", folder);
    let (code, stdout, stderr) =
        finish(options.command(&stand.arguments("--podman", &["--services-mode", "--cpu-only", "--stop"])));
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(stdout.contains(&format!("worker_id={WORKER}")), "{stdout}");
    for task in [&task, &preparing] {
        stand.place.ended(task).assert_status("stopped");
        Place::is_removed(task);
    }
    until("nothing to be left", || starter.mark().processes().is_empty());
    assert!(stand.workers().is_empty(), "{:?}", stand.workers());
}
