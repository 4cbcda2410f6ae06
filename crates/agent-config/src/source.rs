//! One layer of configuration as a source of the `config` crate.
//!
//! Every value carries its [`Origin`] in the text that `config` keeps for that purpose, so that the
//! origin survives whatever `config` does with the layers.

use std::collections::BTreeMap;

use config::{Source, ValueKind};
use serde_json::{Map, Number, Value};

use crate::error::Place;
use crate::origin::Origin;

/// A tree of values with their origins.
#[derive(Debug, Clone)]
pub(crate) struct Layer(config::Value);

impl Layer {
    /// A document with the lines of its keys; values without a line are defaults.
    pub(crate) fn from_places(root: Map<String, Value>, places: &BTreeMap<Vec<String>, Place>) -> Self {
        Self(from_json(
            Value::Object(root),
            &mut Vec::new(),
            &Origin::Default,
            places,
        ))
    }

    /// A document of which only the whole has an origin.
    pub(crate) fn of_root(root: Map<String, Value>, origin: &Origin) -> Self {
        Self(from_json(
            Value::Object(root),
            &mut Vec::new(),
            origin,
            &BTreeMap::new(),
        ))
    }

    /// A single key.
    pub(crate) fn of_key(key: &str, value: Value, origin: &Origin) -> Self {
        let leaf = from_json(value, &mut Vec::new(), origin, &BTreeMap::new());
        let nest = |inner, part: &str| {
            let table = config::Map::from_iter([(part.to_owned(), inner)]);
            config::Value::new(Some(&origin.encode()), ValueKind::Table(table))
        };
        Self(
            key.split('.')
                .filter(|part| !part.is_empty())
                .rev()
                .fold(leaf, nest),
        )
    }

    /// Lays another layer over this one.
    pub(crate) fn merge(&mut self, over: Self) {
        merge(&mut self.0, over.0);
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<config::Map<String, config::Value>, config::ConfigError> {
        self.0.clone().into_table()
    }

    /// The default implementation takes top-level keys for path expressions; here `"a.b"` is one key.
    fn collect_to(&self, cache: &mut config::Value) -> Result<(), config::ConfigError> {
        merge(cache, self.0.clone());
        Ok(())
    }
}

/// Objects merge, everything else replaces.
fn merge(into: &mut config::Value, over: config::Value) {
    let config::Value {
        kind: ValueKind::Table(below),
        ..
    } = into
    else {
        *into = over;
        return;
    };
    let ValueKind::Table(above) = over.kind else {
        *into = over;
        return;
    };
    for (key, value) in above {
        match below.get_mut(&key) {
            Some(present) => merge(present, value),
            None => {
                below.insert(key, value);
            }
        }
    }
}

fn from_json(
    value: Value,
    path: &mut Vec<String>,
    outer: &Origin,
    places: &BTreeMap<Vec<String>, Place>,
) -> config::Value {
    let own = places.get(path).map(|place| Origin::File {
        path: place.file.to_path_buf(),
        line: place.line,
        column: place.column,
    });
    let origin = own.as_ref().unwrap_or(outer);
    let kind = match value {
        Value::Null => ValueKind::Nil,
        Value::Bool(flag) => ValueKind::Boolean(flag),
        Value::String(text) => ValueKind::String(text),
        Value::Number(number) => from_number(&number),
        Value::Array(items) => {
            let items = items
                .into_iter()
                .map(|item| from_json(item, &mut Vec::new(), origin, &BTreeMap::new()));
            ValueKind::Array(items.collect())
        }
        Value::Object(members) => {
            let mut table = config::Map::with_capacity(members.len());
            for (key, member) in members {
                path.push(key);
                let member = from_json(member, path, origin, places);
                table.insert(path.pop().unwrap_or_default(), member);
            }
            ValueKind::Table(table)
        }
    };
    config::Value::new(Some(&origin.encode()), kind)
}

fn from_number(number: &Number) -> ValueKind {
    number
        .as_i64()
        .map(ValueKind::I64)
        .or_else(|| number.as_u64().map(ValueKind::U64))
        .or_else(|| number.as_f64().map(ValueKind::Float))
        .unwrap_or(ValueKind::Nil)
}

/// Back to JSON, keys in alphabetical order, noting the origin of everything on the way.
pub(crate) fn to_json(
    value: config::Value,
    path: &mut Vec<String>,
    origins: &mut BTreeMap<Vec<String>, Origin>,
) -> Value {
    origins.insert(path.clone(), Origin::decode(value.origin()));
    match value.kind {
        ValueKind::Nil => Value::Null,
        ValueKind::Boolean(flag) => Value::Bool(flag),
        ValueKind::I64(number) => Value::from(number),
        ValueKind::U64(number) => Value::from(number),
        ValueKind::I128(number) => Value::from(number as f64),
        ValueKind::U128(number) => Value::from(number as f64),
        ValueKind::Float(number) => Value::from(number),
        ValueKind::String(text) => Value::String(text),
        // Elements of lists have the origin of their list.
        ValueKind::Array(items) => items
            .into_iter()
            .map(|item| to_json(item, &mut Vec::new(), &mut BTreeMap::new()))
            .collect(),
        ValueKind::Table(table) => {
            let sorted: BTreeMap<String, config::Value> = table.into_iter().collect();
            let mut members = Map::new();
            for (key, member) in sorted {
                path.push(key);
                let member = to_json(member, path, origins);
                members.insert(path.pop().unwrap_or_default(), member);
            }
            Value::Object(members)
        }
    }
}
