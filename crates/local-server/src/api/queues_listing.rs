//! `queues.*` for people who look: queues with the names of their tasks and workers, and how queues went over time.

use rusqlite::Transaction;
use serde_json::{Value, json};

use super::queues;
use super::references::{self, Reference, Target};
use super::update::text;
use super::workers_statistics::slices;
use super::{ApiFault, Call, Endpoint};
use crate::store::statistics::{self, Slices};
use crate::store::{self, tasks, workers};

const REFERENCES: [Reference; 2] = [
    Reference::new("company", Target::Company),
    Reference {
        path: "entries.task",
        target: Target::Task,
        always: &["name"],
    },
];

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::read("queues.get_all_ex", (2, 4), get_all_ex),
        Endpoint::write("queues.get_queue_metrics", (2, 4), get_queue_metrics),
    ]
}

fn get_all_ex(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut data = call.data.clone();
    let (show_workers, show_id) = take_workers(&mut data);
    let call = call.with_data(data);
    let mut reply = references::list(&call, tx, queues::get_all, "queues", &REFERENCES)?;
    if show_workers {
        let live = workers::active_since(tx, i64::MIN, call.now)?;
        for queue in reply["queues"].as_array_mut().into_iter().flatten() {
            let id = text(queue, "id").unwrap_or_default();
            let serving = live
                .iter()
                .filter(|worker| worker.queues.iter().any(|served| served == id));
            let shown = serving
                .map(|worker| describe(&call, tx, worker))
                .collect::<Result<Vec<_>, _>>()?;
            queue["workers"] = json!(shown);
            if let (false, Some(fields)) = (show_id, queue.as_object_mut()) {
                fields.shift_remove("id");
            }
        }
    }
    Ok(reply)
}

/// Whether workers are wanted, which the stored queue knows nothing of; and whether the id is, by which they are
/// found.
fn take_workers(data: &mut serde_json::Map<String, Value>) -> (bool, bool) {
    for field in ["only_fields", "projection"] {
        if let Some(Value::Array(names)) = data.get_mut(field) {
            let is_ours = |name: &Value| {
                name.as_str()
                    .is_some_and(|name| name == "workers" || name.starts_with("workers."))
            };
            let before = names.len();
            names.retain(|name| !is_ours(name));
            let show_id = names.iter().any(|name| name == "id");
            let show_workers = names.len() < before;
            if show_workers && !show_id {
                names.push(json!("id"));
            }
            return (show_workers, show_id);
        }
    }
    (true, true)
}

fn describe(call: &Call, tx: &Transaction<'_>, worker: &workers::Worker) -> Result<Value, ApiFault> {
    let mut shown = json!({"name": worker.id, "ip": worker.ip, "key": worker.key(&call.user.company)});
    if let Some(id) = &worker.task {
        let name = tasks::load(tx, id)?.map(|task| task["name"].clone());
        shown["task"] = json!({"id": id, "name": name});
    }
    Ok(shown)
}

fn get_queue_metrics(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let slices = slices(call)?;
    let asked = call.opt_strings("queue_ids")?.filter(|ids| !ids.is_empty());
    let ids = match &asked {
        Some(ids) => {
            for id in ids {
                store::queues::require(tx, id)?;
            }
            ids.clone()
        }
        None => store::queues::all(tx)?
            .iter()
            .filter_map(|queue| text(queue, "id").map(str::to_owned))
            .collect(),
    };
    if call.flag("refresh", false)? {
        for id in &ids {
            statistics::sample_queue(tx, id, call.now)?;
        }
    }
    let shown = if asked.is_some() {
        ids.iter()
            .map(|id| Ok(series(id, &statistics::queue_series(tx, id, slices)?)))
            .collect::<Result<Vec<_>, ApiFault>>()?
    } else {
        vec![series("total", &total(tx, &ids, slices)?)]
    };
    Ok(json!({"queues": shown}))
}

fn series(name: &str, rows: &[(i64, f64, f64)]) -> Value {
    let dates: Vec<i64> = rows.iter().map(|(begin, ..)| begin / 1000).collect();
    let waiting: Vec<f64> = rows.iter().map(|(_, waiting, _)| *waiting).collect();
    // The SDK takes whole numbers only.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a length is far below 2^63; a float saturates"
    )]
    let lengths: Vec<i64> = rows.iter().map(|(.., length)| length.round() as i64).collect();
    json!({"queue": name, "dates": dates, "avg_waiting_times": waiting, "queue_lengths": lengths})
}

/// All queues as one: their lengths added up, their waiting times averaged.
fn total(tx: &Transaction<'_>, ids: &[String], slices: Slices) -> Result<Vec<(i64, f64, f64)>, ApiFault> {
    let mut sums = std::collections::BTreeMap::<i64, (f64, f64, f64)>::new();
    for id in ids {
        for (begin, waiting, length) in statistics::queue_series(tx, id, slices)? {
            let sum = sums.entry(begin).or_default();
            *sum = (sum.0 + waiting, sum.1 + length, sum.2 + 1.0);
        }
    }
    let rows = sums
        .into_iter()
        .map(|(begin, (waiting, length, queues))| (begin, waiting / queues, length));
    Ok(rows.collect())
}
