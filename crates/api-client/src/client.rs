//! The client: calls of one session with one server, repeated as far as that is allowed.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clearml_support::secret::Secret;
use clearml_task_model::UserId;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::call::{Call, Extension, Retry};
use crate::error::{ApiError, Interruption};
use crate::feature::Feature;
use crate::options::ClientOptions;
use crate::retry::Failures;
use crate::session::{Inner, Persona};
use crate::token::SessionInfo;
use crate::transport::{Dispatch, Reply, Signature, Transport};

/// Longest wait for the result of a deferred call.
const DEFERRED_LIMIT: Duration = Duration::from_secs(600);

/// A session with an API server. Clones share it; dropping the future of a call cancels the call.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Deserialize)]
pub(crate) struct Data<T> {
    pub(crate) data: T,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("server", &self.inner.transport.server)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client that has not talked to its server yet.
    ///
    /// # Errors
    /// [`ApiError::Options`] when the address, the certificate bundle or a header text cannot be used.
    pub fn new(options: ClientOptions) -> Result<Self, ApiError> {
        let transport = Arc::new(Transport::new(&options)?);
        Ok(Self {
            inner: Arc::new(Inner::new(transport, options, None)),
        })
    }

    /// Logs in and says who we are for whom. Calling it is optional, but it is the place where a
    /// wrong address or wrong credentials show up at once: until the first login has succeeded the
    /// client gives up after [`RetryPolicy::initial_retries`](crate::RetryPolicy::initial_retries).
    ///
    /// # Errors
    /// [`ApiError::Unauthorized`] for refused credentials, [`ApiError::Protocol`] when something else
    /// than an API server answers, [`ApiError::Connect`] and others when it cannot be reached.
    pub async fn login(&self) -> Result<SessionInfo, ApiError> {
        let _guard = self.inner.login.lock().await;
        if self.inner.held().is_some() {
            return match self.inner.log_in(false, None).await {
                Ok(held) => Ok(held.session.clone()),
                Err(error) => Err(self.inner.redacted(error)),
            };
        }
        self.inner.first_login().await.map(|held| held.session.clone())
    }

    /// A session of another user, for work on that user's behalf (the owner of a task). It logs in with
    /// our credentials, which therefore need the right to do so, and into the user's company where a
    /// server has several; [`token`](Self::token) of the new client is what the work may be given.
    /// Connections are shared, outages and tokens are not.
    ///
    /// # Errors
    /// [`ApiError::Unsupported`] for servers before API 2.14 and for the open server, 400/6 when we may not
    /// speak for that user. See [`ApiError`].
    pub async fn impersonate(&self, user: &UserId, company: &str) -> Result<Self, ApiError> {
        let own = match self.session() {
            Some(session) => session,
            None => self.login().await?,
        };
        if !own.supports(Feature::OwnerToken) {
            let call = Call::new("auth.login").since(Feature::OwnerToken.since());
            let reason = "sessions of other users need API 2.14 and more than the open server";
            return Err(self.inner.unsupported(&call, &own, reason.to_owned()));
        }
        let persona = Persona {
            user: user.as_str().to_owned(),
            company: company.to_owned(),
            via: self.clone(),
        };
        let transport = Arc::clone(&self.inner.transport);
        let theirs = Self {
            inner: Arc::new(Inner::new(transport, self.inner.options.clone(), Some(persona))),
        };
        theirs.login().await?;
        Ok(theirs)
    }

    /// What the last login told, or `None` before the first one.
    #[must_use]
    pub fn session(&self) -> Option<SessionInfo> {
        self.inner.held().map(|held| held.session.clone())
    }

    /// The token in use, for child processes that are to share the session (`CLEARML_AUTH_TOKEN`). It
    /// changes with every login, so ask when the child starts.
    #[must_use]
    pub fn token(&self) -> Option<Secret> {
        self.inner.held().map(|held| held.token.clone())
    }

    /// The server's address without any password in it.
    #[must_use]
    pub fn server(&self) -> &str {
        self.inner.server()
    }

    /// Makes a call and reads the `data` of its reply.
    ///
    /// # Errors
    /// See [`ApiError`]. With [`Retry::Idempotent`] transient errors do not come out once a login has
    /// succeeded, with the exception of an internal error of the server (500), and within the
    /// [`RetryLimits`](crate::RetryLimits) of the options.
    pub async fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T, ApiError> {
        let body = Box::pin(self.inner.execute(&call)).await?;
        let reply: Data<T> = serde_json::from_slice(&body).map_err(|error| ApiError::Data {
            endpoint: call.endpoint.to_string(),
            reason: error.to_string(),
        })?;
        Ok(reply.data)
    }

    /// Makes a call and reads one field of its data.
    pub(crate) async fn field<T: DeserializeOwned>(
        &self,
        call: Call,
        name: &'static str,
    ) -> Result<T, ApiError> {
        let endpoint = call.endpoint.clone();
        let failed = |reason: String| ApiError::Data {
            endpoint: endpoint.to_string(),
            reason,
        };
        let mut data: Map<String, Value> = self.call(call).await?;
        let value = data
            .remove(name)
            .ok_or_else(|| failed(format!("it has no \"{name}\"")))?;
        serde_json::from_value(value).map_err(|error| failed(format!("{name}: {error}")))
    }

    /// Makes a call whose answer is a file.
    pub(crate) async fn file(&self, call: Call) -> Result<Bytes, ApiError> {
        Box::pin(self.inner.execute(&call.plain())).await
    }

