//! `events.*` other than the console: scalars, plots, images, and reading them back.

use std::collections::BTreeMap;

use clearml_task_model::TaskId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::call::Call;
use crate::client::Client;
use crate::error::ApiError;
use crate::events::BatchResult;
use crate::reply::null_as_default;

/// The iteration that marks a scalar as a value without iterations.
pub const SINGLE_VALUE: i64 = -(1 << 31);

/// A reported value, plot or image.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
pub struct Event {
    /// `training_stats_scalar`, `plot`, `training_debug_image` and others.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The task (or, with `model_event` in `extra`, the model).
    #[serde(default)]
    pub task: String,
    /// Metric: the title of a plot.
    #[serde(default, deserialize_with = "null_as_default")]
    pub metric: String,
    /// Variant: the name of a curve.
    #[serde(default, deserialize_with = "null_as_default")]
    pub variant: String,
    /// Iteration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iter: Option<i64>,
    /// Value of a scalar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// When, in milliseconds; the server's time if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
    /// Everything else: `plot_str`, `url`, `key`, …
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Event {
    /// A point of a curve.
    pub fn scalar(
        task: &TaskId,
        metric: impl Into<String>,
        variant: impl Into<String>,
        iter: i64,
        value: f64,
    ) -> Self {
        Self {
            kind: "training_stats_scalar".to_owned(),
            task: task.as_str().to_owned(),
            metric: metric.into(),
            variant: variant.into(),
            iter: Some(iter),
            value: Some(value),
            ..Self::default()
        }
    }
}

/// A window of events.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct EventPage {
    /// The events.
    #[serde(alias = "plots", deserialize_with = "null_as_default")]
    pub events: Vec<Event>,
    /// Their number.
    pub returned: u64,
    /// Number of all that match.
    pub total: u64,
    /// Give it to the next call to go on.
    pub scroll_id: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Which events of a task to read.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct EventsQuery {
    /// Only this type; `None` = all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// `asc` or `desc` by iteration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// Events per window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<u32>,
    /// Where to go on; from the window before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scroll_id: Option<String>,
    /// Further fields, such as `metrics`.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A curve.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Curve {
    /// Its name.
    pub name: String,
    /// Iterations, or times.
    #[serde(deserialize_with = "null_as_default")]
    pub x: Vec<Value>,
    /// Values.
    #[serde(deserialize_with = "null_as_default")]
    pub y: Vec<Option<f64>>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Curves by metric and variant.
pub type Curves = BTreeMap<String, BTreeMap<String, Curve>>;
/// Curves by metric, variant and task.
pub type CurvesOfTasks = BTreeMap<String, BTreeMap<String, BTreeMap<String, Curve>>>;

/// What the x axis of a curve is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// Iterations.
    #[default]
    Iter,
    /// Milliseconds since 1970.
    Timestamp,
    /// Times as text.
    IsoTime,
}

/// Values without iterations of one task.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct SingleValues {
    /// The task.
    pub task: String,
    /// Its values.
    #[serde(deserialize_with = "null_as_default")]
    pub values: Vec<Event>,
    /// Everything else, such as the task's name.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Images or plots by iteration, of one task each.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct ByIteration {
    /// `{task, iterations: [{iter, events}]}` for each task and metric.
    #[serde(deserialize_with = "null_as_default")]
    pub metrics: Vec<Value>,
    /// Give it to the next call to go on.
    pub scroll_id: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

#[derive(Serialize)]
struct Of<'a, T: Serialize> {
    task: &'a TaskId,
    #[serde(flatten)]
    rest: T,
}

impl Client {
    /// Reports one event. **Sent once** if it is a line of the console, which would be shown twice; others
    /// are stored by metric, variant and iteration and are repeated until answered.
    ///
    /// # Errors
    /// 400/131 when it was not accepted: the task is deleted or published. See [`ApiError`].
    pub async fn events_add(&self, event: &Event) -> Result<BatchResult, ApiError> {
        let call = if event.kind == "log" {
            Call::creating("events.add", (2, 1))
        } else {
            Call::safe("events.add", (2, 1))
        };
        self.call(call.data(event)).await
    }

