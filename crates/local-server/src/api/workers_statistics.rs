//! `workers.*` that look back: which numbers were reported, how they went, and how many workers were there.

use rusqlite::Transaction;
use serde_json::{Map, Value, json};

use super::update::text;
use super::{ApiFault, Call, Endpoint};
use crate::store::statistics::{self, Aggregation, Number, Point, Slices};

/// Shorter slices (seconds) are made this long.
const SHORTEST_SLICE: i64 = 40;
/// Slices of one reply at most.
const MAX_SLICES: i64 = 10_000;
/// Numbers of one report at most: a large machine has some hundreds.
const MAX_NUMBERS: usize = 10_000;

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::read("workers.get_metric_keys", (2, 4), get_metric_keys),
        Endpoint::read("workers.get_stats", (2, 4), get_stats),
        Endpoint::read("workers.get_activity_report", (2, 4), get_activity_report),
    ]
}

/// The metrics that a report may bring; anything else in it is ignored.
const METRICS: [&str; 14] = [
    "cpu_usage",
    "cpu_temperature",
    "gpu_usage",
    "gpu_temperature",
    "gpu_memory_free",
    "gpu_memory_used",
    "memory_used",
    "memory_free",
    "network_tx",
    "network_rx",
    "disk_free_home",
    "disk_free_temp",
    "disk_read",
    "disk_write",
];

/// The numbers of a report. Zeros and what is no number are skipped.
pub(crate) fn numbers(stats: &Map<String, Value>) -> Vec<Number> {
    let mut found = Vec::new();
    for metric in METRICS {
        let mut add = |variant: String, value: &Value| {
            if let Some(value) = value.as_f64().filter(|value| *value != 0.0) {
                found.push(Number {
                    metric: metric.to_owned(),
                    variant,
                    value,
                });
            }
        };
        match stats.get(metric) {
            Some(Value::Array(values)) => {
                for (index, value) in values.iter().enumerate() {
                    add(index.to_string(), value);
                }
            }
            Some(value) => add("total".to_owned(), value),
            None => {}
        }
    }
    found.truncate(MAX_NUMBERS);
    found
}

fn get_metric_keys(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let workers = worker_ids(call)?;
    let mut categories: Vec<Value> = Vec::new();
    for (category, metric) in statistics::metric_keys(tx, workers.as_deref())? {
        match categories.last_mut() {
            Some(last) if last["name"] == category => {
                if let Some(keys) = last["metric_keys"].as_array_mut() {
                    keys.push(json!(metric));
                }
            }
            _ => categories.push(json!({"name": category, "metric_keys": [metric]})),
        }
    }
    if categories.is_empty() {
        return Err(ApiFault::new(400, 1005, "No statistics for these workers"));
    }
    Ok(json!({"categories": categories}))
}

/// The ids that a call is about as a JSON list; nothing means all.
fn worker_ids(call: &Call) -> Result<Option<String>, ApiFault> {
    let ids = call.opt_strings("worker_ids")?.filter(|ids| !ids.is_empty());
    Ok(ids.map(|ids| json!(ids).to_string()))
}

/// The stretch of time that a call asks for, in seconds there and milliseconds here.
pub(crate) fn slices(call: &Call) -> Result<Slices, ApiFault> {
    let seconds = |name: &str| -> Result<f64, ApiFault> {
        let value = call.required(name)?;
        value
            .as_f64()
            .filter(|seconds| seconds.abs() < 1e11)
            .ok_or_else(|| super::call::wrong_type(name, "number of seconds"))
    };
    #[expect(clippy::cast_possible_truncation, reason = "the range was checked")]
    let (from, to) = (
        (seconds("from_date")? * 1000.0) as i64,
        (seconds("to_date")? * 1000.0) as i64,
    );
    let interval = call.required_i64("interval")?;
    if interval < 1 || to <= from {
        return Err(ApiFault::validation(
            "'to_date' must be later than 'from_date', and 'interval' at least 1",
        ));
    }
    let length = interval.max(SHORTEST_SLICE).saturating_mul(1000);
    if (to - from) / length >= MAX_SLICES {
        return Err(ApiFault::validation(format!(
            "more than {MAX_SLICES} intervals between 'from_date' and 'to_date'"
        )));
    }
    Ok(Slices { from, to, length })
}

