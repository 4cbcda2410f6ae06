//! Conditions on one field, and on several fields at once.

use std::cmp::Ordering;

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use super::{Kind, values_at};
use crate::api::ApiFault;
use crate::api::call::wrong_type;
use crate::time;

/// One condition on the value or values of a field.
#[derive(Debug)]
pub(crate) enum Filter {
    List(ListFilter),
    Pattern(Regex),
    Range { min: Option<Bound>, max: Option<Bound> },
    Times(Vec<(Comparison, i64)>),
    Equals(Value),
    Structured(Structured),
}

/// The wishes of a list field. `None` among the values stands for unset or empty.
#[derive(Debug, Default)]
pub(crate) struct ListFilter {
    any: Vec<Option<String>>,
    all: Vec<Option<String>>,
    none: Vec<Option<String>>,
}

/// The form with `any` and `all` spelled out.
#[derive(Debug, Default)]
pub(crate) struct Structured {
    any_include: Vec<String>,
    any_exclude: Vec<String>,
    all_include: Vec<String>,
    all_exclude: Vec<String>,
    or: bool,
}

/// An end of a range.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Bound {
    Number(f64),
    /// Milliseconds since the epoch.
    Time(i64),
    Text(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Less,
    AtMost,
    Equal,
    AtLeast,
    Greater,
}

impl Filter {
    /// Reads the condition; `None` when it does not restrict anything (an empty list).
    pub(crate) fn parse(path: &str, kind: Kind, value: &Value) -> Result<Option<Self>, ApiFault> {
        match kind {
            Kind::List => ListFilter::parse(path, value).map(|list| list.map(Self::List)),
            Kind::Pattern => {
                let text = value.as_str().ok_or_else(|| wrong_type(path, "string"))?;
                Ok(Some(Self::Pattern(pattern(text, false)?)))
            }
            Kind::Range => range(path, value).map(Some),
            Kind::DateTime => times(path, value).map(Some),
            Kind::Equality => Ok(Some(Self::Equals(value.clone()))),
        }
    }

    pub(crate) fn structured(value: &Value) -> Result<Self, ApiFault> {
        let list = |group: &str, side: &str| -> Result<Vec<String>, ApiFault> {
            let Some(items) = value
                .get(group)
                .and_then(|group| group.get(side))
                .filter(|items| !items.is_null())
            else {
                return Ok(Vec::new());
            };
            let items = items
                .as_array()
                .ok_or_else(|| wrong_type("filters", "lists of strings"))?;
            let text = |item: &Value| item.as_str().map(str::to_owned);
            items
                .iter()
                .map(|item| text(item).ok_or_else(|| wrong_type("filters", "lists of strings")))
                .collect()
        };
        Ok(Self::Structured(Structured {
            any_include: list("any", "include")?,
            any_exclude: list("any", "exclude")?,
            all_include: list("all", "include")?,
            all_exclude: list("all", "exclude")?,
            or: value.get("op").and_then(Value::as_str) == Some("or"),
        }))
    }

    /// The values of a list filter that asks for nothing but one of them.
    pub(crate) fn plain_any_of(&self) -> Option<Vec<&str>> {
        let Self::List(list) = self else { return None };
        if !list.all.is_empty() || !list.none.is_empty() {
            return None;
        }
        list.any.iter().map(|item| item.as_deref()).collect()
    }

    pub(crate) fn matches(&self, doc: &Value, path: &str) -> bool {
        let values = values_at(doc, path);
        match self {
            Self::List(list) => list.matches(&values),
            Self::Pattern(pattern) => texts(&values).any(|text| pattern.is_match(text)),
            Self::Range { min, max } => values.iter().any(|value| {
                let holds = |bound: &Option<Bound>, wrong: Ordering| {
                    bound
                        .as_ref()
                        .is_none_or(|bound| bound.compare(value).is_some_and(|order| order != wrong))
                };
                holds(min, Ordering::Less) && holds(max, Ordering::Greater)
            }),
            Self::Times(conditions) => values.iter().any(|value| in_times(conditions, value)),
            Self::Equals(wanted) => {
                values.contains(&wanted) || (wanted == &Value::Bool(false) && values.is_empty())
            }
            Self::Structured(structured) => structured.matches(&values),
        }
    }
}

