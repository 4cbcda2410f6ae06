//! `auth.*` and `login.*`: access keys, and what the login page offers. The login itself belongs to the
//! session and lives in `session.rs`.

use clearml_support::secret::Secret;
use clearml_task_model::UserId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::call::Call;
use crate::client::Client;
use crate::error::ApiError;
use crate::reply::Updated;

/// A new access key with its secret, which the server does not tell again.
#[derive(Debug, Clone, Deserialize)]
pub struct NewCredentials {
    /// The access key.
    pub access_key: String,
    /// Its secret.
    #[serde(deserialize_with = "secret")]
    pub secret_key: Secret,
    /// What it is for, in its owner's words.
    #[serde(default)]
    pub label: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// An access key as the server lists it: without its secret.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct AccessKey {
    /// The access key.
    pub access_key: String,
    /// What it is for, in its owner's words.
    #[serde(default)]
    pub label: Option<String>,
    /// When it was last used.
    #[serde(default)]
    pub last_used: Option<String>,
    /// Where it was last used.
    #[serde(default)]
    pub last_used_from: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// How people log in to this server.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct LoginModes {
    /// Whether we are logged in.
    pub authenticated: bool,
    /// Login by name and password.
    pub basic: Value,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

impl Client {
    /// Ends the session on the server: its tokens are refused from now on, also those that children got.
    /// A later call of this client logs in again. API 2.2. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn auth_logout(&self) -> Result<(), ApiError> {
        self.done(Call::safe("auth.logout", (2, 2))).await
    }

    /// Makes an access key for the caller. Repeated only while it is certain that none was made.
    ///
    /// # Errors
    /// 400/301 for users that the server's configuration defines. See [`ApiError`].
    pub async fn auth_create_credentials(&self, label: Option<&str>) -> Result<NewCredentials, ApiError> {
        let body = label.map_or_else(|| json!({}), |label| json!({ "label": label }));
        self.field(
            Call::creating("auth.create_credentials", (2, 1)).body(body),
            "credentials",
        )
        .await
    }

    /// The caller's access keys. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn auth_get_credentials(&self) -> Result<Vec<AccessKey>, ApiError> {
        self.field(Call::safe("auth.get_credentials", (2, 1)), "credentials")
            .await
    }

    /// Changes the label of an access key. API 2.19. Repeated until answered.
    ///
    /// # Errors
    /// 400/75 for an unknown key. See [`ApiError`].
    pub async fn auth_edit_credentials(&self, access_key: &str, label: &str) -> Result<Updated, ApiError> {
        let body = json!({ "access_key": access_key, "label": label });
        self.call(Call::safe("auth.edit_credentials", (2, 19)).body(body))
            .await
    }

    /// Makes an access key invalid; gives the number of keys that were. Repeated until answered.
    ///
    /// # Errors
    /// 400/300 for an unknown key. See [`ApiError`].
    pub async fn auth_revoke_credentials(&self, access_key: &str) -> Result<u64, ApiError> {
        let body = json!({ "access_key": access_key });
        self.field(
            Call::safe("auth.revoke_credentials", (2, 1)).body(body),
            "revoked",
        )
        .await
    }

    /// Whether the server's configuration defines its users. Needs no credentials; sent once.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn auth_fixed_users_mode(&self) -> Result<Map<String, Value>, ApiError> {
        self.call(Call::new("auth.fixed_users_mode").anonymous()).await
    }

    /// What a token says, if it is valid. For administrators. Repeated until answered.
    ///
    /// # Errors
    /// 401/1 for others. See [`ApiError`].
    pub async fn auth_validate_token(&self, token: &Secret) -> Result<Map<String, Value>, ApiError> {
        let body = json!({ "token": token.expose() });
        self.call(Call::safe("auth.validate_token", (2, 1)).body(body))
            .await
    }

    /// A token of another user. For administrators. Repeated until answered.
    ///
    /// # Errors
    /// 401/1 for others, 400/301 for an unknown user. See [`ApiError`].
    pub async fn auth_get_token_for_user(&self, user: &UserId) -> Result<Secret, ApiError> {
        let body = json!({ "user": user });
        let call = Call::safe("auth.get_token_for_user", (2, 1)).body(body);
        self.field::<String>(call, "token").await.map(Secret::new)
    }

    /// How people can log in. Needs no credentials; sent once.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn login_supported_modes(&self) -> Result<LoginModes, ApiError> {
        self.call(Call::new("login.supported_modes").anonymous()).await
    }

    /// Ends the session, as the web pages do. API 2.13. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn login_logout(&self) -> Result<(), ApiError> {
        self.done(Call::safe("login.logout", (2, 13))).await
    }
}
