//! `events.*` about console lines: reading them in the ways of all ages, as a file, and clearing them.

use std::fmt::Write as _;

use rusqlite::Transaction;
use serde_json::{Value, json};

use super::events::{batch_size, check_lock, order, required_task};
use super::update::text;
use super::{ApiFault, Call, Endpoint};
use crate::events::{log, scroll};
use crate::time;

/// A downloaded console is put together in memory; beyond this (bytes) it must be read in pages.
const MAX_DOWNLOAD: usize = 64 * 1024 * 1024;
/// Lines read at a time for a download.
const DOWNLOAD_STEP: usize = 2000;

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::read("events.get_task_log", (1, 5), get_task_log_by_order),
        Endpoint::read("events.get_task_log", (1, 7), get_task_log_from),
        Endpoint::read("events.get_task_log", (2, 9), get_task_log),
        Endpoint::read("events.download_task_log", (1, 5), download),
        Endpoint::write("events.clear_task_log", (2, 18), clear_task_log),
    ]
}

/// The names of metrics in a request as a JSON list; nothing means all lines.
fn metrics(call: &Call, field: &str) -> Result<Option<String>, ApiFault> {
    let names = call.opt_list(field)?.into_iter().flatten().map(|item| {
        let name = item.as_str().or_else(|| text(item, "metric"));
        name.ok_or_else(|| super::call::wrong_type(field, "list of metrics"))
    });
    let names = names.collect::<Result<Vec<_>, _>>()?;
    Ok((!names.is_empty()).then(|| json!(names).to_string()))
}

fn get_task_log(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let task = required_task(call, tx)?.0;
    let earlier = call.flag("navigate_earlier", true)?;
    let page = log::Page {
        from: call.opt_i64("from_timestamp")?,
        earlier,
        size: batch_size(call, 5000)?,
    };
    let metrics = metrics(call, "metrics")?;
    let mut events = log::page(tx, &task, page, metrics.as_deref())?;
    let natural = if earlier { "desc" } else { "asc" };
    if order(call, natural)? != natural {
        events.reverse();
    }
    let total = log::count(tx, &task, metrics.as_deref())?;
    Ok(json!({"returned": events.len(), "total": total, "events": events}))
}

/// Versions 1.7 to 2.8: from one of the ends, in batches that scroll.
fn get_task_log_from(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let earlier = match call.opt_str("from")? {
        None | Some("head") => false,
        Some("tail") => true,
        Some(other) => {
            return Err(ApiFault::validation(format!(
                "field 'from' is '{other}'; use head or tail"
            )));
        }
    };
    scrolled(call, tx, earlier, order(call, "desc")?)
}

/// Versions before 1.7: in one of the orders, in batches that scroll.
fn get_task_log_by_order(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let order = order(call, "desc")?;
    scrolled(call, tx, order == "desc", order)
}

fn scrolled(call: &Call, tx: &Transaction<'_>, earlier: bool, order: &str) -> Result<Value, ApiFault> {
    let task = required_task(call, tx)?.0;
    let from = match call.opt_str("scroll_id")? {
        None | Some("") => None,
        Some(position) => scroll::unpack::<Option<i64>>(position)?,
    };
    let size = batch_size(call, 500)?;
    let mut events = log::page(tx, &task, log::Page { from, earlier, size }, None)?;
    let reached = events
        .last()
        .and_then(|event| event["timestamp"].as_i64())
        .or(from);
    if (order == "desc") != earlier {
        events.reverse();
    }
    Ok(json!({
        "returned": events.len(), "total": log::count(tx, &task, None)?, "events": events,
        "scroll_id": scroll::pack(&reached)?,
    }))
}

/// The whole console as a text file: one JSON object a line, or lines of text in the caller's format.
fn download(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let task = required_task(call, tx)?.0;
    let as_json = match call.opt_str("line_type")? {
        None | Some("json") => true,
        Some("text") => false,
        Some(other) => {
            return Err(ApiFault::validation(format!(
                "field 'line_type' is '{other}'; use json or text"
            )));
        }
    };
    let format = call
        .opt_str("line_format")?
        .unwrap_or("{asctime} {worker} {level} {msg}");
    let (mut file, mut from) = (String::new(), None);
    loop {
        let page = log::Page {
            from,
            earlier: false,
            size: DOWNLOAD_STEP,
        };
        let events = log::page(tx, &task, page, None)?;
        let Some(last) = events.last() else {
            return Ok(Value::String(file));
        };
        from = last["timestamp"].as_i64();
        for event in &events {
            let line = if as_json {
                event.to_string()
            } else {
                formatted(format, event)
            };
            // Writing to a string cannot fail.
            let _ = writeln!(file, "{}", line.trim_end_matches('\n'));
        }
        if file.len() > MAX_DOWNLOAD {
            return Err(ApiFault::validation(format!(
                "the console is larger than {MAX_DOWNLOAD} bytes; read it in pages with events.get_task_log"
            )));
        }
    }
}

/// A line in the caller's format, whose names stand in braces. Only the format is searched for names, so that what
/// a task prints is never taken for one.
fn formatted(format: &str, event: &Value) -> String {
    let mut line = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('{') {
        line.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            line.push('{');
            rest = after;
            continue;
        };
        match name {
            "asctime" => line.push_str(&time::iso(event["timestamp"].as_i64().unwrap_or_default())),
            name => line.push_str(text(event, name).unwrap_or_default()),
        }
        rest = after;
    }
    line.push_str(rest);
    line
}

fn clear_task_log(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let (id, task) = required_task(call, tx)?;
    check_lock(call, &task)?;
    let age = call.opt_i64("threshold_sec")?.unwrap_or(0);
    let until = if age > 0 {
        call.now.saturating_sub(age.saturating_mul(1000))
    } else {
        i64::MAX
    };
    let (include, exclude) = (
        metrics(call, "include_metrics")?,
        metrics(call, "exclude_metrics")?,
    );
    let deleted = log::delete(tx, &id, until, include.as_deref(), exclude.as_deref())?;
    Ok(json!({"deleted": deleted}))
}
