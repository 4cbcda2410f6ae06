//! One request from start to end: who is asked, what is asked, whether a fault is due, the call, the reply.

use std::sync::Arc;
use std::time::Duration;

use axum::body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::connection::Peer;
use super::envelope::{self, Meta};
use super::faults::Fault;
use super::path::{self, Version};
use super::request::{self, RequestData};
use crate::api::{Access, ApiFault, AuthNeed, Call, Endpoint};
use crate::auth::Credential;
use crate::files::{self, FilesState};
use crate::server::{API_VERSION, Shared};

/// How long a request body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(300);
/// Bodies from this size on are looked at only when their sender is known.
const LARGE_BODY: usize = 1024 * 1024;

/// What the API port needs: the server, and the files that it also serves under `/files`.
#[derive(Clone)]
pub(crate) struct ApiState {
    pub(crate) server: Arc<Shared>,
    pub(crate) files: Arc<FilesState>,
}

/// Answers every request on the API port.
pub(crate) async fn api(
    State(state): State<ApiState>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Response {
    if let Some(refusal) = refuse_host(&state.server, request.headers()) {
        return refusal;
    }
    if let Some(below) = below_files(request.uri().path()) {
        return files::handle(state.files, below, request).await;
    }
    if request.method() == Method::OPTIONS {
        return StatusCode::OK.into_response();
    }
    let (parts, body) = request.into_parts();
    if parts.headers.contains_key(header::CONTENT_ENCODING) {
        return (
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "compressed requests are not supported\n",
        )
            .into_response();
    }
    let reading = body::to_bytes(body, state.server.options.max_body_bytes);
    let body = match tokio::time::timeout(BODY_TIMEOUT, reading).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => return unreadable_body(&parts, 413, &error.to_string()),
        Err(_) => return unreadable_body(&parts, 408, "it did not arrive in time"),
    };
    if state.server.options.faults && matches!(parts.uri.path(), "/_faults" | "/_calls") {
        let (code, reply) = state
            .server
            .faults
            .control(&parts.method, parts.uri.path(), &body);
        return envelope::json_response(code, &reply);
    }
    answer(&state.server, peer, &parts, &body).await
}

/// Answers every request on the file port.
pub(crate) async fn files_port(State(files): State<Arc<FilesState>>, request: Request) -> Response {
    if let Some(refusal) = refuse_host(&files.server, request.headers()) {
        return refusal;
    }
    let path = request.uri().path().to_owned();
    files::handle(files, path, request).await
}

fn below_files(path: &str) -> Option<String> {
    let below = path.strip_prefix("/files")?;
    match below.bytes().next() {
        None => Some("/".to_owned()),
        Some(b'/') => Some(below.to_owned()),
        Some(_) => None,
    }
}

/// Refuses a request whose `Host` header does not name this server.
pub(crate) fn refuse_host(server: &Shared, headers: &HeaderMap) -> Option<Response> {
    let host = text_header(headers, "host").unwrap_or_default();
    if server.host_rule.allows(host) {
        return None;
    }
    let message =
        format!("the Host header '{host}' does not name this server; use localhost or its address\n");
    Some((StatusCode::FORBIDDEN, message).into_response())
}

fn unreadable_body(parts: &Parts, code: u16, why: &str) -> Response {
    let meta = meta_of(parts, String::new(), API_VERSION);
    let fault = ApiFault::new(
        code,
        0,
        format!("The request body cannot be read or is too large: {why}"),
    );
    envelope::reply(&meta, Err(fault))
}

async fn answer(server: &Arc<Shared>, peer: Peer, parts: &Parts, body: &[u8]) -> Response {
    let path = parts.uri.path();
    let Some(target) = path::parse(path) else {
        let meta = meta_of(parts, String::new(), Version::new(1, 0));
        return envelope::reply(
            &meta,
            Err(ApiFault::bad_request(format!("Invalid request path {path}"))),
        );
    };
    let version = target.version.unwrap_or(API_VERSION);
    let mut meta = meta_of(parts, target.endpoint.to_owned(), version);
    let Some(endpoint) = server.registry.find(target.endpoint, version) else {
        let message = format!(
            "Unable to find endpoint for name {} and version {version}",
            target.endpoint
        );
        return envelope::reply(&meta, Err(ApiFault::new(404, 0, message)));
    };
    meta.actual = Some(endpoint.min_version);
    let fault = if server.options.faults {
        server.faults.next(endpoint.name)
    } else {
        None
    };
    let Some(fault) = fault else {
        let result = perform(server, &peer, parts, body, endpoint, version).await;
        return finish(&meta, endpoint, result);
    };
    spoilt(server, &peer, parts, body, endpoint, &meta, &fault).await
}