fn get_stats(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let slices = slices(call)?;
    let workers = worker_ids(call)?;
    let items = call
        .opt_list("items")?
        .ok_or_else(|| ApiFault::missing_field("items"))?;
    let by_variant = call.flag("split_by_variant", false)?;
    let by_resource = call.flag("split_by_resource", false)?;
    let mut shown: Vec<Value> = Vec::new();
    for item in items {
        let key = text(item, "key").ok_or_else(|| ApiFault::missing_field("key"))?;
        let (name, aggregation) = aggregation(item)?;
        let read = |split| statistics::series(tx, key, aggregation, split, slices, workers.as_deref());
        let parts = if by_resource { read(true)? } else { Vec::new() };
        for ((worker, variant), points) in grouped(read(by_variant)?) {
            let (dates, values) = dates_and_values(&points);
            let mut stats = json!({"aggregation": name, "dates": dates, "values": values});
            if by_resource {
                stats["resource_series"] = resource_series(&parts, &worker, &points);
            }
            let metric = metric_slot(worker_slot(&mut shown, &worker), key, &variant, by_variant);
            if let Some(list) = metric["stats"].as_array_mut() {
                list.push(stats);
            }
        }
    }
    Ok(json!({"workers": shown}))
}

fn aggregation(item: &Value) -> Result<(&str, Aggregation), ApiFault> {
    match text(item, "aggregation").unwrap_or("avg") {
        name @ "avg" => Ok((name, Aggregation::Average)),
        name @ "min" => Ok((name, Aggregation::Least)),
        name @ "max" => Ok((name, Aggregation::Greatest)),
        other => Err(ApiFault::validation(format!(
            "field 'aggregation' is '{other}'; use avg, min or max"
        ))),
    }
}

type Series = ((String, String), Vec<Point>);

/// Points that follow each other and belong to the same worker and variant.
fn grouped(points: Vec<Point>) -> Vec<Series> {
    let mut series: Vec<Series> = Vec::new();
    for point in points {
        let key = (point.worker.clone(), point.variant.clone());
        match series.last_mut() {
            Some((known, points)) if *known == key => points.push(point),
            _ => series.push((key, vec![point])),
        }
    }
    series
}

fn dates_and_values(points: &[Point]) -> (Vec<i64>, Vec<f64>) {
    points
        .iter()
        .map(|point| (point.begin / 1000, point.value))
        .unzip()
}

/// The parts of a machine, each with a value for every date of the whole; 0 where a part reported nothing.
fn resource_series(parts: &[Point], worker: &str, whole: &[Point]) -> Value {
    let own: Vec<Point> = parts
        .iter()
        .filter(|point| point.worker == worker)
        .cloned()
        .collect();
    let series = grouped(own).into_iter().map(|((_, variant), points)| {
        let at = |begin: i64| {
            points
                .iter()
                .find(|point| point.begin == begin)
                .map_or(0.0, |point| point.value)
        };
        let values: Vec<f64> = whole.iter().map(|point| at(point.begin)).collect();
        json!({"name": variant, "values": values})
    });
    series.collect()
}

fn worker_slot<'a>(shown: &'a mut Vec<Value>, worker: &str) -> &'a mut Value {
    let at = shown
        .iter()
        .position(|known| known["worker"] == worker)
        .unwrap_or_else(|| {
            shown.push(json!({"worker": worker, "metrics": []}));
            shown.len() - 1
        });
    &mut shown[at]["metrics"]
}

fn metric_slot<'a>(metrics: &'a mut Value, key: &str, variant: &str, split: bool) -> &'a mut Value {
    let mut fresh = json!({"metric": key, "stats": []});
    if split {
        fresh["variant"] = json!(variant);
    }
    let wanted = fresh.get("variant").cloned();
    if !metrics.is_array() {
        *metrics = json!([]);
    }
    let found = metrics
        .as_array()
        .into_iter()
        .flatten()
        .position(|known| known["metric"] == key && known.get("variant") == wanted.as_ref());
    let list = metrics.as_array_mut().expect("it was made a list just now");
    let at = found.unwrap_or_else(|| {
        list.push(fresh);
        list.len() - 1
    });
    &mut list[at]
}

fn get_activity_report(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let rows = statistics::activity(tx, slices(call)?)?;
    let dates: Vec<i64> = rows.iter().map(|(begin, ..)| begin / 1000).collect();
    let total: Vec<i64> = rows.iter().map(|(_, total, _)| *total).collect();
    let active: Vec<i64> = rows.iter().map(|(.., active)| *active).collect();
    Ok(json!({
        "total": {"dates": dates, "counts": total},
        "active": {"dates": dates, "counts": active},
    }))
}
