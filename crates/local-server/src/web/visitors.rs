//! Who looks at the page: cookies, sign-in, and the proof that a form came from us.
//!
//! Every visitor has a random id in a cookie that scripts cannot read and other sites cannot send. Signing in gives a
//! new id and remembers it; nothing is stored about anybody else. Every form carries a token that is computed from
//! the id with a key that never leaves this process. Cookies do not know ports, so a page of another server on this
//! machine can make the browser send ours: the token is what refuses it, and the check of the origin before.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::Web;
use super::layout::Frame;
use crate::api::{Access, ApiFault};
use crate::auth::keys;
use crate::http::dispatch::text_header;
use crate::store;

const COOKIE: &str = "clearml_agent_page";
/// How long somebody stays signed in.
const LIFE: Duration = Duration::from_secs(12 * 3600);
/// Sessions at one time; the oldest ends first.
const MOST_SESSIONS: usize = 64;
/// What a wrong key costs.
const REFUSAL_PAUSE: Duration = Duration::from_millis(300);

/// Who sent a request.
pub(super) struct Visitor {
    pub(super) id: String,
    /// The request brought no id, so the reply must.
    pub(super) is_new: bool,
    pub(super) signed_in: bool,
}

/// Everybody who is signed in. Forgotten when the server stops.
pub(super) struct Visitors {
    key: Vec<u8>,
    sessions: Mutex<VecDeque<(String, Instant)>>,
    secure: bool,
}

impl Visitors {
    pub(super) fn new(secure: bool) -> Self {
        Self {
            key: keys::secret_key().expose().as_bytes().to_vec(),
            sessions: Mutex::default(),
            secure,
        }
    }

    pub(super) fn recognise(&self, headers: &HeaderMap) -> Visitor {
        let offered: Vec<&str> = offered(headers).collect();
        // Several can come when a foreign page has set one for the whole host; a valid one wins.
        let valid = offered.iter().find(|id| self.is_signed_in(id));
        let id = valid.or(offered.first()).map(|id| (*id).to_owned());
        Visitor {
            is_new: id.is_none(),
            signed_in: valid.is_some(),
            id: id.unwrap_or_else(new_id),
        }
    }

    /// What every form of this visitor must carry.
    pub(super) fn form_token(&self, visitor: &Visitor) -> String {
        let code = self.code(visitor).finalize().into_bytes();
        code.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether a form came from a page that this visitor got from us.
    pub(super) fn accepts(&self, visitor: &Visitor, token: &str) -> bool {
        let digits: Option<Vec<u8>> = (0..token.len())
            .step_by(2)
            .map(|at| {
                token
                    .get(at..at + 2)
                    .and_then(|pair| u8::from_str_radix(pair, 16).ok())
            })
            .collect();
        !visitor.is_new && digits.is_some_and(|code| self.code(visitor).verify_slice(&code).is_ok())
    }

    fn code(&self, visitor: &Visitor) -> Hmac<Sha256> {
        let mut code = Hmac::<Sha256>::new_from_slice(&self.key).expect("any length is a key");
        code.update(visitor.id.as_bytes());
        code
    }

    /// Signs in under a new id, so that nobody who knew the old one gains anything. Gives the cookie.
    pub(super) fn sign_in(&self, visitor: &Visitor) -> HeaderValue {
        let id = new_id();
        let mut sessions = self.sessions();
        sessions.retain(|(known, began)| *known != visitor.id && began.elapsed() < LIFE);
        while sessions.len() >= MOST_SESSIONS {
            sessions.pop_front();
        }
        sessions.push_back((id.clone(), Instant::now()));
        drop(sessions);
        self.cookie(&id).expect("an id of our own is plain text")
    }

    pub(super) fn sign_out(&self, visitor: &Visitor) {
        self.sessions().retain(|(id, _)| *id != visitor.id);
    }

    fn is_signed_in(&self, id: &str) -> bool {
        self.sessions()
            .iter()
            .any(|(known, began)| known == id && began.elapsed() < LIFE)
    }

    fn sessions(&self) -> MutexGuard<'_, VecDeque<(String, Instant)>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn cookie(&self, id: &str) -> Option<HeaderValue> {
        self.set_cookie(id, LIFE)
    }

    pub(super) fn no_cookie(&self) -> HeaderValue {
        self.set_cookie("", Duration::ZERO)
            .expect("nothing is plain text")
    }

    fn set_cookie(&self, id: &str, life: Duration) -> Option<HeaderValue> {
        let secure = if self.secure { "; Secure" } else { "" };
        let text = format!(
            "{COOKIE}={id}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}{secure}",
            life.as_secs()
        );
        HeaderValue::from_str(&text).ok()
    }
}

