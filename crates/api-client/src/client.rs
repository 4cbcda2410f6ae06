//! The client: one session with one server, shared by clones.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clearml_support::redact::Redactor;
use clearml_support::secret::Secret;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::call::{Call, Retry};
use crate::error::{ApiError, Interruption};
use crate::options::{Auth, ClientOptions};
use crate::outage::Outage;
use crate::token::{self, SessionInfo};
use crate::transport::{Reply, Signature, Transport};

/// The very first login waits less for an answer than later calls: somebody is watching.
const FIRST_LOGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for the result of a deferred call.
const DEFERRED_LIMIT: Duration = Duration::from_secs(600);
/// When a token was to be replaced early and could not, this much time passes before the next try.
const EARLY_REFRESH_PAUSE: Duration = Duration::from_secs(30);

/// A session with an API server. Clones share it; dropping the future of a call cancels the call.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    transport: Transport,
    pub(crate) options: ClientOptions,
    held: RwLock<Option<Arc<Held>>>,
    /// Held during a login, so that concurrent calls share one.
    login: tokio::sync::Mutex<()>,
    early_refresh_failed: RwLock<Option<Instant>>,
    pub(crate) no_edit_runtime: AtomicBool,
    outage: Outage,
}

/// The token in use.
struct Held {
    token: Secret,
    obtained: Instant,
    life: Option<Duration>,
    session: SessionInfo,
}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

#[derive(Deserialize)]
struct LoginReply {
    token: Option<String>,
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
        let inner = Inner {
            transport: Transport::new(&options)?,
            options,
            held: RwLock::new(None),
            login: tokio::sync::Mutex::new(()),
            early_refresh_failed: RwLock::new(None),
            no_edit_runtime: AtomicBool::new(false),
            outage: Outage::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
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
            return self
                .inner
                .log_in(false, None)
                .await
                .map(|held| held.session.clone());
        }
        self.inner.first_login().await.map(|held| held.session.clone())
    }

    /// What the last login told, or `None` before the first one.
    #[must_use]
    pub fn session(&self) -> Option<SessionInfo> {
        self.inner.held().map(|held| held.session.clone())
    }

    /// The token in use, for child processes that are to share the session (`CLEARML_AUTH_TOKEN`).
    #[must_use]
    pub fn token(&self) -> Option<Secret> {
        self.inner.held().map(|held| held.token.clone())
    }

    /// The server's address without any password in it.
    #[must_use]
    pub fn server(&self) -> &str {
        self.inner.transport.server.shown()
    }

    /// Makes a call and reads the `data` of its reply.
    ///
    /// # Errors
    /// See [`ApiError`]. With [`Retry::Idempotent`] transient errors do not come out once a login has
    /// succeeded, with the exception of an internal error of the server (500).
    pub async fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T, ApiError> {
        let body = Box::pin(self.inner.execute(&call)).await?;
        let reply: Data<T> = serde_json::from_slice(&body).map_err(|error| ApiError::Data {
            endpoint: call.endpoint.to_string(),
            reason: error.to_string(),
        })?;
        Ok(reply.data)
    }
}

impl Inner {
    fn held(&self) -> Option<Arc<Held>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn server(&self) -> &str {
        self.transport.server.shown()
    }

