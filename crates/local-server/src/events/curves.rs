//! Reading scalars: thinned curves, single values, and what there is.

use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, params, params_from_iter};
use serde_json::{Map, Value, json};

use super::SINGLE_VALUE_ITER;
use super::filter::MetricFilter;
use super::histogram::sample;
use super::incoming::Kind;
use super::last_metrics::name_key;
use crate::api::ApiFault;
use crate::time;

/// What the x axis of a curve shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Axis {
    Iteration,
    /// Milliseconds since the epoch.
    Timestamp,
    /// The same as ISO 8601 text.
    IsoTime,
}

impl Axis {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "iter" => Some(Self::Iteration),
            "timestamp" => Some(Self::Timestamp),
            "iso_time" => Some(Self::IsoTime),
            _ => None,
        }
    }

    /// The place of a single point.
    pub(crate) fn value(self, iter: i64, timestamp: i64) -> Value {
        match self {
            Self::Iteration => json!(iter),
            Self::Timestamp => json!(timestamp),
            Self::IsoTime => json!(time::iso(timestamp)),
        }
    }

    fn column(self) -> &'static str {
        match self {
            Self::Iteration => "iter",
            Self::Timestamp | Self::IsoTime => "timestamp",
        }
    }

    fn show(self, xs: Vec<i64>) -> Value {
        match self {
            Self::Iteration | Self::Timestamp => json!(xs),
            Self::IsoTime => xs.into_iter().map(time::iso).collect(),
        }
    }
}

/// One curve, thinned.
pub(crate) struct Curve {
    pub(crate) metric: String,
    pub(crate) variant: String,
    pub(crate) x: Value,
    pub(crate) y: Vec<f64>,
}

/// The curves of a task or model, ordered by metric and variant.
pub(crate) fn curves(
    connection: &Connection,
    owner: &str,
    filter: &MetricFilter,
    axis: Axis,
    samples: usize,
) -> Result<Vec<Curve>, ApiFault> {
    let (condition, mut wanted) = filter.condition();
    let column = axis.column();
    let sql = format!(
        "SELECT metric, variant, {column}, value FROM events_metric
            WHERE task = ? AND type = ? AND iter <> ? AND value IS NOT NULL AND {condition}
            ORDER BY metric, variant, {column}"
    );
    let mut parameters: Vec<SqlValue> = vec![
        owner.to_owned().into(),
        Kind::Scalar.as_str().to_owned().into(),
        SINGLE_VALUE_ITER.into(),
    ];
    parameters.append(&mut wanted);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(parameters))?;
    let mut curves: Vec<Curve> = Vec::new();
    let mut points: Vec<(i64, f64)> = Vec::new();
    while let Some(row) = rows.next()? {
        let (metric, variant) = (row.get_ref(0)?.as_str(), row.get_ref(1)?.as_str());
        let (metric, variant) = (metric.unwrap_or_default(), variant.unwrap_or_default());
        let same = curves
            .last()
            .is_some_and(|curve| curve.metric == metric && curve.variant == variant);
        if !same {
            finish(curves.last_mut(), &mut points, axis, samples);
            curves.push(Curve {
                metric: metric.to_owned(),
                variant: variant.to_owned(),
                x: Value::Null,
                y: Vec::new(),
            });
        }
        points.push((row.get(2)?, row.get(3)?));
    }
    finish(curves.last_mut(), &mut points, axis, samples);
    Ok(curves)
}

fn finish(curve: Option<&mut Curve>, points: &mut Vec<(i64, f64)>, axis: Axis, samples: usize) {
    if let Some(curve) = curve {
        let (xs, ys) = sample(points, samples);
        curve.x = axis.show(xs);
        curve.y = ys;
    }
    points.clear();
}

/// The label of the x axis that a task's summary remembers for a curve.
pub(crate) fn axis_label<'a>(owner: &'a Value, curve: &Curve) -> Option<&'a Value> {
    owner
        .get("last_metrics")?
        .get(name_key(&curve.metric))?
        .get(name_key(&curve.variant))?
        .get("x_axis_label")
}

/// Values without a history.
pub(crate) fn single_values(
    connection: &Connection,
    owner: &str,
    filter: &MetricFilter,
) -> Result<Vec<Value>, ApiFault> {
    let (condition, mut wanted) = filter.condition();
    let sql = format!(
        "SELECT metric, variant, value, timestamp FROM events_metric
            WHERE task = ? AND type = ? AND iter = ? AND {condition} ORDER BY metric, variant"
    );
    let mut parameters: Vec<SqlValue> = vec![
        owner.to_owned().into(),
        Kind::Scalar.as_str().to_owned().into(),
        SINGLE_VALUE_ITER.into(),
    ];
    parameters.append(&mut wanted);
    let values = connection
        .prepare_cached(&sql)?
        .query_map(params_from_iter(parameters), |row| {
            let (metric, variant): (String, String) = (row.get(0)?, row.get(1)?);
            let (value, timestamp): (f64, i64) = (row.get(2)?, row.get(3)?);
            Ok(json!({"metric": metric, "variant": variant, "value": value, "timestamp": timestamp}))
        })?
        .collect::<Result<_, _>>()?;
    Ok(values)
}