impl ListFilter {
    fn parse(path: &str, value: &Value) -> Result<Option<Self>, ApiFault> {
        let one;
        let items = match value {
            Value::Array(items) => items,
            Value::String(_) => {
                one = vec![value.clone()];
                &one
            }
            _ => return Err(wrong_type(path, "string or list of strings")),
        };
        let mut list = Self::default();
        let (mut all, mut negate) = (false, false);
        for item in items {
            let text = match item {
                Value::Null => None,
                Value::String(text) => Some(text.as_str()),
                _ => {
                    return Err(ApiFault::bad_value(format!(
                        "items of '{path}' must be strings or null"
                    )));
                }
            };
            if let Some(operator) = text.and_then(|text| text.strip_prefix("__$")) {
                match operator {
                    "not" => negate = true,
                    "all" | "and" => all = true,
                    "any" | "or" => all = false,
                    "nop" => (all, negate) = (false, false),
                    _ => {
                        return Err(ApiFault::bad_value(format!(
                            "'{path}' has an unknown operator __${operator}"
                        )));
                    }
                }
                continue;
            }
            let (excluded, text) = match text.and_then(|text| text.strip_prefix('-')) {
                Some(rest) => (true, Some(rest)),
                None => (std::mem::take(&mut negate), text),
            };
            let target = match (excluded, all) {
                (true, _) => &mut list.none,
                (false, true) => &mut list.all,
                (false, false) => &mut list.any,
            };
            target.push(text.map(str::to_owned));
        }
        let empty = list.any.is_empty() && list.all.is_empty() && list.none.is_empty();
        Ok((!empty).then_some(list))
    }

    fn matches(&self, values: &[&Value]) -> bool {
        let has = |item: &Option<String>| match item {
            Some(text) => values.iter().any(|value| value.as_str() == Some(text)),
            None => values.iter().all(|value| value.as_str() == Some("")),
        };
        (self.any.is_empty() || self.any.iter().any(has))
            && self.all.iter().all(has)
            && !self.none.iter().any(has)
    }
}

impl Structured {
    fn matches(&self, values: &[&Value]) -> bool {
        let has = |item: &String| values.iter().any(|value| value.as_str() == Some(item));
        let mut conditions = Vec::new();
        if !self.any_include.is_empty() || !self.any_exclude.is_empty() {
            conditions
                .push(self.any_include.iter().any(has) || self.any_exclude.iter().any(|item| !has(item)));
        }
        if !self.all_include.is_empty() || !self.all_exclude.is_empty() {
            conditions.push(self.all_include.iter().all(has) && !self.all_exclude.iter().any(has));
        }
        if self.or {
            conditions.is_empty() || conditions.contains(&true)
        } else {
            !conditions.contains(&false)
        }
    }
}

impl Bound {
    fn parse(path: &str, value: &Value) -> Result<Option<Self>, ApiFault> {
        match value {
            Value::Null => Ok(None),
            Value::Number(number) => Ok(number.as_f64().map(Self::Number)),
            Value::String(text) => Ok(Some(
                time::parse(text).map_or_else(|| Self::Text(text.clone()), Self::Time),
            )),
            _ => Err(wrong_type(path, "range of numbers, dates or nulls")),
        }
    }

    /// How a value compares with this bound.
    fn compare(&self, value: &Value) -> Option<Ordering> {
        match self {
            Self::Number(bound) => value.as_f64()?.partial_cmp(bound),
            Self::Time(bound) => Some(time::parse(value.as_str()?)?.cmp(bound)),
            Self::Text(bound) => Some(value.as_str()?.cmp(bound)),
        }
    }
}

