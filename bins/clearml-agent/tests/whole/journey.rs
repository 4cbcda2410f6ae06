//! Whole journeys of well-behaved tasks, from the queue to the final status.

use std::time::Duration;

use crate::scene::{AGENT, LIMIT, LONG_LIMIT, QUEUE, Scene, environment_or_skip, finish};
use rustix::process::Signal;
use serde_json::json;
use xtask::workbench::{Agent, AgentOptions, TaskSpec, wait_for};

const SDK: &str = "clearml==2.1.12";

#[test]
fn a_literal_script_completes_and_every_line_arrives() {
    let scene = Scene::new();
    let mut daemon = scene.daemon();
    let code = "import sys\nfor i in range(50):\n    print('out:', i, flush=True)\n\
                print('out: to stderr', file=sys.stderr)\n";
    let ended = scene.run("literal script", &TaskSpec::script(code));
    ended.assert_status("completed");
    assert_eq!(ended.reason(), "worker execution done");
    let worker = ended.task["last_worker"].as_str().unwrap();
    assert!(worker.starts_with("tester:"), "{worker}");
    assert_eq!(
        ended.task["status_message"],
        format!("Changed by clearml-agent {worker}")
    );
    let mut expected: Vec<_> = (0..50).map(|i| format!("out: {i}")).collect();
    expected.push("out: to stderr".to_owned());
    assert_eq!(ended.output(), expected);

    let status = daemon.stop().unwrap();
    assert_eq!(status.code(), Some(254), "{}", daemon.output());
    assert_eq!(daemon.mark().processes(), [], "the daemon left processes behind");
    let workers = scene.api.call("workers.get_all", json!({})).unwrap();
    assert_eq!(workers["workers"], json!([]), "the worker is still registered");
}

#[test]
fn the_exit_code_of_the_code_decides_the_status() {
    let scene = Scene::new();
    let _daemon = scene.daemon();
    let ended = scene.run(
        "exit code 3",
        &TaskSpec::script("import sys\nprint('out: bye')\nsys.exit(3)"),
    );
    ended.assert_status("failed");
    assert_eq!(ended.reason(), "worker execution exit code 3");
    assert_eq!(ended.output(), ["out: bye"]);
    scene.good_task_completes();
}

#[test]
fn queues_are_served_in_the_order_given() {
    let scene = Scene::new();
    let urgent = scene.api.create_queue("urgent").unwrap();
    let script = TaskSpec::script("print('out: done')");
    let low = scene.submit("low", &script);
    let high = scene.api.submit("high", &script, &urgent).unwrap();
    let _daemon = Agent::start(
        &scene.options(),
        &["daemon", "--queue", "urgent", QUEUE, "--foreground"],
    )
    .unwrap();
    let started = |task: &str| {
        scene.ended(task).task["started"]
            .as_str()
            .map(str::to_owned)
            .unwrap()
    };
    assert!(started(&high) < started(&low));
}

#[test]
fn a_repository_with_a_diff_and_packages_runs() {
    let scene = Scene::new();
    let _daemon = scene.daemon();
    let main = "import six\nimport helper\nprint('out:', helper.WORD, six.__version__)\n";
    let (url, commit) = scene.repository(
        "project",
        &[("main.py", main), ("helper.py", "WORD = 'committed'\n")],
    );
    let diff = "--- a/helper.py\n+++ b/helper.py\n@@ -1 +1 @@\n-WORD = 'committed'\n+WORD = 'patched'\n";
    let spec = TaskSpec::repository(&url, &commit, "main.py")
        .with("diff", diff)
        .requirements("six==1.17.0\n");
    let task = scene.submit("repository", &spec);
    let ended = scene.ended_within(&task, LONG_LIMIT);
    ended.assert_status("completed");
    assert_eq!(ended.output(), ["out: patched 1.17.0"]);
    assert_eq!(ended.task["script"]["version_num"], commit);
}

#[test]
fn an_abort_ends_the_whole_process_tree() {
    let scene = Scene::new();
    let daemon = scene.daemon();
    let code = "import subprocess, sys, time\n\
                subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'], start_new_session=True)\n\
                print('out: started', flush=True)\ntime.sleep(1000)\n";
    let task = scene.submit("to be aborted", &TaskSpec::script(code));
    wait_for("the first line", LIMIT, Duration::from_millis(50), || {
        Ok(scene.api.console(&task)?.contains("out: started").then_some(()))
    })
    .unwrap();
    scene
        .api
        .call(
            "tasks.stop",
            json!({"task": task, "status_reason": "abort request"}),
        )
        .unwrap();
    let ended = scene.ended(&task);
    ended.assert_status("stopped");
    let sleepers = || {
        daemon
            .mark()
            .processes()
            .into_iter()
            .filter(|(_, line)| line.contains("sleep(1000)"))
            .count()
    };
    wait_for(
        "the end of the tree",
        Duration::from_secs(15),
        Duration::from_millis(50),
        || Ok((sleepers() == 0).then_some(())),
    )
    .unwrap();
    scene.good_task_completes();
}

