//! The buttons of a task: which there are, and what they do.

use axum::response::Response;
use clearml_task_model::status::{self as model, TaskStatus, Transition};
use maud::{Markup, html};
use serde_json::{Value, json};

use super::layout::{field, token_field};
use super::{Form, Web, redirect, task, text};
use crate::api::ApiFault;

/// Why a task was stopped that was stopped here.
const ABORTED: &str = "aborted on the web page";

/// Does what a button says, and goes back to the task.
pub(super) async fn perform(web: &Web, id: &str, action: &str, form: &Form) -> Result<Response, ApiFault> {
    let (operation, data) = match action {
        "enqueue" => ("tasks.enqueue", json!({"task": id, "queue": text(form, "queue")})),
        "abort" => ("tasks.stop", json!({"task": id, "status_reason": ABORTED})),
        "reset" => ("tasks.reset", json!({"task": id})),
        "clone" => (
            "tasks.clone",
            json!({"task": id, "new_task_name": text(form, "name").trim()}),
        ),
        _ => return Err(ApiFault::new(404, 0, "There is no such button")),
    };
    let done = web.call(operation, data).await?;
    let shown = match action {
        "clone" => done["id"].as_str().unwrap_or(id),
        _ => id,
    };
    Ok(redirect(&task::path(shown)))
}

/// The buttons that the status permits.
pub(super) fn buttons(task: &Value, status: &TaskStatus, queues: &Value, token: &str) -> Markup {
    let path = task::path(field(task, "id"));
    let may = |transition| model::apply(status, transition, false).is_ok();
    let waits_or_runs = matches!(status, TaskStatus::Queued | TaskStatus::InProgress);
    html! {
        @if may(Transition::Enqueue) && !waits_or_runs { (enqueue(&path, task, queues, token)) }
        @if waits_or_runs {
            form method="post" action={ (path) "/abort" } {
                (token_field(token))
                button #abort type="submit" { "Abort" }
            }
        }
        (clone(&path, task, token))
        // A draft has nothing to lose, and what waits or runs must be aborted first.
        @if may(Transition::Reset) && !waits_or_runs && *status != TaskStatus::Created {
            (reset(&path, token))
        }
    }
}

fn enqueue(path: &str, task: &Value, queues: &Value, token: &str) -> Markup {
    let last = task["execution"]["queue"]["id"].as_str();
    html! {
        form method="post" action={ (path) "/enqueue" } {
            (token_field(token))
            label for="queue" { "Queue" }
            select #queue name="queue" {
                @for queue in queues.as_array().into_iter().flatten() {
                    option value=(field(queue, "id")) selected[last == queue["id"].as_str()] { (field(queue, "name")) }
                }
            }
            button #enqueue.main type="submit" { "Enqueue" }
        }
    }
}

fn clone(path: &str, task: &Value, token: &str) -> Markup {
    html! {
        details {
            summary #clone-open { "Clone…" }
            form method="post" action={ (path) "/clone" } {
                (token_field(token))
                label for="clone-name" { "Name of the new task" }
                input #clone-name name="name" required minlength="3" value={ "Clone of " (field(task, "name")) };
                button #clone type="submit" { "Clone" }
            }
        }
    }
}

/// Two steps, also without a script.
fn reset(path: &str, token: &str) -> Markup {
    html! {
        details {
            summary #reset-open { "Reset…" }
            form method="post" action={ (path) "/reset" } {
                (token_field(token))
                p { "The console, the scalars and the models of this run are deleted, and the task becomes a draft." }
                button #reset.danger type="submit" { "Delete them and reset" }
            }
        }
    }
}
