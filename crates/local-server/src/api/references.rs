//! What the `*_ex` calls add to the plain ones: objects that an object refers to are shown as objects, with the
//! fields of them that were asked for.
//!
//! A caller asks with dotted paths (`project.name` in `only_fields`). Those are taken out of the request before the
//! plain call sees it, and looked up afterwards for what is on the page.

use rusqlite::Transaction;
use serde_json::{Map, Value, json};

use super::{ApiFault, Call, Handler};
use crate::store::{models, projects, queues, tasks, users};

/// What kind of object an id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Company,
    User,
    Project,
    Task,
    Model,
    Queue,
}

/// A field that holds an id (or a list of objects one of whose fields does), and the fields that are always shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reference {
    pub(crate) path: &'static str,
    pub(crate) target: Target,
    pub(crate) always: &'static [&'static str],
}

impl Reference {
    pub(crate) const fn new(path: &'static str, target: Target) -> Self {
        Self {
            path,
            target,
            always: &[],
        }
    }
}

/// A plain listing with its references shown as objects. `key` is where the reply has its list.
pub(crate) fn list(
    call: &Call,
    tx: &Transaction<'_>,
    plain: Handler,
    key: &str,
    references: &[Reference],
) -> Result<Value, ApiFault> {
    let mut data = call.data.clone();
    let asked: Vec<Vec<String>> = references
        .iter()
        .map(|reference| take_asked(&mut data, reference.path))
        .collect();
    let call = call.with_data(data);
    let mut reply = plain(&call, tx)?;
    for (reference, asked) in references.iter().zip(&asked) {
        let path: Vec<&str> = reference.path.split('.').collect();
        for doc in reply[key].as_array_mut().into_iter().flatten() {
            expand(&call, tx, doc, &path, reference, asked)?;
        }
    }
    Ok(reply)
}

/// The same for the one object that the field `id_field` of the request names, under the name `one` in the reply.
pub(crate) fn one(
    call: &Call,
    tx: &Transaction<'_>,
    plain: Handler,
    (key, one): (&str, &str),
    references: &[Reference],
    unknown: fn(&str) -> ApiFault,
) -> Result<Value, ApiFault> {
    let id = call
        .opt_str(one)?
        .ok_or_else(|| ApiFault::missing_fields(one))?
        .to_owned();
    let mut data = Map::new();
    data.insert("id".to_owned(), json!([id]));
    for field in ["only_fields", "projection"] {
        if let Some(value) = call.get(field) {
            data.insert(field.to_owned(), value.clone());
        }
    }
    let mut reply = list(&call.with_data(data), tx, plain, key, references)?;
    match reply[key].get_mut(0) {
        Some(found) => Ok(json!({one: found.take()})),
        None => Err(unknown(&id)),
    }
}

/// Takes the paths below a reference out of the projection, which keeps the reference itself.
fn take_asked(data: &mut Map<String, Value>, path: &str) -> Vec<String> {
    let mut asked = Vec::new();
    for field in ["only_fields", "projection"] {
        if let Some(Value::String(name)) = data.get(field) {
            let list = json!([name]);
            data.insert(field.to_owned(), list);
        }
        for name in data
            .get_mut(field)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let below = name
                .as_str()
                .and_then(|name| name.strip_prefix(path)?.strip_prefix('.'))
                .map(str::to_owned);
            if let Some(below) = below {
                asked.push(below);
                *name = json!(path);
            }
        }
    }
    asked
}

fn expand(
    call: &Call,
    tx: &Transaction<'_>,
    value: &mut Value,
    path: &[&str],
    reference: &Reference,
    asked: &[String],
) -> Result<(), ApiFault> {
    if let Value::Array(items) = value {
        return items
            .iter_mut()
            .try_for_each(|item| expand(call, tx, item, path, reference, asked));
    }
    if let Some((head, rest)) = path.split_first() {
        return match value.get_mut(*head) {
            Some(inner) => expand(call, tx, inner, rest, reference, asked),
            None => Ok(()),
        };
    }
    let Some(id) = value.as_str().map(str::to_owned) else {
        return Ok(());
    };
    let mut shown = json!({"id": id});
    let wanted = reference
        .always
        .iter()
        .copied()
        .chain(asked.iter().map(String::as_str));
    let mut wanted = wanted.filter(|field| *field != "id").peekable();
    if wanted.peek().is_some()
        && let Some(found) = load(call, tx, reference.target, &id)?
    {
        for field in wanted {
            let head = field.split('.').next().unwrap_or(field);
            if let Some(value) = found.get(head) {
                shown[head] = value.clone();
            }
        }
    }
    *value = shown;
    Ok(())
}

/// The object itself, or nothing when it is gone.
fn load(call: &Call, tx: &Transaction<'_>, target: Target, id: &str) -> Result<Option<Value>, ApiFault> {
    Ok(match target {
        Target::Company => Some(json!({"id": id, "name": call.user.company_name})),
        Target::User => users::load(tx, id)?.map(|mut user| {
            user.shift_remove("preferences");
            Value::Object(user)
        }),
        Target::Project => projects::load(tx, id)?,
        Target::Task => tasks::load(tx, id)?,
        Target::Model => models::load(tx, id)?,
        Target::Queue => queues::load(tx, id)?,
    })
}
