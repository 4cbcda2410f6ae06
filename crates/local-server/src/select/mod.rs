//! The selection language of the `get_all` family: which documents, in which order, which part of each.
//!
//! The storage narrows candidates by indexed columns ([`Selection::ids`], [`Selection::any_of`]); everything else is
//! decided here, on documents in memory. That costs a read of every candidate, which is the price for a language in
//! which any nested field can be asked for.

pub(crate) mod filter;
pub(crate) mod order;
pub(crate) mod project;

use serde_json::{Map, Value};

use crate::api::ApiFault;
use crate::api::call::{as_integer, wrong_type};
use crate::http::path::Version;
use filter::Filter;
use order::Order;
use project::Projection;

/// No reply holds more objects than this, asked for or not.
pub(crate) const MAX_PAGE: usize = 500;

/// How a request field selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One or several strings, any of them unless operators say otherwise.
    List,
    /// An unanchored, case-sensitive regular expression.
    Pattern,
    /// `[min, max]`, inclusive, either may be null.
    Range,
    /// Comparisons such as `>=2026-01-01`, or a range.
    DateTime,
    /// The very value.
    Equality,
}

/// What can be asked of one kind of object.
pub(crate) struct Collection {
    /// Request fields that select. A name that ends in `.*` stands for every path below it.
    pub(crate) fields: &'static [(&'static str, Kind)],
    /// Top-level fields of the documents, for projections and orderings.
    pub(crate) known: &'static [&'static str],
}

/// A parsed selection.
pub(crate) struct Selection {
    filters: Vec<(String, Filter)>,
    combined: Vec<filter::Combined>,
    ids: Option<Vec<String>>,
    order: Vec<Order>,
    window: Window,
    projection: Projection,
}

/// Which part of the ordered result is wanted.
struct Window {
    start: usize,
    size: usize,
    scrolls: bool,
}

/// One page of documents, not projected yet.
pub(crate) struct Page {
    pub(crate) docs: Vec<Value>,
    /// Where the next page begins, for callers that scroll.
    pub(crate) scroll_id: Option<String>,
}

impl Selection {
    /// Reads a selection out of request data.
    pub(crate) fn parse(data: &Map<String, Value>, collection: &Collection) -> Result<Self, ApiFault> {
        let mut filters = Vec::new();
        for (path, kind, value) in selecting_fields(data, collection) {
            if let Some(filter) = Filter::parse(&path, kind, value)? {
                filters.push((path, filter));
            }
        }
        if let Some(structured) = data.get("filters").and_then(Value::as_object) {
            for (path, value) in structured {
                filters.push((path.clone(), Filter::structured(value)?));
            }
        }
        let mut combined = Vec::new();
        for (name, all) in [
            ("_any_", false),
            ("_or_", false),
            ("_all_", true),
            ("_and_", true),
        ] {
            if let Some(value) = data.get(name).filter(|value| !value.is_null()) {
                combined.push(filter::Combined::parse(value, all)?);
            }
        }
        let ids = filters
            .iter()
            .find_map(|(path, filter)| if path == "id" { filter.plain_any_of() } else { None });
        Ok(Self {
            ids: ids.map(|ids| ids.iter().map(|id| (*id).to_owned()).collect()),
            filters,
            combined,
            order: order::parse(data, collection.known)?,
            window: Window::parse(data)?,
            projection: Projection::parse(data, collection.known)?,
        })
    }

    /// The ids asked for, when the selection names them.
    pub(crate) fn ids(&self) -> Option<&[String]> {
        self.ids.as_deref()
    }

    /// The values that a field must have one of, when that is all that is asked of it.
    pub(crate) fn any_of(&self, field: &str) -> Option<Vec<&str>> {
        self.filters.iter().find_map(|(path, filter)| {
            if path == field {
                filter.plain_any_of()
            } else {
                None
            }
        })
    }

    /// Whether a field takes part in the selection.
    pub(crate) fn mentions(&self, field: &str) -> bool {
        self.filters.iter().any(|(path, _)| path == field)
    }

    pub(crate) fn matches(&self, doc: &Value) -> bool {
        self.filters
            .iter()
            .all(|(path, filter)| filter.matches(doc, path))
            && self.combined.iter().all(|combined| combined.matches(doc))
    }

    /// Filters, orders and pages the candidates.
    pub(crate) fn run(&self, candidates: Vec<Value>) -> Page {
        self.page(candidates.into_iter().filter(|doc| self.matches(doc)).collect())
    }

