//! Ordering of documents by any of their fields.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::values_at;
use crate::api::ApiFault;
use crate::api::call::wrong_type;

/// One sort key.
#[derive(Debug)]
pub(crate) struct Order {
    path: String,
    descending: bool,
    /// Texts that are numbers sort as numbers: hyperparameters are stored as text.
    numeric: bool,
}

/// Reads `order_by`. A tie-break by id is added when there is any order at all.
pub(crate) fn parse(data: &Map<String, Value>, known: &[&str]) -> Result<Vec<Order>, ApiFault> {
    let names: Vec<&str> = match data.get("order_by") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => {
            let texts: Option<Vec<&str>> = names.iter().map(Value::as_str).collect();
            texts.ok_or_else(|| wrong_type("order_by", "string or list of strings"))?
        }
        Some(_) => return Err(wrong_type("order_by", "string or list of strings")),
    };
    let mut orders = Vec::new();
    for name in names {
        // "@text_score" belongs to full-text search, which ranks nothing here.
        if name.trim_start_matches('-').starts_with('@') {
            continue;
        }
        let (path, descending) = name.strip_prefix('-').map_or((name, false), |path| (path, true));
        let head = path.split('.').next().unwrap_or(path);
        if !known.contains(&head) {
            return Err(ApiFault::unknown_field(path));
        }
        let numeric = matches!(head, "hyperparams" | "last_metrics");
        orders.push(Order {
            path: path.to_owned(),
            descending,
            numeric,
        });
    }
    if !orders.is_empty() && orders.iter().all(|order| order.path != "id") {
        orders.push(Order {
            path: "id".to_owned(),
            descending: false,
            numeric: false,
        });
    }
    Ok(orders)
}

/// Sorts; documents without the field come last in either direction.
pub(crate) fn sort(docs: &mut [Value], orders: &[Order]) {
    if orders.is_empty() {
        return;
    }
    docs.sort_by(|left, right| {
        orders
            .iter()
            .map(|order| order.compare(left, right))
            .find(|found| found.is_ne())
            .unwrap_or(Ordering::Equal)
    });
}

impl Order {
    fn compare(&self, left: &Value, right: &Value) -> Ordering {
        let (left, right) = (values_at(left, &self.path), values_at(right, &self.path));
        match (left.first(), right.first()) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(left), Some(right)) => {
                let order = self.compare_values(left, right);
                if self.descending { order.reverse() } else { order }
            }
        }
    }

    fn compare_values(&self, left: &Value, right: &Value) -> Ordering {
        match (self.number(left), self.number(right)) {
            (Some(left), Some(right)) => left.total_cmp(&right),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => match (left.as_str(), right.as_str()) {
                (Some(left), Some(right)) => left.cmp(right),
                _ => left.to_string().cmp(&right.to_string()),
            },
        }
    }

    fn number(&self, value: &Value) -> Option<f64> {
        match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) if self.numeric => text.trim().parse().ok(),
            _ => None,
        }
    }
}
