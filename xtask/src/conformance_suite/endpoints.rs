//! What holds of every endpoint: it is there from its version on, takes fields that it does not know, and its reply has
//! its fields. What the endpoints do is the matter of the numbered cases.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::lifecycle::now_ms;
use super::scene::{Scene, not_applicable, text};

/// One endpoint with a call that must succeed.
pub(super) struct Contract {
    pub(super) endpoint: &'static str,
    /// What comes back, in words.
    pub(super) purpose: &'static str,
    /// Lowest version, where one is promised.
    since: Option<&'static str>,
    body: fn(&Scene<'_>) -> Result<Value>,
    /// Fields of the reply.
    keys: &'static [&'static str],
}

impl Contract {
    pub(super) const fn new(
        endpoint: &'static str,
        purpose: &'static str,
        since: Option<&'static str>,
        body: fn(&Scene<'_>) -> Result<Value>,
        keys: &'static [&'static str],
    ) -> Self {
        Self {
            endpoint,
            purpose,
            since,
            body,
            keys,
        }
    }

    pub(super) fn hold(&self, scene: &Scene<'_>) -> Result<()> {
        let mut body = (self.body)(scene)?;
        // The SDK adds this to everything that it sends.
        body["method"] = json!("get");
        let reply = scene.call(self.endpoint, &body)?;
        if reply.status == 404 && self.purpose.ends_with("(an extension)") {
            return not_applicable("this server does not have the extension");
        }
        let data = scene.ok_reply(self.endpoint, &body, &reply)?;
        for key in self.keys {
            ensure!(data.get(key).is_some(), "no {key} in {data}");
        }
        if let Some(since) = self.since {
            let endpoint = format!("v{}/{}", version_before(since)?, self.endpoint);
            scene.refused(&endpoint, body, (404, 0))?;
        }
        Ok(())
    }
}

fn version_before(version: &str) -> Result<String> {
    let (major, minor) = version.split_once('.').context("a version without a dot")?;
    Ok(format!("{major}.{}", minor.parse::<u32>()? - 1))
}

