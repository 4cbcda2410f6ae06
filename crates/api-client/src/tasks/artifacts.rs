//! `tasks.*` about artifacts and models of tasks.

use clearml_task_model::TaskId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::call::Call;
use crate::client::Client;
use crate::error::ApiError;
use crate::models::ModelId;
use crate::reply::Updated;

/// A file of a task, known by key and mode.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
pub struct Artifact {
    /// Name.
    pub key: String,
    /// Type, such as `custom` or `pandas`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether the task reads or makes it.
    #[serde(default)]
    pub mode: ArtifactMode,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// SHA-256 of its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Its size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_size: Option<u64>,
    /// When it was made, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
    /// Everything else, such as `type_data` with a preview.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Whether a task reads or makes an artifact or model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ArtifactMode {
    /// It reads it.
    Input,
    /// It makes it.
    #[default]
    Output,
}

/// A model that a task reads or makes, under a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelUse {
    /// The name.
    pub name: String,
    /// Whether the task reads or makes it.
    #[serde(rename = "type")]
    pub mode: ArtifactMode,
}

impl Client {
    /// Adds artifacts, or replaces those with the same key and mode, of a task that is a draft, queued or
    /// running. API 2.10. Repeated until answered.
    ///
    /// # Errors
    /// 400/110 for a task in another status. See [`ApiError`].
    pub async fn tasks_add_or_update_artifacts(
        &self,
        task: &TaskId,
        artifacts: &[Artifact],
    ) -> Result<u64, ApiError> {
        let body = json!({ "task": task, "artifacts": artifacts, "force": true });
        let call = Call::safe("tasks.add_or_update_artifacts", (2, 10)).body(body);
        Ok(self.call::<Updated>(call).await?.updated)
    }

    /// Removes artifacts, given by key and mode; gives their number. API 2.10. Repeated until answered.
    ///
    /// # Errors
    /// 400/110 for a task in a status that forbids it. See [`ApiError`].
    pub async fn tasks_delete_artifacts(
        &self,
        task: &TaskId,
        artifacts: &[(&str, ArtifactMode)],
    ) -> Result<u64, ApiError> {
        let keys: Vec<Value> = artifacts
            .iter()
            .map(|(key, mode)| json!({ "key": key, "mode": mode }))
            .collect();
        let body = json!({ "task": task, "artifacts": keys, "force": true });
        self.field(
            Call::safe("tasks.delete_artifacts", (2, 10)).body(body),
            "deleted",
        )
        .await
    }

    /// Notes that a task reads or makes a model, under a name; `iteration` raises the task's last one. API
    /// 2.13. Repeated until answered.
    ///
    /// # Errors
    /// 400/201 when there is no such model, 400/110 for a task in a status that forbids it. See
    /// [`ApiError`].
    pub async fn tasks_add_or_update_model(
        &self,
        task: &TaskId,
        model: &ModelId,
        usage: &ModelUse,
        iteration: Option<i64>,
    ) -> Result<u64, ApiError> {
        let mut body = json!({ "task": task, "model": model, "name": usage.name, "type": usage.mode });
        if let Some(iteration) = iteration {
            body["iteration"] = iteration.into();
        }
        let call = Call::safe("tasks.add_or_update_model", (2, 13)).body(body);
        Ok(self.call::<Updated>(call).await?.updated)
    }

    /// Removes such notes; the models stay. API 2.13. Repeated until answered.
    ///
    /// # Errors
    /// 400/110 for a task in a status that forbids it. See [`ApiError`].
    pub async fn tasks_delete_models(&self, task: &TaskId, models: &[ModelUse]) -> Result<u64, ApiError> {
        let body = json!({ "task": task, "models": models });
        let call = Call::safe("tasks.delete_models", (2, 13)).body(body);
        Ok(self.call::<Updated>(call).await?.updated)
    }
}
