//! Jobs as other Linux users: `nobody` and `games`, whom every Debian has, and who are no administrators.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::process::Command;

use serde_json::json;

use crate::scene::{NOBODY, Scene, has_users, template};

const WHO: &str = "import os; print('user', os.getuid(), 'groups', os.getgroups(), 'secret', os.environ.get('SECRET_OF_THE_GLUE'), os.environ['USER'])";

#[test]
fn jobs_run_and_are_cancelled_as_the_mapped_user() {
    const TEST: &str = "jobs_run_and_are_cancelled_as_the_mapped_user";
    if !has_users(TEST) {
        return;
    }
    // That user has no home of its own.
    let link = "log=$(scontrol show job $SLURM_JOB_ID | sed -n 's/^ *StdOut=//p'); ln -sfn /etc/shadow \"$log\"; exit 5";
    let queues = [
        ("main", template("", "export HOME=$CLEARML_SLURM_JOB_DIR")),
        ("failing", template("", "echo said at the end; exit 5")),
        ("linking", template("", link)),
    ];
    let Some(mut scene) = Scene::new(TEST, &queues) else {
        return;
    };
    scene.open_to_others();
    scene.options.extend([
        r#"user_map={"default":"nobody"}"#.to_owned(),
        "credentials=file".to_owned(),
    ]);
    let runs = scene.submit("main", WHO, &[]);
    let waits = scene.submit("main", "", &[("begin", "now+1hour")]);
    scene.start();
    scene.until(&runs, "completed", 60);
    let console = scene.api.console(&runs).unwrap();
    assert!(console.contains(&format!("user {NOBODY} groups")), "{console}");
    assert!(
        !console.contains("[0") && console.contains("secret None nobody"),
        "{console}"
    );
    let task = scene.task(&runs);
    assert_eq!(task["hyperparams"]["properties"]["slurm-user"]["value"], "nobody");

    // The end of a job's output is shown, but nothing that only root may read.
    let said = scene.submit("failing", "", &[]);
    let linked = scene.submit("linking", "", &[]);
    for task in [&said, &linked] {
        let reason = scene.until(task, "failed", 60);
        assert!(reason.contains("before the task started (exit 5)"), "{reason}");
    }
    assert!(
        scene
            .api
            .console(&said)
            .unwrap()
            .contains("[slurm] said at the end")
    );
    let console = scene.api.console(&linked).unwrap();
    assert!(!console.contains("[slurm]"), "{console}");

    // Its keys are its user's alone, and go with it.
    scene.until_message(&waits, "PENDING (BeginTime)", 30);
    let keys = |task: &str| scene.credentials().join(format!("{task}.conf"));
    let found = fs::symlink_metadata(keys(&waits)).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o7777), (NOBODY, 0o600));
    scene.wait("the keys of the first are gone", 20, || {
        (!keys(&runs).exists()).then_some(())
    });
    let job = scene.job(&waits);
    let shown = scene
        .cluster
        .output("scontrol", &["write", "batch_script", &job, "-"])
        .unwrap();
    assert!(
        !shown.contains("secret_key") && shown.contains(".conf"),
        "{shown}"
    );
    scene.api.call("tasks.stop", json!({"task": waits})).unwrap();
    scene.until_state(&job, "CANCELLED", 15);
    scene.wait("its keys are gone", 20, || (!keys(&waits).exists()).then_some(()));
    scene.stop_glue();
}

/// The same program as `nobody`, who may become `games` by sudo.
fn as_nobody(scene: &Scene, command: &Command) -> Command {
    let folder = scene.folder.path().join("sudoers.d");
    fs::create_dir_all(&folder).unwrap();
    let rules =
        "Defaults env_keep += \"SLURM_CONF SLURM_TIME_FORMAT LC_ALL\"\nnobody ALL=(games) NOPASSWD: ALL\n";
    fs::write(folder.join("test"), rules).unwrap();
    let script = "mount --bind \"$1\" /etc/sudoers.d && shift && exec setpriv --reuid nobody --regid nogroup --clear-groups \"$@\"";
    let mut wrapped = Command::new("unshare");
    wrapped.args(["--mount", "sh", "-c", script, "sh"]).arg(folder);
    wrapped.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        wrapped.env(name, value.unwrap());
    }
    wrapped.current_dir(command.get_current_dir().unwrap());
    wrapped
}

