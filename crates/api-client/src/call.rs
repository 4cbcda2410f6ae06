//! One call, described: what to send, and what may be done when it fails.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use crate::token::Version;
use crate::{SPOKEN, VERSION};

/// The HTTP method of API calls. The server treats all alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// `GET` with a body, as the Python clients send it. Some proxies drop such bodies.
    Get,
    /// `POST`.
    #[default]
    Post,
    /// `PUT`.
    Put,
}

impl Method {
    pub(crate) fn to_http(self) -> reqwest::Method {
        match self {
            Self::Get => reqwest::Method::GET,
            Self::Post => reqwest::Method::POST,
            Self::Put => reqwest::Method::PUT,
        }
    }
}

/// What the client does by itself when a call fails for a transient reason.
///
/// This is about failures after the first successful login; until then every call fails fast. A 401
/// is not a failure in this sense: any call is sent once more with a fresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Retry {
    /// Nothing: the error goes to the caller. For calls that do harm when applied twice and whose callers
    /// have something better to do than to wait.
    #[default]
    Never,
    /// Sends the call again as long as it is certain that the server did not apply it (no connection, 429,
    /// 503). For calls that create something. What is unclear comes out as
    /// [`ApiError::Ambiguous`](crate::ApiError::Ambiguous).
    IfNotApplied,
    /// Sends the call again until an answer comes. For calls that may be applied twice.
    Idempotent,
    /// Like [`Retry::Idempotent`], but gives up when this much time has passed.
    Bounded(Duration),
}

#[derive(Debug, Clone)]
pub(crate) enum Body {
    Empty,
    Json(Bytes),
    /// JSON lines; goes out by `POST` whatever the default is, because it can be large.
    Lines(Bytes),
}

impl Body {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Json(bytes) | Self::Lines(bytes) => bytes.len(),
        }
    }
}

/// A call of the API by name. The typed methods of [`Client`](crate::Client) cover the calls of an
/// agent; this is the way to all others.
///
/// ```
/// use clearml_api_client::{Call, Retry};
/// let call = Call::new("projects.get_all")
///     .version("2.14")
///     .body(serde_json::json!({"name": "^examples$", "only_fields": ["id"]}))
///     .retry(Retry::Idempotent);
/// assert_eq!(call.endpoint(), "projects.get_all");
/// ```
#[derive(Debug, Clone)]
pub struct Call {
    pub(crate) endpoint: Cow<'static, str>,
    pub(crate) version: Option<Cow<'static, str>>,
    pub(crate) body: Body,
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) method: Option<Method>,
    pub(crate) retry: Retry,
    pub(crate) deferred: bool,
    pub(crate) anonymous: bool,
    pub(crate) settled_by: Option<(u16, u32)>,
    pub(crate) since: Option<Version>,
    pub(crate) extension: Extension,
    /// The answer is no JSON in an envelope, unless it is an error.
    pub(crate) plain: bool,
}

/// How a call relates to what every server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extension {
    /// Part of the API.
    No,
    /// Not every server has it; which one does shows only when it is asked, so a refusal is remembered.
    Optional,
    /// Only servers with another feature set than `basic` have it.
    BeyondBasic,
}

impl Call {
    /// A call of `service.action` with an empty body, the server's newest version, and no repetition.
    pub fn new(endpoint: impl Into<Cow<'static, str>>) -> Self {
        Self {
            endpoint: endpoint.into(),
            version: None,
            body: Body::Empty,
            query: Vec::new(),
            method: None,
            retry: Retry::Never,
            deferred: false,
            anonymous: false,
            settled_by: None,
            since: None,
            extension: Extension::No,
            plain: false,
        }
    }

    /// A call of the API as this crate knows it: available since a version, asked for in the version that
    /// this crate speaks.
    fn known(endpoint: &'static str, (major, minor): (u32, u32), retry: Retry) -> Self {
        let since = Version::new(major, minor);
        let mut call = Self::new(endpoint).retry(retry).since(since);
        call.version = Some(if since > SPOKEN {
            Cow::Owned(since.to_string())
        } else {
            Cow::Borrowed(VERSION)
        });
        call
    }

    /// A call that may be applied twice; see [`Call::known`].
    pub(crate) fn safe(endpoint: &'static str, since: (u32, u32)) -> Self {
        Self::known(endpoint, since, Retry::Idempotent)
    }

    /// A call that creates or appends; see [`Call::known`].
    pub(crate) fn creating(endpoint: &'static str, since: (u32, u32)) -> Self {
        Self::known(endpoint, since, Retry::IfNotApplied)
    }

    /// A call that is sent once; see [`Call::known`].
    pub(crate) fn once(endpoint: &'static str, since: (u32, u32)) -> Self {
        Self::known(endpoint, since, Retry::Never)
    }

    /// Marks a call that not every server has.
    pub(crate) fn extension(mut self, extension: Extension) -> Self {
        self.extension = extension;
        self
    }

    /// The oldest API version that has this call. With an older server the call is not sent and fails
    /// with [`ApiError::Unsupported`](crate::ApiError::Unsupported).
    #[must_use]
    pub fn since(mut self, version: Version) -> Self {
        self.since = Some(version);
        self
    }

    /// The version to ask a server for that speaks `newest`.
    pub(crate) fn version_for(&self, newest: Version) -> Option<Cow<'static, str>> {
        let wanted = self.version.clone()?;
        match wanted.parse::<Version>() {
            Ok(version) if version > newest => Some(Cow::Owned(newest.to_string())),
            _ => Some(wanted),
        }
    }

    /// The call's name, `service.action`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Asks for this version of the call, such as `2.14`. Without it the server uses its newest.
    #[must_use]
    pub fn version(mut self, version: impl Into<Cow<'static, str>>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// The request data; must be an object.
    #[must_use]
    pub fn body(mut self, body: Value) -> Self {
        self.body = Body::Json(Bytes::from(body.to_string()));
        self
    }

    /// The request data, serialised without a detour.
    pub(crate) fn data(mut self, data: &impl Serialize) -> Self {
        let json = serde_json::to_vec(data)
            .expect("request types have string keys and no fallible serialisers, so they always serialise");
        self.body = Body::Json(Bytes::from(json));
        self
    }

    /// Adds to the query of the address, where a few calls have their data. A name may come several times.
    #[must_use]
    pub fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// JSON lines instead of one object (`events.add_batch`). The last line may end without newline.
    #[must_use]
    pub fn lines(mut self, lines: impl Into<Bytes>) -> Self {
        self.body = Body::Lines(lines.into());
        self
    }

    /// What to do after a transient failure.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Gives up when this much time has passed; a call that is repeated for ever becomes a bounded one.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        if self.retry != Retry::Never {
            self.retry = Retry::Bounded(deadline);
        }
        self
    }

    /// The HTTP method for this call instead of the client's default.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = Some(method);
        self
    }

    /// Allows the server to answer later (202); the client then polls for the result. Servers may
    /// ignore it.
    #[must_use]
    pub fn deferred(mut self) -> Self {
        self.deferred = true;
        self
    }

    /// Takes the answer as it comes.
    pub(crate) fn plain(mut self) -> Self {
        self.plain = true;
        self
    }

    /// Sends no credentials.
    pub(crate) fn anonymous(mut self) -> Self {
        self.anonymous = true;
        self
    }

    /// The error code that means "already applied" when an earlier attempt of the same call had an
    /// unknown outcome.
    pub(crate) fn settled_by(mut self, code: u16, subcode: u32) -> Self {
        self.settled_by = Some((code, subcode));
        self
    }
}
