//! `workers.*`: who works here, on what, and until when we believe it. What reports say about machines is read back
//! in `workers_statistics`.

use regex::Regex;
use rusqlite::Transaction;
use serde_json::{Value, json};

use super::update::text;
use super::workers_statistics::numbers;
use super::{ApiFault, Call, Endpoint};
use crate::store::workers::{self, Worker};
use crate::store::{projects, queues, statistics, tasks, users};
use crate::time;

/// Lifetime in seconds of an entry that asked for none.
const DEFAULT_TIMEOUT: i64 = 600;
/// How far (milliseconds) the time stamp of a report may be from our own time before it is moved closer.
const CLOCK_SKEW: i64 = 3_600_000;

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::write("workers.register", (2, 4), register),
        Endpoint::write("workers.unregister", (2, 4), unregister),
        Endpoint::write("workers.status_report", (2, 4), status_report),
        Endpoint::read("workers.get_all", (2, 4), get_all),
        Endpoint::read("workers.get_count", (2, 4), get_count),
        Endpoint::read("workers.get_runtime_properties", (2, 10), get_runtime_properties),
        Endpoint::write("workers.set_runtime_properties", (2, 10), set_runtime_properties),
    ]
}

fn fresh(call: &Call, id: &str) -> Worker {
    Worker {
        id: id.to_owned(),
        user: call.user.user.clone(),
        ip: call.remote_ip.map(|ip| ip.to_string()),
        task: None,
        queue: None,
        queues: Vec::new(),
        tags: json!([]),
        system_tags: json!([]),
        registered: call.now,
        timeout: DEFAULT_TIMEOUT,
        last_activity: call.now,
        last_report: None,
    }
}

fn register(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    workers::purge(tx, call.now)?;
    let mut worker = fresh(call, call.required_str("worker")?);
    match call.opt_i64("timeout")? {
        Some(timeout) if timeout < 0 => {
            return Err(ApiFault::new(
                400,
                1002,
                format!("Worker registration failed: timeout={timeout}"),
            ));
        }
        Some(timeout) if timeout > 0 => worker.timeout = timeout,
        _ => {}
    }
    worker.queues = call.opt_strings("queues")?.unwrap_or_default();
    for queue in &worker.queues {
        queues::require(tx, queue)?;
    }
    apply_tags(call, &mut worker)?;
    workers::save(tx, &worker)?;
    Ok(json!({}))
}

fn apply_tags(call: &Call, worker: &mut Worker) -> Result<(), ApiFault> {
    if let Some(tags) = call.opt_strings("tags")? {
        worker.tags = json!(tags);
    }
    if let Some(tags) = call.opt_strings("system_tags")? {
        worker.system_tags = json!(tags);
    }
    Ok(())
}

fn unregister(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    workers::delete(tx, &call.user.user, call.required_str("worker")?)?;
    Ok(json!({}))
}

fn status_report(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let id = call.required_str("worker")?;
    let timestamp = call.required_i64("timestamp")?;
    let mut worker = workers::load(tx, &call.user.user, id, call.now)?.unwrap_or_else(|| fresh(call, id));
    worker.last_activity = call.now;
    worker.last_report = Some(call.now);
    worker.ip = call.remote_ip.map(|ip| ip.to_string());
    if let Some(queues) = call.opt_strings("queues")?.filter(|queues| !queues.is_empty()) {
        worker.queues = queues;
    }
    worker.queue = call.opt_str("queue")?.map(str::to_owned);
    worker.task = call
        .opt_str("task")?
        .filter(|task| !task.is_empty())
        .map(str::to_owned);
    apply_tags(call, &mut worker)?;
    if let Some(task) = &worker.task {
        report_task(call, tx, id, task)?;
    }
    workers::save(tx, &worker)?;
    let numbers = call.opt_object("machine_stats")?.map(numbers).unwrap_or_default();
    // A clock far from ours would put the numbers where nobody looks, or keep them for ever.
    let timestamp = timestamp.clamp(call.now - CLOCK_SKEW, call.now + CLOCK_SKEW);
    statistics::add_report(tx, id, worker.task.as_deref(), timestamp, call.now, &numbers)?;
    Ok(json!({}))
}

/// A task that its worker speaks of is alive.
fn report_task(call: &Call, tx: &Transaction<'_>, worker: &str, id: &str) -> Result<(), ApiFault> {
    let mut task = tasks::require(tx, id)?;
    let now = json!(time::iso(call.now));
    task["last_worker"] = json!(worker);
    for field in ["last_worker_report", "last_update", "last_change"] {
        task[field] = now.clone();
    }
    tasks::save(tx, &task)
}

/// The workers that a listing is about.
fn selected(call: &Call, tx: &Transaction<'_>, default_last_seen: i64) -> Result<Vec<Worker>, ApiFault> {
    let last_seen = call.opt_i64("last_seen")?.unwrap_or(default_last_seen);
    let since = if last_seen > 0 {
        call.now.saturating_sub(last_seen.saturating_mul(1000))
    } else {
        i64::MIN
    };
    let mut found = workers::active_since(tx, since, call.now)?;
    if let Some(pattern) = call.opt_str("worker_pattern")? {
        let pattern = glob(pattern)?;
        found.retain(|worker| pattern.is_match(&worker.id));
    }
    if let Some(tags) = call.opt_strings("tags")? {
        found.retain(|worker| tagged(&worker.tags, &tags));
    }
    if let Some(tags) = call.opt_strings("system_tags")? {
        found.retain(|worker| tagged(&worker.system_tags, &tags));
    }
    Ok(found)
}

