//! The list of tasks, by status and page by page.

use axum::http::StatusCode;
use axum::response::Response;
use clearml_task_model::status::TaskStatus;
use maud::{Markup, html};
use serde_json::{Value, json};

use super::layout::{Refresh, badge, field, moment, page as frame, task_link};
use super::visitors::Visitor;
use super::{Form, Web, html as reply, text};
use crate::api::ApiFault;

const PAGE_SIZE: usize = 50;
/// What the table shows, and nothing else is read out of the documents.
const FIELDS: [&str; 7] = [
    "id",
    "name",
    "status",
    "type",
    "project.name",
    "last_worker",
    "last_update",
];

pub(super) async fn page(web: &Web, visitor: &Visitor, query: &Form) -> Result<Response, ApiFault> {
    let status = TaskStatus::KNOWN
        .into_iter()
        .find(|status| status.as_str() == text(query, "status"));
    let number: usize = text(query, "page").parse().unwrap_or(0).min(1_000_000);
    // One more than is shown tells whether there is another page.
    let tasks = newest(web, status.as_ref(), number, PAGE_SIZE).await?;
    let more = tasks.len() == PAGE_SIZE;
    let address = |status: Option<&TaskStatus>, number: usize| {
        let status = status.map_or("", TaskStatus::as_str);
        format!("/tasks?status={status}&page={number}")
    };
    let here = address(status.as_ref(), number);
    let content = html! {
        h1 { "Tasks" }
        nav.filter aria-label="Status" {
            a href="/tasks" aria-current=[status.is_none().then_some("page")] { "all" }
            @for known in TaskStatus::KNOWN {
                a href=(address(Some(&known), 0)) aria-current=[(Some(&known) == status.as_ref()).then_some("page")] {
                    (known.as_str().replace('_', " "))
                }
            }
        }
        div #tasks data-live { (table(&tasks)) }
        nav.pages aria-label="Pages of the list" {
            @if number > 0 { a rel="prev" href=(address(status.as_ref(), number - 1)) { "← Newer" } }
            @if more { a rel="next" href=(address(status.as_ref(), number + 1)) { "Older →" } }
        }
    };
    let refresh = Refresh {
        path: &here,
        seconds: 4,
    };
    let markup = frame(&web.page_of(visitor), "Tasks", Some(&refresh), &content);
    Ok(reply(StatusCode::OK, markup))
}

/// Tasks that are not archived, the most recently changed first.
pub(super) async fn newest(
    web: &Web,
    status: Option<&TaskStatus>,
    page: usize,
    size: usize,
) -> Result<Vec<Value>, ApiFault> {
    let mut wanted = json!({
        "order_by": ["-last_update"], "page": page, "page_size": size, "only_fields": FIELDS,
        "system_tags": ["-archived"],
    });
    if let Some(status) = status {
        wanted["status"] = json!([status.as_str()]);
    }
    let mut reply = web.call("tasks.get_all_ex", wanted).await?;
    match reply["tasks"].take() {
        Value::Array(tasks) => Ok(tasks),
        _ => Ok(Vec::new()),
    }
}

pub(super) fn table(tasks: &[Value]) -> Markup {
    if tasks.is_empty() {
        return html! { p.empty { "There are no tasks here." } };
    }
    html! {
        div.scroll {
            table {
                thead { tr {
                    th scope="col" { "Task" } th scope="col" { "Status" } th.wide scope="col" { "Project" }
                    th.wide scope="col" { "Type" } th.wide scope="col" { "Worker" } th.wide scope="col" { "Last change" }
                } }
                tbody {
                    @for task in tasks {
                        tr {
                            td { (task_link(task)) }
                            td { (badge(field(task, "status"))) }
                            td.wide { (field(&task["project"], "name")) }
                            td.wide { (field(task, "type")) }
                            td.wide { (field(task, "last_worker")) }
                            td.wide { (moment(&task["last_update"])) }
                        }
                    }
                }
            }
        }
    }
}
