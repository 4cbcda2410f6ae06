//! What a case works on: objects of its own with names that nobody else has, gone again when it ends.

use std::cell::RefCell;
use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::http::{Remote, Reply, Request};

/// Why a case says nothing about this server.
#[derive(Debug)]
pub(super) struct NotApplicable(String);

impl fmt::Display for NotApplicable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for NotApplicable {}

/// Ends a case that does not apply.
pub(super) fn not_applicable<T>(why: impl Into<String>) -> Result<T> {
    Err(NotApplicable(why.into()).into())
}

/// One case's window onto the server.
pub(super) struct Scene<'a> {
    pub(super) remote: &'a Remote,
    /// In every name that this case gives.
    mark: String,
    /// What has to be deleted: kind and id, in order of creation.
    made: RefCell<Vec<(Kind, String)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Task,
    Queue,
    Project,
    Model,
    Worker,
    AccessKey,
    Vault,
}

impl<'a> Scene<'a> {
    pub(super) fn new(remote: &'a Remote) -> Self {
        Self {
            remote,
            mark: clearml_support::id::hex32()[..12].to_owned(),
            made: RefCell::default(),
        }
    }

    /// A name that nobody else has.
    pub(super) fn name(&self, stem: &str) -> String {
        format!("conformance-{}-{stem}", self.mark)
    }

    /// Calls an endpoint, in the form `service.action` or `v2.5/service.action`.
    pub(super) fn call(&self, endpoint: &str, body: &Value) -> Result<Reply> {
        let reply = self
            .remote
            .send(&self.remote.request(&format!("/{endpoint}")).json(body))?;
        if reply.status == 200 && !endpoint.ends_with("download_task_log") {
            self.remember(endpoint, body, &reply.data()?);
        }
        Ok(reply)
    }

    /// A call that must succeed; gives its data.
    pub(super) fn ok(&self, endpoint: &str, body: Value) -> Result<Value> {
        let reply = self.call(endpoint, &body)?;
        self.ok_reply(endpoint, &body, &reply)
    }

    /// The data of a reply, which must be a success.
    pub(super) fn ok_reply(&self, endpoint: &str, body: &Value, reply: &Reply) -> Result<Value> {
        let envelope = reply.envelope().with_context(|| format!("{endpoint} {body}"))?;
        ensure!(reply.status == 200, "{endpoint} {body}: {}", envelope["meta"]);
        let meta = &envelope["meta"];
        ensure!(
            meta["result_subcode"] == 0 && meta["result_msg"] == "OK",
            "{endpoint} {body}: {meta}"
        );
        Ok(envelope["data"].clone())
    }

    /// A call that must be refused with these codes.
    pub(super) fn refused(&self, endpoint: &str, body: Value, codes: (i64, i64)) -> Result<()> {
        let reply = self.call(endpoint, &body)?;
        let found = reply.codes().with_context(|| format!("{endpoint} {body}"))?;
        ensure!(
            found == codes,
            "{endpoint} {body}: {found:?} instead of {codes:?}: {}",
            reply.text()
        );
        Ok(())
    }

    /// What a successful call has made becomes this case's to delete.
    fn remember(&self, endpoint: &str, body: &Value, data: &Value) {
        let endpoint = endpoint.rsplit('/').next().unwrap_or(endpoint);
        let (kind, id) = match endpoint {
            "tasks.create" | "tasks.clone" | "reports.create" => (Kind::Task, &data["id"]),
            "pipelines.start_pipeline" => (Kind::Task, &data["pipeline"]),
            "queues.create" => (Kind::Queue, &data["id"]),
            "projects.create" => (Kind::Project, &data["id"]),
            "models.create" => (Kind::Model, &data["id"]),
            "workers.register" | "workers.status_report" => (Kind::Worker, &body["worker"]),
            "auth.create_credentials" => (Kind::AccessKey, &data["credentials"]["access_key"]),
            "users.create_vault" => (Kind::Vault, &data["id"]),
            _ => return,
        };
        self.own(kind, id);
    }

