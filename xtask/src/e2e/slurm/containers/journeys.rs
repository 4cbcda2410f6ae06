//! The journeys: what becomes of tasks and jobs.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::site::{IMAGE, PULLED, Site};
use crate::workbench::TaskSpec;

/// Said in the console before a task sleeps.
const BEGUN: &str = "has begun";
const SLEEP: &str = "import time; print('has', 'begun', flush=True); time.sleep(600)";
/// The task that the time limit ends is let in before the others.
pub(super) const LIMITED: &str = "the time limit ends a task";

/// One of them.
pub(super) struct Journey {
    pub(super) name: &'static str,
    pub(super) walk: fn(&Site) -> Result<Outcome>,
}

/// How it went.
pub(super) enum Outcome {
    /// As it should; what was seen.
    Seen(String),
    /// The cluster lacks something.
    Skipped(String),
}

/// All but the one with the time limit.
pub(super) const JOURNEYS: [Journey; 10] = [
    Journey {
        name: "--check finds everything in order",
        walk: check,
    },
    Journey {
        name: "native: a task completes, another fails",
        walk: native,
    },
    Journey {
        name: "a job that Slurm refuses",
        walk: refused,
    },
    Journey {
        name: "multi-node: two nodes run one task",
        walk: multi_node,
    },
    Journey {
        name: "abort -> scancel",
        walk: abort,
    },
    Journey {
        name: "scancel -> stopped",
        walk: scancel,
    },
    Journey {
        name: "requeue: the same job runs again",
        walk: requeue,
    },
    Journey {
        name: "kill -9 of the glue",
        walk: killed,
    },
    Journey {
        name: "Apptainer runs the agent in an unpacked image",
        walk: apptainer,
    },
    Journey {
        name: "Apptainer pulls an image from a registry",
        walk: pulled,
    },
];

fn seen(text: impl Into<String>) -> Result<Outcome> {
    Ok(Outcome::Seen(text.into()))
}

fn check(site: &Site) -> Result<Outcome> {
    let text = site.glue(&["--check"])?;
    let line = text.lines().find(|line| line.contains("the cluster is"));
    seen(line.context(text.clone())?.trim().trim_start_matches("ok").trim())
}

fn native(site: &Site) -> Result<Outcome> {
    let code = "import os; print('node', os.uname().nodename)";
    let good = site.submit("native", TaskSpec::script(code), &[], None)?;
    let three = TaskSpec::script("import sys; sys.exit(3)");
    let bad = site.submit("native", three, &[], None)?;
    site.until(&good, "completed", 90)?;
    let job = site.job(&good)?;
    site.until_accounted(&job, "COMPLETED|0:0", 60)?;
    let nodes = site.slurm(&["sinfo", "-h", "-N", "-o", "%N"])?;
    let console = site.api.console(&good)?;
    let node = nodes
        .lines()
        .find(|node| console.contains(&format!("node {node}")));
    let node = node.with_context(|| format!("none of {nodes:?} in {console}"))?;
    let property = site.api.task(&good)?["hyperparams"]["properties"]["slurm-job-id"]["value"].take();
    ensure!(
        property == json!(job),
        "slurm-job-id is {property}, the job is {job}"
    );
    let reason = site.until(&bad, "failed", 90)?;
    ensure!(reason.contains("exit code 3"), "{reason}");
    site.until_accounted(&site.job(&bad)?, "FAILED|3:0", 60)?;
    seen(format!("on {node}; {reason}"))
}

fn refused(site: &Site) -> Result<Outcome> {
    let task = site.submit("native", TaskSpec::script(""), &[("partition", "nowhere")], None)?;
    let reason = site.until(&task, "failed", 60)?;
    ensure!(reason.contains("Slurm rejected the job"), "{reason}");
    seen(reason)
}

fn multi_node(site: &Site) -> Result<Outcome> {
    let code = "import os, time; print('rank', os.environ['RANK'], 'on', os.uname().nodename, flush=True); time.sleep(8)";
    let task = site.submit("native", TaskSpec::script(code), &[("num_nodes", "2")], None)?;
    site.until(&task, "completed", 120)?;
    let job = site.job(&task)?;
    site.until_accounted(&job, "COMPLETED|0:0", 60)?;
    let log = site.file(&format!("logs/task-{task}-{job}.log"))?;
    let node = |rank: u32| {
        let begin = format!("rank {rank} on ");
        let line = log.split_once(&begin).map(|(_, rest)| rest);
        line.and_then(|rest| rest.split_whitespace().next())
            .with_context(|| format!("no {begin:?} in {log}"))
    };
    ensure!(node(0)? != node(1)?, "one node runs both: {log}");
    seen(format!("rank 0 on {}, rank 1 on {}", node(0)?, node(1)?))
}

