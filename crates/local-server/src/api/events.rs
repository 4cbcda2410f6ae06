//! `events.*`: adding events, and reading scalars and whole events. Console lines are in `events_log`, plots and debug
//! images in `events_samples`. The work is done in `crate::events`; here requests are read and replies are shaped.

use rusqlite::{Connection, Transaction};
use serde_json::{Map, Value, json};

use super::{ApiFault, Call, Endpoint};
use crate::events::curves::{self, Axis, RawPosition};
use crate::events::filter::MetricFilter;
use crate::events::incoming::{Defaults, Incoming, Kind};
use crate::events::samples::{Position, Query};
use crate::events::{scroll, write};
use crate::{store, time};

/// Events of one reply at most, whatever the caller asks for.
const MAX_BATCH: i64 = 10_000;
/// Tasks of one reading call at most.
const MAX_TASKS: usize = 100;

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::write("events.add", (1, 5), add),
        Endpoint::write("events.add_batch", (1, 5), add_batch),
        Endpoint::read("events.get_task_events", (1, 5), get_task_events),
        Endpoint::read("events.scalar_metrics_iter_histogram", (1, 5), histogram),
        Endpoint::read(
            "events.multi_task_scalar_metrics_iter_histogram",
            (1, 5),
            multi_task_histogram,
        ),
        Endpoint::read("events.get_task_single_value_metrics", (2, 20), single_values),
        Endpoint::read("events.scalar_metrics_iter_raw", (2, 16), scalars_raw),
        Endpoint::read("events.get_scalar_metrics_and_variants", (1, 5), scalar_names),
        Endpoint::read("events.get_task_metrics", (1, 5), task_metrics),
        Endpoint::write("events.delete_for_task", (1, 5), delete_for_task),
    ]
}

fn add(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    store_events(call, tx, vec![call.data.clone()])
}

fn add_batch(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let documents = match &call.lines {
        Some(lines) => lines.iter().filter_map(Value::as_object).cloned().collect(),
        None if call.data.is_empty() => Vec::new(),
        None => vec![call.data.clone()],
    };
    if documents.is_empty() {
        return Err(ApiFault::new(400, 17, "Batch contains no items"));
    }
    store_events(call, tx, documents)
}

fn store_events(call: &Call, tx: &Connection, documents: Vec<Map<String, Value>>) -> Result<Value, ApiFault> {
    let written = time::iso(call.now);
    let defaults = Defaults {
        now: call.now,
        worker: call.worker_header.as_deref(),
        written: &written,
    };
    let events = documents
        .into_iter()
        .map(|document| Incoming::parse(document, &defaults))
        .collect();
    write::add(tx, events, call.now)?.into_reply()
}

fn get_task_events(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let (owner, _) = required_owner(call, tx)?;
    let kind = match call.opt_str("event_type")? {
        None | Some("" | "*") => None,
        Some(text) => Some(event_kind(text)?),
    };
    let filter = MetricFilter::parse(call.get("metrics"))?;
    let descending = order(call, "asc")? == "desc";
    let query = Query {
        owner: &owner,
        kind,
        filter: &filter,
        descending,
    };
    let after = match call.opt_str("scroll_id")? {
        None | Some("") => None,
        Some(text) => scroll::unpack::<Option<Position>>(text)?,
    };
    let (events, position) = query.page(tx, after, batch_size(call, 500)?)?;
    let total = if call.flag("count_total", true)? {
        query.count(tx)?
    } else {
        0
    };
    Ok(json!({
        "returned": events.len(), "total": total, "events": events, "scroll_id": scroll::pack(&position)?
    }))
}

fn histogram(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let (id, owner) = required_owner(call, tx)?;
    let (axis, samples) = axis_and_samples(call)?;
    let filter = MetricFilter::parse(call.get("metrics"))?;
    let mut reply = Map::new();
    for curve in curves::curves(tx, &id, &filter, axis, samples)? {
        let mut shown = json!({"name": curve.variant, "x": curve.x, "y": curve.y});
        if let Some(label) = curves::axis_label(&owner, &curve) {
            shown["x_axis_label"] = label.clone();
        }
        let variants = reply.entry(curve.metric).or_insert_with(|| json!({}));
        variants[curve.variant] = shown;
    }
    Ok(Value::Object(reply))
}

fn multi_task_histogram(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let (axis, samples) = axis_and_samples(call)?;
    let filter = MetricFilter::parse(call.get("metrics"))?;
    let mut metrics = json!({});
    for (id, task) in required_tasks(call, tx)? {
        for curve in curves::curves(tx, &id, &filter, axis, samples)? {
            metrics[curve.metric][curve.variant][&id] =
                json!({"name": task["name"], "x": curve.x, "y": curve.y});
        }
    }
    Ok(json!({"metrics": metrics}))
}

fn single_values(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let filter = MetricFilter::parse(call.get("metrics"))?;
    let mut tasks = Vec::new();
    for (id, task) in required_tasks(call, tx)? {
        let values = curves::single_values(tx, &id, &filter)?;
        if !values.is_empty() {
            tasks.push(json!({"task": id, "task_name": task["name"], "values": values}));
        }
    }
    Ok(json!({"tasks": tasks}))
}

