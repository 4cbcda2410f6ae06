//! Jobs as other Linux users: `nobody`, whom every machine has, and who is no administrator.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::scene::{Scene, template};

#[test]
fn jobs_run_and_are_cancelled_as_the_mapped_user() {
    const TEST: &str = "jobs_run_and_are_cancelled_as_the_mapped_user";
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let Some(uid) = passwd
        .lines()
        .find_map(|line| line.strip_prefix("nobody:x:")?.split(':').next())
    else {
        eprintln!("SKIPPED {TEST}: this machine has no user nobody");
        return;
    };
    // That user has no home of its own.
    let queue = ("main", template("", "export HOME=$(mktemp -d)"));
    let Some(mut scene) = Scene::new(TEST, &[queue]) else {
        return;
    };
    let folder = scene.folder.path().to_owned();
    let open = |name: &str, mode| {
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    let jobs = folder.join("jobs");
    fs::create_dir(&jobs).unwrap();
    fs::copy(
        xtask::workspace::target().join("debug/clearml-agent"),
        folder.join("agent"),
    )
    .unwrap();
    for (name, mode) in [
        ("", 0o755),
        ("jobs", 0o1777),
        ("shared", 0o1777),
        ("agent", 0o755),
    ] {
        open(name, mode);
    }
    let text = fs::read_to_string(folder.join("main.sh")).unwrap();
    let output = format!("--output={}/%j.log", folder.display());
    assert!(text.contains(&output));
    let moved = text.replace(&output, &format!("--output={}/%j.log", jobs.display()));
    fs::write(folder.join("main.sh"), moved).unwrap();
    scene.options.extend([
        r#"user_map={"default":"nobody"}"#.to_owned(),
        format!("work_dir={}", jobs.display()),
        format!("agent_binary={}", folder.join("agent").display()),
    ]);
    let code = "import os; print('user', os.getuid(), 'groups', os.getgroups(), 'secret', os.environ.get('SECRET_OF_THE_GLUE'), os.environ['USER'])";
    let runs = scene.submit("main", code, &[]);
    let waits = scene.submit("main", "", &[("begin", "now+1hour")]);
    scene.start();
    scene.until(&runs, "completed", 60);
    let console = scene.api.console(&runs).unwrap();
    assert!(console.contains(&format!("user {uid} groups")), "{console}");
    assert!(
        !console.contains("[0") && console.contains("secret None nobody"),
        "{console}"
    );
    assert_eq!(
        scene.task(&runs)["hyperparams"]["properties"]["slurm-user"]["value"],
        "nobody"
    );

    scene.until_message(&waits, "PENDING (BeginTime)", 30);
    let job = scene.job(&waits);
    scene
        .api
        .call("tasks.stop", serde_json::json!({"task": waits}))
        .unwrap();
    scene.until_state(&job, "CANCELLED", 15);
    scene.stop_glue();
}