fn abort(site: &Site) -> Result<Outcome> {
    let waits = site.submit("native", TaskSpec::script(""), &[("begin", "now+1hour")], None)?;
    let runs = site.submit("native", TaskSpec::script(SLEEP), &[], None)?;
    site.until_message(&waits, "PENDING (BeginTime)", 60)?;
    site.api.call("tasks.stop", json!({"task": waits}))?;
    site.until(&waits, "stopped", 5)?;
    site.until_accounted(&site.job(&waits)?, "CANCELLED", 60)?;
    site.until_console(&runs, BEGUN, 90)?;
    let job = site.job(&runs)?;
    site.api.call("tasks.stop", json!({"task": runs}))?;
    site.until(&runs, "stopped", 60)?;
    let state = over(site, &job)?;
    seen(format!(
        "the job that waited is CANCELLED, the one that ran is {state}"
    ))
}

fn scancel(site: &Site) -> Result<Outcome> {
    let waits = site.submit("native", TaskSpec::script(""), &[("begin", "now+1hour")], None)?;
    let runs = site.submit("native", TaskSpec::script(SLEEP), &[], None)?;
    site.until_message(&waits, "PENDING (BeginTime)", 60)?;
    site.slurm(&["scancel", &site.job(&waits)?])?;
    let reason = site.until(&waits, "stopped", 60)?;
    ensure!(reason.contains("cancelled by root"), "{reason}");
    site.until_console(&runs, BEGUN, 90)?;
    let job = site.job(&runs)?;
    site.slurm(&["scancel", &job])?;
    let other = site.until(&runs, "stopped", 90)?;
    site.until_accounted(&job, "CANCELLED", 90)?;
    seen(format!("waiting: {reason}; running: {other}"))
}

fn requeue(site: &Site) -> Result<Outcome> {
    let code = format!(
        "import os\nif os.environ.get('SLURM_RESTART_COUNT'): print('restart', os.environ['SLURM_RESTART_COUNT'])\nelse: exec({SLEEP:?})"
    );
    let task = site.submit("native", TaskSpec::script(&code), &[], None)?;
    site.until_console(&task, BEGUN, 90)?;
    let job = site.job(&task)?;
    // The glue looks every two seconds, and has to have seen that it runs to count a restart.
    std::thread::sleep(Duration::from_secs(5));
    site.slurm(&["scontrol", "requeue", &job])?;
    site.until_message(&task, "restart 1", 90)?;
    ensure!(
        site.api.status(&task)? == "queued",
        "it is {}",
        site.api.status(&task)?
    );
    // Slurm waits two minutes by itself.
    site.slurm(&["scontrol", "update", &format!("JobId={job}"), "StartTime=now"])?;
    site.until(&task, "completed", 180)?;
    site.until_accounted(&job, "COMPLETED|0:0", 60)?;
    ensure!(site.job(&task)? == job, "the job has changed");
    let console = site.api.console(&task)?;
    ensure!(console.contains("restart 1"), "{console}");
    seen(format!("job {job} was queued again, ran again, completed"))
}

fn killed(site: &Site) -> Result<Outcome> {
    let code = "import time; print('has', 'begun', flush=True); time.sleep(5)";
    let task = site.submit("native", TaskSpec::script(code), &[], None)?;
    let waits = site.submit("native", TaskSpec::script("print('later')"), &[], None)?;
    site.job(&task)?;
    site.end_glue("KILL")?;
    site.start_glue()?;
    for task in [&task, &waits] {
        site.until(task, "completed", 120)?;
        let count = site.jobs_of(task)?;
        ensure!(count == 1, "task {task} had {count} jobs");
    }
    seen("each task had one job")
}

