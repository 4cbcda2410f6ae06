//! One request and its reply: sending, reading within bounds, and sorting every outcome into an
//! [`ApiError`]. Nothing is repeated here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clearml_support::redact::{Redactor, mask_url};
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, LOCATION};
use serde::Deserialize;
use tokio::time::timeout;

use crate::call::{Body, Call};
use crate::error::{ApiError, Interruption};
use crate::headers::{bearer, gzip, headers, retry_after};
use crate::health::Tally;
use crate::options::{ClientOptions, Server};
use crate::tls::client_config;
use crate::words::{chain, excerpt, has_tls_cause, is_plain_answer};
use crate::{proxy, trace};

/// No reply takes longer than this, however steadily it trickles in.
const LONGEST_REPLY: Duration = Duration::from_secs(600);
/// Large bodies get this much more time per part of them.
const UPLOAD_PART: usize = 256 * 1024;

pub(crate) struct Transport {
    /// Requests so far.
    pub(crate) tally: Tally,
    pub(crate) http: reqwest::Client,
    pub(crate) server: Server,
    default_method: reqwest::Method,
    request_timeout: Duration,
    max_response_bytes: usize,
    compress_from: Option<usize>,
    /// The server has refused a compressed request.
    plain: AtomicBool,
    /// The variable that makes our requests go through a proxy, for messages.
    proxy: Option<&'static str>,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

/// What a request is signed with.
#[derive(Clone, Copy)]
pub(crate) enum Signature<'a> {
    None,
    Basic { user: &'a str, password: &'a str },
    Bearer(&'a str),
}

/// How one attempt of a call goes out.
#[derive(Clone, Copy)]
pub(crate) struct Dispatch<'a> {
    pub(crate) signature: Signature<'a>,
    /// The version to ask for.
    pub(crate) version: Option<&'a str>,
    pub(crate) query: &'a [(&'a str, String)],
    pub(crate) headers: &'a [(&'a str, &'a str)],
    /// Shortens the wait for an answer.
    pub(crate) limit: Option<Duration>,
    /// Knows the secrets, for the log.
    pub(crate) redactor: &'a (dyn Fn() -> Redactor + Sync),
}

/// A good reply.
pub(crate) struct Reply {
    pub(crate) body: Bytes,
    /// `Some(id)` when the server has taken the call and will have the result later (202).
    pub(crate) pending: Option<String>,
}

#[derive(Deserialize)]
struct Envelope {
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    id: Option<String>,
    result_code: Option<u16>,
    result_subcode: Option<u32>,
    result_msg: Option<String>,
}

impl Transport {
    pub(crate) fn new(options: &ClientOptions) -> Result<Self, ApiError> {
        let server = Server::parse(&options.api_server)?;
        let tls = client_config(
            &options.verify,
            server.https || (!server.loopback && proxy::speaks_tls()),
        )?;
        let mut builder = reqwest::Client::builder()
            .default_headers(headers(options)?)
            .user_agent(options.user_agent_name.as_str())
            .connect_timeout(options.connect_timeout)
            // Shorter than the idle limit of servers and gateways, so that a call that must not be
            // repeated does not meet a connection that the other side has just given up.
            .pool_idle_timeout(Duration::from_secs(20))
            .pool_max_idle_per_host(4)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .tls_backend_preconfigured(tls);
        if server.loopback {
            // A proxy elsewhere cannot reach this machine's loopback.
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| ApiError::Options {
            reason: format!("the HTTP client cannot be built: {}", chain(error)),
        })?;
        Ok(Self {
            http,
            default_method: options.default_method.to_http(),
            request_timeout: options.request_timeout,
            max_response_bytes: options.max_response_bytes,
            compress_from: options.compress_requests,
            plain: AtomicBool::new(false),
            proxy: proxy::variable(server.https).filter(|_| !server.loopback),
            tally: Tally::default(),
            server,
        })
    }

    /// Sends the call once.
    pub(crate) async fn send(&self, call: &Call, dispatch: &Dispatch<'_>) -> Result<Reply, ApiError> {
        let trx = clearml_support::id::hex32();
        let method = self.method(call);
        let started = Instant::now();
        trace::request(call, &trx, dispatch.redactor);
        self.tally.count(&call.endpoint);
        let mut status = None;
        let mut outcome = self.exchange(call, dispatch, &method, &trx, &mut status).await;
        if status == Some(415) && !self.plain.swap(true, Ordering::Relaxed) && self.compresses(call) {
            tracing::debug!("the server takes no compressed requests; sending plain ones from now on");
            outcome = self.exchange(call, dispatch, &method, &trx, &mut status).await;
        }
        tracing::debug!(
            %method,
            endpoint = %call.endpoint,
            version = dispatch.version,
            status,
            ms = started.elapsed().as_millis() as u64,
            trx,
            "API call"
        );
        outcome
    }

