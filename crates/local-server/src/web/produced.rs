//! What a task has left behind: artifacts, models, plots and debug samples, each with a way to have it.
//!
//! Names and addresses are the task's and may be anything. Names go through the template, which escapes them. An
//! address becomes a link only if it is one of http or https; files of this server's own file server are handed out
//! here, always as attachments, so that what a task has uploaded never becomes a page of this one.

use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use maud::{Markup, html};
use rusqlite::params;
use serde_json::{Value, json};
use url::Url;

use super::layout::field;
use super::{Form, Web, text};
use crate::api::{Access, ApiFault};
use crate::events::incoming::Kind;
use crate::events::samples;
use crate::files;

/// Rows of one table; the rest is counted.
const MOST_ROWS: usize = 200;
/// Characters shown of an artifact's preview.
const MAX_PREVIEW: usize = 2000;

/// Where a file is.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// On this server's file server, by its encoded path.
    Here(String),
    /// On another web server.
    Web(String),
    /// Where a browser does not get: a bucket, a disk, or what is no address at all.
    Elsewhere,
}

/// Tells where an address leads.
fn place(web: &Web, uri: &str) -> Place {
    let Ok(url) = Url::parse(uri) else {
        return Place::Elsewhere;
    };
    if !matches!(url.scheme(), "http" | "https") {
        return Place::Elsewhere;
    }
    let port = |base: &str| {
        Url::parse(base)
            .ok()
            .and_then(|base| base.port_or_known_default())
    };
    let ours = url
        .host_str()
        .is_some_and(|host| web.server.host_rule.allows(host));
    if ours && url.port_or_known_default() == port(&web.addresses.files) {
        return Place::Here(url.path().to_owned());
    }
    if ours
        && url.port_or_known_default() == port(&web.addresses.api)
        && let Some(path) = url.path().strip_prefix("/files")
    {
        return Place::Here(path.to_owned());
    }
    Place::Web(url.into())
}

/// The tables of a task's page; `task` has its artifacts.
pub(super) async fn sections(web: &Web, path: &str, task: &Value) -> Result<Markup, ApiFault> {
    let id = field(task, "id");
    let wanted = json!({"task": [id], "order_by": ["created"], "only_fields": ["id", "name", "framework", "uri", "ready"]});
    let models = web.call("models.get_all", wanted).await?;
    let plots = reported(web, id, Kind::Plot).await?;
    let sampled = reported(web, id, Kind::DebugImage).await?;
    let none = Vec::new();
    let list = |value: &Value| value.as_array().unwrap_or(&none).clone();
    Ok(html! {
        (artifacts(web, path, &list(&task["execution"]["artifacts"])))
        (model_table(web, path, &list(&models["models"])))
        (reported_table(path, "plot", "Plots", "as JSON for Plotly", &list(&plots)))
        (reported_table(path, "sample", "Debug samples", "newest file", &list(&sampled)))
    })
}

/// A section with a table; nothing without rows.
fn table(id: &str, title: &str, columns: &[&str], rows: &[Markup]) -> Markup {
    if rows.is_empty() {
        return html! {};
    }
    let heading = format!("{id}-title");
    html! {
        section aria-labelledby=(heading) {
            h2 id=(heading) { (title) }
            div.scroll {
                table id=(id) {
                    thead { tr { @for column in columns { th scope="col" { (column) } } } }
                    tbody { @for row in rows.iter().take(MOST_ROWS) { (row) } }
                }
            }
            @if rows.len() > MOST_ROWS { p.hint { "Not all are shown." } }
        }
    }
}

fn artifacts(web: &Web, path: &str, all: &[Value]) -> Markup {
    let rows: Vec<Markup> = all
        .iter()
        .take(MOST_ROWS + 1)
        .map(|artifact| {
            let (key, mode) = (field(artifact, "key"), field(artifact, "mode"));
            let preview = artifact["type_data"]["preview"].as_str().unwrap_or_default();
            let short: String = preview.chars().take(MAX_PREVIEW).collect();
            let way = address(path, "artifact", &[("key", key), ("mode", mode)]);
            html! {
                tr {
                    th scope="row" { (file_link(web, field(artifact, "uri"), &way, key)) }
                    td { (field(artifact, "type")) @if mode == "input" { " (input)" } }
                    td { @if let Some(size) = artifact["content_size"].as_i64() { (size) " bytes" } }
                    td { @if !short.is_empty() { details { summary { "Preview" } pre tabindex="0" { (short) } } } }
                }
            }
        })
        .collect();
    table(
        "artifacts",
        "Artifacts",
        &["Name", "Type", "Size", "Preview"],
        &rows,
    )
}

fn model_table(web: &Web, path: &str, all: &[Value]) -> Markup {
    let row = |model: &Value| {
        let way = address(path, "model", &[("id", field(model, "id"))]);
        html! {
            tr {
                th scope="row" { (file_link(web, field(model, "uri"), &way, field(model, "name"))) }
                td { (field(model, "framework")) }
                td { @if model["ready"] == true { "published" } @else { "draft" } }
            }
        }
    };
    let rows: Vec<Markup> = all.iter().take(MOST_ROWS + 1).map(row).collect();
    table("models", "Models", &["Name", "Framework", "State"], &rows)
}

