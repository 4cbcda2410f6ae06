//! Reading whole events: page by page in order of iteration, the newest plots, and debug images by iteration.

use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, params_from_iter};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::filter::MetricFilter;
use super::incoming::Kind;
use crate::api::ApiFault;

/// The last event that a reader has seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Console lines have no iteration; they follow everything else.
    in_logs: bool,
    iter: i64,
    timestamp: i64,
    /// Identity of the event, or number of the console line.
    key: String,
}

/// Which events are wanted, in which order.
#[derive(Clone, Debug)]
pub(crate) struct Query<'a> {
    pub(crate) owner: &'a str,
    /// Nothing means every type.
    pub(crate) kind: Option<Kind>,
    pub(crate) filter: &'a MetricFilter,
    pub(crate) descending: bool,
}

impl Query<'_> {
    /// How many events there are in all.
    pub(crate) fn count(&self, connection: &Connection) -> Result<i64, ApiFault> {
        let mut total = 0;
        for logs in [false, true] {
            if let Some((condition, parameters)) = self.source(logs) {
                let sql = format!("SELECT count(*) FROM {} WHERE {condition}", table(logs));
                let mut statement = connection.prepare_cached(&sql)?;
                total += statement.query_row(params_from_iter(parameters), |row| row.get::<_, i64>(0))?;
            }
        }
        Ok(total)
    }

    /// At most `size` events after a position, and the position of the last one.
    pub(crate) fn page(
        &self,
        connection: &Connection,
        after: Option<Position>,
        size: usize,
    ) -> Result<(Vec<Value>, Option<Position>), ApiFault> {
        let mut events = Vec::new();
        let mut position = after;
        for logs in [false, true] {
            if position
                .as_ref()
                .is_some_and(|position| position.in_logs && !logs)
            {
                continue;
            }
            if events.len() < size {
                let room = size - events.len();
                self.read(connection, logs, &mut position, room, &mut events)?;
            }
        }
        Ok((events, position))
    }

    fn read(
        &self,
        connection: &Connection,
        logs: bool,
        position: &mut Option<Position>,
        limit: usize,
        events: &mut Vec<Value>,
    ) -> Result<(), ApiFault> {
        let Some((mut condition, mut parameters)) = self.source(logs) else {
            return Ok(());
        };
        let (step, direction) = if self.descending {
            ("<", "DESC")
        } else {
            (">", "ASC")
        };
        let (columns, order) = if logs {
            (
                "doc, 0, timestamp, seq",
                format!("timestamp {direction}, seq {direction}"),
            )
        } else {
            (
                "doc, iter, timestamp, key",
                format!("iter {direction}, timestamp {direction}, key {direction}"),
            )
        };
        match position.as_ref().filter(|position| position.in_logs == logs) {
            Some(last) if logs => {
                condition.push_str(&format!(" AND (timestamp, seq) {step} (?, CAST(? AS INTEGER))"));
                parameters.extend([last.timestamp.into(), last.key.clone().into()]);
            }
            Some(last) => {
                condition.push_str(&format!(" AND (iter, timestamp, key) {step} (?, ?, ?)"));
                parameters.extend([last.iter.into(), last.timestamp.into(), last.key.clone().into()]);
            }
            None => {}
        }
        parameters.push(i64::try_from(limit).unwrap_or(i64::MAX).into());
        let sql = format!(
            "SELECT {columns} FROM {} WHERE {condition} ORDER BY {order} LIMIT ?",
            table(logs)
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(parameters))?;
        while let Some(row) = rows.next()? {
            events.push(serde_json::from_str(
                row.get_ref(0)?.as_str().unwrap_or_default(),
            )?);
            let key = if logs {
                row.get::<_, i64>(3)?.to_string()
            } else {
                row.get(3)?
            };
            *position = Some(Position {
                in_logs: logs,
                iter: row.get(1)?,
                timestamp: row.get(2)?,
                key,
            });
        }
        Ok(())
    }

    /// The condition for one of the two tables, or nothing when it holds none of the wanted types.
    fn source(&self, logs: bool) -> Option<(String, Vec<SqlValue>)> {
        let owner = SqlValue::from(self.owner.to_owned());
        match (logs, self.kind) {
            (true, None | Some(Kind::Log)) => Some(("task = ?".to_owned(), vec![owner])),
            (true, Some(_)) | (false, Some(Kind::Log)) => None,
            (false, kind) => {
                let (filter, mut wanted) = self.filter.condition();
                let mut parameters = vec![owner];
                let kind_condition = match kind {
                    Some(kind) => {
                        parameters.push(kind.as_str().to_owned().into());
                        "type = ? AND "
                    }
                    None => "",
                };
                parameters.append(&mut wanted);
                Some((format!("task = ? AND {kind_condition}{filter}"), parameters))
            }
        }
    }
}

