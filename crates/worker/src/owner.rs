//! Working in the name of the task's owner (`--use-owner-token`).
//!
//! What concerns the queues and the worker is told to the server with the agent's own credentials. Once a task has
//! been claimed, the agent logs in as its owner and leaves that session in the run directory, with a configuration
//! that lacks the agent's credentials and has the owner's vaults; everything that happens to the task from then on
//! happens in the owner's name. Whose task it is, is asked for after the pop, not by it: the answer of a pop can
//! get lost, and the next daemon has to be able to go on.
//!
//! A task whose owner the server does not let us speak for fails, and its console says why: no other try would
//! end better, and a task that is put back would come again and again.

use std::time::Duration;

use clearml_api_client::{ApiError, Client, Feature, LogEvent, SessionInfo};
use clearml_intake::vaults::{and_vaults, shown};
use clearml_support::time::now_ms;
use clearml_task_runner::decisions::{Facts, decide};
use clearml_task_runner::owner::{OwnerSession, renew};
use clearml_task_runner::record::Failure;
use clearml_task_runner::{Phase, RunDir, RunInputs, RunRecord, observe, tell};
use serde_json::Value;
use tokio::time::timeout;

use crate::serve::{Server, say};
use crate::watch::{REPORT_PATIENCE, WatchError};

/// Roles that may speak for others.
const ROLES: [&str; 3] = ["admin", "root", "system"];
/// Service accounts may, from this type on.
const SERVICE_ACCOUNT: i64 = 2;
/// How long a server may take over a new token for a run that has one already.
const RENEWAL_LIMIT: Duration = Duration::from_secs(15);
/// Variables by which an agent is told its credentials, without the name of the product.
const CREDENTIALS: [&str; 3] = ["API_ACCESS_KEY", "API_SECRET_KEY", "AUTH_TOKEN"];

/// Owners of tasks can't be spoken for.
#[derive(Debug, thiserror::Error)]
pub enum OwnerRefused {
    /// The server has no such thing.
    #[error(
        "Server does not support the --use-owner-token option (incompatible API version or server feature set): it \
         needs API 2.14 and more than the feature set \"basic\", the server has API {api} and {features:?}; leave \
         the option away"
    )]
    Server {
        /// Its API version.
        api: String,
        /// What it offers.
        features: String,
    },
    /// The user whose credentials the agent has may not do that.
    #[error(
        "User role not suitable for the --use-owner-token option: it needs admin, root, system, or a service account, \
         and the credentials of the agent belong to {role:?}; use credentials of another user"
    )]
    Role {
        /// That user's role.
        role: String,
    },
}

/// Whether the server and the role allow it.
pub(crate) fn check(session: &SessionInfo) -> Result<(), OwnerRefused> {
    if !session.supports(Feature::OwnerToken) {
        return Err(OwnerRefused::Server {
            api: session.api_version.to_string(),
            features: session.feature_set.clone(),
        });
    }
    let role = session.role.as_deref().unwrap_or_default();
    let account = session.service_account_type.as_deref();
    let is_service = account
        .and_then(|kind| kind.parse::<i64>().ok())
        .is_some_and(|kind| kind >= SERVICE_ACCOUNT);
    if is_service || ROLES.contains(&role) {
        return Ok(());
    }
    Err(OwnerRefused::Role {
        role: role.to_owned(),
    })
}

/// The variables of this process that have the agent's own credentials in them.
pub(crate) fn own_credentials() -> impl Iterator<Item = String> {
    let named = ["CLEARML", "TRAINS"]
        .into_iter()
        .flat_map(|product| CREDENTIALS.map(|name| format!("{product}_{name}")));
    let overrides = std::env::vars_os().filter_map(|(name, _)| {
        let name = name.into_string().ok()?;
        let is_credential = name
            .to_ascii_uppercase()
            .starts_with("CLEARML_AGENT__API__CREDENTIALS");
        is_credential.then_some(name)
    });
    named.chain(overrides)
}

fn without_credentials(mut config: Value) -> Value {
    if let Some(api) = config.get_mut("api").and_then(Value::as_object_mut) {
        api.remove("credentials");
    }
    config
}

