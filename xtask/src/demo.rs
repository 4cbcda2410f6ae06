//! `cargo xtask demo`: one task on its whole way, with nothing prepared.
//!
//! The official SDK records a run of `fixtures/demo-project` and puts it into a queue of the embedded server;
//! its hyperparameters are changed there; then the agent comes, and its console is shown as the server gets it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use clearml_task_runner::RunStore;
use serde_json::{Value, json};

use crate::terminal::{bold, dim, duration, green, note, red, step};
use crate::workbench::{Agent, AgentOptions, Api, LocalServer, PythonEnvironment, Scalar};
use crate::workspace;

const QUEUE: &str = "demo";

/// How long the task may take: its environment is built from the package index.
const LIMIT: Duration = Duration::from_secs(900);

/// The hyperparameters that are changed after the task was put into the queue.
const OVERRIDES: &[(&str, &str)] = &[("steps", "12"), ("learning-rate", "0.25")];

/// Runs the demonstration.
///
/// # Errors
///
/// When anything on the way does not work; everything that was started is stopped then as well.
pub fn run() -> Result<()> {
    let started = Instant::now();
    let scratch = workspace::target().join("demo");
    if scratch.exists() {
        fs::remove_dir_all(&scratch).with_context(|| format!("clearing {}", scratch.display()))?;
    }
    fs::create_dir_all(scratch.join("home"))?;

    step("Building the agent");
    let executable = workspace::build_agent(false)?;
    step("Installing the official ClearML SDK into a virtual environment (the first time takes a minute)");
    let requirements = fs::read_to_string(fixture().join("requirements.txt"))?;
    let packages: Vec<_> = requirements
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let sdk = PythonEnvironment::get("demo-sdk", &packages)?;
    note(&packages.join(", "));

    step("Starting the embedded server");
    let mut server = LocalServer::start(&executable, &scratch.join("server"))?;
    let api = server.api()?;
    api.create_queue(QUEUE)?;
    note(&format!(
        "its client configuration is {}; queue {QUEUE:?} created",
        server.config().display()
    ));

    step("Making a project: a git repository, and a change that is not committed");
    let project = make_project(&scratch)?;
    note(&format!("{}", project.display()));

    step("Letting the SDK put the project into the queue");
    let (task, enqueued) = enqueue(&sdk, &scratch, &server, &project, &api)?;
    step("Changing hyperparameters on the server");
    override_hyperparameters(&api, &task)?;

    step("Starting the agent; from here on, this is the console as the server has it");
    let state = scratch.join("state");
    let options = AgentOptions::new(&executable, &scratch, &server.config())
        .variable("CLEARML_AGENT_STATE_DIR", state.to_string_lossy());
    let mut agent = Agent::daemon(&options, QUEUE)?;
    let ended = follow(&api, &task, &mut agent)?;

    step("Timeline");
    print_timeline(&state, &task, enqueued)?;
    step("Scalars that the task has reported");
    print_scalars(&api, &task)?;
    let console = api.console(&task)?;

    step("Stopping everything");
    agent.stop()?;
    let left = agent.mark().processes();
    ensure!(left.is_empty(), "the agent left processes behind: {left:?}");
    server.stop()?;
    judge(&ended, &console)?;
    println!(
        "{} in {}",
        green("The task has completed"),
        duration(started.elapsed())
    );
    Ok(())
}

fn fixture() -> PathBuf {
    workspace::root().join("fixtures/demo-project")
}

/// Commits the fixture to a repository with a remote, and changes a file without committing it.
fn make_project(scratch: &Path) -> Result<PathBuf> {
    let (origin, project) = (scratch.join("origin.git"), scratch.join("project"));
    fs::create_dir_all(&project)?;
    for name in ["train.py", "requirements.txt", "README.md"] {
        fs::copy(fixture().join(name), project.join(name)).with_context(|| format!("copying {name}"))?;
    }
    let url = format!("file://{}", origin.display());
    git(
        scratch,
        &["init", "--quiet", "--bare", "--initial-branch=main", "origin.git"],
    )?;
    git(&project, &["init", "--quiet", "--initial-branch=main"])?;
    git(&project, &["add", "--all"])?;
    let identity = ["-c", "user.name=demo", "-c", "user.email=demo@example.com"];
    git(
        &project,
        &[
            &identity[..],
            &["commit", "--quiet", "--message", "Train one number"],
        ]
        .concat(),
    )?;
    git(&project, &["remote", "add", "origin", &url])?;
    git(&project, &["push", "--quiet", "--set-upstream", "origin", "main"])?;
    let change = fixture().join("uncommitted.diff");
    git(&project, &["apply", &change.to_string_lossy()])?;
    Ok(project)
}

