//! The grammar of API paths: `[/][api/][v<N>/]<service>.<action>[/]`.

use std::fmt;

/// An API version such as 2.34.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    pub(crate) const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Digits, optionally a dot, digits; at least two digits in all.
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = match text.split_once('.') {
            Some((major, minor)) => (major, Some(minor)),
            None => (text, None),
        };
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let plausible = digits(major) && minor.is_none_or(digits) && text.len() >= 2;
        if !plausible {
            return None;
        }
        Some(Self {
            major: major.parse().ok()?,
            minor: minor.unwrap_or("0").parse().ok()?,
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.major, self.minor)
    }
}

/// A path that follows the grammar.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ApiPath<'a> {
    /// The version in the path; none means the newest.
    pub(crate) version: Option<Version>,
    /// `service.action`.
    pub(crate) endpoint: &'a str,
}

/// Reads a path, or `None` when it does not follow the grammar.
pub(crate) fn parse(path: &str) -> Option<ApiPath<'_>> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_prefix("api/").unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    let (version, endpoint) = match path.split_once('/') {
        Some((version, endpoint)) => (Some(Version::parse(version.strip_prefix('v')?)?), endpoint),
        None => (None, path),
    };
    let (service, action) = endpoint.split_once('.')?;
    (is_name(service) && is_name(action)).then_some(ApiPath { version, endpoint })
}

/// A letter or underscore followed by at least one word character.
fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    first && text.len() >= 2 && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_documented_forms() {
        for (path, version) in [
            ("/v2.14/tasks.get_all", Some(Version::new(2, 14))),
            ("/v2.14/tasks.get_all/", Some(Version::new(2, 14))),
            ("tasks.get_all", None),
            ("/api/v2.5/tasks.get_all", Some(Version::new(2, 5))),
            ("/v20/tasks.get_all", Some(Version::new(20, 0))),
        ] {
            assert_eq!(
                parse(path),
                Some(ApiPath {
                    version,
                    endpoint: "tasks.get_all"
                }),
                "{path}"
            );
        }
    }

    #[test]
    fn refuses_everything_else() {
        let bad = [
            "/",
            "/bogus",
            "/v2/tasks.get_all",
            "/v2.14/x/tasks.get_all",
            "/t.get_all",
            "/tasks.g",
            "/tasks.get-all",
            "/1a.bc",
            "/v2./a1.b1",
            "/tasks.get.all",
        ];
        for path in bad {
            assert_eq!(parse(path), None, "{path}");
        }
    }
}