    /// Makes a call whose reply says nothing.
    pub(crate) async fn done(&self, call: Call) -> Result<(), ApiError> {
        self.call::<crate::Nothing>(call).await.map(drop)
    }
}

impl Inner {
    /// The call with repetitions, as far as they are allowed.
    async fn execute(&self, call: &Call) -> Result<Bytes, ApiError> {
        let started = Instant::now();
        let limit = match call.retry {
            Retry::Bounded(limit) => Some(limit),
            Retry::Never | Retry::IfNotApplied | Retry::Idempotent => None,
        };
        let mut failures = Failures::default();
        let mut maybe_applied = false;
        loop {
            let left = limit.map(|limit| limit.saturating_sub(started.elapsed()));
            let error = match self.signed(call, left).await {
                Ok(body) => {
                    self.outage.succeeded(&call.endpoint, self.server());
                    return Ok(body);
                }
                Err(error) if call.retry == Retry::IfNotApplied => {
                    self.redacted(error).or_ambiguous(self.server())
                }
                Err(error) => self.redacted(error),
            };
            if maybe_applied && call.settled_by.is_some() && error.code() == call.settled_by {
                return Ok(Bytes::from_static(br#"{"data":{}}"#));
            }
            if !error.is_repeatable() || self.held().is_none() {
                return Err(error);
            }
            self.outage.failed(&call.endpoint, self.server(), &error);
            let allowed = failures.add(&error, &self.options.retry);
            maybe_applied |= !error.was_not_applied();
            let wait = self
                .options
                .retry
                .delay(failures.all, error.retry_after(), dice());
            let too_late = left.is_some_and(|left| wait >= left);
            let harmful = match call.retry {
                Retry::Never => true,
                Retry::IfNotApplied => maybe_applied,
                Retry::Idempotent | Retry::Bounded(_) => false,
            };
            if harmful || too_late || !allowed {
                return Err(error);
            }
            tracing::debug!(endpoint = %call.endpoint, failures = failures.all, ?wait, "call will be repeated: {error}");
            tokio::time::sleep(wait).await;
        }
    }

    /// One attempt, with a valid token as far as we can tell; after a 401 one more with a new token.
    async fn signed(&self, call: &Call, limit: Option<Duration>) -> Result<Bytes, ApiError> {
        if call.anonymous {
            return self
                .complete(call, call.version.as_deref(), Signature::None, limit)
                .await;
        }
        let needs_login = |source| ApiError::Login {
            endpoint: call.endpoint.to_string(),
            source: Box::new(source),
        };
        let mut held = self.valid_token().await.map_err(needs_login)?;
        self.gate(call, &held.session)?;
        let version = call.version_for(held.session.api_version);
        let bearer = Signature::Bearer(held.token.expose());
        let mut outcome = self.complete(call, version.as_deref(), bearer, limit).await;
        if let Err(ApiError::Unauthorized { .. }) = outcome {
            held = self.replace(&held).await.map_err(needs_login)?;
            let bearer = Signature::Bearer(held.token.expose());
            outcome = self.complete(call, version.as_deref(), bearer, limit).await;
        }
        match outcome {
            Err(ApiError::Status {
                code: 404,
                enveloped: true,
                message,
                ..
            }) => {
                if call.extension == Extension::Optional {
                    self.set_missing(&call.endpoint);
                }
                let asked = version.as_deref().unwrap_or("its newest version");
                let reason = format!("asked for {asked}, it says {message:?}");
                Err(self.unsupported(call, &held.session, reason))
            }
            other => other,
        }
    }

    async fn complete(
        &self,
        call: &Call,
        version: Option<&str>,
        signature: Signature<'_>,
        limit: Option<Duration>,
    ) -> Result<Bytes, ApiError> {
        let dispatch = Dispatch {
            signature,
            version,
            query: &call.query,
            headers: &[],
            limit,
            redactor: &|| self.redactor(),
        };
        match self.transport.send(call, &dispatch).await? {
            Reply { body, pending: None } => Ok(body),
            Reply {
                pending: Some(id), ..
            } => self.deferred(call, &id, &dispatch).await,
        }
    }

    /// The server has taken the call and works on it: ask until it is done.
    async fn deferred(&self, call: &Call, id: &str, dispatch: &Dispatch<'_>) -> Result<Bytes, ApiError> {
        let started = Instant::now();
        let limit = dispatch.limit.unwrap_or(DEFERRED_LIMIT).min(DEFERRED_LIMIT);
        let poll = Call::new("async.result").body(serde_json::json!({ "id": id }));
        let dispatch = Dispatch {
            version: None,
            query: &[],
            limit: None,
            ..*dispatch
        };
        let mut wait = Duration::from_millis(100);
        while started.elapsed() < limit {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(2));
            match self.transport.send(&poll, &dispatch).await {
                Ok(Reply { body, pending: None }) => return Ok(body),
                Ok(Reply { pending: Some(_), .. }) => {}
                // Asking is harmless, so a hiccup here is no reason to lose the result.
                Err(error) if error.is_repeatable() => {
                    tracing::debug!("polling for a result: {}", self.redacted(error));
                }
                Err(error) => return Err(error),
            }
        }
        Err(ApiError::Ambiguous {
            endpoint: call.endpoint.to_string(),
            server: self.server().to_owned(),
            cause: Interruption::Timeout,
            reason: format!(
                "the server accepted the call and had no result after {:.0} s",
                limit.as_secs_f64()
            ),
        })
    }
}

/// A number from 0 to 1 for the jitter of waits; not for secrets.
pub(crate) fn dice() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    let bits = RandomState::new().hash_one(0) >> 11;
    bits as f64 / (1u64 << 53) as f64
}
