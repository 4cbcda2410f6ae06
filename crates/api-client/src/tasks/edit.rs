//! `tasks.*` that create, change, copy and remove tasks.

use clearml_task_model::TaskId;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{For, TasksQuery, safe};
use crate::call::{Call, Extension, Retry};
use crate::client::Client;
use crate::error::ApiError;
use crate::reply::{Updated, is_false};
use crate::tasks::TaskDeleted;

/// What a clone has instead of the source's values.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CloneOptions {
    /// Name of the clone.
    #[serde(rename = "new_task_name", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Comment of the clone.
    #[serde(rename = "new_task_comment", skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Parent of the clone.
    #[serde(rename = "new_task_parent", skip_serializing_if = "Option::is_none")]
    pub parent: Option<TaskId>,
    /// Project of the clone (id).
    #[serde(rename = "new_task_project", skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Further fields: `new_project_name`, `new_task_tags`, `new_task_hyperparams`, `execution_overrides`, …
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// How to delete a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DeleteTask {
    /// Also one that is neither a draft nor archived, or that others depend on.
    #[serde(skip_serializing_if = "is_false")]
    pub force: bool,
    /// `Some(false)` keeps the models it made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delete_output_models: Option<bool>,
    /// Asks for the addresses of files that are then nobody's.
    #[serde(skip_serializing_if = "is_false")]
    pub return_file_urls: bool,
}

impl Client {
    /// Creates a draft. `fields` must have `name` and `type`. Repeated only while it is certain that none was
    /// created: after an ambiguous failure there may be a task nobody knows of.
    ///
    /// # Errors
    /// 400/12 and 400/800 for fields that are missing or wrong. See [`ApiError`].
    pub async fn tasks_create(&self, fields: Value) -> Result<TaskId, ApiError> {
        self.field(Call::creating("tasks.create", (2, 1)).body(fields), "id")
            .await
    }

    /// Changes fields. `fields` is an object; `script`, `execution` and `output` are merged one level
    /// deep, `runtime`, `container`, `hyperparams` and lists are replaced as a whole. Repeated until
    /// answered.
    ///
    /// # Errors
    /// 400/110 for a task that is not a draft, without `force`. See [`ApiError`].
    pub async fn tasks_edit(&self, task: &TaskId, force: bool, fields: Value) -> Result<Updated, ApiError> {
        self.call(safe("tasks.edit").body(for_task(task, force, fields)))
            .await
    }

    /// Changes name, comment, tags, project or message, which is allowed in every status. Other
    /// fields are ignored by the server. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when there is no such task. See [`ApiError`].
    pub async fn tasks_update(&self, task: &TaskId, fields: Value) -> Result<Updated, ApiError> {
        self.call(safe("tasks.update").body(for_task(task, false, fields)))
            .await
    }

    /// Adds, replaces and removes keys of `runtime` of a task that is a draft, queued or running.
    /// Repeated until answered.
    ///
    /// A server without `tasks.edit_runtime` gets the whole object read, changed and written back;
    /// there, a change by somebody else in between is lost.
    ///
    /// # Errors
    /// 400/110 for a task in another status. See [`ApiError`].
    pub async fn tasks_edit_runtime(
        &self,
        task: &TaskId,
        add: Map<String, Value>,
        remove: &[&str],
    ) -> Result<(), ApiError> {
        let body = json!({ "task": task, "add_or_update": add, "remove": remove });
        // No version: the call is younger than the one that the others ask for, but older servers may
        // have it already.
        let call = Call::new("tasks.edit_runtime")
            .extension(Extension::Optional)
            .body(body)
            .retry(Retry::Idempotent);
        match self.done(call).await {
            Err(error) if error.is_missing_endpoint() => {}
            other => return other,
        }
        let query = TasksQuery::one(task, ["runtime"]);
        let mut runtime = self
            .tasks_get_all(&query)
            .await?
            .pop()
            .map(|task| task.runtime)
            .unwrap_or_default();
        for key in remove {
            runtime.shift_remove(*key);
        }
        runtime.extend(add);
        self.tasks_edit(task, true, json!({ "runtime": runtime }))
            .await
            .map(drop)
    }

    /// Writes the packages of a task (`pip`, `conda`, …), in any status. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when there is no such task. See [`ApiError`].
    pub async fn tasks_set_requirements(
        &self,
        task: &TaskId,
        requirements: Value,
    ) -> Result<Updated, ApiError> {
        let body = json!({ "task": task, "requirements": requirements });
        self.call(safe("tasks.set_requirements").body(body)).await
    }

    /// Copies a task into a new draft. Repeated only while it is certain that none was made.
    ///
    /// # Errors
    /// 400/101 when there is no such task. See [`ApiError`].
    pub async fn tasks_clone(&self, task: &TaskId, options: &CloneOptions) -> Result<TaskId, ApiError> {
        let call = Call::creating("tasks.clone", (2, 1)).data(&For { task, rest: options });
        self.field(call, "id").await
    }

    /// Makes a draft of a task and deletes what it produced. Repeated until answered.
    ///
    /// # Errors
    /// 400/110 for a published task without `force`. See [`ApiError`].
    pub async fn tasks_reset(&self, task: &TaskId, force: bool) -> Result<Updated, ApiError> {
        self.call(safe("tasks.reset").body(json!({ "task": task, "force": force })))
            .await
    }

    /// Says whether [`tasks_create`](Self::tasks_create) would take these fields; writes nothing. Repeated
    /// until answered.
    ///
    /// # Errors
    /// 400/12 and others for fields that are missing or wrong. See [`ApiError`].
    pub async fn tasks_validate(&self, fields: Value) -> Result<(), ApiError> {
        self.done(safe("tasks.validate").body(fields)).await
    }

    /// Deletes a task with its events. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when there is no such task, 400/123 when it may not be deleted without `force`. See
    /// [`ApiError`].
    pub async fn tasks_delete(&self, task: &TaskId, how: &DeleteTask) -> Result<TaskDeleted, ApiError> {
        let call = safe("tasks.delete").data(&For { task, rest: how });
        self.call(call.settled_by(400, 101)).await
    }
}

fn for_task(task: &TaskId, force: bool, fields: Value) -> Value {
    let mut body = match fields {
        Value::Object(fields) => fields,
        // The server will name what is missing; there is nothing better to say here.
        _ => Map::new(),
    };
    body.insert("task".to_owned(), task.as_str().into());
    if force {
        body.insert("force".to_owned(), true.into());
    }
    Value::Object(body)
}
