//! The session behind a client: the token in use, its replacement, and whom it speaks for.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clearml_support::redact::Redactor;
use clearml_support::secret::Secret;
use serde::Deserialize;

use crate::call::{Call, Extension};
use crate::client::{Client, Data, dice};
use crate::error::ApiError;
use crate::options::{Auth, ClientOptions};
use crate::outage::Outage;
use crate::proxy;
use crate::token::{self, BASIC, Decoded, SessionInfo};
use crate::transport::{Dispatch, Signature, Transport};

/// The very first login waits less for an answer than later calls: somebody is watching.
const FIRST_LOGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// When a token was to be replaced early and could not, this much time passes before the next try.
const EARLY_REFRESH_PAUSE: Duration = Duration::from_secs(30);

pub(crate) struct Inner {
    pub(crate) transport: Arc<Transport>,
    pub(crate) options: ClientOptions,
    /// Whom the session speaks for, if not for the owner of the credentials.
    persona: Option<Persona>,
    held: RwLock<Option<Arc<Held>>>,
    /// Held during a login, so that concurrent calls share one.
    pub(crate) login: tokio::sync::Mutex<()>,
    early_refresh_failed: RwLock<Option<Instant>>,
    /// Calls that this server turned out not to have.
    missing: Mutex<BTreeSet<String>>,
    pub(crate) outage: Outage,
}

/// Another user, for whom we log in with our own credentials.
pub(crate) struct Persona {
    pub(crate) user: String,
    pub(crate) company: String,
    /// Our own session.
    pub(crate) via: Client,
}

/// The token in use.
pub(crate) struct Held {
    pub(crate) token: Secret,
    obtained: Instant,
    life: Option<Duration>,
    pub(crate) session: SessionInfo,
}

#[derive(Deserialize)]
struct LoginReply {
    token: Option<String>,
}

impl Inner {
    pub(crate) fn new(transport: Arc<Transport>, options: ClientOptions, persona: Option<Persona>) -> Self {
        Self {
            transport,
            options,
            persona,
            held: RwLock::new(None),
            login: tokio::sync::Mutex::new(()),
            early_refresh_failed: RwLock::new(None),
            missing: Mutex::default(),
            outage: Outage::default(),
        }
    }

    pub(crate) fn held(&self) -> Option<Arc<Held>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn server(&self) -> &str {
        self.transport.server.shown()
    }

    /// Whether the server of this session has the call, as far as is known without asking.
    pub(crate) fn gate(&self, call: &Call, session: &SessionInfo) -> Result<(), ApiError> {
        let reason = if let Some(since) = call.since.filter(|since| *since > session.api_version) {
            format!("it came with API {since}")
        } else if call.extension == Extension::BeyondBasic && session.feature_set == BASIC {
            format!("it needs another feature set than {BASIC:?}")
        } else if call.extension == Extension::Optional && self.is_missing(&call.endpoint) {
            "the server has said so before".to_owned()
        } else {
            return Ok(());
        };
        Err(self.unsupported(call, session, reason))
    }

    pub(crate) fn unsupported(&self, call: &Call, session: &SessionInfo, reason: String) -> ApiError {
        ApiError::Unsupported {
            endpoint: call.endpoint.to_string(),
            server: self.server().to_owned(),
            needs: call.since,
            has: session.api_version,
            reason,
        }
    }

    pub(crate) fn is_missing(&self, endpoint: &str) -> bool {
        let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing.contains(endpoint)
    }

