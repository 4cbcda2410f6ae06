//! A small synchronous window onto a ClearML server, for setting scenes and looking at results.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clearml_agent_config::{Settings, Sources};
use clearml_api_client::{Auth, Call, Client, ClientOptions, Retry};
use serde_json::{Value, json};

use super::wait_for;

/// How long a call may take, repetitions included: the server may be down for a while on purpose.
const PATIENCE: Duration = Duration::from_secs(30);

/// A logged-in client with a runtime of its own.
pub struct Api {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

/// A task to create. Everything not given stays as the server makes it.
#[derive(Clone, Debug, Default)]
pub struct TaskSpec {
    /// The `script` section.
    pub script: Value,
    /// The `hyperparams` section.
    pub hyperparams: Option<Value>,
}

impl TaskSpec {
    /// A literal script without a repository and without requirements.
    #[must_use]
    pub fn script(code: &str) -> Self {
        let script = json!({
            "repository": "", "entry_point": "script.py", "working_dir": ".", "binary": "python3",
            "diff": code, "requirements": {"pip": ""},
        });
        Self {
            script,
            hyperparams: None,
        }
    }

    /// An entry point in a repository at a commit.
    #[must_use]
    pub fn repository(url: &str, commit: &str, entry_point: &str) -> Self {
        let script = json!({
            "repository": url, "version_num": commit, "branch": "main", "entry_point": entry_point,
            "working_dir": ".", "binary": "python3", "diff": "", "requirements": {"pip": ""},
        });
        Self {
            script,
            hyperparams: None,
        }
    }

    /// Replaces one field of the `script` section.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.script[field] = value.into();
        self
    }

    /// Sets the requirements in the format of `requirements.txt`.
    #[must_use]
    pub fn requirements(self, text: &str) -> Self {
        self.with("requirements", json!({"pip": text}))
    }
}

/// One reported curve.
#[derive(Clone, Debug)]
pub struct Scalar {
    /// The plot it belongs to.
    pub metric: String,
    /// Its name in the plot.
    pub variant: String,
    /// Iteration and value.
    pub points: Vec<(f64, f64)>,
}

impl Api {
    /// Logs in with the credentials of a client configuration file.
    ///
    /// # Errors
    ///
    /// When the file is not usable or the server refuses.
    pub fn connect(config: &Path) -> Result<Self> {
        let sources = Sources {
            config_file: Some(config.to_owned()),
            ..Sources::default()
        };
        let settings = Settings::load(&sources)?;
        let (Some(access_key), Some(secret_key)) = (&settings.api.access_key, &settings.api.secret_key)
        else {
            bail!("{} has no credentials", config.display());
        };
        let auth = Auth::Keys {
            access_key: access_key.clone(),
            secret_key: secret_key.clone(),
        };
        let client = Client::new(ClientOptions::new(settings.api.require_server()?, auth))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(client.login()).context("logging in")?;
        Ok(Self { runtime, client })
    }

    /// Calls an endpoint, repeating it while the server is away.
    ///
    /// # Errors
    ///
    /// When the server refuses the call, or is away for too long.
    pub fn call(&self, endpoint: &'static str, body: Value) -> Result<Value> {
        let call = Call::new(endpoint)
            .version("2.34")
            .body(body.clone())
            .retry(Retry::Bounded(PATIENCE));
        self.runtime
            .block_on(self.client.call(call))
            .with_context(|| format!("calling {endpoint} with {body}"))
    }

