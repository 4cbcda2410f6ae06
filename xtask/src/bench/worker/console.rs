//! Much output at once, and a little all the time.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::super::measure::{Contestant, agents_cpu, own_children_cpu, settle};
use super::processes::{memory, of_kind};
use crate::terminal::note;
use crate::workbench::{Agent, AgentKind, Api, TaskSpec, wait_for};

const LIMIT: Duration = Duration::from_secs(900);
/// After that, an ended task says no more.
const QUIET: Duration = Duration::from_secs(5);
/// No line may be dated later than this after it was seen.
const AHEAD_MS: i64 = 1000;

/// How often memory is looked at: that takes time from those who are measured.
const LOOK: Duration = Duration::from_millis(100);

/// How a program prints its burst.
#[derive(Clone, Copy, Debug)]
pub(super) enum Manner {
    /// Everything with one write: nothing but the agent takes time.
    AtOnce,
    /// Each line by itself, and unbuffered, as agents start Python. Most of the time is the program's own.
    LineByLine,
}

/// What a burst has cost.
pub(super) struct Burst {
    /// From the first print of the program to the last line on the server, in seconds. The speed of an agent: one
    /// that collects everything, and stores it in one go when the program is long gone, has no other.
    pub(super) seconds: f64,
    /// The same from the last print.
    pub(super) behind: f64,
    /// From the first line on the server to the last one, in seconds.
    pub(super) stored: f64,
    /// CPU microseconds of the agent for each line.
    pub(super) cpu: f64,
    /// The most memory of all the agent's processes, in MiB.
    pub(super) memory: f64,
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The newest or the oldest event of a task's console.
fn edge(api: &Api, task: &str, newest: bool) -> Result<Option<Value>> {
    let body = json!({"task": task, "batch_size": 1, "navigate_earlier": newest});
    let mut reply = api.call("events.get_task_log", body)?;
    Ok(reply["events"].get_mut(0).map(Value::take))
}

/// A program that prints so many lines as fast as it can.
pub(super) fn burst(
    contestant: &Contestant,
    agent: &mut Agent,
    api: &Api,
    (lines, manner): (usize, Manner),
) -> Result<Burst> {
    let (before, print) = match manner {
        Manner::AtOnce => (
            "text = ''.join(f'line {number} {\"x\" * 60}\\n' for number in range(LINES))\n",
            "print(text, end='')\n",
        ),
        Manner::LineByLine => (
            "",
            "for number in range(LINES):\n    print('line', number, 'x' * 60)\n",
        ),
    };
    let script = format!(
        "import time\n{before}print('began', time.time())\n{print}print('ended', time.time())\n\
         print('own cpu', time.process_time(), flush=True)\n"
    );
    let script = script.replace("LINES", &lines.to_string());
    settle(agent)?;
    let before = agents_cpu(agent) + own_children_cpu();
    let task = api.submit("burst", &TaskSpec::script(&script), &contestant.queue)?;
    let watched = watch(contestant, agent, api, (&task, lines))?;
    api.wait_until_ended(&task, LIMIT)?;
    let console = api.console(&task)?;
    settle(agent)?;
    let used = agents_cpu(agent) + own_children_cpu() - before;
    check(contestant.kind, &console, lines)?;
    let own = said(&console, "own cpu ")?;
    #[expect(clippy::cast_precision_loss, reason = "numbers far below 2^52")]
    let last = watched.last as f64 / 1000.0;
    #[expect(clippy::cast_precision_loss, reason = "numbers far below 2^52")]
    Ok(Burst {
        seconds: last - said(&console, "began ")?,
        behind: (last - said(&console, "ended ")?).max(0.001),
        stored: (watched.last - watched.first).max(1) as f64 / 1000.0,
        cpu: (used - own) * 1e6 / lines as f64,
        memory: watched.memory as f64 / 1024.0 / 1024.0,
    })
}

/// What was seen of a burst while it went on.
struct Watched {
    /// When the server had the first line, in milliseconds since 1970.
    first: i64,
    /// When it had the last one.
    last: i64,
    /// The most bytes that all the agent's processes had.
    memory: u64,
}

fn watch(contestant: &Contestant, agent: &Agent, api: &Api, (task, lines): (&str, usize)) -> Result<Watched> {
    let (mut first, mut most, mut looked) = (None, 0, None::<Instant>);
    let last_line = format!("line {} ", lines - 1);
    let begun = Instant::now();
    let mut newest = (String::new(), now_ms());
    let last = loop {
        if looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            most = most.max(memory(&of_kind(contestant.kind, agent, &contestant.options)));
            looked = Some(Instant::now());
        }
        if let Some(event) = edge(api, task, true)? {
            let now = now_ms();
            let text = event["msg"].as_str().unwrap_or_default();
            // The official agent counts lines as milliseconds, so that its bursts come from the future.
            ensure!(
                contestant.kind == AgentKind::Python
                    || event["timestamp"].as_i64().unwrap_or(0) <= now + AHEAD_MS,
                "an event of the future: {} at {now}",
                event["timestamp"],
            );
            if first.is_none() && text.contains("line ") && text.contains("xxxx") {
                first = Some(now);
            }
            if text.contains(&last_line) || text.contains("own cpu") || text.contains("Process completed") {
                break now;
            }
            if newest.0 != text {
                newest = (text.to_owned(), now);
            }
            // The official agent may lose the last lines.
            let quiet = u128::from((now - newest.1).unsigned_abs()) > QUIET.as_millis();
            let lost = contestant.kind == AgentKind::Python && quiet;
            if lost && first.is_some() && api.status(task)? == "completed" {
                break newest.1;
            }
        }
        if begun.elapsed() > LIMIT {
            bail!("the lines do not come:\n{}", agent.output());
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    Ok(Watched {
        first: first.unwrap_or(last),
        last,
        memory: most,
    })
}

/// Whether every line is there once, and in order.
fn check(kind: AgentKind, console: &str, lines: usize) -> Result<()> {
    let expected = (0..lines).map(|number| number.to_string());
    let seen = console.lines().filter_map(|line| line.strip_prefix("line "));
    let seen: Vec<&str> = seen.filter_map(|line| line.split(' ').next()).collect();
    if !expected.eq(seen.iter().copied()) {
        let what = format!("{} lines instead of {lines}, or in another order", seen.len());
        // The official agent cuts lines where its messages end, and loses their order.
        ensure!(kind == AgentKind::Python, what);
        note(&what);
    }
    Ok(())
}

/// The number that the script has printed behind these words.
fn said(console: &str, words: &str) -> Result<f64> {
    let number = console.lines().find_map(|line| line.split_once(words));
    let (_, number) = number.with_context(|| format!("the script has not said {words:?}"))?;
    Ok(number.trim().parse()?)
}

/// Delays in seconds from the moment a line is printed to the moment it can be read, for 200 lines a second.
pub(super) fn steady(
    contestant: &Contestant,
    agent: &mut Agent,
    api: &Api,
    length: Duration,
) -> Result<Vec<f64>> {
    let script = format!(
        "import time\nend = time.time() + {}\nnumber = 0\nwhile time.time() < end:\n    \
         print('line', number, time.time(), flush=True)\n    number += 1\n    time.sleep(0.005)\n",
        length.as_secs()
    );
    settle(agent)?;
    let task = api.submit("steady", &TaskSpec::script(&script), &contestant.queue)?;
    let mut delays: HashMap<u64, f64> = HashMap::new();
    let mut after = None;
    wait_for(
        "the end of the steady output",
        LIMIT,
        Duration::from_millis(50),
        || {
            // Asked first: nothing comes after the end.
            let ended = api.status(&task)? != "in_progress" && api.status(&task)? != "queued";
            let (events, last) = api.console_after(&task, after)?;
            #[expect(
                clippy::cast_precision_loss,
                reason = "milliseconds since 1970 are far below 2^52"
            )]
            let now = now_ms() as f64 / 1000.0;
            for line in events
                .iter()
                .filter_map(|event| event["msg"].as_str())
                .flat_map(str::lines)
            {
                let mut words = line.split(' ');
                if let (Some("line"), Some(number), Some(time)) = (words.next(), words.next(), words.next())
                    && let (Ok(number), Ok(time)) = (number.parse(), time.parse::<f64>())
                {
                    delays.entry(number).or_insert(now - time);
                }
            }
            after = last.map(|last| last - 1).or(after);
            Ok(ended.then_some(()))
        },
    )
    .with_context(|| agent.output())?;
    ensure!(!delays.is_empty(), "no line came");
    // The official agent may lose lines.
    let missing = (0..delays.len() as u64).find(|number| !delays.contains_key(number));
    ensure!(
        contestant.kind == AgentKind::Python || missing.is_none(),
        "line {missing:?} did not come"
    );
    Ok(delays.into_values().collect())
}

/// The value below which so many hundredths of the values lie.
pub(super) fn percentile(values: &[f64], hundredths: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (sorted.len() * hundredths / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or(f64::NAN)
}