#[test]
fn a_child_that_ignores_sigterm_is_killed() {
    let scene = Scene::new();
    let options = scene.options();
    let daemon = Agent::daemon(
        &options.variable("CLEARML_AGENT__AGENT__ABORT_GRACE_SEC", "1"),
        QUEUE,
    )
    .unwrap();
    let code = "import signal, time\nfor s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):\n    \
                signal.signal(s, signal.SIG_IGN)\nprint('out: deaf', flush=True)\ntime.sleep(1000)\n";
    let task = scene.submit("deaf", &TaskSpec::script(code));
    wait_for("the first line", LIMIT, Duration::from_millis(50), || {
        Ok(scene.api.console(&task)?.contains("out: deaf").then_some(()))
    })
    .unwrap();
    scene.api.call("tasks.stop", json!({"task": task})).unwrap();
    scene.ended(&task).assert_status("stopped");
    let deaf = |(_, line): &(i32, String)| line.contains("script.py");
    wait_for(
        "the end of the deaf child",
        LIMIT,
        Duration::from_millis(50),
        || Ok((!daemon.mark().processes().iter().any(deaf)).then_some(())),
    )
    .unwrap();
}

#[test]
fn sigterm_while_idle_unregisters_and_exits_with_254() {
    let scene = Scene::new();
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = scene.daemon();
        wait_for("the registration", LIMIT, Duration::from_millis(50), || {
            let reply = scene.api.call("workers.get_all", json!({}))?;
            Ok(reply["workers"]
                .as_array()
                .is_some_and(|workers| workers.len() == 1)
                .then_some(()))
        })
        .unwrap();
        daemon.signal(signal);
        let status = daemon.wait(LIMIT).unwrap();
        assert_eq!(status.code(), Some(254), "{}", daemon.output());
    }
}

#[test]
fn execute_runs_one_task_with_its_exit_code() {
    let scene = Scene::new();
    let task = scene
        .api
        .create_task(
            "one task",
            &TaskSpec::script("print('out: once')\nraise SystemExit(7)"),
        )
        .unwrap();
    let (code, _, stderr) = finish(scene.options().command(&["execute", "--id", &task]));
    assert_eq!(code, 7, "{stderr}");
    let ended = scene.ended(&task);
    ended.assert_status("failed");
    assert_eq!(ended.output(), ["out: once"]);
}

#[test]
fn hyperparameters_changed_on_the_server_reach_code_that_uses_the_sdk() {
    let test = "hyperparameters_changed_on_the_server_reach_code_that_uses_the_sdk";
    let Some(_index) = environment_or_skip(test, "sdk", &[SDK]) else {
        return;
    };
    let scene = Scene::new();
    let code = "import argparse\nfrom clearml import Task\n\
                parser = argparse.ArgumentParser()\nparser.add_argument('--rate', type=float, default=0.1)\n\
                task = Task.init(project_name='project', task_name='task', auto_connect_frameworks=False)\n\
                arguments = parser.parse_args()\nprint('out: rate', arguments.rate, flush=True)\n\
                task.get_logger().report_scalar('loss', 'train', value=arguments.rate, iteration=1)\n";
    let mut spec = TaskSpec::script(code).requirements(SDK);
    spec.hyperparams = Some(json!({"Args": {"rate": {"section": "Args", "name": "rate", "value": "0.1"}}}));
    let task = scene.submit("uses the SDK", &spec);
    let change = json!([{"section": "Args", "name": "rate", "value": "0.75"}]);
    scene
        .api
        .call(
            "tasks.edit_hyper_params",
            json!({"task": task, "hyperparams": change, "force": true}),
        )
        .unwrap();
    let _daemon = scene.daemon();
    let ended = scene.ended_within(&task, LONG_LIMIT);
    ended.assert_status("completed");
    assert_eq!(ended.output(), ["out: rate 0.75"]);
    let scalars = scene.api.scalars(&task).unwrap();
    let loss = scalars
        .iter()
        .find(|scalar| scalar.metric == "loss" && scalar.variant == "train")
        .unwrap();
    assert_eq!(loss.points, [(1.0, 0.75)]);
}

