//! What the options of `daemon` and `execute` do, and where the output goes.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::scene::{AGENT, LIMIT, QUEUE, Scene, environment_or_skip, finish};
use rustix::process::Signal;
use serde_json::{Value, json};
use xtask::workbench::{Agent, AgentOptions, TaskSpec, wait_for};

/// Prints what the environment of a task says.
const SHOW: &str = "import os, sys\n\
    names = ['NVIDIA_VISIBLE_DEVICES', 'CUDA_VISIBLE_DEVICES', 'CUDA_DEVICE_ORDER', 'CLEARML_LOG_LEVEL',\n\
    'TRAINS_LOG_LEVEL', 'CLEARML_WORKER_TAGS', 'CLEARML_WORKER_ID']\n\
    for name in names: print('out:', name, os.environ.get(name), flush=True)\n\
    print('out: optimize', sys.flags.optimize)\n";

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    wait_for(what, LIMIT, Duration::from_millis(50), || Ok(look())).unwrap()
}

fn workers(scene: &Scene) -> Vec<Value> {
    let reply = scene.api.call("workers.get_all", json!({})).unwrap();
    reply["workers"].as_array().cloned().unwrap_or_default()
}

fn worker_ids(scene: &Scene) -> Vec<String> {
    let workers = workers(scene);
    let ids = workers.iter().filter_map(|worker| worker["id"].as_str());
    ids.map(str::to_owned).collect()
}

/// The folder that agents of the scene have for temporary files, and with it a register of their own.
fn temporary(scene: &Scene) -> PathBuf {
    let folder = scene.folder.path().join("tmp");
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn options(scene: &Scene) -> AgentOptions {
    let folder = temporary(scene);
    scene.options().variable("TMPDIR", folder.to_str().unwrap())
}

fn files_named(folder: &Path, part: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().contains(part))
        })
        .collect()
}

#[test]
fn options_reach_the_task_and_name_the_worker() {
    let scene = Scene::new();
    let arguments = "daemon --foregr --gpus 0, 2-3 --log-l debug -O --child-report-tags fast --child two words \
                     --polling-interval -3 --check-bootstrap --queue nowhere --queue work";
    let words: Vec<&str> = arguments.split_whitespace().collect();
    let without_cuda = options(&scene).variable("CUDA_VERSION", "0");
    let daemon = Agent::start(&without_cuda, &words).unwrap();
    let ended = scene.run("shows itself", &TaskSpec::script(SHOW));
    ended.assert_status("completed");
    let expected = [
        "out: NVIDIA_VISIBLE_DEVICES 0,2,3",
        "out: CUDA_VISIBLE_DEVICES 0,2,3",
        "out: CUDA_DEVICE_ORDER PCI_BUS_ID",
        "out: CLEARML_LOG_LEVEL DEBUG",
        "out: TRAINS_LOG_LEVEL DEBUG",
        "out: CLEARML_WORKER_TAGS two words",
        "out: CLEARML_WORKER_ID tester:gpu0,2,3",
        "out: optimize 1",
    ];
    assert_eq!(ended.output(), expected, "{}", daemon.output());
    let worker = &workers(&scene)[0];
    assert_eq!(
        (&worker["id"], &worker["tags"]),
        (&json!("tester:gpu0,2,3"), &json!(["two", "words"]))
    );
    let printed = daemon.output();
    assert!(
        printed.contains("Current configuration (clearml_agent v"),
        "{printed}"
    );
    assert!(
        printed.contains("Worker \"tester:gpu0,2,3\" - Listening to queues:\n+-"),
        "{printed}"
    );
    assert!(printed.contains("| name"), "{printed}");
    assert!(
        printed.contains("Warning: GPUs are wanted (--gpus), but no CUDA"),
        "{printed}"
    );
    assert_eq!(printed.matches("no bootstrap package").count(), 1, "{printed}");
}

