//! `users.*`, `projects.*`, `server.*` and `debug.*`: who we are and who is there. The login itself
//! belongs to the session and lives in `client.rs`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::call::{Call, Retry};
use crate::client::Client;
use crate::error::ApiError;
use crate::{Nothing, VERSION, is_false};

/// The user that the credentials belong to.
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

/// Which projects to list.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ProjectsQuery {
    /// These projects.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub id: Vec<String>,
    /// Name by regular expression; see [`exact`](crate::exact).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Only these fields are returned.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only_fields: Vec<String>,
    /// Also hidden projects.
    #[serde(skip_serializing_if = "is_false")]
    pub search_hidden: bool,
}

/// A project, as far as it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
pub struct Project {
    /// Id.
    pub id: Option<String>,
    /// Full name, with `/` between parents and children.
    pub name: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

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

#[derive(Deserialize)]
struct CurrentUser {
    user: User,
}

#[derive(Deserialize)]
struct Projects {
    projects: Vec<Project>,
}

impl Client {
    /// The user that the credentials belong to. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn users_get_current_user(&self) -> Result<User, ApiError> {
        let call = Call::new("users.get_current_user")
            .version(VERSION)
            .retry(Retry::Idempotent);
        Ok(self.call::<CurrentUser>(call).await?.user)
    }

    /// Projects that match. At most 500 per call. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn projects_get_all(&self, query: &ProjectsQuery) -> Result<Vec<Project>, ApiError> {
        let call = Call::new("projects.get_all")
            .version(VERSION)
            .data(query)
            .retry(Retry::Idempotent);
        Ok(self.call::<Projects>(call).await?.projects)
    }

    /// What the server says about itself. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn server_info(&self) -> Result<ServerInfo, ApiError> {
        self.call(Call::new("server.info").version(VERSION).retry(Retry::Idempotent))
            .await
    }

    /// Whether the server answers at all; needs no credentials and is sent once.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn debug_ping(&self) -> Result<(), ApiError> {
        self.call::<Nothing>(Call::new("debug.ping").anonymous())
            .await
            .map(drop)
    }
}
