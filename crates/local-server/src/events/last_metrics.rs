//! The summary of scalars that a task carries (`last_metrics`): latest, smallest, largest, first and mean value of
//! every metric and variant. Pure.

use md5::{Digest, Md5};
use serde_json::{Map, Value, json};

/// No more pairs of metric and variant are summarised than this; later pairs are stored but not summarised.
pub(crate) const MAX_PAIRS: usize = 2000;

/// One scalar of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(crate) metric: String,
    pub(crate) variant: String,
    pub(crate) iter: i64,
    pub(crate) ts: i64,
    pub(crate) value: f64,
    /// False when this point replaced a stored one, which was counted when it came first.
    pub(crate) is_new: bool,
    pub(crate) x_axis_label: Option<String>,
}

/// The key of a metric or variant in the summary: md5 as hexadecimal digits, because names may hold any character.
pub(crate) fn name_key(name: &str) -> String {
    hex(&Md5::digest(name.as_bytes()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Merges the points of one batch into a task's summary.
pub(crate) fn merge(summary: &mut Map<String, Value>, batch: &[Point]) {
    let mut groups: Vec<((&str, &str), Vec<&Point>)> = Vec::new();
    let mut index = std::collections::HashMap::new();
    for point in batch {
        let name = (point.metric.as_str(), point.variant.as_str());
        let at = *index.entry(name).or_insert_with(|| {
            groups.push((name, Vec::new()));
            groups.len() - 1
        });
        groups[at].1.push(point);
    }
    let mut pairs: usize = summary.values().filter_map(Value::as_object).map(Map::len).sum();
    for ((metric, variant), points) in groups {
        let (metric_key, variant_key) = (name_key(metric), name_key(variant));
        let known = summary
            .get(&metric_key)
            .and_then(|m| m.get(&variant_key))
            .is_some();
        if !known {
            if pairs >= MAX_PAIRS {
                continue;
            }
            pairs += 1;
        }
        let metric_entry = summary.entry(metric_key).or_insert_with(|| json!({}));
        if !metric_entry.is_object() {
            *metric_entry = json!({});
        }
        if let Some(variants) = metric_entry.as_object_mut() {
            let entry = variants.entry(variant_key).or_insert_with(|| json!({}));
            let mut fields = entry.as_object().cloned().unwrap_or_default();
            merge_pair(&mut fields, metric, variant, &points);
            *entry = Value::Object(fields);
        }
    }
}

fn merge_pair(entry: &mut Map<String, Value>, metric: &str, variant: &str, points: &[&Point]) {
    entry.insert("metric".into(), metric.into());
    entry.insert("variant".into(), variant.into());
    if let Some(latest) = points.iter().max_by_key(|p| (p.iter, p.ts)) {
        entry.insert("value".into(), latest.value.into());
        if let Some(label) = &latest.x_axis_label {
            entry.insert("x_axis_label".into(), label.as_str().into());
        }
    }
    for point in points {
        keep_if(entry, "min_value", point, |new, old| new < old);
        keep_if(entry, "max_value", point, |new, old| new > old);
        let earlier = entry
            .get("first_value_iteration")
            .and_then(Value::as_i64)
            .is_none_or(|i| point.iter < i);
        if earlier {
            entry.insert("first_value".into(), point.value.into());
            entry.insert("first_value_iteration".into(), point.iter.into());
        }
    }
    let mut count = entry.get("count").and_then(Value::as_i64).unwrap_or(0);
    let mut mean = entry.get("mean_value").and_then(Value::as_f64).unwrap_or(0.0);
    for point in points.iter().filter(|p| p.is_new) {
        count += 1;
        mean += (point.value - mean) / count as f64;
    }
    entry.insert("count".into(), count.into());
    entry.insert("mean_value".into(), ((mean * 100.0).round() / 100.0).into());
}

fn keep_if(entry: &mut Map<String, Value>, name: &str, point: &Point, better: fn(f64, f64) -> bool) {
    if entry
        .get(name)
        .and_then(Value::as_f64)
        .is_none_or(|old| better(point.value, old))
    {
        entry.insert(name.into(), point.value.into());
        entry.insert(format!("{name}_iteration"), point.iter.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn point(iter: i64, value: f64) -> Point {
        Point {
            metric: "loss".into(),
            variant: "train".into(),
            iter,
            ts: iter,
            value,
            is_new: true,
            x_axis_label: None,
        }
    }

    fn only_entry(summary: &Map<String, Value>) -> &Value {
        &summary[&name_key("loss")][&name_key("train")]
    }

    #[test]
    fn keeps_latest_extremes_first_and_mean() {
        let mut summary = Map::new();
        merge(&mut summary, &[point(1, 4.0), point(0, 2.0)]);
        merge(&mut summary, &[point(2, 9.0), point(3, 1.0)]);
        assert_eq!(
            *only_entry(&summary),
            json!({"metric": "loss", "variant": "train", "value": 1.0,
                "min_value": 1.0, "min_value_iteration": 3, "max_value": 9.0, "max_value_iteration": 2,
                "first_value": 2.0, "first_value_iteration": 0, "count": 4, "mean_value": 4.0})
        );
    }

    #[test]
    fn the_value_is_that_of_the_newest_point_of_the_last_batch() {
        let mut summary = Map::new();
        merge(&mut summary, &[point(10, 1.0)]);
        merge(&mut summary, &[point(5, 2.0)]);
        assert_eq!(only_entry(&summary)["value"], 2.0);
    }

    #[test]
    fn a_replaced_point_is_not_counted_again() {
        let mut summary = Map::new();
        merge(&mut summary, &[point(1, 4.0)]);
        merge(
            &mut summary,
            &[Point {
                is_new: false,
                ..point(1, 4.0)
            }],
        );
        assert_eq!(only_entry(&summary)["count"], 1);
    }

    #[test]
    fn the_number_of_pairs_is_bounded() {
        let mut summary = Map::new();
        let many: Vec<Point> = (0..MAX_PAIRS + 5)
            .map(|i| Point {
                variant: i.to_string(),
                ..point(0, 1.0)
            })
            .collect();
        merge(&mut summary, &many);
        assert_eq!(summary[&name_key("loss")].as_object().unwrap().len(), MAX_PAIRS);
        merge(
            &mut summary,
            &[Point {
                variant: "0".into(),
                ..point(1, 7.0)
            }],
        );
        assert_eq!(
            summary[&name_key("loss")][&name_key("0")]["value"],
            7.0,
            "a known pair still moves"
        );
    }

    proptest! {
        #[test]
        fn the_cut_into_batches_does_not_change_extremes_and_count(
            values in prop::collection::vec(-1e3..1e3f64, 1..40),
            cut in 0usize..40,
        ) {
            let points: Vec<Point> = values.iter().enumerate().map(|(i, v)| point(i as i64, *v)).collect();
            let cut = cut.min(points.len());
            let (mut whole, mut parts) = (Map::new(), Map::new());
            merge(&mut whole, &points);
            merge(&mut parts, &points[..cut]);
            merge(&mut parts, &points[cut..]);
            for field in ["value", "min_value", "max_value", "first_value", "count", "max_value_iteration"] {
                prop_assert_eq!(&only_entry(&whole)[field], &only_entry(&parts)[field]);
            }
        }
    }
}