#[test]
fn a_worker_without_gpus_says_so_to_its_tasks() {
    let scene = Scene::new();
    let visible = options(&scene).variable("NVIDIA_VISIBLE_DEVICES", "1");
    let _first = Agent::start(
        &visible,
        &["daemon", "--queue", QUEUE, "--foreground", "--cpu-only"],
    )
    .unwrap();
    until("the first", || {
        worker_ids(&scene)
            .contains(&"tester:cpu:0".to_owned())
            .then_some(())
    });
    let ended = scene.run("shows itself", &TaskSpec::script(SHOW));
    assert_eq!(
        ended.output()[..2],
        [
            "out: NVIDIA_VISIBLE_DEVICES none",
            "out: CUDA_VISIBLE_DEVICES none"
        ]
    );
    // The second has a folder of its own, and the third is already there.
    let second = Agent::start(
        &options(&scene).variable("CLEARML_CPU_ONLY", "1"),
        &["daemon", "--queue", QUEUE, "--foreground"],
    )
    .unwrap();
    until("the second", || {
        worker_ids(&scene)
            .contains(&"tester:cpu:1".to_owned())
            .then_some(())
    });
    assert!(
        second.output().contains("venvs-builds.1\n"),
        "{}",
        second.output()
    );
    let taken = options(&scene).variable("CLEARML_WORKER_ID", "tester:cpu:1");
    let (code, stdout, _) = finish(taken.command(&["daemon", "--queue", QUEUE, "--foreground"]));
    assert_eq!(code, 1);
    assert!(
        stdout.contains("WORKER_ID [tester:cpu:1] is already running"),
        "{stdout}"
    );
}

#[test]
fn queues_rest_outside_of_working_hours_unless_they_are_forced() {
    let scene = Scene::new();
    let forced = scene.api.create_queue("forced").unwrap();
    scene
        .api
        .call(
            "queues.update",
            json!({"queue": forced, "tags": ["force_workers:on"]}),
        )
        .unwrap();
    let script = TaskSpec::script("print('out: done')");
    let resting = scene.submit("rests", &script);
    let never = ["--downtime", "00-24 SUN-SAT"];
    let arguments = [
        &["daemon", "--queue", QUEUE, "forced", "--foreground"],
        &never[..],
    ]
    .concat();
    let daemon = Agent::start(&options(&scene), &arguments).unwrap();
    let task = scene.api.submit("forced", &script, &forced).unwrap();
    scene.ended(&task).assert_status("completed");
    assert_eq!(
        scene.api.status(&resting).unwrap(),
        "queued",
        "{}",
        daemon.output()
    );
    scene
        .api
        .call(
            "queues.update",
            json!({"queue": scene.queue, "tags": ["force_workers:on"]}),
        )
        .unwrap();
    scene.ended(&resting).assert_status("completed");

    let (code, stdout, stderr) = finish(options(&scene).command(&[&arguments[..], &["--status"]].concat()));
    assert_eq!(code, 0, "{stderr}");
    let status = stdout.lines().collect::<Vec<_>>().join("\n");
    for line in [
        "Working hours downtime configurations\n  - 00:00-23:59 on SUN and MON and TUE and WED and THU and FRI and SAT",
        "Currently forced ON",
        "  - Listening to queue 'forced' (tagged 'force_workers:on')",
    ] {
        assert!(status.contains(line), "{status}");
    }
    let both = [&arguments[..], &["--uptime", "8-9 MON", "--status"]].concat();
    let (code, stdout, _) = finish(options(&scene).command(&both));
    assert_eq!(code, 0);
    assert!(
        stdout.contains("clearml_agent: Warning: both uptime and downtime"),
        "{stdout}"
    );
    assert!(
        stdout.contains("No uptime/downtime configurations found"),
        "{stdout}"
    );
}

#[test]
fn a_property_of_the_worker_overrides_its_working_hours() {
    let scene = Scene::new();
    let force = |value: &str| {
        let property = json!([{"key": "force", "value": value, "expiry": 3600}]);
        let body = json!({"worker": "mine", "runtime_properties": property});
        scene.api.call("workers.set_runtime_properties", body).unwrap();
    };
    let task = scene.submit("forced", &TaskSpec::script("print('out: done')"));
    let mine = options(&scene).variable("CLEARML_WORKER_ID", "mine");
    let arguments = [
        "daemon",
        "--queue",
        QUEUE,
        "--foreground",
        "--uptime",
        "0-24 SUN-SAT",
    ];
    force("OFF");
    let daemon = Agent::start(&mine, &arguments).unwrap();
    until("a rest", || {
        daemon.output().contains(" rests from now on").then_some(())
    });
    assert_eq!(scene.api.status(&task).unwrap(), "queued");
    let (code, stdout, _) = finish(mine.command(&[&arguments[..], &["--status"]].concat()));
    assert_eq!(code, 0);
    let lines = "Currently forced OFF\n  - Server runtime property 'force: off' expires at ";
    assert!(stdout.contains(lines), "{stdout}");
    force("on");
    scene.ended(&task).assert_status("completed");
}

