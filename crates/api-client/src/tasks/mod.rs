//! `tasks.*`: finding and reading tasks. Life cycle, queues, editing, parameters, artifacts, and calls
//! about many tasks have files of their own.

mod artifacts;
mod batch;
mod edit;
mod parameters;
mod queueing;
mod status;

use clearml_task_model::{ProjectId, Task, TaskId, TaskStatus};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::call::Call;
use crate::client::Client;
use crate::error::ApiError;
use crate::reply::is_false;
use crate::select::Selection;

pub use artifacts::{Artifact, ArtifactMode, ModelUse};
pub use batch::{TaskDeleted, TasksAction};
pub use edit::{CloneOptions, DeleteTask};
pub use parameters::{
    ConfigurationItem, HyperParamItem, HyperParamKey, ReplaceHyperParams, TaskConfiguration,
    TaskConfigurationNames, TaskHyperParams,
};
pub use queueing::EnqueueTo;
pub use status::StatusChange;

/// Which tasks to list, and what of them. Empty fields do not filter: an empty `id` list means
/// **all** tasks.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TasksQuery {
    /// These tasks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub id: Vec<TaskId>,
    /// Name by regular expression; see [`exact`](crate::exact).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// In any of these projects (ids).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub project: Vec<String>,
    /// With any of these statuses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<TaskStatus>,
    /// With any of these tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// With any of these system tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub system_tags: Vec<String>,
    /// Only these (dotted) fields are returned; `id` is not added by itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only_fields: Vec<String>,
    /// Order; `-` before a field means descending.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub order_by: Vec<String>,
    /// Also hidden tasks.
    #[serde(skip_serializing_if = "is_false")]
    pub search_hidden: bool,
    /// Page, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<u32>,
    /// Objects per page; the server never gives more than 500.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u32>,
    /// Further filters; see [`Selection`](crate::Selection).
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl TasksQuery {
    /// One task, and only these fields of it.
    pub fn one<'a>(task: &TaskId, only_fields: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            id: vec![task.clone()],
            only_fields: only_fields.into_iter().map(str::to_owned).collect(),
            search_hidden: true,
            ..Self::default()
        }
    }
}

#[derive(Deserialize)]
struct Tasks {
    tasks: Vec<Task>,
}

#[derive(Deserialize)]
struct OneTask {
    task: Task,
}

/// A request about one task.
#[derive(Serialize)]
struct For<'a, T: Serialize> {
    task: &'a TaskId,
    #[serde(flatten)]
    rest: T,
}

fn safe(endpoint: &'static str) -> Call {
    Call::safe(endpoint, (2, 1))
}

impl Client {
    /// Tasks that match. At most 500 per call. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn tasks_get_all(&self, query: &TasksQuery) -> Result<Vec<Task>, ApiError> {
        Ok(self.call::<Tasks>(safe("tasks.get_all").data(query)).await?.tasks)
    }

    /// One whole task. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when there is no such task. See [`ApiError`].
    pub async fn tasks_get_by_id(&self, task: &TaskId) -> Result<Task, ApiError> {
        Ok(self
            .call::<OneTask>(safe("tasks.get_by_id").body(json!({ "task": task })))
            .await?
            .task)
    }

    /// Tasks that match, with references to projects and users as objects. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn tasks_get_all_ex(&self, query: &Selection) -> Result<Vec<Map<String, Value>>, ApiError> {
        self.field(safe("tasks.get_all_ex").data(query), "tasks").await
    }

    /// One task, as the server gives it with references as objects. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when there is no such task. See [`ApiError`].
    pub async fn tasks_get_by_id_ex(
        &self,
        task: &TaskId,
        only_fields: &[&str],
    ) -> Result<Map<String, Value>, ApiError> {
        let mut body = json!({ "id": [task] });
        if !only_fields.is_empty() {
            body["only_fields"] = json!(only_fields);
        }
        let mut tasks: Vec<Map<String, Value>> =
            self.field(safe("tasks.get_by_id_ex").body(body), "tasks").await?;
        tasks.pop().ok_or_else(|| ApiError::Data {
            endpoint: "tasks.get_by_id_ex".to_owned(),
            reason: "it has no task".to_owned(),
        })
    }

    /// Types that tasks of these projects (none given = of all) have. API 2.8. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn tasks_get_types(&self, projects: &[ProjectId]) -> Result<Vec<String>, ApiError> {
        let body = if projects.is_empty() {
            json!({})
        } else {
            json!({ "projects": projects })
        };
        self.field(Call::safe("tasks.get_types", (2, 8)).body(body), "types")
            .await
    }
}