fn apptainer(site: &Site) -> Result<Outcome> {
    let Some(version) = site.apptainer() else {
        return Ok(Outcome::Skipped("the nodes have no apptainer".to_owned()));
    };
    site.unpack_image()?;
    let code = "import os; print(open('/etc/image').read().strip(), 'of', os.environ['APPTAINER_CONTAINER'])";
    let task = site.submit("apptainer", TaskSpec::script(code), &[], Some(IMAGE))?;
    let unknown = "docker://127.0.0.1:1/nothing:1";
    let none = site.submit("apptainer", TaskSpec::script(code), &[], Some(unknown))?;
    site.until(&task, "completed", 120)?;
    let console = site.api.console(&task)?;
    ensure!(console.contains(&format!("in the image of {IMAGE}")), "{console}");
    let reason = site.until(&none, "failed", 120)?;
    ensure!(reason.contains("before the task started (exit 255)"), "{reason}");
    let console = site.api.console(&none)?;
    ensure!(console.contains("[slurm] FATAL:"), "{console}");
    seen(format!("{version}; without the image: {reason}"))
}

fn pulled(site: &Site) -> Result<Outcome> {
    if site.apptainer().is_none() {
        return Ok(Outcome::Skipped("the nodes have no apptainer".to_owned()));
    }
    if let Some(lacks) = site.serve_image()? {
        return Ok(Outcome::Skipped(lacks));
    }
    let code = "import platform; print('in', platform.freedesktop_os_release()['VERSION_CODENAME'])";
    let task = site.submit("apptainer", TaskSpec::script(code), &[], Some(PULLED))?;
    site.until(&task, "completed", 300)?;
    let console = site.api.console(&task)?;
    ensure!(console.contains("in bookworm"), "{console}");
    seen(format!("{PULLED}, of {}", crate::engine::IMAGE))
}

/// The official SDK reports from two nodes to one task.
pub(super) fn sdk(site: &Site) -> Result<Outcome> {
    let code = "import os, time
from clearml import Task
import clearml
task = Task.init()
rank = os.environ['RANK']
task.get_logger().report_scalar('node', 'rank ' + rank, value=int(rank) + 1, iteration=0)
print('sdk', clearml.__version__, flush=True)
task.flush(wait_for_uploads=True)
time.sleep(10)
";
    let spec = TaskSpec::script(code).requirements("clearml");
    let task = site.submit("sdk", spec, &[("num_nodes", "2")], None)?;
    site.until(&task, "completed", 400)?;
    let scalars = site.api.scalars(&task)?;
    let variants: Vec<&str> = scalars
        .iter()
        .filter(|scalar| scalar.metric.starts_with("node"))
        .map(|scalar| scalar.variant.as_str())
        .collect();
    for rank in ["rank 0", "rank 1"] {
        ensure!(
            variants.iter().any(|variant| variant.starts_with(rank)),
            "{rank} has reported nothing: {scalars:?}"
        );
    }
    let console = site.api.console(&task)?;
    let version = console
        .split_once("sdk ")
        .and_then(|(_, rest)| rest.split_whitespace().next());
    seen(format!(
        "clearml {}, scalars of {}",
        version.unwrap_or("?"),
        variants.join(" and ")
    ))
}

/// Lets the task in that the time limit will end.
pub(super) fn begin_limited(site: &Site) -> Result<String> {
    site.submit("native", TaskSpec::script(SLEEP), &[("time_limit", "1")], None)
}

/// Waits for its end.
pub(super) fn limited(site: &Site, task: &str) -> Result<Outcome> {
    site.until_accounted(&site.job(task)?, "TIMEOUT", 240)?;
    let (status, reason) = site.end_of(task, 60)?;
    // Slurm asks all processes of the job to end. Where the agent has the time for it, it says so first.
    let expected = [("failed", "time limit"), ("stopped", "received SIGTERM")];
    ensure!(
        expected
            .iter()
            .any(|(is, said)| status == *is && reason.contains(said)),
        "it is {status}: {reason}"
    );
    seen(format!("TIMEOUT; the task is {status}: {reason}"))
}

/// Waits until a job runs no more; gives its state.
fn over(site: &Site, job: &str) -> Result<String> {
    for _ in 0..120 {
        let text = site.slurm(&["sacct", "-n", "-X", "-P", "-j", job, "-o", "State"])?;
        if !text.is_empty() && !["PENDING", "RUNNING", "COMPLETING"].contains(&text.as_str()) {
            return Ok(text);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    bail!("job {job} is not over")
}
