//! `tasks.*`.

use std::sync::atomic::Ordering;

use clearml_task_model::{QueueId, Task, TaskId, TaskStatus};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::call::{Call, Retry};
use crate::client::Client;
use crate::error::ApiError;
use crate::{Nothing, VERSION, is_false};

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

/// Why a status changes. Both texts replace those of the status before, also when empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StatusChange {
    /// `status_reason`: for automation, such as `worker execution exit code 3`.
    #[serde(rename = "status_reason", skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// `status_message`: for people.
    #[serde(rename = "status_message", skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Also against the rules of the status machine.
    #[serde(skip_serializing_if = "is_false")]
    pub force: bool,
}

impl StatusChange {
    /// A change with a reason and nothing else.
    pub fn reason(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            ..Self::default()
        }
    }

    /// The same change with a message.
    #[must_use]
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// The same change, forced.
    #[must_use]
    pub fn force(mut self) -> Self {
        self.force = true;
        self
    }
}

/// What a write changed. After a repetition that found the write already done, all is empty.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Updated {
    /// Number of changed objects.
    pub updated: u64,
    /// Changed fields and their new values.
    pub fields: Map<String, Value>,
    /// Everything else, such as `queued` or `dequeued`.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Parameters of one task as a flat list.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct TaskHyperParams {
    /// The task.
    pub task: TaskId,
    /// Its parameters, sorted by section and name.
    #[serde(default)]
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
    #[serde(default)]
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
}

#[derive(Deserialize)]
struct Tasks {
    tasks: Vec<Task>,
}

#[derive(Deserialize)]
struct OneTask {
    task: Task,
}

#[derive(Deserialize)]
struct Created {
    id: TaskId,
}

#[derive(Deserialize)]
struct HyperParams {
    params: Vec<TaskHyperParams>,
}

#[derive(Serialize)]
struct For<'a, T: Serialize> {
    task: &'a TaskId,
    #[serde(flatten)]
    rest: T,
}

