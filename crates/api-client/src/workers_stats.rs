//! `workers.*` beyond registration and reports: statistics, runtime properties, clusters.

use std::time::Duration;

use clearml_task_model::WorkerId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::call::{Call, Extension};
use crate::client::Client;
use crate::error::ApiError;
use crate::reply::null_as_default;
use crate::workers::WorkersQuery;

/// A value that is attached to a worker at run time, such as `force` = `on`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct RuntimeProperty {
    /// Name: `force`, `available_gpus`, `max_num_instances` and others.
    pub key: String,
    /// Value; always text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Seconds after which it is gone; 0 removes it at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<i64>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What a cluster as a whole tells the server.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ClusterReport {
    /// Who reports.
    pub worker: String,
    /// Name of the cluster.
    pub key: String,
    /// Whether this is about a part of it.
    pub partial: bool,
    /// When, in milliseconds.
    #[serde(rename = "timestamp")]
    pub timestamp_ms: i64,
    /// Seconds after which the report is out of date.
    pub timeout: u64,
    /// Resources by group.
    pub resource_groups: Value,
    /// `max_gpus`, `max_workers`, `max_cpus`.
    pub properties: Map<String, Value>,
    /// Further fields.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A measured quantity of machines, such as `cpu_usage`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatsItem {
    /// The quantity.
    pub key: String,
    /// `avg`, `min` or `max` of each step.
    pub aggregation: String,
}

/// From one time to another, in seconds since 1970, in steps. Steps below 40 s become 40 s.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// Beginning.
    pub from: f64,
    /// End.
    pub to: f64,
    /// Length of a step.
    pub step: Duration,
}

/// Measured quantities of one worker.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct WorkerStats {
    /// The worker.
    pub worker: String,
    /// Its quantities, each with values over time.
    #[serde(deserialize_with = "null_as_default")]
    pub metrics: Vec<Value>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Numbers over time.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Counts {
    /// Times, in seconds since 1970.
    #[serde(deserialize_with = "null_as_default")]
    pub dates: Vec<f64>,
    /// The number at each of them.
    #[serde(deserialize_with = "null_as_default")]
    pub counts: Vec<f64>,
}

/// How many workers there were, and how many of them worked.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Activity {
    /// All.
    pub total: Counts,
    /// Those that ran a task.
    pub active: Counts,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Client {
    /// Number of workers that match. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn workers_get_count(&self, query: &WorkersQuery) -> Result<u64, ApiError> {
        self.field(Call::safe("workers.get_count", (2, 4)).data(query), "count")
            .await
    }

    /// What has been measured on these workers (none given = on all), by category. Repeated until answered.
    ///
    /// # Errors
    /// 400/1005 when nothing has. See [`ApiError`].
    pub async fn workers_get_metric_keys(&self, workers: &[WorkerId]) -> Result<Vec<Value>, ApiError> {
        let mut body = json!({});
        if !workers.is_empty() {
            body["worker_ids"] = json!(workers);
        }
        self.field(
            Call::safe("workers.get_metric_keys", (2, 4)).body(body),
            "categories",
        )
        .await
    }

    /// Measured quantities of workers (none given = of all) over time. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn workers_get_stats(
        &self,
        workers: &[WorkerId],
        items: &[StatsItem],
        span: Span,
        split_by_variant: bool,
    ) -> Result<Vec<WorkerStats>, ApiError> {
        let mut body = json!({
            "items": items, "from_date": span.from, "to_date": span.to, "interval": span.step.as_secs(),
            "split_by_variant": split_by_variant,
        });
        if !workers.is_empty() {
            body["worker_ids"] = json!(workers);
        }
        self.field(Call::safe("workers.get_stats", (2, 4)).body(body), "workers")
            .await
    }

    /// How many workers there were over time. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn workers_get_activity_report(&self, span: Span) -> Result<Activity, ApiError> {
        let body = json!({ "from_date": span.from, "to_date": span.to, "interval": span.step.as_secs() });
        self.call(Call::safe("workers.get_activity_report", (2, 4)).body(body))
            .await
    }

    /// What is attached to a worker. API 2.10 and not every server; a server without it is asked once per
    /// login. Repeated until answered.
    ///
    /// # Errors
    /// [`ApiError::Unsupported`] when the server lacks it: the features that rest on it are off. See
    /// [`ApiError`].
    pub async fn workers_get_runtime_properties(
        &self,
        worker: &WorkerId,
    ) -> Result<Vec<RuntimeProperty>, ApiError> {
        let call = Call::safe("workers.get_runtime_properties", (2, 10))
            .extension(Extension::Optional)
            .body(json!({ "worker": worker }));
        self.field(call, "runtime_properties").await
    }

    /// Attaches values to a worker. API 2.10 and not every server. Repeated until answered.
    ///
    /// # Errors
    /// [`ApiError::Unsupported`] when the server lacks it. See [`ApiError`].
    pub async fn workers_set_runtime_properties(
        &self,
        worker: &WorkerId,
        properties: &[RuntimeProperty],
    ) -> Result<(), ApiError> {
        let call = Call::safe("workers.set_runtime_properties", (2, 10))
            .extension(Extension::Optional)
            .body(json!({ "worker": worker, "runtime_properties": properties }));
        self.done(call).await
    }

    /// Reports about a whole cluster. Beyond the open server. Sent once: the next report is more recent
    /// than a repeated one.
    ///
    /// # Errors
    /// [`ApiError::Unsupported`] on other servers. See [`ApiError`].
    pub async fn workers_cluster_report(&self, report: &ClusterReport) -> Result<(), ApiError> {
        let call = Call::once("workers.cluster_report", (2, 4)).extension(Extension::BeyondBasic);
        self.done(call.data(report)).await
    }

    /// Takes a cluster off the server's list. Beyond the open server. Sent once: the server forgets silent
    /// clusters by itself.
    ///
    /// # Errors
    /// [`ApiError::Unsupported`] on other servers. See [`ApiError`].
    pub async fn workers_cluster_unregister(&self, worker: &str, key: &str) -> Result<(), ApiError> {
        let call = Call::once("workers.cluster_unregister", (2, 4)).extension(Extension::BeyondBasic);
        self.done(call.body(json!({ "worker": worker, "key": key })))
            .await
    }
}
