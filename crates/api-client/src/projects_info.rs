//! `projects.*` that tell what the objects in projects have in common: tags, metrics, parameters.

use clearml_task_model::ProjectId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::call::Call;
use crate::client::Client;
use crate::error::ApiError;
use crate::reply::Named;
use crate::system::Tags;

/// A metric and one of its variants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct MetricVariant {
    /// Metric.
    pub metric: String,
    /// Variant.
    pub variant: String,
    /// Everything else, such as the hashes that name them in `last_metrics`.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A parameter that tasks of a project have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct ParameterName {
    /// Section.
    #[serde(default)]
    pub section: Option<String>,
    /// Name.
    pub name: String,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Which tags to collect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagsOf {
    /// Those of the projects themselves.
    Projects,
    /// Those of their tasks.
    Tasks,
    /// Those of their models.
    Models,
}

impl Client {
    /// Tags in use in these projects (none given = in all). API 2.8. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn projects_get_tags(
        &self,
        of: TagsOf,
        projects: &[ProjectId],
        include_system: bool,
    ) -> Result<Tags, ApiError> {
        let endpoint = match of {
            TagsOf::Projects => "projects.get_project_tags",
            TagsOf::Tasks => "projects.get_task_tags",
            TagsOf::Models => "projects.get_model_tags",
        };
        let mut body = json!({ "include_system": include_system });
        if !projects.is_empty() {
            body["projects"] = json!(projects);
        }
        self.call(Call::safe(endpoint, (2, 8)).body(body)).await
    }

    /// Metrics that tasks of a project (`None` = any) have reported. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn projects_get_unique_metric_variants(
        &self,
        project: Option<&ProjectId>,
    ) -> Result<Vec<MetricVariant>, ApiError> {
        let body = project.map_or_else(|| json!({}), |project| json!({ "project": project }));
        let call = Call::safe("projects.get_unique_metric_variants", (2, 1)).body(body);
        self.field(call, "metrics").await
    }

    /// Parameters that tasks of a project have. API 2.9. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn projects_get_hyper_parameters(
        &self,
        project: &ProjectId,
    ) -> Result<Vec<ParameterName>, ApiError> {
        let call = Call::safe("projects.get_hyper_parameters", (2, 9)).body(json!({ "project": project }));
        self.field(call, "parameters").await
    }

    /// Values that a parameter has in tasks of these projects (none given = of all). API 2.13. Repeated
    /// until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn projects_get_hyperparam_values(
        &self,
        projects: &[ProjectId],
        section: &str,
        name: &str,
    ) -> Result<Vec<String>, ApiError> {
        let body = json!({ "projects": projects, "section": section, "name": name });
        self.field(
            Call::safe("projects.get_hyperparam_values", (2, 13)).body(body),
            "values",
        )
        .await
    }

    /// Tasks that are parents of tasks of these projects (none given = of all). API 2.12. Repeated until
    /// answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn projects_get_task_parents(&self, projects: &[ProjectId]) -> Result<Vec<Named>, ApiError> {
        let call = Call::safe("projects.get_task_parents", (2, 12)).body(json!({ "projects": projects }));
        self.field(call, "parents").await
    }

    /// Users who own something in these projects (none given = in all). API 2.23. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn projects_get_user_names(&self, projects: &[ProjectId]) -> Result<Vec<Named>, ApiError> {
        let call = Call::safe("projects.get_user_names", (2, 23)).body(json!({ "projects": projects }));
        self.field(call, "users").await
    }

    /// Keys of metadata that models of a project have. API 2.17. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn projects_get_model_metadata_keys(
        &self,
        project: &ProjectId,
    ) -> Result<Vec<String>, ApiError> {
        let call =
            Call::safe("projects.get_model_metadata_keys", (2, 17)).body(json!({ "project": project }));
        self.field(call, "keys").await
    }

    /// Values that a key of metadata has in models of a project. API 2.17. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn projects_get_model_metadata_values(
        &self,
        project: &ProjectId,
        key: &str,
    ) -> Result<Vec<String>, ApiError> {
        let call = Call::safe("projects.get_model_metadata_values", (2, 17));
        self.field(call.body(json!({ "project": project, "key": key })), "values")
            .await
    }
}