    /// A fresh draft.
    pub(super) fn task(&self) -> Result<String> {
        self.task_with(json!({}))
    }

    /// A fresh draft with more fields.
    pub(super) fn task_with(&self, fields: Value) -> Result<String> {
        let mut body = json!({"name": self.name("task"), "type": "training"});
        if let (Some(body), Value::Object(fields)) = (body.as_object_mut(), fields) {
            body.extend(fields);
        }
        id(&self.ok("tasks.create", body)?)
    }

    /// A fresh task in a status that is written as it is.
    pub(super) fn task_in(&self, status: &str) -> Result<String> {
        let task = self.task()?;
        if status != "created" {
            self.ok(
                "tasks.edit",
                json!({"task": task, "force": true, "status": status}),
            )?;
        }
        Ok(task)
    }

    /// A fresh task that runs.
    pub(super) fn running(&self) -> Result<String> {
        let task = self.task()?;
        self.ok("tasks.started", json!({"task": task}))?;
        Ok(task)
    }

    /// A fresh, empty queue.
    pub(super) fn queue(&self) -> Result<String> {
        let number = self.made.borrow().len();
        id(&self.ok(
            "queues.create",
            json!({"name": self.name(&format!("queue{number}"))}),
        )?)
    }

    /// A fresh project at the top level.
    pub(super) fn project(&self) -> Result<String> {
        let number = self.made.borrow().len();
        id(&self.ok(
            "projects.create",
            json!({"name": self.name(&format!("project{number}")), "description": ""}),
        )?)
    }

    /// A project that a call has made on its way becomes this case's to delete.
    pub(super) fn own_project(&self, id: &Value) {
        self.own(Kind::Project, id);
    }

    /// The same for a queue.
    pub(super) fn own_queue(&self, id: &Value) {
        self.own(Kind::Queue, id);
    }

    /// The same for a model.
    pub(super) fn own_model(&self, id: &Value) {
        self.own(Kind::Model, id);
    }

    fn own(&self, kind: Kind, id: &Value) {
        if let Some(id) = id.as_str() {
            self.made.borrow_mut().push((kind, id.to_owned()));
        }
    }

    /// A fresh model that is not ready yet.
    pub(super) fn model(&self) -> Result<String> {
        let uri = format!("file:///tmp/{}", self.name("weights"));
        id(&self.ok(
            "models.create",
            json!({"name": self.name("model"), "uri": uri, "ready": false}),
        )?)
    }

    pub(super) fn task_doc(&self, task: &str) -> Result<Value> {
        Ok(self.ok("tasks.get_by_id", json!({"task": task}))?["task"].take())
    }

    pub(super) fn is_in(&self, task: &str, status: &str) -> Result<()> {
        let doc = self.task_doc(task)?;
        same("the status", &doc["status"], json!(status))
    }

    /// The ids of the tasks that wait in a queue.
    pub(super) fn waiting(&self, queue: &str) -> Result<Vec<String>> {
        let queue = self.ok("queues.get_by_id", json!({"queue": queue}))?["queue"].take();
        let entries = queue["entries"].as_array().cloned().unwrap_or_default();
        Ok(entries
            .iter()
            .filter_map(|entry| entry["task"].as_str().map(str::to_owned))
            .collect())
    }

    pub(super) fn enqueue(&self, task: &str, queue: &str) -> Result<Value> {
        self.ok("tasks.enqueue", json!({"task": task, "queue": queue}))
    }

    /// Sends events as lines.
    pub(super) fn add_batch(&self, events: &[Value]) -> Result<Reply> {
        let lines: Vec<String> = events.iter().map(Value::to_string).collect();
        self.send_lines(&lines.join("\n"))
    }

    pub(super) fn send_lines(&self, body: &str) -> Result<Reply> {
        let request = self
            .remote
            .request("/events.add_batch")
            .header("content-type", "application/json-lines")
            .body(body);
        self.remote.send(&request)
    }