fn table(logs: bool) -> &'static str {
    if logs { "events_log" } else { "events_metric" }
}

/// The events of the newest `iters` iterations of every metric and variant, newest first within each.
pub(crate) fn newest(
    connection: &Connection,
    owner: &str,
    kind: Kind,
    filter: &MetricFilter,
    iters: i64,
) -> Result<Vec<Value>, ApiFault> {
    let (condition, mut wanted) = filter.condition();
    // The ranking runs over the index; only the events that are returned have their documents read.
    let sql = format!(
        "SELECT e.doc FROM (
            SELECT key, dense_rank() OVER (PARTITION BY metric, variant ORDER BY iter DESC) AS age
                FROM events_metric WHERE task = ? AND type = ? AND {condition}
        ) AS ranked JOIN events_metric AS e ON e.key = ranked.key
        WHERE ranked.age <= ? ORDER BY e.metric, e.variant, e.iter DESC, e.key"
    );
    let mut parameters: Vec<SqlValue> = vec![owner.to_owned().into(), kind.as_str().to_owned().into()];
    parameters.append(&mut wanted);
    parameters.push(iters.into());
    documents(connection, &sql, parameters)
}

/// Debug images of the next `iters` iterations beyond `beyond`, towards older ones when `earlier` is set, as
/// `[{iter, events}]`, and the last iteration reached.
pub(crate) fn images(
    connection: &Connection,
    task: &str,
    filter: &MetricFilter,
    iters: i64,
    earlier: bool,
    beyond: Option<i64>,
) -> Result<(Vec<Value>, Option<i64>), ApiFault> {
    let (condition, wanted) = filter.condition();
    let (step, direction) = if earlier { ("<=", "DESC") } else { (">=", "ASC") };
    let bound = match beyond {
        None => Some(if earlier { i64::MAX } else { i64::MIN }),
        Some(seen) if earlier => seen.checked_sub(1),
        Some(seen) => seen.checked_add(1),
    };
    let Some(bound) = bound else {
        return Ok((Vec::new(), beyond));
    };
    let kind = Kind::DebugImage.as_str();
    let mut parameters: Vec<SqlValue> = vec![task.to_owned().into(), kind.to_owned().into(), bound.into()];
    parameters.extend(wanted.iter().cloned());
    parameters.push(iters.into());
    let sql = format!(
        "SELECT DISTINCT iter FROM events_metric WHERE task = ? AND type = ? AND iter {step} ? AND {condition}
            ORDER BY iter {direction} LIMIT ?"
    );
    let found: Vec<i64> = connection
        .prepare_cached(&sql)?
        .query_map(params_from_iter(parameters), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let sql = format!(
        "SELECT doc FROM events_metric WHERE task = ? AND type = ? AND iter = ? AND {condition}
            ORDER BY metric, variant, key"
    );
    let mut iterations = Vec::new();
    for iter in &found {
        let mut parameters: Vec<SqlValue> =
            vec![task.to_owned().into(), kind.to_owned().into(), (*iter).into()];
        parameters.extend(wanted.iter().cloned());
        let events = documents(connection, &sql, parameters)?;
        iterations.push(json!({"iter": iter, "events": events}));
    }
    Ok((iterations, found.last().copied().or(beyond)))
}

fn documents(connection: &Connection, sql: &str, parameters: Vec<SqlValue>) -> Result<Vec<Value>, ApiFault> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params_from_iter(parameters))?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        events.push(serde_json::from_str(
            row.get_ref(0)?.as_str().unwrap_or_default(),
        )?);
    }
    Ok(events)
}

