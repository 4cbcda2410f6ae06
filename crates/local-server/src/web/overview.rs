//! The first page: queues with what waits in them, workers, and the latest tasks.

use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use serde_json::{Value, json};

use super::layout::{Refresh, duration, field, moment, page as frame, task_link};
use super::visitors::Visitor;
use super::{Web, html as reply, task_list};
use crate::api::ApiFault;

/// Waiting tasks shown of each queue.
const SHOWN_ENTRIES: usize = 20;
const LATEST: usize = 15;
const REFRESH: Refresh<'_> = Refresh {
    path: "/",
    seconds: 4,
};

pub(super) async fn page(web: &Web, visitor: &Visitor) -> Result<Response, ApiFault> {
    let queues = web
        .call("queues.get_all_ex", json!({"order_by": ["name"]}))
        .await?;
    let workers = web.call("workers.get_all", json!({"last_seen": 600})).await?;
    let tasks = task_list::newest(web, None, 0, LATEST).await?;
    let content = html! {
        h1 { "Overview" }
        section aria-labelledby="queues-title" {
            h2 #queues-title { "Queues" }
            div #queues data-live { (queues_part(&queues["queues"])) }
        }
        section aria-labelledby="workers-title" {
            h2 #workers-title { "Workers" }
            div #workers data-live { (workers_part(&workers["workers"])) }
        }
        section aria-labelledby="latest-title" {
            h2 #latest-title { "Latest tasks" }
            div #latest data-live { (task_list::table(&tasks)) }
            p { a href="/tasks" { "All tasks" } }
        }
    };
    let markup = frame(&web.page_of(visitor), "Overview", Some(&REFRESH), &content);
    Ok(reply(StatusCode::OK, markup))
}

fn queues_part(queues: &Value) -> Markup {
    let queues = queues.as_array().map(Vec::as_slice).unwrap_or_default();
    html! {
        @if queues.is_empty() { p.empty { "There are no queues." } }
        div.cards {
            @for queue in queues { (queue_card(queue)) }
        }
    }
}

fn queue_card(queue: &Value) -> Markup {
    let entries = queue["entries"].as_array().map(Vec::as_slice).unwrap_or_default();
    let workers = queue["workers"].as_array().map_or(0, Vec::len);
    html! {
        div.card {
            h3 { (field(queue, "name")) }
            p.hint {
                (count(entries.len(), "task waits", "tasks wait")) ", "
                (count(workers, "worker serves it", "workers serve it"))
            }
            @if !entries.is_empty() {
                ol {
                    @for entry in entries.iter().take(SHOWN_ENTRIES) {
                        li { (task_link(&entry["task"])) }
                    }
                }
            }
            @if entries.len() > SHOWN_ENTRIES {
                p.hint { "and " (entries.len() - SHOWN_ENTRIES) " more" }
            }
        }
    }
}

fn workers_part(workers: &Value) -> Markup {
    let workers = workers.as_array().map(Vec::as_slice).unwrap_or_default();
    if workers.is_empty() {
        return html! {
            p.empty { "No worker is connected. " code { "clearml-agent daemon --queue default" } " starts one." }
        };
    }
    html! {
        div.scroll {
            table {
                thead { tr {
                    th scope="col" { "Worker" } th scope="col" { "Task" } th scope="col" { "Running" }
                    th.wide scope="col" { "Queues" } th.wide scope="col" { "Last report" }
                } }
                tbody {
                    @for worker in workers {
                        tr {
                            td { (field(worker, "id")) }
                            td { @if worker["task"]["id"].is_string() { (task_link(&worker["task"])) } @else { "idle" } }
                            td.number {
                                @if let Some(ms) = worker["task"]["running_time"].as_i64() { (duration(ms / 1000)) }
                                @else { "–" }
                            }
                            td.wide { (queue_names(worker)) }
                            td.wide { (moment(&worker["last_report_time"])) }
                        }
                    }
                }
            }
        }
    }
}

fn queue_names(worker: &Value) -> String {
    let queues = worker["queues"].as_array().into_iter().flatten();
    let names: Vec<&str> = queues.map(|queue| field(queue, "name")).collect();
    if names.is_empty() {
        "–".to_owned()
    } else {
        names.join(", ")
    }
}

fn count(number: usize, one: &str, many: &str) -> String {
    match number {
        0 => format!("no {one}"),
        1 => format!("1 {one}"),
        _ => format!("{number} {many}"),
    }
}