/// Why there is no session of the owner.
enum NoSession {
    /// There will not be any.
    Refused(String),
    /// The server or this machine is in trouble.
    Failed(ApiError),
}

impl Server {
    /// Stores everything that a claimed run needs. `false`: the task can't be run in its owner's name, and has
    /// failed.
    pub(crate) async fn give_inputs(&self, run: &RunDir, record: &RunRecord) -> Result<bool, WatchError> {
        let inputs = RunInputs::from_process(self.options.clone());
        if !self.use_owner_token {
            run.write_inputs(&self.settings.effective_json(), &inputs)?;
            return Ok(true);
        }
        let result = tokio::select! {
            result = Box::pin(log_in(&self.client, record)) => result,
            () = self.stop.wait() => return Err(WatchError::Ending),
        };
        let (theirs, session) = match result {
            Ok(found) => found,
            Err(NoSession::Failed(e)) => return Err(WatchError::Owner(Box::new(e))),
            Err(NoSession::Refused(reason)) => {
                self.refuse(run, record, reason).await?;
                return Ok(false);
            }
        };
        self.redactor.add(&session.token);
        let vaults = tokio::select! {
            vaults = Box::pin(and_vaults(&theirs, &self.settings)) => vaults,
            () = self.stop.wait() => return Err(WatchError::Ending),
        };
        vaults.settings.register_secrets(&self.redactor);
        for line in shown(&vaults.notices, self.settings.agent.debug) {
            say(line);
        }
        run.write_owner(&session)?;
        run.write_inputs(&without_credentials(vaults.settings.effective_json()), &inputs)?;
        Ok(true)
    }

    /// A run that goes on without a runner begins with a token that is good, however old its own one is.
    pub(crate) async fn renew_owner(&self, run: &RunDir) {
        if !self.use_owner_token || run.runner_alive() {
            return;
        }
        let renewal = async {
            let Some(session) = run.owner().map_err(|e| e.to_string())? else {
                return Ok(());
            };
            let theirs = self.client.impersonate(&session.user, &session.company);
            let theirs = Box::pin(theirs).await.map_err(|e| e.to_string())?;
            let Some(token) = theirs.token() else {
                return Ok(());
            };
            self.redactor.add(&token);
            renew(run, token).map_err(|e| e.to_string())
        };
        let result: Result<(), String> = timeout(RENEWAL_LIMIT, renewal)
            .await
            .unwrap_or_else(|_| Err("the server does not answer".to_owned()));
        if let Err(e) = result {
            tracing::warn!(
                "logging in anew as the owner of a task: {e}; going on with the token in {}",
                run.path().display()
            );
        }
    }

    /// The task fails.
    async fn refuse(&self, run: &RunDir, record: &RunRecord, reason: String) -> Result<(), WatchError> {
        let id = &record.identity.task;
        let text = format!("the task can't be run in its owner's name (--use-owner-token): {reason}");
        tracing::error!("task {id}: {text}");
        let failure = Failure {
            stage: "environment".to_owned(),
            text,
            exit_code: None,
            over: true,
        };
        let telling = async {
            let line = format!("clearml_agent: ERROR: {}\n", failure.text);
            let event = LogEvent::new(id, "ERROR", record.identity.worker.as_str(), line, now_ms());
            if let Err(e) = self.client.events_add_batch(&[event]).await {
                tracing::warn!("writing to the console of task {id}: {e}");
            }
            let task = observe(&self.client, id).await;
            let facts = Facts::of_run(
                (&record.identity, &record.run_id),
                (Some(&failure), None),
                None,
                task.as_ref(),
                (0, 0),
            );
            let outcome = decide(&facts);
            tell(&self.client, &record.identity, &record.run_id, &outcome).await;
            outcome
        };
        match timeout(REPORT_PATIENCE, Box::pin(telling)).await {
            Ok(outcome) => {
                run.update(|record| {
                    record.outcome = Some(outcome);
                    record.phase = Phase::Abandoned;
                })?;
            }
            // Still claimed, so whoever looks at it next begins again.
            Err(_) => {
                tracing::warn!("the end of task {id} could not be reported: the server does not answer")
            }
        }
        Ok(())
    }
}

