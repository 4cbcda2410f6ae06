//! `users.*`: the one user of this server.

use rusqlite::Transaction;
use serde_json::{Map, Value, json};

use super::update::Changes;
use super::{ApiFault, Call, Endpoint};
use crate::select::{Collection, Kind, Selection};
use crate::store::users;

const USERS: Collection = Collection {
    fields: &[("id", Kind::List), ("name", Kind::Pattern)],
    known: &[
        "id",
        "name",
        "company",
        "role",
        "created",
        "given_name",
        "family_name",
        "avatar",
    ],
};

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::read("users.get_current_user", (2, 1), get_current_user),
        Endpoint::read("users.get_all", (2, 1), get_all),
        Endpoint::read("users.get_by_id", (2, 1), get_by_id),
        Endpoint::read("users.get_preferences", (2, 1), get_preferences),
        Endpoint::write("users.set_preferences", (2, 1), set_preferences),
    ]
}

/// A user without what only the server needs.
fn visible(mut user: Map<String, Value>) -> Value {
    user.shift_remove("preferences");
    Value::Object(user)
}

fn required(tx: &Transaction<'_>, id: &str) -> Result<Map<String, Value>, ApiFault> {
    users::load(tx, id)?.ok_or_else(|| ApiFault::new(400, 301, format!("Invalid user id: id={id}")))
}

fn get_current_user(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut user = visible(required(tx, &call.user.user)?);
    user["company"] = json!({"id": call.user.company, "name": call.user.company_name});
    user["role"] = json!(call.user.role);
    Ok(json!({"user": user, "getting_started": {}, "settings": {"max_download_items": 1000}}))
}

fn get_all(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let selection = Selection::parse(&call.data, &USERS)?;
    let page = selection.run(users::all(tx)?.into_iter().map(visible).collect());
    Ok(json!({"users": selection.project(page.docs)}))
}

fn get_by_id(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    Ok(json!({"user": visible(required(tx, call.required_str("user")?)?)}))
}

fn get_preferences(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let user = required(tx, &call.user.user)?;
    Ok(json!({"preferences": user.get("preferences").cloned().unwrap_or_else(|| json!({}))}))
}

fn set_preferences(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let given = call
        .opt_object("preferences")?
        .ok_or_else(|| ApiFault::missing_field("preferences"))?;
    let mut user = required(tx, &call.user.user)?;
    let mut preferences = user.remove("preferences").unwrap_or_else(|| json!({}));
    let mut changes = Changes::default();
    for (path, value) in given {
        clearml_task_model::path::set(&mut preferences, path, value.clone())
            .map_err(|error| ApiFault::validation(error.to_string()))?;
        changes.note(&format!("preferences.{path}"), value.clone());
    }
    user.insert("preferences".to_owned(), preferences);
    users::save(tx, &call.user.user, &Value::Object(user))?;
    Ok(Value::Object(changes.reply()))
}