#[test]
fn a_configuration_that_is_changed_reaches_the_next_task_if_wanted() {
    let scene = Scene::new();
    let file = scene.folder.path().join("mine.conf");
    let server = fs::read_to_string(scene.server.config()).unwrap();
    let write = |word: &str| {
        let own = format!("{server}\nagent {{ reload_config: true }}\nenvironment {{ WORD: {word} }}\n");
        fs::write(&file, own).unwrap();
    };
    let shows = TaskSpec::script("import os\nprint('out:', os.environ['WORD'])\n");
    write("first");
    let own = AgentOptions {
        config: file.clone(),
        ..options(&scene)
    };
    let _daemon = Agent::daemon(&own, QUEUE).unwrap();
    assert_eq!(scene.run("before", &shows).output(), ["out: first"]);
    write("second");
    assert_eq!(scene.run("after", &shows).output(), ["out: second"]);
    // What can't be read is left alone.
    fs::write(&file, "agent {").unwrap();
    assert_eq!(scene.run("broken", &shows).output(), ["out: second"]);
}

#[test]
fn without_foreground_the_output_goes_to_a_file_that_goes_with_the_daemon() {
    let scene = Scene::new();
    for debug in [false, true] {
        let arguments: &[&str] = if debug {
            &["--debug", "daemon", "--queue", QUEUE]
        } else {
            &["daemon", "--queue", QUEUE]
        };
        let mut daemon = Agent::start(&options(&scene), arguments).unwrap();
        scene.good_task_completes();
        let log = until("the log", || {
            files_named(&temporary(&scene), ".clearml_agent_daemon_out").pop()
        });
        let text = fs::read_to_string(&log).unwrap();
        assert!(
            text.contains("Starting infinite task polling loop...") && text.contains("Running task '"),
            "{text}"
        );
        let shown = daemon.output();
        let announced = format!(
            "Running CLEARML-AGENT daemon in background mode, writing stdout/stderr to {}",
            log.display()
        );
        assert!(
            shown.contains(&announced) && !shown.contains("Running task '"),
            "{shown}"
        );
        assert_eq!(daemon.stop().unwrap().code(), Some(254));
        assert_eq!(log.exists(), debug);
    }
}

#[test]
fn a_detached_daemon_serves_on_its_own_until_it_is_stopped() {
    let scene = Scene::new();
    let begun = Instant::now();
    let mut starter = Agent::start(&options(&scene), &["daemon", "-d", "--queue", QUEUE]).unwrap();
    let status = starter.wait(LIMIT).unwrap();
    assert_eq!(status.code(), Some(0), "{}", starter.output());
    assert!(begun.elapsed() < LIMIT);
    let shown = starter.output();
    assert!(
        shown.contains("daemon in background mode") && !shown.contains("polling loop"),
        "{shown}"
    );
    scene.good_task_completes();
    let log = files_named(&temporary(&scene), ".clearml_agent_daemon_out")
        .pop()
        .unwrap();
    assert!(fs::read_to_string(&log).unwrap().contains("Running task '"));
    // Its entry in the register has its own pid.
    let entry = files_named(&temporary(&scene), ".tmp").pop().unwrap();
    assert_eq!(fs::read_to_string(&entry).unwrap(), "tester:0\n0");
    // No server is needed for that, and no queue.
    let alone = options(&scene).variable("CLEARML_API_HOST", "http://127.0.0.1:1");
    let (code, stdout, _) = finish(alone.command(&["daemon", "--queue", "any", "--stop"]));
    assert_eq!(code, 0, "{stdout}");
    let pid = entry
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .split('_')
        .nth(1)
        .unwrap()
        .to_owned();
    assert_eq!(
        stdout,
        format!("Terminating clearml-agent worker_id=tester:0 pid={pid}\n")
    );
    assert!(!entry.exists() && !log.exists());
    assert_eq!(worker_ids(&scene), [""; 0]);
    let (code, stdout, _) = finish(options(&scene).command(&["daemon", "--stop"]));
    assert_eq!(code, 1);
    assert_eq!(
        stdout,
        "Could not find a running clearml-agent instance with worker_name=tester worker_id=None\n"
    );
}

