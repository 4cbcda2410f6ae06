//! Images, from the build to what they run.

use std::time::Duration;

use serde_json::{Value, json};

use crate::place::docker;
use crate::studio::{Studio, inspect};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn an_image_of_private_code_holds_no_secret_and_runs_its_task_again() {
    let Some(studio) = Studio::or_skip("an_image_of_private_code_holds_no_secret_and_runs_its_task_again")
    else {
        return;
    };
    let scene = &studio.place.scene;
    let task = studio.task("private", json!({}));
    let name = studio.image("reuse");
    let output = studio.build(&[
        "--docker",
        &studio.place.image,
        "--target",
        &name,
        "--entry-point",
        "reuse_task",
        "--id",
        &task,
        "--log-level",
        "DEBUG",
        "--cpu-only",
    ]);
    for line in [
        &format!(
            "Building image {name} for task {task} from {}",
            studio.place.image
        ),
        "clone finished in",
        "packages finished in",
        &format!("Committing docker container to: {name}"),
        "  alpha==1.0",
        "Agent in the image: /root/.clearml/image/clearml-agent, ",
        "Docker build done in",
    ] {
        assert!(output.contains(line), "no {line:?} in {output}");
    }
    // The task knows nothing of it.
    let document = |task: &str| {
        let reply = scene.api.call("tasks.get_by_id", json!({"task": task}));
        reply.unwrap()["task"].clone()
    };
    assert_eq!(document(&task)["status"], "created");
    assert_eq!(document(&task)["container"].get("image"), None);
    assert!(studio.git.logins().len() > 1 && studio.index.logins().len() > 1);
    studio.holds_no_secret(&name);
    studio.nothing_is_left();
    // Nor does the image have variables of the build, but for what it comes from.
    let mut variables = inspect(&studio.place.image, ".Config.Env");
    let from = json!(format!("CLEARML_DOCKER_IMAGE={}", studio.place.image));
    match variables.as_array_mut() {
        Some(variables) => variables.push(from),
        None => variables = json!([from]),
    }
    assert_eq!(inspect(&name, ".Config.Env"), variables);

    // Twice: the second time it is reset first. Neither code nor packages are fetched.
    let fetched = (studio.git.requests(), studio.index.requests());
    for _ in 0..2 {
        let (code, output, errors) = studio.run(&name, &[]);
        assert_eq!(code, 0, "{output}{errors}");
        let ended = scene.ended_within(&task, LIMIT);
        ended.assert_status("completed");
        assert_eq!(ended.output(), ["out: private 1.0 0"], "{}", ended.console);
    }
    assert_eq!((studio.git.requests(), studio.index.requests()), fetched);
    // More options may follow the name of the image.
    let (code, output, errors) = studio.run(&name, &["-O"]);
    assert_eq!(code, 0, "{output}{errors}");
    assert_eq!(scene.ended_within(&task, LIMIT).output(), ["out: private 1.0 1"]);
    // What is published is not replaced.
    let publish = json!({"task": task, "force": true});
    scene.api.call("tasks.publish", publish).unwrap();
    let (code, output, _) = studio.run(&name, &[]);
    assert!(code == 1 && output.contains("clone_task"), "{output}");
}

