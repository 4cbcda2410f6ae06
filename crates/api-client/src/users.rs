//! `users.*`.

use clearml_task_model::UserId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::call::{Call, Extension};
use crate::client::Client;
use crate::error::ApiError;
use crate::reply::Updated;
use crate::select::Selection;

/// A user.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct User {
    /// Id.
    pub id: String,
    /// Name.
    pub name: Option<String>,
    /// Role, such as `admin`.
    pub role: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Configuration that a user or administrator keeps on the server.
#[derive(Clone, PartialEq, Deserialize)]
pub struct Vault {
    /// Id.
    #[serde(default)]
    pub id: Option<String>,
    /// Whom it is for, such as `user` or `company`.
    #[serde(default)]
    pub scope: Option<String>,
    /// In words.
    #[serde(default)]
    pub description: Option<String>,
    /// HOCON text. Often has secrets, so `Debug` leaves it out.
    #[serde(default)]
    pub data: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault")
            .field("id", &self.id)
            .field("scope", &self.scope)
            .field("description", &self.description)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// The user that the credentials belong to. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn users_get_current_user(&self) -> Result<User, ApiError> {
        self.field(Call::safe("users.get_current_user", (2, 1)), "user")
            .await
    }

    /// Users that match. At most 500 per call. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn users_get_all(&self, query: &Selection) -> Result<Vec<User>, ApiError> {
        self.field(Call::safe("users.get_all", (2, 1)).data(query), "users")
            .await
    }

    /// One user. Repeated until answered.
    ///
    /// # Errors
    /// 400/301 when there is no such user. See [`ApiError`].
    pub async fn users_get_by_id(&self, user: &UserId) -> Result<User, ApiError> {
        let body = json!({ "user": user });
        self.field(Call::safe("users.get_by_id", (2, 1)).body(body), "user")
            .await
    }

    /// What the web pages remember for the caller. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn users_get_preferences(&self) -> Result<Map<String, Value>, ApiError> {
        self.field(Call::safe("users.get_preferences", (2, 1)), "preferences")
            .await
    }

    /// Changes what the web pages remember for the caller, by dotted names. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn users_set_preferences(&self, preferences: Map<String, Value>) -> Result<Updated, ApiError> {
        let body = json!({ "preferences": preferences });
        self.call(Call::safe("users.set_preferences", (2, 1)).body(body))
            .await
    }

    /// Configuration that applies to the caller. API 2.15, beyond the open server. Repeated until
    /// answered.
    ///
    /// # Errors
    /// [`ApiError::Unsupported`] on other servers. See [`ApiError`].
    pub async fn users_get_vaults(&self) -> Result<Vec<Vault>, ApiError> {
        let call = Call::safe("users.get_vaults", (2, 15))
            .extension(Extension::BeyondBasic)
            .query("enabled", "true")
            // Twice, or servers would take it for one text instead of a list.
            .query("types", "config")
            .query("types", "config");
        self.field(call, "vaults").await
    }

    /// Adds a user. For administrators. Repeated only while it is certain that none was added.
    ///
    /// # Errors
    /// 401/1 for others. See [`ApiError`].
    pub async fn users_create(&self, id: &UserId, name: &str) -> Result<(), ApiError> {
        let body = json!({ "id": id, "name": name });
        self.done(Call::creating("users.create", (2, 1)).body(body)).await
    }

    /// Removes a user. For administrators. Repeated until answered.
    ///
    /// # Errors
    /// 401/1 for others, 400/301 when there is no such user. See [`ApiError`].
    pub async fn users_delete(&self, user: &UserId) -> Result<(), ApiError> {
        let call = Call::safe("users.delete", (2, 1)).body(json!({ "user": user }));
        self.done(call.settled_by(400, 301)).await
    }
}
