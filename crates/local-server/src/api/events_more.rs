//! `events.*` that few clients still call: vectors, the points of one metric as events, the last values of a task, and
//! the end of a scroll.

use rusqlite::{Transaction, params};
use serde_json::{Map, Value, json};

use super::events::{batch_size, positive, required_owner, required_task};
use super::{ApiFault, Call, Endpoint};
use crate::events::filter::MetricFilter;
use crate::events::incoming::Kind;
use crate::events::samples::{self, Position, Query};
use crate::events::{curves, scroll};
use crate::store;

/// Vectors of one reply at most.
const MAX_VECTORS: i64 = 10_000;

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::read("events.get_vector_metrics_and_variants", (1, 5), vector_names),
        Endpoint::read("events.vector_metrics_iter_histogram", (1, 5), vectors),
        Endpoint::read("events.get_scalar_metric_data", (1, 5), scalar_data),
        Endpoint::read("events.get_task_latest_scalar_values", (1, 5), latest_values),
        Endpoint::read("events.plots", (2, 20), plots),
        Endpoint::read("events.clear_scroll", (2, 16), clear_scroll),
    ]
}

fn vector_names(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let (owner, _) = required_owner(call, tx)?;
    Ok(json!({"metrics": curves::names(tx, &owner, Kind::Vector)?}))
}

/// The vectors of one metric and variant by iteration.
fn vectors(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let (owner, _) = required_owner(call, tx)?;
    let (metric, variant) = (call.required_str("metric")?, call.required_str("variant")?);
    let sql =
        "SELECT iter, doc FROM events_metric WHERE task = ?1 AND type = ?2 AND metric = ?3 AND variant = ?4
        ORDER BY iter, timestamp LIMIT ?5";
    let wanted = params![owner, Kind::Vector.as_str(), metric, variant, MAX_VECTORS];
    let mut statement = tx.prepare_cached(sql)?;
    let mut rows = statement.query(wanted)?;
    let (mut iterations, mut values) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let mut event: Value = serde_json::from_str(row.get_ref(1)?.as_str().unwrap_or_default())?;
        iterations.push(row.get::<_, i64>(0)?);
        values.push(event["values"].take());
    }
    Ok(json!({"metric": metric, "variant": variant, "iterations": iterations, "vectors": values}))
}

/// The points of one metric, as they were sent, page by page.
fn scalar_data(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let (owner, _) = required_owner(call, tx)?;
    let filter = MetricFilter::parse(Some(&json!([{"metric": call.required_str("metric")?}])))?;
    let query = Query {
        owner: &owner,
        kind: Some(Kind::Scalar),
        filter: &filter,
        descending: false,
    };
    let after = match call.opt_str("scroll_id")? {
        None | Some("") => None,
        Some(text) => scroll::unpack::<Option<Position>>(text)?,
    };
    let (events, position) = query.page(tx, after, batch_size(call, 10_000)?)?;
    Ok(json!({
        "returned": events.len(), "total": query.count(tx)?, "events": events,
        "scroll_id": scroll::pack(&position)?,
    }))
}

/// The last value of every scalar, by metric.
fn latest_values(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let (_, task) = required_task(call, tx)?;
    let mut metrics: Vec<Value> = Vec::new();
    for variants in task["last_metrics"].as_object().into_iter().flat_map(Map::values) {
        let (mut name, mut shown) = (Value::Null, Vec::new());
        for last in variants.as_object().into_iter().flat_map(Map::values) {
            name = last["metric"].clone();
            shown.push(json!({"name": last["variant"], "last_value": last["value"]}));
        }
        metrics.push(json!({"name": name, "variants": shown}));
    }
    Ok(json!({
        "metrics": metrics, "name": task["name"], "status": task["status"], "last_iter": task["last_iteration"],
    }))
}

/// The newest plots of metrics of several tasks, as `events.debug_images` gives images.
fn plots(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let items = call
        .opt_list("metrics")?
        .ok_or_else(|| ApiFault::missing_field("metrics"))?;
    let iters = positive(call, "iters", 1)?;
    let mut metrics = Vec::new();
    for item in items {
        let task = item.get("task").and_then(Value::as_str);
        let task = task.ok_or_else(|| ApiFault::missing_field("task"))?;
        store::tasks::require(tx, task)?;
        let mut filter = MetricFilter::default();
        filter.push(item)?;
        let mut iterations: Vec<Value> = Vec::new();
        for event in samples::newest(tx, task, Kind::Plot, &filter, iters)? {
            match iterations.iter_mut().find(|one| one["iter"] == event["iter"]) {
                Some(one) => one["events"]
                    .as_array_mut()
                    .into_iter()
                    .for_each(|list| list.push(event.clone())),
                None => iterations.push(json!({"iter": event["iter"], "events": [event]})),
            }
        }
        metrics.push(json!({"task": task, "iterations": iterations}));
    }
    Ok(json!({"metrics": metrics, "scroll_id": scroll::pack(&"end")?}))
}

/// A scroll leaves nothing behind that would have to be cleared away.
fn clear_scroll(call: &Call, _tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    call.required_str("scroll_id")?;
    Ok(json!({}))
}