    /// The call with repetitions, as far as they are allowed.
    async fn execute(&self, call: &Call) -> Result<Bytes, ApiError> {
        let started = Instant::now();
        let limit = match call.retry {
            Retry::Bounded(limit) => Some(limit),
            Retry::Never | Retry::Idempotent => None,
        };
        let mut failures = 0u32;
        let mut maybe_applied = false;
        loop {
            let left = limit.map(|limit| limit.saturating_sub(started.elapsed()));
            let error = match self.signed(call, left).await {
                Ok(body) => {
                    self.outage.succeeded(&call.endpoint, self.server());
                    return Ok(body);
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
            failures = failures.saturating_add(1);
            maybe_applied |= !error.was_not_applied();
            let wait = self.options.retry.delay(failures, error.retry_after(), dice());
            let too_late = left.is_some_and(|left| wait >= left);
            if call.retry == Retry::Never || too_late {
                return Err(error);
            }
            tracing::debug!(endpoint = %call.endpoint, failures, ?wait, "call will be repeated: {error}");
            tokio::time::sleep(wait).await;
        }
    }

    /// One attempt, with a valid token as far as we can tell; after a 401 one more with a new token.
    async fn signed(&self, call: &Call, limit: Option<Duration>) -> Result<Bytes, ApiError> {
        if call.anonymous {
            return self.complete(call, Signature::None, limit).await;
        }
        let needs_login = |source| ApiError::Login {
            endpoint: call.endpoint.to_string(),
            source: Box::new(source),
        };
        let held = self.valid_token().await.map_err(needs_login)?;
        match self
            .complete(call, Signature::Bearer(held.token.expose()), limit)
            .await
        {
            Err(ApiError::Unauthorized { .. }) => {}
            other => return other,
        }
        let fresh = self.replace(&held).await.map_err(needs_login)?;
        self.complete(call, Signature::Bearer(fresh.token.expose()), limit)
            .await
    }

    async fn complete(
        &self,
        call: &Call,
        signature: Signature<'_>,
        limit: Option<Duration>,
    ) -> Result<Bytes, ApiError> {
        let reply = self.transport.send(call, signature, &[], limit).await?;
        match reply {
            Reply { body, pending: None } => Ok(body),
            Reply {
                pending: Some(id), ..
            } => self.deferred(call, &id, signature, limit).await,
        }
    }

    /// The server has taken the call and works on it: ask until it is done.
    async fn deferred(
        &self,
        call: &Call,
        id: &str,
        signature: Signature<'_>,
        limit: Option<Duration>,
    ) -> Result<Bytes, ApiError> {
        let started = Instant::now();
        let limit = limit.unwrap_or(DEFERRED_LIMIT).min(DEFERRED_LIMIT);
        let poll = Call::new("async.result").body(serde_json::json!({ "id": id }));
        let mut wait = Duration::from_millis(100);
        while started.elapsed() < limit {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(2));
            match self.transport.send(&poll, signature, &[], None).await {
                Ok(Reply { body, pending: None }) => return Ok(body),
                Ok(Reply { pending: Some(_), .. }) => {}
                // Asking is harmless, so a hiccup here is no reason to lose the result.
                Err(error) if error.is_repeatable() => tracing::debug!("polling for a result: {error}"),
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

    /// The held token, replaced when it is near its end.
    async fn valid_token(&self) -> Result<Arc<Held>, ApiError> {
        let Some(held) = self.held() else {
            let _guard = self.login.lock().await;
            return match self.held() {
                Some(held) => Ok(held),
                None => self.first_login().await,
            };
        };
        let age = held.obtained.elapsed();
        if !token::needs_refresh(held.life, age, self.options.token_threshold) {
            return Ok(held);
        }
        if token::is_expired(held.life, age) {
            return self.replace(&held).await;
        }
        // Early: whoever comes first does it, the others go on with what they have.
        let Ok(_guard) = self.login.try_lock() else {
            return Ok(held);
        };
        if let Some(newer) = self.held().filter(|newer| !Arc::ptr_eq(newer, &held)) {
            return Ok(newer);
        }
        let mut paused_since = *self
            .early_refresh_failed
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if paused_since.is_some_and(|since| since.elapsed() < EARLY_REFRESH_PAUSE) {
            return Ok(held);
        }
        let result = self.log_in(false, None).await;
        paused_since = result.is_err().then(Instant::now);
        *self
            .early_refresh_failed
            .write()
            .unwrap_or_else(PoisonError::into_inner) = paused_since;
        match result {
            Ok(newer) => Ok(newer),
            Err(error) => {
                tracing::debug!("the token could not be replaced early: {}", self.redacted(error));
                Ok(held)
            }
        }
    }

    /// Replaces a token that the server refused or that has expired. Concurrent callers share one
    /// login: who waited finds the new token.
    async fn replace(&self, refused: &Arc<Held>) -> Result<Arc<Held>, ApiError> {
        let _guard = self.login.lock().await;
        match self.held() {
            Some(newer) if !Arc::ptr_eq(&newer, refused) => Ok(newer),
            _ => self.log_in(true, None).await,
        }
    }

    async fn first_login(&self) -> Result<Arc<Held>, ApiError> {
        let mut failures = 0u32;
        loop {
            let error = match self.log_in(true, Some(FIRST_LOGIN_TIMEOUT)).await {
                Ok(held) => {
                    self.outage.succeeded("auth.login", self.server());
                    return Ok(held);
                }
                Err(error) => self.redacted(error),
            };
            failures = failures.saturating_add(1);
            if !self.options.retry.waits_for_first_login(failures, &error) {
                return Err(error);
            }
            self.outage.failed("auth.login", self.server(), &error);
            tokio::time::sleep(self.options.retry.delay(failures, error.retry_after(), dice())).await;
        }
    }

    /// One `auth.login`. `original`: with the token we were given, not with the one in use, which has
    /// expired or was refused. The caller holds the login lock.
    async fn log_in(&self, original: bool, limit: Option<Duration>) -> Result<Arc<Held>, ApiError> {
        let held = self.held();
        let signature = match (&self.options.auth, &held) {
            (
                Auth::Keys {
                    access_key,
                    secret_key,
                },
                _,
            ) => Signature::Basic {
                user: access_key.expose(),
                password: secret_key.expose(),
            },
            (Auth::Token(_), Some(held)) if !original => Signature::Bearer(held.token.expose()),
            (Auth::Token(given), _) => Signature::Bearer(given.expose()),
        };
        let query: Vec<(&str, String)> = self
            .options
            .token_expiration
            .iter()
            .map(|life| ("expiration_sec", life.as_secs().to_string()))
            .collect();
        let call = Call::new("auth.login");
        let reply = self.transport.send(&call, signature, &query, limit).await?;
        let unusable = |reason: String| ApiError::Protocol {
            endpoint: "auth.login".to_owned(),
            server: self.server().to_owned(),
            reason,
        };
        let token = serde_json::from_slice::<Data<LoginReply>>(&reply.body)
            .ok()
            .and_then(|reply| reply.data.token)
            .ok_or_else(|| unusable("the login answer has no token".to_owned()))?;
        let now = clearml_support::time::now_ms() as f64 / 1000.0;
        let decoded = token::decode(&token, now).map_err(unusable)?;
        let held = Arc::new(Held {
            token: Secret::new(token),
            obtained: Instant::now(),
            life: decoded.life,
            session: decoded.session,
        });
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&held));
        // A login may be the first contact with a newer server.
        self.no_edit_runtime.store(false, Ordering::Relaxed);
        Ok(held)
    }

    /// A server or gateway may quote our request; what it quotes must not reach a log.
    fn redacted(&self, error: ApiError) -> ApiError {
        let redactor = Redactor::new();
        match &self.options.auth {
            Auth::Keys { secret_key, .. } => redactor.add(secret_key),
            Auth::Token(token) => redactor.add(token),
        }
        if let Some(held) = self.held() {
            redactor.add(&held.token);
        }
        error.map_text(&|text| redactor.redact(&text).into_owned())
    }
}

/// A number from 0 to 1 for the jitter of waits; not for secrets.
fn dice() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    let bits = RandomState::new().hash_one(0) >> 11;
    bits as f64 / (1u64 << 53) as f64
}
