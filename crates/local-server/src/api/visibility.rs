//! `make_public` and `make_private` of tasks, models and projects.
//!
//! A public object belongs to no company: its `company` is empty. Here there is only one company and one user, so it
//! stays theirs to read and to change; clients see the mark, and it can be taken back.

use std::collections::BTreeSet;

use rusqlite::{Connection, Transaction};
use serde_json::{Value, json};

use super::{ApiFault, Call, Endpoint};
use crate::store::{models, projects, tasks};

/// One kind of object.
struct Kind {
    load: fn(&Connection, &str) -> Result<Option<Value>, ApiFault>,
    save: fn(&Connection, &Value) -> Result<(), ApiFault>,
    invalid: fn(&str) -> ApiFault,
}

const TASKS: Kind = Kind {
    load: tasks::load,
    save: tasks::save,
    invalid: ApiFault::invalid_task_id,
};
const MODELS: Kind = Kind {
    load: models::load,
    save: models::save,
    invalid: ApiFault::invalid_model_id,
};
const PROJECTS: Kind = Kind {
    load: projects::load,
    save: projects::save,
    invalid: ApiFault::invalid_project_id,
};

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::write("tasks.make_public", (2, 9), |call, tx| {
            change(call, tx, &TASKS, true)
        }),
        Endpoint::write("tasks.make_private", (2, 9), |call, tx| {
            change(call, tx, &TASKS, false)
        }),
        Endpoint::write("models.make_public", (2, 9), |call, tx| {
            change(call, tx, &MODELS, true)
        }),
        Endpoint::write("models.make_private", (2, 9), |call, tx| {
            change(call, tx, &MODELS, false)
        }),
        Endpoint::write("projects.make_public", (2, 9), |call, tx| {
            change(call, tx, &PROJECTS, true)
        }),
        Endpoint::write("projects.make_private", (2, 9), |call, tx| {
            change(call, tx, &PROJECTS, false)
        }),
    ]
}

/// All of the objects or none: one that does not exist, or is so already, is an invalid id.
fn change(call: &Call, tx: &Transaction<'_>, kind: &Kind, public: bool) -> Result<Value, ApiFault> {
    let ids: BTreeSet<String> = call.required_strings("ids")?.into_iter().collect();
    let owner = if public { "" } else { call.user.company.as_str() };
    for id in &ids {
        let found = (kind.load)(tx, id)?.filter(|object| object["company"] != owner);
        let mut object = found.ok_or_else(|| (kind.invalid)(id))?;
        object["company"] = json!(owner);
        (kind.save)(tx, &object)?;
    }
    Ok(json!({"updated": ids.len()}))
}
