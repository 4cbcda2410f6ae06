//! `reports.*` and `pipelines.*`: both are tasks of a special kind, with calls of their own.

use clearml_task_model::{ProjectId, QueueId, TaskId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::call::Call;
use crate::client::Client;
use crate::error::ApiError;
use crate::reply::Updated;
use crate::select::Selection;

/// What a new report has, or what a report is to have instead. `None` = default, or as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ReportFields {
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The text, in Markdown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
    /// Addresses of files that the text shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report_assets: Option<Vec<String>>,
    /// Comment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Project; only for a new report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectId>,
    /// Further fields.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A run of a pipeline.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct StartedPipeline {
    /// Its task.
    pub pipeline: TaskId,
    /// Whether it is in the queue.
    #[serde(default)]
    pub enqueued: Value,
    /// Everything else, such as whether a worker listens.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn about(endpoint: &'static str, report: &TaskId) -> Call {
    Call::safe(endpoint, (2, 23)).body(json!({ "task": report }))
}

impl Client {
    /// Creates a report. API 2.23. Repeated only while it is certain that none was created.
    ///
    /// # Errors
    /// 400/12 without a name, 400/401 for an unknown project. See [`ApiError`].
    pub async fn reports_create(&self, fields: &ReportFields) -> Result<TaskId, ApiError> {
        self.field(Call::creating("reports.create", (2, 23)).data(fields), "id")
            .await
    }

    /// Changes a report that is not published. API 2.23. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when there is no such report, 400/110 for a published one. See [`ApiError`].
    pub async fn reports_update(&self, report: &TaskId, fields: &ReportFields) -> Result<Updated, ApiError> {
        #[derive(Serialize)]
        struct Of<'a> {
            task: &'a TaskId,
            #[serde(flatten)]
            fields: &'a ReportFields,
        }
        let task = report;
        self.call(Call::safe("reports.update", (2, 23)).data(&Of { task, fields }))
            .await
    }

    /// Publishes a report: it can no longer change. API 2.23. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when there is no such report, 400/110 when it is published. See [`ApiError`].
    pub async fn reports_publish(&self, report: &TaskId) -> Result<Updated, ApiError> {
        let call = about("reports.publish", report);
        self.call(call.settled_by(400, 110)).await
    }

    /// Takes a report out of sight, or brings it back. API 2.23. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when there is no such report. See [`ApiError`].
    pub async fn reports_set_archived(&self, report: &TaskId, archived: bool) -> Result<(), ApiError> {
        let endpoint = if archived {
            "reports.archive"
        } else {
            "reports.unarchive"
        };
        self.done(about(endpoint, report)).await
    }

    /// Moves a report into a project. API 2.23. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when there is no such report, 400/401 when there is no such project. See [`ApiError`].
    pub async fn reports_move(&self, report: &TaskId, project: &ProjectId) -> Result<ProjectId, ApiError> {
        let body = json!({ "task": report, "project": project });
        self.field(Call::safe("reports.move", (2, 23)).body(body), "project_id")
            .await
    }

    /// Deletes a report. API 2.23. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when there is no such report, 400/123 for one that is neither a draft nor archived. See
    /// [`ApiError`].
    pub async fn reports_delete(&self, report: &TaskId) -> Result<(), ApiError> {
        let call = about("reports.delete", report);
        self.done(call.settled_by(400, 101)).await
    }

    /// Reports that match, with references to projects and users as objects. API 2.23. Repeated until
    /// answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn reports_get_all_ex(&self, query: &Selection) -> Result<Vec<Map<String, Value>>, ApiError> {
        self.field(Call::safe("reports.get_all_ex", (2, 23)).data(query), "tasks")
            .await
    }

    /// Runs a pipeline again: a copy of its task, with these values of its arguments, goes into a queue. API
    /// 2.17. Repeated only while it is certain that none was started.
    ///
    /// # Errors
    /// 400/101 when there is no such task, 400/701 when there is no such queue. See [`ApiError`].
    pub async fn pipelines_start_pipeline(
        &self,
        pipeline: &TaskId,
        queue: &QueueId,
        arguments: &[(&str, &str)],
    ) -> Result<StartedPipeline, ApiError> {
        let arguments: Vec<Value> = arguments
            .iter()
            .map(|(name, value)| json!({ "name": name, "value": value }))
            .collect();
        let body = json!({ "task": pipeline, "queue": queue, "args": arguments });
        self.call(Call::creating("pipelines.start_pipeline", (2, 17)).body(body))
            .await
    }
}