pub(super) const CONTRACTS: &[Contract] = &[
    Contract::new(
        "auth.create_credentials",
        "a further key pair for the caller",
        None,
        |s| Ok(json!({"label": s.name("label")})),
        &["credentials"],
    ),
    Contract::new(
        "auth.get_credentials",
        "the caller's key pairs, without secrets",
        None,
        |_| Ok(json!({})),
        &["credentials"],
    ),
    Contract::new(
        "auth.edit_credentials",
        "another label for a key pair",
        Some("2.19"),
        |s| Ok(json!({"access_key": key(s)?, "label": "new"})),
        &["updated"],
    ),
    Contract::new(
        "auth.revoke_credentials",
        "the end of a key pair",
        None,
        |s| Ok(json!({"access_key": key(s)?})),
        &["revoked"],
    ),
    Contract::new(
        "auth.fixed_users_mode",
        "whether users are fixed",
        None,
        |_| Ok(json!({})),
        &["enabled", "guest", "server_errors"],
    ),
    Contract::new(
        "auth.login",
        "a token for a key pair or another token",
        None,
        |_| Ok(json!({})),
        &["token"],
    ),
    Contract::new(
        "login.supported_modes",
        "the ways to log in",
        None,
        |_| Ok(json!({})),
        &["basic", "sso", "sso_providers", "server_errors", "authenticated"],
    ),
    Contract::new("debug.ping", "a sign of life", None, |_| Ok(json!({})), &["msg"]),
    Contract::new(
        "server.info",
        "what the server is",
        None,
        |_| Ok(json!({})),
        &["version", "build", "commit", "api_version"],
    ),
    Contract::new(
        "users.get_current_user",
        "who is asking",
        None,
        |_| Ok(json!({})),
        &["user", "getting_started", "settings"],
    ),
    Contract::new(
        "users.get_all",
        "the users",
        None,
        |_| Ok(json!({"only_fields": ["id", "name"]})),
        &["users"],
    ),
    Contract::new(
        "users.get_by_id",
        "one user",
        None,
        |s| Ok(json!({"user": s.ok("users.get_current_user", json!({}))?["user"]["id"]})),
        &["user"],
    ),
    Contract::new(
        "users.get_preferences",
        "what the web page keeps for a user",
        None,
        |_| Ok(json!({})),
        &["preferences"],
    ),
    Contract::new(
        "users.get_vaults",
        "configuration that the server keeps for a user (an extension)",
        None,
        |_| Ok(json!({"enabled": true, "types": ["config"]})),
        &["vaults"],
    ),
    Contract::new(
        "organization.get_tags",
        "the tags in use",
        None,
        |_| Ok(json!({})),
        &["tags"],
    ),
    Contract::new(
        "organization.get_user_companies",
        "the company of the caller",
        None,
        |_| Ok(json!({})),
        &["companies"],
    ),
    Contract::new(
        "projects.create",
        "a new project",
        None,
        |s| Ok(json!({"name": s.name("created"), "description": ""})),
        &["id"],
    ),
    Contract::new(
        "projects.get_by_id",
        "one project",
        None,
        |s| Ok(json!({"project": s.project()?})),
        &["project"],
    ),
    Contract::new(
        "projects.get_all",
        "the projects of a selection",
        None,
        |s| Ok(json!({"id": [s.project()?]})),
        &["projects"],
    ),
    Contract::new(
        "projects.get_all_ex",
        "the same with references and numbers of tasks",
        None,
        |s| Ok(json!({"id": [s.project()?], "include_stats": true})),
        &["projects"],
    ),
    Contract::new(
        "projects.update",
        "another description of a project",
        None,
        |s| Ok(json!({"project": s.project()?, "description": "d"})),
        &["updated", "fields"],
    ),
    Contract::new(
        "projects.delete",
        "the end of a project",
        None,
        |s| Ok(json!({"project": s.project()?})),
        &[
            "deleted",
            "disassociated_tasks",
            "deleted_models",
            "deleted_tasks",
            "urls",
        ],
    ),
    Contract::new(
        "projects.validate_delete",
        "what stands in the way of deleting a project",
        None,
        |s| Ok(json!({"project": s.project()?})),
        &["tasks", "non_archived_tasks", "models", "non_archived_models"],
    ),
    Contract::new(
        "projects.move",
        "another place for a project",
        None,
        |s| Ok(json!({"project": s.project()?, "new_location": named(s, s.project()?)?})),
        &["moved"],
    ),
    Contract::new(
        "projects.merge",
        "the contents of a project moved to another",
        None,
        |s| Ok(json!({"project": s.project()?, "destination_project": named(s, s.project()?)?})),
        &["moved_entities", "moved_projects"],
    ),
    Contract::new(
        "projects.get_project_tags",
        "the tags of projects",
        None,
        |_| Ok(json!({})),
        &["tags"],
    ),
    Contract::new(
        "projects.get_task_tags",
        "the tags of tasks",
        None,
        |s| Ok(json!({"projects": [s.project()?]})),
        &["tags"],
    ),
    Contract::new(
        "projects.get_model_tags",
        "the tags of models",
        None,
        |s| Ok(json!({"projects": [s.project()?]})),
        &["tags"],
    ),
    Contract::new(
        "projects.get_hyper_parameters",
        "the names of parameters in a project",
        None,
        |s| Ok(json!({"project": s.project()?})),
        &["parameters", "remaining", "total"],
    ),
    Contract::new(
        "projects.get_hyperparam_values",
        "the values of a parameter",
        None,
        |s| Ok(json!({"projects": [s.project()?], "section": "S", "name": "n"})),
        &["total", "values"],
    ),
    Contract::new(
        "projects.get_unique_metric_variants",
        "the metrics in a project",
        None,
        |s| Ok(json!({"project": s.project()?})),
        &["metrics"],
    ),
    Contract::new(
        "projects.get_model_metadata_keys",
        "the names of notes on models",
        None,
        |s| Ok(json!({"project": s.project()?})),
        &["keys", "remaining", "total"],
    ),
    Contract::new(
        "projects.get_model_metadata_values",
        "the values of a note on models",
        None,
        |s| Ok(json!({"projects": [s.project()?], "key": "k"})),
        &["total", "values"],
    ),
    Contract::new(
        "projects.get_task_parents",
        "the parents of tasks",
        None,
        |s| Ok(json!({"projects": [s.project()?]})),
        &["parents"],
    ),
    Contract::new(
        "projects.get_user_names",
        "the owners of tasks",
        None,
        |s| Ok(json!({"projects": [s.project()?]})),
        &["users"],
    ),
    Contract::new(
        "queues.create",
        "a new queue",
        None,
        |s| Ok(json!({"name": s.name("created")})),
        &["id"],
    ),
    Contract::new(
        "queues.get_by_id",
        "one queue with its entries",
        None,
        |s| Ok(json!({"queue": s.queue()?})),
        &["queue"],
    ),
    Contract::new(
        "queues.get_all",
        "the queues of a selection",
        None,
        |s| Ok(json!({"id": [s.queue()?], "max_task_entries": 1})),
        &["queues"],
    ),
    Contract::new(
        "queues.get_all_ex",
        "the same with names of tasks and workers",
        None,
        |s| Ok(json!({"id": [s.queue()?]})),
        &["queues"],
    ),
    Contract::new(
        "queues.get_default",
        "the queue for tasks that name none",
        None,
        |_| Ok(json!({})),
        &["id", "name"],
    ),
    Contract::new(
        "queues.update",
        "another name shown for a queue",
        None,
        |s| Ok(json!({"queue": s.queue()?, "display_name": "d"})),
        &["updated", "fields"],
    ),
    Contract::new(
        "queues.delete",
        "the end of a queue",
        None,
        |s| Ok(json!({"queue": s.queue()?})),
        &["deleted"],
    ),
    Contract::new(
        "queues.add_task",
        "an entry at the end",
        None,
        |s| Ok(json!({"queue": s.queue()?, "task": s.task()?})),
        &["added"],
    ),
    Contract::new(
        "queues.get_next_task",
        "the first entry, taken out",
        None,
        |s| Ok(json!({"queue": waiting(s)?.0})),
        &["entry"],
    ),
    Contract::new(
        "queues.remove_task",
        "an entry taken out",
        None,
        entry,
        &["removed"],
    ),
    Contract::new(
        "queues.clear_queue",
        "all entries taken out",
        None,
        |s| Ok(json!({"queue": waiting(s)?.0})),
        &["removed_tasks"],
    ),
    Contract::new(
        "queues.move_task_forward",
        "an entry moved towards the front",
        None,
        entry,
        &["position"],
    ),
    Contract::new(
        "queues.move_task_backward",
        "an entry moved towards the end",
        None,
        entry,
        &["position"],
    ),
    Contract::new(
        "queues.move_task_to_front",
        "an entry moved to the front",
        None,
        entry,
        &["position"],
    ),
    Contract::new(
        "queues.move_task_to_back",
        "an entry moved to the end",
        None,
        entry,
        &["position"],
    ),
    Contract::new(
        "queues.peek_task",
        "the first entry, left there",
        Some("2.15"),
        |s| Ok(json!({"queue": waiting(s)?.0})),
        &["task"],
    ),
    Contract::new(
        "queues.get_num_entries",
        "the length of a queue",
        Some("2.15"),
        |s| Ok(json!({"queue": s.queue()?})),
        &["num"],
    ),
    Contract::new(
        "queues.add_or_update_metadata",
        "a note on a queue",
        Some("2.13"),
        |s| Ok(json!({"queue": s.queue()?, "metadata": [{"key": "k", "type": "t", "value": "v"}]})),
        &["updated"],
    ),
    Contract::new(
        "queues.delete_metadata",
        "a note taken away from a queue",
        Some("2.13"),
        |s| Ok(json!({"queue": s.queue()?, "keys": ["k"]})),
        &["updated"],
    ),
    Contract::new(
        "queues.get_queue_metrics",
        "lengths and waiting times over time",
        None,
        |s| Ok(period(json!({"queue_ids": [waiting(s)?.0], "refresh": true}))),
        &["queues"],
    ),
    Contract::new(
        "workers.register",
        "a worker made known",
        None,
        |s| Ok(worker(s, json!({"queues": []}))),
        &[],
    ),
    Contract::new(
        "workers.unregister",
        "a worker gone",
        None,
        |s| Ok(worker(s, json!({"queues": []}))),
        &[],
    ),
    Contract::new(
        "workers.status_report",
        "a sign of life of a worker",
        None,
        |s| Ok(worker(s, json!({"timestamp": now_ms()}))),
        &[],
    ),
    Contract::new(
        "workers.get_all",
        "the live workers",
        None,
        |s| Ok(json!({"last_seen": 0, "worker_pattern": s.name("none")})),
        &["workers"],
    ),
    Contract::new(
        "workers.get_count",
        "the number of workers",
        None,
        |s| Ok(json!({"worker_pattern": s.name("none")})),
        &["count"],
    ),
    Contract::new(
        "workers.get_metric_keys",
        "the names of what machines reported",
        None,
        |s| Ok(json!({"worker_ids": [reported(s)?]})),
        &["categories"],
    ),
    Contract::new(
        "workers.get_stats",
        "what machines reported, as series",
        None,
        |s| {
            Ok(period(
                json!({"worker_ids": [reported(s)?], "items": [{"key": "cpu_usage"}]}),
            ))
        },
        &["workers"],
    ),
    Contract::new(
        "workers.get_activity_report",
        "how many workers were there",
        None,
        |_| Ok(period(json!({}))),
        &["total", "active"],
    ),
    Contract::new(
        "workers.get_runtime_properties",
        "what a worker keeps on the server (an extension)",
        None,
        |s| Ok(json!({"worker": s.name("none")})),
        &["runtime_properties"],
    ),
    Contract::new(
        "workers.set_runtime_properties",
        "something a worker keeps on the server (an extension)",
        None,
        |s| {
            Ok(worker(
                s,
                json!({"runtime_properties": [{"key": "k", "value": "v", "expiry": 1}]}),
            ))
        },
        &[],
    ),
    Contract::new(
        "models.create",
        "a new model",
        None,
        |s| Ok(json!({"name": s.name("created"), "uri": "file:///tmp/w"})),
        &["id", "created"],
    ),
    Contract::new(
        "models.get_by_id",
        "one model",
        None,
        |s| Ok(json!({"model": s.model()?})),
        &["model"],
    ),
    Contract::new(
        "models.get_by_id_ex",
        "the same with references",
        None,
        |s| Ok(json!({"model": s.model()?, "only_fields": ["id", "user.name"]})),
        &["model"],
    ),
    Contract::new(
        "models.get_all",
        "the models of a selection",
        None,
        |s| Ok(json!({"id": [s.model()?], "order_by": ["created"]})),
        &["models"],
    ),
    Contract::new(
        "models.get_all_ex",
        "the same with references",
        None,
        |s| Ok(json!({"id": [s.model()?]})),
        &["models"],
    ),
    Contract::new(
        "models.edit",
        "other fields of a model",
        None,
        |s| Ok(json!({"model": s.model()?, "comment": "c"})),
        &["updated", "fields"],
    ),
    Contract::new(
        "models.update",
        "other labels of a model",
        None,
        |s| Ok(json!({"model": s.model()?, "name": "renamed"})),
        &["updated", "fields"],
    ),
    Contract::new(
        "models.set_ready",
        "a model that is ready",
        None,
        |s| Ok(json!({"model": s.model()?})),
        &["updated"],
    ),
    Contract::new(
        "models.add_or_update_metadata",
        "a note on a model",
        Some("2.13"),
        |s| Ok(json!({"model": s.model()?, "metadata": [{"key": "k", "type": "t", "value": "v"}]})),
        &["updated"],
    ),
    Contract::new(
        "models.delete_metadata",
        "a note taken away from a model",
        Some("2.13"),
        |s| Ok(json!({"model": s.model()?, "keys": ["k"]})),
        &["updated"],
    ),
    Contract::new(
        "models.delete",
        "the end of a model",
        None,
        |s| Ok(json!({"model": s.model()?})),
        &["deleted"],
    ),
    Contract::new(
        "models.archive_many",
        "models put away",
        Some("2.13"),
        |s| Ok(json!({"ids": [s.model()?]})),
        &["succeeded", "failed"],
    ),
    Contract::new(
        "models.unarchive_many",
        "models taken out again",
        Some("2.13"),
        |s| Ok(json!({"ids": [s.model()?]})),
        &["succeeded", "failed"],
    ),
    Contract::new(
        "models.publish_many",
        "models that are ready",
        Some("2.13"),
        |s| Ok(json!({"ids": [s.model()?]})),
        &["succeeded", "failed"],
    ),
    Contract::new(
        "models.delete_many",
        "the end of several models",
        Some("2.13"),
        |s| Ok(json!({"ids": [s.model()?]})),
        &["succeeded", "failed"],
    ),
    Contract::new(
        "models.move",
        "another project for models",
        None,
        |s| Ok(json!({"ids": [s.model()?], "project": s.project()?})),
        &["project_id"],
    ),
    Contract::new(
        "models.update_tags",
        "tags added to models",
        None,
        |s| Ok(json!({"ids": [s.model()?], "add_tags": ["t"]})),
        &["updated"],
    ),
    Contract::new(
        "models.get_frameworks",
        "the frameworks in use",
        None,
        |_| Ok(json!({})),
        &["frameworks"],
    ),
    Contract::new(
        "events.add",
        "one event",
        None,
        |s| Ok(json!({"type": "log", "task": s.task()?, "msg": "m"})),
        &["added", "errors", "errors_info"],
    ),
    Contract::new(
        "events.add_batch",
        "events as lines",
        None,
        |s| Ok(json!({"type": "log", "task": s.task()?, "msg": "m"})),
        &["added", "errors", "errors_info"],
    ),
    Contract::new(
        "events.get_task_log",
        "the console of a task",
        None,
        |s| Ok(json!({"task": s.task()?})),
        &["events", "returned", "total"],
    ),
    Contract::new(
        "events.get_task_events",
        "the events of a task",
        None,
        |s| Ok(json!({"task": s.task()?})),
        &["events", "returned", "total", "scroll_id"],
    ),
    Contract::new(
        "events.get_task_plots",
        "the plots of a task",
        None,
        |s| Ok(json!({"task": s.task()?})),
        &["plots", "returned", "total", "scroll_id"],
    ),
    Contract::new(
        "events.get_multi_task_plots",
        "the plots of several tasks",
        None,
        |s| Ok(json!({"tasks": [s.task()?]})),
        &["plots", "returned", "total", "scroll_id"],
    ),
    Contract::new(
        "events.scalar_metrics_iter_histogram",
        "the curves of a task",
        None,
        |s| Ok(json!({"task": s.task()?, "key": "iter"})),
        &[],
    ),
    Contract::new(
        "events.multi_task_scalar_metrics_iter_histogram",
        "the curves of several tasks",
        None,
        |s| Ok(json!({"tasks": [s.task()?]})),
        &["metrics"],
    ),
    Contract::new(
        "events.get_task_single_value_metrics",
        "values without a history",
        Some("2.20"),
        |s| Ok(json!({"tasks": [s.task()?]})),
        &["tasks"],
    ),
    Contract::new(
        "events.debug_images",
        "the images of tasks by iteration",
        Some("2.7"),
        |s| Ok(json!({"metrics": [{"task": s.task()?}]})),
        &["metrics", "scroll_id"],
    ),
    Contract::new(
        "events.get_debug_image_sample",
        "one image",
        None,
        |s| Ok(json!({"task": s.task()?, "metric": "m", "variant": "v"})),
        &["scroll_id"],
    ),
    Contract::new(
        "events.get_plot_sample",
        "one plot",
        None,
        |s| Ok(json!({"task": s.task()?, "metric": "m", "variant": "v"})),
        &["scroll_id"],
    ),
    Contract::new(
        "events.get_scalar_metrics_and_variants",
        "the names of curves",
        None,
        |s| Ok(json!({"task": s.task()?})),
        &["metrics"],
    ),
    Contract::new(
        "events.scalar_metrics_iter_raw",
        "every point of a metric",
        Some("2.16"),
        |s| Ok(json!({"task": s.task()?, "metric": {"metric": "m", "variants": ["v"]}})),
        &["variants", "returned", "scroll_id"],
    ),
    Contract::new(
        "events.get_task_metrics",
        "the metrics that have events of a type",
        None,
        |s| Ok(json!({"tasks": [s.task()?], "event_type": "plot"})),
        &["metrics"],
    ),
    Contract::new(
        "events.clear_task_log",
        "a console emptied",
        None,
        |s| Ok(json!({"task": s.task()?})),
        &["deleted"],
    ),
    Contract::new(
        "events.delete_for_task",
        "the events of a task deleted",
        None,
        |s| Ok(json!({"task": s.task()?})),
        &["deleted"],
    ),
];