/// The same with a fault in the way.
async fn spoilt(
    server: &Arc<Shared>,
    peer: &Peer,
    parts: &Parts,
    body: &[u8],
    endpoint: Endpoint,
    meta: &Meta,
    fault: &Fault,
) -> Response {
    let reply = if fault.applies() {
        let result = perform(server, peer, parts, body, endpoint, meta.requested).await;
        Some(finish(meta, endpoint, result))
    } else {
        None
    };
    tokio::time::sleep(fault.delay()).await;
    fault
        .spoil(peer, reply)
        .unwrap_or_else(|fault| envelope::reply(meta, Err(fault)))
}

async fn perform(
    server: &Arc<Shared>,
    peer: &Peer,
    parts: &Parts,
    body: &[u8],
    endpoint: Endpoint,
    version: Version,
) -> Result<Value, ApiFault> {
    if body.len() > LARGE_BODY && endpoint.auth == AuthNeed::Required {
        refuse_stranger(server, parts).await?;
    }
    let content_type = text_header(&parts.headers, "content-type");
    let RequestData { data, lines } = request::parse(content_type, body, parts.uri.query())?;
    let credential = match endpoint.auth {
        AuthNeed::None => None,
        AuthNeed::Optional => Credential::from_headers(&parts.headers).unwrap_or_default(),
        AuthNeed::Required => Credential::from_headers(&parts.headers)?,
    };
    let impersonation = crate::auth::Impersonation::from_headers(&parts.headers)?;
    let worker_header =
        either_header(&parts.headers, "x-clearml-worker", "x-trains-worker").map(str::to_owned);
    let shared = Arc::clone(server);
    let remote_ip = Some(peer.ip);
    server
        .store
        .run(endpoint.access, move |tx| {
            let now = shared.options.clock.now_ms();
            let user = crate::auth::identify(
                &shared,
                tx,
                credential.as_ref(),
                impersonation.as_ref(),
                endpoint.auth,
                now,
            )?;
            let call = Call {
                endpoint: endpoint.name,
                data,
                lines,
                version,
                user,
                worker_header,
                now,
                remote_ip,
                server: shared,
            };
            (endpoint.handler)(&call, tx)
        })
        .await
}

/// Reading a large body takes room and time: not for everybody who can reach the port.
async fn refuse_stranger(server: &Arc<Shared>, parts: &Parts) -> Result<(), ApiFault> {
    let credential = Credential::from_headers(&parts.headers)?;
    let shared = Arc::clone(server);
    let known = server.store.run(Access::Read, move |tx| {
        let now = shared.options.clock.now_ms();
        crate::auth::identify(&shared, tx, credential.as_ref(), None, AuthNeed::Required, now)?;
        Ok(Value::Null)
    });
    known.await.map(drop)
}

fn finish(meta: &Meta, endpoint: Endpoint, result: Result<Value, ApiFault>) -> Response {
    let cookie = match (endpoint.name, &result) {
        ("auth.login", Ok(data)) => data
            .get("token")
            .and_then(Value::as_str)
            .map(crate::auth::login_cookie),
        ("auth.logout" | "login.logout", Ok(_)) => Some(crate::auth::logout_cookie()),
        _ => None,
    };
    if let Ok(Value::String(text)) = result {
        return envelope::text_file(text);
    }
    let mut response = envelope::reply(meta, result);
    if let Some(cookie) = cookie.and_then(|text| HeaderValue::from_str(&text).ok()) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

fn meta_of(parts: &Parts, endpoint: String, requested: Version) -> Meta {
    let trx = either_header(&parts.headers, "x-clearml-trx", "x-trains-trx").map(str::to_owned);
    Meta {
        endpoint,
        requested,
        actual: None,
        trx,
    }
}

pub(crate) fn text_header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn either_header<'a>(headers: &'a HeaderMap, name: &str, old_name: &str) -> Option<&'a str> {
    text_header(headers, name).or_else(|| text_header(headers, old_name))
}
