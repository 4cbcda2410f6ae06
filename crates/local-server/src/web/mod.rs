//! The small web page: what waits, what runs, who works, and the few things one wants to do about it by hand.
//!
//! HTML comes from here, ready to read; no build step, nothing from elsewhere. One script file keeps what is shown
//! fresh, and without it everything still works after a reload. Data come from the API's own operations, called in
//! this process, so that the page can do nothing that a client could not.
//!
//! Everything that a task says about itself is hostile text. It reaches the browser through `maud`, which escapes it,
//! or as JSON that the script inserts as text. The content security policy forbids whatever would get past that.
//! Who may look is decided in [`visitors`].

mod actions;
mod chart;
mod console;
mod layout;
mod overview;
mod produced;
mod task;
mod task_list;
mod visitors;

use std::sync::Arc;

use axum::body::{self, Body};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use maud::Markup;
use serde_json::{Map, Value};

use crate::addresses::Addresses;
use crate::api::{ApiFault, Call};
use crate::files::FilesState;
use crate::http::dispatch::refuse_host;
use crate::server::{API_VERSION, Shared};
use visitors::{Visitor, Visitors};

/// Largest form, in bytes.
const MAX_FORM: usize = 64 * 1024;
/// How long a form may take to arrive.
const FORM_LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const ICON: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 16 16\">\
    <rect width=\"16\" height=\"16\" rx=\"4\" fill=\"#1f5fa8\"/><path d=\"M6 4l6 4-6 4z\" fill=\"#fff\"/></svg>";