/// A session of the owner of the task.
async fn log_in(own: &Client, record: &RunRecord) -> Result<(Client, OwnerSession), NoSession> {
    let task = match own.tasks_get_by_id(&record.identity.task).await {
        Ok(task) => task,
        Err(e) if e.is_transient() => return Err(NoSession::Failed(e)),
        Err(e) => return Err(NoSession::Refused(e.to_string())),
    };
    let company = task.extra.get("company").and_then(|company| {
        let id = company.get("id").unwrap_or(company);
        id.as_str().map(str::to_owned)
    });
    let (Some(user), Some(company)) = (task.user, company) else {
        return Err(NoSession::Refused(
            "the server does not say whose task it is".to_owned(),
        ));
    };
    let theirs = match own.impersonate(&user, &company).await {
        Ok(theirs) => theirs,
        // Anything else may be different on the next try.
        Err(e @ ApiError::Status { http: 400..=499, .. }) if !e.is_transient() => {
            return Err(NoSession::Refused(format!("logging in as user {user}: {e}")));
        }
        Err(e) => return Err(NoSession::Failed(e)),
    };
    let token = theirs.token().unwrap_or_default();
    let session = OwnerSession {
        user,
        company,
        token,
        given: None,
    };
    Ok((theirs, session))
}

#[cfg(test)]
mod tests {
    use clearml_local_server::ServerOptions;
    use serde_json::json;

    use super::*;

    async fn session_of(features: &str) -> SessionInfo {
        let folder = tempfile::tempdir().unwrap();
        let options = ServerOptions {
            feature_set: features.to_owned(),
            ..ServerOptions::new(folder.path())
        };
        let server = clearml_local_server::Server::start(options).await.unwrap();
        let settings = clearml_agent_config::Settings::load(&clearml_agent_config::Sources {
            config_file: Some(server.config_path().to_owned()),
            ..Default::default()
        })
        .unwrap();
        let options = clearml_task_runner::settings::client_options(&settings).unwrap();
        let session = Client::new(options).unwrap().login().await.unwrap();
        server.shutdown().await;
        session
    }

    #[tokio::test]
    async fn server_and_role_have_to_allow_it() {
        let basic = check(&session_of("basic").await).unwrap_err();
        assert!(matches!(basic, OwnerRefused::Server { .. }), "{basic}");
        let mut session = session_of("advanced").await;
        let mut allowed = |role: &str, account: Option<&str>| {
            session.role = Some(role.to_owned());
            session.service_account_type = account.map(str::to_owned);
            check(&session).is_ok()
        };
        for role in ROLES {
            assert!(allowed(role, None), "{role}");
        }
        assert!(allowed("user", Some("2")) && allowed("user", Some("3")));
        for (role, account) in [
            ("user", None),
            ("user", Some("1")),
            ("guest", Some("x")),
            ("", None),
        ] {
            assert!(!allowed(role, account), "{role} {account:?}");
        }
        session.role = Some("user".to_owned());
        session.api_version = "2.13".parse().unwrap();
        let old = check(&session).unwrap_err().to_string();
        assert!(
            old.starts_with("Server does not support") && old.contains("2.13"),
            "{old}"
        );
        session.api_version = "2.14".parse().unwrap();
        session.service_account_type = None;
        let role = check(&session).unwrap_err().to_string();
        assert!(
            role.starts_with("User role not suitable") && role.contains("\"user\""),
            "{role}"
        );
    }

    #[test]
    fn a_configuration_loses_the_keys_and_nothing_else() {
        let config = json!({"api": {"api_server": "x", "credentials": {"access_key": "a"}}, "sdk": {"b": 1}});
        let kept = json!({"api": {"api_server": "x"}, "sdk": {"b": 1}});
        assert_eq!(without_credentials(config), kept);
        assert_eq!(without_credentials(json!({"api": 3})), json!({"api": 3}));
    }
}
