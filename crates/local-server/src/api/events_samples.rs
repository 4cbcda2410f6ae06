//! `events.*` about what is looked at one by one: plots and debug images.

use std::collections::BTreeMap;

use rusqlite::{Connection, Transaction};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::events::{positive, required_owner, required_task, required_tasks};
use super::{ApiFault, Call, Endpoint};
use crate::events::filter::MetricFilter;
use crate::events::incoming::Kind;
use crate::events::samples::{self, Neighbour};
use crate::events::scroll;
use crate::store;

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::read("events.get_task_plots", (1, 8), get_task_plots),
        Endpoint::read("events.get_multi_task_plots", (1, 8), get_multi_task_plots),
        Endpoint::read("events.debug_images", (2, 7), debug_images),
        Endpoint::read("events.get_debug_image_sample", (2, 12), |call, tx| {
            sample(call, tx, Kind::DebugImage)
        }),
        Endpoint::read("events.next_debug_image_sample", (2, 12), |call, tx| {
            next_sample(call, tx, Kind::DebugImage)
        }),
        Endpoint::read("events.get_plot_sample", (2, 20), |call, tx| {
            sample(call, tx, Kind::Plot)
        }),
        Endpoint::read("events.next_plot_sample", (2, 20), |call, tx| {
            next_sample(call, tx, Kind::Plot)
        }),
    ]
}

/// All plots come at once: there are as many as the task has metrics, times a handful of iterations. A reader that
/// scrolls gets nothing more.
fn get_task_plots(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let (owner, _) = required_owner(call, tx)?;
    let filter = MetricFilter::parse(call.get("metrics"))?;
    let iters = positive(call, "iters", 1)?;
    let plots = match call.opt_str("scroll_id")? {
        None | Some("") => samples::newest(tx, &owner, Kind::Plot, &filter, iters)?,
        Some(_) => Vec::new(),
    };
    Ok(json!({
        "returned": plots.len(), "total": plots.len(), "plots": plots, "scroll_id": scroll::pack(&"end")?
    }))
}

/// The newest plots of several tasks, as `{metric: {variant: {task: {iteration: {name, plots}}}}}`.
fn get_multi_task_plots(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let filter = MetricFilter::parse(call.get("metrics"))?;
    let iters = positive(call, "iters", 1)?;
    let (mut plots, mut returned) = (json!({}), 0);
    if call.opt_str("scroll_id")?.is_none_or(str::is_empty) {
        for (id, task) in required_tasks(call, tx)? {
            for event in samples::newest(tx, &id, Kind::Plot, &filter, iters)? {
                let name = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
                let iteration = event["iter"].as_i64().unwrap_or_default().to_string();
                let slot = &mut plots[name("metric")][name("variant")][&id][iteration];
                if slot.is_null() {
                    *slot = json!({"name": task["name"], "plots": []});
                }
                if let Some(list) = slot["plots"].as_array_mut() {
                    list.push(event);
                    returned += 1;
                }
            }
        }
    }
    Ok(json!({"plots": plots, "returned": returned, "total": returned, "scroll_id": scroll::pack(&"end")?}))
}

fn debug_images(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let items = call
        .opt_list("metrics")?
        .ok_or_else(|| ApiFault::missing_field("metrics"))?;
    let iters = positive(call, "iters", 1)?;
    let earlier = call.flag("navigate_earlier", true)?;
    let refresh = call.flag("refresh", false)?;
    let mut reached: BTreeMap<String, Option<i64>> = match call.opt_str("scroll_id")? {
        Some(text) if !text.is_empty() && !refresh => scroll::unpack(text)?,
        _ => BTreeMap::new(),
    };
    let mut wanted: Vec<(String, MetricFilter)> = Vec::new();
    for item in items {
        let task = item
            .get("task")
            .and_then(Value::as_str)
            .ok_or_else(|| ApiFault::missing_field("task"))?;
        let at = match wanted.iter().position(|(known, _)| known == task) {
            Some(at) => at,
            None => {
                store::tasks::require(tx, task)?;
                wanted.push((task.to_owned(), MetricFilter::default()));
                wanted.len() - 1
            }
        };
        wanted[at].1.push(item)?;
    }
    let mut metrics = Vec::new();
    for (task, filter) in wanted {
        let beyond = reached.get(&task).copied().flatten();
        let (iterations, last) = samples::images(tx, &task, &filter, iters, earlier, beyond)?;
        metrics.push(json!({"task": task, "iterations": iterations}));
        reached.insert(task, last);
    }
    Ok(json!({"metrics": metrics, "scroll_id": scroll::pack(&reached)?}))
}

/// Where somebody is who steps from sample to sample.
#[derive(Debug, Serialize, Deserialize)]
struct Step {
    /// Only samples of this metric, when set.
    metric: Option<String>,
    at: samples::SamplePosition,
}

/// One sample of a metric and variant, the newest unless an iteration is given.
fn sample(call: &Call, tx: &Transaction<'_>, kind: Kind) -> Result<Value, ApiFault> {
    let (task, _) = required_task(call, tx)?;
    let (metric, variant) = (call.required_str("metric")?, call.required_str("variant")?);
    let found = samples::one(tx, &task, kind, metric, variant, call.opt_i64("iteration")?)?;
    let only = call
        .flag("navigate_current_metric", true)?
        .then(|| metric.to_owned());
    shown(tx, &task, kind, only, found)
}

/// The sample beside the last one: of the next variant, or with `next_iteration` of another iteration.
fn next_sample(call: &Call, tx: &Transaction<'_>, kind: Kind) -> Result<Value, ApiFault> {
    let (task, _) = required_task(call, tx)?;
    let step: Step = scroll::unpack(call.required_str("scroll_id")?)?;
    let neighbour = Neighbour {
        earlier: call.flag("navigate_earlier", true)?,
        other_iteration: call.flag("next_iteration", false)?,
        metric: step.metric.as_deref(),
    };
    match samples::neighbour(tx, &task, kind, &step.at, neighbour)? {
        Some(found) => shown(tx, &task, kind, step.metric.clone(), Some(found)),
        None => Ok(json!({"scroll_id": scroll::pack(&step)?, "event": null})),
    }
}

fn shown(
    tx: &Connection,
    task: &str,
    kind: Kind,
    metric: Option<String>,
    found: Option<(samples::SamplePosition, Value)>,
) -> Result<Value, ApiFault> {
    let Some((at, event)) = found else {
        return Ok(json!({"scroll_id": null, "event": null}));
    };
    let (least, greatest) = samples::iterations(tx, task, kind, &at)?;
    Ok(json!({
        "scroll_id": scroll::pack(&Step { metric, at })?, "event": event,
        "min_iteration": least, "max_iteration": greatest,
    }))
}
