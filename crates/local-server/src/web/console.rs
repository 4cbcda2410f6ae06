//! What a task prints: the newest part on the page, what is new since, and all of it as a file.
//!
//! New lines are asked for by their number of arrival and not by their time, because lines of several sources can
//! arrive late.

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::stream;
use maud::{Markup, html};
use rusqlite::{Transaction, params};
use serde_json::{Value, json};

use super::{Form, Web, text};
use crate::api::{Access, ApiFault};
use crate::events::log;
use crate::http::envelope::json_response;
use crate::store;

/// Events on a freshly loaded page, and in one answer to the script.
const SHOWN: usize = 1000;
/// Largest text in either; the newest part counts.
const MAX_TEXT: usize = 1_000_000;

/// A piece of a console.
#[derive(Debug, Default)]
pub(super) struct Printed {
    text: String,
    /// Number of arrival of the newest event in it.
    last: i64,
    /// There is more: before it on the page, after it for the script.
    more: bool,
}

/// The newest part.
pub(super) async fn newest(web: &Web, task: &str) -> Result<Printed, ApiFault> {
    let task = task.to_owned();
    let found = web.server.store.run(Access::Read, move |tx| {
        let page = log::Page {
            from: None,
            earlier: true,
            size: SHOWN,
        };
        let mut events = log::page(tx, &task, page, None)?;
        events.reverse();
        let sql = "SELECT coalesce(max(seq), 0) FROM events_log WHERE task = ?1";
        let last: i64 = tx.prepare_cached(sql)?.query_row([&task], |row| row.get(0))?;
        let total = log::count(tx, &task, None)?;
        Ok(json!({"events": events, "last": last, "total": total}))
    });
    let found = found.await?;
    let events = found["events"].as_array().map(Vec::as_slice).unwrap_or_default();
    let (text, cut) = joined(events);
    let total = found["total"].as_u64().unwrap_or_default();
    Ok(Printed {
        text,
        last: found["last"].as_i64().unwrap_or_default(),
        more: cut || total > events.len() as u64,
    })
}

/// The console of a page. The script adds to it.
pub(super) fn part(path: &str, printed: &Printed) -> Markup {
    html! {
        @if printed.more {
            p.hint { "Earlier lines are left out here." }
        }
        pre #console role="log" aria-labelledby="console-title" tabindex="0" data-url={ (path) "/console" }
            data-after=(printed.last) { (printed.text) }
        p.hint { a href={ (path) "/console.txt" } { "The whole console as text" } }
    }
}

/// What has arrived since the event with the number `after`.
pub(super) async fn news(web: &Web, task: &str, query: &Form) -> Result<Response, ApiFault> {
    let after: i64 = text(query, "after").parse().unwrap_or(0);
    let task = task.to_owned();
    let found = web.server.store.run(Access::Read, move |tx| {
        store::tasks::require(tx, &task)?;
        arrived(tx, &task, after)
    });
    let mut found = found.await?;
    let (text, _) = joined(found["events"].as_array().map(Vec::as_slice).unwrap_or_default());
    found["text"] = json!(text);
    if let Some(reply) = found.as_object_mut() {
        reply.shift_remove("events");
    }
    Ok(json_response(200, &found))
}

fn arrived(tx: &Transaction<'_>, task: &str, after: i64) -> Result<Value, ApiFault> {
    let sql = "SELECT seq, doc FROM events_log WHERE task = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
    let mut statement = tx.prepare_cached(sql)?;
    let mut rows = statement.query(params![task, after, i64::try_from(SHOWN).unwrap_or(i64::MAX)])?;
    let (mut events, mut last, mut size) = (Vec::new(), after, 0);
    while let Some(row) = rows.next()? {
        let document: String = row.get(1)?;
        size += document.len();
        last = row.get(0)?;
        events.push(serde_json::from_str::<Value>(&document)?);
        if size > MAX_TEXT {
            break;
        }
    }
    let more = events.len() == SHOWN || size > MAX_TEXT;
    // A reset deletes the console; what the page shows is then of an earlier run.
    let cleared = after > 0 && events.is_empty() && log::count(tx, task, None)? == 0;
    Ok(json!({"events": events, "after": last, "more": more, "cleared": cleared}))
}

/// All of it, page by page, so that its size does not matter.
pub(super) async fn whole(web: &Web, task: &str) -> Result<Response, ApiFault> {
    let server = std::sync::Arc::clone(&web.server);
    let task = task.to_owned();
    let wanted = task.clone();
    server
        .store
        .run(Access::Read, move |tx| store::tasks::require(tx, &wanted))
        .await?;
    let pages = stream::try_unfold(Some(None), move |from: Option<Option<i64>>| {
        let (server, task) = (std::sync::Arc::clone(&server), task.clone());
        async move {
            let Some(from) = from else { return Ok(None) };
            let page = log::Page {
                from,
                earlier: false,
                size: SHOWN,
            };
            let read = server.store.run(Access::Read, move |tx| {
                Ok(Value::Array(log::page(tx, &task, page, None)?))
            });
            let events = read.await.map_err(|fault| std::io::Error::other(fault.msg))?;
            let events = events.as_array().map(Vec::as_slice).unwrap_or_default();
            let Some(last) = events.last() else {
                return Ok(None);
            };
            let text: String = events.iter().map(line).collect();
            Ok::<_, std::io::Error>(Some((Bytes::from(text), last["timestamp"].as_i64().map(Some))))
        }
    });
    let mut response = Body::from_stream(pages).into_response();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    Ok(response)
}

/// The text of events, and whether its beginning had to go.
fn joined(events: &[Value]) -> (String, bool) {
    let text: String = events.iter().map(line).collect();
    if text.len() <= MAX_TEXT {
        return (text, false);
    }
    let start = (text.len() - MAX_TEXT..text.len())
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or_default();
    (text[start..].to_owned(), true)
}

fn line(event: &Value) -> String {
    let mut shown = readable(event["msg"].as_str().unwrap_or_default());
    if !shown.ends_with('\n') {
        shown.push('\n');
    }
    shown
}

/// Text as a terminal would leave it: without colours and other control sequences, and of a line that was overwritten
/// again and again the last form.
fn readable(printed: &str) -> String {
    let mut shown = String::with_capacity(printed.len());
    let mut line_start = 0;
    let mut characters = printed.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => skip_sequence(&mut characters),
            '\r' => {
                // At the end of a line it overwrites nothing.
                if characters.peek().is_some_and(|next| !matches!(next, '\n' | '\r')) {
                    shown.truncate(line_start);
                }
            }
            '\n' => {
                shown.push('\n');
                line_start = shown.len();
            }
            '\t' => shown.push('\t'),
            other if other.is_control() => {}
            other => shown.push(other),
        }
    }
    shown
}

/// Skips what follows an escape character: `[` with parameters and a final letter, `]` up to its end, or one letter.
fn skip_sequence(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match characters.next() {
        Some('[') => while characters.next().is_some_and(|next| !('@'..='~').contains(&next)) {},
        Some(']') => {
            while characters
                .next()
                .is_some_and(|next| !matches!(next, '\u{7}' | '\u{1b}'))
            {}
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_output_becomes_readable() {
        for (printed, shown) in [
            ("plain\ttext\n", "plain\ttext\n"),
            ("\u{1b}[1;31mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}after", "after"),
            ("10%\r50%\r100%\nnext", "100%\nnext"),
            ("windows\r\nline\r\n", "windows\nline\n"),
            ("a\u{0}\u{8}b", "ab"),
            ("cut \u{1b}[", "cut "),
        ] {
            assert_eq!(readable(printed), shown, "{printed:?}");
        }
    }
}