#[test]
fn a_detached_daemon_waits_for_a_server_that_is_not_up_yet() {
    let scene = Scene::new();
    let options = options(&scene)
        .variable("CLEARML_API_HOST", "http://127.0.0.1:1")
        .variable("CLEARML_AGENT__API__HTTP__RETRIES__BACKOFF_FACTOR", "0.2");
    let mut starter = Agent::start(&options, &["daemon", "--detached", "--queue", QUEUE]).unwrap();
    until("the daemon waits", || {
        starter.output().contains("waiting for the server").then_some(())
    });
    assert_eq!(starter.ended().unwrap(), None, "so does who started it");
    starter.signal(Signal::TERM);
    assert_eq!(starter.wait(LIMIT).unwrap().code(), Some(254));
}

#[test]
fn a_daemon_is_stopped_under_whatever_name_its_program_was_installed() {
    let scene = Scene::new();
    let mut command = options(&scene).command(&["daemon", "--queue", QUEUE, "--foreground"]);
    let mut daemon = command.arg0("worker").stdout(Stdio::null()).spawn().unwrap();
    until("the registration", || {
        (worker_ids(&scene) == ["tester:0"]).then_some(())
    });
    let (code, stdout, _) = finish(options(&scene).command(&["daemon", "--stop"]));
    if code != 0 {
        daemon.kill().unwrap();
    }
    assert_eq!(code, 0, "{stdout}");
    assert_eq!(daemon.wait().unwrap().code(), Some(254));
}

#[test]
fn a_detached_daemon_that_cannot_start_says_so_at_once() {
    let scene = Scene::new();
    let wrong = scene
        .options()
        .variable("CLEARML_API_ACCESS_KEY", "SOMEBODY")
        .variable("CLEARML_API_SECRET_KEY", "x");
    let nowhere = scene
        .options()
        .variable("CLEARML_API_HOST", "http://127.0.0.1:1")
        .variable("CLEARML_AGENT_INITIAL_CONNECT_RETRY_OVERRIDE", "1");
    let blank = options(&scene).variable("CLEARML_AGENT__AGENT__VENVS_DIR", "/tmp/two words");
    let first = Agent::daemon(&options(&scene).variable("CLEARML_WORKER_ID", "mine"), QUEUE).unwrap();
    until("the first", || {
        first.output().contains("Listening to queues").then_some(())
    });
    let same = options(&scene).variable("CLEARML_WORKER_ID", "mine");
    for (options, queue, wanted) in [
        (wrong, QUEUE, "credentials"),
        (nowhere, QUEUE, "http://127.0.0.1:1"),
        (blank, QUEUE, "Invalid config key \"agent.venvs_dir\""),
        (same, QUEUE, "WORKER_ID [mine] is already running"),
        (options(&scene), "no such queue", "no such queue"),
    ] {
        let (code, stdout, stderr) = finish(options.command(&["daemon", "--detached", "--queue", queue]));
        assert_eq!(code, 1, "{stdout}{stderr}");
        assert!(
            stdout.contains("clearml_agent: ERROR: ") && stdout.contains(wanted),
            "{stdout}{stderr}"
        );
    }
    assert!(files_named(&temporary(&scene), ".clearml_agent_daemon_out").is_empty());
}

#[test]
fn a_daemon_is_not_started_in_a_folder_that_is_gone() {
    let scene = Scene::new();
    let folder = scene.folder.path().join("gone");
    fs::create_dir(&folder).unwrap();
    let mut command = std::process::Command::new("sh");
    let script = format!(
        "rmdir '{}' && exec '{AGENT}' daemon --queue {QUEUE} --foreground",
        folder.display()
    );
    command
        .args(["-c", &script])
        .current_dir(&folder)
        .env("HOME", scene.folder.path())
        .env("CLEARML_CONFIG_FILE", scene.server.config());
    let (code, stdout, _) = finish(command);
    assert_eq!(code, 1);
    assert!(
        stdout.contains("current working directory does not exist"),
        "{stdout}"
    );
}

