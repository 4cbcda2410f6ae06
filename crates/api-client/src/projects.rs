//! `projects.*`. Names are paths: `A/B/C` is a child of `A/B`, and creating it creates its parents.

use clearml_task_model::ProjectId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::call::Call;
use crate::client::Client;
use crate::error::ApiError;
use crate::reply::{Updated, is_false, null_as_default};
use crate::select::Selection;

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
    /// Only projects without a parent.
    #[serde(skip_serializing_if = "is_false")]
    pub shallow_search: bool,
    /// Further filters; see [`Selection`].
    #[serde(flatten)]
    pub extra: Map<String, Value>,
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

/// What a new project has, or what a project is to have instead. `None` = default, or as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ProjectFields {
    /// Full name; each part of at least three characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// System tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_tags: Option<Vec<String>>,
    /// Where tasks of this project put their files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_output_destination: Option<String>,
    /// Further fields.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ProjectFields {
    /// A name and nothing else.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: Some(name.into()),
            ..Self::default()
        }
    }
}

/// What deleting a project did.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct ProjectDeleted {
    /// Deleted projects.
    pub deleted: u64,
    /// Tasks that have no project any more.
    pub disassociated_tasks: u64,
    /// Deleted models.
    pub deleted_models: u64,
    /// Deleted tasks.
    pub deleted_tasks: u64,
    /// Files that are now nobody's, by kind.
    #[serde(deserialize_with = "null_as_default")]
    pub urls: Map<String, Value>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn about(endpoint: &'static str, since: (u32, u32), project: &ProjectId) -> Call {
    Call::safe(endpoint, since).body(json!({ "project": project }))
}

impl Client {
    /// Projects that match. At most 500 per call. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn projects_get_all(&self, query: &ProjectsQuery) -> Result<Vec<Project>, ApiError> {
        self.field(Call::safe("projects.get_all", (2, 1)).data(query), "projects")
            .await
    }

    /// Projects that match, with numbers of their tasks and references as objects. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn projects_get_all_ex(&self, query: &Selection) -> Result<Vec<Project>, ApiError> {
        self.field(Call::safe("projects.get_all_ex", (2, 1)).data(query), "projects")
            .await
    }

    /// One project. Repeated until answered.
    ///
    /// # Errors
    /// 400/401 when there is no such project. See [`ApiError`].
    pub async fn projects_get_by_id(&self, project: &ProjectId) -> Result<Project, ApiError> {
        self.field(about("projects.get_by_id", (2, 1), project), "project")
            .await
    }

    /// Creates a project and those of its parents that are missing. Repeated only while it is certain that
    /// none was created; after an ambiguous failure look the name up.
    ///
    /// # Errors
    /// 400/801 when the name is taken, 400/12 when a part of it is too short, 400/409 when it is too deep.
    /// See [`ApiError`].
    pub async fn projects_create(&self, fields: &ProjectFields) -> Result<ProjectId, ApiError> {
        self.field(Call::creating("projects.create", (2, 1)).data(fields), "id")
            .await
    }

    /// Changes a project. Repeated until answered.
    ///
    /// # Errors
    /// 400/401 when there is no such project, 400/408 when the new name has another parent. See
    /// [`ApiError`].
    pub async fn projects_update(
        &self,
        project: &ProjectId,
        fields: &ProjectFields,
    ) -> Result<Updated, ApiError> {
        #[derive(Serialize)]
        struct Of<'a> {
            project: &'a ProjectId,
            #[serde(flatten)]
            fields: &'a ProjectFields,
        }
        self.call(Call::safe("projects.update", (2, 1)).data(&Of { project, fields }))
            .await
    }

    /// Deletes a project. With `force` also one whose tasks and models are not archived; these lose their
    /// project, or go with it if `contents`. Repeated until answered.
    ///
    /// # Errors
    /// 400/401 when there is no such project, 400/402 and 400/405 when it has tasks or models. See
    /// [`ApiError`].
    pub async fn projects_delete(
        &self,
        project: &ProjectId,
        force: bool,
        contents: bool,
    ) -> Result<ProjectDeleted, ApiError> {
        let body = json!({ "project": project, "force": force, "delete_contents": contents });
        let call = Call::safe("projects.delete", (2, 1)).body(body);
        self.call(call.settled_by(400, 401)).await
    }

    /// What [`projects_delete`](Self::projects_delete) would meet: numbers of tasks and models. API 2.14.
    /// Repeated until answered.
    ///
    /// # Errors
    /// 400/401 when there is no such project. See [`ApiError`].
    pub async fn projects_validate_delete(
        &self,
        project: &ProjectId,
    ) -> Result<Map<String, Value>, ApiError> {
        self.call(about("projects.validate_delete", (2, 14), project))
            .await
    }

    /// Moves a project below another one, by name (empty = to the top). API 2.13. Repeated until
    /// answered.
    ///
    /// # Errors
    /// 400/401 when there is no such project. See [`ApiError`].
    pub async fn projects_move(
        &self,
        project: &ProjectId,
        new_location: &str,
    ) -> Result<Map<String, Value>, ApiError> {
        let body = json!({ "project": project, "new_location": new_location });
        self.call(Call::safe("projects.move", (2, 13)).body(body)).await
    }

    /// Moves everything from one project into another and deletes the first. API 2.13. Repeated until
    /// answered.
    ///
    /// # Errors
    /// 400/401 when one of them does not exist. See [`ApiError`].
    pub async fn projects_merge(
        &self,
        project: &ProjectId,
        into: &ProjectId,
    ) -> Result<Map<String, Value>, ApiError> {
        let body = json!({ "project": project, "destination_project": into });
        let call = Call::safe("projects.merge", (2, 13)).body(body);
        self.call(call.settled_by(400, 401)).await
    }
}
