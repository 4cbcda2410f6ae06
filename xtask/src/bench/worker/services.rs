//! Many services that do nothing: memory, and whether each is looked at in time.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::super::measure::Contestant;
use super::processes::{memory, of_agent};
use super::proxy::Proxy;
use crate::terminal::note;
use crate::workbench::{Agent, Api, TaskSpec, wait_for};

/// What each task does: nothing, for a time that nobody else sleeps.
const SLEEP: &str = "exec sleep 86397";
/// Between two looks at a task, as packaged.
const PERIOD: f64 = 2.0;
const LIMIT: Duration = Duration::from_secs(1200);

pub(super) struct Services {
    /// All our processes, in MiB.
    pub(super) memory: f64,
    /// Percentage of looks that came within a second of their time.
    pub(super) punctual: f64,
    /// CPU seconds of all our processes in a minute.
    pub(super) cpu: f64,
}

pub(super) fn measure(
    contestant: &Contestant,
    api: &Api,
    server: &str,
    (count, watched): (usize, Duration),
) -> Result<Services> {
    let address = server
        .trim_start_matches("http://")
        .parse()
        .context("the server's address")?;
    let proxy = Proxy::start(address)?;
    let spec = TaskSpec::script(SLEEP)
        .with("binary", "/bin/sh")
        .with("entry_point", "service.sh");
    for number in 0..count {
        api.submit(&format!("service {number}"), &spec, &contestant.queue)?;
    }
    let options = contestant
        .options
        .clone()
        .variable("CLEARML_API_HOST", format!("http://{}", proxy.address));
    let arguments = [
        "daemon",
        "--queue",
        &contestant.queue_name,
        "--foreground",
        "--services-mode",
    ];
    let mut agent = Agent::start(&options, &arguments)?;
    let begun = Instant::now();
    wait_for("all services to run", LIMIT, Duration::from_secs(1), || {
        if let Some(status) = agent.ended()? {
            bail!("the daemon ended with {status}");
        }
        Ok((sleeping(&agent) >= count).then_some(()))
    })
    .with_context(|| agent.output())?;
    note(&format!(
        "{count} services run after {:.0} s",
        begun.elapsed().as_secs_f64()
    ));
    std::thread::sleep(Duration::from_secs(10));
    proxy.take();
    let from = Instant::now();
    let processes = of_agent(&agent, &contestant.options);
    let before: f64 = processes
        .iter()
        .filter_map(|pid| crate::workbench::cpu_seconds(*pid))
        .sum();
    std::thread::sleep(watched);
    let after: f64 = processes
        .iter()
        .filter_map(|pid| crate::workbench::cpu_seconds(*pid))
        .sum();
    let (to, seen) = (Instant::now(), proxy.take());
    let (looks, late) = seen
        .values()
        .map(|times| punctuality(times, (from, to)))
        .fold((0, 0), |(looks, late), one| (looks + one.0, late + one.1));
    #[expect(clippy::cast_precision_loss, reason = "bytes and counts far below 2^52")]
    let memory = memory(&processes) as f64 / 1024.0 / 1024.0;
    note(&format!(
        "{} processes, {looks} looks at {} tasks, {late} late",
        processes.len(),
        seen.len()
    ));
    if seen.len() < count {
        bail!("only {} of {count} tasks were looked at", seen.len());
    }
    end(&mut agent, api, &contestant.options.home)?;
    Ok(Services {
        memory,
        punctual: 100.0 * (1.0 - f64::from(late) / f64::from(looks.max(1))),
        cpu: (after - before) * 60.0 / watched.as_secs_f64(),
    })
}

/// How often a task was looked at, and how often too late. A task that is not looked at any more is late as well.
fn punctuality(times: &[Instant], (from, to): (Instant, Instant)) -> (u32, u32) {
    let marks: Vec<Instant> = [from].iter().chain(times).chain([&to]).copied().collect();
    let late = |pair: &&[Instant]| pair[1].saturating_duration_since(pair[0]).as_secs_f64() > PERIOD + 1.0;
    let late = marks.windows(2).filter(late).count();
    let number = |count| u32::try_from(count).unwrap_or(u32::MAX);
    (number(times.len()), number(late))
}

fn sleeping(agent: &Agent) -> usize {
    let processes = agent.mark().processes();
    processes
        .iter()
        .filter(|(_, command)| command.contains("sleep 86397"))
        .count()
}

fn end(agent: &mut Agent, api: &Api, home: &Path) -> Result<()> {
    let begun = Instant::now();
    agent.signal(rustix::process::Signal::TERM);
    let status = agent.wait(Duration::from_secs(120))?;
    let left = sleeping(agent);
    let workers = api.call("workers.get_all", json!({}))?;
    let workers = workers["workers"].as_array().map_or(0, Vec::len);
    note(&format!(
        "the daemon ended with {status} after {:.1} s; {left} services and {workers} workers are left ({})",
        begun.elapsed().as_secs_f64(),
        home.display()
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_is_not_looked_at_any_more_is_late() {
        let from = Instant::now();
        let at = |seconds| from + Duration::from_secs_f64(seconds);
        let times = [at(1.0), at(3.0), at(5.5)];
        assert_eq!(punctuality(&times, (from, at(7.0))), (3, 0));
        assert_eq!(punctuality(&times, (from, at(9.0))), (3, 1));
        assert_eq!(punctuality(&[at(4.0), at(8.0)], (from, at(9.0))), (2, 2));
    }
}