/// Metrics and variants that have events of a type, as `{metric: [variant]}`.
pub(crate) fn names(
    connection: &Connection,
    owner: &str,
    kind: Kind,
) -> Result<Map<String, Value>, ApiFault> {
    let sql = "SELECT DISTINCT metric, variant FROM events_metric WHERE task = ?1 AND type = ?2
        ORDER BY metric, variant";
    let mut names = Map::new();
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![owner, kind.as_str()])?;
    while let Some(row) = rows.next()? {
        let slot = names.entry(row.get::<_, String>(0)?).or_insert_with(|| json!([]));
        if let Value::Array(variants) = slot {
            variants.push(row.get::<_, String>(1)?.into());
        }
    }
    Ok(names)
}

/// Names of the metrics that have events of a type.
pub(crate) fn metrics_of_type(
    connection: &Connection,
    owner: &str,
    kind: Kind,
) -> Result<Vec<String>, ApiFault> {
    let sql = "SELECT DISTINCT metric FROM events_metric WHERE task = ?1 AND type = ?2 ORDER BY metric";
    let names = connection
        .prepare_cached(sql)?
        .query_map(params![owner, kind.as_str()], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(names)
}

/// A point as it was reported.
pub(crate) struct RawPoint {
    pub(crate) variant: String,
    pub(crate) iter: i64,
    pub(crate) timestamp: i64,
    pub(crate) value: f64,
}

/// The last point that a reader has seen: metric, variant, iteration, time.
pub(crate) type RawPosition = (String, String, i64, i64);

/// At most `size` points after a position, and the position of the last one.
pub(crate) fn raw(
    connection: &Connection,
    owner: &str,
    filter: &MetricFilter,
    after: Option<RawPosition>,
    size: usize,
) -> Result<(Vec<RawPoint>, Option<RawPosition>), ApiFault> {
    let (condition, mut wanted) = filter.condition();
    let mut parameters: Vec<SqlValue> = vec![
        owner.to_owned().into(),
        Kind::Scalar.as_str().to_owned().into(),
        SINGLE_VALUE_ITER.into(),
    ];
    parameters.append(&mut wanted);
    let beyond = match &after {
        Some((metric, variant, iter, timestamp)) => {
            parameters.extend([metric.clone().into(), variant.clone().into()]);
            parameters.extend([SqlValue::from(*iter), SqlValue::from(*timestamp)]);
            "AND (metric, variant, iter, timestamp) > (?, ?, ?, ?)"
        }
        None => "",
    };
    parameters.push(i64::try_from(size).unwrap_or(i64::MAX).into());
    // A point is identified by its metric, variant and iteration, so no two have the same position.
    let sql = format!(
        "SELECT metric, variant, iter, timestamp, value FROM events_metric
            WHERE task = ? AND type = ? AND iter <> ? AND value IS NOT NULL AND {condition} {beyond}
            ORDER BY metric, variant, iter, timestamp LIMIT ?"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(parameters))?;
    let (mut points, mut position) = (Vec::new(), after);
    while let Some(row) = rows.next()? {
        let (variant, iter, timestamp): (String, i64, i64) = (row.get(1)?, row.get(2)?, row.get(3)?);
        position = Some((row.get(0)?, variant.clone(), iter, timestamp));
        points.push(RawPoint {
            variant,
            iter,
            timestamp,
            value: row.get(4)?,
        });
    }
    Ok((points, position))
}

/// How many points there are in all.
pub(crate) fn count(connection: &Connection, owner: &str, filter: &MetricFilter) -> Result<i64, ApiFault> {
    let (condition, mut wanted) = filter.condition();
    let sql = format!(
        "SELECT count(*) FROM events_metric WHERE task = ? AND type = ? AND iter <> ? AND value IS NOT NULL AND {condition}"
    );
    let mut parameters: Vec<SqlValue> = vec![
        owner.to_owned().into(),
        Kind::Scalar.as_str().to_owned().into(),
        SINGLE_VALUE_ITER.into(),
    ];
    parameters.append(&mut wanted);
    Ok(connection
        .prepare_cached(&sql)?
        .query_row(params_from_iter(parameters), |row| row.get(0))?)
}
