//! The session of the task's owner while the run lasts.

use std::convert::Infallible;
use std::time::Duration;

use clearml_support::secret::Secret;
use tokio::time::sleep;

use super::{Runner, RunnerError};
use crate::owner::{OwnerSession, renew};

/// How often to look whether the client has a new token.
const LOOK_EVERY: Duration = Duration::from_secs(2);

impl Runner {
    /// Writes down each token that comes into use. The client itself replaces one that nears its end, because
    /// the status of the task is asked for all the time.
    pub(super) async fn keep_owner_token(&self) -> Infallible {
        if self.inputs.owner.is_none() {
            return std::future::pending().await;
        }
        let mut stored: Option<Secret> = None;
        loop {
            let token = self.client.token();
            if token != stored
                && let Some(newer) = token
            {
                self.settings.redactor.add(&newer);
                match renew(&self.run, newer.clone()) {
                    Ok(()) => stored = Some(newer),
                    Err(e) => tracing::warn!("the renewed token of the task's owner can't be stored: {e}"),
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// The token for the user's program, if the run works in the owner's name. From now on nobody reads it in
    /// the console, whoever ships that.
    pub(in crate::runner) fn token_for_program(&self) -> Result<Option<Secret>, RunnerError> {
        let Some(session) = self.run.owner()? else {
            return Ok(None);
        };
        // What the client holds is at least as new as what was last written down.
        let token = self.client.token().unwrap_or_else(|| session.token.clone());
        self.settings.redactor.add(&token);
        self.settings.ship.hide(&token);
        self.run.write_owner(&OwnerSession {
            token: token.clone(),
            given: Some(token.clone()),
            ..session
        })?;
        Ok(Some(token))
    }
}
