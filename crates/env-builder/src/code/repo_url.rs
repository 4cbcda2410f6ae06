//! Repository addresses: refusing dangerous ones, naming cache folders, changing the protocol, and
//! taking passwords out. Pure.
//!
//! Addresses are taken apart by hand and not by a URL library, because an address that is not changed
//! must stay what it is to the letter: the cache folder's name is computed from it.

use clearml_support::redact::looks_like_token;
use clearml_support::secret::Secret;
use md5::{Digest, Md5};
use percent_encoding::percent_decode_str;

use crate::request::GitSettings;

/// `scheme://[user[:pass]@]host[:port]rest`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts<'a> {
    scheme: &'a str,
    user: Option<&'a str>,
    pass: Option<&'a str>,
    host: &'a str,
    port: Option<&'a str>,
    rest: &'a str,
}

impl<'a> Parts<'a> {
    fn parse(url: &'a str) -> Option<Self> {
        let (scheme, after) = url.split_once("://")?;
        let end = after.find(['/', '?', '#']).unwrap_or(after.len());
        let (authority, rest) = after.split_at(end);
        let (userinfo, address) = match authority.rsplit_once('@') {
            Some((userinfo, address)) => (Some(userinfo), address),
            None => (None, authority),
        };
        let (user, pass) = match userinfo.map(|info| info.split_once(':').ok_or(info)) {
            Some(Ok((user, pass))) => (Some(user), Some(pass)),
            Some(Err(user)) => (Some(user), None),
            None => (None, None),
        };
        let port_at = address.rfind(':').filter(|at| !address[*at..].contains(']'));
        let (host, port) = match port_at {
            Some(at) => (&address[..at], Some(&address[at + 1..])),
            None => (address, None),
        };
        Some(Self {
            scheme,
            user,
            pass,
            host,
            port,
            rest,
        })
    }

    fn text(&self) -> String {
        let user = self.user.map_or(String::new(), |user| match self.pass {
            Some(pass) => format!("{user}:{pass}@"),
            None => format!("{user}@"),
        });
        let port = self.port.map_or(String::new(), |port| format!(":{port}"));
        format!("{}://{user}{}{port}{}", self.scheme, self.host, self.rest)
    }
}

/// `[user@]host:path`, as scp writes it.
fn parse_scp(url: &str) -> Option<(Option<&str>, &str, &str)> {
    let (address, path) = url.split_once(':')?;
    let (user, host) = match address.split_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, address),
    };
    let bad = |text: &str| text.is_empty() || text.contains(['/', '@', ':', '#']);
    let path_ok = !path.is_empty() && !path.starts_with(['/', '@', ':', '#']);
    (!bad(host) && !user.is_some_and(bad) && path_ok).then_some((user, host, path))
}

/// Why an address may not be handed to git, if so.
#[must_use]
pub fn refusal(url: &str) -> Option<&'static str> {
    if url.starts_with('-') {
        return Some("it begins with a dash and would be taken for an option");
    }
    if url.chars().any(char::is_control) {
        return Some("it contains control characters");
    }
    let word = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    if url
        .split_once("::")
        .is_some_and(|(helper, _)| !helper.is_empty() && helper.chars().all(word))
    {
        return Some("it asks for a transport helper, which could run any command");
    }
    None
}

/// The folder name of a repository: the last part of its path.
#[must_use]
pub fn folder_name(url: &str) -> String {
    let path = Parts::parse(url).map_or(url, |parts| parts.rest);
    let path = path
        .split(['?', '#'])
        .next()
        .unwrap_or_default()
        .trim_end_matches('/');
    match path.rsplit('/').next().unwrap_or_default() {
        "" | "." | ".." => "repository".to_owned(),
        name => name.to_owned(),
    }
}