#[test]
fn an_ordinary_account_serves_others_whose_jobs_it_can_not_see() {
    const TEST: &str = "an_ordinary_account_serves_others_whose_jobs_it_can_not_see";
    if !has_users(TEST) {
        return;
    }
    if !std::path::Path::new("/usr/bin/sudo").exists() {
        eprintln!("SKIPPED {TEST}: sudo is not installed");
        return;
    }
    let queues = [
        ("main", template("", "export HOME=$CLEARML_SLURM_JOB_DIR")),
        ("failing", template("", "exit 5")),
    ];
    let Some(mut scene) = Scene::new(TEST, &queues) else {
        return;
    };
    scene.configure(|text| format!("{text}PrivateData=jobs\n"));
    scene.open_to_others();
    scene.options.extend([
        r#"user_map={"default":"games"}"#.to_owned(),
        "min_uid=1".to_owned(),
    ]);
    let state = scene.folder.path().join("state");
    fs::create_dir(&state).unwrap();
    let configuration = scene.folder.path().join("server/clearml.conf");
    for path in [&state, &configuration] {
        chown(path, Some(NOBODY), None).unwrap();
    }
    let runs = scene.submit("main", WHO, &[]);
    let fails = scene.submit("failing", "", &[]);
    let waits = scene.submit("main", "", &[("begin", "now+1hour")]);
    let cancelled = scene.submit("main", "", &[("begin", "now+1hour")]);
    scene.start_as(as_nobody);
    scene.until(&runs, "completed", 60);
    let console = scene.api.console(&runs).unwrap();
    assert!(
        console.contains("user 5 groups") && console.contains("games"),
        "{console}"
    );
    let reason = scene.until(&fails, "failed", 60);
    assert!(reason.contains("before the task started (exit 5)"), "{reason}");

    scene.until_message(&waits, "PENDING (BeginTime)", 30);
    let job = scene.job(&waits);
    scene.api.call("tasks.stop", json!({"task": waits})).unwrap();
    scene.until_state(&job, "CANCELLED", 15);
    scene
        .cluster
        .output("scancel", &[&scene.job(&cancelled)])
        .unwrap();
    let reason = scene.until(&cancelled, "stopped", 30);
    assert!(reason.contains("cancelled by root"), "{reason}");
    scene.stop_glue();
}

#[test]
fn vaults_of_owners_say_who_jobs_run_as() {
    const TEST: &str = "vaults_of_owners_say_who_jobs_run_as";
    if !has_users(TEST) {
        return;
    }
    let queue = ("main", template("", "export HOME=$CLEARML_SLURM_JOB_DIR"));
    let Some(mut scene) = Scene::with_server(TEST, &[queue], &["--feature-set", "advanced"]) else {
        return;
    };
    scene.open_to_others();
    scene.options.extend([
        r#"user_map={"default":"games"}"#.to_owned(),
        "min_uid=1".to_owned(),
        // The owner's token is what such a server can give.
        "credentials=token".to_owned(),
    ]);
    let user_of = |scene: &Scene, task: &str| {
        let shown = scene
            .cluster
            .output("scontrol", &["show", "job", &scene.job(task)])
            .unwrap();
        let (_, user) = shown.split_once("UserId=").unwrap();
        user.split('(').next().unwrap().to_owned()
    };
    let later = [("begin", "now+1hour")];
    let by_file = scene.submit("main", "", &later);
    scene.start();
    scene.until_message(&by_file, "PENDING", 30);
    assert_eq!(user_of(&scene, &by_file), "games");

    let data = |map: &str| format!("agent.slurm.user_map {map}");
    let vault = scene
        .api
        .call("users.create_vault", json!({"data": data("{ default: nobody }")}))
        .unwrap()["id"]
        .clone();
    let code = "import os
print('user', os.getuid(), 'token', len(os.environ['CLEARML_AUTH_TOKEN']) > 20, 'keys', 'secret_key' in open(os.environ['CLEARML_CONFIG_FILE']).read())";
    let by_vault = scene.submit("main", code, &[]);
    scene.until(&by_vault, "completed", 60);
    let console = scene.api.console(&by_vault).unwrap();
    assert!(
        console.contains(&format!("user {NOBODY} token True keys False")),
        "{console}"
    );

    // Without a restart: another map, and one that is empty.
    for (map, expected) in [("{}", "root"), ("{ default: nobody }", "nobody")] {
        let update = json!({"vault": vault, "data": data(map)});
        scene.api.call("users.update_vault", update).unwrap();
        let task = scene.submit("main", "", &later);
        scene.until_message(&task, "PENDING", 30);
        assert_eq!(user_of(&scene, &task), expected);
    }
    for (map, expected) in [
        ("{ default: root }", "jobs may not run as root"),
        ("{ default: no-such-user }", "there is no Linux user"),
        ("{ somebody: nobody }", "No Linux user mapped for ClearML user"),
        ("{ default: 65534 }", "write names of Linux users"),
        ("{ default: ", "a vault of the task's owner"),
    ] {
        let update = json!({"vault": vault, "data": data(map)});
        scene.api.call("users.update_vault", update).unwrap();
        let task = scene.submit("main", "", &[]);
        let reason = scene.until(&task, "failed", 30);
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(scene.task(&task)["runtime"]["_slurm_job"], json!(null));
    }
    scene.stop_glue();
}
