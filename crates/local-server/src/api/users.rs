//! `users.*`: the one user of this server.
//!
//! `users.get_vaults` is an extension of commercial servers. The calls that write vaults are this server's own: a way
//! to try clients with vaults. A vault is stored as it was given, in the private data folder.

use rusqlite::Transaction;
use serde_json::{Map, Value, json};

use super::update::{Changes, text};
use super::{ApiFault, Call, Endpoint};
use crate::select::{Collection, Kind, Selection};
use crate::store::{users, vaults};

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
        Endpoint::read("users.get_vaults", (2, 15), get_vaults),
        Endpoint::write("users.create_vault", (2, 15), create_vault),
        Endpoint::write("users.update_vault", (2, 15), update_vault),
        Endpoint::write("users.delete_vault", (2, 15), delete_vault),
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

/// Kinds of vaults that clients know.
const VAULT_TYPES: [&str; 2] = ["config", "metadata"];

fn get_vaults(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let enabled = call.opt_bool("enabled")?;
    let types = call.opt_strings("types")?.unwrap_or_default();
    let mut found = vaults::of_user(tx, &call.user.user)?;
    found.retain(|vault| {
        let kind = text(vault, "type").unwrap_or_default();
        enabled.is_none_or(|enabled| vault["enabled"] == json!(enabled))
            && (types.is_empty() || types.iter().any(|wanted| wanted == kind))
    });
    Ok(json!({"vaults": found}))
}

fn create_vault(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    call.required_str("data")?;
    let id = clearml_support::id::hex32();
    let mut vault = json!({
        "id": id, "scope": "user", "description": "", "data": "", "type": "config", "enabled": true,
    });
    apply_vault(call, &mut vault)?;
    vaults::save(tx, &call.user.user, &id, &vault)?;
    Ok(json!({"id": id}))
}

fn update_vault(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let id = call.required_str("vault")?;
    let mut vault = vaults::load(tx, &call.user.user, id)?.ok_or_else(|| invalid_vault(id))?;
    apply_vault(call, &mut vault)?;
    vaults::save(tx, &call.user.user, id, &vault)?;
    Ok(json!({"updated": 1}))
}

fn delete_vault(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let id = call.required_str("vault")?;
    match vaults::delete(tx, &call.user.user, id)? {
        0 => Err(invalid_vault(id)),
        deleted => Ok(json!({"deleted": deleted})),
    }
}

fn invalid_vault(id: &str) -> ApiFault {
    ApiFault::new(400, 10, format!("Invalid object id: id={id}")).with("id", id)
}

fn apply_vault(call: &Call, vault: &mut Value) -> Result<(), ApiFault> {
    for field in ["description", "data", "scope"] {
        if let Some(given) = call.opt_str(field)? {
            vault[field] = json!(given);
        }
    }
    if let Some(kind) = call.opt_str("type")? {
        if !VAULT_TYPES.contains(&kind) {
            return Err(ApiFault::validation(format!(
                "field 'type' is '{kind}'; use {}",
                VAULT_TYPES.join(" or ")
            )));
        }
        vault["type"] = json!(kind);
    }
    if let Some(enabled) = call.opt_bool("enabled")? {
        vault["enabled"] = json!(enabled);
    }
    Ok(())
}