/// The id under which a clone is cached: the MD5 of the address as the task gives it. The Python agent
/// computes the same, so the two share clones.
#[must_use]
pub fn cache_id(url: &str) -> String {
    Md5::digest(url.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The address without user and password, for schemes where git sends them in a header.
fn without_login(url: &str) -> String {
    match Parts::parse(url) {
        Some(parts) if is_http(parts.scheme) => Parts {
            user: None,
            pass: None,
            ..parts
        }
        .text(),
        _ => url.to_owned(),
    }
}

/// The address without its password, for people.
#[must_use]
pub fn without_password(url: &str) -> String {
    match Parts::parse(url) {
        Some(parts) if parts.pass.is_some() => Parts { pass: None, ..parts }.text(),
        _ => url.to_owned(),
    }
}

fn is_http(scheme: &str) -> bool {
    scheme == "http" || scheme == "https"
}

fn host_of(url: &str) -> Option<String> {
    let host = match Parts::parse(url) {
        Some(parts) => parts.host,
        None => parse_scp(url)?.1,
    };
    Some(host.to_ascii_lowercase())
}

/// The configured user and password, if they are meant for the host of this address.
fn configured_login(url: &str, git: &GitSettings) -> Option<(String, Secret)> {
    let user = git.user.clone().filter(|user| !user.is_empty())?;
    let pass = git.pass.clone().filter(|pass| !pass.is_empty())?;
    let host = host_of(url)?;
    let meant = git
        .host
        .as_deref()
        .filter(|h| !h.is_empty())
        .is_none_or(|h| h.eq_ignore_ascii_case(&host));
    meant.then_some((user, pass))
}

/// An address of another protocol, and what to tell about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// The address to use.
    pub url: String,
    /// Whether a port other than the default was dropped on the way.
    pub dropped_port: bool,
}

/// Applies `force_git_ssh_protocol` and `translate_ssh`. `None` when nothing changes.
#[must_use]
pub fn convert(url: &str, git: &GitSettings, replacement_scheme: &str) -> Option<Converted> {
    if git.force_ssh_protocol && !url.is_empty() {
        let host = host_of(url).unwrap_or_default();
        if git
            .host
            .as_deref()
            .filter(|h| !h.is_empty())
            .is_some_and(|h| !h.eq_ignore_ascii_case(&host))
        {
            return None;
        }
        if let Some(parts) = Parts::parse(url) {
            let forced = git.force_ssh_user.is_some() || git.force_ssh_port.is_some();
            if parts.scheme == "https" || (parts.scheme == "ssh" && forced) {
                return Some(to_ssh(&parts, git));
            }
            if parts.scheme == "ssh" {
                return None;
            }
        }
    }
    if !git.translate_ssh || configured_login(url, git).is_none() {
        return None;
    }
    ssh_to_http(url, replacement_scheme)
}

fn to_ssh(parts: &Parts<'_>, git: &GitSettings) -> Converted {
    let port = git.force_ssh_port.map(|port| port.to_string());
    let rest = parts.rest.replace(' ', "%20");
    let new = Parts {
        scheme: "ssh",
        user: Some(git.force_ssh_user.as_deref().unwrap_or("git")),
        pass: None,
        host: parts.host,
        port: port.as_deref(),
        rest: &rest,
    };
    Converted {
        url: new.text(),
        dropped_port: parts.port.is_some() && port.is_none() && parts.scheme == "ssh",
    }
}

fn ssh_to_http(url: &str, scheme: &str) -> Option<Converted> {
    let service = |user: &str| user.eq_ignore_ascii_case("git") || user.eq_ignore_ascii_case("hg");
    if let Some((user, host, path)) = parse_scp(url) {
        let user = user
            .filter(|user| !service(user))
            .map_or(String::new(), |user| format!("{user}@"));
        return Some(Converted {
            url: format!("{scheme}://{user}{host}/{path}"),
            dropped_port: false,
        });
    }
    let parts = Parts::parse(url).filter(|parts| parts.scheme == "ssh")?;
    let user = parts.user.filter(|user| parts.pass.is_some() || !service(user));
    // The port belongs to ssh; keeping it would point https at an ssh server.
    let url = Parts {
        scheme,
        user,
        port: None,
        ..parts.clone()
    }
    .text();
    Some(Converted {
        url,
        dropped_port: parts.port.is_some_and(|port| port != "22"),
    })
}

/// How git reaches a repository without any secret in its arguments or in `.git/config`.
#[derive(Debug, Clone)]
pub struct Access {
    /// The address for git.
    pub url: String,
    /// User and password, sent in a header to `header_scope` only.
    pub login: Option<(String, Secret)>,
    /// `scheme://host[:port]/`.
    pub header_scope: String,
}

/// Splits an address into what may be shown and what may not. A complete login in the address wins
/// over the configured one. An access token in the place of the user is a login without password.
#[must_use]
pub fn access(url: &str, git: &GitSettings) -> Access {
    let plain = Access {
        url: url.to_owned(),
        login: None,
        header_scope: String::new(),
    };
    let Some(parts) = Parts::parse(url).filter(|parts| is_http(parts.scheme)) else {
        return plain;
    };
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let login = match (parts.user, parts.pass.filter(|pass| !pass.is_empty())) {
        (Some(user), Some(pass)) => Some((decode(user), Secret::new(decode(pass)))),
        (user, _) => configured_login(url, git).or_else(|| {
            let token = user.filter(|user| looks_like_token(user))?;
            Some((token.to_owned(), Secret::default()))
        }),
    };
    if login.is_none() {
        return plain;
    }
    let scope = Parts {
        user: None,
        pass: None,
        rest: "/",
        ..parts
    };
    Access {
        url: without_login(url),
        login,
        header_scope: scope.text(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_login() -> GitSettings {
        GitSettings {
            user: Some("U".into()),
            pass: Some(Secret::new("P@ss")),
            ..GitSettings::default()
        }
    }

    #[test]
    fn ssh_becomes_https_only_with_a_login() {
        for (url, expected) in [
            (
                "git@github.com:foo/bar.git",
                Some("https://github.com/foo/bar.git"),
            ),
            ("github.com:foo/bar.git", Some("https://github.com/foo/bar.git")),
            ("user@host:proj.git", Some("https://user@host/proj.git")),
            ("HG@host:a/b", Some("https://host/a/b")),
            ("ssh://git:pw@h/a.git", Some("https://git:pw@h/a.git")),
            ("ssh://user@h/a", Some("https://user@h/a")),
            ("ssh://git@h:2222/a/b.git", Some("https://h/a/b.git")),
            (
                "git@ssh.dev.azure.com:v3/org/proj/repo",
                Some("https://ssh.dev.azure.com/v3/org/proj/repo"),
            ),
            ("git@host:2222/a/b.git", Some("https://host/2222/a/b.git")),
            ("git://h/a", None),
            ("git+ssh://git@h/a", None),
            ("/local/p", None),
            ("file:///a/b", None),
            ("C:/x", None),
            ("https://h/a", None),
        ] {
            let converted = convert(url, &with_login(), "https").map(|c| c.url);
            assert_eq!(converted.as_deref(), expected, "{url}");
            assert_eq!(
                convert(url, &GitSettings::default(), "https"),
                None,
                "{url} without login"
            );
        }
        let off = GitSettings {
            translate_ssh: false,
            ..with_login()
        };
        assert_eq!(convert("git@h:a.git", &off, "https"), None);
        let other = GitSettings {
            host: Some("other.com".into()),
            ..with_login()
        };
        assert_eq!(convert("git@github.com:a/b.git", &other, "https"), None);
        assert_eq!(
            convert("git@h:a.git", &with_login(), "http").unwrap().url,
            "http://h/a.git"
        );
        assert!(
            convert("ssh://git@h:2222/a", &with_login(), "https")
                .unwrap()
                .dropped_port
        );
    }

    #[test]
    fn forced_ssh() {
        let force = GitSettings {
            force_ssh_protocol: true,
            ..GitSettings::default()
        };
        let url = |git: &GitSettings, url: &str| convert(url, git, "https").map(|c| c.url);
        assert_eq!(
            url(&force, "https://u:p@h:8443/a/b.git").as_deref(),
            Some("ssh://git@h/a/b.git")
        );
        assert_eq!(url(&force, "http://h/a.git"), None);
        assert_eq!(url(&force, "ssh://me@h:99/a"), None);
        let user = GitSettings {
            force_ssh_user: Some("x".into()),
            ..force.clone()
        };
        assert_eq!(url(&user, "ssh://me@h:99/a").as_deref(), Some("ssh://x@h/a"));
        let port = GitSettings {
            force_ssh_user: Some("bob".into()),
            force_ssh_port: Some(2222),
            ..force.clone()
        };
        assert_eq!(url(&port, "https://h/a").as_deref(), Some("ssh://bob@h:2222/a"));
        let elsewhere = GitSettings {
            host: Some("zz".into()),
            ..force
        };
        assert_eq!(url(&elsewhere, "https://h/a.git"), None);
        let both = GitSettings {
            force_ssh_protocol: true,
            ..with_login()
        };
        assert_eq!(url(&both, "git@h:a.git").as_deref(), Some("https://h/a.git"));
    }

    #[test]
    fn no_login_stays_in_the_address() {
        let git = with_login();
        let of = |url: &str| {
            let access = access(url, &git);
            let login = access
                .login
                .map(|(user, pass)| format!("{user}:{}", pass.expose()));
            (access.url, login, access.header_scope)
        };
        let some = |text: &str| Some(text.to_owned());
        let scope = "https://h/".to_owned();
        assert_eq!(
            of("https://h/a.git"),
            ("https://h/a.git".into(), some("U:P@ss"), scope.clone())
        );
        assert_eq!(
            of("https://x@h/a.git"),
            ("https://h/a.git".into(), some("U:P@ss"), scope.clone())
        );
        assert_eq!(
            of("https://x:y%2F@h/a.git"),
            ("https://h/a.git".into(), some("x:y/"), scope)
        );
        for plain in [
            "ssh://h/a",
            "git://h/a",
            "git@h:a",
            "/srv/repo.git",
            "file:///srv/r",
        ] {
            assert_eq!(of(plain), (plain.into(), None, String::new()));
        }
        let host = GitSettings {
            host: Some("h".into()),
            ..with_login()
        };
        assert!(access("https://H:8443/a", &host).login.is_some());
        assert!(access("https://evil/a", &host).login.is_none());
        assert_eq!(access("https://tok@evil/a", &host).url, "https://tok@evil/a");
        let token = access(
            "https://glpat-0123456789abcdefXYZ@h/a.git",
            &GitSettings::default(),
        );
        assert_eq!(token.url, "https://h/a.git", "a token is no argument of git");
        assert_eq!(token.login.unwrap().0, "glpat-0123456789abcdefXYZ");
    }

    #[test]
    fn names_ids_and_display() {
        assert_eq!(folder_name("https://h/o/bar.git"), "bar.git");
        assert_eq!(folder_name("git@h:o/bar.git/"), "bar.git");
        assert_eq!(folder_name("git@h:a.git"), "git@h:a.git");
        assert_eq!(folder_name("https://h/.."), "repository");
        assert_eq!(folder_name("/srv/r"), "r");
        assert_eq!(
            cache_id("https://h/o/bar.git"),
            "528c6ac4b1381ee3b5497a2c2ac01236"
        );
        assert_eq!(without_password("https://u:p@h/a.git"), "https://u@h/a.git");
        assert_eq!(without_password("https://[::1]:80/a"), "https://[::1]:80/a");
    }

    #[test]
    fn addresses_that_could_run_something_are_refused() {
        for bad in [
            "-u./x",
            "--upload-pack=touch /tmp/x",
            "ext::sh -c id",
            "fd::17",
            "https://h/a\nb",
        ] {
            assert!(refusal(bad).is_some(), "{bad:?}");
        }
        for good in [
            "https://h/a::b",
            "git@h:a",
            "https://[::1]/a",
            "ssh://git@[fe80::1]:22/a",
            "/srv/a",
        ] {
            assert!(refusal(good).is_none(), "{good:?}");
        }
    }
}
