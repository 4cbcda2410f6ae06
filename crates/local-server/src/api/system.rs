//! `server.*` and `debug.*`: what the server is, and whether it is there. Also what nobody but root may call.

use rusqlite::Transaction;
use serde_json::{Value, json};

use super::{ApiFault, AuthNeed, Call, Endpoint};
use crate::http::path::Version;
use crate::server::{API_VERSION, SERVER_VERSION};

pub(crate) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::read("debug.ping", (1, 5), ping).auth(AuthNeed::None),
        Endpoint::read("server.info", (2, 1), info),
        Endpoint::read("server.config", (1, 0), for_root),
        Endpoint::read("server.endpoints", (1, 0), for_root),
        Endpoint::read("server.get_stats", (2, 1), for_root),
        Endpoint::read("auth.validate_token", (1, 0), for_root),
        Endpoint::read("auth.get_token_for_user", (1, 0), for_root),
        Endpoint::read("users.create", (1, 0), for_root),
        Endpoint::read("users.delete", (1, 0), for_root),
    ]
}

/// 403/20: only the root user of an official server may do this, and this server has none.
fn for_root(call: &Call, _tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let role = &call.user.role;
    let msg = format!(
        "Forbidden (not allowed for this role): role={role}, endpoint={}",
        call.endpoint
    );
    Err(ApiFault::new(403, 20, msg))
}

/// Echoes the request data: the health check of the API.
fn ping(call: &Call, _tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut reply = call.data.clone();
    reply.insert("msg".to_owned(), json!("ClearML-compatible local server"));
    Ok(Value::Object(reply))
}

fn info(call: &Call, _tx: &Transaction<'_>) -> Result<Value, ApiFault> {
    let mut reply = json!({"version": SERVER_VERSION, "build": env!("CARGO_PKG_VERSION"), "commit": ""});
    if call.version >= Version::new(2, 12) {
        reply["api_version"] = json!(API_VERSION.to_string());
    } else if call.version >= Version::new(2, 8) {
        reply["uid"] = json!(call.server.identity.company);
    }
    Ok(reply)
}