#[test]
fn both_kinds_of_agents_share_the_register_and_stop_each_other() {
    let test = "both_kinds_of_agents_share_the_register_and_stop_each_other";
    let Some(python) = environment_or_skip(test, "agent", &["clearml-agent==3.0.3"]) else {
        return;
    };
    let scene = Scene::new();
    let theirs = AgentOptions {
        executable: python.program("clearml-agent"),
        ..options(&scene)
    };
    let start = |options: &AgentOptions, wanted: &str| {
        let daemon = Agent::daemon(options, QUEUE).unwrap();
        until(wanted, || {
            worker_ids(&scene).contains(&wanted.to_owned()).then_some(())
        });
        daemon
    };
    let mut their_first = start(&theirs, "tester:0");
    let mut our_first = start(&options(&scene), "tester:1");
    let _their_second = start(&theirs, "tester:2");
    let mut our_second = start(&options(&scene), "tester:3");

    let (code, stdout, _) = finish(options(&scene).command(&["daemon", "--stop"]));
    assert_eq!(code, 0, "{stdout}");
    let expected = format!("worker_id=tester:0 pid={}", their_first.pid().unwrap());
    assert!(stdout.contains(&expected), "the first in order: {stdout}");
    their_first.wait(LIMIT).unwrap();

    for (arguments, daemon, id) in [
        (&["daemon", "--stop"][..], &mut our_first, "tester:1"),
        (&["daemon", "--stop", "tester:3"], &mut our_second, "tester:3"),
    ] {
        let (code, stdout, stderr) = finish(theirs.command(arguments));
        assert_eq!(code, 0, "{stdout}{stderr}");
        assert!(
            stdout.contains(&format!("worker_id={id} pid={}", daemon.pid().unwrap())),
            "{stdout}"
        );
        assert_eq!(daemon.wait(LIMIT).unwrap().code(), Some(254));
    }
    let (code, stdout, _) = finish(options(&scene).command(&["daemon", "--stop", "nobody", "tester:2"]));
    assert_eq!(code, 1, "{stdout}");
    assert!(
        stdout.contains("worker_id=nobody\n") && stdout.contains("worker_id=tester:2 pid="),
        "{stdout}"
    );
}

#[test]
fn execute_clones_keeps_its_log_and_takes_a_slot_of_its_own() {
    let scene = Scene::new();
    let task = scene
        .api
        .create_task("original", &TaskSpec::script(SHOW))
        .unwrap();
    let log = scene.folder.path().join("kept.log");
    let arguments = [
        "execute",
        "--id",
        "original",
        "--clone",
        "--log-file",
        log.to_str().unwrap(),
        "--cpu-only",
    ];
    let (code, stdout, stderr) = finish(options(&scene).command(&arguments));
    assert_eq!(code, 0, "{stdout}{stderr}");
    let copy = stdout
        .lines()
        .find_map(|line| line.strip_prefix("Task cloned, new task id="))
        .unwrap_or_else(|| panic!("{stdout}"));
    scene.ended(copy).assert_status("completed");
    assert_eq!(scene.api.task(copy).unwrap()["name"], "Clone of original");
    assert_eq!(scene.api.status(&task).unwrap(), "created");
    let kept = fs::read_to_string(&log).unwrap();
    assert!(kept.contains("out: NVIDIA_VISIBLE_DEVICES none"), "{kept}");
    assert!(
        stdout.contains("Current configuration (clearml_agent v"),
        "{stdout}"
    );

    // Alone it is named by its process, in place of a daemon by GPUs or slot.
    let id = |arguments: &[&str], options: AgentOptions| {
        let (code, stdout, stderr) =
            finish(options.command(&[&["execute", "--id", &task], arguments].concat()));
        assert_eq!(code, 0, "{stdout}{stderr}");
        let ended = scene.ended(&task);
        ended.task["last_worker"].as_str().unwrap().to_owned()
    };
    let alone = id(&[], options(&scene));
    assert!(
        alone.starts_with("tester:") && alone.len() > "tester:0".len(),
        "{alone}"
    );
    assert_eq!(id(&["--full-monitoring"], options(&scene)), "tester:0");
    assert_eq!(
        id(&["--full-monitoring", "--gpus", "1"], options(&scene)),
        "tester:gpu1"
    );
    let configured = || options(&scene).variable("CLEARML_AGENT__AGENT__WORKER_ID", "mine");
    assert_eq!(id(&["--full-monitoring"], configured()), "mine");
    let emptied = configured().variable("CLEARML_WORKER_ID", "");
    assert_eq!(id(&["--full-monitoring"], emptied), "tester:0");

    let (code, stdout, _) = finish(options(&scene).command(&["execute", "--id", &task, "--require-queue"]));
    assert_eq!(code, 1);
    let wanted = format!("Execution required enqueued task, but task id={task} is not queued.");
    assert!(stdout.contains(&wanted), "{stdout}");
}
