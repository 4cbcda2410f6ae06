//! What a session token says, and when it needs a successor. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use crate::feature::Feature;

/// A dotted version number; missing parts count as zero, so `2.9 < 2.13` and `2.13 == 2.13.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version([u16; 3]);

impl Version {
    /// The version `major.minor`.
    #[must_use]
    pub const fn new(major: u32, minor: u32) -> Self {
        Self([narrow(major), narrow(minor), 0])
    }
}

/// Two bytes are enough for parts of versions, and errors carry versions.
const fn narrow(part: u32) -> u16 {
    if part > u16::MAX as u32 {
        u16::MAX
    } else {
        part as u16
    }
}

impl FromStr for Version {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = [0; 3];
        for (slot, part) in parts.iter_mut().zip(text.trim().split('.')) {
            *slot = part.parse()?;
        }
        Ok(Self(parts))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}")?;
        if patch == 0 { Ok(()) } else { write!(f, ".{patch}") }
    }
}

/// What the server told us about itself and us at the last login.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Newest API version that the server speaks.
    pub api_version: Version,
    /// The server's own version, such as `2.3.0`.
    pub server_version: String,
    /// `basic` for the open server.
    pub feature_set: String,
    /// Id of the user that the credentials belong to.
    pub user: Option<String>,
    /// That user's name.
    pub user_name: Option<String>,
    /// Id of the company.
    pub company: Option<String>,
    /// The user's role, such as `admin`.
    pub role: Option<String>,
    /// What kind of service account the credentials belong to, if to one.
    pub service_account_type: Option<String>,
    /// The tenant that the token is for, on servers that have tenants.
    pub tenant: Option<String>,
    /// What identity providers told about the user, on servers that pass it on.
    pub providers_info: Option<Value>,
}

impl SessionInfo {
    /// Whether the server can do this.
    #[must_use]
    pub fn supports(&self, feature: Feature) -> bool {
        self.api_version >= feature.since() && (self.beyond_basic() || !feature.is_beyond_basic())
    }

    /// Whether the server has more than the open server has.
    #[must_use]
    pub fn beyond_basic(&self) -> bool {
        self.feature_set != BASIC
    }

    /// Whether the server speaks API version `major.minor` or a newer one.
    #[must_use]
    pub fn at_least(&self, major: u32, minor: u32) -> bool {
        self.api_version >= Version::new(major, minor)
    }
}

/// `feature_set` of the open server.
pub(crate) const BASIC: &str = "basic";

#[derive(Deserialize)]
struct Claims {
    exp: Option<f64>,
    iat: Option<f64>,
    env: Option<String>,
    api_version: Option<String>,
    server_version: Option<String>,
    feature_set: Option<String>,
    tenant: Option<String>,
    providers_info: Option<Value>,
    #[serde(default)]
    identity: Identity,
}

#[derive(Deserialize, Default)]
struct Identity {
    user: Option<String>,
    user_name: Option<String>,
    company: Option<String>,
    role: Option<String>,
    service_account_type: Option<Value>,
}

/// The readable part of a token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Decoded {
    pub(crate) session: SessionInfo,
    /// Seconds from issue to expiry, both by the server's clock; `None` = never expires.
    pub(crate) life: Option<Duration>,
}

/// Reads the payload of a JWT. The signature is the server's business: it is the server that gave us
/// the token, and the server that will judge it.
pub(crate) fn decode(token: &str, now_s: f64) -> Result<Decoded, String> {
    let payload = token.split('.').nth(1).ok_or("the token is not a JWT")?;
    let bytes = URL_SAFE_NO_PAD
        .decode(payload.trim_end_matches('='))
        .map_err(|error| format!("the token's payload is not base64: {error}"))?;
    let claims: Claims = serde_json::from_slice(&bytes)
        .map_err(|error| format!("the token's claims cannot be read: {error}"))?;
    let api_version = match (&claims.api_version, claims.env.as_deref()) {
        (Some(text), _) => text
            .parse()
            .map_err(|error| format!("the token's api_version {text:?} is not a version: {error}"))?,
        (None, Some("prod")) => Version::new(2, 2),
        (None, _) => Version::new(2, 1),
    };
    // Both ends by the server's clock: a skewed local clock must not make a fresh token look old.
    let life = claims.exp.map(|exp| {
        Duration::try_from_secs_f64((exp - claims.iat.unwrap_or(now_s)).max(0.0)).unwrap_or(Duration::MAX)
    });
    Ok(Decoded {
        session: SessionInfo {
            api_version,
            server_version: claims.server_version.unwrap_or_else(|| "1.0.0".to_owned()),
            feature_set: claims.feature_set.unwrap_or_else(|| BASIC.to_owned()),
            user: claims.identity.user,
            user_name: claims.identity.user_name,
            company: claims.identity.company,
            role: claims.identity.role,
            service_account_type: claims.identity.service_account_type.and_then(text),
            tenant: claims.tenant,
            providers_info: claims.providers_info.filter(|value| !value.is_null()),
        },
        life,
    })
}

