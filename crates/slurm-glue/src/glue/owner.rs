//! In whose name a task's job works: its Linux user, and what its agent logs in to the server with.

use std::collections::BTreeSet;

use clearml_api_client::{ApiError, Client, Feature};
use clearml_intake::vaults;
use clearml_sbatch_template::JobFile;
use clearml_support::fs::safe_file_name;
use clearml_task_model::Task;
use serde_json::Value;

use super::submit::Preparation;
use super::{Glue, GlueError};
use crate::core::users::{self, Decision, Trust, UserMap, VaultScope};
use crate::credentials::Folder;
use crate::journal::Record;
use crate::options::{Credentials, user_map};

/// The most sessions of owners that are kept.
const SESSIONS: usize = 1000;

/// There is no job for a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// There never will be one: the task fails, for this reason.
    Task(String),
    /// So it is because of the template and the task together.
    Template(String),
    /// The server or this machine is in trouble: the task waits for its turn again.
    Later(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Task(reason) | Self::Later(reason) => f.write_str(reason),
            Self::Template(reason) => write!(f, "Slurm template error: {reason}"),
        }
    }
}

/// What the agent in a job logs in with.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    pub(super) configuration: Option<JobFile>,
    pub(super) token: Option<JobFile>,
}

impl Glue {
    /// Sees to a task that there is no job for.
    pub(super) async fn no_job(
        &self,
        record: &Record,
        index: usize,
        trouble: Trouble,
    ) -> Result<Preparation, GlueError> {
        match &trouble {
            Trouble::Later(reason) => {
                tracing::warn!("task {}: {reason}; it goes back to its queue", record.task());
                self.give_back(record).await?;
                return Ok(Preparation::Back(index));
            }
            Trouble::Template(reason) => {
                self.tell.say(record.task(), reason).await;
                self.reject(record, trouble.to_string()).await?;
            }
            Trouble::Task(_) => self.reject(record, trouble.to_string()).await?,
        }
        Ok(Preparation::Over)
    }

    /// The Linux user of a task's job with its home; `None`: our own.
    pub(super) async fn user_of(&self, task: &Task) -> Result<Option<(String, String)>, Trouble> {
        let clearml = task.user.as_ref().map(|user| user.as_str());
        let vaults = self.maps_of(task).await?;
        let map = users::effective(&self.options.user_map, &vaults, self.options.vault_user_map);
        let account = match users::wanted(map, clearml) {
            Some(name) => {
                self.slurm
                    .account(name, self.options.user_rules.name_groups())
                    .await
            }
            None => None,
        };
        match users::decide(map, clearml, &self.options.user_rules, account.as_ref()) {
            Decision::Glue => Ok(None),
            Decision::User(name) => Ok(Some((
                name,
                account.map(|account| account.home).unwrap_or_default(),
            ))),
            Decision::Rejected(reason) => Err(Trouble::Task(reason)),
        }
    }

    /// Those Linux users whose jobs have to be asked for in their names, because Slurm hides them from us.
    pub(super) async fn hidden_users(&self) -> Vec<(String, String)> {
        if !self.site.as_ref().is_some_and(|site| site.hides_jobs) {
            return Vec::new();
        }
        let mut names: BTreeSet<String> = self.options.user_map.values().cloned().collect();
        self.journal.for_each(|record| names.extend(record.user.clone()));
        let mut users = Vec::new();
        for name in names {
            if let Some((_, home)) = self.slurm.user(&name).await {
                users.push((name, home));
            }
        }
        users
    }

    /// A session of the owner of a task. `None`: the server does not let us have one.
    async fn as_owner(&self, task: &Task) -> Result<Option<Client>, Trouble> {
        let company = task.extra.get("company").and_then(|company| {
            let id = company.get("id").unwrap_or(company);
            id.as_str()
        });
        let (Some(user), Some(company)) = (&task.user, company) else {
            return Ok(None);
        };
        let session = self.client.session();
        if !session.is_some_and(|session| session.supports(Feature::OwnerToken)) {
            return Ok(None);
        }
        let mut owners = self.owners.lock().await;
        if let Some(client) = owners.get(user) {
            return Ok(Some(client.clone()));
        }
        match self.client.impersonate(user, company).await {
            Ok(client) => {
                if owners.len() >= SESSIONS {
                    owners.clear();
                }
                owners.insert(user.clone(), client.clone());
                Ok(Some(client))
            }
            Err(error) if is_refusal(&error) => {
                tracing::debug!("logging in as user {user}: {error}");
                Ok(None)
            }
            Err(error) => Err(Trouble::Later(format!("logging in as user {user}: {error}"))),
        }
    }

    /// The vaults of a task's owner; those of our own user where we may not look at others'.
    async fn vaults_of(&self, task: &Task) -> Result<Vec<(VaultScope, Result<Value, String>)>, Trouble> {
        let client = match self.as_owner(task).await? {
            Some(client) => client,
            None => self.client.clone(),
        };
        let found = vaults::of_user(&client, &self.settings).await;
        let found = found.map_err(|error| Trouble::Later(format!("vaults of the task's owner: {error}")))?;
        let read = found.iter().map(|vault| {
            let scope = if vault.scope == "user" {
                VaultScope::Personal
            } else {
                VaultScope::Admin
            };
            let contents = vault.contents(&self.settings);
            (scope, contents.map_err(|reason| reason.to_string()))
        });
        Ok(read.collect())
    }