fn safe(endpoint: &'static str) -> Call {
    Call::new(endpoint).version(VERSION).retry(Retry::Idempotent)
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

    async fn transition(
        &self,
        endpoint: &'static str,
        task: &TaskId,
        change: &StatusChange,
    ) -> Result<Updated, ApiError> {
        self.call(safe(endpoint).data(&For { task, rest: change })).await
    }

    /// The task runs. Repeated until answered.
    ///
    /// # Errors
    /// 400/10 when there is no such task, 400/110 when its status forbids it. See [`ApiError`].
    pub async fn tasks_started(&self, task: &TaskId, change: &StatusChange) -> Result<Updated, ApiError> {
        self.transition("tasks.started", task, change).await
    }

    /// The task was aborted. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when there is no such task, 400/110 when its status forbids it. See [`ApiError`].
    pub async fn tasks_stopped(&self, task: &TaskId, change: &StatusChange) -> Result<Updated, ApiError> {
        self.transition("tasks.stopped", task, change).await
    }

    /// The task failed. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when there is no such task, 400/110 when its status forbids it. See [`ApiError`].
    pub async fn tasks_failed(&self, task: &TaskId, change: &StatusChange) -> Result<Updated, ApiError> {
        self.transition("tasks.failed", task, change).await
    }

    /// The task succeeded. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when there is no such task, 400/110 when its status forbids it. See [`ApiError`].
    pub async fn tasks_completed(&self, task: &TaskId, change: &StatusChange) -> Result<Updated, ApiError> {
        self.transition("tasks.completed", task, change).await
    }

    /// Asks for the task to be stopped: the server stops it at once when nobody runs it, and
    /// otherwise leaves a mark (`status_message` = `stopping`) for the agent that does. Repeated until
    /// answered.
    ///
    /// # Errors
    /// 400/101 when there is no such task, 400/110 when its status forbids it. See [`ApiError`].
    pub async fn tasks_stop(&self, task: &TaskId, change: &StatusChange) -> Result<Updated, ApiError> {
        self.transition("tasks.stop", task, change).await
    }

    /// Sign of life of a running task. Sent once: the next one comes soon.
    ///
    /// # Errors
    /// See [`ApiError`]. An unknown task is not an error.
    pub async fn tasks_ping(&self, task: &TaskId) -> Result<(), ApiError> {
        let call = Call::new("tasks.ping")
            .version(VERSION)
            .body(json!({ "task": task }));
        self.call::<Nothing>(call).await.map(drop)
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
        if !self.inner.no_edit_runtime.load(Ordering::Relaxed) {
            let body = json!({ "task": task, "add_or_update": add, "remove": remove });
            // No version: the call is younger than the one that the others ask for.
            let call = Call::new("tasks.edit_runtime")
                .body(body)
                .retry(Retry::Idempotent);
            match self.call::<Nothing>(call).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_missing_endpoint() => {
                    self.inner.no_edit_runtime.store(true, Ordering::Relaxed);
                }
                Err(error) => return Err(error),
            }
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

    /// Puts a task at the end of a queue. Repeated until answered.
    ///
    /// # Errors
    /// 400/701 for an unknown queue, 400/706 when the task is already in it, 400/110 when its status
    /// forbids it. See [`ApiError`].
    pub async fn tasks_enqueue(
        &self,
        task: &TaskId,
        queue: &QueueId,
        change: &StatusChange,
    ) -> Result<Updated, ApiError> {
        #[derive(Serialize)]
        struct Into<'a> {
            queue: &'a QueueId,
            #[serde(flatten)]
            change: &'a StatusChange,
        }
        let call = safe("tasks.enqueue").data(&For {
            task,
            rest: Into { queue, change },
        });
        self.call(call.settled_by(400, 706)).await
    }

    /// Takes a task out of its queue. A queued or running task then has `new_status`, or else the
    /// status it had before it was queued; `updated` of the reply says whether it was one of the two.
    /// Repeated until answered.
    ///
    /// # Errors
    /// See [`ApiError`]. An unknown task is not an error.
    pub async fn tasks_dequeue(
        &self,
        task: &TaskId,
        new_status: Option<&TaskStatus>,
        change: &StatusChange,
    ) -> Result<Updated, ApiError> {
        #[derive(Serialize)]
        struct As<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            new_status: Option<&'a TaskStatus>,
            #[serde(flatten)]
            change: &'a StatusChange,
        }
        self.call(safe("tasks.dequeue").data(&For {
            task,
            rest: As { new_status, change },
        }))
        .await
    }

    /// Creates a draft. `fields` must have `name` and `type`. Sent once: after an ambiguous failure
    /// there may be a task nobody knows of.
    ///
    /// # Errors
    /// 400/12 and 400/800 for fields that are missing or wrong. See [`ApiError`].
    pub async fn tasks_create(&self, fields: Value) -> Result<TaskId, ApiError> {
        Ok(self
            .call::<Created>(Call::new("tasks.create").version(VERSION).body(fields))
            .await?
            .id)
    }

    /// Copies a task into a new draft. Sent once.
    ///
    /// # Errors
    /// 400/101 when there is no such task. See [`ApiError`].
    pub async fn tasks_clone(&self, task: &TaskId, options: &CloneOptions) -> Result<TaskId, ApiError> {
        let call = Call::new("tasks.clone")
            .version(VERSION)
            .data(&For { task, rest: options });
        Ok(self.call::<Created>(call).await?.id)
    }

    /// Makes a draft of a task and deletes what it produced. Repeated until answered.
    ///
    /// # Errors
    /// 400/110 for a published task without `force`. See [`ApiError`].
    pub async fn tasks_reset(&self, task: &TaskId, force: bool) -> Result<Updated, ApiError> {
        self.call(safe("tasks.reset").body(json!({ "task": task, "force": force })))
            .await
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

    /// Parameters of tasks as flat lists. Repeated until answered.
    ///
    /// # Errors
    /// 400/101 when one of the tasks does not exist. See [`ApiError`].
    pub async fn tasks_get_hyper_params(&self, tasks: &[TaskId]) -> Result<Vec<TaskHyperParams>, ApiError> {
        let call = safe("tasks.get_hyper_params").body(json!({ "tasks": tasks }));
        Ok(self.call::<HyperParams>(call).await?.params)
    }

    /// Writes parameters. Section `properties` may be written in every status, others in a draft, or
    /// with `force` while queued or running. Repeated until answered.
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
        self.call::<Nothing>(safe("tasks.edit_hyper_params").body(body))
            .await
            .map(drop)
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
