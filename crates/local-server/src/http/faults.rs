//! Fault switches for tests: lose, delay, damage or replace replies of chosen endpoints, a chosen number of times.
//! The switches are served at `/_faults` and `/_calls`, and only when the server was started with them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::connection::Peer;
use crate::api::ApiFault;

const REMEMBERED_CALLS: usize = 10_000;

/// What goes wrong.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Another HTTP status, with an HTML page as a proxy would send it, or an envelope when `subcode` is given.
    Status,
    /// The connection is reset and the call is not made.
    ResetBefore,
    /// The call is made, then the connection is reset instead of the reply.
    ResetAfter,
    /// The reply comes `delay_ms` late.
    Delay,
    /// Status 200 and a body that is not JSON although it says so.
    BadJson,
    /// Status 200 and an HTML page.
    Html,
    /// The call is made and the connection is reset in the middle of the reply.
    Truncate,
    /// 401/30, as for a token that has expired.
    ExpiredToken,
}

/// One switch.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Fault {
    /// `service.action`, or `*` for every endpoint.
    endpoint: String,
    /// Matching calls to let through first.
    #[serde(default)]
    skip: u64,
    /// Calls to spoil; a negative number never ends.
    #[serde(default = "one")]
    count: i64,
    kind: Kind,
    #[serde(default = "unavailable")]
    status: u16,
    subcode: Option<u32>,
    #[serde(default)]
    delay_ms: u64,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Makes the call before the reply is replaced, for the kinds that otherwise would not.
    #[serde(default)]
    apply: bool,
}

fn one() -> i64 {
    1
}

fn unavailable() -> u16 {
    503
}

impl Fault {
    /// Whether the call is made although its reply is spoilt.
    pub(crate) fn applies(&self) -> bool {
        self.apply || matches!(self.kind, Kind::ResetAfter | Kind::Truncate | Kind::Delay)
    }

    /// How long to wait before the reply.
    pub(crate) fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }

    /// What is sent instead of `reply`, which is absent when the call was not made.
    pub(crate) fn spoil(&self, peer: &Peer, reply: Option<Response>) -> Result<Response, ApiFault> {
        match self.kind {
            Kind::Delay => Ok(reply.unwrap_or_else(|| Response::new(Body::empty()))),
            Kind::ResetBefore | Kind::ResetAfter => {
                peer.cut_after(0);
                Ok(Response::new(Body::empty()))
            }
            Kind::Truncate => {
                // Enough for the head and the start of the body.
                peer.cut_after(200);
                Ok(reply.unwrap_or_else(|| Response::new(Body::empty())))
            }
            Kind::BadJson => Ok(self.page(200, "application/json", "{\"meta\": {\"result_code\": 200, ")),
            Kind::Html => Ok(self.page(200, "text/html", "<html><body>Welcome</body></html>")),
            Kind::ExpiredToken => Err(ApiFault::new(
                401,
                30,
                "Unauthorized (invalid token) (token expired)",
            )),
            Kind::Status => match self.subcode {
                Some(subcode) => Err(ApiFault::new(self.status, subcode, "Injected fault")),
                None => Ok(self.page(
                    self.status,
                    "text/html",
                    "<html><body>Injected fault</body></html>",
                )),
            },
        }
    }

    fn page(&self, status: u16, content_type: &'static str, body: &'static str) -> Response {
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        for (name, value) in &self.headers {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

#[derive(Default)]
struct State {
    faults: Vec<Fault>,
    counts: BTreeMap<String, u64>,
    recent: VecDeque<String>,
}

/// All switches, and how often each endpoint was called.
#[derive(Default)]
pub(crate) struct Faults {
    state: Mutex<State>,
}

impl Faults {
    /// Counts a call and takes the first switch that wants it.
    pub(crate) fn next(&self, endpoint: &str) -> Option<Fault> {
        let mut state = self.lock();
        *state.counts.entry(endpoint.to_owned()).or_default() += 1;
        if state.recent.len() == REMEMBERED_CALLS {
            state.recent.pop_front();
        }
        state.recent.push_back(endpoint.to_owned());
        for fault in &mut state.faults {
            if fault.count == 0 || (fault.endpoint != "*" && fault.endpoint != endpoint) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            fault.count -= i64::from(fault.count > 0);
            return Some(fault.clone());
        }
        None
    }

    /// Answers `/_faults` and `/_calls`.
    pub(crate) fn control(&self, method: &Method, path: &str, body: &[u8]) -> (u16, Value) {
        let mut state = self.lock();
        match (path, method) {
            ("/_faults", &Method::POST) => match serde_json::from_slice::<Fault>(body) {
                Ok(fault) => {
                    state.faults.push(fault);
                    (200, json!({"faults": state.faults.len()}))
                }
                Err(error) => (400, json!({"error": format!("not a fault switch: {error}")})),
            },
            ("/_faults", &Method::DELETE) => {
                state.faults.clear();
                (200, json!({"faults": 0}))
            }
            ("/_faults", _) => {
                let left = state.faults.iter().filter(|fault| fault.count != 0).count();
                (200, json!({"faults": left}))
            }
            (_, &Method::DELETE) => {
                state.counts.clear();
                state.recent.clear();
                (200, json!({}))
            }
            _ => (200, json!({"counts": state.counts, "recent": state.recent})),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