    /// Creates a queue and returns its id.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub fn create_queue(&self, name: &str) -> Result<String> {
        text(&self.call("queues.create", json!({"name": name}))?, "id")
    }

    /// Creates a task and returns its id.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub fn create_task(&self, name: &str, spec: &TaskSpec) -> Result<String> {
        let mut body = json!({"name": name, "type": "training", "script": spec.script});
        if let Some(hyperparams) = &spec.hyperparams {
            body["hyperparams"] = hyperparams.clone();
        }
        text(&self.call("tasks.create", body)?, "id")
    }

    /// Puts a task into a queue.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub fn enqueue(&self, task: &str, queue: &str) -> Result<()> {
        self.call("tasks.enqueue", json!({"task": task, "queue": queue}))
            .map(drop)
    }

    /// Creates a task and puts it into a queue; returns its id.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub fn submit(&self, name: &str, spec: &TaskSpec, queue: &str) -> Result<String> {
        let task = self.create_task(name, spec)?;
        self.enqueue(&task, queue)?;
        Ok(task)
    }

    /// The whole task.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn task(&self, task: &str) -> Result<Value> {
        Ok(self.call("tasks.get_by_id", json!({"task": task}))?["task"].take())
    }

    /// The status of a task.
    ///
    /// # Errors
    ///
    /// When there is no such task.
    pub fn status(&self, task: &str) -> Result<String> {
        text(&self.task(task)?, "status")
    }

    /// Waits until the task has ended and returns it.
    ///
    /// # Errors
    ///
    /// When it does not end in time; the message shows its console.
    pub fn wait_until_ended(&self, task: &str, limit: Duration) -> Result<Value> {
        let ended = ["completed", "failed", "stopped", "closed", "published"];
        self.wait_until(task, &ended, limit)
    }

    /// Waits until the task has one of the statuses and returns it.
    ///
    /// # Errors
    ///
    /// When that does not happen in time; the message shows its console.
    pub fn wait_until(&self, task: &str, statuses: &[&str], limit: Duration) -> Result<Value> {
        wait_for(
            &format!("status {statuses:?} of task {task}"),
            limit,
            Duration::from_millis(50),
            || {
                let task = self.task(task)?;
                Ok(task["status"]
                    .as_str()
                    .is_some_and(|status| statuses.contains(&status))
                    .then_some(task))
            },
        )
        .with_context(|| {
            let status = self.status(task).unwrap_or_default();
            format!(
                "task {task} is {status}; its console:\n{}",
                self.console(task).unwrap_or_default()
            )
        })
    }

    /// The console of a task as people read it: all messages in the server's order.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub fn console(&self, task: &str) -> Result<String> {
        Ok(self
            .console_events(task)?
            .iter()
            .filter_map(|event| event["msg"].as_str())
            .map(with_newline)
            .collect())
    }

    /// The console events of a task, oldest first.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub fn console_events(&self, task: &str) -> Result<Vec<Value>> {
        let mut events = Vec::new();
        let mut after = None;
        loop {
            let (batch, last) = self.console_after(task, after)?;
            if batch.is_empty() {
                return Ok(events);
            }
            events.extend(batch);
            after = last;
        }
    }

    /// The console events after a time stamp, oldest first, and the newest time stamp seen.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub fn console_after(&self, task: &str, after: Option<i64>) -> Result<(Vec<Value>, Option<i64>)> {
        let mut body = json!({"task": task, "batch_size": 5000, "navigate_earlier": false, "order": "asc"});
        if let Some(after) = after {
            body["from_timestamp"] = after.into();
        }
        let mut reply = self.call("events.get_task_log", body)?;
        let events = match reply["events"].take() {
            Value::Array(events) => events,
            _ => Vec::new(),
        };
        let last = events
            .iter()
            .filter_map(|event| event["timestamp"].as_i64())
            .max()
            .or(after);
        Ok((events, last))
    }

    /// The reported scalars.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub fn scalars(&self, task: &str) -> Result<Vec<Scalar>> {
        let reply = self.call(
            "events.scalar_metrics_iter_histogram",
            json!({"task": task, "key": "iter"}),
        )?;
        let mut scalars = Vec::new();
        for (metric, variants) in reply.as_object().into_iter().flatten() {
            for (variant, series) in variants.as_object().into_iter().flatten() {
                let numbers = |axis: &str| -> Vec<f64> {
                    series[axis]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(Value::as_f64)
                        .collect()
                };
                let points = numbers("x").into_iter().zip(numbers("y")).collect();
                scalars.push(Scalar {
                    metric: metric.clone(),
                    variant: variant.clone(),
                    points,
                });
            }
        }
        Ok(scalars)
    }

    /// The ids of the tasks that wait in a queue.
    ///
    /// # Errors
    ///
    /// When there is no such queue.
    pub fn waiting(&self, queue: &str) -> Result<Vec<String>> {
        let reply = self.call("queues.get_by_id", json!({"queue": queue}))?;
        let entries = reply["queue"]["entries"].as_array().cloned().unwrap_or_default();
        Ok(entries
            .iter()
            .filter_map(|entry| entry["task"].as_str().map(str::to_owned))
            .collect())
    }
}

/// Messages of the agent's own lines may come without a newline at their end.
fn with_newline(message: &str) -> String {
    if message.ends_with('\n') {
        message.to_owned()
    } else {
        format!("{message}\n")
    }
}

fn text(value: &Value, field: &str) -> Result<String> {
    value[field]
        .as_str()
        .map(str::to_owned)
        .with_context(|| format!("the reply has no {field}: {value}"))
}