impl Web {
    /// Whether these are keys of this server. Wrong ones cost time.
    pub(super) async fn knows(&self, access_key: &str, secret_key: &str) -> Result<bool, ApiFault> {
        let (access_key, secret_key) = (access_key.to_owned(), secret_key.to_owned());
        let check = self.server.store.run(Access::Read, move |tx| {
            Ok(store::credentials::matches(tx, &access_key, &secret_key)?.into())
        });
        let known = check.await? == true;
        if !known {
            tokio::time::sleep(REFUSAL_PAUSE).await;
        }
        Ok(known)
    }

    /// What stands around a page for this visitor.
    pub(super) fn page_of(&self, visitor: &Visitor) -> Frame {
        Frame {
            form_token: visitor.signed_in.then(|| self.visitors.form_token(visitor)),
        }
    }
}

/// 64 characters that nobody can guess.
fn new_id() -> String {
    keys::secret_key().expose().to_owned()
}

fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers
        .get_all("cookie")
        .iter()
        .filter_map(|value| value.to_str().ok());
    lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, id)| {
            let is_id = id.len() == 64
                && id
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
            *name == COOKIE && is_id
        })
        .map(|(_, id)| id)
}

/// What the browser says about where a form comes from. One that says nothing is old, and has the token to show.
pub(super) fn comes_from_here(headers: &HeaderMap) -> bool {
    let host = text_header(headers, "host").unwrap_or_default();
    let origin_fits = headers.get("origin").is_none_or(|origin| {
        let origin = origin.to_str().ok();
        let address = origin.and_then(|origin| {
            origin
                .strip_prefix("https://")
                .or_else(|| origin.strip_prefix("http://"))
        });
        address.is_some_and(|address| address.eq_ignore_ascii_case(host))
    });
    let site_fits = text_header(headers, "sec-fetch-site").is_none_or(|site| site == "same-origin");
    origin_fits && site_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, String)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    fn with_cookie(cookie: &HeaderValue) -> HeaderMap {
        let pair = cookie.to_str().unwrap().split(';').next().unwrap();
        headers(&[("cookie", format!("other=1; {pair}"))])
    }

    #[test]
    fn signing_in_and_out_and_the_bound_on_sessions() {
        let visitors = Visitors::new(true);
        let stranger = visitors.recognise(&HeaderMap::new());
        assert!(stranger.is_new && !stranger.signed_in);
        let cookie = visitors.sign_in(&stranger);
        for part in ["HttpOnly", "SameSite=Strict", "Secure", "Path=/"] {
            assert!(cookie.to_str().unwrap().contains(part), "{cookie:?}");
        }
        let guest = visitors.recognise(&with_cookie(&cookie));
        assert!(guest.signed_in && guest.id != stranger.id);
        visitors.sign_out(&guest);
        assert!(!visitors.recognise(&with_cookie(&cookie)).signed_in);

        let first = visitors.sign_in(&stranger);
        for _ in 0..MOST_SESSIONS {
            visitors.sign_in(&stranger);
        }
        assert!(!visitors.recognise(&with_cookie(&first)).signed_in);
        assert_eq!(visitors.sessions().len(), MOST_SESSIONS);
    }

    #[test]
    fn a_form_token_is_good_for_its_visitor_only() {
        let visitors = Visitors::new(false);
        let known = |id: &str| Visitor {
            id: id.to_owned(),
            is_new: false,
            signed_in: false,
        };
        let token = visitors.form_token(&known("a"));
        assert!(visitors.accepts(&known("a"), &token));
        assert!(!visitors.accepts(&known("b"), &token));
        assert!(!Visitors::new(false).accepts(&known("a"), &token));
        for bad in ["", "zz", "é", &token[1..], &token[2..]] {
            assert!(!visitors.accepts(&known("a"), bad), "{bad}");
        }
    }

    #[test]
    fn forms_of_other_origins_are_recognised() {
        let from = |pairs: &[(&'static str, &str)]| {
            let mut all = vec![("host", "localhost:8080".to_owned())];
            all.extend(pairs.iter().map(|(name, value)| (*name, (*value).to_owned())));
            comes_from_here(&headers(&all))
        };
        assert!(from(&[]));
        assert!(from(&[
            ("origin", "http://localhost:8080"),
            ("sec-fetch-site", "same-origin")
        ]));
        assert!(!from(&[("origin", "http://localhost:9999")]));
        assert!(!from(&[("origin", "null")]));
        assert!(!from(&[("sec-fetch-site", "same-site")]));
        assert!(!from(&[("sec-fetch-site", "cross-site")]));
    }
}
