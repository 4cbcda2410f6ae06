//! `server.*`, `debug.*` and `organization.*`: the server itself, and what is common to all projects.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::call::Call;
use crate::client::Client;
use crate::error::ApiError;
use crate::reply::Named;

/// What the server says about itself.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct ServerInfo {
    /// Version of the server.
    pub version: Option<String>,
    /// Newest API version.
    pub api_version: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Tags in use.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Tags {
    /// Those that people gave.
    #[serde(deserialize_with = "crate::reply::null_as_default")]
    pub tags: Vec<String>,
    /// Those that programs gave; only if asked for.
    #[serde(deserialize_with = "crate::reply::null_as_default")]
    pub system_tags: Vec<String>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Client {
    /// What the server says about itself. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn server_info(&self) -> Result<ServerInfo, ApiError> {
        self.call(Call::safe("server.info", (2, 1))).await
    }

    /// The server's configuration below `path` (dotted; empty = all). For administrators. Repeated until
    /// answered.
    ///
    /// # Errors
    /// 401/1 for others. See [`ApiError`].
    pub async fn server_config(&self, path: &str) -> Result<Map<String, Value>, ApiError> {
        let body = if path.is_empty() {
            json!({})
        } else {
            json!({ "path": path })
        };
        self.call(Call::safe("server.config", (2, 1)).body(body)).await
    }

    /// The calls that the server has. For administrators. Repeated until answered.
    ///
    /// # Errors
    /// 401/1 for others. See [`ApiError`].
    pub async fn server_endpoints(&self) -> Result<Map<String, Value>, ApiError> {
        self.call(Call::safe("server.endpoints", (2, 1))).await
    }

    /// Statistics about the use of the server. For administrators. Repeated until answered.
    ///
    /// # Errors
    /// 401/1 for others. See [`ApiError`].
    pub async fn server_get_stats(&self) -> Result<Map<String, Value>, ApiError> {
        self.call(Call::safe("server.get_stats", (2, 1))).await
    }

    /// Whether the server answers at all; needs no credentials and is sent once.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn debug_ping(&self) -> Result<(), ApiError> {
        self.done(Call::new("debug.ping").anonymous()).await
    }

    /// Tags in use anywhere. API 2.8. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn organization_get_tags(&self, include_system: bool) -> Result<Tags, ApiError> {
        let body = json!({ "include_system": include_system });
        self.call(Call::safe("organization.get_tags", (2, 8)).body(body))
            .await
    }

    /// Numbers of objects, by kind; each kind is given a filter, such as `{"tasks": {}}`. Repeated until
    /// answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn organization_get_entities_count(
        &self,
        filters: Map<String, Value>,
    ) -> Result<Map<String, Value>, ApiError> {
        let call = Call::safe("organization.get_entities_count", (2, 1));
        self.call(call.body(Value::Object(filters))).await
    }

    /// The companies that the caller belongs to, with their users. API 2.12. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn organization_get_user_companies(&self) -> Result<Vec<Named>, ApiError> {
        self.field(
            Call::safe("organization.get_user_companies", (2, 12)),
            "companies",
        )
        .await
    }
}
