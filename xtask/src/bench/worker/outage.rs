//! What an agent does to a server that is in trouble, and to one that has nothing for it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::super::measure::{Contestant, settle};
use super::processes::{cpu, of_kind};
use crate::workbench::{Agent, Api, LocalServer, TaskSpec};

/// All calls that the server has had.
pub(super) fn calls(server: &LocalServer) -> Result<u64> {
    let calls = server.calls()?;
    let counts = calls["counts"].as_object().context("a reply without counts")?;
    Ok(counts.values().filter_map(serde_json::Value::as_u64).sum())
}

/// Requests and CPU seconds while the server answers 503 in the middle of a run.
pub(super) fn unavailable(
    contestant: &Contestant,
    agent: &mut Agent,
    api: &Api,
    server: &LocalServer,
    length: Duration,
) -> Result<(f64, f64)> {
    settle(agent)?;
    let script = format!(
        "import time\nfor number in range({}):\n    print('tick', number, flush=True)\n    time.sleep(0.5)\n",
        2 * (length.as_secs() + 10)
    );
    let task = api.submit("outage", &TaskSpec::script(&script), &contestant.queue)?;
    crate::workbench::wait_for(
        "the first lines",
        Duration::from_secs(300),
        Duration::from_millis(200),
        || Ok(api.console(&task)?.contains("tick 3").then_some(())),
    )
    .with_context(|| agent.output())?;
    let processes = of_kind(contestant.kind, agent, &contestant.options);
    let (before, used) = (calls(server)?, cpu(&processes));
    server.fault(&json!({"endpoint": "*", "kind": "status", "status": 503, "count": -1}))?;
    std::thread::sleep(length);
    let requests = calls(server)? - before;
    let used = cpu(&processes) - used;
    server.clear_faults()?;
    let ended = api.wait_until_ended(&task, Duration::from_secs(300))?;
    ensure!(ended["status"] == "completed", "the task is {}", ended["status"]);
    #[expect(clippy::cast_precision_loss, reason = "a number of requests")]
    Ok((requests as f64, used))
}

/// Requests in a minute without work, for ten queues.
pub(super) fn idle(
    contestant: &Contestant,
    api: &Api,
    server: &LocalServer,
    length: Duration,
) -> Result<f64> {
    let mut arguments = vec![
        "daemon".to_owned(),
        "--foreground".to_owned(),
        "--queue".to_owned(),
    ];
    for number in 0..10 {
        let name = format!("{}-idle-{number}", contestant.queue_name);
        api.create_queue(&name)?;
        arguments.push(name);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut agent = Agent::start(&contestant.options, &arguments)?;
    std::thread::sleep(Duration::from_secs(15));
    ensure!(
        agent.ended()?.is_none(),
        "the daemon has ended:\n{}",
        agent.output()
    );
    let before = calls(server)?;
    std::thread::sleep(length);
    let requests = calls(server)? - before;
    agent.stop()?;
    #[expect(clippy::cast_precision_loss, reason = "a number of requests")]
    Ok(requests as f64 * 60.0 / length.as_secs_f64())
}
