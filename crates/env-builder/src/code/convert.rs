//! Changing the protocol of a repository's address between ssh and https. Pure.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::code::credentials::login_for;
use crate::code::repo_url::{Parts, host_of, parse_scp};
use crate::request::GitSettings;

/// What can't stand in the path of an ssh address as it is.
const RESERVED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'`');

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
pub fn convert(url: &str, git: &GitSettings) -> Option<Converted> {
    if git.force_ssh_protocol && !url.is_empty() {
        let host = host_of(url).unwrap_or_default();
        if only_host(git).is_some_and(|only| !only.eq_ignore_ascii_case(&host)) {
            return None;
        }
        let forced = git.force_ssh_user.is_some() || git.force_ssh_port.is_some();
        if let Some(parts) = Parts::parse(url) {
            if parts.scheme == "https" || (parts.scheme == "ssh" && forced) {
                return Some(to_ssh(&parts, git));
            }
            if parts.scheme == "ssh" {
                return None;
            }
        } else if git.force_ssh_strict
            && let Some((_, _, path)) = parse_scp(url)
        {
            return forced.then(|| Converted {
                url: format!("{}/{path}", forced_ssh_origin(&host, git)),
                dropped_port: false,
            });
        }
    }
    if !git.translate_ssh || login_for(url, git).is_none() {
        return None;
    }
    ssh_to_http(url, git)
}

fn only_host(git: &GitSettings) -> Option<&str> {
    git.host.as_deref().filter(|host| !host.is_empty())
}

/// `ssh://user@host[:port]` of the addresses that `force_git_ssh_protocol` makes.
pub(crate) fn forced_ssh_origin(host: &str, git: &GitSettings) -> String {
    let port = git
        .force_ssh_port
        .map_or(String::new(), |port| format!(":{port}"));
    let user = git.force_ssh_user.as_deref().unwrap_or("git");
    format!("ssh://{user}@{host}{port}")
}

fn to_ssh(parts: &Parts<'_>, git: &GitSettings) -> Converted {
    let rest = utf8_percent_encode(parts.rest, RESERVED);
    Converted {
        url: format!("{}{rest}", forced_ssh_origin(parts.host, git)),
        dropped_port: parts.port.is_some() && git.force_ssh_port.is_none() && parts.scheme == "ssh",
    }
}

fn ssh_to_http(url: &str, git: &GitSettings) -> Option<Converted> {
    let scheme = git.replacement_scheme.as_str();
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
    let port = parts.port.filter(|_| git.keep_ssh_port);
    let url = Parts {
        scheme,
        user,
        port,
        ..parts.clone()
    }
    .text();
    let had_other = parts.port.is_some_and(|port| port != "22");
    Some(Converted {
        url,
        dropped_port: port.is_none() && had_other,
    })
}

#[cfg(test)]
mod tests {
    use clearml_support::secret::Secret;
    use proptest::prelude::*;

    use super::*;

    fn with_login() -> GitSettings {
        GitSettings {
            user: Some("U".into()),
            pass: Some(Secret::new("P@ss")),
            ..GitSettings::default()
        }
    }

    fn converted(url: &str, git: &GitSettings) -> Option<String> {
        convert(url, git).map(|converted| converted.url)
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
            assert_eq!(converted(url, &with_login()).as_deref(), expected, "{url}");
            assert_eq!(
                converted(url, &GitSettings::default()),
                None,
                "{url} without login"
            );
        }
        let (old, new) = ("ssh://git@h:2222/a", "ssh://git@h:22/a");
        assert!(convert(old, &with_login()).unwrap().dropped_port);
        assert!(!convert(new, &with_login()).unwrap().dropped_port);
    }

    #[test]
    fn settings_that_keep_ssh() {
        let off = GitSettings {
            translate_ssh: false,
            ..with_login()
        };
        assert_eq!(converted("git@h:a.git", &off), None);
        let half = GitSettings {
            pass: None,
            ..with_login()
        };
        assert_eq!(converted("git@h:a.git", &half), None);
        let other = GitSettings {
            host: Some("other.com".into()),
            ..with_login()
        };
        assert_eq!(converted("git@github.com:a/b.git", &other), None);
        let plain = GitSettings {
            replacement_scheme: "http".into(),
            ..with_login()
        };
        let url = converted("git@github.com:foo/bar.git", &plain);
        assert_eq!(url.as_deref(), Some("http://github.com/foo/bar.git"));
        let port = GitSettings {
            keep_ssh_port: true,
            ..with_login()
        };
        let kept = convert("ssh://git@h:2222/a", &port).unwrap();
        assert_eq!(
            (kept.url.as_str(), kept.dropped_port),
            ("https://h:2222/a", false)
        );
    }

    #[test]
    fn forced_ssh() {
        let force = GitSettings {
            force_ssh_protocol: true,
            ..GitSettings::default()
        };
        let user = GitSettings {
            force_ssh_user: Some("x".into()),
            ..force.clone()
        };
        let port = GitSettings {
            force_ssh_user: Some("bob".into()),
            force_ssh_port: Some(2222),
            ..force.clone()
        };
        let elsewhere = GitSettings {
            host: Some("zz".into()),
            ..force.clone()
        };
        let both = GitSettings {
            force_ssh_protocol: true,
            ..with_login()
        };
        let strict = GitSettings {
            force_ssh_strict: true,
            ..both.clone()
        };
        let strict_port = GitSettings {
            force_ssh_port: Some(2222),
            ..strict.clone()
        };
        for (git, url, expected) in [
            (&strict, "git@h:a.git", None),
            (&strict_port, "me@h:o/a.git", Some("ssh://git@h:2222/o/a.git")),
            (&strict_port, "/srv/a.git", None),
            (&force, "https://u:p@h:8443/a/b.git", Some("ssh://git@h/a/b.git")),
            (&force, "https://h/a b.git", Some("ssh://git@h/a%20b.git")),
            (&force, "http://h/a.git", None),
            (&force, "ssh://me@h:99/a", None),
            (&user, "ssh://me@h:99/a", Some("ssh://x@h/a")),
            (&port, "https://h/a", Some("ssh://bob@h:2222/a")),
            (&elsewhere, "https://h/a.git", None),
            (&both, "git@h:a.git", Some("https://h/a.git")),
        ] {
            assert_eq!(converted(url, git).as_deref(), expected, "{url}");
        }
    }

    proptest! {
        #[test]
        fn a_conversion_keeps_the_host_and_adds_no_password(
            url in prop_oneof!["\\PC{0,32}", "(ssh|https|http|git)://([a-z]{0,4}(:[a-z]{1,4})?@)?[a-z0-9.-]{1,9}(:[0-9]{1,5})?/[a-z /]{0,9}", "([a-z]{1,4}@)?[a-z.]{1,9}:[a-z/]{1,9}"],
            force: bool,
            login: bool,
        ) {
            let start = if login { with_login() } else { GitSettings::default() };
            let git = GitSettings { force_ssh_protocol: force, ..start };
            if let Some(new) = converted(&url, &git) {
                let host = host_of(&url).unwrap();
                prop_assert!(host.contains(['?', '#']) || host_of(&new).is_some_and(|new| new == host));
                let pass = |url: &str| Parts::parse(url).and_then(|parts| parts.pass.map(str::to_owned));
                prop_assert!(pass(&new).is_none() || pass(&new) == pass(&url));
                prop_assert!(!new.starts_with("ssh://") || pass(&new).is_none() || !force);
            }
        }
    }
}