fn reported_table(path: &str, what: &str, title: &str, link: &str, all: &[Value]) -> Markup {
    let row = |one: &Value| {
        let (metric, variant) = (one["metric"].as_str(), one["variant"].as_str());
        let (metric, variant) = (metric.unwrap_or_default(), variant.unwrap_or_default());
        let way = address(path, what, &[("metric", metric), ("variant", variant)]);
        html! {
            tr {
                th scope="row" { (metric) " / " (variant) }
                td { (one["iter"]) }
                td { (one["count"]) }
                td { a href=(way) { (link) } }
            }
        }
    };
    let rows: Vec<Markup> = all.iter().map(row).collect();
    let columns = ["Name", "Newest iteration", "Kept", "Newest"];
    table(&format!("{what}s"), title, &columns, &rows)
}

/// A link where there is a way; otherwise the name and the address as they are.
fn file_link(web: &Web, uri: &str, way: &str, name: &str) -> Markup {
    match place(web, uri) {
        Place::Here(_) => html! { a href=(way) download { (name) } },
        Place::Web(url) => {
            html! { a href=(url) rel="noopener noreferrer external" target="_blank" { (name) } }
        }
        Place::Elsewhere => html! { (name) " " code { (uri) } },
    }
}

fn address(path: &str, what: &str, pairs: &[(&str, &str)]) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish();
    format!("{path}/{what}?{query}")
}

/// Metrics and variants with events of a type, with their newest iteration and how many there are.
async fn reported(web: &Web, task: &str, kind: Kind) -> Result<Value, ApiFault> {
    let task = task.to_owned();
    let read = web.server.store.run(Access::Read, move |tx| {
        let sql =
            "SELECT metric, variant, max(iter), count(*) FROM events_metric WHERE task = ?1 AND type = ?2
            GROUP BY metric, variant ORDER BY metric, variant LIMIT ?3";
        let most = i64::try_from(MOST_ROWS + 1).unwrap_or(i64::MAX);
        let rows = tx
            .prepare_cached(sql)?
            .query_map(params![task, kind.as_str(), most], |row| {
                let (metric, variant): (String, String) = (row.get(0)?, row.get(1)?);
                let (iter, count): (i64, i64) = (row.get(2)?, row.get(3)?);
                Ok(json!({"metric": metric, "variant": variant, "iter": iter, "count": count}))
            })?
            .collect::<rusqlite::Result<Vec<Value>>>()?;
        Ok(Value::Array(rows))
    });
    read.await
}

/// Hands out an artifact.
pub(super) async fn artifact(
    web: &Web,
    task: &str,
    query: &Form,
    request: &Parts,
) -> Result<Response, ApiFault> {
    let found = web.call("tasks.get_by_id", json!({"task": task})).await?;
    let artifacts = found["task"]["execution"]["artifacts"]
        .as_array()
        .into_iter()
        .flatten();
    let wanted =
        |one: &&Value| field(one, "key") == text(query, "key") && field(one, "mode") == text(query, "mode");
    let artifact = artifacts.into_iter().find(wanted).ok_or_else(missing)?;
    hand_out(web, field(artifact, "uri"), request).await
}

/// Hands out the file of a model of the task.
pub(super) async fn model(
    web: &Web,
    task: &str,
    query: &Form,
    request: &Parts,
) -> Result<Response, ApiFault> {
    let wanted = json!({"id": [text(query, "id")], "task": [task], "only_fields": ["uri"]});
    let found = web.call("models.get_all", wanted).await?;
    let model = found["models"].get(0).ok_or_else(missing)?;
    hand_out(web, field(model, "uri"), request).await
}

/// Hands out the newest file of a debug sample.
pub(super) async fn sample(
    web: &Web,
    task: &str,
    query: &Form,
    request: &Parts,
) -> Result<Response, ApiFault> {
    let event = newest(web, task, query, Kind::DebugImage).await?;
    hand_out(web, field(&event, "url"), request).await
}

/// The newest plot of a name, as it was reported.
pub(super) async fn plot(web: &Web, task: &str, query: &Form) -> Result<Response, ApiFault> {
    let mut event = newest(web, task, query, Kind::Plot).await?;
    let Value::String(plot) = event["plot_str"].take() else {
        return Err(missing());
    };
    let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&plot).is_ok();
    let content_type = if is_json {
        "application/json"
    } else {
        "text/plain; charset=utf-8"
    };
    let mut response = plot.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(response)
}

async fn newest(web: &Web, task: &str, query: &Form, kind: Kind) -> Result<Value, ApiFault> {
    let task = task.to_owned();
    let (metric, variant) = (
        text(query, "metric").to_owned(),
        text(query, "variant").to_owned(),
    );
    let read = web.server.store.run(Access::Read, move |tx| {
        let found = samples::one(tx, &task, kind, &metric, &variant, None)?;
        found.map(|(_, event)| event).ok_or_else(missing)
    });
    read.await
}

async fn hand_out(web: &Web, uri: &str, request: &Parts) -> Result<Response, ApiFault> {
    match place(web, uri) {
        Place::Here(path) => Ok(files::attachment(&web.files, &path, request).await),
        Place::Web(_) | Place::Elsewhere => Err(ApiFault::new(
            404,
            0,
            format!("This file is not on this server, but here: {uri}"),
        )),
    }
}

fn missing() -> ApiFault {
    ApiFault::new(404, 0, "There is no such file")
}
