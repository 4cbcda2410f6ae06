//! The `metrics` field of reading calls: which metrics, and which of their variants.

use rusqlite::types::Value as SqlValue;
use serde_json::Value;

use crate::api::ApiFault;

/// Wanted metrics; an empty filter wants everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct MetricFilter(Vec<Wanted>);

#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    /// Nothing means any metric.
    metric: Option<String>,
    /// Nothing listed means any variant.
    variants: Vec<String>,
}

impl MetricFilter {
    /// Reads a list of `{metric, variants}`; a bare name is accepted as well.
    ///
    /// # Errors
    /// 400/12 when the list has another shape.
    pub(crate) fn parse(given: Option<&Value>) -> Result<Self, ApiFault> {
        let list = match given {
            None | Some(Value::Null) => return Ok(Self::default()),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(wrong_shape()),
        };
        list.iter().map(Wanted::parse).collect::<Result<_, _>>().map(Self)
    }

    /// Adds an item, which widens what is wanted.
    pub(crate) fn push(&mut self, item: &Value) -> Result<(), ApiFault> {
        self.0.push(Wanted::parse(item)?);
        Ok(())
    }

    /// A condition over the columns `metric` and `variant`, to follow `AND`, and its parameters, in order. The
    /// condition has anonymous placeholders, so it must come after every numbered one.
    pub(crate) fn condition(&self) -> (String, Vec<SqlValue>) {
        let (mut alternatives, mut parameters) = (Vec::new(), Vec::new());
        for wanted in &self.0 {
            let mut parts = Vec::new();
            if let Some(metric) = &wanted.metric {
                parts.push("metric = ?".to_owned());
                parameters.push(SqlValue::from(metric.clone()));
            }
            if !wanted.variants.is_empty() {
                let marks = vec!["?"; wanted.variants.len()].join(", ");
                parts.push(format!("variant IN ({marks})"));
                parameters.extend(wanted.variants.iter().cloned().map(SqlValue::from));
            }
            if parts.is_empty() {
                return ("1".to_owned(), Vec::new());
            }
            alternatives.push(format!("({})", parts.join(" AND ")));
        }
        if alternatives.is_empty() {
            return ("1".to_owned(), parameters);
        }
        (format!("({})", alternatives.join(" OR ")), parameters)
    }
}

impl Wanted {
    fn parse(item: &Value) -> Result<Self, ApiFault> {
        let item = match item {
            Value::String(name) => {
                return Ok(Self {
                    metric: Some(name.clone()),
                    variants: Vec::new(),
                });
            }
            Value::Object(item) => item,
            _ => return Err(wrong_shape()),
        };
        let metric = match item.get("metric") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) => Some(name.clone()),
            Some(_) => return Err(wrong_shape()),
        };
        let variants = match item.get("variants") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(names)) => names
                .iter()
                .map(|name| name.as_str().map(str::to_owned).ok_or_else(wrong_shape))
                .collect::<Result<_, _>>()?,
            Some(_) => return Err(wrong_shape()),
        };
        Ok(Self { metric, variants })
    }
}

fn wrong_shape() -> ApiFault {
    ApiFault::validation(
        "'metrics' must be a list of objects with 'metric' and, if wanted, a list 'variants'",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conditions_name_metrics_and_variants() {
        let filter =
            MetricFilter::parse(Some(&json!([{"metric": "a", "variants": ["x", "y"]}, "b"]))).unwrap();
        let (sql, parameters) = filter.condition();
        assert_eq!(sql, "((metric = ? AND variant IN (?, ?)) OR (metric = ?))");
        assert_eq!(
            parameters,
            ["a", "x", "y", "b"].map(|text| SqlValue::from(text.to_owned()))
        );
    }

    #[test]
    fn nothing_wanted_is_everything() {
        for given in [json!(null), json!([]), json!([{"metric": null}])] {
            assert_eq!(
                MetricFilter::parse(Some(&given)).unwrap().condition(),
                ("1".to_owned(), vec![])
            );
        }
        assert!(MetricFilter::parse(Some(&json!({"metric": "a"}))).is_err());
        assert!(MetricFilter::parse(Some(&json!([5]))).is_err());
    }
}