    /// Orders and pages documents that are known to match.
    pub(crate) fn page(&self, mut docs: Vec<Value>) -> Page {
        order::sort(&mut docs, &self.order);
        let total = docs.len();
        let docs: Vec<Value> = docs
            .into_iter()
            .skip(self.window.start)
            .take(self.window.size)
            .collect();
        let next = (self.window.start + docs.len()).min(total.max(self.window.start));
        Page {
            docs,
            scroll_id: self.window.scrolls.then(|| format!("position-{next}")),
        }
    }

    /// Cuts the documents down to the fields asked for.
    pub(crate) fn project(&self, docs: Vec<Value>) -> Vec<Value> {
        docs.into_iter().map(|doc| self.projection.apply(doc)).collect()
    }
}

impl Window {
    fn parse(data: &Map<String, Value>) -> Result<Self, ApiFault> {
        let number = |name: &str, least: i64| -> Result<Option<usize>, ApiFault> {
            let Some(value) = data.get(name).filter(|value| !value.is_null()) else {
                return Ok(None);
            };
            let number = as_integer(value).ok_or_else(|| wrong_type(name, "integer"))?;
            if number < least {
                return Err(ApiFault::validation(format!(
                    "field '{name}' must be at least {least}"
                )));
            }
            Ok(usize::try_from(number).ok())
        };
        let (page, page_size) = (number("page", 0)?, number("page_size", 1)?);
        let (start, size) = (number("start", 0)?, number("size", 1)?);
        let position = scroll_position(data)?;
        let size_limit = size.or(page_size).unwrap_or(MAX_PAGE).min(MAX_PAGE);
        let start = match (position, start, page) {
            (Some(position), _, _) => position,
            (None, Some(start), _) => start,
            (None, None, Some(page)) => page.saturating_mul(size_limit),
            (None, None, None) => 0,
        };
        Ok(Self {
            start,
            size: size_limit,
            scrolls: size.is_some() || position.is_some(),
        })
    }
}

/// A scroll id names the position that it continues from.
fn scroll_position(data: &Map<String, Value>) -> Result<Option<usize>, ApiFault> {
    let Some(id) = data.get("scroll_id").and_then(Value::as_str) else {
        return Ok(None);
    };
    if data.get("refresh_scroll").and_then(Value::as_bool) == Some(true) {
        return Ok(Some(0));
    }
    let position = id
        .strip_prefix("position-")
        .and_then(|position| position.parse().ok());
    position
        .map(Some)
        .ok_or_else(|| ApiFault::new(400, 1104, format!("Invalid scroll id: {id}")))
}

/// The request fields that select, as document paths. Names with dots may come nested, as query strings bring them.
fn selecting_fields<'a>(
    data: &'a Map<String, Value>,
    collection: &Collection,
) -> Vec<(String, Kind, &'a Value)> {
    let mut found = Vec::new();
    for (name, kind) in collection.fields {
        if let Some(prefix) = name.strip_suffix('*') {
            let below = data
                .iter()
                .filter(|(key, _)| key.starts_with(prefix) && key.len() > prefix.len());
            found.extend(below.map(|(key, value)| (key.clone(), *kind, value)));
            continue;
        }
        let nested = || {
            name.split_once('.')
                .and_then(|(head, rest)| data.get(head)?.get(rest))
        };
        if let Some(value) = data.get(*name).or_else(nested) {
            found.push(((*name).to_owned(), *kind, value));
        }
    }
    found.retain(|(_, _, value)| !value.is_null());
    found
}

/// Every value at a path, with lists opened up; nulls count as missing.
pub(crate) fn values_at<'a>(doc: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut here = vec![doc];
    for name in clearml_task_model::path::segments(path) {
        here = here
            .into_iter()
            .flat_map(opened)
            .filter_map(|value| value.get(&name))
            .collect();
    }
    here.into_iter()
        .flat_map(opened)
        .filter(|value| !value.is_null())
        .collect()
}

fn opened(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        other => vec![other],
    }
}

/// What every kind of object looks like to older clients: system tags among the tags, and metadata as a list.
pub(crate) fn shape_common(version: Version, doc: &mut Value) {
    if version < Version::new(2, 3) {
        let mut tags: Vec<Value> = doc
            .get("tags")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let system = doc
            .get("system_tags")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        tags.extend(system);
        doc["tags"] = Value::Array(tags);
    }
    if version <= Version::new(2, 16) && doc.get("metadata").is_some() {
        doc["metadata"] = Value::Array(Vec::new());
    }
}

#[cfg(test)]
mod tests;