#[test]
fn an_image_runs_clones_of_its_task() {
    let Some(studio) = Studio::or_skip("an_image_runs_clones_of_its_task") else {
        return;
    };
    let scene = &studio.place.scene;
    // The image of the task, and its script, whose variables reach what is installed.
    let setup = "export MADE=here\necho \"$MADE\" > /made-by-setup\n";
    let container = json!({"image": studio.place.image, "setup_shell_script": setup});
    let task = studio.task("cloned", container);
    let name = format!("task_id_{task}:latest");
    studio.remove_later(&name);
    let output = studio.build(&[
        "--docker",
        "--entry-point",
        "clone_task",
        "--id",
        "cloned",
        "--json",
    ]);
    let built: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(built["image"], json!(name));
    assert_eq!(built["base_image"], json!(studio.place.image));
    assert_eq!(built["entry_point"], "clone_task");
    // The login of an address is not part of what is installed.
    let beta = studio.index.url("files/beta-2.0-py3-none-any.whl");
    assert_eq!(built["packages"], json!(["alpha==1.0", format!("beta @ {beta}")]));
    assert_eq!(built["image_id"], inspect(&name, ".Id"));
    assert_eq!(built["bytes"], inspect(&name, ".Size"));
    assert!(built["program"]["bytes"].as_u64().unwrap() > 1_000_000, "{built}");
    let (code, output, errors) = studio.run(&name, &[]);
    assert_eq!(code, 0, "{output}{errors}");
    let line = output
        .lines()
        .find_map(|line| line.strip_prefix("Task cloned, new task id="));
    let clone = line.unwrap_or_else(|| panic!("{output}"));
    let ended = scene.ended_within(clone, LIMIT);
    ended.assert_status("completed");
    assert_eq!(ended.output(), ["out: private 1.0 0"]);
    let document = scene.api.call("tasks.get_by_id", json!({"task": task})).unwrap();
    assert_eq!(document["task"]["status"], "created");
    let made = docker(&[
        "run",
        "--rm",
        "--network=none",
        "--entrypoint",
        "cat",
        &name,
        "/made-by-setup",
    ]);
    assert_eq!(made.as_deref(), Some("here"));
    // Without credentials, it is said how to give them.
    let (code, text) = {
        let output = std::process::Command::new("docker")
            .args(["run", "--rm", "--network", "host", &name])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text)
    };
    assert!(
        code == Some(1) && text.contains("CLEARML_API_ACCESS_KEY"),
        "{text}"
    );
}

#[test]
fn an_image_without_entry_point_is_for_tasks() {
    let Some(studio) = Studio::or_skip("an_image_without_entry_point_is_for_tasks") else {
        return;
    };
    // What the task names does not count.
    let container = json!({"image": "no-such-image:1", "setup_shell_script": "exit 7"});
    let task = studio.task("base", container);
    let name = studio.image("base");
    let series = docker(&[
        "run",
        "--rm",
        "--network=none",
        &studio.place.image,
        "python3",
        "-c",
        "import sys; print('%d.%d' % sys.version_info[:2])",
    ])
    .unwrap();
    let output = studio.build(&[
        "--docker",
        &studio.place.image,
        "--force-docker",
        "--install-globally",
        "--python-version",
        &series,
        "--target",
        &name,
        "--id",
        &task,
        "--json",
    ]);
    let built: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(
        (&built["entry_point"], &built["program"]),
        (&Value::Null, &Value::Null)
    );
    let entry = inspect(&name, ".Config.Entrypoint");
    assert!(entry.is_null() || entry == json!([]), "{entry}");
    let command = match inspect(&studio.place.image, ".Config.Cmd") {
        Value::Null => json!(["/bin/sh"]),
        command => command,
    };
    assert_eq!(inspect(&name, ".Config.Cmd"), command);
    let program = docker(&[
        "run",
        "--rm",
        "--network=none",
        &name,
        "ls",
        "-A",
        "/root",
        "/root/.clearml",
    ])
    .unwrap();
    for absent in ["image", "default_clearml.conf", ".ssh", ".git-credentials"] {
        assert!(!program.lines().any(|line| line == absent), "{program}");
    }
    // As the container of a task: nothing is installed.
    let fetched = studio.index.requests();
    let code = "import alpha\nprint('out:', alpha.VERSION)\n";
    let spec = xtask::workbench::TaskSpec::script(code).requirements("alpha==1.0");
    let mut agent = studio.place.daemon(&studio.options());
    let task = studio.place.submit_spec("in it", &spec, json!({"image": name}));
    let ended = studio.place.ended(&task);
    ended.assert_status("completed");
    assert_eq!(ended.output(), ["out: 1.0"]);
    assert_eq!(studio.index.requests(), fetched, "{}", ended.console);
    agent.stop().unwrap();
}
