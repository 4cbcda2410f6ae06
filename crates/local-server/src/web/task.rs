//! One task: how it is, what can be done about it, what it prints and measures, and what it was asked to do.

use axum::http::StatusCode;
use axum::response::Response;
use clearml_task_model::status::TaskStatus;
use maud::{Markup, html};
use serde_json::{Value, json};

use super::layout::{Refresh, badge, duration, field, moment, page as frame, task_link};
use super::visitors::Visitor;
use super::{Web, actions, chart, console, html as reply, produced};
use crate::api::ApiFault;

/// Points of a curve.
const SAMPLES: usize = 400;
/// Largest text shown of one configuration object or diff.
const MAX_TEXT: usize = 100_000;

/// What changes while a task runs.
const LIVE_FIELDS: [&str; 16] = [
    "id",
    "name",
    "type",
    "status",
    "status_reason",
    "status_message",
    "project.name",
    "parent.name",
    "execution.queue.name",
    "last_worker",
    "started",
    "completed",
    "active_duration",
    "last_update",
    "last_iteration",
    "execution.artifacts",
];
/// What it was asked to do.
const FIXED_FIELDS: [&str; 4] = ["script", "container", "hyperparams", "configuration"];

/// The address of a task's page.
pub(super) fn path(id: &str) -> String {
    let id = percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC);
    format!("/tasks/{id}")
}

pub(super) async fn page(web: &Web, visitor: &Visitor, id: &str) -> Result<Response, ApiFault> {
    let task = load(web, id, &[&LIVE_FIELDS[..], &FIXED_FIELDS[..]].concat()).await?;
    let printed = console::newest(web, id).await?;
    let path = path(id);
    let content = html! {
        p.crumb {
            a href="/tasks" { "Tasks" }
            @if let Some(project) = task["project"]["name"].as_str() { " / " (project) }
        }
        h1 { (field(&task, "name")) }
        (live_parts(web, visitor, &task).await?)
        section aria-labelledby="console-title" {
            h2 #console-title { "Console" }
            (console::part(&path, &printed))
        }
        (parameters(&task["hyperparams"]))
        (code(&task))
        (configuration(&task["configuration"]))
    };
    let live = format!("{path}/live");
    let refresh = Refresh {
        path: &live,
        seconds: 2,
    };
    let markup = frame(
        &web.page_of(visitor),
        field(&task, "name"),
        Some(&refresh),
        &content,
    );
    Ok(reply(StatusCode::OK, markup))
}

/// The parts of the page that change while a task runs, without the console.
pub(super) async fn live(web: &Web, visitor: &Visitor, id: &str) -> Result<Response, ApiFault> {
    let task = load(web, id, &LIVE_FIELDS).await?;
    Ok(reply(StatusCode::OK, live_parts(web, visitor, &task).await?))
}

async fn load(web: &Web, id: &str, fields: &[&str]) -> Result<Value, ApiFault> {
    let wanted = json!({"task": id, "only_fields": fields});
    let found = web.call("tasks.get_by_id_ex", wanted).await;
    let mut found = found.map_err(|fault| match fault.code {
        // An id that no task has is a page that does not exist.
        400 => ApiFault::new(404, 0, fault.msg),
        _ => fault,
    })?;
    match found["task"].take() {
        Value::Null => Err(ApiFault::new(404, 0, "There is no such task")),
        task => Ok(task),
    }
}

async fn live_parts(web: &Web, visitor: &Visitor, task: &Value) -> Result<Markup, ApiFault> {
    let id = field(task, "id");
    let queues = web
        .call(
            "queues.get_all",
            json!({"order_by": ["name"], "only_fields": ["id", "name"]}),
        )
        .await?;
    let curves = web
        .call(
            "events.scalar_metrics_iter_histogram",
            json!({"task": id, "samples": SAMPLES}),
        )
        .await?;
    let status = TaskStatus::from(field(task, "status"));
    Ok(html! {
        div #summary data-live { (summary(task)) }
        div #actions data-live {
            (actions::buttons(task, &status, &queues["queues"], &web.visitors.form_token(visitor)))
        }
        div #scalars data-live { (chart::section(&curves)) }
        div #produced data-live { (produced::sections(web, &path(id), task).await?) }
    })
}

