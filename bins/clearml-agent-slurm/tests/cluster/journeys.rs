//! Tasks and jobs through their lives.

use std::process::Command;

use serde_json::json;

use crate::scene::{Scene, template};

const SLEEP: &str = "import time; print('begun', flush=True); time.sleep(300)";

fn queues() -> Vec<(&'static str, String)> {
    vec![
        ("main", template("", ": nothing")),
        ("noagent", template("", "echo the reason is here; exit 0")),
        (
            "greedy",
            template("", "python3 -c 'b=bytearray(400<<20)' || exit 1"),
        ),
        (
            "folder",
            template("#SBATCH --output=/nowhere/at/all/%j.log", ": nothing"),
        ),
        (
            "strict",
            template(
                "#SBATCH --qos=${CLEARML_TASK.hyperparams.properties.absent.value}",
                ": nothing",
            ),
        ),
        ("failing", template("", "exit 5")),
    ]
}

#[test]
fn jobs_end_and_their_tasks_say_how() {
    let Some(mut scene) = Scene::new("jobs_end_and_their_tasks_say_how", &queues()) else {
        return;
    };
    let good = scene.submit(
        "main",
        "import os; print('secret', os.environ.get('SECRET_OF_THE_GLUE'))",
        &[],
    );
    let three = scene.submit("main", "import sys; sys.exit(3)", &[]);
    let policy = scene.submit("main", "", &[("constraint", "forbidden")]);
    let evil = scene.submit("main", "", &[("num_nodes", "1 --uid=0")]);
    let nobody = scene.submit("noagent", "", &[]);
    let greedy = scene.submit("greedy", "", &[]);
    let folder = scene.submit("folder", "", &[]);
    let strict = scene.submit("strict", "", &[]);
    let failing = scene.submit("failing", "", &[]);
    scene.start();

    for (task, status, reason) in [
        (&good, "completed", ""),
        (&three, "failed", "worker execution exit code 3"),
        (&policy, "failed", "lab policy"),
        (&evil, "failed", "Slurm rejected the job"),
        (&nobody, "failed", "without starting the task"),
        (&greedy, "failed", "out of memory"),
        (&folder, "failed", "working folder"),
        (&strict, "failed", "Slurm template error"),
        (&failing, "failed", "before the task started (exit 5)"),
    ] {
        let said = scene.until(task, status, 60);
        assert!(
            said.contains(reason),
            "{said}, not {reason}\n{}",
            scene.glue_log()
        );
    }
    assert!(scene.api.console(&good).unwrap().contains("secret None"));
    assert!(
        scene
            .api
            .console(&nobody)
            .unwrap()
            .contains("[slurm] the reason is here")
    );
    assert!(scene.api.console(&strict).unwrap().contains("absent"));
    assert_eq!(
        scene.known_jobs_of(&evil) + scene.known_jobs_of(&strict),
        0,
        "nothing may have run"
    );
    let task = scene.task(&good);
    assert_eq!(task["hyperparams"]["properties"]["slurm-cluster"]["value"], "lab");
    assert_eq!(
        task["hyperparams"]["properties"]["slurm-job-id"]["value"],
        json!(scene.job(&good))
    );
    scene.wait("nothing is parked or remembered", 15, || {
        let left = std::fs::read_dir(scene.folder.path().join("state/tasks"))
            .unwrap()
            .count();
        (left == 0).then_some(())
    });
    let parking = scene
        .api
        .call(
            "queues.get_all",
            json!({"name": "slurm_scheduler", "search_hidden": true}),
        )
        .unwrap();
    assert_eq!(parking["queues"][0]["entries"], json!([]));
    scene.stop_glue();
}