    /// Sends events that must all be stored.
    pub(super) fn report(&self, events: &[Value]) -> Result<()> {
        let data = self.add_batch(events)?.data()?;
        same("the reply", &data["added"], json!(events.len()))
    }

    /// A request to be sent later, for cases in which several calls meet.
    pub(super) fn request(&self, endpoint: &str, body: &Value) -> Request {
        self.remote.request(&format!("/{endpoint}")).json(body)
    }

    /// Deletes everything that the case has made, the newest first; says what could not be deleted.
    pub(super) fn clean_up(&self) -> Result<()> {
        let made = self.made.take();
        let mut left = Vec::new();
        let tasks: Vec<&String> = of_kind(&made, Kind::Task);
        for some in tasks.chunks(200) {
            let body = json!({"ids": some, "force": true, "delete_output_models": true});
            self.ok("tasks.delete_many", body)?;
        }
        for (kind, id) in made.iter().rev() {
            let (endpoint, body) = match kind {
                Kind::Task => continue,
                Kind::Queue => ("queues.delete", json!({"queue": id, "force": true})),
                Kind::Project => ("projects.delete", json!({"project": id, "force": true})),
                Kind::Model => ("models.delete", json!({"model": id, "force": true})),
                Kind::Worker => ("workers.unregister", json!({"worker": id})),
                Kind::AccessKey => ("auth.revoke_credentials", json!({"access_key": id})),
                Kind::Vault => ("users.delete_vault", json!({"vault": id})),
            };
            // Refusals mean that the case itself has deleted it.
            let reply = self.call(endpoint, &body)?;
            if reply.status >= 500 {
                left.push(format!("{kind:?} {id}"));
            }
        }
        if left.is_empty() {
            Ok(())
        } else {
            bail!("left behind: {}", left.join(", "))
        }
    }
}

fn of_kind(made: &[(Kind, String)], kind: Kind) -> Vec<&String> {
    made.iter()
        .filter(|(known, _)| *known == kind)
        .map(|(_, id)| id)
        .collect()
}

/// The id in a reply.
pub(super) fn id(data: &Value) -> Result<String> {
    text(data, "id")
}

/// A text in a reply.
pub(super) fn text(data: &Value, field: &str) -> Result<String> {
    data[field]
        .as_str()
        .map(str::to_owned)
        .with_context(|| format!("no {field} in {data}"))
}

/// The items of a list in a reply.
pub(super) fn list<'v>(data: &'v Value, field: &str) -> Result<&'v Vec<Value>> {
    data[field]
        .as_array()
        .with_context(|| format!("no list {field} in {data}"))
}

/// Holds a value against what it should be.
#[track_caller]
pub(super) fn same(what: &str, found: &Value, expected: Value) -> Result<()> {
    let at = std::panic::Location::caller();
    ensure!(
        *found == expected,
        "{what}: {found} instead of {expected} (line {})",
        at.line()
    );
    Ok(())
}

/// Holds several fields of an object against what they should be.
#[track_caller]
pub(super) fn fields(found: &Value, expected: Value) -> Result<()> {
    let at = std::panic::Location::caller();
    let expected: Map<String, Value> = serde_json::from_value(expected)?;
    for (name, wanted) in expected {
        let value = found.pointer(&format!("/{}", name.replace('.', "/")));
        let value = value.unwrap_or(&Value::Null);
        ensure!(
            *value == wanted,
            "{name} is {value} instead of {wanted} (line {})",
            at.line()
        );
    }
    Ok(())
}

/// Holds that an object lacks these fields.
#[track_caller]
pub(super) fn without(found: &Value, names: &[&str]) -> Result<()> {
    let there: Vec<_> = names.iter().filter(|name| found.get(**name).is_some()).collect();
    ensure!(
        there.is_empty(),
        "{there:?} should not be there (line {})",
        std::panic::Location::caller().line()
    );
    Ok(())
}