fn git(folder: &Path, arguments: &[&str]) -> Result<()> {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .context("starting git; is it installed?")?;
    ensure!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Runs the project by hand, which hands it over to the queue. Returns the task and the time of that.
fn enqueue(
    sdk: &PythonEnvironment,
    scratch: &Path,
    server: &LocalServer,
    project: &Path,
    api: &Api,
) -> Result<(String, Duration)> {
    let output = sdk
        .command(&scratch.join("home"), &server.config())
        .args([
            "train.py",
            "--steps",
            "3",
            "--learning-rate",
            "0.05",
            "--queue",
            QUEUE,
        ])
        .current_dir(project)
        .output()
        .context("starting the project")?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    ensure!(
        output.status.success(),
        "the SDK could not put the task into the queue ({}):\n{text}",
        output.status
    );
    let queues = api.call("queues.get_all", json!({"name": format!("^{QUEUE}$")}))?;
    let queue = queues["queues"][0]["id"].as_str().context("the queue is gone")?;
    let Some(task) = api.waiting(queue)?.pop() else {
        bail!("the queue is empty; the SDK said:\n{text}")
    };
    let document = api.task(&task)?;
    note(&format!(
        "task {task} {:?}",
        document["name"].as_str().unwrap_or_default()
    ));
    let script = &document["script"];
    note(&format!(
        "commit {} of {}, {} lines of uncommitted changes",
        script["version_num"].as_str().unwrap_or("?"),
        script["repository"].as_str().unwrap_or("?"),
        script["diff"].as_str().unwrap_or_default().lines().count()
    ));
    Ok((task, UNIX_EPOCH.elapsed()?))
}

fn override_hyperparameters(api: &Api, task: &str) -> Result<()> {
    let before = api.task(task)?;
    let mut changes = Vec::new();
    for (name, value) in OVERRIDES {
        // argparse turns a dash into an underscore in the name that it stores.
        let name = name.replace('-', "_");
        let old = before["hyperparams"]["Args"][&name]["value"]
            .as_str()
            .unwrap_or("?");
        note(&format!("Args/{name}: {old} -> {value}"));
        changes.push(json!({"section": "Args", "name": name, "value": value}));
    }
    api.call(
        "tasks.edit_hyper_params",
        json!({"task": task, "hyperparams": changes, "force": true}),
    )?;
    Ok(())
}

/// Shows the console until the task has ended, and returns the task.
fn follow(api: &Api, task: &str, agent: &mut Agent) -> Result<Value> {
    let started = Instant::now();
    let mut seen = None;
    let mut ended = None;
    loop {
        let (events, last) = api.console_after(task, seen)?;
        let quiet = events.is_empty();
        seen = last;
        for line in events
            .iter()
            .filter_map(|event| event["msg"].as_str())
            .flat_map(str::lines)
        {
            println!("    {} {line}", dim("|"));
        }
        std::io::stdout().flush()?;
        if let (Some(document), true) = (ended.take(), quiet) {
            return Ok(document);
        }
        if let Some(status) = agent.ended()? {
            bail!("the agent ended with {status}:\n{}", agent.output());
        }
        ensure!(
            started.elapsed() < LIMIT,
            "the task has not ended in time; the agent said:\n{}",
            agent.output()
        );
        let document = api.task(task)?;
        // One more look at the console after the end, because the last lines come just before it.
        let open = ["created", "queued", "in_progress"];
        if !document["status"]
            .as_str()
            .is_some_and(|status| open.contains(&status))
        {
            ended = Some(document);
        }
        std::thread::sleep(Duration::from_millis(150));
    }
}

fn print_timeline(state: &Path, task: &str, enqueued: Duration) -> Result<()> {
    let mut found = None;
    for run in RunStore::open(state)?.list()? {
        let record = run.record()?;
        if record.identity.task.as_str() == task {
            found = Some((record.created_ms, run.timeline()?.marks));
        }
    }
    // The record is made right before the task is taken from the queue.
    let (pulled, marks) = found.context("the agent kept no record of the run")?;
    let length = |name: &str| {
        let mark = marks.iter().find(|mark| mark.name == name);
        mark.and_then(|mark| mark.duration_ms)
            .with_context(|| format!("the run has no {name}: {marks:?}"))
    };
    // What the agent calls the environment begins with the code.
    let rows = [
        (
            "waited in the queue",
            pulled - i64::try_from(enqueued.as_millis())?,
        ),
        ("code cloned, change applied", length("clone")?),
        ("environment built", length("environment")? - length("clone")?),
        ("run", length("run")?),
    ];
    let longest = rows.iter().map(|(_, length)| *length).max().unwrap_or(1).max(1);
    for (text, length) in rows {
        let length = u64::try_from(length).unwrap_or(0);
        let width = usize::try_from(length * 40 / longest.unsigned_abs()).unwrap_or(0);
        note(&format!(
            "{text:<28} {:>10}  {}",
            duration(Duration::from_millis(length)),
            "#".repeat(width)
        ));
    }
    Ok(())
}

fn print_scalars(api: &Api, task: &str) -> Result<()> {
    let scalars = api.scalars(task)?;
    ensure!(!scalars.is_empty(), "the task has reported no scalars");
    for Scalar {
        metric,
        variant,
        points,
    } in scalars
    {
        let (Some((_, first)), Some((x, last))) = (points.first(), points.last()) else {
            continue;
        };
        note(&format!(
            "{metric:<14} {variant:<8} {first:>10.4} -> {last:>10.4}  ({} points, up to {x})",
            points.len()
        ));
    }
    let single = api.call("events.get_task_single_value_metrics", json!({"tasks": [task]}))?;
    for value in single["tasks"][0]["values"].as_array().into_iter().flatten() {
        let name = value["variant"].as_str().unwrap_or_default();
        note(&bold(&format!(
            "{name:<23} {:>10.4}",
            value["value"].as_f64().unwrap_or(f64::NAN)
        )));
    }
    Ok(())
}

/// Everything that the demonstration claims, looked up in what the server has.
fn judge(ended: &Value, console: &str) -> Result<()> {
    let status = ended["status"].as_str().unwrap_or_default();
    let reason = ended["status_reason"].as_str().unwrap_or_default();
    ensure!(
        status == "completed",
        "{}: {status} ({reason})",
        red("the task has not completed")
    );
    for wanted in ["plus an uncommitted change", "steps=12 learning_rate=0.25"] {
        ensure!(console.contains(wanted), "the console does not show {wanted:?}");
    }
    Ok(())
}
