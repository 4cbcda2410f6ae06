//! `events.*` that read raw data or remove it.

use std::collections::BTreeMap;

use bytes::Bytes;
use clearml_task_model::TaskId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::call::Call;
use crate::client::Client;
use crate::error::ApiError;
use crate::metrics::{Axis, EventPage};
use crate::reply::null_as_default;

/// Points of curves as they were reported.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct RawCurves {
    /// `{y, iter}` (or another axis) by variant.
    #[serde(deserialize_with = "null_as_default")]
    pub variants: BTreeMap<String, Value>,
    /// Number of points in this window.
    pub returned: u64,
    /// Number of all points, if it was asked for.
    pub total: Option<u64>,
    /// Give it to the next call to go on.
    pub scroll_id: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Which lines of a console to remove.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ClearLog {
    /// Only those older than this many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold_sec: Option<u64>,
    /// Also of a published task.
    pub allow_locked: bool,
    /// Further fields.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// An image or plot, alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// A debug image.
    DebugImage,
    /// A plot.
    Plot,
}

impl Sample {
    /// The API version that reads it.
    const fn since(self) -> (u32, u32) {
        match self {
            Self::DebugImage => (2, 12),
            Self::Plot => (2, 20),
        }
    }
}

impl Client {
    /// The console of a task as one text, of at most
    /// [`max_response_bytes`](crate::ClientOptions::max_response_bytes); `line_format` has placeholders such
    /// as `{msg}` and `{asctime}`. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when there is no such task. See [`ApiError`].
    pub async fn events_download_task_log(
        &self,
        task: &TaskId,
        line_format: Option<&str>,
    ) -> Result<Bytes, ApiError> {
        let mut body = json!({ "task": task, "line_type": "text" });
        if let Some(format) = line_format {
            body["line_format"] = format.into();
        }
        self.file(Call::safe("events.download_task_log", (2, 1)).body(body))
            .await
    }

    /// Points of curves as they were reported, window by window; `metric` is `{metric, variants}`. API
    /// 2.16. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when there is no such task, 400/1104 for a scroll id that is too old. See [`ApiError`].
    pub async fn events_scalar_metrics_iter_raw(
        &self,
        task: &TaskId,
        metric: &Value,
        axis: Axis,
        batch_size: u32,
        scroll_id: Option<&str>,
    ) -> Result<RawCurves, ApiError> {
        let mut body = json!({
            "task": task, "metric": metric, "key": axis, "batch_size": batch_size, "count_total": true,
        });
        if let Some(id) = scroll_id {
            body["scroll_id"] = id.into();
        }
        self.call(Call::safe("events.scalar_metrics_iter_raw", (2, 16)).body(body))
            .await
    }

    /// Plots of several tasks: of so many newest iterations for each metric and variant. Repeated until
    /// answered.
    ///
    /// # Errors
    /// 400/101 when one of them does not exist. See [`ApiError`].
    pub async fn events_get_multi_task_plots(
        &self,
        tasks: &[TaskId],
        iters: u32,
    ) -> Result<Map<String, Value>, ApiError> {
        let body = json!({ "tasks": tasks, "iters": iters });
        self.field(
            Call::safe("events.get_multi_task_plots", (2, 1)).body(body),
            "plots",
        )
        .await
    }

    /// One image or plot, and a scroll id for [`events_next_sample`](Self::events_next_sample).
    /// API 2.12 for images, 2.20 for plots. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when there is no such task. See [`ApiError`].
    pub async fn events_get_sample(
        &self,
        kind: Sample,
        task: &TaskId,
        metric: &str,
        variant: &str,
        iteration: Option<i64>,
    ) -> Result<Map<String, Value>, ApiError> {
        let endpoint = match kind {
            Sample::DebugImage => "events.get_debug_image_sample",
            Sample::Plot => "events.get_plot_sample",
        };
        let mut body = json!({ "task": task, "metric": metric, "variant": variant });
        if let Some(iteration) = iteration {
            body["iteration"] = iteration.into();
        }
        self.call(Call::safe(endpoint, kind.since()).body(body)).await
    }

    /// The image or plot before or after the last one. Sent once: every answer moves on.
    ///
    /// # Errors
    /// 400/1104 for a scroll id that is unknown or too old. See [`ApiError`].
    pub async fn events_next_sample(
        &self,
        kind: Sample,
        task: &TaskId,
        scroll_id: &str,
        earlier: bool,
    ) -> Result<Map<String, Value>, ApiError> {
        let endpoint = match kind {
            Sample::DebugImage => "events.next_debug_image_sample",
            Sample::Plot => "events.next_plot_sample",
        };
        let body = json!({ "task": task, "scroll_id": scroll_id, "navigate_earlier": earlier });
        self.call(Call::creating(endpoint, kind.since()).body(body)).await
    }

    /// Plots by iteration, of metrics given as `{task, metric?, variants?}`. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when one of the tasks does not exist. See [`ApiError`].
    pub async fn events_plots(&self, metrics: &[Value], iters: u32) -> Result<Map<String, Value>, ApiError> {
        let body = json!({ "metrics": metrics, "iters": iters });
        self.call(Call::safe("events.plots", (2, 1)).body(body)).await
    }

    /// Points of a task's vectors. Rare. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when there is no such task. See [`ApiError`].
    pub async fn events_vector_metrics_iter_histogram(
        &self,
        task: &TaskId,
        metric: &str,
        variant: &str,
    ) -> Result<EventPage, ApiError> {
        let body = json!({ "task": task, "metric": metric, "variant": variant });
        self.call(Call::safe("events.vector_metrics_iter_histogram", (2, 1)).body(body))
            .await
    }

    /// Ends the reading of windows early. Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn events_clear_scroll(&self, scroll_id: &str) -> Result<(), ApiError> {
        let body = json!({ "scroll_id": scroll_id });
        self.done(Call::safe("events.clear_scroll", (2, 1)).body(body))
            .await
    }

    /// Removes lines from a task's console; gives their number. API 2.18. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when there is no such task, 400/110 for a published one without `allow_locked`. See
    /// [`ApiError`].
    pub async fn events_clear_task_log(&self, task: &TaskId, which: &ClearLog) -> Result<u64, ApiError> {
        #[derive(Serialize)]
        struct Of<'a> {
            task: &'a TaskId,
            #[serde(flatten)]
            which: &'a ClearLog,
        }
        let call = Call::safe("events.clear_task_log", (2, 18)).data(&Of { task, which });
        self.field(call, "deleted").await
    }

    /// Removes all events of a task. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when there is no such task, 400/110 for a published one without `allow_locked`. See
    /// [`ApiError`].
    pub async fn events_delete_for_task(&self, task: &TaskId, allow_locked: bool) -> Result<Value, ApiError> {
        let body = json!({ "task": task, "allow_locked": allow_locked });
        self.field(Call::safe("events.delete_for_task", (2, 1)).body(body), "deleted")
            .await
    }
}
