//! What stands around every page, and the pages that say little: sign-in and failure. Also the few bits of HTML that
//! several pages share.

use axum::http::StatusCode;
use axum::response::Response;
use maud::{DOCTYPE, Markup, html};
use serde_json::Value;

use super::html as reply;
use crate::api::ApiFault;

/// What a page is framed with.
pub(super) struct Frame {
    /// Present when the visitor is signed in.
    pub(super) form_token: Option<String>,
}

/// How the script keeps a page fresh.
pub(super) struct Refresh<'a> {
    /// Where the fresh parts are.
    pub(super) path: &'a str,
    pub(super) seconds: u32,
}

/// A whole page.
pub(super) fn page(frame: &Frame, title: &str, refresh: Option<&Refresh<'_>>, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · ClearML agent server" }
                link rel="stylesheet" href="/page.css";
                link rel="icon" href="/icon.svg" type="image/svg+xml";
                script src="/page.js" defer {}
            }
            body data-refresh=[refresh.map(|refresh| refresh.path)] data-seconds=[refresh.map(|refresh| refresh.seconds)] {
                a.skip href="#content" { "Skip to content" }
                header.top {
                    span.brand { "ClearML agent server" }
                    @if let Some(token) = &frame.form_token {
                        nav aria-label="Pages" {
                            a href="/" { "Overview" }
                            a href="/tasks" { "Tasks" }
                        }
                        form method="post" action="/sign-out" {
                            (token_field(token))
                            button.quiet type="submit" { "Sign out" }
                        }
                    }
                }
                p #lost role="status" hidden { "The server does not answer. Trying again…" }
                main #content tabindex="-1" { (content) }
            }
        }
    }
}

/// The proof that a form is ours.
pub(super) fn token_field(token: &str) -> Markup {
    html! { input type="hidden" name="form_token" value=(token); }
}

pub(super) fn sign_in(token: &str, next: &str, problem: Option<&str>) -> Markup {
    let content = html! {
        div.sign-in {
            h1 { "Sign in" }
            @if let Some(problem) = problem { p.problem role="alert" { (problem) } }
            form method="post" action="/sign-in" {
                (token_field(token))
                input type="hidden" name="next" value=(next);
                label for="access_key" { "Access key" }
                input #access_key name="access_key" autocomplete="username" autocapitalize="none" spellcheck="false"
                    required autofocus;
                label for="secret_key" { "Secret key" }
                input #secret_key name="secret_key" type="password" autocomplete="current-password" required;
                button.main type="submit" { "Sign in" }
            }
            p.hint {
                "Both keys are in the file " code { "clearml.conf" } " in the data folder of the server, which named it when it started."
            }
        }
    };
    page(&Frame { form_token: None }, "Sign in", None, &content)
}

/// Says what went wrong.
pub(super) fn failure(frame: Frame, fault: &ApiFault) -> Response {
    let status = StatusCode::from_u16(fault.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let content = html! {
        h1 { "That did not work" }
        p.problem role="alert" { (fault.msg) "." }
        p { a href="/" { "Back to the overview" } }
    };
    reply(status, page(&frame, "Problem", None, &content))
}

/// A status as text with a sign, so that it can be told without colours.
pub(super) fn badge(status: &str) -> Markup {
    let sign = match status {
        "created" => "○",
        "queued" => "◷",
        "in_progress" => "▶",
        "stopped" => "■",
        "completed" => "✓",
        "failed" => "✕",
        "published" | "publishing" => "★",
        _ => "·",
    };
    html! {
        span.badge data-status=(status) { span aria-hidden="true" { (sign) } " " (status.replace('_', " ")) }
    }
}

/// A time stamp of the API.
pub(super) fn moment(value: &Value) -> Markup {
    let Some(text) = value.as_str() else {
        return html! { "–" };
    };
    // Texts that the server wrote itself: `2026-01-31T10:20:30.123000+00:00`.
    match (text.get(..10), text.get(11..19)) {
        (Some(day), Some(time)) if text.is_ascii() => {
            html! { time datetime=(text) { (day) " " (time) " UTC" } }
        }
        _ => html! { (text) },
    }
}

/// A length of time in the two largest units.
pub(super) fn duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        ..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min {} s", seconds % 60),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// A text field of a document; a dash when it is missing.
pub(super) fn field<'a>(document: &'a Value, name: &str) -> &'a str {
    document[name]
        .as_str()
        .filter(|text| !text.is_empty())
        .unwrap_or("–")
}

/// A link to a task by its name.
pub(super) fn task_link(task: &Value) -> Markup {
    let id = task["id"].as_str().unwrap_or_default();
    let name = task["name"]
        .as_str()
        .filter(|name| !name.trim().is_empty())
        .unwrap_or(id);
    html! { a href=(super::task::path(id)) { (name) } }
}