/// Every point of one metric, in pages.
fn scalars_raw(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let (owner, _) = required_owner(call, tx)?;
    let metric = Value::Object(
        call.opt_object("metric")?
            .ok_or_else(|| ApiFault::missing_field("metric"))?
            .clone(),
    );
    if !metric["metric"].is_string() {
        return Err(ApiFault::missing_field("metric.metric"));
    }
    let filter = MetricFilter::parse(Some(&json!([metric])))?;
    let key = call.opt_str("key")?.unwrap_or("iter");
    let axis = axis(key)?;
    let after = match call.opt_str("scroll_id")? {
        None | Some("") => None,
        Some(position) => scroll::unpack::<Option<RawPosition>>(position)?,
    };
    let (points, position) = curves::raw(tx, &owner, &filter, after, batch_size(call, MAX_BATCH)?)?;
    let returned = points.len();
    let mut variants = json!({});
    for point in points {
        let x = axis.value(point.iter, point.timestamp);
        let shown = &mut variants[point.variant];
        if shown.is_null() {
            *shown = json!({"y": [], key: []});
        }
        for (side, value) in [(key, x), ("y", json!(point.value))] {
            if let Some(list) = shown[side].as_array_mut() {
                list.push(value);
            }
        }
    }
    let total = if call.flag("count_total", false)? {
        json!(curves::count(tx, &owner, &filter)?)
    } else {
        Value::Null
    };
    Ok(json!({
        "variants": variants, "returned": returned, "total": total, "scroll_id": scroll::pack(&position)?,
    }))
}

fn scalar_names(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let (owner, _) = required_owner(call, tx)?;
    Ok(json!({"metrics": curves::names(tx, &owner, Kind::Scalar)?}))
}

fn task_metrics(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let kind = event_kind(call.required_str("event_type")?)?;
    let mut metrics = Vec::new();
    for (id, _) in required_tasks(call, tx)? {
        metrics.push(json!({"task": id, "metrics": curves::metrics_of_type(tx, &id, kind)?}));
    }
    Ok(json!({"metrics": metrics}))
}

fn delete_for_task(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let (id, task) = required_task(call, tx)?;
    check_lock(call, &task)?;
    Ok(json!({"deleted": store::events::delete_for_task(tx, &id)? > 0}))
}

pub(super) fn check_lock(call: &Call, task: &Value) -> Result<(), ApiFault> {
    let locked = matches!(task["status"].as_str(), Some("published" | "publishing"));
    if locked && !call.flag("allow_locked", false)? {
        return Err(ApiFault::invalid_task_id(task["id"].as_str().unwrap_or_default()));
    }
    Ok(())
}

pub(super) fn required_task(call: &Call, tx: &Connection) -> Result<(String, Value), ApiFault> {
    let id = call.required_str("task")?;
    Ok((id.to_owned(), store::tasks::require(tx, id)?))
}

/// The task, or with `model_events` the model, that the field `task` names.
pub(super) fn required_owner(call: &Call, tx: &Connection) -> Result<(String, Value), ApiFault> {
    if !call.flag("model_events", false)? {
        return required_task(call, tx);
    }
    let id = call.required_str("task")?;
    Ok((id.to_owned(), store::models::require(tx, id)?))
}

pub(super) fn required_tasks(call: &Call, tx: &Connection) -> Result<Vec<(String, Value)>, ApiFault> {
    let ids = call.required_strings("tasks")?;
    if ids.len() > MAX_TASKS {
        return Err(
            ApiFault::validation(format!("field 'tasks' takes at most {MAX_TASKS} items"))
                .with("field", "tasks"),
        );
    }
    let model_events = call.flag("model_events", false)?;
    ids.into_iter()
        .map(|id| {
            let owner = if model_events {
                store::models::require(tx, &id)
            } else {
                store::tasks::require(tx, &id)
            }?;
            Ok((id, owner))
        })
        .collect()
}

fn axis_and_samples(call: &Call) -> Result<(Axis, usize), ApiFault> {
    let axis = axis(call.opt_str("key")?.unwrap_or("iter"))?;
    let samples = call.opt_i64("samples")?.unwrap_or(2000);
    match usize::try_from(samples) {
        Ok(samples @ 1..=6000) => Ok((axis, samples)),
        _ => Err(ApiFault::validation("field 'samples' must be between 1 and 6000").with("field", "samples")),
    }
}

fn axis(text: &str) -> Result<Axis, ApiFault> {
    Axis::parse(text).ok_or_else(|| {
        ApiFault::validation(format!(
            "field 'key' is '{text}'; use iter, timestamp or iso_time"
        ))
    })
}

fn event_kind(text: &str) -> Result<Kind, ApiFault> {
    Kind::parse(text).ok_or_else(|| ApiFault::validation(format!("field 'event_type' is '{text}'")))
}

pub(super) fn order<'a>(call: &'a Call, default: &'a str) -> Result<&'a str, ApiFault> {
    match call.opt_str("order")? {
        None => Ok(default),
        Some(order @ ("asc" | "desc")) => Ok(order),
        Some(other) => Err(ApiFault::validation(format!(
            "field 'order' is '{other}'; use asc or desc"
        ))),
    }
}

pub(super) fn batch_size(call: &Call, default: i64) -> Result<usize, ApiFault> {
    let size = positive(call, "batch_size", default)?.min(MAX_BATCH);
    Ok(usize::try_from(size).unwrap_or(1))
}

pub(super) fn positive(call: &Call, name: &str, default: i64) -> Result<i64, ApiFault> {
    match call.opt_i64(name)?.unwrap_or(default) {
        number if number >= 1 => Ok(number),
        _ => Err(ApiFault::validation(format!("field '{name}' must be at least 1")).with("field", name)),
    }
}
