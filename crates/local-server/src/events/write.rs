//! Storing a batch of events and moving what their owners say about themselves.
//!
//! Everything happens in the transaction of the call: either the whole batch is on disk, with its owners' summaries,
//! or nothing is. An owner's document is read once and written once per batch, however many events it has.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rusqlite::{Connection, params};
use serde_json::{Map, Value, json};

use super::SINGLE_VALUE_ITER;
use super::incoming::{Incoming, Kind};
use super::last_metrics::{self, Point, name_key};
use crate::api::ApiFault;
use crate::{store, time};

/// Metrics of the machine that do not count as progress of the task.
const MACHINE_METRICS: [&str; 2] = [":monitor:machine", ":monitor:gpu"];

/// What became of a batch.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) added: u64,
    /// How often each reason refused an event.
    pub(crate) refused: BTreeMap<String, u64>,
}

impl Outcome {
    /// The reply of the adding calls: 400/131 when nothing was stored.
    pub(crate) fn into_reply(self) -> Result<Value, ApiFault> {
        let errors: u64 = self.refused.values().sum();
        let info = json!(self.refused);
        if self.added == 0 {
            let reasons: Vec<&str> = self.refused.keys().map(String::as_str).collect();
            let message = format!("Events not added ({})", reasons.join("; "));
            return Err(ApiFault::new(400, 131, message).with("errors_info", info));
        }
        Ok(json!({"added": self.added, "errors": errors, "errors_info": info}))
    }
}

/// Who events belong to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Owner {
    id: String,
    is_model: bool,
}

/// An owner that takes part in the batch, and what the batch says about it.
struct Target {
    doc: Value,
    scalars: Vec<Point>,
    largest_iter: Option<i64>,
    /// Metrics seen, with the type of event.
    metrics: BTreeSet<(String, &'static str)>,
}

/// Stores the events of one call. `events` holds, for every line, the event or the reason why it is none.
///
/// # Errors
/// 400/12 when lines contradict each other; then nothing is stored.
pub(crate) fn add(
    connection: &Connection,
    events: Vec<Result<Incoming, String>>,
    now: i64,
) -> Result<Outcome, ApiFault> {
    check_agreement(&events)?;
    let mut outcome = Outcome::default();
    let mut targets: HashMap<Owner, Option<Target>> = HashMap::new();
    let mut order = Vec::new();
    for event in events {
        let refusal = match event {
            Err(reason) => Some(reason),
            Ok(event) => {
                let owner = Owner {
                    id: event.owner.clone(),
                    is_model: event.model_event,
                };
                if !targets.contains_key(&owner) {
                    targets.insert(owner.clone(), load(connection, &owner, event.allow_locked)?);
                    order.push(owner.clone());
                }
                match targets.get_mut(&owner) {
                    Some(Some(target)) => {
                        insert(connection, &event, target)?;
                        None
                    }
                    _ => Some(format!("Invalid task id {}", event.owner)),
                }
            }
        };
        match refusal {
            None => outcome.added += 1,
            Some(reason) => *outcome.refused.entry(reason).or_default() += 1,
        }
    }
    for owner in order {
        if let Some(Some(mut target)) = targets.remove(&owner) {
            target.summarise(&owner, now);
            if owner.is_model {
                store::models::save(connection, &target.doc)?;
            } else {
                store::tasks::save(connection, &target.doc)?;
            }
        }
    }
    Ok(outcome)
}

/// One owner must be one thing in a batch, under one rule about locked tasks.
fn check_agreement(events: &[Result<Incoming, String>]) -> Result<(), ApiFault> {
    let mut seen: HashMap<&str, &Incoming> = HashMap::new();
    for event in events.iter().flatten() {
        let first = *seen.entry(&event.owner).or_insert(event);
        if first.model_event != event.model_event {
            return Err(ApiFault::validation(format!(
                "{} is used both as a task and as a model",
                event.owner
            )));
        }
        if first.allow_locked != event.allow_locked {
            return Err(ApiFault::validation(format!(
                "events of {} do not agree on 'allow_locked'",
                event.owner
            )));
        }
    }
    Ok(())
}

/// The owner, unless it does not exist or may not be written to.
fn load(connection: &Connection, owner: &Owner, allow_locked: bool) -> Result<Option<Target>, ApiFault> {
    let doc = if owner.is_model {
        store::models::load(connection, &owner.id)?
    } else {
        store::tasks::load(connection, &owner.id)?
    };
    let Some(doc) = doc else { return Ok(None) };
    let locked = !owner.is_model && matches!(doc["status"].as_str(), Some("published" | "publishing"));
    if locked && !allow_locked {
        return Ok(None);
    }
    Ok(Some(Target {
        doc,
        scalars: Vec::new(),
        largest_iter: None,
        metrics: BTreeSet::new(),
    }))
}

fn insert(connection: &Connection, event: &Incoming, target: &mut Target) -> Result<(), ApiFault> {
    let doc = serde_json::to_string(&event.doc)?;
    let Some(key) = event.identity() else {
        let sql = "INSERT INTO events_log (task, timestamp, doc) VALUES (?1, ?2, ?3)";
        connection
            .prepare_cached(sql)?
            .execute(params![event.owner, event.ts, doc])?;
        return Ok(());
    };
    let kind = event.kind.as_str();
    let row = params![
        key,
        event.owner,
        kind,
        event.metric,
        event.variant,
        event.iter,
        event.ts,
        event.value,
        doc
    ];
    let sql = "INSERT INTO events_metric (key, task, type, metric, variant, iter, timestamp, value, doc)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (key) DO NOTHING";
    let is_new = connection.prepare_cached(sql)?.execute(row)? > 0;
    if !is_new {
        let sql = "UPDATE events_metric SET type = ?2, timestamp = ?3, value = ?4, doc = ?5 WHERE key = ?1";
        connection
            .prepare_cached(sql)?
            .execute(params![key, kind, event.ts, event.value, doc])?;
    }
    target.note(event, is_new);
    Ok(())
}

impl Target {
    fn note(&mut self, event: &Incoming, is_new: bool) {
        self.metrics.insert((event.metric.clone(), event.kind.as_str()));
        if !MACHINE_METRICS.contains(&event.metric.as_str()) && event.iter != SINGLE_VALUE_ITER {
            self.largest_iter = self.largest_iter.max(Some(event.iter));
        }
        if let (Kind::Scalar, Some(value)) = (event.kind, event.value) {
            self.scalars.push(Point {
                metric: event.metric.clone(),
                variant: event.variant.clone(),
                iter: event.iter,
                ts: event.ts,
                value,
                is_new,
                x_axis_label: event
                    .doc
                    .get("x_axis_label")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
            });
        }
    }

