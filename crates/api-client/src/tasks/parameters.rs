//! `tasks.*` about parameters (flat, by section and name) and configuration objects (by name).

use clearml_task_model::TaskId;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::call::Call;
use crate::client::Client;
use crate::error::ApiError;
use crate::reply::null_as_default;

/// Parameters of one task as a flat list.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct TaskHyperParams {
    /// The task.
    pub task: TaskId,
    /// Its parameters, sorted by section and name.
    #[serde(default, deserialize_with = "null_as_default")]
    pub hyperparams: Vec<HyperParamItem>,
}

/// One parameter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct HyperParamItem {
    /// Section, such as `Args` or `properties`.
    pub section: String,
    /// Name.
    pub name: String,
    /// Value; always text.
    #[serde(default, deserialize_with = "null_as_default")]
    pub value: String,
    /// Type, for display.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Description, for display.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// What happens to parameters that are not among the edited ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplaceHyperParams {
    /// They stay.
    #[default]
    None,
    /// Those of the edited sections go.
    Section,
    /// All go.
    All,
}

/// Names a parameter, or all of a section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HyperParamKey {
    /// Section.
    pub section: String,
    /// Name; `None` = the whole section.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A configuration object: a text with a name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct ConfigurationItem {
    /// Name.
    pub name: String,
    /// The text.
    #[serde(default, deserialize_with = "null_as_default")]
    pub value: String,
    /// Type, for display.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Description, for display.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Configuration objects of one task.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct TaskConfiguration {
    /// The task.
    pub task: TaskId,
    /// Its configuration objects.
    #[serde(default, deserialize_with = "null_as_default")]
    pub configuration: Vec<ConfigurationItem>,
}

/// Names of the configuration objects of one task.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct TaskConfigurationNames {
    /// The task.
    pub task: TaskId,
    /// The names.
    #[serde(default, deserialize_with = "null_as_default")]
    pub names: Vec<String>,
}

impl Client {
    /// Parameters of tasks as flat lists. API 2.9. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when one of the tasks does not exist. See [`ApiError`].
    pub async fn tasks_get_hyper_params(&self, tasks: &[TaskId]) -> Result<Vec<TaskHyperParams>, ApiError> {
        let call = Call::safe("tasks.get_hyper_params", (2, 9)).body(json!({ "tasks": tasks }));
        self.field(call, "params").await
    }

    /// Writes parameters. Section `properties` may be written in every status, others in a draft, or
    /// with `force` while queued or running. API 2.9. Repeated until answered.
    ///
    /// # Errors
    /// 400/110 when the status forbids it. See [`ApiError`].
    pub async fn tasks_edit_hyper_params(
        &self,
        task: &TaskId,
        items: &[HyperParamItem],
        replace: ReplaceHyperParams,
        force: bool,
    ) -> Result<(), ApiError> {
        let body =
            json!({ "task": task, "hyperparams": items, "replace_hyperparams": replace, "force": force });
        self.done(Call::safe("tasks.edit_hyper_params", (2, 9)).body(body))
            .await
    }

    /// Removes parameters; gives their number. API 2.9. Repeated until answered.
    ///
    /// # Errors
    /// 400/110 when the status forbids it. See [`ApiError`].
    pub async fn tasks_delete_hyper_params(
        &self,
        task: &TaskId,
        keys: &[HyperParamKey],
        force: bool,
    ) -> Result<u64, ApiError> {
        let body = json!({ "task": task, "hyperparams": keys, "force": force });
        self.field(
            Call::safe("tasks.delete_hyper_params", (2, 9)).body(body),
            "deleted",
        )
        .await
    }

    /// Configuration objects of tasks, all or only these names. API 2.9. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when one of the tasks does not exist. See [`ApiError`].
    pub async fn tasks_get_configurations(
        &self,
        tasks: &[TaskId],
        names: &[&str],
    ) -> Result<Vec<TaskConfiguration>, ApiError> {
        let mut body = json!({ "tasks": tasks });
        if !names.is_empty() {
            body["names"] = json!(names);
        }
        let call = Call::safe("tasks.get_configurations", (2, 9)).body(body);
        self.field(call, "configurations").await
    }

    /// Names of the configuration objects of tasks. API 2.9. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when one of the tasks does not exist. See [`ApiError`].
    pub async fn tasks_get_configuration_names(
        &self,
        tasks: &[TaskId],
    ) -> Result<Vec<TaskConfigurationNames>, ApiError> {
        let call = Call::safe("tasks.get_configuration_names", (2, 9)).body(json!({ "tasks": tasks }));
        self.field(call, "configurations").await
    }

    /// Writes configuration objects; with `replace` removes all other. In a draft, or with `force` while
    /// queued or running. API 2.9. Repeated until answered.
    ///
    /// # Errors
    /// 400/110 when the status forbids it. See [`ApiError`].
    pub async fn tasks_edit_configuration(
        &self,
        task: &TaskId,
        items: &[ConfigurationItem],
        replace: bool,
        force: bool,
    ) -> Result<(), ApiError> {
        let body = json!({
            "task": task, "configuration": items, "replace_configuration": replace, "force": force,
        });
        self.done(Call::safe("tasks.edit_configuration", (2, 9)).body(body))
            .await
    }

    /// Removes configuration objects; gives their number. API 2.9. Repeated until answered.
    ///
    /// # Errors
    /// 400/110 when the status forbids it. See [`ApiError`].
    pub async fn tasks_delete_configuration(
        &self,
        task: &TaskId,
        names: &[&str],
        force: bool,
    ) -> Result<u64, ApiError> {
        let body = json!({ "task": task, "configuration": names, "force": force });
        self.field(
            Call::safe("tasks.delete_configuration", (2, 9)).body(body),
            "deleted",
        )
        .await
    }
}
