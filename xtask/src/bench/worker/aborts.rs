//! Aborts at all moments of a task's life, and how long the last process lives after one.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::super::measure::{Contestant, settle};
use crate::terminal::note;
use crate::workbench::{Agent, AgentOptions, Api, TaskSpec, wait_for};

const LIMIT: Duration = Duration::from_secs(120);
/// How long a task of the campaign runs if nobody stops it.
const NATURAL: f64 = 0.8;
/// The latest moment of an abort, after the task was put into the queue.
const LATEST_MS: u64 = 2600;
/// Daemons that work at the same time.
const DAEMONS: usize = 4;

struct Victim {
    task: String,
    witness: PathBuf,
    due: Duration,
    /// When the wish was sent and accepted, in seconds since 1970; `None` when it was refused.
    accepted: Option<(f64, f64)>,
}

fn clock() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

/// Aborts so many tasks around preparation and natural end. Returns the number that ended with a status that the
/// order of events does not permit.
pub(super) fn campaign(
    contestant: &Contestant,
    api: &Api,
    (count, seed): (usize, u64),
    run: &Path,
) -> Result<usize> {
    let folder = run.join("witnesses");
    fs::create_dir_all(&folder)?;
    let mut daemons = Vec::new();
    let mut queues = Vec::new();
    for number in 0..DAEMONS {
        let name = format!("{}-abort-{number}", contestant.queue_name);
        queues.push(api.create_queue(&name)?);
        let options = AgentOptions::new(
            &contestant.options.executable,
            &run.join(format!("abort-{number}")),
            &contestant.options.config,
        )
        .variable("CLEARML_WORKER_ID", format!("abort:{number}"))
        .variable("CLEARML_AGENT_QUEUE_POLL_FREQ_SEC", "0.2");
        daemons.push(Agent::daemon(&options, &name)?);
    }
    let mut random = seed;
    let (mut wrong, mut ends) = (0, std::collections::BTreeMap::<String, usize>::new());
    let mut done = 0;
    while done < count {
        let mut victims = Vec::new();
        let begun = Instant::now();
        for queue in queues.iter().take(count - done) {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let due = Duration::from_millis((random >> 33) % LATEST_MS);
            let witness = folder.join(format!("{done}"));
            let script = format!(
                "import time\ntime.sleep({NATURAL})\nopen({:?}, 'w').write(str(time.time()))\n",
                witness.display().to_string()
            );
            let task = api.submit("victim", &TaskSpec::script(&script), queue)?;
            victims.push(Victim {
                task,
                witness,
                due,
                accepted: None,
            });
            done += 1;
        }
        victims.sort_by_key(|victim| victim.due);
        for victim in &mut victims {
            std::thread::sleep(victim.due.saturating_sub(begun.elapsed()));
            let sent = clock();
            // Refused when the task has ended before.
            if api.call("tasks.stop", json!({"task": victim.task})).is_ok() {
                victim.accepted = Some((sent, clock()));
            }
        }
        for victim in victims {
            let ended = api.wait_until_ended(&victim.task, LIMIT)?;
            let verdict = judge(&victim, &ended);
            *ends
                .entry(verdict.clone().unwrap_or_else(|wrong| wrong))
                .or_default() += 1;
            if verdict.is_err() {
                wrong += 1;
                let witness = fs::read_to_string(&victim.witness).unwrap_or_default();
                note(&format!(
                    "task {} {}: {}; stop accepted {:?}, started {}, end of the program {witness}",
                    victim.task, ended["status"], ended["status_reason"], victim.accepted, ended["started"]
                ));
            }
        }
    }
    note(&format!("{ends:?}"));
    for mut daemon in daemons {
        daemon.stop()?;
    }
    Ok(wrong)
}

fn judge(victim: &Victim, ended: &Value) -> Result<String, String> {
    let status = ended["status"].as_str().unwrap_or_default();
    let finished: Option<f64> = fs::read_to_string(&victim.witness)
        .ok()
        .and_then(|text| text.parse().ok());
    let (case, permitted): (&str, &[&str]) = match (victim.accepted, finished) {
        (None, Some(_)) => ("refused after the end", &["completed"]),
        (None, None) => ("refused although the program has not finished", &[]),
        (Some(_), None) => ("before the end", &["stopped"]),
        (Some((_, accepted)), Some(end)) if accepted < end => ("accepted while it ran", &["stopped"]),
        // The program was through, and the server did not know yet.
        (Some(_), Some(_)) => ("between the end and its report", &["stopped", "completed"]),
    };
    let text = format!("{case}: {status}");
    if permitted.contains(&status) {
        Ok(text)
    } else {
        Err(format!("WRONG {text}"))
    }
}

/// A program that does not want to end, with a child that has left it.
const STUBBORN: &str = "import os, signal, time\n\
    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
    if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(600)\n    os._exit(0)\n\
    print('stubborn', flush=True)\ntime.sleep(600)\n";

/// Seconds from the wish to the end of the last process of the task.
pub(super) fn last_process(contestant: &Contestant, agent: &mut Agent, api: &Api) -> Result<f64> {
    settle(agent)?;
    let task = api.submit("stubborn", &TaskSpec::script(STUBBORN), &contestant.queue)?;
    wait_for(
        "the stubborn program",
        Duration::from_secs(300),
        Duration::from_millis(50),
        || {
            Ok(api
                .console(&task)?
                .lines()
                .any(|line| line == "stubborn")
                .then_some(()))
        },
    )
    .with_context(|| agent.output())?;
    let own = |pid: i32| {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == contestant.options.executable)
    };
    let programs = |agent: &Agent| {
        let processes = agent.mark().processes();
        processes
            .iter()
            .filter(|(pid, command)| !own(*pid) && command.contains("script.py"))
            .count()
    };
    anyhow::ensure!(programs(agent) >= 2, "its child does not run");
    let begun = Instant::now();
    api.call("tasks.stop", json!({"task": task}))?;
    wait_for(
        "the end of the last process",
        LIMIT,
        Duration::from_millis(10),
        || Ok((programs(agent) == 0).then_some(())),
    )?;
    let seconds = begun.elapsed().as_secs_f64();
    api.wait_until_ended(&task, LIMIT)?;
    Ok(seconds)
}