    /// The maps of Linux users in them.
    async fn maps_of(&self, task: &Task) -> Result<Vec<(VaultScope, UserMap)>, Trouble> {
        if self.options.vault_user_map == Trust::Off {
            return Ok(Vec::new());
        }
        let vaults = self.vaults_of(task).await?;
        let mut maps = Vec::new();
        for (scope, contents) in vaults {
            if !self.options.vault_user_map.counts(scope) {
                continue;
            }
            // Without it the job would run as somebody whom it may not be.
            let wrong = |error: String| Trouble::Task(format!("a vault of the task's owner: {error}"));
            let contents = contents.map_err(wrong)?;
            if let Some(map) = contents.pointer("/agent/slurm/user_map") {
                maps.push((
                    scope,
                    user_map(Some(map)).map_err(|error| wrong(error.to_string()))?,
                ));
            }
        }
        Ok(maps)
    }

    /// All of the owner's vaults as one, for placeholders.
    pub(super) async fn merged_vaults(&self, task: &Task) -> Result<Value, Trouble> {
        let vaults = self.vaults_of(task).await?;
        let mut merged = Value::Null;
        for (_, contents) in vaults {
            match contents {
                Ok(contents) => merge(&mut merged, contents),
                Err(reason) => tracing::warn!("a vault can't be read, and is left out: {reason}"),
            }
        }
        Ok(merged)
    }

    /// What the agent in the job of this task is to log in with. Files belong to the job's user.
    pub(super) async fn secrets(&self, task: &Task, user: Option<&str>) -> Result<Secrets, Trouble> {
        let id = task.id.as_ref().map(ToString::to_string).unwrap_or_default();
        let hidden = || Some(JobFile::Inline("****".to_owned()));
        Ok(match &self.options.credentials {
            Credentials::None => Secrets::default(),
            Credentials::Inline(_) | Credentials::File(_) if self.options.look_only => Secrets {
                configuration: hidden(),
                token: None,
            },
            Credentials::Inline(text) => Secrets {
                configuration: Some(JobFile::Inline(text.expose().to_owned())),
                token: None,
            },
            Credentials::File(text) => Secrets {
                configuration: Some(self.job_file(&id, "conf", text.expose(), user).await?),
                token: None,
            },
            Credentials::Token { server, required } => match self.as_owner(task).await? {
                Some(_) if self.options.look_only => Secrets {
                    configuration: hidden(),
                    token: hidden(),
                },
                Some(client) => {
                    // Sessions are kept; this job gets a token that is as good as new.
                    let renewed = client.login().await;
                    renewed.map_err(|error| Trouble::Later(format!("a token for the job: {error}")))?;
                    let token = client.token().unwrap_or_default();
                    Secrets {
                        configuration: Some(self.place(&id, "conf", server, user).await?),
                        token: Some(self.place(&id, "token", token.expose(), user).await?),
                    }
                }
                None if *required => {
                    return Err(Trouble::Task(
                        "the server does not let the glue log in as the owner of the task, which credentials: token and \
                         --use-owner-token need"
                            .to_owned(),
                    ));
                }
                None => Secrets::default(),
            },
        })
    }

    /// Where there is a folder for it, in a file, otherwise in the script.
    async fn place(&self, id: &str, kind: &str, text: &str, user: Option<&str>) -> Result<JobFile, Trouble> {
        if self.options.shared_dir.is_some() {
            return self.job_file(id, kind, text, user).await;
        }
        Ok(JobFile::Inline(text.to_owned()))
    }

    async fn job_file(
        &self,
        id: &str,
        kind: &str,
        text: &str,
        user: Option<&str>,
    ) -> Result<JobFile, Trouble> {
        let account = match user {
            Some(name) => self.slurm.account(name, false).await,
            None => None,
        };
        let uid = account.map(|account| account.uid);
        let written = match self.credential_folder() {
            Some(folder) => folder.write(id, kind, text, uid),
            None => return Err(Trouble::Task("agent.slurm.shared_dir is not set".to_owned())),
        };
        let path = written.map_err(|error| Trouble::Task(error.to_string()))?;
        Ok(JobFile::File(path.to_string_lossy().into_owned()))
    }

    fn credential_folder(&self) -> Option<Folder> {
        let shared = self.options.shared_dir.as_deref()?;
        Some(Folder::below(shared, &self.worker))
    }

    /// Removes the files of a task whose job is over.
    pub(super) fn forget_secrets(&self, task: &str) {
        if let Some(folder) = self.credential_folder() {
            folder.remove(task);
        }
    }

    /// Removes the files of tasks that are not tracked any more.
    pub(super) fn sweep_secrets(&self) {
        if let Some(folder) = self.credential_folder() {
            let tracked = self.journal.all();
            folder.retain(|task| {
                tracked
                    .iter()
                    .any(|record| safe_file_name(record.task().as_str()) == task)
            });
        }
    }
}

fn is_refusal(error: &ApiError) -> bool {
    match error {
        ApiError::Login { source, .. } => is_refusal(source),
        ApiError::Status { http: 400..=499, .. } | ApiError::Unauthorized { .. } => !error.is_transient(),
        ApiError::Unsupported { .. } => true,
        _ => false,
    }
}

/// Later ones win; tables are merged.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
