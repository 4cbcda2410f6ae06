//! Who is calling: credentials in headers and cookies, tokens, and the one user that this server has.

pub(crate) mod jwt;
pub(crate) mod keys;

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rusqlite::Transaction;

use crate::api::{ApiFault, AuthNeed, Identity};
use crate::http::dispatch::text_header;
use crate::server::Shared;
use crate::store;

/// Name of the cookie that carries a token for browsers.
const COOKIE: &str = "clearml_token_basic";

/// What a request offers to prove who it is.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    Keys { access_key: String, secret_key: String },
    Token(String),
}

impl Credential {
    /// The `Authorization` header, else the cookie. Nothing at all is not an error here.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, ApiFault> {
        let Some(value) = headers.get("authorization") else {
            return Ok(from_cookie(headers));
        };
        let value = value
            .to_str()
            .map_err(|_| malformed("the Authorization header is not text"))?;
        let (scheme, rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
        if scheme.eq_ignore_ascii_case("bearer") {
            return Ok(Some(Self::Token(rest.trim().to_owned())));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(ApiFault::new(
                401,
                10,
                format!("Unauthorized (bad authentication type): type={scheme}"),
            ));
        }
        let decoded = STANDARD
            .decode(rest.trim())
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
        let (access_key, secret_key) = pair.ok_or_else(|| malformed("Basic needs base64 of key:secret"))?;
        Ok(Some(Self::Keys {
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
        }))
    }
}

fn malformed(detail: &str) -> ApiFault {
    ApiFault::new(
        401,
        21,
        format!("Unauthorized (malformed credentials) ({detail})"),
    )
}

/// A token from the login cookie. A browser sends cookies along with requests that other sites make it send, and any
/// method changes things here, so those requests are treated as anonymous.
fn from_cookie(headers: &HeaderMap) -> Option<Credential> {
    if text_header(headers, "sec-fetch-site").is_some_and(|site| site == "cross-site") {
        return None;
    }
    let cookies = headers
        .get_all("cookie")
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut pairs = cookies
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, token)| Credential::Token(token.to_owned()))
}

/// `Set-Cookie` of a login.
pub(crate) fn login_cookie(token: &str) -> String {
    format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Lax; Max-Age=315360000")
}

/// `Set-Cookie` that ends a login.
pub(crate) fn logout_cookie() -> String {
    format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0")
}

/// A wish to act for another user.
#[derive(Debug, Clone)]
pub(crate) enum Impersonation {
    /// Identity and role of that user.
    As(String),
    /// Identity of that user with one's own role.
    ActAs(String),
}

impl Impersonation {
    pub(crate) fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, ApiFault> {
        let as_user = text_header(headers, "x-clearml-impersonate-as");
        let act_as = text_header(headers, "x-clearml-act-as");
        match (as_user, act_as) {
            (Some(_), Some(_)) => Err(ApiFault::new(
                400,
                5,
                "Only one of the impersonation headers may be given",
            )),
            (Some(user), None) => Ok(Some(Self::As(user.to_owned()))),
            (None, Some(user)) => Ok(Some(Self::ActAs(user.to_owned()))),
            (None, None) => Ok(None),
        }
    }
}

/// Signs and checks tokens. Sessions that logged out are remembered until their tokens would have expired.
pub(crate) struct Authenticator {
    secret: Vec<u8>,
    revoked: RwLock<HashMap<String, i64>>,
}

impl Authenticator {
    pub(crate) fn new(secret: Vec<u8>, revoked: HashMap<String, i64>) -> Self {
        Self {
            secret,
            revoked: RwLock::new(revoked),
        }
    }

    pub(crate) fn sign(&self, claims: &jwt::Claims) -> Result<String, ApiFault> {
        Ok(jwt::sign(claims, &self.secret)?)
    }

    /// Checks signature, expiry and revocation.
    pub(crate) fn verify(&self, token: &str, now_ms: i64) -> Result<jwt::Claims, ApiFault> {
        let refuse = |why: &str| ApiFault::new(401, 30, format!("Unauthorized (invalid token) ({why})"));
        let claims = jwt::verify(token, &self.secret)
            .ok_or_else(|| refuse("malformed or not signed by this server"))?;
        if claims.exp.is_some_and(|exp| exp <= now_ms / 1000) {
            return Err(refuse("expired token"));
        }
        let revoked = self.revoked.read().unwrap_or_else(PoisonError::into_inner);
        if revoked.contains_key(&claims.session_id) {
            return Err(refuse("revoked token"));
        }
        Ok(claims)
    }

    /// From now on tokens of this session are refused.
    pub(crate) fn revoke(&self, session: &str, until: i64) {
        let mut revoked = self.revoked.write().unwrap_or_else(PoisonError::into_inner);
        revoked.insert(session.to_owned(), until);
    }
}

/// Turns what a request offered into an identity, or refuses it.
pub(crate) fn identify(
    server: &Shared,
    tx: &Transaction<'_>,
    credential: Option<&Credential>,
    impersonation: Option<&Impersonation>,
    need: AuthNeed,
    now_ms: i64,
) -> Result<Identity, ApiFault> {
    let identity = match credential {
        None if need == AuthNeed::Required => {
            return Err(ApiFault::new(401, 20, "Unauthorized (missing credentials)"));
        }
        None => return Ok(server.identity.anonymous()),
        Some(Credential::Token(token)) => server
            .authenticator
            .verify(token, now_ms)
            .map(jwt::Claims::into_identity),
        Some(Credential::Keys {
            access_key,
            secret_key,
        }) => {
            if store::credentials::matches(tx, access_key, secret_key)? {
                Ok(Identity {
                    access_key: Some(access_key.clone()),
                    ..server.identity.clone()
                })
            } else {
                Err(ApiFault::new(401, 22, "Unauthorized (invalid credentials)"))
            }
        }
    };
    let identity = match identity {
        Err(_) if need == AuthNeed::Optional => return Ok(server.identity.anonymous()),
        other => other?,
    };
    match impersonation {
        None => Ok(identity),
        Some(wish) => impersonate(tx, identity, wish),
    }
}

fn impersonate(tx: &Transaction<'_>, own: Identity, wish: &Impersonation) -> Result<Identity, ApiFault> {
    let refuse = || ApiFault::new(400, 6, "Impersonation is not allowed, or there is no such user");
    if !matches!(own.role.as_str(), "admin" | "root" | "system") {
        return Err(refuse());
    }
    let (Impersonation::As(id) | Impersonation::ActAs(id)) = wish;
    let user = store::users::load(tx, id)?.ok_or_else(refuse)?;
    let text = |key: &str| {
        user.get(key)
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let role = if matches!(wish, Impersonation::As(_)) {
        text("role")
    } else {
        own.role.clone()
    };
    Ok(Identity {
        user: id.clone(),
        user_name: text("name"),
        role,
        ..own
    })
}

impl Identity {
    /// The caller of an endpoint that needs no credentials.
    fn anonymous(&self) -> Self {
        let none = String::new;
        let company = self.company.clone();
        let company_name = self.company_name.clone();
        Self {
            user: none(),
            user_name: none(),
            company,
            company_name,
            role: "guest".to_owned(),
            session: None,
            access_key: None,
        }
    }
}
