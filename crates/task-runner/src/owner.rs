//! The session of a task's owner, where the agent works in the owner's name.
//!
//! The agent logs in as the owner before the run gets its configuration, and leaves the token in the run
//! directory. From then on everything that is told to the server about the task is told with it: the agent's own
//! credentials are not in the configuration of such a run. The token in use is written back whenever it has been
//! replaced, so that the next runner and the user's program begin with one that is good.

use clearml_support::secret::Secret;
use clearml_task_model::UserId;
use serde::{Deserialize, Serialize};

use crate::record::{SCHEMA, Versioned};
use crate::run_dir::{RunDir, RunDirError};

/// By this variable programs learn which token they are to use.
pub const TOKEN_VARIABLE: &str = "CLEARML_AUTH_TOKEN";

/// A session of the owner of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerSession {
    /// The owner.
    pub user: UserId,
    /// The owner's company.
    pub company: String,
    /// The newest token.
    pub token: Secret,
    /// The token that the user's program was started with.
    pub given: Option<Secret>,
}

/// `owner.json`. Holds secrets; mode 0600.
#[derive(Serialize, Deserialize)]
pub(crate) struct OwnerFile {
    schema: u32,
    user: UserId,
    company: String,
    token: String,
    #[serde(default)]
    given: Option<String>,
}

impl Versioned for OwnerFile {
    fn schema(&self) -> u32 {
        self.schema
    }
}

impl From<&OwnerSession> for OwnerFile {
    fn from(session: &OwnerSession) -> Self {
        let text = |secret: &Secret| secret.expose().to_owned();
        Self {
            schema: SCHEMA,
            user: session.user.clone(),
            company: session.company.clone(),
            token: text(&session.token),
            given: session.given.as_ref().map(text),
        }
    }
}

impl From<OwnerFile> for OwnerSession {
    fn from(file: OwnerFile) -> Self {
        Self {
            user: file.user,
            company: file.company,
            token: Secret::new(file.token),
            given: file.given.map(Secret::new),
        }
    }
}

/// Stores a new token of the owner, if the run works in the owner's name at all. Which token the program was
/// given stays known.
///
/// # Errors
///
/// When the file is damaged or the file system refuses.
pub fn renew(run: &RunDir, token: Secret) -> Result<(), RunDirError> {
    match run.owner()? {
        Some(session) if session.token != token => run.write_owner(&OwnerSession { token, ..session }),
        _ => Ok(()),
    }
}
