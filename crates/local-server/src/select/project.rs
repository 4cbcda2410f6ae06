//! `only_fields`: exactly the fields asked for, and not even the id beside them.

use clearml_task_model::path::segments;
use serde_json::{Map, Value};

use crate::api::ApiFault;
use crate::api::call::wrong_type;

/// A tree of wanted names.
#[derive(Debug, Default)]
struct Wanted {
    whole: bool,
    children: Vec<(String, Wanted)>,
}

/// Which parts of a document are returned.
#[derive(Debug)]
pub(crate) struct Projection {
    include: Option<Wanted>,
    exclude: Vec<Vec<String>>,
}

impl Projection {
    /// Reads `only_fields` (or its alias `projection`).
    pub(crate) fn parse(data: &Map<String, Value>, known: &[&str]) -> Result<Self, ApiFault> {
        let mut projection = Self {
            include: None,
            exclude: Vec::new(),
        };
        let given = data.get("only_fields").or_else(|| data.get("projection"));
        let names: Vec<&str> = match given {
            None | Some(Value::Null) => return Ok(projection),
            Some(Value::String(name)) => vec![name],
            Some(Value::Array(names)) => {
                let texts: Option<Vec<&str>> = names.iter().map(Value::as_str).collect();
                texts.ok_or_else(|| wrong_type("only_fields", "string or list of strings"))?
            }
            Some(_) => return Err(wrong_type("only_fields", "string or list of strings")),
        };
        for name in names {
            let (path, excluded) = name.strip_prefix('-').map_or((name, false), |path| (path, true));
            let path = segments(path);
            if !path.first().is_some_and(|head| known.contains(&head.as_str())) {
                return Err(ApiFault::unknown_field(name));
            }
            if excluded {
                projection.exclude.push(path);
            } else {
                projection.include.get_or_insert_default().add(&path);
            }
        }
        Ok(projection)
    }

    /// The projected document. Bookkeeping keys of the server never pass.
    pub(crate) fn apply(&self, doc: Value) -> Value {
        let mut doc = match (&self.include, doc) {
            (Some(wanted), doc) => wanted.pick(&doc).unwrap_or_else(|| Value::Object(Map::new())),
            (None, Value::Object(mut all)) => {
                all.retain(|key, _| !key.starts_with('_'));
                Value::Object(all)
            }
            (None, other) => other,
        };
        for path in &self.exclude {
            remove(&mut doc, path);
        }
        doc
    }
}

impl Wanted {
    fn add(&mut self, path: &[String]) {
        let Some((head, rest)) = path.split_first() else {
            self.whole = true;
            return;
        };
        let index = self
            .children
            .iter()
            .position(|(name, _)| name == head)
            .unwrap_or_else(|| {
                self.children.push((head.clone(), Self::default()));
                self.children.len() - 1
            });
        self.children[index].1.add(rest);
    }

    fn pick(&self, value: &Value) -> Option<Value> {
        if self.whole {
            return Some(value.clone());
        }
        match value {
            Value::Object(map) => {
                let kept = self.children.iter().filter_map(|(name, wanted)| {
                    let picked = wanted.pick(map.get(name)?)?;
                    Some((name.clone(), picked))
                });
                Some(Value::Object(kept.collect()))
            }
            Value::Array(items) => Some(Value::Array(
                items.iter().filter_map(|item| self.pick(item)).collect(),
            )),
            _ => None,
        }
    }
}

fn remove(value: &mut Value, path: &[String]) {
    match (value, path) {
        (Value::Object(map), [last]) => {
            map.shift_remove(last);
        }
        (Value::Object(map), [head, rest @ ..]) => {
            if let Some(inner) = map.get_mut(head) {
                remove(inner, rest);
            }
        }
        (Value::Array(items), path) => items.iter_mut().for_each(|item| remove(item, path)),
        _ => {}
    }
}