#[test]
fn people_stop_move_and_hold_tasks_and_jobs() {
    let Some(mut scene) = Scene::new("people_stop_move_and_hold_tasks_and_jobs", &queues()) else {
        return;
    };
    let later = [("begin", "now+1hour")];
    let waits = scene.submit("main", "", &later);
    let cancelled = scene.submit("main", "", &later);
    let moved = scene.submit("main", "", &later);
    let reset = scene.submit("main", "", &later);
    let taken = scene.submit("main", "", &later);
    let aborted = scene.submit("main", SLEEP, &[]);
    let killed = scene.submit("main", SLEEP, &[]);
    let back = scene.submit("main", SLEEP, &[]);
    scene.start();

    scene.until_message(&waits, "PENDING (BeginTime)", 30);
    let job = scene.job(&waits);
    assert_eq!(scene.task(&waits)["status"], "queued");
    let script = ["write", "batch_script", &job, "-"];
    for arguments in [&script[..], &["show", "job", &job]] {
        let shown = scene.cluster.output("scontrol", arguments).unwrap();
        assert!(
            shown.contains(&waits) && !shown.contains("do-not-tell"),
            "{shown}"
        );
    }
    scene.api.call("tasks.stop", json!({"task": waits})).unwrap();
    assert_eq!(scene.task(&waits)["status"], "stopped", "at once");
    scene.until_state(&job, "CANCELLED", 5);

    let job = scene.job(&cancelled);
    scene.cluster.output("scancel", &[&job]).unwrap();
    let reason = scene.until(&cancelled, "stopped", 15);
    assert!(reason.contains("cancelled by root"), "{reason}");

    let elsewhere = scene.api.create_queue("elsewhere").unwrap();
    let job = scene.job(&moved);
    scene
        .api
        .call("tasks.enqueue", json!({"task": moved, "queue": elsewhere}))
        .unwrap();
    scene.until_state(&job, "CANCELLED", 10);
    assert_eq!(scene.task(&moved)["status"], "queued");
    assert_eq!(scene.api.waiting(&elsewhere).unwrap(), [moved]);

    let job = scene.job(&reset);
    scene
        .api
        .call("tasks.reset", json!({"task": reset, "force": true}))
        .unwrap();
    scene.until_state(&job, "CANCELLED", 10);
    assert_eq!(scene.task(&reset)["status"], "created");

    // Reset, and started by another worker before the glue looks again.
    let job = scene.job(&taken);
    for call in ["tasks.reset", "tasks.enqueue", "tasks.started"] {
        let change = json!({"task": taken, "queue": elsewhere, "force": true});
        scene.api.call(call, change).unwrap();
    }
    scene.until_state(&job, "CANCELLED", 10);
    assert_eq!(scene.task(&taken)["status"], "in_progress", "it is the other's");

    let job = scene.job(&aborted);
    scene.wait("the task runs", 30, || {
        scene
            .api
            .console(&aborted)
            .unwrap()
            .contains("begun")
            .then_some(())
    });
    scene.api.call("tasks.stop", json!({"task": aborted})).unwrap();
    scene.until(&aborted, "stopped", 30);
    scene.wait("its job is over", 20, || {
        (!matches!(&*scene.state(&job), "RUNNING" | "COMPLETING")).then_some(())
    });

    let job = scene.job(&killed);
    scene.wait("the task runs", 30, || {
        scene
            .api
            .console(&killed)
            .unwrap()
            .contains("begun")
            .then_some(())
    });
    scene.cluster.output("scancel", &[&job]).unwrap();
    scene.until(&killed, "stopped", 30);

    let job = scene.job(&back);
    scene.wait("the task runs", 30, || {
        scene.api.console(&back).unwrap().contains("begun").then_some(())
    });
    scene.cluster.output("scontrol", &["requeue", &job]).unwrap();
    scene.until_message(&back, "restart 1", 40);
    assert_eq!(scene.task(&back)["status"], "queued");
    assert_eq!(scene.job(&back), job, "Slurm keeps the number");
    scene.stop_glue();
    assert_eq!(scene.state(&job), "PENDING", "stopping the glue cancels nothing");
}