    /// Moves the owner's times, iteration and summaries.
    fn summarise(&mut self, owner: &Owner, now: i64) {
        let written = time::iso(now);
        let Some(doc) = self.doc.as_object_mut() else {
            return;
        };
        doc.insert("last_update".into(), written.as_str().into());
        if !owner.is_model && doc.get("status").and_then(Value::as_str) == Some("in_progress") {
            let started = doc.get("started").and_then(Value::as_str).and_then(time::parse);
            if let Some(started) = started {
                doc.insert("active_duration".into(), ((now - started).max(0) / 1000).into());
            }
        }
        let known = doc.get("last_iteration").and_then(Value::as_i64).unwrap_or(0);
        if let Some(largest) = self.largest_iter.filter(|iter| *iter > known) {
            doc.insert("last_iteration".into(), largest.into());
        }
        if !self.scalars.is_empty() {
            last_metrics::merge(object_field(doc, "last_metrics"), &self.scalars);
        }
        for (metric, kind) in &self.metrics {
            let stats = object_field(object_field(doc, "metric_stats"), &name_key(metric));
            stats.insert("metric".into(), metric.as_str().into());
            object_field(stats, "event_stats_by_type")
                .insert((*kind).into(), json!({"last_update": written}));
        }
    }
}

/// The object under a name, made when it is missing or something else.
fn object_field<'a>(of: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    let slot = of.entry(name.to_owned()).or_insert_with(|| json!({}));
    if !slot.is_object() {
        *slot = json!({});
    }
    match slot {
        Value::Object(fields) => fields,
        _ => unreachable!("the slot was just made an object"),
    }
}