    pub(crate) fn set_missing(&self, endpoint: &str) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing.insert(endpoint.to_owned());
    }

    /// The held token, replaced when it is near its end.
    pub(crate) async fn valid_token(&self) -> Result<Arc<Held>, ApiError> {
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
    pub(crate) async fn replace(&self, refused: &Arc<Held>) -> Result<Arc<Held>, ApiError> {
        let _guard = self.login.lock().await;
        match self.held() {
            Some(newer) if !Arc::ptr_eq(&newer, refused) => Ok(newer),
            _ => self.log_in(true, None).await,
        }
    }

    pub(crate) async fn first_login(&self) -> Result<Arc<Held>, ApiError> {
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
            if self.options.retry.waits_for_ever_at_first() {
                self.outage.failed("auth.login", self.server(), &error);
            } else if failures == 1 {
                // Whoever gives up says why.
                let server = self.server();
                tracing::warn!(server, "the API server has trouble, the login is tried again");
                tracing::debug!(server, "why the login is tried again: {error}");
            }
            tokio::time::sleep(self.options.retry.delay(failures, error.retry_after(), dice())).await;
        }
    }

    /// One login. `original`: with the token we were given, not with the one in use, which has
    /// expired or was refused. The caller holds the login lock.
    pub(crate) async fn log_in(
        &self,
        original: bool,
        limit: Option<Duration>,
    ) -> Result<Arc<Held>, ApiError> {
        let held = self.held();
        let own;
        let signature = match (&self.options.auth, &self.persona, &held) {
            (
                Auth::Keys {
                    access_key,
                    secret_key,
                },
                ..,
            ) => Signature::Basic {
                user: access_key.expose(),
                password: secret_key.expose(),
            },
            (Auth::Token(_), Some(persona), _) => {
                own = Box::pin(persona.via.inner.valid_token()).await?;
                Signature::Bearer(own.token.expose())
            }
            (Auth::Token(_), None, Some(held)) if !original => Signature::Bearer(held.token.expose()),
            (Auth::Token(given), None, _) => Signature::Bearer(given.expose()),
        };
        let Some(persona) = &self.persona else {
            let (token, decoded) = self.ask_for_token(signature, &[], limit).await?;
            return Ok(self.hold(token, decoded));
        };
        let headers = [("X-Clearml-Impersonate-As", persona.user.as_str())];
        let (mut token, mut decoded) = self.ask_for_token(signature, &headers, limit).await?;
        if decoded.session.tenant.as_deref() != Some(persona.company.as_str()) {
            let headers = [("X-Clearml-Tenant", persona.company.as_str())];
            let theirs = Signature::Bearer(token.expose());
            (token, decoded) = self.ask_for_token(theirs, &headers, limit).await?;
        }
        Ok(self.hold(token, decoded))
    }

    async fn ask_for_token(
        &self,
        signature: Signature<'_>,
        headers: &[(&str, &str)],
        limit: Option<Duration>,
    ) -> Result<(Secret, Decoded), ApiError> {
        let query: Vec<(&str, String)> = self
            .options
            .token_expiration
            .iter()
            .map(|life| ("expiration_sec", life.as_secs().to_string()))
            .collect();
        let call = Call::new("auth.login");
        let dispatch = Dispatch {
            signature,
            version: None,
            query: &query,
            headers,
            limit,
            redactor: &|| self.redactor(),
        };
        let reply = self.transport.send(&call, &dispatch).await?;
        let unusable = |reason: String| ApiError::Protocol {
            endpoint: "auth.login".to_owned(),
            server: self.server().to_owned(),
            reason,
        };
        let token =
            token_in(&reply.body).ok_or_else(|| unusable("the login answer has no token".to_owned()))?;
        let now = clearml_support::time::now_ms() as f64 / 1000.0;
        let decoded = token::decode(token.expose(), now).map_err(unusable)?;
        Ok((token, decoded))
    }

    fn hold(&self, token: Secret, decoded: Decoded) -> Arc<Held> {
        let mut session = decoded.session;
        if let Some(max) = self
            .options
            .max_api_version
            .filter(|max| *max < session.api_version)
        {
            tracing::debug!(server_has = %session.api_version, used = %max, "the API version is held down");
            session.api_version = max;
        }
        let held = Arc::new(Held {
            token,
            obtained: Instant::now(),
            life: decoded.life,
            session,
        });
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&held));
        // A login may be the first contact with a newer server.
        self.missing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        held
    }

    /// Knows all secrets of this session.
    pub(crate) fn redactor(&self) -> Redactor {
        let redactor = Redactor::new();
        match &self.options.auth {
            Auth::Keys {
                access_key,
                secret_key,
            } => {
                redactor.add(secret_key);
                let pair = format!("{}:{}", access_key.expose(), secret_key.expose());
                redactor.add(&Secret::new(STANDARD.encode(pair)));
            }
            Auth::Token(token) => redactor.add(token),
        }
        for (_, value) in &self.options.headers {
            redactor.add(value);
        }
        for password in proxy::passwords() {
            redactor.add(&Secret::new(password));
        }
        let via = self.persona.as_ref().and_then(|persona| persona.via.inner.held());
        for held in [self.held(), via].into_iter().flatten() {
            redactor.add(&held.token);
        }
        redactor
    }

    /// A server or gateway may quote our request; what it quotes must not reach a log.
    pub(crate) fn redacted(&self, error: ApiError) -> ApiError {
        let redactor = self.redactor();
        error.map_text(&|text| redactor.redact(&text).into_owned())
    }
}

fn token_in(body: &Bytes) -> Option<Secret> {
    let reply = serde_json::from_slice::<Data<LoginReply>>(body).ok()?;
    reply.data.token.map(Secret::new)
}