const PROTECTION: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // Not `no-referrer`: with it, browsers hide the origin of forms, which is checked.
    (header::REFERRER_POLICY, "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// What the page needs: the server, and who is signed in.
pub(crate) struct Web {
    server: Arc<Shared>,
    files: Arc<FilesState>,
    addresses: Addresses,
    visitors: Visitors,
}

/// What a request that changes something brought along.
type Form = Map<String, Value>;

impl Web {
    /// `secure` says that the port speaks https.
    pub(crate) fn new(files: Arc<FilesState>, addresses: Addresses, secure: bool) -> Self {
        Self {
            server: Arc::clone(&files.server),
            files,
            addresses,
            visitors: Visitors::new(secure),
        }
    }

    /// Calls an operation of the API as the server's user.
    async fn call(&self, name: &str, data: Value) -> Result<Value, ApiFault> {
        let missing = || ApiFault::internal(format!("this server has no operation {name}"));
        let endpoint = self.server.registry.find(name, API_VERSION).ok_or_else(missing)?;
        let Value::Object(data) = data else {
            return Err(ApiFault::internal(format!("{name} was called without an object")));
        };
        let call = Call {
            endpoint: endpoint.name,
            data,
            lines: None,
            version: API_VERSION,
            user: self.server.identity.clone(),
            worker_header: None,
            now: self.server.options.clock.now_ms(),
            remote_ip: None,
            server: Arc::clone(&self.server),
        };
        self.server
            .store
            .run(endpoint.access, move |tx| (endpoint.handler)(&call, tx))
            .await
    }
}

/// Answers every request on the page's port.
pub(crate) async fn handle(State(web): State<Arc<Web>>, request: Request) -> Response {
    let mut response = match refuse_host(&web.server, request.headers()) {
        Some(refusal) => refusal,
        None => answer(&web, request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in PROTECTION {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn answer(web: &Web, request: Request) -> Response {
    match request.uri().path() {
        "/page.css" => return asset("text/css; charset=utf-8", STYLE),
        "/icon.svg" => return asset("image/svg+xml", ICON),
        "/page.js" => return asset("text/javascript; charset=utf-8", SCRIPT),
        _ => {}
    }
    let visitor = web.visitors.recognise(request.headers());
    let result = if request.method() == Method::POST {
        post(web, &visitor, request).await
    } else if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return (
            StatusCode::METHOD_NOT_ALLOWED,
            "this page is read with GET and changed with POST\n",
        )
            .into_response();
    } else if visitor.signed_in {
        get(web, &visitor, &request.into_parts().0).await
    } else {
        Ok(sign_in_form(
            web,
            &visitor,
            request.uri().path(),
            StatusCode::UNAUTHORIZED,
            None,
        ))
    };
    result.unwrap_or_else(|fault| layout::failure(web.page_of(&visitor), &fault))
}

async fn get(web: &Web, visitor: &Visitor, request: &Parts) -> Result<Response, ApiFault> {
    let query = read_pairs(request.uri.query().unwrap_or_default().as_bytes());
    let segments: Vec<&str> = request.uri.path().trim_matches('/').split('/').collect();
    match segments.as_slice() {
        [""] => overview::page(web, visitor).await,
        ["tasks"] => task_list::page(web, visitor, &query).await,
        ["tasks", id] => task::page(web, visitor, id).await,
        ["tasks", id, "live"] => task::live(web, visitor, id).await,
        ["tasks", id, "console"] => console::news(web, id, &query).await,
        ["tasks", id, "console.txt"] => console::whole(web, id).await,
        ["tasks", id, "artifact"] => produced::artifact(web, id, &query, request).await,
        ["tasks", id, "model"] => produced::model(web, id, &query, request).await,
        ["tasks", id, "sample"] => produced::sample(web, id, &query, request).await,
        ["tasks", id, "plot"] => produced::plot(web, id, &query).await,
        // The addresses that the official SDK prints.
        ["projects", _, "experiments" | "tasks", id, ..] => Ok(redirect(&task::path(id))),
        _ => Err(ApiFault::new(404, 0, "There is no such page")),
    }
}

async fn post(web: &Web, visitor: &Visitor, request: Request) -> Result<Response, ApiFault> {
    let (parts, body) = request.into_parts();
    let outdated =
        "The form is out of date or comes from another site. Go back, reload the page and try again";
    if !visitors::comes_from_here(&parts.headers) {
        return Err(ApiFault::new(403, 0, outdated));
    }
    let body = tokio::time::timeout(FORM_LIMIT, body::to_bytes(body, MAX_FORM)).await;
    let body = body
        .map_err(|_| ApiFault::new(408, 0, "The form did not arrive in time"))?
        .map_err(|error| ApiFault::new(413, 0, format!("The form cannot be read: {error}")))?;
    let form = read_pairs(&body);
    if !web.visitors.accepts(visitor, text(&form, "form_token")) {
        return Err(ApiFault::new(403, 0, outdated));
    }
    let path = parts.uri.path();
    if path == "/sign-in" {
        return sign_in(web, visitor, &form).await;
    }
    if !visitor.signed_in {
        return Ok(sign_in_form(web, visitor, "/", StatusCode::UNAUTHORIZED, None));
    }
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match segments.as_slice() {
        ["sign-out"] => {
            web.visitors.sign_out(visitor);
            let mut response = redirect("/");
            let cookie = web.visitors.no_cookie();
            response.headers_mut().insert(header::SET_COOKIE, cookie);
            Ok(response)
        }
        ["tasks", id, action] => actions::perform(web, id, action, &form).await,
        _ => Err(ApiFault::new(404, 0, "There is no such page")),
    }
}

async fn sign_in(web: &Web, visitor: &Visitor, form: &Form) -> Result<Response, ApiFault> {
    let next = local_path(text(form, "next"));
    let (access_key, secret_key) = (text(form, "access_key").trim(), text(form, "secret_key").trim());
    if !web.knows(access_key, secret_key).await? {
        let problem = "These are not the keys of this server.";
        return Ok(sign_in_form(
            web,
            visitor,
            next,
            StatusCode::FORBIDDEN,
            Some(problem),
        ));
    }
    let mut response = redirect(next);
    let cookie = web.visitors.sign_in(visitor);
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

fn sign_in_form(
    web: &Web,
    visitor: &Visitor,
    next: &str,
    status: StatusCode,
    problem: Option<&str>,
) -> Response {
    let markup = layout::sign_in(&web.visitors.form_token(visitor), next, problem);
    let mut response = html(status, markup);
    if visitor.is_new
        && let Some(cookie) = web.visitors.cookie(&visitor.id)
    {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// A path of this page, whatever the form says.
fn local_path(wanted: &str) -> &str {
    let mut bytes = wanted.bytes();
    let is_local = bytes.next() == Some(b'/')
        && !matches!(bytes.next(), Some(b'/' | b'\\'))
        && wanted.bytes().all(|byte| byte.is_ascii_graphic());
    if is_local { wanted } else { "/" }
}

fn html(status: StatusCode, markup: Markup) -> Response {
    let content_type = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
    (status, content_type, markup.into_string()).into_response()
}

fn asset(content_type: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}

/// Sends the browser to another page, also after a form.
fn redirect(path: &str) -> Response {
    let Ok(location) = HeaderValue::from_str(path) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// Names and texts of a form; the first of several values counts.
fn read_pairs(encoded: &[u8]) -> Form {
    let mut form = Form::new();
    for (name, value) in url::form_urlencoded::parse(encoded) {
        form.entry(name).or_insert_with(|| value.into_owned().into());
    }
    form
}

fn text<'a>(form: &'a Form, name: &str) -> &'a str {
    form.get(name).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_this_page_are_followed() {
        assert_eq!(local_path("/tasks/abc?x=1"), "/tasks/abc?x=1");
        for bad in [
            "",
            "tasks",
            "//evil.example/",
            "/\\evil.example",
            "https://evil.example",
            "/a\r\nb",
            "/é",
        ] {
            assert_eq!(local_path(bad), "/", "{bad:?}");
        }
    }
}