/// One pattern or date condition on several fields.
pub(crate) struct Combined {
    fields: Vec<String>,
    filter: Filter,
    all: bool,
}

impl Combined {
    pub(crate) fn parse(value: &Value, all: bool) -> Result<Self, ApiFault> {
        let name = if all { "_all_" } else { "_any_" };
        let object: &Map<String, Value> = value.as_object().ok_or_else(|| wrong_type(name, "object"))?;
        let fields = object
            .get("fields")
            .and_then(Value::as_array)
            .ok_or_else(|| ApiFault::missing_field("fields"))?;
        let fields: Option<Vec<String>> = fields
            .iter()
            .map(|field| field.as_str().map(str::to_owned))
            .collect();
        let fields = fields.ok_or_else(|| wrong_type("fields", "list of strings"))?;
        let filter = match (
            object.get("pattern").and_then(Value::as_str),
            object.get("datetime"),
        ) {
            (Some(text), _) => Filter::Pattern(pattern(text, true)?),
            (None, Some(datetime)) => times("datetime", datetime)?,
            (None, None) => return Err(ApiFault::missing_field("pattern")),
        };
        Ok(Self { fields, filter, all })
    }

    pub(crate) fn matches(&self, doc: &Value) -> bool {
        let mut hits = self.fields.iter().map(|field| self.filter.matches(doc, field));
        if self.all {
            hits.all(|hit| hit)
        } else {
            hits.any(|hit| hit)
        }
    }
}

fn texts<'a>(values: &'a [&Value]) -> impl Iterator<Item = &'a str> {
    values.iter().filter_map(|value| value.as_str())
}

fn pattern(text: &str, ignore_case: bool) -> Result<Regex, ApiFault> {
    RegexBuilder::new(text)
        .case_insensitive(ignore_case)
        .build()
        .map_err(|_| ApiFault::bad_regex(text))
}

fn range(path: &str, value: &Value) -> Result<Filter, ApiFault> {
    match value.as_array().map(Vec::as_slice) {
        Some([min, max]) => Ok(Filter::Range {
            min: Bound::parse(path, min)?,
            max: Bound::parse(path, max)?,
        }),
        _ => Err(wrong_type(path, "range of two items")),
    }
}

fn times(path: &str, value: &Value) -> Result<Filter, ApiFault> {
    let one = [value.clone()];
    let items = value.as_array().map_or(&one[..], Vec::as_slice);
    let plain =
        |item: &Value| item.is_null() || item.as_str().is_some_and(|text| !text.starts_with(['<', '>']));
    if items.len() == 2 && items.iter().all(plain) {
        return range(path, value);
    }
    let condition = |item: &Value| {
        let text = item.as_str().ok_or_else(|| wrong_type(path, "list of dates"))?;
        let forms = [
            (">=", Comparison::AtLeast),
            ("<=", Comparison::AtMost),
            (">", Comparison::Greater),
            ("<", Comparison::Less),
            ("", Comparison::Equal),
        ];
        let stripped = forms
            .iter()
            .find_map(|(sign, comparison)| Some((*comparison, text.strip_prefix(sign)?)));
        let (comparison, date) = stripped.unwrap_or((Comparison::Equal, text));
        let date = time::parse(date)
            .ok_or_else(|| ApiFault::bad_value(format!("'{path}' has no valid date: {text}")))?;
        Ok((comparison, date))
    };
    items
        .iter()
        .filter(|item| !item.is_null())
        .map(condition)
        .collect::<Result<_, _>>()
        .map(Filter::Times)
}

fn in_times(conditions: &[(Comparison, i64)], value: &Value) -> bool {
    let Some(time) = value.as_str().and_then(time::parse) else {
        return false;
    };
    conditions.iter().all(|(comparison, bound)| match comparison {
        Comparison::Less => time < *bound,
        Comparison::AtMost => time <= *bound,
        Comparison::Equal => time == *bound,
        Comparison::AtLeast => time >= *bound,
        Comparison::Greater => time > *bound,
    })
}
