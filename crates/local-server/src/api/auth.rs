//! `auth.*` and the part of `login.*` that clients ask before they log in.

use rusqlite::Transaction;
use serde_json::{Value, json};

use super::{ApiFault, AuthNeed, Call, Endpoint};
use crate::auth::jwt::{Claims, IdentityClaim};
use crate::auth::keys;
use crate::server::{API_VERSION, SERVER_VERSION};
use crate::store::credentials;

const LONGEST_LIFE: i64 = 365 * 24 * 3600;

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::write("auth.login", (1, 0), login),
        Endpoint::write("auth.logout", (2, 2), logout),
        Endpoint::write("login.logout", (2, 13), logout).auth(AuthNeed::Optional),
        Endpoint::write("auth.create_credentials", (2, 1), create_credentials),
        Endpoint::read("auth.get_credentials", (2, 1), get_credentials),
        Endpoint::write("auth.edit_credentials", (2, 19), edit_credentials),
        Endpoint::write("auth.revoke_credentials", (2, 1), revoke_credentials),
        Endpoint::read("auth.fixed_users_mode", (1, 0), fixed_users_mode).auth(AuthNeed::None),
        Endpoint::read("login.supported_modes", (2, 9), supported_modes).auth(AuthNeed::Optional),
    ]
}

fn login(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let options = &call.server.options;
    let default = i64::try_from(options.token_life.as_secs()).unwrap_or(LONGEST_LIFE);
    let life = call.opt_i64("expiration_sec")?.unwrap_or(default);
    if !(1..=LONGEST_LIFE).contains(&life) {
        return Err(ApiFault::validation(format!(
            "field 'expiration_sec' must be between 1 and {LONGEST_LIFE}"
        )));
    }
    if let Some(access_key) = &call.user.access_key {
        credentials::touch(tx, access_key, call.worker_header.as_deref(), call.now)?;
    }
    let issued = call.now / 1000;
    let identity = IdentityClaim {
        user: call.user.user.clone(),
        company: call.user.company.clone(),
        role: call.user.role.clone(),
        user_name: call.user.user_name.clone(),
        company_name: call.user.company_name.clone(),
    };
    let token = call.server.authenticator.sign(&Claims {
        exp: Some(issued + life),
        iat: issued,
        session_id: clearml_support::id::hex32(),
        auth_type: "Bearer".to_owned(),
        env: "local".to_owned(),
        identity,
        api_version: API_VERSION.to_string(),
        server_version: SERVER_VERSION.to_owned(),
        server_build: env!("CARGO_PKG_VERSION").to_owned(),
        feature_set: options.feature_set.clone(),
    })?;
    Ok(json!({"token": token}))
}

fn logout(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    if let Some(session) = &call.user.session {
        // No token lives longer, so that the note may be forgotten then.
        let until = call.now / 1000 + LONGEST_LIFE;
        tx.execute(
            "INSERT OR REPLACE INTO revoked_sessions (session, expires) VALUES (?1, ?2)",
            (session, until),
        )?;
        call.server.authenticator.revoke(session, until);
    }
    Ok(json!({}))
}

fn create_credentials(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let label = call.opt_str("label")?;
    let (access_key, secret_key) = (keys::access_key(), keys::secret_key());
    credentials::insert(
        tx,
        &access_key,
        secret_key.expose(),
        &call.user.user,
        label,
        call.now,
    )?;
    let mut pair = json!({"access_key": access_key, "secret_key": secret_key.expose()});
    if let Some(label) = label {
        pair["label"] = json!(label);
    }
    Ok(json!({"credentials": pair}))
}

fn get_credentials(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    Ok(json!({"credentials": credentials::list(tx, &call.user.user)?}))
}

fn edit_credentials(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let access_key = call.required_str("access_key")?;
    let updated = credentials::relabel(tx, access_key, &call.user.user, call.opt_str("label")?)?;
    if updated == 0 {
        return Err(ApiFault::new(
            400,
            75,
            format!("Access key not found: access_key={access_key}"),
        ));
    }
    Ok(json!({"updated": updated}))
}

fn revoke_credentials(call: &Call, tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let access_key = call.required_str("access_key")?;
    let revoked = credentials::remove(tx, access_key, &call.user.user)?;
    if revoked == 0 {
        return Err(ApiFault::new(
            400,
            300,
            format!("Invalid user (no such access key): access_key={access_key}"),
        ));
    }
    Ok(json!({"revoked": revoked}))
}

fn fixed_users_mode(_call: &Call, _tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    Ok(json!({"enabled": false, "guest": {"enabled": false}, "server_errors": server_errors()}))
}

fn supported_modes(call: &Call, _tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    Ok(json!({
        "basic": {"enabled": false, "guest": {"enabled": false}},
        "sso": {},
        "sso_providers": [],
        "server_errors": server_errors(),
        "authenticated": !call.user.user.is_empty(),
    }))
}

/// This server has no other services that could be missing.
fn server_errors() -> Value {
    json!({"missed_es_upgrade": false, "es_connection_error": false})
}