    /// One request and its reply; `seen` becomes the reply's HTTP status.
    async fn exchange(
        &self,
        call: &Call,
        dispatch: &Dispatch<'_>,
        method: &reqwest::Method,
        trx: &str,
        seen: &mut Option<u16>,
    ) -> Result<Reply, ApiError> {
        let failed = |cause: Interruption, reason: String| ApiError::Ambiguous {
            endpoint: call.endpoint.to_string(),
            server: self.server.shown().to_owned(),
            cause,
            reason,
        };
        let patience = dispatch
            .limit
            .map_or(self.request_timeout, |limit| limit.min(self.request_timeout));
        let upload = Duration::from_secs((call.body.len() / UPLOAD_PART) as u64);
        let request = self.request(call, dispatch, method.clone(), trx)?;
        let response = match timeout(patience + upload, request.send()).await {
            Err(_) => {
                let reason = format!("no answer within {:.1} s", (patience + upload).as_secs_f64());
                return Err(failed(Interruption::Timeout, reason));
            }
            Ok(Err(error)) => return Err(self.send_error(call, error)),
            Ok(Ok(response)) => response,
        };
        let status = response.status().as_u16();
        *seen = Some(status);
        let retry_after = retry_after(response.headers());
        let location = response
            .headers()
            .get(LOCATION)
            .and_then(|value| value.to_str().ok())
            .map(mask_url);
        let body = self.read(call, response, patience).await?;
        trace::reply(call, trx, &body, dispatch.redactor);
        if let (300..=399, Some(location)) = (status, location) {
            return Err(self.protocol(call, format!("it redirects to {location}")));
        }
        self.judge(call, status, retry_after, body)
    }

    /// Sends a request that is none of the API once, and gives the body of a good answer. `size`: of what
    /// is sent.
    pub(crate) async fn send_foreign(
        &self,
        call: &Call,
        size: usize,
        request: reqwest::RequestBuilder,
    ) -> Result<Bytes, ApiError> {
        let patience = self.request_timeout + Duration::from_secs((size / UPLOAD_PART) as u64);
        let response = match timeout(patience, request.send()).await {
            Err(_) => {
                return Err(ApiError::Ambiguous {
                    endpoint: call.endpoint.to_string(),
                    server: self.server.shown().to_owned(),
                    cause: Interruption::Timeout,
                    reason: format!("no answer within {:.1} s", patience.as_secs_f64()),
                });
            }
            Ok(Err(error)) => return Err(self.send_error(call, error)),
            Ok(Ok(response)) => response,
        };
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let body = self.read(call, response, self.request_timeout).await?;
        tracing::debug!(endpoint = %call.endpoint, status, bytes = body.len(), "file server request");
        if (200..300).contains(&status) {
            return Ok(body);
        }
        Err(self.status(call, status, status, 0, excerpt(&body), retry_after, false))
    }

    fn method(&self, call: &Call) -> reqwest::Method {
        match (call.method, &call.body) {
            (Some(method), _) => method.to_http(),
            (None, Body::Lines(_)) => reqwest::Method::POST,
            (None, _) => self.default_method.clone(),
        }
    }

    fn compresses(&self, call: &Call) -> bool {
        self.compress_from.is_some_and(|size| call.body.len() >= size)
    }

    fn request(
        &self,
        call: &Call,
        dispatch: &Dispatch<'_>,
        method: reqwest::Method,
        trx: &str,
    ) -> Result<reqwest::RequestBuilder, ApiError> {
        let mut request = self
            .http
            .request(method, self.server.url(&call.endpoint, dispatch.version))
            .header("X-Clearml-Trx", trx);
        if !dispatch.query.is_empty() {
            request = request.query(dispatch.query);
        }
        request = match dispatch.signature {
            Signature::None => request,
            Signature::Basic { user, password } => request.basic_auth(user, Some(password)),
            Signature::Bearer(token) => match bearer(token) {
                Some(value) => request.header(AUTHORIZATION, value),
                None => request,
            },
        };
        for (name, value) in dispatch.headers {
            request = request.header(*name, *value);
        }
        if call.deferred {
            request = request
                .header("X-ClearML-Async", "1")
                .header("X-Trains-Async", "1");
        }
        let (kind, bytes) = match &call.body {
            Body::Empty => return Ok(request),
            Body::Json(bytes) => ("application/json", bytes),
            Body::Lines(bytes) => ("application/json-lines", bytes),
        };
        request = request.header(CONTENT_TYPE, kind);
        if self.compresses(call) && !self.plain.load(Ordering::Relaxed) {
            let body = gzip(bytes).map_err(|error| ApiError::Options {
                reason: format!("{}: the request cannot be compressed: {error}", call.endpoint),
            })?;
            return Ok(request.header(CONTENT_ENCODING, "gzip").body(body));
        }
        Ok(request.body(bytes.clone()))
    }