fn summary(task: &Value) -> Markup {
    let running = field(task, "status") == "in_progress";
    html! {
        dl.facts {
            div { dt { "Status" } dd {
                (badge(field(task, "status")))
                @if running && field(task, "status_message") == "stopping" { " asked to stop" }
            } }
            (fact("Reason", field(task, "status_reason")))
            (fact("Message", field(task, "status_message")))
            (fact("Queue", field(&task["execution"]["queue"], "name")))
            (fact("Worker", field(task, "last_worker")))
            div { dt { "Started" } dd { (moment(&task["started"])) } }
            div { dt { "Ended" } dd { (moment(&task["completed"])) } }
            @if let Some(seconds) = task["active_duration"].as_i64() { (fact("Ran for", &duration(seconds))) }
            div { dt { "Last change" } dd { (moment(&task["last_update"])) } }
            @if let Some(iteration) = task["last_iteration"].as_i64() { (fact("Iteration", &iteration.to_string())) }
            (fact("Type", field(task, "type")))
            @if let Some(parent) = task["parent"]["id"].as_str() {
                div { dt { "Parent" } dd {
                    (task_link(&json!({"id": parent, "name": task["parent"]["name"]})))
                } }
            }
            div.double { dt { "Id" } dd { code { (field(task, "id")) } } }
        }
    }
}

fn fact(name: &str, value: &str) -> Markup {
    html! { @if value != "–" { div { dt { (name) } dd { (value) } } } }
}

fn parameters(sections: &Value) -> Markup {
    let sections = sections.as_object().into_iter().flatten();
    let sections: Vec<_> = sections
        .filter(|(_, items)| items.as_object().is_some_and(|items| !items.is_empty()))
        .collect();
    if sections.is_empty() {
        return html! {};
    }
    html! {
        section aria-labelledby="parameters-title" {
            h2 #parameters-title { "Hyperparameters" }
            @for (section, items) in sections {
                h3 { (section) }
                div.scroll {
                    table.parameters {
                        thead { tr { th scope="col" { "Name" } th scope="col" { "Value" } } }
                        tbody {
                            @for (name, item) in items.as_object().into_iter().flatten() {
                                tr { th scope="row" { (name) } td { (plain_value(&item["value"])) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn plain_value(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::String(text) if text.is_empty() => "–".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(lines) if lines.iter().all(Value::is_string) => lines
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join("\n"),
        other => other.to_string(),
    }
}

fn code(task: &Value) -> Markup {
    let script = &task["script"];
    html! {
        section aria-labelledby="code-title" {
            h2 #code-title { "Code" }
            dl.facts {
                (fact("Repository", field(script, "repository")))
                (fact("Branch", field(script, "branch")))
                (fact("Tag", field(script, "tag")))
                (fact("Commit", field(script, "version_num")))
                (fact("Entry point", field(script, "entry_point")))
                (fact("Working folder", field(script, "working_dir")))
                (fact("Interpreter", field(script, "binary")))
                (fact("Container", field(&task["container"], "image")))
            }
            (long_text("Uncommitted changes or script", field(script, "diff")))
            (long_text("Requirements", &plain_value(&script["requirements"]["pip"])))
        }
    }
}

fn configuration(items: &Value) -> Markup {
    let items: Vec<_> = items.as_object().into_iter().flatten().collect();
    if items.is_empty() {
        return html! {};
    }
    html! {
        section aria-labelledby="configuration-title" {
            h2 #configuration-title { "Configuration" }
            @for (name, item) in items { (long_text(name, &plain_value(&item["value"]))) }
        }
    }
}

fn long_text(title: &str, text: &str) -> Markup {
    if text == "–" {
        return html! {};
    }
    let end = (0..=MAX_TEXT.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or_default();
    html! {
        details {
            summary { (title) }
            pre tabindex="0" { (&text[..end]) }
            @if end < text.len() { p.hint { "The rest is left out: " (text.len() - end) " bytes." } }
        }
    }
}