#[test]
fn a_cluster_is_looked_at_without_submitting_anything() {
    let Some(scene) = Scene::new(
        "a_cluster_is_looked_at_without_submitting_anything",
        &queues()[..1],
    ) else {
        return;
    };
    let run = |mut command: Command| {
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (
            output.status.code(),
            text,
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, text, errors) = run(scene.glue_command(&["--check"]));
    assert_eq!(code, Some(0), "{text}{errors}");
    assert!(text.contains("the cluster is lab"), "{text}");

    let task = scene.submit("main", "", &[("num_nodes", "2")]);
    let (code, text, errors) = run(scene.glue_command(&["--render", &task]));
    assert_eq!(code, Some(0), "{errors}");
    assert!(
        text.contains("#SBATCH --nodes=2") && text.contains(&task),
        "{text}"
    );
    assert!(text.contains("CLEARML_SLURM_REQUIRE_QUEUE='1'"), "{text}");
    let keys = std::fs::read_to_string(scene.folder.path().join("server/clearml.conf")).unwrap();
    let secret = keys
        .lines()
        .find(|line| line.contains("secret_key"))
        .unwrap()
        .split('"')
        .nth(3)
        .unwrap()
        .to_owned();
    let encoded = Command::new("sh")
        .args(["-c", "printf %s \"$1\" | base64", "sh", &secret])
        .output()
        .unwrap();
    let encoded = String::from_utf8_lossy(&encoded.stdout).into_owned();
    assert!(
        !text.contains(&secret) && !text.contains(&encoded[4..20]),
        "a secret is shown"
    );
    assert_eq!(scene.cluster.output("squeue", &["-h", "-t", "all"]).unwrap(), "");
    assert_eq!(scene.task(&task)["status"], "queued");

    // In the background, where it is found, and ended without its jobs.
    for (arguments, expected) in [
        (&["--stop"][..], 1),
        (&["--detached"][..], 0),
        (&[][..], 3),
        (&["--status"][..], 0),
        (&["--stop"][..], 0),
        (&["--stop"][..], 1),
    ] {
        let (code, text, errors) = run(scene.glue_command(arguments));
        assert_eq!(code, Some(expected), "{arguments:?}: {text}{errors}");
    }

    // What is not let through stays out of scripts.
    let arguments = "#!/bin/bash\n${CLEARML_PRE_SETUP}\ndocker run ${CLEARML_TASK.container.arguments} x\n\
                     ${CLEARML_AGENT_EXECUTE}\n${CLEARML_POST_SETUP}\n";
    std::fs::write(scene.folder.path().join("main.sh"), arguments).unwrap();
    let container = json!({"image": "i", "arguments": "-e 'A=1 2' --privileged -v /a:/b"});
    let contained = scene.submit_with("main", "", &[], json!({"container": container}));
    let filters = r#"agent.docker_args_filters=["^-e$","^-v$"]"#;
    let (code, text, errors) = run(scene.glue_command(&["--render", &contained, "--set", filters]));
    assert_eq!(code, Some(0), "{errors}");
    assert!(text.contains("docker run -e 'A=1 2' -v /a:/b x"), "{text}");
    assert!(errors.contains("--privileged"), "{errors}");

    std::fs::write(
        scene.folder.path().join("main.sh"),
        "#!/bin/bash\n${CLEARML_TASK.id\n",
    )
    .unwrap();
    let (code, text, _) = run(scene.glue_command(&["--check"]));
    assert_eq!(code, Some(1));
    assert!(text.contains("main.sh:2:1"), "{text}");
}

#[test]
fn several_nodes_run_one_task() {
    let Some(mut scene) = Scene::new("several_nodes_run_one_task", &queues()[..1]) else {
        return;
    };
    let code = "import os, time; print('node', os.environ['NODE_RANK'], flush=True); time.sleep(10)";
    let task = scene.submit("main", code, &[("num_nodes", "2")]);
    scene.start();
    scene.until(&task, "completed", 60);
    let job = scene.job(&task);
    scene.wait("the job is over", 20, || {
        (scene.state(&job) == "COMPLETED").then_some(())
    });
    let log = std::fs::read_to_string(scene.folder.path().join(format!("{job}.log"))).unwrap();
    for node in ["node 0", "node 1"] {
        assert!(log.contains(node), "{log}");
    }
    scene.stop_glue();
}