    async fn read(
        &self,
        call: &Call,
        mut response: reqwest::Response,
        patience: Duration,
    ) -> Result<Bytes, ApiError> {
        let started = Instant::now();
        let failed = |cause: Interruption, reason: String| ApiError::Ambiguous {
            endpoint: call.endpoint.to_string(),
            server: self.server.shown().to_owned(),
            cause,
            reason,
        };
        let mut body = Vec::new();
        loop {
            let part = match timeout(patience, response.chunk()).await {
                Err(_) => {
                    return Err(failed(
                        Interruption::Timeout,
                        "the answer stopped in the middle".to_owned(),
                    ));
                }
                Ok(Err(error)) => return Err(failed(Interruption::Truncated, chain(error))),
                Ok(Ok(None)) => return Ok(Bytes::from(body)),
                Ok(Ok(Some(part))) => part,
            };
            if body.len() + part.len() > self.max_response_bytes {
                let limit = self.max_response_bytes;
                return Err(ApiError::TooLarge {
                    endpoint: call.endpoint.to_string(),
                    limit,
                });
            }
            if started.elapsed() > LONGEST_REPLY {
                return Err(failed(
                    Interruption::Timeout,
                    "the answer does not come to an end".to_owned(),
                ));
            }
            body.extend_from_slice(&part);
        }
    }

    fn judge(
        &self,
        call: &Call,
        http: u16,
        retry_after: Option<Duration>,
        body: Bytes,
    ) -> Result<Reply, ApiError> {
        if call.plain && (200..300).contains(&http) {
            return Ok(Reply { body, pending: None });
        }
        let meta = match serde_json::from_slice::<Envelope>(&body) {
            Ok(Envelope { meta: Some(meta) }) => meta,
            Ok(Envelope { meta: None }) if http < 300 => {
                return Err(self.protocol(call, "the JSON has no \"meta\"".to_owned()));
            }
            Err(error) if http < 300 && error.is_eof() && !body.is_empty() => {
                return Err(ApiError::Ambiguous {
                    endpoint: call.endpoint.to_string(),
                    server: self.server.shown().to_owned(),
                    cause: Interruption::Truncated,
                    reason: format!("the JSON ends after {} bytes", body.len()),
                });
            }
            Err(_) if http < 300 => {
                return Err(self.protocol(call, format!("HTTP {http} with {}", excerpt(&body))));
            }
            _ => return Err(self.status(call, http, http, 0, excerpt(&body), retry_after, false)),
        };
        let code = meta.result_code.unwrap_or(http);
        if code == 202 {
            return match meta.id {
                Some(id) => Ok(Reply {
                    body,
                    pending: Some(id),
                }),
                None => Err(self.protocol(call, "a deferred answer without id".to_owned())),
            };
        }
        if (200..300).contains(&code) && http < 300 {
            return Ok(Reply { body, pending: None });
        }
        let message = meta.result_msg.unwrap_or_else(|| "no message".to_owned());
        let subcode = meta.result_subcode.unwrap_or(0);
        Err(self.status(call, http.max(code), code, subcode, message, retry_after, true))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of the error, in their order"
    )]
    fn status(
        &self,
        call: &Call,
        http: u16,
        code: u16,
        subcode: u32,
        message: String,
        retry_after: Option<Duration>,
        enveloped: bool,
    ) -> ApiError {
        let endpoint = call.endpoint.to_string();
        if code == 401 {
            return ApiError::Unauthorized {
                endpoint,
                server: self.server.shown().to_owned(),
                subcode,
                message,
                enveloped,
            };
        }
        ApiError::Status {
            endpoint,
            http,
            code,
            subcode,
            message,
            retry_after,
            enveloped,
        }
    }

    fn protocol(&self, call: &Call, reason: String) -> ApiError {
        ApiError::Protocol {
            endpoint: call.endpoint.to_string(),
            server: self.server.shown().to_owned(),
            reason,
        }
    }

    fn send_error(&self, call: &Call, error: reqwest::Error) -> ApiError {
        let endpoint = call.endpoint.to_string();
        let server = self.server.shown().to_owned();
        if error.is_builder() {
            return ApiError::Options {
                reason: format!("{endpoint}: the request cannot be built: {}", chain(error)),
            };
        }
        let timed_out = error.is_timeout();
        match (error.is_connect(), has_tls_cause(&error)) {
            (true, true) => ApiError::Tls {
                endpoint,
                server,
                plain: is_plain_answer(&error),
                reason: chain(error),
            },
            (true, false) => ApiError::Connect {
                endpoint,
                server,
                reason: match self.proxy {
                    Some(variable) => format!("{} (through the proxy in {variable})", chain(error)),
                    None => chain(error),
                },
            },
            (false, _) => {
                let cause = if timed_out {
                    Interruption::Timeout
                } else {
                    Interruption::Disconnected
                };
                ApiError::Ambiguous {
                    endpoint,
                    server,
                    cause,
                    reason: chain(error),
                }
            }
        }
    }
}