/// Which sample it is: iteration, metric and variant, and the key among several of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SamplePosition {
    iter: i64,
    metric: String,
    variant: String,
    key: String,
}

/// Where the next sample is looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neighbour<'a> {
    pub(crate) earlier: bool,
    /// Another iteration instead of the next variant.
    pub(crate) other_iteration: bool,
    /// Only samples of this metric.
    pub(crate) metric: Option<&'a str>,
}

const SAMPLE: &str = "SELECT iter, metric, variant, key, doc FROM events_metric WHERE task = ? AND type = ?";

/// A sample of a metric and variant: of an iteration, or the newest.
pub(crate) fn one(
    connection: &Connection,
    task: &str,
    kind: Kind,
    metric: &str,
    variant: &str,
    iter: Option<i64>,
) -> Result<Option<(SamplePosition, Value)>, ApiFault> {
    let mut parameters: Vec<SqlValue> = sample_owner(task, kind);
    parameters.extend([metric.to_owned().into(), variant.to_owned().into()]);
    let mut sql = format!("{SAMPLE} AND metric = ? AND variant = ?");
    if let Some(iter) = iter {
        sql.push_str(" AND iter = ?");
        parameters.push(iter.into());
    }
    sql.push_str(" ORDER BY iter DESC, key DESC LIMIT 1");
    first_sample(connection, &sql, parameters)
}

/// The sample beside another one. Samples are ordered by iteration, metric, variant and key.
pub(crate) fn neighbour(
    connection: &Connection,
    task: &str,
    kind: Kind,
    at: &SamplePosition,
    neighbour: Neighbour<'_>,
) -> Result<Option<(SamplePosition, Value)>, ApiFault> {
    let (step, direction) = if neighbour.earlier {
        ("<", "DESC")
    } else {
        (">", "ASC")
    };
    let mut parameters = sample_owner(task, kind);
    let mut sql = SAMPLE.to_owned();
    if let Some(metric) = neighbour.metric {
        sql.push_str(" AND metric = ?");
        parameters.push(metric.to_owned().into());
    }
    if neighbour.other_iteration {
        sql.push_str(&format!(" AND metric = ? AND variant = ? AND iter {step} ?"));
        parameters.extend([
            at.metric.clone().into(),
            at.variant.clone().into(),
            SqlValue::from(at.iter),
        ]);
    } else {
        sql.push_str(&format!(" AND (iter, metric, variant, key) {step} (?, ?, ?, ?)"));
        parameters.push(at.iter.into());
        parameters.extend([&at.metric, &at.variant, &at.key].map(|text| text.clone().into()));
    }
    sql.push_str(&format!(
        " ORDER BY iter {direction}, metric {direction}, variant {direction}, key {direction} LIMIT 1"
    ));
    first_sample(connection, &sql, parameters)
}

/// The first and last iteration that has this metric and variant.
pub(crate) fn iterations(
    connection: &Connection,
    task: &str,
    kind: Kind,
    at: &SamplePosition,
) -> Result<(i64, i64), ApiFault> {
    let sql = "SELECT min(iter), max(iter) FROM events_metric
        WHERE task = ? AND type = ? AND metric = ? AND variant = ?";
    let mut parameters = sample_owner(task, kind);
    parameters.extend([at.metric.clone().into(), at.variant.clone().into()]);
    Ok(connection
        .prepare_cached(sql)?
        .query_row(params_from_iter(parameters), |row| Ok((row.get(0)?, row.get(1)?)))?)
}

fn sample_owner(task: &str, kind: Kind) -> Vec<SqlValue> {
    vec![task.to_owned().into(), kind.as_str().to_owned().into()]
}

fn first_sample(
    connection: &Connection,
    sql: &str,
    parameters: Vec<SqlValue>,
) -> Result<Option<(SamplePosition, Value)>, ApiFault> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params_from_iter(parameters))?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let at = SamplePosition {
        iter: row.get(0)?,
        metric: row.get(1)?,
        variant: row.get(2)?,
        key: row.get(3)?,
    };
    let doc: String = row.get(4)?;
    Ok(Some((at, serde_json::from_str(&doc)?)))
}