/// Any of the plain tags, none of those with a minus.
fn tagged(have: &Value, wanted: &[String]) -> bool {
    let has = |tag: &str| {
        have.as_array()
            .is_some_and(|have| have.iter().any(|found| found == tag))
    };
    let (without, with): (Vec<&str>, Vec<&str>) = wanted
        .iter()
        .map(String::as_str)
        .partition(|tag| tag.starts_with('-'));
    (with.is_empty() || with.into_iter().any(has)) && !without.into_iter().any(|tag| has(&tag[1..]))
}

/// `*` and `?` stand for any text and any character.
fn glob(pattern: &str) -> Result<Regex, ApiFault> {
    let translated = regex::escape(pattern).replace(r"\*", ".*").replace(r"\?", ".");
    Regex::new(&format!("(?s)^{translated}$")).map_err(|_| ApiFault::bad_regex(pattern))
}

fn get_all(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let found = selected(call, tx, 3600)?;
    let workers: Vec<Value> = found
        .iter()
        .map(|worker| describe(call, tx, worker))
        .collect::<Result<_, _>>()?;
    Ok(json!({"workers": workers}))
}

fn get_count(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    Ok(json!({"count": selected(call, tx, 0)?.len()}))
}

/// A worker as listings show it, with names beside the ids.
fn describe(call: &Call, tx: &Transaction<'_>, worker: &Worker) -> Result<Value, ApiFault> {
    let user = users::load(tx, &worker.user)?;
    let user_name = user
        .as_ref()
        .and_then(|user| user.get("name").cloned())
        .unwrap_or_default();
    let mut shown = json!({
        "id": worker.id,
        "key": worker.key(&call.user.company),
        "user": {"id": worker.user, "name": user_name},
        "company": {"id": call.user.company, "name": call.user.company_name},
        "ip": worker.ip,
        "queues": worker.queues.iter().map(|id| describe_queue(tx, id)).collect::<Result<Vec<_>, _>>()?,
        "register_time": time::iso(worker.registered),
        "register_timeout": worker.timeout,
        "last_activity_time": time::iso(worker.last_activity),
        "tags": worker.tags,
        "system_tags": worker.system_tags,
    });
    if let Some(report) = worker.last_report {
        shown["last_report_time"] = json!(time::iso(report));
    }
    if let Some(id) = &worker.queue {
        shown["queue"] = describe_queue(tx, id)?;
    }
    if let Some(id) = &worker.task {
        describe_task(call, tx, id, &mut shown)?;
    }
    Ok(shown)
}

/// A queue in a listing; one that has been deleted is listed with its id alone.
fn describe_queue(tx: &Transaction<'_>, id: &str) -> Result<Value, ApiFault> {
    let Some(queue) = queues::load(tx, id)? else {
        return Ok(json!({"id": id}));
    };
    let mut shown = json!({"id": id, "name": queue["name"], "num_tasks": queues::count(tx, id)?});
    if let Some(name) = queue.get("display_name") {
        shown["display_name"] = name.clone();
    }
    if let Some(first) = queues::first(tx, id)? {
        let name = tasks::load(tx, &first.task)?.map(|task| task["name"].clone());
        shown["next_task"] = json!({"id": first.task, "name": name});
    }
    Ok(shown)
}

fn describe_task(call: &Call, tx: &Transaction<'_>, id: &str, shown: &mut Value) -> Result<(), ApiFault> {
    let Some(task) = tasks::load(tx, id)? else {
        shown["task"] = json!({"id": id});
        return Ok(());
    };
    let started = text(&task, "started").and_then(time::parse);
    let running = started.map_or(0, |started| (call.now - started).max(0));
    shown["task"] = json!({"id": id, "name": task["name"], "running_time": running, "last_iteration": task["last_iteration"]});
    if let Some(project) = text(&task, "project") {
        let name = projects::load(tx, project)?.map(|project| project["name"].clone());
        shown["project"] = json!({"id": project, "name": name});
    }
    Ok(())
}

fn get_runtime_properties(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let found = workers::properties(tx, call.required_str("worker")?, call.now)?;
    let shown = found.into_iter().map(|(key, value, expires)| {
        let mut item = json!({"key": key, "value": value});
        if let Some(expires) = expires {
            item["expiry"] = json!((expires - call.now + 999) / 1000);
        }
        item
    });
    Ok(json!({"runtime_properties": shown.collect::<Vec<_>>()}))
}

fn set_runtime_properties(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let worker = call.required_str("worker")?;
    let items = call
        .opt_list("runtime_properties")?
        .ok_or_else(|| ApiFault::missing_field("runtime_properties"))?;
    for item in items {
        let key = text(item, "key").ok_or_else(|| ApiFault::missing_field("key"))?;
        let value = match item.get("value") {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => return Err(ApiFault::missing_field("value")),
            Some(other) => other.to_string(),
        };
        match item.get("expiry").and_then(super::call::as_integer) {
            Some(0) => workers::delete_property(tx, worker, key)?,
            expiry => {
                let expires = expiry.map(|seconds| call.now.saturating_add(seconds.saturating_mul(1000)));
                workers::set_property(tx, worker, &(key.to_owned(), value, expires))?;
            }
        }
    }
    Ok(json!({"updated": items.len()}))
}
