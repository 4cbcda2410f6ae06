//! `models.*`.

use std::collections::BTreeMap;

use clearml_task_model::{ProjectId, TaskId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::call::Call;
use crate::client::Client;
use crate::error::ApiError;
use crate::reply::{BatchOutcome, MetadataItem, Updated, null_as_default};
use crate::select::Selection;

/// A model: 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModelId(String);

impl ModelId {
    /// Wraps an identifier as the API gave it.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The identifier as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ModelId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A model, as far as it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Model {
    /// Id.
    pub id: Option<ModelId>,
    /// Name.
    pub name: Option<String>,
    /// Where its file is.
    pub uri: Option<String>,
    /// Framework, such as `PyTorch`.
    pub framework: Option<String>,
    /// Whether it may no longer change.
    pub ready: Option<bool>,
    /// Project.
    pub project: Option<ProjectId>,
    /// The task that made it.
    pub task: Option<TaskId>,
    /// Owner.
    pub user: Option<UserId>,
    /// The model that it comes from.
    pub parent: Option<ModelId>,
    /// Tags.
    #[serde(deserialize_with = "null_as_default")]
    pub tags: Vec<String>,
    /// Free data by key.
    #[serde(deserialize_with = "null_as_default")]
    pub metadata: Value,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What a new model has, or what a model is to have instead. `None` = default, or as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ModelFields {
    /// Name; at least three characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where its file is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Framework.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub framework: Option<String>,
    /// Comment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectId>,
    /// The task that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// The model that it comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<ModelId>,
    /// Tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// System tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_tags: Option<Vec<String>>,
    /// Names of classes and their numbers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, i64>,
    /// Whether it may no longer change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// The iteration that it is from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iteration: Option<i64>,
    /// Further fields, such as `design`.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What deleting a model did.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct ModelDeleted {
    /// Whether it was deleted.
    pub deleted: Value,
    /// Where its file still is.
    pub url: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

#[derive(Serialize)]
struct Of<'a, T: Serialize> {
    model: &'a ModelId,
    #[serde(flatten)]
    rest: T,
}

fn about(endpoint: &'static str, model: &ModelId) -> Call {
    Call::safe(endpoint, (2, 1)).body(json!({ "model": model }))
}

impl Client {
    /// Models that match. At most 500 per call. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn models_get_all(&self, query: &Selection) -> Result<Vec<Model>, ApiError> {
        self.field(Call::safe("models.get_all", (2, 1)).data(query), "models")
            .await
    }

    /// Models that match, as the server gives them with references as objects. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn models_get_all_ex(&self, query: &Selection) -> Result<Vec<Map<String, Value>>, ApiError> {
        self.field(Call::safe("models.get_all_ex", (2, 1)).data(query), "models")
            .await
    }

    /// One model. Repeated until answered.
    ///
    /// # Errors
    /// 400/201 when there is no such model. See [`ApiError`].
    pub async fn models_get_by_id(&self, model: &ModelId) -> Result<Model, ApiError> {
        self.field(about("models.get_by_id", model), "model").await
    }

    /// Creates a model. Repeated only while it is certain that none was created.
    ///
    /// # Errors
    /// 400/12 without name and address or for an unknown project, 400/101 for an unknown task. See
    /// [`ApiError`].
    pub async fn models_create(&self, fields: &ModelFields) -> Result<ModelId, ApiError> {
        self.field(Call::creating("models.create", (2, 1)).data(fields), "id")
            .await
    }

    /// Changes a model, also a ready one. Repeated until answered.
    ///
    /// # Errors
    /// 400/201 when there is no such model. See [`ApiError`].
    pub async fn models_edit(&self, model: &ModelId, fields: &ModelFields) -> Result<Updated, ApiError> {
        let rest = fields;
        self.call(Call::safe("models.edit", (2, 1)).data(&Of { model, rest }))
            .await
    }

    /// Changes what people write about a model: name, comment, tags, project. Repeated until answered.
    ///
    /// # Errors
    /// 400/201 when there is no such model. See [`ApiError`].
    pub async fn models_update(&self, model: &ModelId, fields: &ModelFields) -> Result<Updated, ApiError> {
        let rest = fields;
        self.call(Call::safe("models.update", (2, 1)).data(&Of { model, rest }))
            .await
    }

    /// Makes a model ready, and publishes the task that made it if `publish_task`. Repeated until answered.
    ///
    /// # Errors
    /// 400/203 when it is already. See [`ApiError`].
    pub async fn models_set_ready(&self, model: &ModelId, publish_task: bool) -> Result<Updated, ApiError> {
        let body = json!({ "model": model, "publish_task": publish_task });
        let call = Call::safe("models.set_ready", (2, 1)).body(body);
        self.call(call.settled_by(400, 203)).await
    }

    /// Adds or replaces metadata of a model; with `replace` removes all other. API 2.13. Repeated until
    /// answered.
    ///
    /// # Errors
    /// 400/201 when there is no such model. See [`ApiError`].
    pub async fn models_add_or_update_metadata(
        &self,
        model: &ModelId,
        items: &[MetadataItem],
        replace: bool,
    ) -> Result<u64, ApiError> {
        let body = json!({ "model": model, "metadata": items, "replace_metadata": replace });
        let call = Call::safe("models.add_or_update_metadata", (2, 13)).body(body);
        Ok(self.call::<Updated>(call).await?.updated)
    }

    /// Removes metadata of a model. API 2.13. Repeated until answered.
    ///
    /// # Errors
    /// 400/201 when there is no such model. See [`ApiError`].
    pub async fn models_delete_metadata(&self, model: &ModelId, keys: &[&str]) -> Result<u64, ApiError> {
        let body = json!({ "model": model, "keys": keys });
        let call = Call::safe("models.delete_metadata", (2, 13)).body(body);
        Ok(self.call::<Updated>(call).await?.updated)
    }

    /// Deletes a model; its file stays where it is. Repeated until answered.
    ///
    /// # Errors
    /// 400/201 when there is no such model; without `force` 400/205 when a task uses it and 400/206 when
    /// the task that made it is published. See [`ApiError`].
    pub async fn models_delete(&self, model: &ModelId, force: bool) -> Result<ModelDeleted, ApiError> {
        let body = json!({ "model": model, "force": force });
        let call = Call::safe("models.delete", (2, 1)).body(body);
        self.call(call.settled_by(400, 201)).await
    }

    /// Does the same to many models. API 2.13. Repeated until answered.
    ///
    /// # Errors
    /// 400/12 for an empty list. See [`ApiError`].
    pub async fn models_many(&self, action: ModelsAction, ids: &[ModelId]) -> Result<BatchOutcome, ApiError> {
        self.call(Call::safe(action.endpoint(), (2, 13)).body(json!({ "ids": ids })))
            .await
    }

    /// Moves models into a project, by id. API 2.12. Repeated until answered.
    ///
    /// # Errors
    /// 400/401 when there is no such project. See [`ApiError`].
    pub async fn models_move(&self, ids: &[ModelId], project: &ProjectId) -> Result<(), ApiError> {
        let body = json!({ "ids": ids, "project": project });
        self.done(Call::safe("models.move", (2, 12)).body(body)).await
    }

    /// Adds and removes tags of models; gives the number of changes. API 2.12. Repeated until answered.
    ///
    /// # Errors
    /// 400/16 for tags that may not be given. See [`ApiError`].
    pub async fn models_update_tags(
        &self,
        ids: &[ModelId],
        add: &[&str],
        remove: &[&str],
    ) -> Result<u64, ApiError> {
        let body = json!({ "ids": ids, "add_tags": add, "remove_tags": remove });
        let call = Call::safe("models.update_tags", (2, 12)).body(body);
        Ok(self.call::<Updated>(call).await?.updated)
    }

    /// Frameworks that models of these projects (none given = of all) name. API 2.8. Repeated until
    /// answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn models_get_frameworks(&self, projects: &[ProjectId]) -> Result<Vec<String>, ApiError> {
        let body = if projects.is_empty() {
            json!({})
        } else {
            json!({ "projects": projects })
        };
        self.field(
            Call::safe("models.get_frameworks", (2, 8)).body(body),
            "frameworks",
        )
        .await
    }
}

/// What [`Client::models_many`] does to each model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelsAction {
    /// Takes it out of sight.
    Archive,
    /// Brings it back.
    Unarchive,
    /// Deletes it.
    Delete,
    /// Makes it ready.
    Publish,
}

impl ModelsAction {
    const fn endpoint(self) -> &'static str {
        match self {
            Self::Archive => "models.archive_many",
            Self::Unarchive => "models.unarchive_many",
            Self::Delete => "models.delete_many",
            Self::Publish => "models.publish_many",
        }
    }
}