/// The access key of a fresh key pair.
fn key(s: &Scene<'_>) -> Result<String> {
    let made = s.ok("auth.create_credentials", json!({}))?;
    text(&made["credentials"], "access_key")
}

/// A fresh queue with a fresh task in it.
fn waiting(s: &Scene<'_>) -> Result<(String, String)> {
    let (queue, task) = (s.queue()?, s.task()?);
    s.enqueue(&task, &queue)?;
    Ok((queue, task))
}

/// The same as a request.
fn entry(s: &Scene<'_>) -> Result<Value> {
    let (queue, task) = waiting(s)?;
    Ok(json!({"queue": queue, "task": task}))
}

fn named(s: &Scene<'_>, project: String) -> Result<String> {
    let found = s.ok("projects.get_by_id", json!({"project": project}))?;
    text(&found["project"], "name")
}

fn worker(s: &Scene<'_>, extra: Value) -> Value {
    let mut body = extra;
    body["worker"] = json!(s.name("worker"));
    body
}

/// A worker that has reported a number.
fn reported(s: &Scene<'_>) -> Result<String> {
    let name = s.name("worker");
    let stats = json!({"cpu_usage": 1.5});
    let body = json!({"worker": name, "timestamp": now_ms(), "machine_stats": stats});
    s.ok("workers.status_report", body)?;
    Ok(name)
}

/// The last hour.
fn period(extra: Value) -> Value {
    let mut body = extra;
    let now = now_ms() / 1000;
    body["from_date"] = json!(now - 3600);
    body["to_date"] = json!(now + 60);
    body["interval"] = json!(3600);
    body
}