#[test]
fn the_official_python_agent_completes_a_task_of_the_embedded_server() {
    let test = "the_official_python_agent_completes_a_task_of_the_embedded_server";
    let scene = Scene::new();
    let Some(daemon) = python_daemon(test, &scene) else {
        return;
    };
    let task = scene.submit(
        "for the Python agent",
        &TaskSpec::script("print('out: from python')"),
    );
    let ended = scene.ended_within(&task, LONG_LIMIT);
    ended.assert_status("completed");
    assert!(
        ended.console.contains("out: from python"),
        "{}\n{}",
        ended.console,
        daemon.output()
    );
    drop(daemon);
}

/// The official agent serving the queue of a scene.
fn python_daemon(test: &str, scene: &Scene) -> Option<Agent> {
    let python = environment_or_skip(test, "agent", &["clearml-agent==3.0.3"])?;
    let options = AgentOptions {
        executable: python.program("clearml-agent"),
        ..scene.options()
    };
    Some(Agent::daemon(&options, QUEUE).unwrap())
}

#[test]
fn the_official_python_agent_completes_a_repository_task_with_packages() {
    let test = "the_official_python_agent_completes_a_repository_task_with_packages";
    let scene = Scene::new();
    let Some(daemon) = python_daemon(test, &scene) else {
        return;
    };
    let main = "import six\nimport helper\nprint('out:', helper.WORD, six.__version__, flush=True)\n";
    let files = [("main.py", main), ("helper.py", "WORD = 'committed'\n")];
    let (url, commit) = scene.bare_repository("project", &files);
    let spec = TaskSpec::repository(&url, &commit, "main.py").requirements("six==1.17.0\n");
    let task = scene.submit("repository for the Python agent", &spec);
    let ended = scene.ended_within(&task, LONG_LIMIT);
    ended.assert_status("completed");
    assert_eq!(ended.reason(), "worker execution done");
    assert!(
        ended.console.contains("out: committed 1.17.0"),
        "{}\n{}",
        ended.console,
        daemon.output()
    );
    // What was installed is written back through the server, beside what was asked for.
    let requirements = &ended.task["script"]["requirements"];
    assert_eq!(requirements["org_pip"], "six==1.17.0\n");
    assert!(
        requirements["pip"].to_string().contains("six==1.17.0"),
        "{requirements}"
    );
}

#[test]
fn the_official_python_agent_reports_failures_and_obeys_aborts() {
    let test = "the_official_python_agent_reports_failures_and_obeys_aborts";
    let scene = Scene::new();
    let Some(daemon) = python_daemon(test, &scene) else {
        return;
    };
    let failing = scene.submit("fails", &TaskSpec::script("raise SystemExit(3)"));
    let code = "import time\nprint('out: started', flush=True)\ntime.sleep(1000)\n";
    let endless = scene.submit("endless", &TaskSpec::script(code));
    let ended = scene.ended_within(&failing, LONG_LIMIT);
    ended.assert_status("failed");
    assert_eq!(
        ended.reason(),
        "worker execution exit code 3",
        "{}",
        daemon.output()
    );

    wait_for("the first line", LONG_LIMIT, Duration::from_millis(100), || {
        Ok(scene
            .api
            .console(&endless)?
            .contains("out: started")
            .then_some(()))
    })
    .unwrap();
    scene.api.call("tasks.stop", json!({"task": endless})).unwrap();
    let ended = scene.ended_within(&endless, LONG_LIMIT);
    ended.assert_status("stopped");
    assert_eq!(ended.reason(), "task was stopped by tasks.stop");
}

#[test]
fn the_server_stops_gracefully_and_keeps_its_data() {
    let mut scene = Scene::new();
    let task = scene.submit("kept", &TaskSpec::script("print(1)"));
    assert!(
        scene.server.stop().unwrap().success(),
        "{}",
        scene.server.output()
    );
    scene.server.start_again().unwrap();
    assert_eq!(scene.api.status(&task).unwrap(), "queued");
    assert!(
        scene.server.output().contains("CLEARML_CONFIG_FILE"),
        "{}",
        scene.server.output()
    );
}

#[test]
fn the_version_is_one_line() {
    let (code, stdout, stderr) = finish({
        let mut command = std::process::Command::new(AGENT);
        command.arg("--version");
        command
    });
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(
        stdout,
        format!("CLEARML-AGENT version {}\n", env!("CARGO_PKG_VERSION"))
    );
}