    /// Reports many events. **Sent once**, like [`events_add_batch`](Self::events_add_batch).
    ///
    /// # Errors
    /// 400/131 when none was accepted: the tasks are deleted or published. See [`ApiError`].
    pub async fn events_add_metrics(&self, events: &[Event]) -> Result<BatchResult, ApiError> {
        let mut lines = Vec::new();
        for event in events {
            serde_json::to_writer(&mut lines, event)
                .expect("writing strings and numbers to memory cannot fail");
            lines.push(b'\n');
        }
        self.send_lines(lines).await
    }

    /// Events of a task, window by window. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when there is no such task, 400/1104 for a scroll id that is unknown or too old. See
    /// [`ApiError`].
    pub async fn events_get_task_events(
        &self,
        task: &TaskId,
        query: &EventsQuery,
    ) -> Result<EventPage, ApiError> {
        let rest = query;
        self.call(Call::safe("events.get_task_events", (2, 1)).data(&Of { task, rest }))
            .await
    }

    /// The newest plots of a task: of so many iterations for each metric and variant. Repeated until
    /// answered.
    ///
    /// # Errors
    /// 400/101 when there is no such task. See [`ApiError`].
    pub async fn events_get_task_plots(&self, task: &TaskId, iters: u32) -> Result<EventPage, ApiError> {
        let body = json!({ "task": task, "iters": iters });
        self.call(Call::safe("events.get_task_plots", (2, 1)).body(body))
            .await
    }

    /// Curves of a task, thinned out to about `samples` points each. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when there is no such task. See [`ApiError`].
    pub async fn events_scalar_metrics_iter_histogram(
        &self,
        task: &TaskId,
        samples: u32,
        axis: Axis,
    ) -> Result<Curves, ApiError> {
        let body = json!({ "task": task, "samples": samples, "key": axis });
        self.call(Call::safe("events.scalar_metrics_iter_histogram", (2, 1)).body(body))
            .await
    }

    /// Curves of up to 100 tasks, thinned out to about `samples` points each. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when one of them does not exist. See [`ApiError`].
    pub async fn events_multi_task_scalar_metrics_iter_histogram(
        &self,
        tasks: &[TaskId],
        samples: u32,
        axis: Axis,
    ) -> Result<CurvesOfTasks, ApiError> {
        let body = json!({ "tasks": tasks, "samples": samples, "key": axis });
        let call = Call::safe("events.multi_task_scalar_metrics_iter_histogram", (2, 1)).body(body);
        self.field(call, "metrics").await
    }

    /// Values without iterations. API 2.20. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when one of the tasks does not exist. See [`ApiError`].
    pub async fn events_get_task_single_value_metrics(
        &self,
        tasks: &[TaskId],
    ) -> Result<Vec<SingleValues>, ApiError> {
        let call = Call::safe("events.get_task_single_value_metrics", (2, 20));
        self.field(call.body(json!({ "tasks": tasks })), "tasks").await
    }

    /// Debug images of the newest `iters` iterations, of metrics given as `{task, metric?, variants?}`.
    /// API 2.7. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when one of the tasks does not exist, 400/1104 for a scroll id that is too old. See
    /// [`ApiError`].
    pub async fn events_debug_images(
        &self,
        metrics: &[Value],
        iters: u32,
        scroll_id: Option<&str>,
    ) -> Result<ByIteration, ApiError> {
        let mut body = json!({ "metrics": metrics, "iters": iters });
        if let Some(id) = scroll_id {
            body["scroll_id"] = id.into();
        }
        self.call(Call::safe("events.debug_images", (2, 7)).body(body))
            .await
    }

    /// Metrics of a task's curves, with their variants. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when there is no such task. See [`ApiError`].
    pub async fn events_get_scalar_metrics_and_variants(
        &self,
        task: &TaskId,
    ) -> Result<BTreeMap<String, Vec<String>>, ApiError> {
        let call = Call::safe("events.get_scalar_metrics_and_variants", (2, 1));
        self.field(call.body(json!({ "task": task })), "metrics").await
    }

    /// Metrics that tasks have events of this type for. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when one of the tasks does not exist. See [`ApiError`].
    pub async fn events_get_task_metrics(
        &self,
        tasks: &[TaskId],
        event_type: &str,
    ) -> Result<Vec<Value>, ApiError> {
        let body = json!({ "tasks": tasks, "event_type": event_type });
        self.field(
            Call::safe("events.get_task_metrics", (2, 1)).body(body),
            "metrics",
        )
        .await
    }
}