/// A number and a word say the same here, whichever a server uses.
fn text(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}

/// Whether a token of this age should be replaced before the next call. The threshold is cut to half
/// of the life, or else a short-lived token would mean a login before every call.
pub(crate) fn needs_refresh(life: Option<Duration>, age: Duration, threshold: Duration) -> bool {
    life.is_some_and(|life| life.saturating_sub(age) <= threshold.min(life / 2))
}

/// Whether a token of this age is of no use any more.
pub(crate) fn is_expired(life: Option<Duration>, age: Duration) -> bool {
    life.is_some_and(|life| age >= life)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> String {
        format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn life_is_taken_from_the_servers_clock() {
        let token = jwt(
            r#"{"iat":1000,"exp":4600,"api_version":"2.34","server_version":"2.3.0","identity":{"user":"u1"}}"#,
        );
        // A local clock that is years ahead changes nothing.
        let decoded = decode(&token, 2e9).unwrap();
        assert_eq!(decoded.life, Some(Duration::from_secs(3600)));
        assert!(
            decoded.session.at_least(2, 9)
                && decoded.session.at_least(2, 34)
                && !decoded.session.at_least(2, 35)
        );
        assert_eq!(decoded.session.user.as_deref(), Some("u1"));
        assert_eq!(
            decode(&jwt(r#"{"exp":4600}"#), 4000.0).unwrap().life,
            Some(Duration::from_secs(600))
        );
        assert_eq!(decode(&jwt("{}"), 0.0).unwrap().life, None);
    }

    #[test]
    fn missing_claims_have_the_documented_defaults() {
        let session = decode(&jwt(r#"{"env":"prod"}"#), 0.0).unwrap().session;
        assert_eq!(session.api_version, Version::new(2, 2));
        assert_eq!(
            (session.server_version.as_str(), session.feature_set.as_str()),
            ("1.0.0", "basic")
        );
        assert_eq!(
            decode(&jwt("{}"), 0.0).unwrap().session.api_version,
            Version::new(2, 1)
        );
    }

    #[test]
    fn what_is_not_a_token_says_why_without_showing_it() {
        for bad in ["", "hunter2", "a.!!.c", "a.aGVsbG8.c"] {
            let message = decode(bad, 0.0).unwrap_err();
            assert!(message.starts_with("the token"), "{message}");
            assert!(!message.contains("hunter2"));
        }
    }

    #[test]
    fn refresh_comes_before_the_end_but_not_before_every_call() {
        let hour = Duration::from_secs(3600);
        let (day, threshold) = (24 * hour, 12 * hour);
        for (life, age, expected) in [
            (Some(30 * day), Duration::ZERO, false),
            (Some(30 * day), 29 * day, false),
            (Some(30 * day), 29 * day + threshold, true),
            (Some(hour), Duration::ZERO, false),
            (Some(hour), hour / 2, true),
            (Some(Duration::ZERO), Duration::ZERO, true),
            (None, 365 * day, false),
        ] {
            assert_eq!(needs_refresh(life, age, threshold), expected, "{life:?} {age:?}");
        }
    }

    #[test]
    fn versions_compare_by_number() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        assert!(version("2.9") < version("2.13"));
        assert_eq!(version("2.13"), version("2.13.0"));
        assert_eq!(version("2.34").to_string(), "2.34");
        assert!("2.x".parse::<Version>().is_err());
    }
}
